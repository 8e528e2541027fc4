//! Variable-length integers and length-prefixed bytes: seven bits a byte, the lowest first (LEB128).
//!
//! Requests, records and snapshots are made of these. Reading checks everything and allocates nothing.

use bytes::BufMut;

/// The longest a number gets.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Appends a number.
pub(crate) fn put(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut impl BufMut) {
    put(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// How many bytes a number takes.
pub(crate) const fn size(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads from a slice, front to back. `None` means that the bytes end too early or are no number.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for at in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            // The tenth byte holds the one bit that is left.
            if at == VARINT_BYTES_MAX - 1 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_their_sizes_are_known() {
        for value in [0, 1, 127, 128, 255, 256, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!(out.len(), size(value), "{value}");
            assert_eq!(Reader(&out).number(), Some(value));
            assert_eq!(Reader(&out[..out.len() - 1]).number(), None);
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        assert_eq!(Reader(&[0xff; 20]).number(), None);
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number(), None);
    }
}
