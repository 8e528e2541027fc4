//! What the benchmarks of the log share.

pub mod physlog;
pub mod wal_log;

use bytes::Bytes;

/// So many payloads of `length` bytes, no two alike.
#[must_use]
pub fn payloads(count: usize, length: usize) -> Vec<Bytes> {
    let all = noise(count * length);
    (0..count).map(|number| all.slice(number * length..(number + 1) * length)).collect()
}

/// Bytes that no compression shortens, the same in every run.
#[must_use]
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
