//! Which custom headers an endpoint may have.
//!
//! A custom header must not change how the request is framed or routed, must not speak in Hookturn's
//! name, and must not grow the request without bound. Everything else is the customer's choice,
//! `authorization` and `cookie` included: they are how receivers are often protected.

use hookturn_core::limits::{CUSTOM_HEADER_BYTES, CUSTOM_HEADERS, CUSTOM_HEADERS_BYTES};

/// Why a custom header is refused. The words do not repeat its name, which may be a secret in the wrong
/// place; whoever shows them says where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderRefused {
    /// The name is empty or has characters that names cannot have.
    #[error("the header name must be one or more of a-z, 0-9 and !#$%&'*+-.^_`|~")]
    Name,
    /// The value has control characters, line breaks or text that is not ASCII.
    #[error("the value has a line break, a control character or a character outside ASCII")]
    Value {
        /// The header's name.
        name: String,
    },
    /// The header belongs to the connection or to HTTP's framing.
    #[error("this header controls the connection or the framing of the request and cannot be set")]
    Connection {
        /// The header's name.
        name: String,
    },
    /// Hookturn sets the header itself.
    #[error("this header is set by Hookturn and cannot be replaced")]
    Ours {
        /// The header's name.
        name: String,
    },
    /// One header is too long.
    #[error("name and value are {bytes} bytes long; at most {CUSTOM_HEADER_BYTES} are allowed")]
    TooLong {
        /// The header's name.
        name: String,
        /// Length of name and value together.
        bytes: usize,
    },
    /// There are too many headers.
    #[error("{count} custom headers; at most {CUSTOM_HEADERS} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// All headers together are too long.
    #[error(
        "the custom headers are {bytes} bytes long together; at most {CUSTOM_HEADERS_BYTES} are allowed"
    )]
    TooLongTogether {
        /// Length of all names and values.
        bytes: usize,
    },
    /// The same name twice.
    #[error("a header is given twice; names do not depend on upper and lower case")]
    Twice {
        /// The header's name.
        name: String,
    },
}

/// Headers of the connection or of the framing: RFC 9110 section 7.6.1, RFC 9112, and what proxies
/// treat alike.
const CONNECTION: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Headers that Hookturn sets, or whose absence it relies on.
const OURS: [&str; 6] = [
    "accept-encoding",
    "content-type",
    "date",
    "user-agent",
    "x-hopae-signature",
    "x-hub-signature",
];

/// Beginnings of names that are Hookturn's or a preset's.
const OUR_PREFIXES: [&str; 7] = [
    "hookturn-",
    "kore-",
    "svix-",
    "webhook-",
    "x-github-",
    "x-hookturn-",
    "x-hub-",
];

/// Checks one custom header. Which names a workspace's white label uses is checked where it is known.
pub fn check_custom_header(name: &str, value: &str) -> Result<(), HeaderRefused> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(HeaderRefused::Name);
    }
    let bytes = name.len() + value.len();
    if bytes > CUSTOM_HEADER_BYTES {
        return Err(HeaderRefused::TooLong {
            name: shortened(name),
            bytes,
        });
    }
    let lower = name.to_ascii_lowercase();
    if is_connection(&lower) {
        return Err(HeaderRefused::Connection { name: lower });
    }
    if is_ours(&lower) {
        return Err(HeaderRefused::Ours { name: lower });
    }
    if !value
        .bytes()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    {
        return Err(HeaderRefused::Value { name: lower });
    }
    Ok(())
}

/// Checks all custom headers of an endpoint: each alone, then their budgets together.
pub fn check_custom_headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), HeaderRefused> {
    let mut names: Vec<String> = Vec::new();
    let mut bytes = 0;
    for (name, value) in headers {
        if names.len() == CUSTOM_HEADERS {
            return Err(HeaderRefused::TooMany {
                count: CUSTOM_HEADERS + 1,
            });
        }
        check_custom_header(name, value)?;
        bytes += name.len() + value.len();
        if bytes > CUSTOM_HEADERS_BYTES {
            return Err(HeaderRefused::TooLongTogether { bytes });
        }
        let lower = name.to_ascii_lowercase();
        if names.contains(&lower) {
            return Err(HeaderRefused::Twice { name: lower });
        }
        names.push(lower);
    }
    Ok(())
}

