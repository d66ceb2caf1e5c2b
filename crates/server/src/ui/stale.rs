//! A form that was made from what is no longer so: nothing is done, and its sender sees what happened
//! since their page was loaded.

use hookturn_core::audit::{Actor, Recorded};
use hookturn_core::time::Timestamp;

use super::UiState;
use super::error::UiError;
use super::text::{When, visible};
use super::visitor::Visitor;
use crate::service::audit::AuditFilter;

/// Entries that are told.
const TOLD: usize = 10;

/// What happened since.
#[derive(Debug, Clone)]
pub struct Stale {
    /// Where the present state is to be seen.
    pub reload: String,
    /// What was done, newest first.
    pub changes: Vec<Change>,
}

/// One thing that was done.
#[derive(Debug, Clone)]
pub struct Change {
    /// When.
    pub at: When,
    /// What, as the audit log calls it.
    pub action: String,
    /// By whom.
    pub actor: String,
    /// The fingerprint of the secret it is about.
    pub fingerprint: Option<String>,
}

impl Change {
    /// An entry of the audit log as somebody reads it.
    pub(super) fn new(recorded: &Recorded, visitor: &Visitor, now: Timestamp) -> Self {
        let actor = match recorded.context.actor {
            Actor::ApiKey(id) if id == visitor.caller.key.id => {
                format!("the key {}", visible(&visitor.caller.key.name))
            }
            Actor::System => "Hookturn".to_owned(),
            other @ (Actor::ApiKey(_) | Actor::Local | Actor::Bootstrap | Actor::Unknown) => {
                other.to_string()
            }
        };
        Self {
            at: When::new(recorded.at, now),
            action: recorded.entry.action.to_string(),
            actor,
            fingerprint: recorded.entry.fingerprint.map(|print| print.to_string()),
        }
    }
}

impl Stale {
    /// What happened to the thing with this id since a page was loaded.
    pub(super) async fn of(
        ui: &UiState,
        visitor: &Visitor,
        subject: String,
        seen: i64,
        reload: String,
    ) -> Result<Self, UiError> {
        let filter = AuditFilter {
            subject: Some(subject),
            ..AuditFilter::default()
        };
        Self::since(ui, visitor, filter, seen, reload).await
    }

    /// What happened to a thing (`subject`, an id) or by an action since a page was loaded.
    pub(super) async fn since(
        ui: &UiState,
        visitor: &Visitor,
        filter: AuditFilter,
        seen: i64,
        reload: String,
    ) -> Result<Self, UiError> {
        let filter = AuditFilter {
            since: Some(Timestamp::from_millis(seen)),
            ..filter
        };
        let found = ui
            .service
            .search_audit(&visitor.caller, &filter, None, TOLD)
            .await
            .map_err(|error| UiError::service(&error, &visitor.base))?;
        let now = ui.clock.now();
        let changes = found.entries.iter();
        Ok(Self {
            reload,
            changes: changes
                .map(|recorded| Change::new(recorded, visitor, now))
                .collect(),
        })
    }
}

/// What a sample page tells.
pub(super) fn sample(reload: String) -> Stale {
    let now = Timestamp::from_millis(1_784_505_600_000);
    Stale {
        reload,
        changes: vec![Change {
            at: When::new(now.before(5_000), now),
            action: "endpoint.updated".to_owned(),
            actor: "the key <b>ops</b>".to_owned(),
            fingerprint: None,
        }],
    }
}
