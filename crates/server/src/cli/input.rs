//! Reading what a user gives: files and standard input, each with a bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use hookturn_verify::{PublicKey, Scheme, Secret, Verifier};
use zeroize::Zeroizing;

use super::exit::{Exit, Failure, shown};

/// Largest body or captured request that is read, in bytes.
pub(super) const BODY_BYTES: usize = 1024 * 1024;
/// Largest batch or audit export that is read, in bytes.
pub(super) const BULK_BYTES: usize = 256 * 1024 * 1024;
/// Largest file of secrets or keys that is read, in bytes.
const SECRET_FILE_BYTES: usize = 64 * 1024;
/// Most secrets in one file.
const SECRETS: usize = 64;

/// Whether the path means standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a file, or standard input for `-`, up to `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = if is_stdin(path) {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    let count = read.map_err(|error| Failure::reading(path, &error))?;
    if count > limit {
        let what = format!("{} has more than {limit} bytes", shown(path));
        return Err(Failure::usage(what).next("give a smaller file"));
    }
    Ok(bytes)
}

/// Reads text; a file in another encoding is refused.
pub(super) fn text(path: &Path, limit: usize) -> Result<Zeroizing<String>, Failure> {
    let bytes = read(path, limit)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::usage(format!("{} is not UTF-8", shown(path)))),
    }
}

/// Reads a JSON document.
pub(super) fn json(path: &Path) -> Result<serde_json::Value, Failure> {
    let text = text(path, BODY_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} is not JSON: {error}", shown(path))))
}

/// Reads one secret: the file's text without the line end.
pub(super) fn secret_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = text(path, SECRET_FILE_BYTES)?;
    let secret = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if secret.is_empty() || secret.contains('\n') {
        let what = format!("{} does not hold exactly one line", shown(path));
        return Err(Failure::usage(what).next("put the secret, and nothing else, into the file"));
    }
    Ok(secret)
}

/// A key that verifies: a secret, or the public half of one.
pub(super) enum Key {
    Secret(Secret),
    Public(PublicKey),
}

/// A key and what its owner calls it.
pub(super) struct NamedKey {
    pub(super) name: String,
    pub(super) key: Key,
}

impl Key {
    pub(super) fn fingerprint(&self) -> hookturn_verify::Fingerprint {
        match self {
            Self::Secret(secret) => secret.fingerprint(),
            Self::Public(key) => key.fingerprint(),
        }
    }
}

/// Reads the keys of a file: one a line, bare or as `name=key`. Empty lines and lines that start
/// with `#` do not count.
pub(super) fn keys(path: &Path) -> Result<Vec<NamedKey>, Failure> {
    let text = text(path, SECRET_FILE_BYTES)?;
    let mut keys = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = name_and_value(line);
        // The error of a key never repeats the key.
        let refused = |error: &dyn std::fmt::Display| {
            let place = shown(path);
            Failure::usage(format!(
                "line {number} of {place} holds no usable secret: {error}"
            ))
        };
        let key = if value.starts_with("whpk_") {
            Key::Public(value.parse().map_err(|error| refused(&error))?)
        } else {
            Key::Secret(Secret::parse(value).map_err(|error| refused(&error))?)
        };
        let name = name.map_or_else(|| format!("secret {}", keys.len() + 1), str::to_owned);
        keys.push(NamedKey { name, key });
        if keys.len() > SECRETS {
            return Err(Failure::usage(format!(
                "{} holds more than {SECRETS} secrets",
                shown(path)
            )));
        }
    }
    if keys.is_empty() {
        let what = format!("{} holds no secret", shown(path));
        return Err(Failure::usage(what).next("put one secret a line, bare or as name=secret"));
    }
    Ok(keys)
}

/// Base64 may end in `=`, so only a plain word before the first `=` is a name.
fn name_and_value(line: &str) -> (Option<&str>, &str) {
    let known = ["whsec_", "whsk_", "whpk_"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    match line.split_once('=') {
        Some((name, value))
            if !name.is_empty()
                && !value.is_empty()
                && name.bytes().all(plain)
                && !known.iter().any(|prefix| name.starts_with(prefix)) =>
        {
            (Some(name), value)
        }
        Some(_) | None => (None, line),
    }
}

/// A verifier that knows every key.
pub(super) fn verifier(scheme: Scheme, keys: &[NamedKey]) -> Result<Verifier, Failure> {
    let mut verifier = Verifier::new(scheme);
    for NamedKey { name, key } in keys {
        verifier = match key {
            Key::Secret(secret) => verifier.secret(name.as_str(), secret),
            Key::Public(key) => verifier.public_key(name.as_str(), key),
        }
        .map_err(|error| Failure::new(Exit::Usage, format!("`{name}` cannot be used: {error}")))?;
    }
    Ok(verifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_a_name() {
        for (line, name, value) in [
            ("whsec_abc=", None, "whsec_abc="),
            ("new=whsec_abc=", Some("new"), "whsec_abc="),
            ("plain", None, "plain"),
            ("=x", None, "=x"),
            ("a b=c", None, "a b=c"),
        ] {
            assert_eq!(name_and_value(line), (name, value), "{line}");
        }
    }
}
