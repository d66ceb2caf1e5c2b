//! Captured requests: as raw HTTP/1.1, as JSON, or put together from arguments.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookturn_verify::from_fn;
use serde_json::Value;
use zeroize::Zeroizing;

use super::exit::Failure;
use super::input;

/// Most headers of a captured request.
const HEADERS: usize = 256;

/// A request as it was received.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) method: String,
    /// Absolute, or empty when the capture does not tell.
    pub(super) url: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Captured {
    /// Reads a file: JSON if it begins with `{`, raw HTTP otherwise.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = input::read(path, 2 * input::BODY_BYTES)?;
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let parsed = match first {
            Some(b'{') => from_json(&bytes),
            _ => from_raw(&bytes),
        };
        parsed.map_err(|why| {
            let what = format!("{} is no captured request: {why}", path.display());
            Failure::usage(what).next(
                "give raw HTTP (request line, headers, empty line, body), JSON with method, url, \
                 headers and body or bodyBase64, or use --header and --body",
            )
        })
    }

    /// The value of the first header with that name.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        first(&self.headers, name)
    }

    /// The names of its headers, in their order; never a value.
    pub(super) fn header_names(&self) -> Vec<&str> {
        let names = self.headers.iter();
        names.map(|(name, _)| name.as_str()).collect()
    }

    /// Hands the headers to a verifier.
    pub(super) fn with_headers<T>(
        &self,
        verify: impl FnOnce(&dyn hookturn_verify::Headers) -> T,
    ) -> T {
        let headers = from_fn(|name| self.header(name));
        verify(&headers)
    }
}

fn first<'h>(headers: &'h [(String, Vec<u8>)], name: &str) -> Option<&'h [u8]> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_slice())
}

/// A `name: value` line.
pub(super) fn header_line(line: &str) -> Result<(String, String), &'static str> {
    line.split_once(':')
        .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .ok_or("expected `name: value`")
}

fn from_raw(bytes: &[u8]) -> Result<Captured, String> {
    let (head, rest) = split_head(bytes).ok_or("it has no empty line after the headers")?;
    let head = std::str::from_utf8(head).map_err(|_| "its headers are not text")?;
    let mut lines = head.lines();
    let first_line = lines.next().unwrap_or_default();
    let mut words = first_line.split(' ');
    let (method, target) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version), None) if version.starts_with("HTTP/") => {
            (method, target)
        }
        _ => return Err("its first line is not `METHOD target HTTP/1.1`".to_owned()),
    };
    let headers = lines
        .map(|line| header_line(line).map(|(name, value)| (name, value.into_bytes())))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| format!("a header line is damaged: {why}"))?;
    if headers.len() > HEADERS {
        return Err(format!("it has more than {HEADERS} headers"));
    }
    if first(&headers, "transfer-encoding").is_some() {
        return Err("its body is chunked; save the decoded body and give it by --body".to_owned());
    }
    let body = match first(&headers, "content-length") {
        None => rest,
        Some(length) => {
            let length: usize = std::str::from_utf8(length)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or("its content-length is not a number")?;
            // An editor may have added a line end; a capture that is too short cannot be mended.
            rest.get(..length)
                .ok_or_else(|| format!("its body has {} of {length} bytes", rest.len()))?
        }
    };
    Ok(Captured {
        method: method.to_owned(),
        url: if target.contains("://") {
            target.to_owned()
        } else {
            String::new()
        },
        headers,
        body: Zeroizing::new(body.to_vec()),
    })
}

/// Cuts after the first empty line, whichever line ends the capture has.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let end = from + bytes[from..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[from..end];
        if line.is_empty() || line == b"\r" {
            return Some((&bytes[..from], &bytes[end + 1..]));
        }
        from = end + 1;
    }
}

