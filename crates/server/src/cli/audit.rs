//! `hookturn audit`: the audit log, and the proof that nobody changed it.
//!
//! The proof is made here and not by the server: every entry's hash is computed again from what the
//! API (or an export) shows, and nothing else may be shown: an entry is written out again from what was
//! hashed, and must be the same, in an export byte for byte, line ends included ([`form`]). That nothing
//! was cut off at the end only shows against a head that was kept elsewhere (`--head`).
//!
//! An export is proved on its way. What is damaged is exported all the same, because it is evidence, and
//! the command ends as a proof of it would.

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

mod form;

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
    let mut proof = Proof::new(None);
    let mut damage = None;
    let read = each_page(client, |entries| {
        count += entries.len();
        if damage.is_none() {
            damage = proof.page(entries).err();
        }
        for entry in entries {
            lines.push_str(&entry.to_string());
            lines.push('\n');
        }
        if file.is_none() {
            output.bytes(std::mem::take(&mut lines).as_bytes())?;
        }
        Ok(())
    });
    // An entry that the server cannot read ends the log; any other failure leaves nothing behind.
    let damage = match read {
        Ok(()) => damage,
        Err(failure) if failure.exit() == Exit::NotVerified => damage.or(Some(failure)),
        Err(failure) => return Err(failure),
    };
    let kept = if let Some(path) = file {
        write_private(path, lines.as_bytes())?;
        format!("wrote {count} entries to {}", path.display())
    } else {
        format!("wrote {count} entries")
    };
    if let Some(damage) = damage {
        return Err(damage.fact("kept", kept));
    }
    if file.is_some() {
        output.hint(kept);
    }
    Ok(Exit::Done)
}

