//! What a payload must be beyond valid JSON, so that receivers can read it.
//!
//! JSON's grammar allows texts that its readers do not agree on: RFC 8259 names them (sections 4, 6,
//! 8.2 and 9), RFC 7493 forbids most of them. Those that make a common parser fail, or silently read
//! something else, are refused when they are published, where somebody can still mend them; at the
//! receiver they would be a delivery that fails until it is exhausted.
//!
//! 1. Arrays and objects nest at most [`limits::PAYLOAD_DEPTH`] deep (RFC 8259, section 9).
//! 2. A number has a finite double nearest to it (section 6): `1e999` is infinity to some readers and
//!    an error to others. More digits than a double keeps are the publisher's own affair, and so is
//!    what rounds to zero.
//! 3. Text is Unicode: an escaped surrogate has its other half beside it (section 8.2).
//!
//! Names that stand twice in an object are left alone: everyone reads some of them, and the bytes are
//! signed as they are.
//!
//! This is one pass over bytes that are known to be JSON, without memory of its own: it costs less
//! than the parse before it.

use crate::limits;

/// Why receivers could not read a payload. `at` is an offset in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadablePayload {
    /// See rule 1.
    #[error(
        "arrays and objects nest deeper than {} at byte {at} of the payload: parsers of receivers refuse that",
        limits::PAYLOAD_DEPTH
    )]
    TooDeep {
        /// The bracket that goes too deep.
        at: usize,
    },
    /// See rule 2.
    #[error(
        "the number at byte {at} of the payload is larger than any a double can hold: send it as a string"
    )]
    NumberTooLarge {
        /// Its first byte.
        at: usize,
    },
    /// See rule 3.
    #[error("the escape at byte {at} of the payload is half of a surrogate pair and no character")]
    LoneSurrogate {
        /// The backslash.
        at: usize,
    },
}

/// A number of fewer bytes without an exponent is finite: the largest double has 309 digits.
const SURELY_FINITE: usize = 309;

/// Checks a text that is known to be valid JSON. On any other it answers something, and no more.
pub fn check(json: &[u8]) -> Result<(), UnreadablePayload> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        at = match byte {
            b'"' => after_string(json, at + 1)?,
            b'-' | b'0'..=b'9' => after_number(json, at)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > limits::PAYLOAD_DEPTH {
                    return Err(UnreadablePayload::TooDeep { at });
                }
                at + 1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            _ => at + 1,
        };
    }
    Ok(())
}

/// Where the text goes on after the string whose first byte is at `at`.
fn after_string(json: &[u8], mut at: usize) -> Result<usize, UnreadablePayload> {
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        if json[at] == b'"' {
            return Ok(at + 1);
        }
        at = after_escape(json, at)?;
    }
    Ok(json.len())
}

/// Where the string goes on after the escape whose backslash is at `at`.
fn after_escape(json: &[u8], at: usize) -> Result<usize, UnreadablePayload> {
    match unit(json, at) {
        None => Ok(at + 2),
        Some(0xd800..=0xdbff) => match unit(json, at + 6) {
            Some(0xdc00..=0xdfff) => Ok(at + 12),
            Some(_) | None => Err(UnreadablePayload::LoneSurrogate { at }),
        },
        Some(0xdc00..=0xdfff) => Err(UnreadablePayload::LoneSurrogate { at }),
        Some(_) => Ok(at + 6),
    }
}

