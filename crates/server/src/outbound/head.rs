//! The head of an HTTP/1.1 answer, cut to what is kept before the parser sees it.
//!
//! A delivery is judged by its status, so a receiver whose proxies add a hundred headers, or very long
//! ones, has accepted it all the same. What the parser takes is bounded by the memory that an attempt
//! may have, and a head beyond it would be an error. So the lines of a head go through here one by
//! one, and those that do not fit are left out:
//!
//! 1. The status line and the end of the head are passed on.
//! 2. A header that decides where the answer ends, or when to come back, is passed on
//!    ([`is_needed`]). One that does not fit is an error: the answer could not be read without it.
//! 3. Any other header is passed on while there are fewer than [`RESPONSE_HEADERS`] of them and
//!    [`ORDINARY_BYTES`] are not used up. The rest is left out, and the cut is noted.
//! 4. Informational answers are left out whole.
//! 5. A head of more than [`RESPONSE_HEAD_BYTES`] is an error.
//! 6. What does not begin as an answer does, and lines that continue another, are for the parser to
//!    judge.
//!
//! A usual head, all of it in one read and within the bounds, is looked at once and copied nowhere.

use hookturn_core::limits::RESPONSE_HEADERS;

use super::config::{KEPT_HEAD_BYTES, RESPONSE_HEAD_BYTES};

/// What the headers that can be left out may take of what is kept, so that there is room for those
/// that cannot.
const ORDINARY_BYTES: usize = KEPT_HEAD_BYTES - 512;
/// Longest `Retry-After` and `Keep-Alive` that are worth that room.
const USEFUL_BYTES: usize = 128;

/// The head is larger than is read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the head of the response is larger than 64 KiB, or too large without what can be left out"
)]
pub(super) struct TooLarge;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before or in the status line.
    Status,
    /// In the headers of the answer.
    Headers,
    /// In the headers of an informational answer.
    Informational,
    /// Beyond the head: everything is passed on.
    #[default]
    Body,
}

/// Cuts one head after the other.
#[derive(Debug, Default)]
pub(super) struct Head {
    at: At,
    /// The line under way, as far as it can be kept.
    line: Vec<u8>,
    /// Whether more of the line came than that.
    too_long: bool,
    /// What the parser gets next.
    ready: Vec<u8>,
    /// How much of that it has.
    given: usize,
    /// Bytes of this head that came, and that were passed on.
    seen: usize,
    passed: usize,
    /// Headers that were passed on.
    headers: usize,
    cut: bool,
}

impl Head {
    /// Expects a head next.
    pub(super) fn begin(&mut self) {
        *self = Self {
            at: At::Status,
            ..Self::default()
        };
    }

