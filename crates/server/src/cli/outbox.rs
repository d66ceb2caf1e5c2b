//! `hookturn outbox`: events that applications published in their own transactions and that could not be accepted.

use clap::Subcommand;
use hookturn_core::time::Clock;

use super::args::{Id, Paging, Why};
use super::client::Request;
use super::exit::Failure;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Outbox {
    /// List the events that could not become messages, with the reason; needs an operator key.
    Refused(Paging),
    /// Publish a refused event again, when what it was refused for is mended.
    Retry {
        /// Its id, which `hookturn.publish` returned.
        event: Id,
        #[command(flatten)]
        why: Why,
    },
    /// Remove a refused event, with its payload.
    Drop {
        /// Its id.
        event: Id,
        #[command(flatten)]
        why: Why,
    },
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("APP", "clientId"),
    ("TYPE", "eventType"),
    ("EVENT ID", "eventId"),
    ("REFUSED", "refusedAt"),
    ("REASON", "reason"),
];

impl Planned for Outbox {
    fn plan(self, _clock: &dyn Clock) -> Result<Plan, Failure> {
        const PATH: &str = "/v1/outbox/refused";
        Ok(match self {
            Self::Refused(paging) => Plan::list(Request::get(PATH), paging, COLUMNS),
            Self::Retry { event, why } => {
                let path = format!("{PATH}/{event}/retry");
                let request =
                    Request::post(path, &serde_json::json!({})).because(why.for_header()?);
                Plan::sentence(
                    request,
                    format!(
                        "published {event} again; if it is refused again, `hookturn outbox refused` shows why"
                    ),
                )
            }
            Self::Drop { event, why } => {
                let request = Request::delete(format!("{PATH}/{event}")).because(why.for_header()?);
                Plan::sentence(request, format!("removed {event}"))
            }
        })
    }
}
