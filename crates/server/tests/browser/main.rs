//! The dashboard in a real browser: the system's Chromium, driven by the scripts in `tests/judges/browser`.
//!
//! Each test starts the running program and one flow, a Node script; the flow's failure fails the test
//! with all that it said. What a flow may expect and how it waits stands at the top of
//! `tests/judges/browser/lib.mjs`; the pages that are examined are the list in `pages.mjs`.
//!
//! `cargo xtask test` installs what this needs; without it these tests fail. Pictures of the main pages
//! are left in the target directory, or where `HOOKTURN_SCREENSHOTS` says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod script;
#[expect(
    dead_code,
    unused_imports,
    reason = "these tests use a part of it only"
)]
#[path = "../support/mod.rs"]
mod support;

use script::{flow, flow_with};

#[tokio::test]
async fn somebody_signs_in_and_out_and_a_session_ends() {
    flow("sign_in").await;
}

#[tokio::test]
async fn an_app_and_an_endpoint_are_made_and_the_secret_is_shown_once() {
    flow("made_once").await;
}

#[tokio::test]
async fn a_secret_is_created_activated_and_the_activation_undone() {
    flow("activated").await;
}

#[tokio::test]
async fn g7_a_proven_rotation_is_begun_and_watched_to_its_end() {
    flow("proven").await;
}

#[tokio::test]
async fn an_overlap_is_extended() {
    flow("extended").await;
}

#[tokio::test]
async fn an_endpoint_is_edited_paused_and_deleted() {
    flow("managed").await;
}

#[tokio::test]
async fn a_session_that_expires_leads_to_sign_in_and_back() {
    flow_with("expired", &[("HOOKTURN_SESSION_SECONDS", "4")]).await;
}

#[tokio::test]
async fn nothing_moves_under_its_reader_while_live_updates_come() {
    flow("still").await;
}

#[tokio::test]
async fn everything_works_behind_a_path_prefix() {
    flow("prefixed").await;
}

#[tokio::test]
async fn deliveries_are_counted_and_sent_again() {
    flow("retried").await;
}

#[tokio::test]
async fn what_a_key_may_not_do_is_not_shown_and_refused() {
    flow("denied").await;
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_noticed() {
    flow("gone").await;
}

#[tokio::test]
async fn the_keyboard_alone_completes_a_rotation() {
    flow("keyboard").await;
}

#[tokio::test]
async fn the_first_run_shows_a_request_with_a_valid_signature() {
    flow("first_run").await;
}

#[tokio::test]
async fn a_bulk_rotation_is_planned_started_and_watched_to_its_end() {
    flow("bulk").await;
}

#[tokio::test]
async fn a_schedule_is_made_paused_and_changed() {
    flow("scheduled").await;
}

#[tokio::test]
async fn the_palette_and_the_shortcuts_are_used_by_keyboard_alone() {
    flow("palette").await;
}

#[tokio::test]
async fn hostile_text_is_text() {
    flow("hostile").await;
}

#[tokio::test]
async fn a_foreign_origin_posts_no_form() {
    flow("foreign").await;
}

#[tokio::test]
async fn every_page_in_use_is_accessible_in_both_themes_and_widths() {
    flow("pages_full").await;
}

#[tokio::test]
async fn every_empty_page_and_every_error_is_accessible_in_both_themes_and_widths() {
    flow("pages_empty").await;
}

#[tokio::test]
async fn every_sample_is_accessible_in_both_themes_and_widths() {
    flow("samples").await;
}
