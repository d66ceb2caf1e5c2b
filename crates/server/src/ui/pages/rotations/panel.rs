//! How a rotation stands: its stages, its secrets, and what is known of each endpoint.

use hookturn_core::proof::{OnDeadline, ProofPolicy, Standing, policy_of, required_passes};
use hookturn_core::rotation::{Keyring, Mode, PromotionGrounds, Rotation, Stage};
use hookturn_core::time::Timestamp;

use super::super::super::ring::{SecretView, User};
use super::super::super::text::{When, visible};
use crate::service::proving::EndpointStanding;

/// How a rotation stands at one moment.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its id.
    pub id: String,
    /// How it moves.
    pub mode: &'static str,
    /// Where it is.
    pub stage: &'static str,
    /// Whether it is open.
    pub is_open: bool,
    /// Whether the page asks again by itself.
    pub is_moving: bool,
    /// What deliveries are signed with now.
    pub sentence: &'static str,
    /// The way through its stages.
    pub steps: Vec<StepView>,
    /// When it was opened.
    pub opened: When,
    /// Why.
    pub reason: Option<String>,
    /// The secret that was active when it opened.
    pub from: Option<SecretView>,
    /// The secret it brings.
    pub to: Option<SecretView>,
    /// When the secret that leaves is retired.
    pub retires: Option<When>,
    /// When it was over.
    pub ended: Option<When>,
    /// On what grounds its new secret became active, and when.
    pub promoted: Option<(String, When)>,
    /// What is known of each endpoint that counts.
    pub endpoints: Vec<EndpointView>,
    /// How many of them are proved.
    pub proved: usize,
    /// When any of them last needed the old secret.
    pub last_needed: Option<When>,
    /// Whether it asks for proof.
    pub is_proven: bool,
    /// Whether its owner asked that the secret which leaves stays until its end.
    pub is_kept: bool,
    /// The time until which its owner asked that it stays, where its end has moved beyond that since.
    pub kept_before_end: Option<When>,
    /// Whether that end moves while the secret is needed.
    pub extends: bool,
}

/// One stage on the way.
#[derive(Debug, Clone)]
pub struct StepView {
    /// The word.
    pub word: &'static str,
    /// Whether it is the present one.
    pub is_now: bool,
    /// Whether it is behind.
    pub is_done: bool,
}

/// What is known of one endpoint.
#[derive(Debug, Clone)]
pub struct EndpointView {
    /// It.
    pub user: User,
    /// Where it stands, in the API's words.
    pub standing: String,
    /// The class that colours it.
    pub tone: &'static str,
    /// The same in a sentence.
    pub words: String,
    /// The time that ends that.
    pub moment: Option<When>,
    /// Whether it is not seen to hold the new secret, although that is active: said before anything else.
    pub is_behind: bool,
    /// How its receiver verifies, as the last rehearsal found.
    pub class: Option<&'static str>,
    /// Passes in a row.
    pub passes: u32,
    /// Passes that are needed.
    pub needed: u32,
    /// The passes in a row, no more than are needed.
    pub counted: u32,
    /// Passes of probes and of deliveries in all.
    pub of_probes: u32,
    /// See `of_probes`.
    pub of_deliveries: u32,
    /// Refusals in all.
    pub refusals: u32,
    /// The share of deliveries that the new secret signs first, in percent.
    pub canary_percent: u8,
    /// The latest pass.
    pub passed: Option<When>,
    /// When the old secret was last needed.
    pub old_needed: Option<When>,
}

impl EndpointView {
    fn new(known: &EndpointStanding, policy: &ProofPolicy, stage: Stage, now: Timestamp) -> Self {
        let evidence = &known.evidence;
        let when = |at: Option<Timestamp>| at.map(|at| When::new(at, now));
        let needed = required_passes(policy, evidence.broken);
        Self {
            user: User::new(&known.endpoint),
            standing: known.standing.as_str().replace('_', " "),
            tone: match known.standing {
                Standing::Proved { .. } => "good",
                Standing::NotReady { .. } | Standing::DoesNotVerify { .. } => "bad",
                Standing::NotAsked
                | Standing::Unreachable
                | Standing::Collecting { .. }
                | Standing::AwaitingControl { .. }
                | Standing::HoldingDown { .. } => "warn",
            },
            words: known.phrase(policy),
            moment: when(known.standing.moment()),
            is_behind: is_behind(known, stage),
            class: known.rehearsed.map(|found| found.class().as_str()),
            passes: evidence.run,
            needed,
            counted: evidence.run.min(needed),
            of_probes: evidence.probe_passes,
            of_deliveries: evidence.delivery_passes,
            refusals: evidence.refusals,
            canary_percent: evidence.canary_percent(policy),
            passed: when(evidence.passed_at),
            old_needed: when(evidence.old_needed_at),
        }
    }
}

