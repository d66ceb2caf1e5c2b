//! The frames of HTTP/2 answers, cut to what is kept before the parser sees them.
//!
//! What [`head`](super::head) does for HTTP/1.1, for the same reasons and with the same bounds. An answer's
//! head is a HEADERS frame and the CONTINUATION frames after it; it is taken apart field by field
//! ([`Field`]), and the parser gets one HEADERS frame with those that are kept:
//!
//! 1. Bodies are passed on in frames that are small ([`Pieces`]), and of what is neither head nor body, such
//!    as the words with which a connection is ended, the first [`OTHER_BYTES`] of each frame. The parser
//!    makes room for the whole of a frame.
//! 2. The first field, which is the status, and changes of the table's size are kept, and a `retry-after`
//!    that is not long.
//! 3. Any other field is kept while there are fewer than [`RESPONSE_HEADERS`] of them and
//!    [`ORDINARY_BYTES`] are not used up. The rest is left out, and [`NOTE`] says so.
//! 4. Informational answers are left out whole.
//! 5. Of a head of more than [`RESPONSE_HEAD_BYTES`], the parser gets what is kept, and [`NOTE`] says that
//!    it is too large: the stream ends, and not the connection that others share.
//! 6. What does not end as a head does is for the parser to judge.
//!
//! Leaving fields out would be wrong where a later one refers to them by the table that both sides fill. So
//! the receiver is told that the table has no room (`SETTINGS_HEADER_TABLE_SIZE` is 0): nothing can be
//! referred to. One that uses the table all the same is served as long as none of what it put there was left
//! out, and cut off then. Pushed answers, which are off as well, would pass the bounds; they are refused.

use hookturn_core::limits::RESPONSE_HEADERS;
use http::HeaderName;

use super::config::{KEPT_HEAD_BYTES, RESPONSE_HEAD_BYTES};
use super::fields::Field;
use super::pieces::{PIECE_BYTES, Pieces};

/// The header by which the head says what became of it; never the receiver's.
pub(super) const NOTE: HeaderName = HeaderName::from_static("hookturn-head");
/// Fields were left out.
pub(super) const CUT: &str = "cut";
/// The head is larger than is read.
pub(super) const TOO_LARGE: &str = "too-large";

/// What the fields that can be left out may take of what is kept.
const ORDINARY_BYTES: usize = KEPT_HEAD_BYTES - 512;
/// Longest `retry-after` that is worth that room.
const USEFUL_BYTES: usize = 128;

const FRAME_HEAD_BYTES: usize = 9;
/// Longest frame that a receiver may send; the parser refuses a longer one by its first bytes.
const FRAME_BYTES: usize = 16 * 1024;
/// What is passed on of a frame that is neither head nor body: 170 settings, of which there are seven.
const OTHER_BYTES: usize = 170 * 6;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// The receiver uses what it was told is off.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the receiver uses a part of HTTP/2 that it was told is off: a table of headers, or pushing"
)]
pub(super) struct Forbidden;

#[derive(Debug, Clone, Copy)]
enum At {
    /// In the first bytes of a frame, which say what it is.
    Start {
        bytes: [u8; FRAME_HEAD_BYTES],
        have: usize,
    },
    /// So many bytes of a frame are passed on, and so many more are left out.
    Passed { left: usize, beyond: usize },
    /// In a part of a body.
    Data(Pieces),
    /// In a part of a head.
    Fragment(Fragment),
}

/// What is left of a frame with a part of a head.
#[derive(Debug, Clone, Copy)]
struct Fragment {
    /// Bytes of the frame, padding included.
    left: usize,
    /// The length of the padding comes next.
    padded: bool,
    /// Bytes before the fields that mean nothing any longer.
    skipped: usize,
    padding: usize,
    /// Whether the head ends with the frame.
    is_last: bool,
}

/// A head that is under way.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    /// Whether the answer has no body.
    ends_stream: bool,
    /// Bytes that came, those of the frames included.
    seen: usize,
    /// What the parser will get.
    kept: Vec<u8>,
    field: Field,
    /// Fields that were kept, without the first.
    fields: usize,
    has_status: bool,
    informational: bool,
    cut: bool,
    /// The parser has what it gets; the rest is left out.
    done: bool,
}

/// Cuts the heads of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    block: Option<Block>,
    /// Something that the receiver put into the table was left out.
    lost: bool,
    /// What the parser gets next.
    ready: Vec<u8>,
    /// How much of that it has.
    given: usize,
}

const START: At = At::Start {
    bytes: [0; FRAME_HEAD_BYTES],
    have: 0,
};

impl Default for Frames {
    fn default() -> Self {
        Self {
            at: START,
            block: None,
            lost: false,
            ready: Vec::new(),
            given: 0,
        }
    }
}