    /// Whether everything is passed on as it comes.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Body
    }

    /// Whether a header was left out.
    pub(super) fn was_cut(&self) -> bool {
        self.cut
    }

    /// What the parser gets before anything else.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready[self.given..]
    }

    /// The parser has so much of it.
    pub(super) fn give(&mut self, bytes: usize) {
        self.given += bytes;
        if self.given == self.ready.len() {
            self.given = 0;
            if self.is_over() {
                self.ready = Vec::new();
            } else {
                self.ready.clear();
            }
        }
    }

    /// Whether these first bytes are a whole head that is kept as it is. They are passed on then.
    pub(super) fn is_usual(&mut self, bytes: &[u8]) -> bool {
        if self.at != At::Status
            || !self.line.is_empty()
            || bytes.len() < 12
            || bytes[0] != b'H'
            || !begins_an_answer(bytes)
            || is_informational(bytes)
        {
            return false;
        }
        let mut start = 0;
        for (lines, end) in memchr::memchr_iter(b'\n', bytes).enumerate() {
            if end >= ORDINARY_BYTES || lines > RESPONSE_HEADERS + 1 {
                return false;
            }
            if lines > 0 && is_blank(&bytes[start..end]) {
                self.at = At::Body;
                return true;
            }
            start = end + 1;
        }
        false
    }

    /// Takes what came next. Bytes of the body among them are passed on.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if self.is_over() {
                self.ready.extend_from_slice(bytes);
                return Ok(());
            }
            let end = memchr::memchr(b'\n', bytes);
            let (piece, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            bytes = rest;
            self.seen += piece.len();
            if self.seen > RESPONSE_HEAD_BYTES {
                return Err(TooLarge);
            }
            let room = KEPT_HEAD_BYTES - self.line.len();
            self.too_long |= piece.len() > room;
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if self.at == At::Status && (self.too_long || !begins_an_answer(&self.line)) {
                self.leave_to_parser();
            } else if end.is_some() {
                self.end_line()?;
            }
        }
        Ok(())
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self) {
        if !self.is_over() {
            self.leave_to_parser();
        }
    }

    fn leave_to_parser(&mut self) {
        self.ready.append(&mut self.line);
        self.line = Vec::new();
        self.at = At::Body;
    }

    fn end_line(&mut self) -> Result<(), TooLarge> {
        let line = std::mem::take(&mut self.line);
        let too_long = std::mem::take(&mut self.too_long);
        let blank = is_blank(&line);
        match self.at {
            // Lines before the status line mean nothing (RFC 9112, section 2.2).
            At::Status if blank => {}
            At::Status if is_informational(&line) => self.at = At::Informational,
            At::Status => {
                self.pass(&line);
                self.at = At::Headers;
            }
            At::Informational if blank => self.begin(),
            At::Informational => {}
            At::Headers if blank => {
                self.pass(&line);
                self.at = At::Body;
            }
            At::Headers if is_needed(&line) => {
                // Room for the line that ends the head.
                if too_long || self.passed + line.len() + 2 > KEPT_HEAD_BYTES {
                    return Err(TooLarge);
                }
                self.pass(&line);
            }
            At::Headers if too_long || !self.has_room(&line) => self.cut = true,
            At::Headers => {
                self.headers += 1;
                self.pass(&line);
            }
            At::Body => self.ready.extend_from_slice(&line),
        }
        if !self.is_over() {
            // Kept for the next line, unless a long one made it large.
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    fn has_room(&self, line: &[u8]) -> bool {
        self.headers < RESPONSE_HEADERS && self.passed + line.len() <= ORDINARY_BYTES
    }

    fn pass(&mut self, line: &[u8]) {
        self.ready.extend_from_slice(line);
        self.passed += line.len();
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Whether a status line may begin so.
fn begins_an_answer(line: &[u8]) -> bool {
    let first = line.first().copied();
    let fits = |(at, &byte): (usize, &u8)| match at {
        8 => byte == b' ',
        7.. => byte.is_ascii_digit(),
        _ => byte == b"HTTP/1."[at],
    };
    matches!(first, None | Some(b'\r' | b'\n')) || line.iter().take(12).enumerate().all(fits)
}

/// Whether this status line is one of an answer that another one follows. After 101 there is none.
fn is_informational(line: &[u8]) -> bool {
    line.get(9..12)
        .is_some_and(|status| status[0] == b'1' && status != b"101")
}

/// Whether a header must not be left out: where the answer ends, whether another can follow, when to
/// come back; and a line that continues the one before, which may be one of these.
fn is_needed(line: &[u8]) -> bool {
    const FRAMING: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"connection"];
    const USEFUL: [&[u8]; 2] = [b"retry-after", b"keep-alive"];
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return true;
    }
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is = |known: &[u8]| name.trim_ascii_end().eq_ignore_ascii_case(known);
    FRAMING.into_iter().any(is) || (line.len() <= USEFUL_BYTES && USEFUL.into_iter().any(is))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the parser gets of bytes that come in pieces of this size, and whether something was cut.
    fn cut(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), TooLarge> {
        let mut head = Head::default();
        head.begin();
        let mut given = Vec::new();
        for piece in bytes.chunks(piece) {
            if head.is_over() || head.is_usual(piece) {
                given.extend_from_slice(piece);
                continue;
            }
            head.take(piece)?;
            given.extend_from_slice(head.ready());
            head.give(head.ready().len());
        }
        head.end();
        given.extend_from_slice(head.ready());
        Ok((given, head.was_cut()))
    }

    fn both_ways(bytes: &[u8]) -> (String, bool) {
        let whole = cut(bytes, bytes.len()).unwrap();
        for piece in [1, 7, 2_048] {
            assert_eq!(cut(bytes, piece).unwrap(), whole, "in pieces of {piece}");
        }
        (String::from_utf8_lossy(&whole.0).into_owned(), whole.1)
    }

    #[test]
    fn what_fits_is_passed_on_as_it_is() {
        for text in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n\r\nok",
            "HTTP/1.0 200 OK\nx: y\n\nuntil\n\nthe end",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nbytes",
            "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 banana",
            "HTTP/1.1 200 OK\r\nx: unfinis",
        ] {
            assert_eq!(both_ways(text.as_bytes()), (text.to_owned(), false));
        }
    }

    #[test]
    fn informational_answers_are_left_out() {
        let text = "\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                    HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        let (given, was_cut) = both_ways(text.as_bytes());
        assert_eq!(given, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        assert!(!was_cut);
    }

    #[test]
    fn headers_beyond_the_bounds_are_left_out_and_those_that_are_needed_are_not() {
        let many = "x: y\r\n".repeat(500);
        let long = format!("x-long: {}\r\n", "z".repeat(20_000));
        let needed = "Content-Length : 3\r\nretry-after: 7\r\nConnection: close\r\n";
        let text = format!("HTTP/1.1 200 OK\r\n{long}{many}{long}{needed}\r\nend");
        let (given, was_cut) = both_ways(text.as_bytes());
        let kept = "x: y\r\n".repeat(RESPONSE_HEADERS);
        assert_eq!(given, format!("HTTP/1.1 200 OK\r\n{kept}{needed}\r\nend"));
        assert!(was_cut);
    }

    #[test]
    fn g10_a_head_without_end_is_an_error() {
        let line = format!("x: {}\r\n", "z".repeat(1_000));
        for text in [
            format!("HTTP/1.1 200 OK\r\n{}", line.repeat(100)),
            format!("HTTP/1.1 200 OK\r\nx: {}", "z".repeat(100_000)),
            format!("HTTP/1.1 200 OK\r\nconnection: {}\r\n", "z".repeat(20_000)),
            format!(
                "HTTP/1.1 200 OK\r\n{}",
                "content-length: 1\r\n".repeat(1_000)
            ),
        ] {
            for piece in [1, 2_048, text.len()] {
                assert_eq!(cut(text.as_bytes(), piece), Err(TooLarge));
            }
        }
    }

    proptest! {
        /// G10: whatever comes and in whatever pieces, what is held and passed on is bounded, the
        /// same for all of them, and the body is untouched.
        #[test]
        fn g10_pieces_make_no_difference(
            lines in proptest::collection::vec("[a-z:\\r \\t0-9]{0,40}", 0..120),
            body in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1_usize..3_000,
        ) {
            let lines: Vec<_> = lines.iter().filter(|line| !is_blank(line.as_bytes())).collect();
            let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
            for line in lines {
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"\r\n");
            let head = bytes.len();
            bytes.extend_from_slice(&body);
            let whole = cut(&bytes, bytes.len());
            prop_assert_eq!(&cut(&bytes, piece), &whole);
            if let Ok((given, was_cut)) = whole {
                prop_assert!(given.ends_with(&body));
                prop_assert!(given.len() - body.len() <= KEPT_HEAD_BYTES);
                prop_assert!(was_cut || given.len() - body.len() == head);
            }
        }
    }
}
