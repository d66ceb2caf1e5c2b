//! `hookturn rotation`: moves of a keyring from one active secret to the next.

mod rehearse;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hookturn_core::time::Clock;
use serde_json::json;

use super::args::{Id, IfKeyringVersion, Paging, Remote, Span, ValueOut, When, Why};
use super::client::Request;
use super::exit::{Failure, Outcome};
use super::output::{Column, Format, Output};
use super::plan::{Plan, Planned, carry_out};
use super::{Edge, input, plan};

#[derive(Debug, Subcommand)]
pub(super) enum Rotation {
    /// Rotate: make a new secret and move the keyring to it.
    ///
    /// The new value is shown once. If the answer gets lost, the request is sent once more with the
    /// same Idempotency-Key, and the server answers the same value instead of rotating again.
    Open(Open),
    /// List rotations, newest first.
    List {
        /// Only open ones.
        #[arg(long)]
        open: bool,
        /// Only of this keyring.
        #[arg(long, value_name = "ID")]
        keyring: Option<Id>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a rotation: where it is, and what is known of each endpoint.
    Show {
        /// Its id.
        rotation: Id,
        /// Follow it until it is over.
        #[arg(long)]
        watch: bool,
        /// How often to look while following.
        #[arg(long, value_name = "SPAN", default_value = "2s", requires = "watch")]
        every: Span,
    },
    /// List the last probes of an endpoint: the inert requests that asked its receiver about secrets.
    Probes {
        /// The endpoint's id.
        endpoint: Id,
    },
    /// Find out how an endpoint's receiver verifies, with a few inert requests.
    ///
    /// Changes nothing. It says what a rotation would mean for this receiver.
    Rehearse {
        /// The endpoint's id.
        endpoint: Id,
        #[command(flatten)]
        why: Why,
    },
    /// Ask the receivers whether they still accept the old secret, with one inert request each.
    ///
    /// Only while the old secret is retiring: a retired one signs nothing. It is the only way to see
    /// from outside that it is dropped.
    Released {
        /// The rotation's id.
        rotation: Id,
        #[command(flatten)]
        why: Why,
    },
    /// Make the pending secret of a staged or proven rotation the active one.
    Promote {
        #[command(flatten)]
        changed: Changed,
        /// Promote a proven rotation although it is not proved; it is in the audit log.
        #[arg(long)]
        force: bool,
    },
    /// Let the old secret sign for longer.
    Extend {
        #[command(flatten)]
        changed: Changed,
        /// Until when; a span such as 48h counts from now on.
        #[arg(long, value_name = "TIME")]
        until: When,
    },
    /// Make the old secret active again; the new one stays live for the overlap, or for as long as the old one had left.
    Undo(Changed),
    /// Retire the old secret now: it never signs again unless the rotation is undone.
    Finish(Changed),
    /// Drop the pending secret of a staged rotation.
    Cancel(Changed),
}

#[derive(Debug, Args)]
pub(super) struct Changed {
    /// Its id.
    rotation: Id,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    version: IfKeyringVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The old secret is retired at once: the right mode after a leak.
    Immediate,
    /// Both secrets are live for a while; the receiver may switch at any moment of it.
    Overlap,
    /// The new secret waits until it is promoted.
    Staged,
    /// As staged, and promoted when the receiver has proved that it holds the new secret.
    Proven,
}

#[derive(Debug, Args)]
pub(super) struct Open {
    /// The keyring's id.
    keyring: Id,
    /// How to move.
    #[arg(long, value_enum, default_value = "overlap")]
    mode: Mode,
    /// How long the old secret may still sign, such as 48h; the server's default without.
    #[arg(long, value_name = "SPAN")]
    overlap: Option<Span>,
    /// For mode proven: a JSON file with the policy's fields, `-` for standard input; the defaults
    /// for what it leaves out.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Find out first how the receivers verify, with a few inert requests each. A proven rotation of
    /// a receiver about which nothing can be proved is not opened then.
    #[arg(long)]
    rehearse: bool,
    #[command(flatten)]
    why: Why,
    /// What the new secret is called.
    #[arg(long)]
    name: Option<String>,
    /// Import the new value from this file, `-` for standard input; generated without.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    out: ValueOut,
    #[command(flatten)]
    version: IfKeyringVersion,
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("KEYRING", "keyringId"),
    ("MODE", "mode"),
    ("STAGE", "stage"),
    ("RETIRES", "retireAt"),
    ("OPENED", "openedAt"),
    ("REASON", "reason"),
];

const PROBE_COLUMNS: &[Column] = &[
    ("SENT", "sentAt"),
    ("PURPOSE", "purpose"),
    ("SIGNED WITH", "signedWith"),
    ("STATUS", "status"),
    ("ANSWER", "answer"),
    ("FAILURE", "failure"),
    ("ROTATION", "rotationId"),
];

/// Runs a rotation command. Opening one says first what is known of the receivers; following one asks
/// until it is over.
pub(super) fn run(remote: Remote<Rotation>, edge: &Edge, output: &mut Output) -> Outcome {
    match remote.command {
        Rotation::Open(open) => {
            let (keyring, mode, rehearse) = (open.keyring.to_string(), open.mode, open.rehearse);
            let plan = open.plan()?;
            let client = remote.connection.client(edge)?;
            rehearse::before_opening(&client, &keyring, mode, rehearse, output)?;
            carry_out(plan, &client, output)
        }
        Rotation::Show {
            rotation,
            watch: true,
            every,
        } => {
            let client = remote.connection.client(edge)?;
            let every = Duration::from_millis(every.0.max(1_000));
            let clock = edge.clock.as_ref();
            watch::run(&client, &rotation.to_string(), every, clock, output)
        }
        Rotation::Show { rotation, .. } if output.format == Format::Table => {
            let client = remote.connection.client(edge)?;
            watch::once(&client, &rotation.to_string(), edge.clock.as_ref(), output)
        }
        command => {
            let connection = remote.connection;
            let remote = Remote {
                connection,
                command,
            };
            plan::run(remote, edge, output)
        }
    }
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Overlap => "overlap",
            Self::Staged => "staged",
            Self::Proven => "proven",
        }
    }

    /// What an opened rotation of this mode means for deliveries, in one sentence.
    const fn effect(self) -> &'static str {
        match self {
            Self::Immediate => {
                "from now on every delivery is signed with the new secret alone: receivers that do not have it yet refuse, and their deliveries are retried"
            }
            Self::Overlap => {
                "from now on both secrets are live until the overlap ends: deliveries are signed with the one the receiver is believed to hold, and sent again at once with the other when it refuses"
            }
            Self::Staged => {
                "nothing changes for deliveries until the rotation is promoted: hand the new secret to the receivers first"
            }
            Self::Proven => {
                "deliveries go on as before while probes and a small share of them find out whether the receiver holds the new secret; it is promoted when that is proved: hand it over now"
            }
        }
    }
}

