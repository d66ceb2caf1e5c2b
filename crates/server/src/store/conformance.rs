//! The conformance suite: what every engine behind [`Store`] must do, one function for each rule.
//!
//! A case knows nothing of the engine beyond [`Engine`]: how to get a store at an empty place, how to
//! open the same place again, and what a crash leaves behind. A new rule of the contract lands here
//! first. An engine runs the whole suite with one line in a test file:
//!
//! ```text
//! hookturn::store_conformance!(MyEngine);
//! ```
//!
//! A case panics when the engine breaks its rule. Cases share nothing and run in any order.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a case is a test: it fails by panicking"
)]

pub mod bulks;
pub mod configuration;
pub mod finishing;
pub mod ledger;
pub mod listing;
pub mod marks;
pub mod planned;
pub mod queue;
pub mod traffic;
pub mod upkeep;
pub mod world;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::store::{Hint, HintSink, Store};

use super::live::Live;

/// An engine, as far as the suite needs to know it.
pub trait Engine: Send + Sync {
    /// Where one store lives: a directory, a schema. What it holds goes away with the value.
    type Place: Send + Sync;

    /// A place with nothing in it.
    fn fresh(&self) -> impl Future<Output = Self::Place> + Send;

    /// Opens the store of a place, as at the start of the process: the live view is loaded.
    fn open(
        &self,
        place: &Self::Place,
        live: Arc<Live>,
        hints: Arc<dyn HintSink>,
    ) -> impl Future<Output = Arc<dyn Store>> + Send;

    /// A place with what another process would find, had this one been killed now. The store of the
    /// first place may still be open.
    fn crash(&self, place: &Self::Place) -> impl Future<Output = Self::Place> + Send;

    /// A path that does not exist, for a backup.
    fn backup_path(&self, place: &Self::Place) -> PathBuf;

    /// A place with the contents of a backup.
    fn restore(&self, backup: &Path) -> impl Future<Output = Self::Place> + Send;

    /// The engine's own check of a closed place; panics with what it found.
    fn check(&self, place: &Self::Place) -> impl Future<Output = ()> + Send;

    /// Tries to change and to remove stored audit entries with the engine's own means, beside the
    /// store. Returns whether any of it worked.
    fn rewrite_audit(&self, place: &Self::Place) -> impl Future<Output = bool> + Send;
}

/// Keeps every hint until someone takes them.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Hint>>);

impl Recorder {
    /// The hints since the last call, in order.
    pub fn take(&self) -> Vec<Hint> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HintSink for Recorder {
    fn hint(&self, hints: Vec<Hint>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(hints);
    }
}

/// Makes a test of every case, for the engine that the expression makes.
#[macro_export]
macro_rules! store_conformance {
    ($engine:expr) => {
        $crate::store_conformance! { @ $engine;
            configuration:
                a_change_is_shown_by_the_live_view_when_it_is_answered,
                a_refused_change_leaves_nothing_behind,
                g5_of_many_changes_of_one_version_one_wins,
                a_first_version_must_not_exist_and_a_later_one_must,
                unique_names_and_hashes_are_taken_once,
                everything_configured_survives_a_restart,
                g4_an_erased_secret_is_gone_everywhere,
                a_reseal_swaps_only_what_still_is_the_old_value,
                findings_are_kept_until_their_endpoint_is_forgotten,
                the_last_use_of_a_key_only_moves_forward,
                what_was_counted_is_kept_by_workspace_and_forgotten_by_age,
                rotations_are_paged_newest_first;
            marks:
                a_secret_is_found_by_its_mark_also_when_its_value_is_erased,
                secrets_without_a_mark_are_listed_until_they_have_one,
                the_key_of_the_marks_is_replaced_only_by_who_knows_it;
            bulks:
                a_bulk_rotation_and_its_items_survive_a_restart,
                g5_an_item_of_a_bulk_rotation_is_moved_once,
                items_are_read_and_counted_by_place_and_kind,
                bulk_rotations_are_paged_newest_first;
            ledger:
                g9_the_audit_chain_continues_over_a_restart_and_a_crash,
                g9_a_stored_audit_entry_cannot_be_rewritten,
                g9_each_workspace_has_a_chain_of_its_own,
                g5_an_idempotency_key_is_used_once_until_it_expires,
                g4_an_erased_secret_takes_the_answers_that_show_it_with_it,
                an_accept_with_a_used_key_accepts_nothing;
            planned:
                g1_a_report_is_accepted_with_its_place_or_not_at_all,
                a_log_that_grew_is_unreported_until_it_is_reported,
                what_an_owner_was_told_survives_a_restart,
                g5_a_schedule_has_one_winner_and_takes_its_notes_with_it;
            traffic:
                g1_an_accepted_message_survives_a_crash,
                an_accept_is_all_or_nothing,
                hints_carry_exactly_the_accepted_rows_in_order,
                a_message_without_deliveries_is_kept,
                event_types_are_listed_sorted_per_workspace;
            queue:
                due_rows_come_in_order_and_up_to_a_time,
                a_due_block_ends_at_its_limit_or_its_bytes,
                blocks_that_are_asked_for_at_once_are_told_apart,
                a_block_may_be_without_the_rows_that_are_held,
                due_endpoints_name_the_earliest_row_of_each,
                a_pending_delivery_can_be_queued_at_once,
                a_settled_delivery_can_be_queued_again,
                a_delivery_that_is_not_as_it_was_seen_is_not_queued,
                recovering_goes_in_blocks_and_can_be_counted_first;
            finishing:
                a_delivered_row_is_settled_with_its_attempt,
                an_attempt_says_which_requests_were_sent_twice,
                a_failed_row_waits_for_its_retry,
                an_ordered_row_keeps_its_place_while_it_waits,
                what_waits_is_put_in_order_with_the_endpoint,
                g2_a_change_of_an_ordered_endpoint_moves_nothing,
                an_exhausted_row_says_why,
                a_row_settles_without_an_attempt_when_its_endpoint_went_away,
                g1_a_row_that_was_queued_meanwhile_stays_and_keeps_both_attempts,
                a_finish_applies_even_if_nobody_waits_for_it,
                a_finish_for_something_unknown_does_not_hold_the_others,
                g1_finished_work_survives_a_crash,
                a_receiver_is_remembered_with_the_finish;
            listing:
                deliveries_are_filtered_by_everything_together,
                pages_of_pending_and_settled_deliveries_have_no_gap_and_no_repeat,
                a_delivery_is_found_at_every_moment_while_it_settles,
                a_new_event_type_never_disturbs_a_reader,
                a_search_finds_what_it_names_in_steps_of_any_size,
                a_search_finds_the_same_over_many_apps,
                a_search_looks_into_attempts_and_payloads,
                messages_are_paged_within_their_times,
                nothing_is_read_across_workspaces;
            upkeep:
                g1_pruning_keeps_what_is_pending,
                pruning_goes_in_blocks_until_nothing_is_left,
                g1_pruning_goes_past_much_that_is_pending,
                bulk_rotations_that_are_over_go_with_their_items,
                items_without_their_bulk_rotation_go,
                what_a_removed_app_left_is_listed_until_it_is_pruned,
                a_backup_taken_while_writing_opens_with_the_same_contents,
                a_backup_never_replaces_a_file,
                stats_count_what_is_due,
                ids_of_a_sequence_sort_in_the_order_of_asking;
        }
    };
    (@ $engine:expr; $($module:ident: $($case:ident),+;)+) => {$(
        $(
            #[tokio::test]
            async fn $case() {
                $crate::store::conformance::$module::$case(&$engine).await;
            }
        )+
    )+};
}
