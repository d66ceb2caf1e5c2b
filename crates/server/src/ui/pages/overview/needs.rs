//! What needs somebody, as the first page lists it: each with the page where it is dealt with.

use hookturn_core::proof::Standing;
use hookturn_core::rotation::{Keyring, Mode, Rotation, Stage};
use hookturn_core::time::Timestamp;

use super::super::super::UiState;
use super::super::super::error::UiError;
use super::super::super::ring::{Ring, SecretView, User};
use super::super::super::text::{State, When};
use super::super::super::visitor::Visitor;
use super::super::apps::app::{note_of, state_of};
use crate::service::attention::{Attention, Cut};
use crate::service::proving::EndpointStanding;

/// One thing that needs somebody.
#[derive(Debug, Clone)]
pub struct Need {
    /// What is wrong, in a word.
    pub state: State,
    /// Where it is dealt with, relative to the base.
    pub path: String,
    /// What it is about.
    pub name: String,
    /// What is so, or what it waits for.
    pub note: String,
    /// Since when.
    pub since: Option<When>,
}

/// Everything, what stops deliveries first.
pub(super) async fn of(
    ui: &UiState,
    visitor: &Visitor,
    attention: &Attention,
) -> Result<Vec<Need>, UiError> {
    let now = ui.clock.now();
    let mut needs = Vec::new();
    for (endpoint, receiver) in &attention.endpoints.shown {
        let user = User::new(endpoint);
        let when = |at| When::new(at, now);
        let failing = receiver
            .failing_since
            .filter(|_| endpoint.state.takes_messages());
        needs.push(Need {
            state: failing.map_or_else(|| state_of(&endpoint.state), |_| State::bad("failing")),
            path: user.path,
            name: user.url,
            note: match failing {
                Some(_) => counted(receiver.failures),
                None => note_of(&endpoint.state, now),
            },
            since: failing.map(when),
        });
    }
    more(
        &mut needs,
        &attention.endpoints,
        "apps",
        "endpoints that fail or are disabled",
    );
    for (keyring, rotation) in &attention.rotations.shown {
        needs.push(Need {
            state: State::waiting("rotation open"),
            path: format!("rotations/{}", rotation.id),
            name: title(ui, visitor, keyring).await?,
            note: waits_for(ui, visitor, rotation, now).await?,
            since: Some(When::new(rotation.opened_at, now)),
        });
    }
    more(
        &mut needs,
        &attention.rotations,
        "rotations?state=open",
        "open rotations",
    );
    for endpoint in &attention.unverifying.shown {
        let user = User::new(endpoint);
        needs.push(Need {
            state: State::bad("verifies nothing"),
            path: user.path,
            name: user.url,
            note: "it accepted a request signed with a random key: anybody can send to it"
                .to_owned(),
            since: None,
        });
    }
    more(
        &mut needs,
        &attention.unverifying,
        "apps",
        "endpoints that verify nothing",
    );
    for (keyring, secret, since) in &attention.secrets.shown {
        let shown = SecretView::new(secret, now);
        needs.push(Need {
            state: State::waiting("old secret"),
            path: format!("keyrings/{}", keyring.id),
            name: title(ui, visitor, keyring).await?,
            note: format!(
                "{} ({}) signs for more than 90 days: rotate it",
                shown.name, shown.fingerprint
            ),
            since: Some(When::new(*since, now)),
        });
    }
    more(&mut needs, &attention.secrets, "secrets", "old secrets");
    Ok(needs)
}

/// A row for those that are not shown.
fn more<T>(needs: &mut Vec<Need>, cut: &Cut<T>, path: &str, what: &str) {
    let hidden = cut.all - cut.shown.len();
    if hidden > 0 {
        needs.push(Need {
            state: State::waiting("more"),
            path: path.to_owned(),
            name: format!("{hidden} more"),
            note: what.to_owned(),
            since: None,
        });
    }
}

/// Attempts that failed in a row; they are counted up to a limit.
fn counted(failures: u32) -> String {
    match failures {
        1 => "1 attempt was not accepted".to_owned(),
        hookturn_core::limits::DISABLE_AFTER_FAILURES => {
            format!("{failures} attempts or more in a row were not accepted")
        }
        _ => format!("{failures} attempts in a row were not accepted"),
    }
}

/// Whom a keyring signs for.
async fn title(ui: &UiState, visitor: &Visitor, keyring: &Keyring) -> Result<String, UiError> {
    Ok(Ring::of(ui, visitor, keyring).await?.title)
}

/// What an open rotation waits for.
async fn waits_for(
    ui: &UiState,
    visitor: &Visitor,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<String, UiError> {
    let mode = rotation.mode.as_str();
    let said = match rotation.stage.at(now) {
        Stage::Staged if matches!(rotation.mode, Mode::Proven { .. }) => {
            let standings = ui.service.standings(&visitor.caller, rotation).await;
            let standings = standings.map_err(|error| UiError::service(&error, &visitor.base))?;
            let proved =
                |known: &&EndpointStanding| matches!(known.standing, Standing::Proved { .. });
            let count = standings.iter().filter(proved).count();
            match standings.len() {
                0 => "waits for an endpoint that accepts a delivery or a test event".to_owned(),
                all => format!("waits for proof: {count} of {all} endpoints proved"),
            }
        }
        Stage::Staged => "waits until somebody activates the new secret".to_owned(),
        Stage::Overlap { retire_at } => {
            format!(
                "the old secret retires {}",
                When::new(retire_at, now).relative()
            )
        }
        stage @ (Stage::Completed { .. } | Stage::Undone { .. } | Stage::Cancelled { .. }) => {
            stage.as_str().to_owned()
        }
    };
    Ok(format!("{mode}: {said}"))
}
