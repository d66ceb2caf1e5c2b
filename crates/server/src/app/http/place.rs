//! Where in the requests of a connection of HTTP/1.1 its bytes stand.
//!
//! hyper refuses a request, or gives it up, without a word on which one that was and how far it came. So the
//! bytes are followed here beside hyper, by the framing of RFC 9112: which request line each request began
//! with, and where it ends. hyper decides what is valid; what it would refuse anyway is followed no
//! further. Nothing of a request is kept but the beginning of the line under way, and of each path that
//! hyper has not come to.

use std::collections::VecDeque;

/// Bytes that are kept of the line under way: enough for the path behind any host, and for a header that
/// says how long a body is.
const LINE_BYTES: usize = 512;

/// Bytes that are kept of a path: more than it takes to know whose it is.
const PATH_BYTES: usize = 32;

/// Where in the requests of a connection the bytes stand that came last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    at: At,
    /// The beginning of the line under way.
    line: Vec<u8>,
    /// Bytes of the line under way.
    line_bytes: usize,
    /// How long the body is that follows the head under way.
    body: Body,
    /// Paths of the requests whose request line came, but for those that were forgotten.
    paths: VecDeque<Path>,
    /// How many were forgotten.
    forgotten: usize,
    /// Whether the first bytes were those of HTTP/2; `None` before the first.
    http2: Option<bool>,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A request line, or blank lines before it.
    #[default]
    RequestLine,
    /// The lines of headers.
    Headers,
    /// A body of which so many bytes are left.
    Body(u64),
    /// The line before a chunk.
    ChunkSize,
    /// A chunk of which so many bytes are left.
    Chunk(u64),
    /// The end of the line that a chunk is.
    ChunkEnd,
    /// The lines after the last chunk.
    Trailers,
    /// That is not known, nor for what follows.
    Unknown,
}

/// What a head says of the body after it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Nothing, so there is none.
    #[default]
    None,
    Bytes(u64),
    Chunks,
    Unknown,
}

