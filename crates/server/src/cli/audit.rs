//! `hookturn audit`: the audit log, and the proof that nobody changed it.
//!
//! The proof is made here and not by the server: every entry's hash is computed again from what the
//! API (or an export) shows. That nothing was cut off at the end only shows against a head that was
//! kept elsewhere (`--head`).

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hookturn_core::audit::{Head, Recorded, verify_chain};
use serde_json::{Value, json};

use super::args::{Paging, Remote};
use super::client::{Client, Request};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Column, Format, Output, check_free, write_private};
use super::plan::{self, Plan};
use super::{Edge, input};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List the log, oldest first.
    List(Paging),
    /// Prove that no entry was changed, removed or put in between.
    Verify {
        /// Prove an export instead of the server's log; `-` for standard input.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The head that an earlier proof ended with: proves that nothing was cut off either.
        #[arg(long, value_name = "SEQ:HASH", value_parser = head)]
        head: Option<Head>,
    },
    /// Write the whole log, one JSON entry a line.
    Export {
        /// A new file (mode 0600); standard output without.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

const COLUMNS: &[Column] = &[
    ("SEQ", "seq"),
    ("AT", "at"),
    ("ACTOR", "actor"),
    ("ACTION", "action"),
    ("FINGERPRINT", "fingerprint"),
    ("SUBJECT", "subject"),
    ("REASON", "reason"),
];

fn head(text: &str) -> Result<Head, &'static str> {
    const EXPECTED: &str = "expected SEQ:HASH, as an earlier proof printed it";
    let (seq, hash) = text.split_once(':').ok_or(EXPECTED)?;
    let mut head = Head {
        seq: seq.parse().map_err(|_| EXPECTED)?,
        ..Head::START
    };
    hex::decode_to_slice(hash, &mut head.hash).map_err(|_| EXPECTED)?;
    Ok(head)
}

pub(super) fn run(remote: Remote<Audit>, edge: &Edge, output: &mut Output) -> Outcome {
    match remote.command {
        Audit::List(paging) => {
            let plan = Plan::list(Request::get("/v1/audit"), paging, COLUMNS);
            plan::carry_out(plan, &remote.connection.client(edge)?, output)
        }
        Audit::Verify {
            file: Some(file),
            head,
        } => {
            let mut proof = Proof::new(head);
            read_export(&file, &mut proof)?;
            proof.conclude(output)
        }
        Audit::Verify { file: None, head } => {
            let client = remote.connection.client(edge)?;
            let mut proof = Proof::new(head);
            each_page(&client, |entries| proof.page(entries))?;
            proof.conclude(output)
        }
        Audit::Export { file } => {
            check_free(file.as_ref())?;
            export(&remote.connection.client(edge)?, file.as_deref(), output)
        }
    }
}

