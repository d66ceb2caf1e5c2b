//! Finding out why a request with the right secret does not verify.
//!
//! The commonest mistake of receivers is to verify a body that a framework has parsed and written
//! again. When nothing matches, the verifier tries the forms such a body is likely to have had on
//! the wire. A hit is still a refusal: it only changes the error, and it can only happen to a
//! request that was signed with a known secret.
//!
//! The forms, in this order: white space at the end removed or a newline added; line ends changed;
//! JSON with other white space; JSON with other escapes. The order of keys and the spelling of
//! numbers are left alone. Bodies over 256 KiB are not tried, so that a stranger cannot make the
//! receiver work long.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// Bodies that are longer are not tried.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// A form that grows beyond this many times its body is given up: deep nesting could otherwise
/// make indentation large.
const MAX_GROWTH: usize = 4;

/// What a receiver did to a request before it verified it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rewrite {
    /// White space at the end of the body was added or removed.
    TrailingWhitespace,
    /// Line ends were changed between LF and CRLF.
    LineEnds,
    /// JSON was written again with other white space.
    JsonWhitespace,
    /// JSON was written again with other escapes inside strings.
    JsonEscapes,
    /// A slash at the end of the URL was added or removed.
    UrlTrailingSlash,
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TrailingWhitespace => {
                "white space at the end of the body was added or removed before verification"
            }
            Self::LineEnds => "the line ends of the body were changed before verification",
            Self::JsonWhitespace => {
                "the body was parsed and re-serialised with other white space before verification"
            }
            Self::JsonEscapes => {
                "the body was parsed and re-serialised with other escapes before verification"
            }
            Self::UrlTrailingSlash => {
                "a slash at the end of the URL was added or removed before verification"
            }
        })
    }
}

/// Offers the likely original forms of `body` to `matches` until one is taken.
pub(crate) fn find(body: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> Option<Rewrite> {
    if body.len() > MAX_BODY_BYTES {
        return None;
    }
    let mut offer = |form: &[u8]| form != body && matches(form);

    if offer(body.trim_ascii_end())
        || offer(&[body, b"\n"].concat())
        || offer(&[body, b"\r\n"].concat())
    {
        return Some(Rewrite::TrailingWhitespace);
    }
    let text = std::str::from_utf8(body).ok()?;
    if text.contains('\n') {
        let unix = text.replace("\r\n", "\n");
        if offer(unix.as_bytes()) || offer(unix.replace('\n', "\r\n").as_bytes()) {
            return Some(Rewrite::LineEnds);
        }
    }
    for escapes in [
        Escapes::Kept,
        Escapes::Plain,
        Escapes::Ascii,
        Escapes::AsciiAndSlashes,
    ] {
        for spacing in [
            Spacing::None,
            Spacing::Single,
            Spacing::Indent2,
            Spacing::Indent4,
        ] {
            let form = rewrite_json(text, spacing, escapes)?;
            if offer(form.as_bytes()) {
                return Some(match escapes {
                    Escapes::Kept => Rewrite::JsonWhitespace,
                    Escapes::Plain | Escapes::Ascii | Escapes::AsciiAndSlashes => {
                        Rewrite::JsonEscapes
                    }
                });
            }
        }
    }
    None
}

/// White space between JSON tokens, as common writers put it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spacing {
    /// `{"a":1,"b":2}`: JavaScript, Go, Rust, PHP.
    None,
    /// `{"a": 1, "b": 2}`: Python.
    Single,
    /// One line per value, indented by two.
    Indent2,
    /// One line per value, indented by four.
    Indent4,
}

/// Escapes inside JSON strings, as common writers put them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// As they are.
    Kept,
    /// As few as can be: JavaScript, Rust.
    Plain,
    /// `\uXXXX` for all that is not ASCII: Python.
    Ascii,
    /// The same, and `\/`: PHP.
    AsciiAndSlashes,
}

/// Writes JSON again. Judges no grammar (a wrong form matches no signature); `None` when the text
/// is certainly not a JSON object or array, or when the form would grow too large.
fn rewrite_json(text: &str, spacing: Spacing, escapes: Escapes) -> Option<String> {
    let text = text.trim_ascii();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let limit = text.len() * MAX_GROWTH + 1024;
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_usize;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => copy_string(&mut chars, &mut out, escapes)?,
            '{' | '[' => {
                out.push(char);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, spacing, depth);
                }
            }
            '}' | ']' => {
                depth = depth.checked_sub(1)?;
                break_line(&mut out, spacing, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                if spacing == Spacing::Single {
                    out.push(' ');
                }
                break_line(&mut out, spacing, depth);
            }
            ':' => out.push_str(if spacing == Spacing::None { ":" } else { ": " }),
            _ => out.push(char),
        }
        if out.len() > limit {
            return None;
        }
    }
    (depth == 0).then_some(out)
}

fn break_line(out: &mut String, spacing: Spacing, depth: usize) {
    let width = match spacing {
        Spacing::None | Spacing::Single => return,
        Spacing::Indent2 => 2,
        Spacing::Indent4 => 4,
    };
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', width * depth));
}

/// Copies a string whose opening quote has been read, up to and with its closing quote.
fn copy_string(chars: &mut Peekable<Chars<'_>>, out: &mut String, escapes: Escapes) -> Option<()> {
    out.push('"');
    loop {
        match chars.next()? {
            '"' => {
                out.push('"');
                return Some(());
            }
            '\\' => copy_escape(chars, out, escapes)?,
            '/' if escapes == Escapes::AsciiAndSlashes => out.push_str("\\/"),
            char if char.is_ascii() => out.push(char),
            char => match escapes {
                Escapes::Kept | Escapes::Plain => out.push(char),
                Escapes::Ascii | Escapes::AsciiAndSlashes => push_unicode_escape(out, char),
            },
        }
    }
}

/// Copies an escape whose backslash has been read.
fn copy_escape(chars: &mut Peekable<Chars<'_>>, out: &mut String, escapes: Escapes) -> Option<()> {
    let kind = chars.next()?;
    match (kind, escapes) {
        ('/', Escapes::Plain | Escapes::Ascii) => out.push('/'),
        ('u', Escapes::Plain) => {
            let unit = read_unit(chars)?;
            let char = if let 0xd800..=0xdbff = unit {
                if (chars.next()?, chars.next()?) != ('\\', 'u') {
                    return None;
                }
                char::decode_utf16([unit, read_unit(chars)?]).next()?.ok()?
            } else {
                char::from_u32(u32::from(unit))?
            };
            if char.is_ascii() {
                push_unicode_escape(out, char);
            } else {
                out.push(char);
            }
        }
        _ => {
            out.push('\\');
            out.push(kind);
        }
    }
    Some(())
}

/// Reads the four hex digits after `\u`.
fn read_unit(chars: &mut Peekable<Chars<'_>>) -> Option<u16> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = (unit << 4) | u16::try_from(chars.next()?.to_digit(16)?).ok()?;
    }
    Some(unit)
}

fn push_unicode_escape(out: &mut String, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        out.push_str("\\u");
        crate::encoding::push_hex(out, &unit.to_be_bytes());
    }
}
