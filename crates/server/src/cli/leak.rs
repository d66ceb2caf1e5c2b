//! `hookturn leak`: which secret is it that turned up where it should not be?
//!
//! A file (a log, a dump, source code) is scanned here for strings that may be secrets; what goes to the
//! server are their SHA-256, a few hundred at a time. No string of the file is printed or sent. Whoever
//! must not have the file here can give the SHA-256 of one string instead.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use hookturn_core::limits::{LEAK_HASHES, LEAK_SEARCH_BURST, SECRET_CHARS};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::args::{Connection, Why};
use super::client::{Client, Request};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, Output, printable};
use super::{Edge, input};

/// Shortest string that is taken for a candidate, in bytes: shorter ones are words.
const SHORTEST: usize = 16;
/// What follows `whsec_` in a generated secret: so many hex digits.
const HEX_DIGITS: usize = 64;
/// What follows `whsk_` in a generated key: so many characters of base64, the last two of them `=`.
const KEY_CHARS: usize = 88;
/// Files with at most this many lines are taken for lists of secrets: each line is a candidate as well.
const FEW_LINES: usize = 200;
/// Most strings that are asked for: beyond this the server's pace makes it an hour's work.
const MOST: usize = 200_000;
/// How long to wait when the server says that this key asks too often.
const PACE: Duration = Duration::from_secs(1);
/// How often that may be.
const PATIENCE: u32 = 120;

/// Find out which secret a leaked string is.
///
/// Give a file to scan (a log, a dump, source code), `-` for standard input, or the SHA-256 of one string
/// as 64 hex digits. Only hashes are sent. Retired and destroyed secrets are found too. Ends with code 6
/// when nothing is found.
#[derive(Debug, Args)]
pub(super) struct Leak {
    #[command(flatten)]
    connection: Connection,
    /// A file, `-` for standard input, or a SHA-256.
    #[arg(value_name = "FILE|HASH")]
    what: String,
    #[command(flatten)]
    why: Why,
}

/// Hashes of strings that may be secrets, each with the line it was first seen in; 0 for none.
pub(super) type Candidates = BTreeMap<String, usize>;

pub(super) fn run(leak: Leak, edge: &Edge, output: &mut Output) -> Outcome {
    let candidates = candidates(&leak.what)?;
    let client = leak.connection.client(edge)?;
    if let Some(warning) = client.warning() {
        output.hint(warning);
    }
    let mut found = Vec::new();
    let hashes: Vec<&String> = candidates.keys().collect();
    let burst = usize::try_from(LEAK_SEARCH_BURST).unwrap_or(usize::MAX);
    let blocks = hashes.len().div_ceil(LEAK_HASHES);
    if blocks > burst {
        output.hint(format!(
            "{} strings may be secrets: this takes about {} seconds",
            hashes.len(),
            blocks - burst
        ));
    }
    for block in hashes.chunks(LEAK_HASHES) {
        let mut body = json!({ "hashes": block });
        if let Some(reason) = &leak.why.reason {
            body["reason"] = reason.as_str().into();
        }
        let document = search(&client, &body)?;
        for one in document["data"].as_array().into_iter().flatten() {
            let line = one["hash"].as_str().and_then(|hash| candidates.get(hash));
            for secret in one["secrets"].as_array().into_iter().flatten() {
                let mut secret = secret.clone();
                if let Some(line) = line.filter(|line| **line > 0) {
                    secret["line"] = (*line).into();
                }
                found.push(secret);
            }
        }
    }
    show(candidates.len(), &found, output)
}