impl Planned for Rotation {
    fn plan(self, clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::Open(open) => open.plan()?,
            Self::List {
                open,
                keyring,
                paging,
            } => {
                let request = Request::get("/v1/rotations")
                    .with("state", open.then_some("open"))
                    .with("keyringId", keyring);
                Plan::list(request, paging, COLUMNS)
            }
            // With a table it is shown by `run`.
            Self::Show { rotation, .. } => {
                Plan::object(Request::get(format!("/v1/rotations/{rotation}")))
            }
            Self::Probes { endpoint } => {
                let request = Request::get(format!("/v1/endpoints/{endpoint}/probes"));
                Plan::list(request, Paging::default(), PROBE_COLUMNS)
            }
            Self::Rehearse { endpoint, why } => {
                let path = format!("/v1/endpoints/{endpoint}/rehearse");
                Plan::object(Request::post(path, &why.into(json!({}))))
            }
            Self::Released { rotation, why } => {
                let path = format!("/v1/rotations/{rotation}/released");
                Plan::object(Request::post(path, &why.into(json!({}))))
            }
            Self::Promote { changed, force } => {
                let body = if force {
                    json!({ "force": true })
                } else {
                    json!({})
                };
                changed.to("promote", body)
            }
            Self::Extend { changed, until } => {
                changed.to("extend", json!({"retireAt": until.future(clock)}))
            }
            Self::Undo(changed) => changed.to("undo", json!({})),
            Self::Finish(changed) => changed.to("finish", json!({})),
            Self::Cancel(changed) => changed.to("cancel", json!({})),
        })
    }
}

impl Changed {
    fn to(self, what: &str, body: serde_json::Value) -> Plan {
        let path = format!("/v1/rotations/{}/{what}", self.rotation);
        let body = self.why.into(body);
        Plan::object(Request::post(path, &body).if_match(self.version.if_version))
    }
}

impl Open {
    fn plan(self) -> Result<Plan, Failure> {
        if self.mode == Mode::Immediate && self.overlap.is_some_and(|overlap| overlap.0 > 0) {
            return Err(
                Failure::usage("an immediate rotation has no overlap; nothing was sent")
                    .next("leave --overlap out, or use --mode overlap"),
            );
        }
        let mut body = self.why.into(json!({"mode": self.mode.word()}));
        if let Some(overlap) = self.overlap {
            body["overlapSeconds"] = overlap.seconds().into();
        }
        if let Some(name) = self.name {
            body["name"] = name.into();
        }
        if let Some(path) = &self.policy {
            body["policy"] = input::json(path)?;
        }
        if let Some(path) = &self.secret_file {
            body["secret"] = input::secret_text(path)?.as_str().into();
        }
        let path = format!("/v1/keyrings/{}/rotations", self.keyring);
        let request = Request::post(path, &body).if_match(self.version.if_version);
        Ok(Plan::object(request)
            .effect(self.mode.effect())
            .value_out(self.out.value_out))
    }
}
