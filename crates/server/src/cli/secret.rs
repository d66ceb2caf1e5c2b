//! `hookturn secret`: the secrets of a keyring.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hookturn_core::time::Clock;
use serde_json::json;

use super::args::{Id, IfKeyringVersion, Paging, Span, ValueOut, Why};
use super::client::Request;
use super::exit::Failure;
use super::input;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// List a keyring's secrets: states and fingerprints, never values.
    List {
        /// The keyring's id.
        keyring: Id,
        #[command(flatten)]
        paging: Paging,
    },
    /// Make a secret: the first one of a keyring is active at once, later ones are pending.
    ///
    /// The value is shown once. If the answer gets lost, the request is sent once more with the
    /// same Idempotency-Key, and the server answers the same value instead of making another.
    Create(Create),
    /// Make a pending secret the active one.
    Activate {
        #[command(flatten)]
        place: Place,
        /// How long the old one may still sign, such as 24h; as the rotation was opened without.
        #[arg(long, value_name = "SPAN")]
        overlap: Option<Span>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        version: IfKeyringVersion,
    },
    /// Show the value of a secret. This is written into the audit log.
    Reveal {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        out: ValueOut,
    },
    /// Mark a secret as leaked: it is never a fallback again. Rotate next.
    Compromise {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        version: IfKeyringVersion,
    },
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The keyring's id.
    keyring: Id,
    /// The secret's id.
    secret: Id,
}

impl Place {
    fn path(&self, what: &str) -> String {
        format!(
            "/v1/keyrings/{}/secrets/{}/{what}",
            self.keyring, self.secret
        )
    }
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The keyring's id.
    keyring: Id,
    /// What it is called.
    #[arg(long)]
    name: Option<String>,
    /// Import the value from this file, `-` for standard input; generated without.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Destroy a secret that is pending already, to make room.
    #[arg(long)]
    replace_pending: bool,
    /// How long the old secret may still sign once this one is activated, such as 24h; the server's
    /// default without.
    #[arg(long, value_name = "SPAN")]
    overlap: Option<Span>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    out: ValueOut,
    #[command(flatten)]
    version: IfKeyringVersion,
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("VERSION", "version"),
    ("NAME", "name"),
    ("FINGERPRINT", "fingerprint"),
    ("STATUS", "status"),
    ("RETIRES", "retireAt"),
    ("COMPROMISED", "compromisedAt"),
    ("CREATED", "createdAt"),
];

impl Planned for Secret {
    fn plan(self, _clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::List { keyring, paging } => {
                let request = Request::get(format!("/v1/keyrings/{keyring}/secrets"));
                Plan::list(request, paging, COLUMNS)
            }
            Self::Create(create) => create.plan()?,
            Self::Activate {
                place,
                overlap,
                why,
                version,
            } => {
                let mut body = why.into(json!({}));
                if let Some(overlap) = overlap {
                    body["overlapSeconds"] = overlap.seconds().into();
                }
                let request = Request::post(place.path("activate"), &body);
                Plan::object(request.if_match(version.if_version)).effect(format!(
                    "{} is the active secret from now on. The former one is retired already if its rotation has no overlap; with one it stays live until `retireAt`, for receivers that are believed to hold it: see `hookturn secret list {}`",
                    place.secret, place.keyring
                ))
            }
            Self::Reveal { place, why, out } => {
                let request = Request::post(place.path("reveal"), &why.into(json!({})));
                Plan::object(request).value_out(out.value_out)
            }
            Self::Compromise {
                place,
                why,
                version,
            } => {
                let request = Request::post(place.path("compromise"), &why.into(json!({})));
                Plan::object(request.if_match(version.if_version))
            }
        })
    }
}

impl Create {
    fn plan(self) -> Result<Plan, Failure> {
        let mut body = self.why.into(json!({}));
        if let Some(overlap) = self.overlap {
            body["overlapSeconds"] = overlap.seconds().into();
        }
        if let Some(name) = self.name {
            body["name"] = name.into();
        }
        if let Some(path) = &self.secret_file {
            body["secret"] = input::secret_text(path)?.as_str().into();
        }
        if self.replace_pending {
            body["replacePending"] = true.into();
        }
        let request = Request::post(format!("/v1/keyrings/{}/secrets", self.keyring), &body);
        let request = request.if_match(self.version.if_version);
        let plan = Plan::object(request).value_out(self.out.value_out);
        Ok(if self.replace_pending {
            plan.effect(
                "warning: a secret that was pending is destroyed; whoever was given it holds nothing",
            )
        } else {
            plan
        })
    }
}