/// Asks the server, at its pace.
pub(super) fn search(client: &Client, body: &Value) -> Result<Value, Failure> {
    let request = Request::post("/v1/leaks/search", body).harmless();
    let mut waited = 0;
    loop {
        match client.call(&request) {
            Ok(answer) => return answer.json(),
            Err(failure) if failure.to_json()["code"] == "rate_limited" && waited < PATIENCE => {
                waited += 1;
                client.wait(PACE);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// The hashes to ask for.
pub(super) fn candidates(what: &str) -> Result<Candidates, Failure> {
    if ["whsec_", "whsk_"]
        .iter()
        .any(|prefix| what.contains(prefix))
    {
        return Err(Failure::usage(
            "a secret is never an argument: every process list shows it; nothing was sent",
        )
        .next(
            "put it into a file, or pipe it to `hookturn leak -`; and take that one for leaked",
        ));
    }
    if what.len() == 64 && what.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(BTreeMap::from([(what.to_ascii_lowercase(), 0)]));
    }
    let bytes = input::read(Path::new(what), input::BULK_BYTES)?;
    let candidates = scan(&bytes);
    if candidates.is_empty() {
        return Err(
            Failure::usage("nothing in it can be a secret; nothing was sent").next(
                "secrets have at least 16 characters; give the SHA-256 of the string for others",
            ),
        );
    }
    if candidates.len() > MOST {
        let what = format!("more than {MOST} strings in it may be secrets; nothing was sent");
        return Err(Failure::usage(what).next("give the part of the file that matters"));
    }
    Ok(candidates)
}

/// Finds the strings that may be secrets.
///
/// 1. What follows `whsec_` and `whsk_`, with the prefix, wherever it stands: as far as it goes, as far as
///    it is base64, and as many characters as a generated one has, whatever follows those.
/// 2. The first and the last 64 of hex digits in a row, which a generated one has behind its prefix: a path
///    or another word may stand around them.
/// 3. Every run of letters, digits and `+ / _ -` with trailing `=` that has at least [`SHORTEST`]
///    characters and a digit or both cases: also as the part after either prefix, which many programs
///    drop.
/// 4. In a short file every line, for imported secrets may be any text.
fn scan(bytes: &[u8]) -> Candidates {
    let mut found = Candidates::new();
    let lines = || (1_usize..).zip(bytes.split(|byte| *byte == b'\n'));
    let few = lines().nth(FEW_LINES).is_none();
    for (number, line) in lines() {
        let mut texts: BTreeSet<&[u8]> = BTreeSet::new();
        let whole = line.trim_ascii();
        if few && (SHORTEST..=SECRET_CHARS).contains(&whole.len()) {
            texts.insert(whole);
        }
        for token in line.split(|byte| !in_token(*byte)) {
            texts.extend(named(token));
            texts.extend(digits(token));
            texts.extend(values(token));
        }
        for text in texts {
            note(&mut found, text, number);
        }
    }
    found
}

const fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'-' | b'=')
}

/// What begins with a prefix, in every length that a secret may have.
fn named(token: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = (0..token.len()).filter_map(|start| {
        let rest = &token[start..];
        let prefix = [b"whsec_".as_slice(), b"whsk_"];
        let prefix = prefix.into_iter().find(|prefix| rest.starts_with(prefix))?;
        Some((rest, prefix.len()))
    });
    starts.flat_map(|(rest, prefix)| {
        let value = &rest[prefix..];
        let core = value.iter().take_while(|byte| in_base64(**byte)).count();
        let padding = value[core..].iter().take_while(|byte| **byte == b'=');
        let base64 = core + padding.count().min(2);
        let digits = value.get(..HEX_DIGITS);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let key = value.get(..KEY_CHARS).filter(|key| key.ends_with(b"=="));
        let ends = [
            Some(rest.len()),
            Some(prefix + base64),
            digits.map(|digits| prefix + digits.len()),
            key.map(|key| prefix + key.len()),
        ];
        ends.into_iter().flatten().map(|end| &rest[..end])
    })
}

const fn in_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// What may be a generated secret without its prefix, whatever stands around it.
fn digits(token: &[u8]) -> impl Iterator<Item = &[u8]> {
    let runs = token.split(|byte| !byte.is_ascii_hexdigit());
    runs.filter(|run| run.len() >= HEX_DIGITS)
        .flat_map(|run| [&run[..HEX_DIGITS], &run[run.len() - HEX_DIGITS..]])
}

/// The token, and what stands behind a `=` in it, if it is long and varied enough.
fn values(token: &[u8]) -> impl Iterator<Item = &[u8]> {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let core = token.len() - padding;
    let value = token[..core]
        .iter()
        .rposition(|byte| *byte == b'=')
        .map_or(0, |equals| equals + 1);
    let plausible = |text: &&[u8]| {
        let has = |kind: fn(&u8) -> bool| text.iter().any(kind);
        let varied =
            has(u8::is_ascii_digit) || (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase));
        (SHORTEST..=SECRET_CHARS).contains(&text.len()) && varied
    };
    [&token[value..], &token[value..core]]
        .into_iter()
        .filter(plausible)
}

/// Notes the hashes under which a string may be known.
fn note(found: &mut Candidates, text: &[u8], line: usize) {
    let mut put = |prefix: &[u8]| {
        let hash = Sha256::new()
            .chain_update(prefix)
            .chain_update(text)
            .finalize();
        found.entry(hex::encode(hash)).or_insert(line);
    };
    put(b"");
    let named = text.starts_with(b"whsec_") || text.starts_with(b"whsk_");
    // The shortest key of the schemes has 24 bytes, which are 32 characters of base64.
    if !named && text.len() >= 32 && text.iter().copied().all(in_token) {
        put(b"whsec_");
        if text.len() == 88 {
            put(b"whsk_");
        }
    }
}

fn show(asked: usize, found: &[Value], output: &mut Output) -> Outcome {
    match output.format {
        Format::Json => output.json(&json!({ "strings": asked, "secrets": found }))?,
        Format::Table => {
            for secret in found {
                describe(secret, output)?;
            }
        }
    }
    if found.is_empty() {
        output.hint(format!(
            "none of the {asked} strings is a secret that this key may see"
        ));
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Done)
}