impl Frames {
    /// What the parser gets before anything else.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready[self.given..]
    }

    /// The parser has so much of it.
    pub(super) fn give(&mut self, bytes: usize) {
        self.given += bytes;
        if self.given == self.ready.len() {
            self.given = 0;
            self.ready = Vec::new();
        }
    }

    /// Whether all of these bytes are passed on as they are.
    pub(super) fn is_usual(&mut self, mut bytes: &[u8]) -> bool {
        let mut left = match (self.at, &self.block) {
            (At::Passed { left, beyond: 0 }, None) => left,
            (At::Start { have: 0, .. }, None) => 0,
            _ => return false,
        };
        loop {
            let here = left.min(bytes.len());
            (left, bytes) = (left - here, &bytes[here..]);
            if bytes.is_empty() {
                self.at = if left == 0 {
                    START
                } else {
                    At::Passed { left, beyond: 0 }
                };
                return true;
            }
            let Some((start, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
                return false;
            };
            let length = length_of(start);
            if matches!(start[3], HEADERS | PUSH_PROMISE) || is_long(start[3], length) {
                return false;
            }
            (left, bytes) = (length, rest);
        }
    }

    /// Takes what came next.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Forbidden> {
        while !bytes.is_empty() {
            let used = match self.at {
                At::Start {
                    bytes: mut start,
                    have,
                } => {
                    let used = bytes.len().min(FRAME_HEAD_BYTES - have);
                    start[have..have + used].copy_from_slice(&bytes[..used]);
                    let have = have + used;
                    self.at = At::Start { bytes: start, have };
                    if have == FRAME_HEAD_BYTES {
                        self.begin(start)?;
                    }
                    used
                }
                At::Passed { left: 0, beyond } => {
                    let used = bytes.len().min(beyond);
                    self.at = At::Passed {
                        left: 0,
                        beyond: beyond - used,
                    };
                    used
                }
                At::Passed { left, beyond } => {
                    let used = bytes.len().min(left);
                    self.ready.extend_from_slice(&bytes[..used]);
                    self.at = At::Passed {
                        left: left - used,
                        beyond,
                    };
                    used
                }
                At::Data(mut pieces) => {
                    let used = pieces.take(bytes, &mut self.ready);
                    self.at = At::Data(pieces);
                    used
                }
                At::Fragment(fragment) => self.take_fragment(fragment, bytes)?,
            };
            bytes = &bytes[used..];
            if let Some(block) = &mut self.block
                && block.is_too_large()
            {
                block.done = true;
                let frame = block.frame_with_note(TOO_LARGE);
                self.ready.extend(frame);
            }
            self.end_frame();
        }
        Ok(())
    }

    /// The start of a frame is here.
    fn begin(&mut self, start: [u8; FRAME_HEAD_BYTES]) -> Result<(), Forbidden> {
        let (left, kind, flags) = (length_of(&start), start[3], start[4]);
        let stream = [start[5], start[6], start[7], start[8]];
        let goes_on = |block: &Block| kind == CONTINUATION && block.stream == stream;
        match &mut self.block {
            Some(block) if goes_on(block) => block.seen += FRAME_HEAD_BYTES,
            None if kind == HEADERS => {
                self.block = Some(Block::new(stream, flags & END_STREAM != 0));
            }
            None if kind == PUSH_PROMISE => return Err(Forbidden),
            under_way => {
                // A head that another frame breaks into is an error, which the parser sees as such.
                if let Some(block) = under_way.take() {
                    self.ready.extend(block.frame(0));
                }
                self.pass(&start);
                return Ok(());
            }
        }
        let is = |flag| kind == HEADERS && flags & flag != 0;
        self.at = At::Fragment(Fragment {
            left,
            padded: is(PADDED),
            skipped: if is(PRIORITY) { PRIORITY_BYTES } else { 0 },
            padding: 0,
            is_last: flags & END_HEADERS != 0,
        });
        Ok(())
    }

    /// Begins a frame without a part of a head.
    fn pass(&mut self, start: &[u8; FRAME_HEAD_BYTES]) {
        let (length, kind) = (length_of(start), start[3]);
        if !is_long(kind, length) {
            self.ready.extend_from_slice(start);
            self.at = At::Passed {
                left: length,
                beyond: 0,
            };
        } else if kind == DATA {
            let stream = [start[5], start[6], start[7], start[8]];
            self.at = At::Data(Pieces::begin(length, start[4], stream, &mut self.ready));
        } else {
            let left = u32::try_from(OTHER_BYTES).unwrap_or(0).to_be_bytes();
            self.ready.extend_from_slice(&left[1..]);
            self.ready.extend_from_slice(&start[3..]);
            self.at = At::Passed {
                left: OTHER_BYTES,
                beyond: length - OTHER_BYTES,
            };
        }
    }

    /// Takes the next bytes of a frame with a part of a head; how many that are.
    fn take_fragment(&mut self, mut part: Fragment, bytes: &[u8]) -> Result<usize, Forbidden> {
        let bytes = &bytes[..bytes.len().min(part.left)];
        let Some(&first) = bytes.first() else {
            return Ok(0);
        };
        let used = if part.padded {
            part.padded = false;
            part.padding = usize::from(first);
            1
        } else if part.skipped > 0 {
            let used = bytes.len().min(part.skipped);
            part.skipped -= used;
            used
        } else if part.left <= part.padding {
            bytes.len()
        } else {
            let used = bytes.len().min(part.left - part.padding);
            if let Some(block) = &mut self.block {
                block.take(&bytes[..used], &mut self.lost)?;
            }
            used
        };
        part.left -= used;
        self.at = At::Fragment(part);
        Ok(used)
    }

    /// Goes on to the next frame where one is over.
    fn end_frame(&mut self) {
        match self.at {
            At::Passed { left: 0, beyond: 0 } => self.at = START,
            At::Data(pieces) if pieces.are_over() => self.at = START,
            At::Fragment(Fragment {
                left: 0, is_last, ..
            }) => {
                self.at = START;
                if is_last && let Some(block) = self.block.take() {
                    self.ready.extend(block.end());
                }
            }
            At::Start { .. } | At::Passed { .. } | At::Data(_) | At::Fragment(_) => {}
        }
    }
}