/// The UTF-16 unit of an escape `\uXXXX` that begins at `at`.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Where the text goes on after the number that begins at `at`.
fn after_number(json: &[u8], at: usize) -> Result<usize, UnreadablePayload> {
    let rest = &json[at..];
    let belongs = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = rest
        .iter()
        .position(|byte| !belongs(byte))
        .unwrap_or(rest.len());
    let number = &rest[..length];
    let has_exponent = number.iter().any(|byte| matches!(byte, b'e' | b'E'));
    if has_exponent || length >= SURELY_FINITE {
        let value = std::str::from_utf8(number)
            .ok()
            .and_then(|text| text.parse::<f64>().ok());
        if value.is_some_and(f64::is_infinite) {
            return Err(UnreadablePayload::NumberTooLarge { at });
        }
    }
    Ok(at + length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: usize) -> String {
        let (open, close) = (depth / 2, depth - depth / 2);
        format!(
            "{}{}1{}{}",
            "[".repeat(close),
            "{\"a\":".repeat(open),
            "}".repeat(open),
            "]".repeat(close)
        )
    }

    #[test]
    fn what_parsers_choke_on_is_refused_where_it_stands() {
        use UnreadablePayload::{LoneSurrogate, NumberTooLarge, TooDeep};
        let digits = "9".repeat(310);
        let many = format!("[1,-{digits}]");
        for (json, wanted) in [
            ("1e999999", NumberTooLarge { at: 0 }),
            ("[1, -1E400]", NumberTooLarge { at: 4 }),
            (r#"{"a": 1.8e308}"#, NumberTooLarge { at: 6 }),
            (many.as_str(), NumberTooLarge { at: 3 }),
            (r#""\ud800""#, LoneSurrogate { at: 1 }),
            (r#""a\uDFFF""#, LoneSurrogate { at: 2 }),
            (r#"["\\\ud83d\u0041"]"#, LoneSurrogate { at: 4 }),
            (r#""\ud83d\n""#, LoneSurrogate { at: 1 }),
            (r#"{"\udc00": 1}"#, LoneSurrogate { at: 2 }),
            (&nested(limits::PAYLOAD_DEPTH + 1), TooDeep { at: 0 }),
        ] {
            let found = check(json.as_bytes()).unwrap_err();
            match (found, wanted) {
                // Where it stands follows from the limit.
                (TooDeep { .. }, TooDeep { .. }) => {}
                (found, wanted) => assert_eq!(found, wanted, "{json}"),
            }
        }
        let flat = "[".repeat(limits::PAYLOAD_DEPTH + 1);
        assert_eq!(
            check(flat.as_bytes()),
            Err(TooDeep {
                at: limits::PAYLOAD_DEPTH
            })
        );
    }

    #[test]
    fn what_parsers_read_is_taken() {
        let long = format!("0.{}", "3".repeat(1_000));
        let large = "9".repeat(308);
        for json in [
            "1e308",
            "-1.7976931348623157e308",
            "1e-999999",
            "0e999999",
            "12345678901234567890123456789012345678901234567890",
            &long,
            &large,
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            r#""[[[[ 1e999 {{{{ \" \\""#,
            r#"{"a": 1, "a": 2}"#,
            r#""\u0000""#,
            "null",
            "[[],[],{},[{}]]",
            &nested(limits::PAYLOAD_DEPTH),
        ] {
            serde_json::from_str::<serde::de::IgnoredAny>(json).unwrap();
            assert_eq!(check(json.as_bytes()), Ok(()), "{json}");
        }
        // Brackets side by side are no depth.
        let wide = format!("[{}]", vec!["[]"; 10_000].join(","));
        assert_eq!(check(wide.as_bytes()), Ok(()));
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_taken(text in any::<String>(), number in any::<f64>(), int in any::<i64>()) {
            let json = serde_json::json!({ &text: [&text, number, int, { "a": &text }] });
            prop_assert_eq!(check(json.to_string().as_bytes()), Ok(()));
        }

        #[test]
        fn escapes_are_read_as_serde_reads_them(units in prop::collection::vec(
            prop_oneof![0xd700_u16..0xe100, any::<u16>()], 0..6))
        {
            use std::fmt::Write as _;
            let mut json = "\"".to_owned();
            for unit in units {
                let _ = write!(json, "\\u{unit:04x}");
            }
            json.push('"');
            let readable = serde_json::from_str::<String>(&json).is_ok();
            prop_assert_eq!(check(json.as_bytes()).is_ok(), readable, "{}", json);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
        }
    }
}