fn read_export(path: &Path, proof: &mut Proof) -> Result<(), Failure> {
    let text = input::text(path, input::BULK_BYTES)?;
    proof.lines(&text).map_err(|(number, failure)| {
        failure.fact("line", format!("{number} of {}", path.display()))
    })
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

    /// Entries as the API shows them.
    fn page(&mut self, entries: &[Value]) -> Result<(), Failure> {
        for shown in entries {
            let recorded = form::read(shown).ok_or_else(|| self.not_an_entry())?;
            if form::shown(&recorded) != *shown {
                return Err(self.not_as_written());
            }
            self.entry(&recorded)?;
        }
        Ok(())
    }

    /// A whole export: every line is an entry, and ends as it was written. A failure comes with the
    /// number of its line.
    fn lines(&mut self, text: &str) -> Result<(), (usize, Failure)> {
        let mut rest = text;
        for number in 1_usize.. {
            if rest.is_empty() {
                break;
            }
            let Some((line, after)) = rest.split_once('\n') else {
                return Err((number, self.not_ended()));
            };
            self.line(line).map_err(|failure| (number, failure))?;
            rest = after;
        }
        Ok(())
    }

    /// A line of an export. Nothing may stand in it that the hash does not cover.
    fn line(&mut self, line: &str) -> Result<(), Failure> {
        let shown: Value = serde_json::from_str(line).map_err(|_| self.not_an_entry())?;
        let recorded = form::read(&shown).ok_or_else(|| self.not_an_entry())?;
        if !form::lines(&recorded).iter().any(|written| written == line) {
            return Err(self.not_as_written());
        }
        self.entry(&recorded)
    }

    fn entry(&mut self, recorded: &Recorded) -> Result<(), Failure> {
        self.at = verify_chain(self.at, [recorded])
            .map_err(|broken| not_verified(broken.seq, &broken.to_string()))?;
        self.passed_known |= self.known == Some(self.at);
        Ok(())
    }

    fn not_an_entry(&self) -> Failure {
        let seq = self.at.seq + 1;
        let what =
            format!("audit entry {seq}: what stands in its place has not the form of an entry");
        not_verified(seq, &what)
    }

    fn not_as_written(&self) -> Failure {
        let seq = self.at.seq + 1;
        let what = format!(
            "audit entry {seq}: it is not as hookturn writes it: a member was added, repeated or \
             rewritten, or is of a version that this one does not know, or the line has another end"
        );
        not_verified(seq, &what)
    }

    fn not_ended(&self) -> Failure {
        let seq = self.at.seq + 1;
        let what = format!("audit entry {seq}: its line does not end: the file was cut off");
        not_verified(seq, &what)
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

fn not_verified(seq: u64, what: &str) -> Failure {
    Failure::new(
        Exit::NotVerified,
        format!("the audit log does not verify: {what}"),
    )
    .fact("entry", seq.to_string())
    .next("compare with a backup or an earlier export: what follows this entry proves nothing")
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
        written(count).iter().map(form::shown).collect()
    }

    fn written(count: u64) -> Vec<Recorded> {
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
                recorded
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

    /// Every way to make a line show something that nobody wrote, with its hash untouched.
    #[test]
    fn g9_an_export_is_verified_byte_by_byte() {
        let line = shown(1)[0].to_string();
        let prove = |line: &str| Proof::new(None).line(line);
        prove(&line).unwrap();
        let cases = [
            ("a member more", line.replacen('{', r#"{"by":"nobody","#, 1)),
            (
                "a subject more",
                line.replacen(r#""subject":{"#, r#""subject":{"x":"1","#, 1),
            ),
            (
                "a member twice",
                line.replacen('{', r#"{"actor":"local","#, 1),
            ),
            (
                "a member twice, the same",
                line.replacen('{', r#"{"actor":"system","#, 1),
            ),
            (
                "a detail twice",
                line.replacen(r#""detail":{"#, r#""detail":{"n":"1","#, 1),
            ),
            ("a subject twice", {
                let app = r#""clientId":"AAAAAAAA","#;
                line.replacen(r#""subject":{"#, &format!(r#""subject":{{{app}"#), 1)
            }),
            (
                "a flat subject",
                line.replacen('{', r#"{"keyringId":null,"#, 1),
            ),
            (
                "a date with a zero less",
                line.replacen(".005Z", ".0050Z", 1),
            ),
            (
                "another time zone",
                line.replacen(
                    "1970-01-01T00:00:00.005Z",
                    "1970-01-01T01:00:00.005+01:00",
                    1,
                ),
            ),
            (
                "more than a millisecond",
                line.replacen(".005Z", ".005999Z", 1),
            ),
            (
                "an empty member",
                line.replacen('{', r#"{"reason":null,"#, 1),
            ),
            (
                "a number as it is not written",
                line.replacen(r#""seq":1"#, r#""seq":1.0"#, 1),
            ),
            ("a hash in capitals", {
                let (head, hash) = line.split_once(r#""hash":""#).unwrap();
                format!(
                    r#"{head}"hash":"{}{}"#,
                    hash[..64].to_uppercase(),
                    &hash[64..]
                )
            }),
            (
                "a letter in another way",
                line.replacen(r#""system""#, r#""syste\u006d""#, 1),
            ),
            ("a space", line.replacen(':', ": ", 1)),
            ("a line that is none", "audit".to_owned()),
            ("another order", {
                let actor = r#""actor":"system","#;
                let rest = line.replacen(actor, "", 1);
                rest.replacen(r#""seq""#, &format!(r#"{actor}"seq""#), 1)
            }),
        ];
        for (what, changed) in cases {
            assert_ne!(changed, line, "{what}: the case changes nothing");
            let failure = prove(&changed).expect_err(what);
            assert_eq!(failure.exit(), Exit::NotVerified, "{what}");
            assert!(
                failure.to_string().contains("entry: 1"),
                "{what}: {failure}"
            );
        }
    }

    #[test]
    fn g9_an_export_is_its_lines_and_nothing_between_them() {
        let lines: Vec<_> = shown(3).iter().map(Value::to_string).collect();
        let whole = format!("{}\n", lines.join("\n"));
        let prove = |text: &str| {
            let mut proof = Proof::new(None);
            proof.lines(text).map(|()| proof.at.seq)
        };
        assert_eq!(prove(&whole).unwrap(), 3);
        assert_eq!(prove("").unwrap(), 0);
        let cases = [
            (
                "line ends of another system",
                1,
                whole.replace('\n', "\r\n"),
            ),
            (
                "one of them",
                2,
                format!("{}\n{}\r\n{}\n", lines[0], lines[1], lines[2]),
            ),
            ("a blank line", 2, whole.replacen('\n', "\n\n", 1)),
            (
                "a line of white space",
                2,
                whole.replacen('\n', "\n \t\n", 1),
            ),
            ("a blank line before", 1, format!("\n{whole}")),
            ("a blank line after", 4, format!("{whole}\n")),
            ("a byte order mark", 1, format!("\u{feff}{whole}")),
            ("no end", 3, whole.trim_end().to_owned()),
        ];
        for (what, line, changed) in cases {
            let (number, failure) = prove(&changed).expect_err(what);
            assert_eq!(number, line, "{what}");
            assert_eq!(failure.exit(), Exit::NotVerified, "{what}");
        }
    }

    #[test]
    fn g9_an_export_of_the_dashboard_verifies_to_the_byte_too() {
        let lines: Vec<_> = written(3)
            .iter()
            .map(|recorded| serde_json::to_string(recorded).unwrap())
            .collect();
        let whole = format!("{}\n", lines.join("\n"));
        let mut proof = Proof::new(None);
        proof.lines(&whole).map_err(|(_, failure)| failure).unwrap();
        assert_eq!(proof.at.seq, 3);
        for (old, new) in [
            (r#"{"seq""#, r#"{"by":"nobody","seq""#),
            (r#""actor":"#, r#""actor": "#),
            (
                r#""actor":"system""#,
                r#""actor":"system","actor":"system""#,
            ),
        ] {
            let changed = whole.replacen(old, new, 1);
            assert_ne!(changed, whole);
            assert!(Proof::new(None).lines(&changed).is_err(), "{new}");
        }
    }

    /// A line as an export of the first version wrote it, its hash computed apart from this program:
    /// what was exported once verifies forever.
    #[test]
    fn g9_an_entry_of_the_first_version_verifies() {
        let line = concat!(
            r#"{"action":"secret.activated","actor":"local","at":"2026-07-20T00:00:00.000Z","de"#,
            r#"tail":{"was":"pending"},"fingerprint":"abababab","hash":"14e358eb99b8e8957754f47"#,
            r#"350eb50b6288a1f85772be0dbb34bc47d1b70e0d5","previousHash":"000000000000000000000"#,
            r#"0000000000000000000000000000000000000000000","reason":"yearly","requestId":"req_"#,
            r#"1","seq":1,"subject":{"clientId":"HqTRDIY8","secretId":"whs_030c1g60r30c1g60r30c"#,
            r#"1g60r3"},"workspaceId":"ws_09144gj289144gj289144gj289"}"#,
        );
        let mut proof = Proof::new(None);
        proof.line(line).unwrap();
        assert_eq!(proof.at.seq, 1);
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
