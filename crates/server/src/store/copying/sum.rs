//! Rows as bytes, and the sum that tells whether two sets of rows are the same.
//!
//! A row is written as PostgreSQL's binary `COPY` writes it: the number of columns in two bytes, then each value
//! behind its length in four, -1 for null; texts in UTF-8, numbers with the highest byte first, ids in sixteen
//! bytes. There is one such form of a row, whoever writes it, so it is also what is compared.
//!
//! The sum of a table is that of the SHA-256 of its rows, modulo 2²⁵⁶. The order of the rows does not matter to it,
//! and each counts, a repeated one too.

use std::fmt;

use sha2::{Digest, Sha256};

/// How many rows there are, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// The rows.
    pub rows: u64,
    /// Four parts of the sum, the lowest first.
    parts: [u64; 4],
}

impl Sum {
    /// Counts a row in.
    pub(in crate::store) fn add(&mut self, row: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(row).into();
        let (words, _) = digest.as_chunks::<8>();
        let mut carry = false;
        for (part, word) in self.parts.iter_mut().zip(words.iter().rev()) {
            (*part, carry) = part.carrying_add(u64::from_be_bytes(*word), carry);
        }
        self.rows += 1;
    }
}

impl fmt::Display for Sum {
    /// The first half of it, as people compare it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.parts[3], self.parts[2])
    }
}

/// A row that is being written.
#[derive(Debug, Default)]
pub(in crate::store) struct RowWriter(Vec<u8>);

impl RowWriter {
    /// Begins a row of so many columns.
    pub(in crate::store) fn begin(&mut self, columns: usize) {
        self.0.clear();
        // No table has thousands of columns.
        let columns = i16::try_from(columns).unwrap_or(i16::MAX);
        self.0.extend_from_slice(&columns.to_be_bytes());
    }

    /// Writes the next value. One of 2³¹ bytes and more is refused.
    pub(in crate::store) fn value(&mut self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else {
            self.0.extend_from_slice(&(-1_i32).to_be_bytes());
            return true;
        };
        let Ok(length) = i32::try_from(value.len()) else {
            return false;
        };
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        true
    }

    /// The row.
    pub(in crate::store) fn row(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[&[u8]]) -> Sum {
        let mut sum = Sum::default();
        for row in rows {
            sum.add(row);
        }
        sum
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let all = sum(&[b"a", b"b", b"c"]);
        assert_eq!(all, sum(&[b"c", b"a", b"b"]));
        for other in [
            sum(&[b"a", b"b"]),
            sum(&[b"a", b"b", b"d"]),
            sum(&[b"a", b"b", b"b"]),
            sum(&[b"a", b"b", b"c", b"c"]),
        ] {
            assert_ne!(all, other);
        }
    }

    /// SHA-256 of nothing begins with e3b0c442…; twice that overflows into the next part and beyond the last.
    #[test]
    fn it_is_a_sum_of_numbers_of_256_bits() {
        assert_eq!(sum(&[b""]).to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
        assert_eq!(
            sum(&[b"", b""]).to_string(),
            "c761888531f8382935f7e99132df7248"
        );
        assert_eq!(sum(&[b"", b""]).rows, 2);
    }
}