fn describe(found: &Value, output: &mut Output) -> Result<(), Failure> {
    let text = |value: &Value| printable(value.as_str().unwrap_or("-"));
    let secret = &found["secret"];
    let status = secret["status"].as_str().unwrap_or("forgotten");
    let line = found["line"]
        .as_u64()
        .map_or_else(String::new, |line| format!(", in line {line}"));
    output.line(format!(
        "{} {} ({status}) of keyring {} in workspace {}{line}",
        secret["name"]
            .as_str()
            .map_or_else(|| "secret".to_owned(), printable),
        text(&found["secretId"]),
        text(&found["keyringId"]),
        text(&found["workspace"]),
    ))?;
    output.line(format!("  fingerprint {}", text(&secret["fingerprint"])))?;
    if let Some(since) = secret["since"].as_str() {
        output.line(format!("  {status} since {}", printable(since)))?;
    }
    for endpoint in found["endpoints"].as_array().into_iter().flatten() {
        output.line(format!(
            "  signs for {} of app {} {}",
            text(&endpoint["endpointId"]),
            text(&endpoint["clientId"]),
            endpoint["url"].as_str().map_or_else(String::new, printable),
        ))?;
    }
    output.line(format!("  {}", text(&found["words"])))?;
    for command in found["commands"].as_array().into_iter().flatten() {
        output.line(format!("  next: {}", text(command)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> String {
        hex::encode(Sha256::digest(text.as_bytes()))
    }

    #[test]
    fn secrets_are_found_in_whatever_stands_around_them() {
        let digits = "0123456789abcdef".repeat(4);
        let secret = format!("whsec_{digits}");
        let padded = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw==";
        for text in [
            format!("{secret}\n"),
            format!("2026-11-21 INFO secret={secret}, retrying"),
            format!("{{\"secret\":\"{secret}\"}}"),
            format!("export HOOK=\"{secret}\";"),
            format!("https://a.example/?k={secret}&x=1"),
            // Without its prefix, as libraries want it.
            format!("key: {digits}"),
        ] {
            let found = scan(text.as_bytes());
            assert!(found.contains_key(&hash(&secret)), "{text}");
        }
        let found = scan(format!("a\nb\nHOOK={padded}\n").as_bytes());
        assert_eq!(found.get(&hash(padded)), Some(&3));
        let imported = "any text that an owner chose: 12 %";
        assert!(scan(imported.as_bytes()).contains_key(&hash(imported)));
    }

    #[test]
    fn a_generated_secret_is_found_whatever_follows_and_precedes_it() {
        let digits = "0123456789abcdef".repeat(4);
        let secret = format!("whsec_{digits}");
        let key = format!("whsk_{}==", "aB3/".repeat(21) + "xy");
        let followed = [
            "/callback",
            "/value",
            "-1",
            "--",
            "_old",
            "+x",
            "x",
            "f",
            "7",
            "=0A",
            "=",
            "==and/more",
            "",
        ];
        let preceded = [
            "GET /hooks/",
            "/run/secrets/",
            "key=",
            "a-",
            "_",
            "x",
            "+",
            "k==",
            "",
        ];
        for before in preceded {
            for after in followed {
                for known in [&secret, &key] {
                    let line = format!("{before}{known}{after} HTTP/1.1");
                    let found = scan(line.as_bytes());
                    assert!(found.contains_key(&hash(known)), "{line}");
                }
                // Without its prefix.
                let line = format!("{before}{digits}{after}, retrying");
                let found = scan(line.as_bytes());
                assert!(found.contains_key(&hash(&secret)), "{line}");
            }
        }
        let imported = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        for after in ["-1", "_old", "=0A", ", then"] {
            let line = format!("secret={imported}{after}");
            let cut = after
                .find('=')
                .map_or(imported.to_owned(), |_| format!("{imported}="));
            assert!(scan(line.as_bytes()).contains_key(&hash(&cut)), "{line}");
        }
    }

    #[test]
    fn words_and_short_things_are_not_asked_for() {
        let mut log =
            "an ordinary sentence with internationalisation in it\n".repeat(FEW_LINES + 1);
        assert!(scan(log.as_bytes()).is_empty());
        log.push_str("id=msg_01k9x6z8e5f3v9m2c7q4t1h0ab");
        assert!(scan(log.as_bytes()).contains_key(&hash("msg_01k9x6z8e5f3v9m2c7q4t1h0ab")));
    }

    #[test]
    fn a_hash_is_taken_as_it_is_and_a_secret_is_refused() {
        let upper = "AB".repeat(32);
        let taken = candidates(&upper).unwrap();
        assert_eq!(taken.keys().collect::<Vec<_>>(), [&upper.to_lowercase()]);
        let secret = format!("whsec_{}", "ab".repeat(32));
        let refused = candidates(&secret).unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        assert!(!refused.to_string().contains(&secret));
    }
}
