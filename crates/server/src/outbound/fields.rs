//! Header fields as HTTP/2 packs them (RFC 7541, section 6), told apart without being unpacked.
//!
//! Where one field ends and the next begins is said by numbers before the texts; what the texts are, and
//! what a number refers to, need not be known for that. So a field of any length is followed here with no
//! more memory than what is kept of it.

use super::config::KEPT_HEAD_BYTES;

/// Fields that every decoder knows by their number; greater ones are in the table that a sender fills
/// as it goes.
const STATIC_FIELDS: u64 = 61;
/// The first and the last number that stand for a status.
const STATUS: std::ops::RangeInclusive<u64> = 8..=14;
/// The number of `retry-after`.
const RETRY_AFTER: u64 = 53;
/// `retry-after` with its length, as it is and in Huffman's code.
const RETRY_AFTER_NAMES: [&[u8]; 2] = [b"\x0bretry-after", b"\x88\xb0\xa9\xb3\xd2\xc3\x95\x25\xb3"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A known field, name and value.
    Known,
    /// A value, and a name or the number of one; the sender puts the field into the table.
    Inserted,
    /// The same without the table.
    Literal,
    /// No field, but a new size of the table.
    Resize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Index,
    Name,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The first byte comes next.
    Start,
    /// A number goes on.
    Number(Of),
    /// The length of a text comes next.
    Length(Of),
    /// So many bytes of a text come next.
    Text(Of, u64),
}

/// One field, as far as it came.
#[derive(Debug)]
pub(super) struct Field {
    /// What is kept of it.
    bytes: Vec<u8>,
    length: usize,
    kind: Kind,
    index: u64,
    part: Part,
    number: u64,
    shift: u32,
}