/// Whether a receiver is not seen to hold the new secret at a stage where that signs. That nothing was delivered by
/// the old one alone says little then: a message that both signed may be accepted for the old one.
fn is_behind(known: &EndpointStanding, stage: Stage) -> bool {
    let promoted = matches!(stage, Stage::Overlap { .. } | Stage::Completed { .. });
    let behind = match known.standing {
        Standing::NotReady { .. } | Standing::DoesNotVerify { .. } | Standing::Unreachable => true,
        // What is known of a rotation that is over may be forgotten.
        Standing::NotAsked
        | Standing::Collecting { .. }
        | Standing::AwaitingControl { .. }
        | Standing::HoldingDown { .. } => stage.is_open() && known.evidence.passed_at.is_none(),
        Standing::Proved { .. } => false,
    };
    promoted && behind
}

impl Panel {
    /// Whether its new secret is pending.
    pub fn is_staged(&self) -> bool {
        self.stage == "staged"
    }

    /// Whether some receiver is not seen to hold the new secret, although that is active.
    pub fn is_behind(&self) -> bool {
        // Where nothing is asked, nothing is seen.
        self.is_proven && self.endpoints.iter().any(|endpoint| endpoint.is_behind)
    }

    /// How `rotation` stands at `now`. The keyring is none when it is gone with its endpoint.
    pub(super) fn new(
        rotation: &Rotation,
        keyring: Option<&Keyring>,
        standings: &[EndpointStanding],
        now: Timestamp,
    ) -> Self {
        let stage = rotation.stage.at(now);
        let when = |at| When::new(at, now);
        let (retires, ended) = match stage {
            Stage::Staged => (None, None),
            Stage::Overlap { retire_at } => (Some(retire_at), None),
            Stage::Completed { at } | Stage::Cancelled { at } => (None, Some(at)),
            Stage::Undone { at, retire_at } => (Some(retire_at).filter(|end| now < *end), Some(at)),
        };
        let kept = rotation.kept_at(now);
        let is_proven = matches!(rotation.mode, Mode::Proven { .. });
        let policy = policy_of(rotation);
        let secret = |id| {
            let found = keyring.and_then(|keyring| keyring.secret(id));
            found.map(|secret| SecretView::new(secret, now))
        };
        let needed = standings.iter().map(|known| known.evidence.old_needed_at);
        let proved = |known: &&EndpointStanding| matches!(known.standing, Standing::Proved { .. });
        Self {
            id: rotation.id.to_string(),
            mode: rotation.mode.as_str(),
            stage: stage.as_str(),
            is_open: stage.is_open(),
            is_moving: stage.is_open() || retires.is_some(),
            sentence: sentence(rotation.mode, stage, now),
            steps: steps(rotation.mode, stage),
            opened: when(rotation.opened_at),
            reason: rotation.reason.as_deref().map(visible),
            from: secret(rotation.from),
            to: secret(rotation.to),
            retires: retires.map(when),
            ended: ended.map(when),
            promoted: promoted(rotation).map(|(why, at)| (why, when(at))),
            endpoints: standings
                .iter()
                .map(|known| EndpointView::new(known, &policy, stage, now))
                .collect(),
            proved: standings.iter().filter(proved).count(),
            last_needed: needed.max().flatten().map(when),
            is_proven,
            is_kept: kept.is_some() && kept == retires,
            kept_before_end: kept.filter(|_| kept < retires).map(when),
            extends: policy.on_deadline == OnDeadline::Extend,
        }
    }
}

/// When the new secret became active, and why. Modes that wait for nothing have no promotion on record.
fn promoted(rotation: &Rotation) -> Option<(String, Timestamp)> {
    if let Some(made) = &rotation.promotion {
        return Some((grounds(&made.grounds), made.at));
    }
    match rotation.mode {
        Mode::Immediate | Mode::Overlap { .. } => Some((
            "with its opening: this mode waits for nothing".to_owned(),
            rotation.opened_at,
        )),
        Mode::Staged { .. } | Mode::Proven { .. } => None,
    }
}