/// Whether Hookturn or a preset sets a header of this lower-case name.
pub fn is_ours(lower: &str) -> bool {
    OURS.contains(&lower) || OUR_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

/// Whether a header of this lower-case name belongs to the connection or to HTTP's framing.
pub fn is_connection(lower: &str) -> bool {
    CONNECTION.contains(&lower)
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn g10_custom_headers_that_are_the_customers_choice_pass() {
        for (name, value) in [
            ("Authorization", "Bearer abc"),
            ("cookie", "a=b; c=d"),
            ("X-Tenant", ""),
            ("x-api-key", "tab\tinside"),
            ("hookturns-friend", "x"),
        ] {
            assert_eq!(check_custom_header(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn g10_framing_and_our_own_names_are_refused_in_any_case() {
        for name in CONNECTION {
            let shouted = name.to_ascii_uppercase();
            assert!(matches!(
                check_custom_header(&shouted, "x"),
                Err(HeaderRefused::Connection { .. })
            ));
        }
        for name in [
            "Webhook-Id",
            "webhook-signature",
            "KORE-Signature",
            "x-hopae-signature",
            "X-Hub-Signature-256",
            "hookturn-anything",
            "User-Agent",
            "content-type",
        ] {
            assert!(
                matches!(
                    check_custom_header(name, "x"),
                    Err(HeaderRefused::Ours { .. })
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn g10_line_breaks_and_control_characters_are_refused() {
        for value in [
            "a\r\nb: c",
            "a\nb",
            "a\rb",
            "nul\0",
            "del\x7f",
            "ümlaut",
            "\x1b[1m",
        ] {
            assert!(
                matches!(
                    check_custom_header("x-a", value),
                    Err(HeaderRefused::Value { .. })
                ),
                "{value:?}"
            );
        }
        for name in ["", "a b", "a:b", "a\r\n", "ä", "a\0", "(a)", ":authority"] {
            assert_eq!(
                check_custom_header(name, "x"),
                Err(HeaderRefused::Name),
                "{name:?}"
            );
        }
    }

    #[test]
    fn g10_budgets_hold_at_their_edges() {
        let exactly = "v".repeat(CUSTOM_HEADER_BYTES - 3);
        assert_eq!(check_custom_header("x-a", &exactly), Ok(()));
        assert!(matches!(
            check_custom_header("x-ab", &exactly),
            Err(HeaderRefused::TooLong { .. })
        ));
        let names: Vec<String> = (0..=CUSTOM_HEADERS).map(|n| format!("x-{n}")).collect();
        let pairs = |count: usize| names[..count].iter().map(|name| (name.as_str(), "v"));
        assert_eq!(check_custom_headers(pairs(CUSTOM_HEADERS)), Ok(()));
        assert!(matches!(
            check_custom_headers(pairs(CUSTOM_HEADERS + 1)),
            Err(HeaderRefused::TooMany { .. })
        ));
        assert!(matches!(
            check_custom_headers([("x-a", exactly.as_str()), ("x-b", &exactly), ("x-c", "v")]),
            Err(HeaderRefused::TooLongTogether { .. })
        ));
        assert!(matches!(
            check_custom_headers([("X-A", "1"), ("x-a", "2")]),
            Err(HeaderRefused::Twice { .. })
        ));
    }

    proptest! {
        /// What passes is accepted by the HTTP library too: nothing is found out only at send.
        #[test]
        fn what_passes_can_be_sent(name in "\\PC{0,12}|[a-z-]{1,12}", value in "\\PC{0,12}|[ -~\t]{0,12}") {
            if check_custom_header(&name, &value).is_ok() {
                prop_assert!(http::HeaderName::try_from(&name).is_ok());
                prop_assert!(http::HeaderValue::try_from(&value).is_ok());
            }
        }
    }
}