impl Block {
    fn new(stream: [u8; 4], ends_stream: bool) -> Self {
        Self {
            stream,
            ends_stream,
            seen: 0,
            kept: Vec::new(),
            field: Field::new(Vec::new()),
            fields: 0,
            has_status: false,
            informational: false,
            cut: false,
            done: false,
        }
    }

    fn take(&mut self, mut bytes: &[u8], lost: &mut bool) -> Result<(), Forbidden> {
        self.seen += bytes.len();
        while !bytes.is_empty() {
            let (used, ended) = self.field.take(bytes);
            bytes = &bytes[used..];
            if ended {
                self.end_field(lost)?;
            }
        }
        Ok(())
    }

    fn end_field(&mut self, lost: &mut bool) -> Result<(), Forbidden> {
        if *lost && self.field.is_in_table() {
            return Err(Forbidden);
        }
        let length = self.field.bytes().len();
        let is_status = !self.has_status && !self.field.is_resize();
        self.has_status |= is_status;
        self.informational |= is_status && self.field.is_informational();
        let needed = is_status
            || self.field.is_resize()
            || (length <= USEFUL_BYTES && self.field.is_retry_after());
        let fits = self.field.is_whole()
            && if needed {
                self.kept.len() + length <= KEPT_HEAD_BYTES
            } else {
                self.fields < RESPONSE_HEADERS && self.kept.len() + length <= ORDINARY_BYTES
            };
        // What is left out of an informational answer is no loss, unless to the table.
        if fits && !self.done && (is_status || !self.informational) {
            self.kept.extend_from_slice(self.field.bytes());
            self.fields += usize::from(!needed);
        } else {
            self.cut = true;
            *lost |= self.field.is_inserted();
        }
        let field = std::mem::replace(&mut self.field, Field::new(Vec::new()));
        // Kept for the next field, unless a long one made it large.
        let bytes = Some(field.into_bytes()).filter(|bytes| bytes.capacity() <= USEFUL_BYTES);
        self.field = Field::new(bytes.unwrap_or_default());
        Ok(())
    }

    /// Whether it has just become larger than is read.
    fn is_too_large(&self) -> bool {
        !self.done && !self.informational && self.seen > RESPONSE_HEAD_BYTES
    }

    /// What the parser gets of it when it is complete.
    fn end(mut self) -> Vec<u8> {
        if self.done || (self.informational && !self.ends_stream) {
            return Vec::new();
        }
        if !self.field.is_empty() {
            // Broken off.
            self.kept.extend_from_slice(self.field.bytes());
            return self.frame(END_HEADERS);
        }
        if self.cut {
            return self.frame_with_note(CUT);
        }
        self.frame(END_HEADERS)
    }

    fn frame_with_note(&mut self, note: &str) -> Vec<u8> {
        // Literal, not for any table; both texts are shorter than a number of one byte can say.
        for text in [NOTE.as_str(), note] {
            if text == NOTE.as_str() {
                self.kept.push(0);
            }
            self.kept.push(u8::try_from(text.len()).unwrap_or(0));
            self.kept.extend_from_slice(text.as_bytes());
        }
        self.frame(END_HEADERS)
    }

    /// A HEADERS frame with what is kept.
    fn frame(&self, flags: u8) -> Vec<u8> {
        let end_stream = if self.ends_stream { END_STREAM } else { 0 };
        // At most twice what is kept, far less than a frame may have.
        let length = u32::try_from(self.kept.len()).unwrap_or(0).to_be_bytes();
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + self.kept.len());
        frame.extend_from_slice(&length[1..]);
        frame.extend_from_slice(&[HEADERS, flags | end_stream]);
        frame.extend_from_slice(&self.stream);
        frame.extend_from_slice(&self.kept);
        frame
    }
}

/// Whether a frame without a part of a head is longer than the parser gets it.
fn is_long(kind: u8, length: usize) -> bool {
    let most = if kind == DATA {
        PIECE_BYTES
    } else {
        OTHER_BYTES
    };
    (most + 1..=FRAME_BYTES).contains(&length)
}

fn length_of(start: &[u8; FRAME_HEAD_BYTES]) -> usize {
    let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