/// The beginning of a path; empty where it is not known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Path {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl Place {
    /// Follows these bytes. hyper has taken `taken` requests.
    pub(super) fn came(&mut self, mut bytes: &[u8], taken: usize) {
        if bytes.is_empty() {
            return;
        }
        if *self.http2.get_or_insert_with(|| bytes.starts_with(b"PRI")) {
            return;
        }
        while self.forgotten < taken && self.paths.pop_front().is_some() {
            self.forgotten += 1;
        }
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Body(left) => self.pass(bytes, left, At::Body, At::RequestLine),
                At::Chunk(left) => self.pass(bytes, left, At::Chunk, At::ChunkEnd),
                At::Unknown => return,
                At::RequestLine | At::Headers | At::ChunkSize | At::ChunkEnd | At::Trailers => {
                    self.line_came(bytes)
                }
            };
        }
    }

    /// The path of the request that hyper takes after `taken` others, as far as it came and is kept; empty
    /// where it cannot be told.
    pub(super) fn path(&self, taken: usize) -> String {
        let known = taken.checked_sub(self.forgotten);
        let path = match known.and_then(|index| self.paths.get(index)) {
            Some(path) => *path,
            None if self.is_at_head(taken) => Path::of_line(&self.line, false),
            None => Path::default(),
        };
        path.as_str().to_owned()
    }

    /// Whether the head that hyper reads after `taken` requests is too large with nothing but a request
    /// line so far.
    pub(super) fn is_request_line(&self, taken: usize, too_large: usize) -> bool {
        self.at == At::RequestLine && self.is_at_head(taken) && self.line_bytes >= too_large
    }

    /// Whether a client waits for an answer to half a head, after `taken` requests.
    pub(super) fn is_half_a_head(&self, taken: usize) -> bool {
        self.is_at_head(taken)
            && match self.at {
                At::RequestLine => !is_blank(&self.line),
                At::Headers => true,
                At::Body(_)
                | At::ChunkSize
                | At::Chunk(_)
                | At::ChunkEnd
                | At::Trailers
                | At::Unknown => false,
            }
    }

    /// Whether the head under way is that of the request after `taken` others.
    fn is_at_head(&self, taken: usize) -> bool {
        let begun = self.forgotten + self.paths.len();
        self.http2 != Some(true)
            && match self.at {
                At::RequestLine => begun == taken,
                At::Headers => begun == taken + 1,
                At::Body(_)
                | At::ChunkSize
                | At::Chunk(_)
                | At::ChunkEnd
                | At::Trailers
                | At::Unknown => false,
            }
    }

    /// Passes over what has a known length; the bytes after it.
    fn pass<'b>(
        &mut self,
        bytes: &'b [u8],
        left: u64,
        within: fn(u64) -> At,
        after: At,
    ) -> &'b [u8] {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.at = if left == 0 { after } else { within(left) };
        &bytes[here..]
    }

    /// Takes the bytes of the line under way; those after it.
    fn line_came<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let end = memchr::memchr(b'\n', bytes);
        let here = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE_BYTES - self.line.len();
        self.line.extend_from_slice(&here[..room.min(here.len())]);
        self.line_bytes += here.len();
        let Some(end) = end else {
            return &[];
        };
        let mut line = std::mem::take(&mut self.line);
        self.line_ended(&line);
        line.clear();
        self.line = line;
        self.line_bytes = 0;
        &bytes[end + 1..]
    }

    /// What follows a line of which this much was kept, without its end.
    fn line_ended(&mut self, line: &[u8]) {
        let blank = is_blank(line);
        self.at = match self.at {
            At::RequestLine | At::Trailers if blank => At::RequestLine,
            At::RequestLine => {
                self.paths.push_back(Path::of_line(line, true));
                self.body = Body::None;
                At::Headers
            }
            At::Headers if blank => match self.body {
                Body::None | Body::Bytes(0) => At::RequestLine,
                Body::Bytes(bytes) => At::Body(bytes),
                Body::Chunks => At::ChunkSize,
                Body::Unknown => At::Unknown,
            },
            At::Headers => {
                let whole = self.line_bytes == line.len();
                self.body = self.body.after_header(line, whole);
                At::Headers
            }
            At::ChunkSize => match chunk_size(line) {
                Some(0) => At::Trailers,
                Some(bytes) => At::Chunk(bytes),
                None => At::Unknown,
            },
            At::ChunkEnd if blank => At::ChunkSize,
            At::Trailers => At::Trailers,
            At::ChunkEnd | At::Body(_) | At::Chunk(_) | At::Unknown => At::Unknown,
        };
    }
}

impl Body {
    /// What is known after this header: chunks go before a length, as with hyper.
    fn after_header(self, line: &[u8], whole: bool) -> Self {
        let Some(colon) = memchr::memchr(b':', line) else {
            return self;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let chunked = whole && value.to_ascii_lowercase().ends_with(b"chunked");
            return if chunked { Self::Chunks } else { Self::Unknown };
        }
        if !name.eq_ignore_ascii_case(b"content-length") || self == Self::Chunks {
            return self;
        }
        match number(value, 10) {
            Some(bytes) if whole => Self::Bytes(bytes),
            Some(_) | None => Self::Unknown,
        }
    }
}

impl Path {
    /// That in a request line, of which all came or not: without its end, what stands behind the last slash
    /// can still become anything.
    fn of_line(line: &[u8], ended: bool) -> Self {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
            return Self::default();
        };
        if method.is_empty() || !method.iter().all(u8::is_ascii_graphic) {
            return Self::default();
        }
        let ended = ended || parts.next().is_some();
        let path = origin_form(target.trim_ascii_end());
        let query = memchr::memchr(b'?', path);
        let path = match (query, memchr::memrchr(b'/', path)) {
            (Some(query), _) => &path[..query],
            (None, Some(slash)) if !ended => &path[..=slash],
            (None, _) => path,
        };
        let mut kept = Self {
            len: path.len().min(PATH_BYTES),
            ..Self::default()
        };
        kept.bytes[..kept.len].copy_from_slice(&path[..kept.len]);
        kept
    }

    fn as_str(&self) -> &str {
        let bytes = &self.bytes[..self.len];
        // What follows a byte that no path has is not asked for.
        std::str::from_utf8(bytes)
            .or_else(|error| std::str::from_utf8(&bytes[..error.valid_up_to()]))
            .unwrap_or_default()
    }
}

