//! `hookturn delivery`: what became of each message at each endpoint.

use clap::{Args, Subcommand};
use hookturn_core::time::Clock;
use serde_json::json;

use super::args::{Id, Paging, When};
use super::client::Request;
use super::exit::Failure;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Delivery {
    /// List an app's deliveries, newest first.
    List(Box<List>),
    /// Show a delivery with its attempts: what was signed by which secret, and what came back.
    Show {
        /// Its id.
        delivery: Id,
    },
    /// Queue a delivery again, due now, whatever its state.
    Retry {
        /// Its id.
        delivery: Id,
    },
    /// Queue an endpoint's settled deliveries of a time again.
    Recover(Recover),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The app's id.
    app: Id,
    /// Only in this state.
    #[arg(long, value_parser = ["pending", "delivered", "exhausted"])]
    status: Option<String>,
    /// Only for this endpoint.
    #[arg(long, value_name = "ID")]
    endpoint: Option<Id>,
    /// Only of this event type.
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// Only of this message.
    #[arg(long, value_name = "ID")]
    message: Option<Id>,
    /// Created at or after this time; a span such as 2h counts back from now.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Created before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// The app's id.
    app: Id,
    /// The endpoint's id.
    endpoint: Id,
    /// Created at or after this time; a span such as 2h counts back from now.
    #[arg(long, value_name = "TIME")]
    since: When,
    /// Created before this time; now without.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Which ones.
    #[arg(long, value_parser = ["exhausted", "delivered"], default_value = "exhausted")]
    status: String,
    /// Count only; nothing is queued.
    #[arg(long)]
    dry_run: bool,
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("STATUS", "status"),
    ("ATTEMPTS", "attemptCount"),
    ("EVENT TYPE", "eventType"),
    ("ENDPOINT", "endpointId"),
    ("MESSAGE", "messageId"),
    ("DUE", "dueAt"),
    ("SETTLED", "settledAt"),
    ("EXHAUSTED", "exhaustedReason"),
];

impl Planned for Delivery {
    fn plan(self, clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::List(list) => {
                let request = Request::get(format!("/v1/apps/{}/deliveries", list.app))
                    .with("status", list.status)
                    .with("endpointId", list.endpoint)
                    .with("eventType", list.event_type)
                    .with("messageId", list.message)
                    .with("since", list.since.map(|when| when.past(clock)))
                    .with("until", list.until.map(|when| when.past(clock)));
                Plan::list(request, list.paging, COLUMNS)
            }
            Self::Show { delivery } => {
                Plan::object(Request::get(format!("/v1/deliveries/{delivery}")))
            }
            Self::Retry { delivery } => {
                let path = format!("/v1/deliveries/{delivery}/retry");
                Plan::object(Request::post(path, &json!({})))
            }
            Self::Recover(recover) => {
                let mut body = json!({
                    "since": recover.since.past(clock),
                    "status": recover.status,
                    "dryRun": recover.dry_run,
                });
                if let Some(until) = recover.until {
                    body["until"] = until.past(clock).to_string().into();
                }
                let Recover { app, endpoint, .. } = &recover;
                let path = format!("/v1/apps/{app}/endpoints/{endpoint}/recover");
                Plan::object(Request::post(path, &body))
            }
        })
    }
}