impl Field {
    /// Nothing of a field yet; the memory of a former one is used again.
    pub(super) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self {
            bytes,
            length: 0,
            kind: Kind::Literal,
            index: 0,
            part: Part::Start,
            number: 0,
            shift: 0,
        }
    }

    /// Takes what belongs to the field: how many bytes that are, and whether it is complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let (mut used, mut ended) = (0, false);
        while !ended && used < bytes.len() {
            if let Part::Text(of, left) = self.part {
                let here = bytes.len() - used;
                let taken = usize::try_from(left).map_or(here, |left| left.min(here));
                used += taken;
                let left = left - taken as u64;
                self.part = Part::Text(of, left);
                ended = left == 0 && self.text_ended(of);
            } else {
                ended = self.step(bytes[used]);
                used += 1;
            }
        }
        let room = KEPT_HEAD_BYTES - self.bytes.len();
        self.length += used;
        self.bytes.extend_from_slice(&bytes[..used.min(room)]);
        (used, ended)
    }

    /// One byte of a number; whether the field ends with it.
    fn step(&mut self, byte: u8) -> bool {
        match self.part {
            Part::Start => {
                let (kind, bits) = match byte {
                    0x80.. => (Kind::Known, 7),
                    0x40.. => (Kind::Inserted, 6),
                    0x20.. => (Kind::Resize, 5),
                    _ => (Kind::Literal, 4),
                };
                self.kind = kind;
                self.begin_number(Of::Index, byte, bits)
            }
            Part::Length(of) => self.begin_number(of, byte, 7),
            Part::Number(of) => {
                // Numbers without end are the parser's to refuse; here they are only large.
                let more = u64::from(byte & 0x7f) << self.shift.min(42);
                self.number = self.number.saturating_add(more);
                self.shift = self.shift.saturating_add(7);
                byte & 0x80 == 0 && self.number_ended(of)
            }
            Part::Text(..) => false,
        }
    }

    fn begin_number(&mut self, of: Of, byte: u8, bits: u32) -> bool {
        let all = (1_u64 << bits) - 1;
        self.number = u64::from(byte) & all;
        self.shift = 0;
        if self.number == all {
            self.part = Part::Number(of);
            return false;
        }
        self.number_ended(of)
    }

    fn number_ended(&mut self, of: Of) -> bool {
        match (of, self.kind) {
            (Of::Index, Kind::Known | Kind::Resize) => {
                self.index = self.number;
                true
            }
            (Of::Index, Kind::Inserted | Kind::Literal) => {
                self.index = self.number;
                let next = if self.index == 0 { Of::Name } else { Of::Value };
                self.part = Part::Length(next);
                false
            }
            (Of::Name | Of::Value, _) => {
                self.part = Part::Text(of, self.number);
                self.number == 0 && self.text_ended(of)
            }
        }
    }

    fn text_ended(&mut self, of: Of) -> bool {
        if of == Of::Name {
            self.part = Part::Length(Of::Value);
            return false;
        }
        true
    }

    /// The field as it came, as far as it is kept.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory back.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether nothing of a field came.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether all of what came is kept.
    pub(super) fn is_whole(&self) -> bool {
        self.length == self.bytes.len()
    }

    /// Whether it is no field but a new size of the table.
    pub(super) fn is_resize(&self) -> bool {
        self.kind == Kind::Resize
    }

    /// Whether the sender puts it into the table.
    pub(super) fn is_inserted(&self) -> bool {
        self.kind == Kind::Inserted
    }

    /// Whether its name, or all of it, is in the table.
    pub(super) fn is_in_table(&self) -> bool {
        self.kind != Kind::Resize && self.index > STATIC_FIELDS
    }

    /// Whether it is the status of an informational answer.
    pub(super) fn is_informational(&self) -> bool {
        let literal = matches!(self.kind, Kind::Inserted | Kind::Literal);
        let status = literal && STATUS.contains(&self.index);
        // A digit one is the five bits 00001 in Huffman's code.
        status
            && match self.bytes.get(1..3) {
                Some([length, first]) if length & 0x80 != 0 => first >> 3 == 1,
                Some([_, first]) => *first == b'1',
                _ => false,
            }
    }

    /// Whether its name is `retry-after`.
    pub(super) fn is_retry_after(&self) -> bool {
        let named = |name: &&[u8]| {
            self.bytes
                .get(1..)
                .is_some_and(|rest| rest.starts_with(name))
        };
        match (self.kind, self.index) {
            (Kind::Inserted | Kind::Literal, 0) => RETRY_AFTER_NAMES.iter().any(named),
            (Kind::Inserted | Kind::Literal, index) => index == RETRY_AFTER,
            (Kind::Known | Kind::Resize, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a block, each as it came and what it says of itself.
    fn fields(block: &[u8], piece: usize) -> Vec<Field> {
        let mut fields = vec![Field::new(Vec::new())];
        for mut bytes in block.chunks(piece) {
            while !bytes.is_empty() {
                let (used, ended) = fields.last_mut().unwrap().take(bytes);
                bytes = &bytes[used..];
                if ended {
                    fields.push(Field::new(Vec::new()));
                }
            }
        }
        fields
    }

    /// The examples of RFC 7541, appendix C, and others.
    #[test]
    fn fields_end_where_they_end() {
        let long = [&b"\x00\x01x\x7f\xa9\x46"[..], &[b'z'; 9_128]].concat();
        let parts: [&[u8]; 12] = [
            b"\x3f\xe1\x1f",
            b"\x20",
            b"\x88",
            b"\x48\x82\x64\x02",
            b"\x40\x0acustom-key\x0dcustom-header",
            b"\x04\x0c/sample/path",
            b"\x10\x08password\x06secret",
            b"\x0f\x26\x03end",
            b"\x00\x00\x00",
            &long,
            b"\xff\x80\x00",
            b"\xbe",
        ];
        let block = parts.concat();
        for piece in [1, 2, 5, block.len()] {
            let fields = fields(&block, piece);
            assert_eq!(fields.len(), parts.len() + 1, "{piece}");
            assert!(fields.last().unwrap().is_empty());
            for (field, part) in fields.iter().zip(parts) {
                let kept = part.len().min(KEPT_HEAD_BYTES);
                assert_eq!(field.bytes(), &part[..kept], "{piece}");
                assert_eq!(field.is_whole(), part.len() <= KEPT_HEAD_BYTES);
            }
            let which = |is: fn(&Field) -> bool| -> Vec<usize> {
                (0..parts.len()).filter(|&n| is(&fields[n])).collect()
            };
            assert_eq!(which(Field::is_resize), [0, 1]);
            assert_eq!(which(Field::is_inserted), [3, 4]);
            assert_eq!(which(Field::is_in_table), [10, 11]);
        }
    }

    #[test]
    fn what_must_be_known_of_a_field_is_known() {
        for (bytes, informational, retry_after) in [
            (&b"\x88"[..], false, false),
            (b"\x48\x03103", true, false),
            (b"\x08\x03100", true, false),
            // 103 and 202 in Huffman's code.
            (b"\x08\x82\x08\x19", true, false),
            (b"\x48\x82\x10\x05", false, false),
            (b"\x08\x03202", false, false),
            (b"\x0f\x26\x01" as &[u8], false, true),
            (b"\x75\x017", false, true),
            (b"\x00\x0bretry-after\x017", false, true),
            (
                b"\x40\x88\xb0\xa9\xb3\xd2\xc3\x95\x25\xb3\x017",
                false,
                true,
            ),
            (b"\x00\x0bretry-aften\x017", false, false),
        ] {
            let field = &fields(bytes, 1)[0];
            assert_eq!(field.is_informational(), informational, "{bytes:?}");
            assert_eq!(field.is_retry_after(), retry_after, "{bytes:?}");
        }
    }

    #[test]
    fn a_number_without_end_is_followed_without_harm() {
        let block = [&b"\x00\x7f"[..], &[0xff; 10_000]].concat();
        let fields = fields(&block, 100);
        assert_eq!(fields.len(), 1);
        assert!(!fields[0].is_whole());
    }
}
