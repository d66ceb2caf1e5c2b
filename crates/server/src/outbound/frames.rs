//! The heads of HTTP/2 answers, cut to what is kept before the parser sees them.
//!
//! What [`head`](super::head) does for HTTP/1.1, for the same reasons and with the same bounds. An answer's
//! head is a HEADERS frame and the CONTINUATION frames after it; it is taken apart field by field
//! ([`Field`]), and the parser gets one HEADERS frame with those that are kept:
//!
//! 1. All other frames are passed on as they are.
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
    /// So many bytes of a frame are passed on.
    Passed(usize),
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

    /// Whether there is nothing of a head in these bytes. They are passed on then.
    pub(super) fn is_no_head(&mut self, mut bytes: &[u8]) -> bool {
        let mut left = match (self.at, &self.block) {
            (At::Passed(left), None) => left,
            (At::Start { have: 0, .. }, None) => 0,
            _ => return false,
        };
        loop {
            let here = left.min(bytes.len());
            (left, bytes) = (left - here, &bytes[here..]);
            if bytes.is_empty() {
                self.at = if left == 0 { START } else { At::Passed(left) };
                return true;
            }
            let Some((start, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
                return false;
            };
            if matches!(start[3], HEADERS | PUSH_PROMISE) {
                return false;
            }
            (left, bytes) = (length_of(start), rest);
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
                At::Passed(left) => {
                    let used = bytes.len().min(left);
                    self.ready.extend_from_slice(&bytes[..used]);
                    self.at = At::Passed(left - used);
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
                self.ready.extend_from_slice(&start);
                self.at = At::Passed(left);
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
            At::Passed(0) => self.at = START,
            At::Fragment(Fragment {
                left: 0, is_last, ..
            }) => {
                self.at = START;
                if is_last && let Some(block) = self.block.take() {
                    self.ready.extend(block.end());
                }
            }
            At::Start { .. } | At::Passed(_) | At::Fragment(_) => {}
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

fn length_of(start: &[u8; FRAME_HEAD_BYTES]) -> usize {
    let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &[0, 0, 0, 1], payload].concat()
    }

    fn field(name: &str, value: &str) -> Vec<u8> {
        let mut field = vec![0];
        for text in [name, value] {
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 127);
            field.push(length);
            field.extend_from_slice(text.as_bytes());
        }
        field
    }

    /// A head in frames of this size, with END_STREAM.
    fn head(block: &[u8], piece: usize) -> Vec<u8> {
        let mut frames = Vec::new();
        let pieces: Vec<_> = block.chunks(piece).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let end = if n + 1 == pieces.len() {
                END_HEADERS
            } else {
                0
            };
            let (kind, flags) = if n == 0 {
                (HEADERS, END_STREAM | end)
            } else {
                (CONTINUATION, end)
            };
            frames.extend(frame(kind, flags, piece));
        }
        frames
    }

    /// What the parser gets of bytes that come in pieces of this size, and the most that is held.
    fn cut(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Forbidden> {
        let mut frames = Frames::default();
        let (mut given, mut most) = (Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            if frames.ready().is_empty() && frames.is_no_head(piece) {
                given.extend_from_slice(piece);
                continue;
            }
            frames.take(piece)?;
            given.extend_from_slice(frames.ready());
            frames.give(frames.ready().len());
            if let Some(block) = &frames.block {
                most = most.max(block.kept.capacity() + block.field.bytes().len());
            }
        }
        Ok((given, most))
    }

    fn both_ways(bytes: &[u8]) -> Vec<u8> {
        let whole = cut(bytes, bytes.len()).unwrap().0;
        for piece in [1, 7, 10, 2_048] {
            let (given, held) = cut(bytes, piece).unwrap();
            assert_eq!(given, whole, "in pieces of {piece}");
            assert!(held <= 3 * KEPT_HEAD_BYTES, "{held} bytes held");
        }
        whole
    }

    #[test]
    fn what_fits_is_passed_on_as_it_is() {
        let block = [&b"\x88"[..], &field("x", "y"), &field("content-type", "a")].concat();
        let frames = [
            frame(4, 0, &[]),
            frame(6, 0, &[7; 8]),
            frame(HEADERS, END_HEADERS, &block),
            frame(0, 0, &[b'z'; 5_000]),
            frame(0, END_STREAM, &[]),
            frame(200, 0xff, b"unknown"),
            frame(HEADERS, END_HEADERS | END_STREAM, &field("trailer", "x")),
        ];
        assert_eq!(both_ways(&frames.concat()), frames.concat());
        // Broken off in a field, broken into, and nothing to break into.
        for strange in [
            frame(HEADERS, END_HEADERS, b"\x88\x00\x05na"),
            [frame(HEADERS, 0, b"\x88"), frame(0, 0, b"data")].concat(),
            frame(CONTINUATION, END_HEADERS, b"\x88"),
        ] {
            assert_eq!(both_ways(&strange), strange);
        }
    }

    #[test]
    fn a_head_in_parts_and_with_padding_becomes_one_frame() {
        let block = [&b"\x88"[..], &field("x", "y"), &field("a", "b")].concat();
        let whole = frame(HEADERS, END_HEADERS | END_STREAM, &block);
        for piece in [1, 2, 3, 7] {
            assert_eq!(both_ways(&head(&block, piece)), whole, "{piece}");
        }
        let padded = [&[3_u8][..], &[0, 0, 0, 9, 1], &block, &[0, 0, 0]].concat();
        let flags = END_HEADERS | END_STREAM | PADDED | PRIORITY;
        assert_eq!(both_ways(&frame(HEADERS, flags, &padded)), whole);
    }

    #[test]
    fn informational_answers_are_left_out() {
        let link = field("link", "</a>");
        let early = frame(HEADERS, END_HEADERS, &[b"\x08\x03103", &link[..]].concat());
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, b"\x89");
        let given = both_ways(&[early.repeat(3), answer.clone()].concat());
        assert_eq!(given, answer);
    }

    #[test]
    fn g10_fields_beyond_the_bounds_are_left_out_and_those_that_are_needed_are_not() {
        let long = [&b"\x00\x06x-long\x7f\xa1\x9b\x01"[..], &vec![b'z'; 20_000]].concat();
        let many = field("x", "y").repeat(500);
        let after = b"\x0f\x26\x017".to_vec();
        let block = [b"\x88".to_vec(), long.clone(), many, long, after.clone()].concat();
        let note = field(NOTE.as_str(), CUT);
        let kept = field("x", "y").repeat(RESPONSE_HEADERS);
        let kept = [b"\x88".to_vec(), kept, after, note].concat();
        let expected = frame(HEADERS, END_HEADERS | END_STREAM, &kept);
        assert_eq!(both_ways(&head(&block, 16_384)), expected);
    }

    #[test]
    fn g10_a_head_without_end_is_said_to_be_too_large_at_once() {
        let endless = [
            &b"\x88\x00\x01x\x7f\xff\xff\xff\x01"[..],
            &vec![b'z'; 100_000],
        ]
        .concat();
        let mut bytes = head(&endless, 16_384);
        let note = [b"\x88", &field(NOTE.as_str(), TOO_LARGE)[..]].concat();
        let expected = frame(HEADERS, END_HEADERS | END_STREAM, &note);
        assert_eq!(both_ways(&bytes[..80_000]), expected);
        // The connection goes on, without the rest of it.
        let next = frame(0, 0, b"data");
        bytes.extend_from_slice(&next);
        assert_eq!(both_ways(&bytes), [expected, next].concat());
    }

    #[test]
    fn g10_what_was_told_to_be_off_is_cut_off() {
        assert_eq!(
            cut(&frame(PUSH_PROMISE, END_HEADERS, b"x"), 3),
            Err(Forbidden)
        );
        // Referring to the table is one thing, and to what was left out of it another.
        let inserted = b"\x40\x01x\x01y".to_vec();
        let referred = frame(HEADERS, END_HEADERS, b"\x88\xbe");
        let few = frame(HEADERS, END_HEADERS, &[b"\x88", &inserted[..]].concat());
        let whole = [few, referred.clone()].concat();
        assert_eq!(both_ways(&whole), whole);
        let many = frame(
            HEADERS,
            END_HEADERS,
            &[b"\x88", &inserted.repeat(70)[..]].concat(),
        );
        assert_eq!(cut(&[many, referred].concat(), 100), Err(Forbidden));
    }

    proptest! {
        /// G10: whatever comes and in whatever pieces, it makes no difference, and what is held is bounded.
        #[test]
        fn g10_pieces_make_no_difference(
            block in proptest::collection::vec(any::<u8>(), 0..9_000),
            kinds in proptest::collection::vec((0_u8..10, any::<u8>(), 0_usize..4_000), 0..8),
            piece in 1_usize..3_000,
        ) {
            let mut bytes = Vec::new();
            for (kind, flags, length) in kinds {
                bytes.extend(frame(kind, flags, &block[..length.min(block.len())]));
            }
            match (cut(&bytes, bytes.len().max(1)), cut(&bytes, piece)) {
                (Ok((whole, _)), Ok((given, held))) => {
                    prop_assert_eq!(whole, given);
                    prop_assert!(held <= 3 * KEPT_HEAD_BYTES);
                }
                (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
            }
        }
    }
}
