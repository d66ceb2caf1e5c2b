//! `hookturn api-key`: who may call the API.

use clap::Subcommand;
use hookturn_core::time::Clock;
use hookturn_core::workspace::Scope;
use serde_json::json;

use super::args::{Id, Paging, ValueOut, When, Why};
use super::client::Request;
use super::exit::Failure;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum ApiKey {
    /// Make a key; its text is shown once.
    Create {
        /// For people.
        name: String,
        /// What it may do: publish, manage, secrets, read; may be repeated. Never more than the key
        /// that makes it.
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',',
            value_parser = scope)]
        scopes: Vec<Scope>,
        /// What it reaches: this workspace, or as `operator` all of them.
        #[arg(long, value_parser = ["workspace", "operator"], default_value = "workspace")]
        reach: String,
        /// A word in the key's text.
        #[arg(long, value_parser = ["test", "prod"], default_value = "test")]
        environment: String,
        /// From when on it is refused; a span such as 90d counts from now on.
        #[arg(long, value_name = "TIME")]
        expires: Option<When>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        out: ValueOut,
    },
    /// List keys, newest first, never their texts.
    List(Paging),
    /// Refuse a key from a moment on, such as the end of a hand-over to another one.
    Expire {
        /// Its id.
        key: Id,
        /// From when on; a span such as 2h counts from now on.
        #[arg(long, value_name = "TIME")]
        at: When,
        #[command(flatten)]
        why: Why,
    },
    /// Refuse a key from now on.
    Revoke {
        /// Its id.
        key: Id,
        #[command(flatten)]
        why: Why,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse::<Scope>().map_err(|error| error.to_string())
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("REACH", "reach"),
    ("SCOPES", "scopes"),
    ("ENDS IN", "hint"),
    ("CREATED", "createdAt"),
    ("EXPIRES", "expiresAt"),
    ("REVOKED", "revokedAt"),
    ("LAST USED", "lastUsedAt"),
];

impl Planned for ApiKey {
    fn plan(self, clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::Create {
                name,
                scopes,
                reach,
                environment,
                expires,
                why,
                out,
            } => {
                let scopes: Vec<_> = scopes.into_iter().map(Scope::as_str).collect();
                let body = json!({"name": name, "scopes": scopes, "reach": reach});
                let mut body = why.into(body);
                if reach == "workspace" {
                    body["environment"] = environment.into();
                }
                if let Some(expires) = expires {
                    body["expiresAt"] = expires.future(clock).to_string().into();
                }
                Plan::object(Request::post("/v1/api-keys", &body)).value_out(out.value_out)
            }
            Self::List(paging) => Plan::list(Request::get("/v1/api-keys"), paging, COLUMNS),
            Self::Expire { key, at, why } => {
                let body = why.into(json!({"expiresAt": at.future(clock)}));
                Plan::object(Request::patch(format!("/v1/api-keys/{key}"), &body))
            }
            Self::Revoke { key, why } => Plan::sentence(
                Request::delete(format!("/v1/api-keys/{key}")).because(why.for_header()?),
                format!("revoked {key}; it is refused from now on"),
            ),
        })
    }
}
