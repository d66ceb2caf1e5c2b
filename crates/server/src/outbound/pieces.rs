//! The bodies of HTTP/2 answers, in frames as small as the parser has room for.
//!
//! The parser holds a frame until it is complete and makes room for the whole of it, beside those that nobody
//! has read yet. A receiver may send frames of 16 KiB, and several of those buffers would be an attempt's
//! memory. So a DATA frame becomes several, each of them [`PIECE_BYTES`] at most: the parser's buffer, which
//! is several times as long, never grows.
//!
//! Both sides count the bytes of bodies, padding included, for how much may be under way. So all of them are
//! passed on: the padding goes with the first piece.

/// Bytes of a body in one frame that the parser gets.
pub(super) const PIECE_BYTES: usize = 2 * 1024;

const DATA: u8 = 0;
const END_STREAM: u8 = 0x01;
const PADDED: u8 = 0x08;

/// A DATA frame that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pieces {
    stream: [u8; 4],
    /// Whether the body ends with the frame.
    ends_stream: bool,
    /// Bytes of the frame that are still to come, padding included.
    left: usize,
    /// The length of the padding comes next.
    padded: bool,
    padding: u8,
    /// Padding that the parser gets after the piece under way.
    owed: u8,
    /// Bytes of the piece under way that are still to come.
    piece: usize,
}

impl Pieces {
    /// A frame of this length begins.
    pub(super) fn begin(left: usize, flags: u8, stream: [u8; 4], ready: &mut Vec<u8>) -> Self {
        let mut pieces = Self {
            stream,
            ends_stream: flags & END_STREAM != 0,
            left,
            padded: flags & PADDED != 0,
            padding: 0,
            owed: 0,
            piece: 0,
        };
        if !pieces.padded {
            pieces.next(ready);
        }
        pieces
    }

    /// Whether all of the frame came.
    pub(super) fn are_over(&self) -> bool {
        self.left == 0
    }

    /// Takes the next bytes of the frame; how many that are.
    pub(super) fn take(&mut self, bytes: &[u8], ready: &mut Vec<u8>) -> usize {
        let Some(&first) = bytes.first() else {
            return 0;
        };
        if self.padded {
            self.padded = false;
            self.padding = first;
            self.left -= 1;
            self.next_padded(ready);
            return 1;
        }
        if self.piece == 0 {
            // Padding, which the parser has already.
            let used = bytes.len().min(self.left);
            self.left -= used;
            return used;
        }
        let used = bytes.len().min(self.piece);
        ready.extend_from_slice(&bytes[..used]);
        self.piece -= used;
        self.left -= used;
        if self.piece == 0 {
            self.pad(ready);
            if self.data() > 0 {
                self.next(ready);
            }
        }
        used
    }

    /// Bytes of the body that are still to come.
    fn data(&self) -> usize {
        self.left.saturating_sub(usize::from(self.padding))
    }

    /// Begins the next piece.
    fn next(&mut self, ready: &mut Vec<u8>) {
        self.piece = self.data().min(PIECE_BYTES);
        self.head(self.piece, 0, ready);
    }

    /// Begins the first piece of a frame that has padding.
    fn next_padded(&mut self, ready: &mut Vec<u8>) {
        let padding = usize::from(self.padding);
        if padding > self.left {
            // More padding than frame is an error, which the parser sees as such.
            self.head(1, PADDED, ready);
            ready.push(self.padding);
            return;
        }
        self.piece = self.data().min(PIECE_BYTES);
        self.head(1 + self.piece + padding, PADDED, ready);
        ready.push(self.padding);
        self.owed = self.padding;
        if self.piece == 0 {
            self.pad(ready);
        }
    }

    fn pad(&mut self, ready: &mut Vec<u8>) {
        ready.resize(ready.len() + usize::from(self.owed), 0);
        self.owed = 0;
    }

    /// The first bytes of a frame with the piece that begins.
    fn head(&self, length: usize, flags: u8, ready: &mut Vec<u8>) {
        let is_last = self.ends_stream && self.piece == self.data();
        let end_stream = if is_last { END_STREAM } else { 0 };
        // A piece and its padding at most.
        let length = u32::try_from(length).unwrap_or(0).to_be_bytes();
        ready.extend_from_slice(&length[1..]);
        ready.extend_from_slice(&[DATA, flags | end_stream]);
        ready.extend_from_slice(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: [u8; 4] = [0, 0, 0, 5];

    /// What the parser gets of a frame that comes in parts of this size.
    fn cut(flags: u8, payload: &[u8], part: usize) -> Vec<u8> {
        let mut ready = Vec::new();
        let mut pieces = Pieces::begin(payload.len(), flags, STREAM, &mut ready);
        for mut part in payload.chunks(part) {
            while !part.is_empty() {
                let used = pieces.take(part, &mut ready);
                part = &part[used..];
            }
        }
        assert!(pieces.are_over());
        ready
    }

    /// Length, flags and payload of each frame.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = usize::from(head[1]) * 256 + usize::from(head[2]);
            assert_eq!((head[0], head[3], &head[5..]), (0, DATA, &STREAM[..]));
            let (payload, rest) = rest.split_at(length);
            frames.push((head[4], payload));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        frames
    }

    #[test]
    fn g10_a_long_frame_becomes_short_ones() {
        let body: Vec<u8> = (0..5_000_u16).map(|n| n.to_be_bytes()[1]).collect();
        for part in [1, 7, 2_048, 5_000] {
            let given = cut(END_STREAM, &body, part);
            let frames = frames(&given);
            let shape: Vec<_> = frames
                .iter()
                .map(|(flags, data)| (*flags, data.len()))
                .collect();
            assert_eq!(shape, [(0, 2_048), (0, 2_048), (END_STREAM, 904)], "{part}");
            let together: Vec<u8> = frames.iter().flat_map(|(_, data)| *data).copied().collect();
            assert_eq!(together, body);
        }
    }

    #[test]
    fn padding_counts_as_before() {
        let payload = [&[200_u8][..], &[b'z'; 4_000], &[9; 200]].concat();
        for part in [1, 300, 4_201] {
            let given = cut(PADDED | END_STREAM, &payload, part);
            let frames = frames(&given);
            let first = [&[200_u8][..], &[b'z'; 2_048], &[0; 200]].concat();
            let expected = [(PADDED, &first[..]), (END_STREAM, &[b'z'; 1_952][..])];
            assert_eq!(frames, expected, "{part}");
            let bytes: usize = frames.iter().map(|(_, payload)| payload.len()).sum();
            assert_eq!(bytes, payload.len());
        }
    }

    #[test]
    fn frames_without_a_body_stay_what_they_are() {
        assert_eq!(frames(&cut(END_STREAM, b"", 1)), [(END_STREAM, &b""[..])]);
        let only_padding = [&[3_u8][..], &[0; 3]].concat();
        let given = cut(PADDED | END_STREAM, &only_padding, 1);
        assert_eq!(frames(&given), [(PADDED | END_STREAM, &only_padding[..])]);
        // More padding than there is frame.
        let given = cut(PADDED, b"\x09zzz", 2);
        assert_eq!(frames(&given), [(PADDED, &b"\x09"[..])]);
    }
}
