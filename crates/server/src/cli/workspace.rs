//! `hookturn workspace`: the customer accounts of the operator.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hookturn_core::time::Clock;
use serde_json::{Map, Value, json};

use super::args::{Clearable, Id, IfVersion, Name, Paging, Span, Why};
use super::client::Request;
use super::exit::Failure;
use super::input;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Workspace {
    /// Make a workspace; needs an operator key.
    Create {
        /// Unique: letters, digits, dot, dash and underscore.
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// List the workspaces that the key reaches.
    List(Paging),
    /// Show a workspace.
    Show {
        /// Its id or its name.
        #[arg(value_name = "ID|NAME")]
        called: Name,
    },
    /// Change a workspace. What is not named stays.
    Update(Update),
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Its id or its name.
    #[arg(value_name = "ID|NAME")]
    called: Name,
    /// Another name: letters, digits, dot, dash and underscore.
    #[arg(long)]
    name: Option<String>,
    /// Whether the values of secrets can be shown again; changing it needs the scope `secrets` too.
    #[arg(long, value_name = "POLICY", value_parser = ["allowed", "never"])]
    reveal_secrets: Option<String>,
    /// Overlap of a dialect's rotate call, such as 24h; `none` to rotate at once.
    #[arg(long, value_name = "SPAN|none")]
    rotation_overlap: Option<Clearable<Span>>,
    /// The app that receives Hookturn's own events; `none` for none.
    #[arg(long, value_name = "APP|none")]
    operational_app: Option<Clearable<Id>>,
    /// JSON file with other header names by preset, as a whole, `-` for standard input:
    /// {"standard": {"id": "acme-id", "timestamp": "acme-time", "signature": "acme-signature"}}.
    #[arg(long, value_name = "FILE")]
    header_names_file: Option<PathBuf>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    version: IfVersion,
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("SHARED KEYRING", "sharedKeyringId"),
    ("REVEAL", "revealSecrets"),
    ("CREATED", "createdAt"),
];

impl Planned for Workspace {
    fn plan(self, _clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::Create { name, why } => {
                let body = why.into(json!({"name": name}));
                Plan::object(Request::post("/v1/workspaces", &body))
            }
            Self::List(paging) => Plan::list(Request::get("/v1/workspaces"), paging, COLUMNS),
            Self::Show { called } => Plan::object(Request::get(format!("/v1/workspaces/{called}"))),
            Self::Update(update) => update.plan()?,
        })
    }
}

impl Update {
    fn plan(self) -> Result<Plan, Failure> {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("name", self.name.map(Value::from));
        put("revealSecrets", self.reveal_secrets.map(Value::from));
        let seconds = |overlap: Span| overlap.seconds().into();
        let overlap = self.rotation_overlap.map(|overlap| overlap.json(seconds));
        put("rotationOverlapSeconds", overlap);
        let id = |app: Id| app.to_string().into();
        put(
            "operationalApp",
            self.operational_app.map(|app| app.json(id)),
        );
        if let Some(path) = &self.header_names_file {
            let text = input::text(path, input::BODY_BYTES)?;
            let names = serde_json::from_str(&text).map_err(|error| {
                Failure::usage(format!("{} is not JSON: {error}", path.display()))
            })?;
            put("headerNames", Some(names));
        }
        if body.is_empty() {
            return Err(
                Failure::usage("nothing to change was named; nothing was sent")
                    .next("name it, such as --reveal-secrets never or --rotation-overlap 24h"),
            );
        }
        let path = format!("/v1/workspaces/{}", self.called);
        let request = Request::patch(path, &self.why.into(body.into()));
        Ok(Plan::object(request.if_match(self.version.if_version)))
    }
}
