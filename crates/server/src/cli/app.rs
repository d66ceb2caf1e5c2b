//! `hookturn app`: the consumers of webhooks in a workspace.

use clap::{Args, Subcommand};
use hookturn_core::time::Clock;
use serde_json::{Map, Value};

use super::args::{Clearable, Id, IfVersion, Paging, Span, Why, pair};
use super::client::Request;
use super::exit::Failure;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum App {
    /// Make an app.
    Create {
        /// For people.
        name: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        why: Why,
    },
    /// List apps, newest first.
    List(Paging),
    /// Show an app.
    Show {
        /// Its id.
        app: Id,
    },
    /// Change an app. What is not named stays.
    Update {
        /// Its id.
        app: Id,
        /// For people.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        version: IfVersion,
    },
    /// Delete an app, its endpoints and their secrets. Deliveries that wait are exhausted.
    Delete {
        /// Its id.
        app: Id,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        version: IfVersion,
    },
}

#[derive(Debug, Args)]
pub(super) struct Fields {
    /// A free text pair; may be repeated. All together replace what was there.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,

    /// Overlap of a dialect's rotate call, such as 24h; the workspace's without, or with `none`.
    #[arg(long, value_name = "SPAN|none")]
    rotation_overlap: Option<Clearable<Span>>,
}

impl Fields {
    fn put_into(self, body: &mut Map<String, Value>) {
        if !self.label.is_empty() {
            let labels: Map<_, _> = self
                .label
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect();
            body.insert("labels".into(), labels.into());
        }
        if let Some(overlap) = self.rotation_overlap {
            let seconds = overlap.json(|overlap| overlap.seconds().into());
            body.insert("rotationOverlapSeconds".into(), seconds);
        }
    }
}

const COLUMNS: &[Column] = &[
    ("ID", "clientId"),
    ("NAME", "name"),
    ("VERSION", "version"),
    ("CREATED", "createdAt"),
];

impl Planned for App {
    fn plan(self, _clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::Create { name, fields, why } => {
                let mut body = Map::from_iter([("name".to_owned(), name.into())]);
                fields.put_into(&mut body);
                Plan::object(Request::post("/v1/apps", &why.into(body.into())))
            }
            Self::List(paging) => Plan::list(Request::get("/v1/apps"), paging, COLUMNS),
            Self::Show { app } => Plan::object(Request::get(format!("/v1/apps/{app}"))),
            Self::Update {
                app,
                name,
                fields,
                why,
                version,
            } => {
                let mut body = Map::new();
                body.extend(name.map(|name| ("name".to_owned(), name.into())));
                fields.put_into(&mut body);
                let request = Request::patch(format!("/v1/apps/{app}"), &why.into(body.into()));
                Plan::object(request.if_match(version.if_version))
            }
            Self::Delete { app, why, version } => {
                let request = Request::delete(format!("/v1/apps/{app}"));
                let request = request.because(why.for_header()?);
                Plan::sentence(
                    request.if_match(version.if_version),
                    format!("deleted {app}, its endpoints and their secrets"),
                )
            }
        })
    }
}
