//! The three text forms that signatures use: lowercase hex, standard base64, decimal seconds.
//!
//! Decoding is strict on purpose: exactly one text stands for one value, so that no bit of a header
//! can change without the signature failing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends `bytes` as lowercase hex.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        out.push(char::from(HEX_DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(HEX_DIGITS[usize::from(byte & 0x0f)]));
    }
}

/// Appends `bytes` as padded standard base64.
pub(crate) fn push_base64(out: &mut String, bytes: &[u8]) {
    STANDARD.encode_string(bytes, out);
}

/// Decodes exactly `N` bytes of lowercase hex.
pub(crate) fn decode_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (hex_value(pair[0])? << 4) | hex_value(pair[1])?;
    }
    Some(bytes)
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Decodes canonical, padded, standard base64 into `buffer`; returns the length used.
pub(crate) fn decode_base64(text: &[u8], buffer: &mut [u8]) -> Option<usize> {
    STANDARD.decode_slice(text, buffer).ok()
}

/// Decodes exactly `N` bytes of canonical, padded, standard base64.
pub(crate) fn decode_base64_exact<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    // Checked first: it bounds the work, and tells the shorter texts that would decode to fewer.
    if text.len() != N.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = [0; N];
    (decode_base64(text, &mut bytes)? == N).then_some(bytes)
}

/// Parses decimal seconds: digits alone, no sign, no leading zero, at most `i64::MAX`.
pub(crate) fn parse_seconds(text: &[u8]) -> Option<i64> {
    let leading_zero = text.len() > 1 && text.first() == Some(&b'0');
    if leading_zero || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A number of seconds as decimal text, without an allocation.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// `None` for a negative number, which no scheme can carry.
    pub(crate) fn new(seconds: i64) -> Option<Self> {
        let mut rest = u64::try_from(seconds).ok()?;
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = HEX_DIGITS[usize::try_from(rest % 10).ok()?];
            rest /= 10;
            if rest == 0 {
                return Some(Self { digits, start });
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_is_what_display_prints() {
        for seconds in [0, 1, 9, 10, 1_784_505_600, i64::MAX] {
            let decimal = Decimal::new(seconds).unwrap();
            assert_eq!(decimal.as_bytes(), seconds.to_string().as_bytes());
            assert_eq!(parse_seconds(decimal.as_bytes()), Some(seconds));
        }
        assert!(Decimal::new(-1).is_none());
    }

    #[test]
    fn seconds_have_one_spelling() {
        let refused = [
            "",
            "-1",
            "+1",
            "01",
            "00",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "9223372036854775808",
        ];
        for text in refused {
            assert_eq!(parse_seconds(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn hex_is_lowercase_and_of_one_length() {
        let mut text = String::new();
        push_hex(&mut text, &[0x00, 0xaf, 0xff]);
        assert_eq!(text, "00afff");
        assert_eq!(decode_hex::<3>(text.as_bytes()), Some([0x00, 0xaf, 0xff]));
        for refused in ["00AFFF", "00aff", "00afff0", "00affg", ""] {
            assert_eq!(decode_hex::<3>(refused.as_bytes()), None, "{refused:?}");
        }
    }

    #[test]
    fn base64_is_canonical_and_of_one_length() {
        let mut text = String::new();
        push_base64(&mut text, &[1, 2, 3, 4]);
        assert_eq!(text, "AQIDBA==");
        assert_eq!(
            decode_base64_exact::<4>(text.as_bytes()),
            Some([1, 2, 3, 4])
        );
        for refused in [
            "AQIDBA", "AQIDBB==", "AQIDBA=", "AQID BA=", "AQID", "AQIDBAUG", "",
        ] {
            assert_eq!(
                decode_base64_exact::<4>(refused.as_bytes()),
                None,
                "{refused:?}"
            );
        }
    }
}