/// What deliveries are signed with now.
fn sentence(mode: Mode, stage: Stage, now: Timestamp) -> &'static str {
    match stage {
        Stage::Staged if matches!(mode, Mode::Proven { .. }) => {
            "The old secret signs, and the new one repairs what is refused. Probes and a small share of deliveries are signed with the new one alone, to find out whether the receiver holds it."
        }
        Stage::Staged => {
            "The old secret signs; the new one is used beside it or after it only, and waits to be activated."
        }
        Stage::Overlap { .. } => {
            "Both secrets are live: what the receiver refuses with one is sent again at once with the other."
        }
        Stage::Completed { .. } => "The new secret alone signs; the old one signs no longer.",
        Stage::Cancelled { .. } => {
            "The new secret was dropped before it was active; the old one signs as before."
        }
        Stage::Undone { retire_at, .. } if now < retire_at => {
            "The old secret is active again; the new one stays live for receivers that had switched."
        }
        Stage::Undone { .. } => "The old secret is active again; the new one signs no longer.",
    }
}

/// The stages of a mode, with where it is. What ends it another way stands at the end.
fn steps(mode: Mode, stage: Stage) -> Vec<StepView> {
    let way: &[&'static str] = match mode {
        Mode::Immediate => &["completed"],
        Mode::Overlap { .. } => &["overlap", "completed"],
        Mode::Staged { .. } | Mode::Proven { .. } => &["staged", "overlap", "completed"],
    };
    let ended = match stage {
        Stage::Cancelled { .. } => Some((1, "cancelled")),
        Stage::Undone { .. } => Some((way.len(), "undone")),
        Stage::Staged | Stage::Overlap { .. } | Stage::Completed { .. } => None,
    };
    let mut words: Vec<&'static str> = match ended {
        Some((kept, word)) => way.iter().take(kept).copied().chain([word]).collect(),
        None => way.to_vec(),
    };
    words.insert(0, "opened");
    let present = words.iter().position(|word| *word == stage.as_str());
    let present = present.unwrap_or(0);
    let step = |(at, word): (usize, &'static str)| StepView {
        word,
        is_now: at == present,
        is_done: at < present,
    };
    words.into_iter().enumerate().map(step).collect()
}

fn grounds(grounds: &PromotionGrounds) -> String {
    match grounds {
        PromotionGrounds::Asked => "because its owner asked".to_owned(),
        PromotionGrounds::Force => "by force, without proof".to_owned(),
        PromotionGrounds::Proof { endpoints } => {
            let passes = endpoints.iter().map(|proved| proved.passes);
            let fewest = passes.min().unwrap_or(0);
            let count = endpoints.len();
            let noun = if count == 1 { "endpoint" } else { "endpoints" };
            format!(
                "proved by {count} {noun}, each with at least {fewest} passes in a row and a refused random key"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use hookturn_core::id::{KeyringId, RotationId, SecretId, WorkspaceId};
    use hookturn_core::time::DAY;

    use super::*;

    #[test]
    fn an_end_that_moved_beyond_what_was_asked_for_is_not_said_to_be_asked_for() {
        let at = |days: u64| Timestamp::EPOCH.after(days * DAY);
        let shown = |kept_until, now| {
            let rotation = Rotation {
                id: RotationId::from_bytes([1; 16]),
                keyring: KeyringId::from_bytes([2; 16]),
                workspace: WorkspaceId::from_bytes([3; 16]),
                mode: Mode::Proven {
                    policy: ProofPolicy::default(),
                },
                opened_at: at(0),
                from: SecretId::from_bytes([4; 16]),
                to: SecretId::from_bytes([5; 16]),
                stage: Stage::Overlap { retire_at: at(20) },
                reason: None,
                promotion: None,
                kept_until,
                version: 1,
            };
            let panel = Panel::new(&rotation, None, &[], now);
            (panel.is_kept, panel.kept_before_end.is_some())
        };
        assert_eq!(shown(None, at(1)), (false, false));
        assert_eq!(shown(Some(at(20)), at(1)), (true, false));
        assert_eq!(shown(Some(at(10)), at(1)), (false, true));
        assert_eq!(shown(Some(at(10)), at(10)), (false, false));
    }
}
