//! `hookturn workspace`: the customer accounts of the operator.

use clap::Subcommand;
use hookturn_core::time::Clock;
use serde_json::json;

use super::args::{Id, Paging};
use super::client::Request;
use super::exit::Failure;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Workspace {
    /// Make a workspace; needs an operator key.
    Create {
        /// Unique: letters, digits, dot, dash and underscore.
        name: String,
    },
    /// List the workspaces that the key reaches.
    List(Paging),
    /// Show a workspace.
    Show {
        /// Its id.
        id: Id,
    },
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
            Self::Create { name } => {
                Plan::object(Request::post("/v1/workspaces", &json!({"name": name})))
            }
            Self::List(paging) => Plan::list(Request::get("/v1/workspaces"), paging, COLUMNS),
            Self::Show { id } => Plan::object(Request::get(format!("/v1/workspaces/{id}"))),
        })
    }
}