fn from_json(bytes: &[u8]) -> Result<Captured, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let text = |name: &str| document[name].as_str();
    let body = match (text("body"), text("bodyBase64")) {
        (Some(_), Some(_)) => return Err("it has both body and bodyBase64".to_owned()),
        (Some(body), None) => body.as_bytes().to_vec(),
        (None, Some(encoded)) => STANDARD
            .decode(encoded)
            .map_err(|_| "bodyBase64 is not base64")?,
        (None, None) if document.get("body").is_some_and(|body| !body.is_null()) => {
            return Err(
                "its body is JSON and not a text: what was signed are bytes, give them as a text"
                    .to_owned(),
            );
        }
        (None, None) => Vec::new(),
    };
    Ok(Captured {
        method: text("method").unwrap_or("POST").to_owned(),
        url: text("url").unwrap_or_default().to_owned(),
        headers: json_headers(&document["headers"])?,
        body: Zeroizing::new(body),
    })
}

/// `{name: value}`, `{name: [values]}`, `[[name, value]]` or `[{name, value}]`.
fn json_headers(value: &Value) -> Result<Vec<(String, Vec<u8>)>, String> {
    const FORM: &str = "its headers are neither an object nor a list of pairs";
    let pair = |name: &Value, value: &Value| {
        let (name, value) = (name.as_str()?, value.as_str()?);
        Some((name.to_owned(), value.as_bytes().to_vec()))
    };
    let pairs: Option<Vec<_>> = match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| {
                let values = value
                    .as_array()
                    .map_or(std::slice::from_ref(value), Vec::as_slice);
                values
                    .iter()
                    .map(move |value| Some((name.clone(), value.as_str()?.as_bytes().to_vec())))
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Array(_) => pair(&item[0], &item[1]),
                item => pair(&item["name"], &item["value"]),
            })
            .collect(),
        _ => None,
    };
    pairs
        .filter(|pairs| pairs.len() <= HEADERS)
        .ok_or_else(|| FORM.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_http_is_read_with_both_line_ends() {
        for end in ["\r\n", "\n"] {
            let text = [
                "POST /h?x=1 HTTP/1.1",
                "Webhook-Id: a",
                "content-length: 5",
                "",
                "a\nb\nc",
            ];
            let captured = from_raw((text.join(end) + "\n").as_bytes()).unwrap();
            assert_eq!(captured.method, "POST");
            assert_eq!(captured.header("webhook-id"), Some(&b"a"[..]));
            assert_eq!(&captured.body[..], b"a\nb\nc", "cut at content-length");
            assert_eq!(captured.url, "");
        }
    }

    #[test]
    fn damaged_captures_say_what_is_wrong() {
        for (text, part) in [
            ("", "empty line"),
            ("POST / HTTP/1.1\nhost: a", "empty line"),
            ("POST /\n\n", "first line"),
            ("POST / HTTP/1.1\nhost a\n\n", "header line"),
            ("POST / HTTP/1.1\ncontent-length: 9\n\nabc", "3 of 9"),
            ("POST / HTTP/1.1\ncontent-length: x\n\nabc", "not a number"),
            (
                "POST / HTTP/1.1\ntransfer-encoding: chunked\n\n3\r\nabc",
                "chunked",
            ),
        ] {
            let why = from_raw(text.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{text:?}: {why}");
        }
    }

    #[test]
    fn json_has_headers_in_any_usual_form() {
        for headers in [
            r#"{"A": "1", "B": "2"}"#,
            r#"{"A": ["1"], "B": ["2", "3"]}"#,
            r#"[["A", "1"], ["B", "2"]]"#,
            r#"[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]"#,
        ] {
            let text = format!(r#"{{"headers": {headers}, "bodyBase64": "aGk="}}"#);
            let captured = from_json(text.as_bytes()).unwrap();
            assert_eq!(captured.header("b"), Some(&b"2"[..]), "{headers}");
            assert_eq!(&captured.body[..], b"hi");
            assert_eq!(captured.method, "POST");
        }
        for bad in [
            r#"{"headers": 1}"#,
            r#"{"headers": {}, "body": {"a": 1}}"#,
            r#"{"headers": {}, "body": "", "bodyBase64": ""}"#,
            r#"{"headers": {}, "bodyBase64": "?"}"#,
        ] {
            from_json(bad.as_bytes()).unwrap_err();
        }
    }
}