/// Reads the whole log, a page at a time.
fn each_page(
    client: &Client,
    mut take: impl FnMut(&[Value]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    loop {
        let request = Request::get("/v1/audit")
            .with("limit", Some(200))
            .with("cursor", cursor);
        let page = client.call(&request)?.json()?;
        take(page["data"].as_array().map_or(&[], Vec::as_slice))?;
        cursor = page["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn export(client: &Client, file: Option<&Path>, output: &mut Output) -> Outcome {
    let mut lines = String::new();
    let mut count = 0;
    each_page(client, |entries| {
        count += entries.len();
        for entry in entries {
            lines.push_str(&entry.to_string());
            lines.push('\n');
        }
        if file.is_none() {
            output.bytes(std::mem::take(&mut lines).as_bytes())?;
        }
        Ok(())
    })?;
    if let Some(path) = file {
        write_private(path, lines.as_bytes())?;
        output.hint(format!("wrote {count} entries to {}", path.display()));
    }
    Ok(Exit::Done)
}

fn read_export(path: &Path, proof: &mut Proof) -> Result<(), Failure> {
    let text = input::text(path, input::BULK_BYTES)?;
    for (number, line) in (1_usize..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let entry: Value = serde_json::from_str(line).map_err(|error| {
            Failure::usage(format!(
                "line {number} of {} is not JSON: {error}",
                path.display()
            ))
        })?;
        proof.page(std::slice::from_ref(&entry))?;
    }
    Ok(())
}

/// A chain that is proved piece by piece.
struct Proof {
    at: Head,
    known: Option<Head>,
    passed_known: bool,
}

impl Proof {
    fn new(known: Option<Head>) -> Self {
        Self {
            at: Head::START,
            known,
            passed_known: known.is_none_or(|known| known == Head::START),
        }
    }

    fn page(&mut self, entries: &[Value]) -> Result<(), Failure> {
        for entry in entries {
            let recorded = recorded(entry)?;
            self.at = verify_chain(self.at, [&recorded]).map_err(|broken| {
                Failure::new(Exit::NotVerified, format!("the audit log does not verify: {broken}"))
                    .fact("entry", broken.seq.to_string())
                    .next("compare with a backup or an earlier export: what follows this entry proves nothing")
            })?;
            self.passed_known |= self.known == Some(self.at);
        }
        Ok(())
    }

    fn conclude(self, output: &mut Output) -> Outcome {
        let head = format!("{}:{}", self.at.seq, hex::encode(self.at.hash));
        if let (false, Some(known)) = (self.passed_known, self.known) {
            let what = format!(
                "the audit log does not contain entry {} with that hash: it was cut off or written anew",
                known.seq
            );
            return Err(Failure::new(Exit::NotVerified, what).fact("head", head));
        }
        match output.format {
            Format::Json => output.json(&json!({
                "valid": true, "entries": self.at.seq, "head": head
            }))?,
            Format::Table => {
                output.line(format!(
                    "valid: {} entries, none changed or missing",
                    self.at.seq
                ))?;
                output.line(format!("head: {head}"))?;
                output.hint(
                    "keep the head elsewhere: given by --head it proves that nothing was cut off",
                );
            }
        }
        Ok(Exit::Done)
    }
}

/// An entry in the form whose hash is computed: the API shows the subject apart.
fn recorded(entry: &Value) -> Result<Recorded, Failure> {
    let foreign = || {
        Failure::new(
            Exit::NotVerified,
            "an entry does not have the form of an audit entry",
        )
        .fact("entry", entry["seq"].to_string())
    };
    let mut document = entry.clone();
    let members = document.as_object_mut().ok_or_else(foreign)?;
    if let Some(workspace) = members.remove("workspaceId") {
        members.insert("workspace".into(), workspace);
    }
    if let Some(Value::Object(subject)) = members.remove("subject") {
        members.extend(subject);
    }
    serde_json::from_value(document).map_err(|_| foreign())
}

#[cfg(test)]
mod tests {
    use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject, chain};
    use hookturn_core::id::{ClientId, Entropy, WorkspaceId};
    use hookturn_core::time::Timestamp;

    use super::*;

    struct Ones;

    impl Entropy for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(1);
        }
    }

    /// Entries as the API shows them.
    fn shown(count: u64) -> Vec<Value> {
        let mut head = Head::START;
        let workspace = WorkspaceId::new(Timestamp::from_millis(1), &Ones);
        (0..count)
            .map(|number| {
                let subject = Subject {
                    app: Some(ClientId::new(&Ones)),
                    ..Subject::default()
                };
                let entry = AuditEntry::new(AuditAction::AppCreated, subject).with("n", number);
                let context = Context {
                    actor: Actor::System,
                    request_id: Some("r".into()),
                    reason: None,
                };
                let recorded = chain(head, Timestamp::from_millis(5), workspace, context, entry);
                head = recorded.head();
                let mut value = serde_json::to_value(&recorded).unwrap();
                let members = value.as_object_mut().unwrap();
                let workspace = members.remove("workspace").unwrap();
                members.insert("workspaceId".into(), workspace);
                let app = members.remove("clientId").unwrap();
                members.insert("subject".into(), json!({"clientId": app}));
                value
            })
            .collect()
    }

    #[test]
    fn g9_a_log_as_the_api_shows_it_verifies_and_a_changed_one_does_not() {
        let entries = shown(3);
        let mut proof = Proof::new(None);
        proof.page(&entries).unwrap();
        assert_eq!(proof.at.seq, 3);
        let mut changed = entries.clone();
        changed[1]["detail"]["n"] = "7".into();
        let failure = Proof::new(None).page(&changed).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotVerified);
        assert!(failure.to_string().contains("entry: 2"), "{failure}");
        assert!(Proof::new(None).page(&entries[1..]).is_err(), "a gap");
    }

    #[test]
    fn g9_a_log_that_was_cut_off_does_not_pass_a_known_head() {
        let entries = shown(3);
        let mut whole = Proof::new(None);
        whole.page(&entries).unwrap();
        let text = format!("{}:{}", whole.at.seq, hex::encode(whole.at.hash));
        let known = head(&text).unwrap();
        let mut again = Proof::new(Some(known));
        again.page(&entries).unwrap();
        assert!(again.passed_known);
        let mut cut = Proof::new(Some(known));
        cut.page(&entries[..2]).unwrap();
        assert!(!cut.passed_known);
        for bad in ["", "3", "3:ab", "x:00"] {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}
