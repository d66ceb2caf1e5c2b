//! `hookturn master-key`: the key under which secrets rest on disk.

use std::path::PathBuf;

use clap::Subcommand;
use hookturn_core::id::draw;
use serde_json::json;
use zeroize::Zeroizing;

use super::Edge;
use super::args::Remote;
use super::client::Request;
use super::exit::{Exit, Outcome};
use super::output::{Output, write_private};
use super::plan::{self, Plan};

#[derive(Debug, Subcommand)]
pub(super) enum MasterKey {
    /// Make the server seal everything again under a new master key, while it runs; needs an
    /// operator key.
    Rotate,
    /// Write a new master key to a new file (mode 0600), for HOOKTURN_MASTER_KEY_FILE. No server is
    /// asked.
    Generate {
        /// The file.
        file: PathBuf,
    },
}

pub(super) fn run(remote: Remote<MasterKey>, edge: &Edge, output: &mut Output) -> Outcome {
    match &remote.command {
        MasterKey::Rotate => {
            let plan = Plan::object(Request::post("/v1/master-key/rotate", &json!({}))).effect(
                "every secret was sealed again under a new key; deliveries went on meanwhile. Keep the former key for one more day: idempotent answers that were sealed under it expire by then",
            );
            let client = remote.connection.client(edge)?;
            plan::carry_out(plan, &client, output)
        }
        MasterKey::Generate { file } => {
            let random = Zeroizing::new(draw::<32>(edge.entropy.as_ref()));
            let text = Zeroizing::new(hex::encode(random.as_ref()) + "\n");
            write_private(file, text.as_bytes())?;
            output.line(format!("wrote a new master key to {}", file.display()))?;
            output.hint(
                "keep a copy apart from the backups: without it nobody can read the secrets in them",
            );
            Ok(Exit::Done)
        }
    }
}