/// A target from its path on; nothing if it has none.
fn origin_form(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let path = memchr::memmem::find(target, b"://").and_then(|scheme| {
        let host = &target[scheme + 3..];
        memchr::memchr(b'/', host).map(|slash| &host[slash..])
    });
    path.unwrap_or_default()
}

/// The size in the line before a chunk, which may have an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?;
    number(size.trim_ascii(), 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // A sign is none of HTTP's.
    let unsigned = !text.starts_with(['+', '-']);
    u64::from_str_radix(text, radix).ok().filter(|_| unsigned)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| *byte == b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET /v1/apps HTTP/1.1\r\nhost: x\r\n";
    const POST: &str =
        "POST /kore/v1/secrets HTTP/1.1\r\nhost: x\r\nContent-Length: 11\r\n\r\n{\r\n\r\n\"a\":1}";
    const CHUNKS: &str = "POST /connect/v1/apps HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;why=not\r\nGET /\r\nA\r\n0123\r\n\r\n89\r\n0\r\nx-trailer: y\r\n\r\n";

    fn place(text: &str, piece: usize) -> Place {
        let mut place = Place::default();
        for bytes in text.as_bytes().chunks(piece) {
            place.came(bytes, 0);
        }
        place
    }

    /// Every way to cut a text into pieces of one length must tell the same.
    fn everywhere(text: &str, told: impl Fn(&Place)) {
        for piece in [1, 2, 3, 7, text.len().max(1)] {
            told(&place(text, piece));
        }
    }

    #[test]
    fn a_request_line_is_told_from_headers_wherever_it_stands() {
        let long = "p".repeat(50);
        for (text, taken, line) in [
            (format!("GET /{long}"), 0, true),
            (format!("\r\nGET /{long}"), 0, true),
            (format!("{GET}\r\nGET /{long}"), 1, true),
            (format!("{POST}GET /{long}"), 1, true),
            (format!("{CHUNKS}GET /{long}"), 1, true),
            (format!("{GET}x-long: {long}"), 0, false),
            (format!("{GET}\r\n{GET}x-long: {long}"), 1, false),
            (format!("{POST}{GET}x-long: {long}"), 1, false),
            (format!("{GET}\r\n{GET}x: y\r\n\r\n"), 2, false),
            (format!("{GET}\r\n{GET}x: y\r\n\r\nGET /"), 2, false),
        ] {
            everywhere(&text, |place| {
                assert_eq!(place.is_request_line(taken, 50), line, "{text:?}");
            });
        }
    }

    #[test]
    fn half_a_head_is_what_no_request_was_made_of() {
        for (text, taken, half) in [
            (String::new(), 0, false),
            ("\r\n".to_owned(), 0, false),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0, false),
            ("G".to_owned(), 0, true),
            (GET.to_owned(), 0, true),
            (format!("{GET}\r\n"), 1, false),
            (format!("{GET}\r\n\r\n"), 1, false),
            (format!("{GET}\r\nG"), 1, true),
            (format!("{GET}\r\nG"), 0, false),
            (POST.to_owned(), 1, false),
            (POST[..POST.len() - 1].to_owned(), 1, false),
            (format!("{POST}{GET}"), 1, true),
            (CHUNKS.to_owned(), 1, false),
            (format!("{CHUNKS}P"), 1, true),
            (format!("{CHUNKS}{POST}{GET}"), 2, true),
            (format!("{CHUNKS}{POST}{GET}"), 1, false),
        ] {
            // Known from the first bytes on; hyper's reads never split them.
            let pieces = if text.starts_with("PRI") { 24 } else { 1 };
            let place = place(&text, pieces);
            assert_eq!(place.is_half_a_head(taken), half, "{text:?} after {taken}");
        }
    }

    #[test]
    fn each_request_keeps_its_own_path() {
        let text = format!("{GET}\r\n{POST}{CHUNKS}GET /kore/v1/sec");
        everywhere(&text, |place| {
            let paths: Vec<_> = (0..5).map(|taken| place.path(taken)).collect();
            let wanted = [
                "/v1/apps",
                "/kore/v1/secrets",
                "/connect/v1/apps",
                "/kore/v1/",
                "",
            ];
            assert_eq!(paths, wanted);
        });
        let mut place = place(&text, 7);
        place.came(b"rets HTTP/1.1\r\n", 3);
        assert_eq!(place.path(3), "/kore/v1/secrets");
        assert_eq!(place.path(2), "", "it was taken, and is not kept");
        assert_eq!(place.paths.len(), 1);
    }

    #[test]
    fn a_path_is_read_where_there_is_one() {
        for (line, path) in [
            ("GET /kore/v1/secrets?a=/b HTTP/1.1\r\n", "/kore/v1/secrets"),
            ("GET http://a:1/kore/v1/x HTTP/1.1\r\n", "/kore/v1/x"),
            ("GET http://a HTTP/1.1\r\n", ""),
            ("GET /kore/v1/sec rets HTTP/1.1\r\n", "/kore/v1/sec"),
            ("GET /kore/v1/x HTTP/9.9\r\n", "/kore/v1/x"),
            ("GET /kore/v1\r\n", "/kore/v1"),
            ("GET /kore/v1", "/kore/"),
            ("GET /kore/v1 ", "/kore/v1"),
            ("GET", ""),
            ("* HTTP/1.1\r\n", ""),
            (" /kore/v1/x HTTP/1.1\r\n", ""),
            ("\u{16}\u{3}\u{1} /kore/v1/x HTTP/1.1\r\n", ""),
            ("GET /kore/v1/\u{e9} HTTP/1.1\r\n", "/kore/v1/\u{e9}"),
        ] {
            assert_eq!(place(line, 64).path(0), path, "{line:?}");
        }
        let long = place(&format!("GET /{}", "ä".repeat(900)), 64);
        assert_eq!(long.path(0), "/");
        let long = place(&format!("GET /{} HTTP/1.1\r\n", "ä".repeat(900)), 64);
        assert_eq!(long.path(0), format!("/{}", "ä".repeat(15)));
    }

    proptest::proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..30),
            piece in 1..40_usize,
        ) {
            let text = format!("G{}", parts.concat());
            let whole = place(&text, text.len());
            let cut = place(&text, piece);
            proptest::prop_assert_eq!(&cut, &whole);
            // Whatever was taken, there is an answer.
            for taken in 0..text.len() {
                let _ = (whole.path(taken), whole.is_half_a_head(taken), whole.is_request_line(taken, 8));
            }
        }
    }

    const PARTS: &[&str] = &[
        GET,
        POST,
        CHUNKS,
        "\r\n",
        "\n",
        "\r",
        "GET /a HTTP/1.1",
        "content-length: 3",
        "abc",
        "0",
        "transfer-encoding: chunked",
        "ffffffffffffffff",
        "\u{0}",
        ":",
        " ",
    ];

    #[test]
    fn what_cannot_be_followed_is_said_to_be_unknown() {
        for head in [
            "content-length: -1",
            "content-length: +1",
            "content-length: many",
            "transfer-encoding: gzip",
        ] {
            let text = format!("GET /a HTTP/1.1\r\n{head}\r\n\r\nGET /kore/v1/x HTTP/1.1\r\n");
            everywhere(&text, |place| {
                assert_eq!(place.at, At::Unknown, "{head}");
                assert_eq!(place.path(0), "/a");
                assert_eq!(place.path(1), "");
                assert!(!place.is_half_a_head(1));
            });
        }
        let spaces = " ".repeat(2 * LINE_BYTES);
        let text = format!("GET /a HTTP/1.1\r\ncontent-length:{spaces}1\r\n\r\n");
        everywhere(&text, |place| assert_eq!(place.at, At::Unknown));
    }
}
