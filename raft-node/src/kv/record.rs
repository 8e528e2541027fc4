//! One key with all that belongs to it, in one allocation.
//!
//! ```text
//! key length × 2 + (1 if it expires)   LEB128
//! modification index                   LEB128
//! deadline, if it expires              LEB128
//! key, value                           the rest is the value
//! ```
//! A key of 16 bytes costs five bytes more than itself and its value, and the reference count. Records are shared
//! with the views of running snapshots, so a shard is copied without copying values.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{LogIndex, Timestamp};

use super::varint::{self, Reader, VARINT_BYTES_MAX};

/// One record. Cloning it shares it.
#[derive(Clone, Debug)]
pub(super) struct Record(Arc<[u8]>);

impl Record {
    /// Makes a record. `value` is given in parts, so that what appends needs no buffer of its own.
    pub(super) fn new(key: &[u8], meta: Meta, value: &[&[u8]], scratch: &mut Vec<u8>) -> Record {
        scratch.clear();
        scratch.extend_from_slice(Head::of(key, meta).bytes());
        scratch.extend_from_slice(key);
        for part in value {
            scratch.extend_from_slice(part);
        }
        let record = Record(Arc::from(&scratch[..]));
        if scratch.capacity() > SCRATCH_KEPT_BYTES {
            *scratch = Vec::new();
        }
        record
    }

    /// Writes another value over this one, if the new record has the same size and no view shares this one.
    /// Returns whether it did.
    pub(super) fn overwrite(&mut self, key: &[u8], meta: Meta, value: &[u8]) -> bool {
        let head = Head::of(key, meta);
        let head = head.bytes();
        if self.0.len() != head.len() + key.len() + value.len() {
            return false;
        }
        let Some(bytes) = Arc::get_mut(&mut self.0) else { return false };
        let (to_head, rest) = bytes.split_at_mut(head.len());
        let (to_key, to_value) = rest.split_at_mut(key.len());
        to_head.copy_from_slice(head);
        to_key.copy_from_slice(key);
        to_value.copy_from_slice(value);
        true
    }

    /// A record as a snapshot holds it, if these bytes are one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Record> {
        View::read(bytes).map(|_| Record(Arc::from(bytes)))
    }

    /// What it holds.
    pub(super) fn view(&self) -> View<'_> {
        View::read(&self.0).expect("whatever makes a record writes its head, or has read it")
    }

    /// All of it, as a snapshot holds it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key alone.
    pub(super) fn key(&self) -> &[u8] {
        self.view().key
    }

    /// The value as bytes that live on: a long one is shared with the record, a short one is copied.
    pub(super) fn value_bytes(&self) -> Bytes {
        let value = self.view().value;
        if value.len() < SHARED_VALUE_BYTES_MIN {
            return Bytes::copy_from_slice(value);
        }
        let start = self.0.len() - value.len();
        Bytes::from_owner(Shared(Arc::clone(&self.0))).slice(start..)
    }

    /// The memory it takes: what was asked for, with the reference counts and the allocator's rounding.
    pub(super) fn size_bytes(&self) -> usize {
        allocated(self.0.len())
    }
}

/// What a record says about its key, beside the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// The entry that changed it last.
    pub(super) modified: LogIndex,
    /// When it expires, in replicated time.
    pub(super) deadline: Option<Timestamp>,
}

impl Meta {
    /// Whether the key is gone at `now`, though it may still be there.
    pub(super) fn is_due(self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// A record, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) meta: Meta,
}

impl<'a> View<'a> {
    fn read(bytes: &'a [u8]) -> Option<View<'a>> {
        let mut reader = Reader(bytes);
        let length = reader.length()?;
        let modified = LogIndex(reader.number()?);
        let deadline = if length & 1 == 1 { Some(Timestamp(reader.number()?)) } else { None };
        let key = reader.take(length >> 1)?;
        Some(View { key, value: reader.0, meta: Meta { modified, deadline } })
    }
}

struct Head {
    buffer: [u8; 3 * VARINT_BYTES_MAX],
    length: usize,
}

impl Head {
    fn of(key: &[u8], meta: Meta) -> Head {
        let mut buffer = [0; 3 * VARINT_BYTES_MAX];
        let mut free = &mut buffer[..];
        varint::put((key.len() as u64) << 1 | u64::from(meta.deadline.is_some()), &mut free);
        varint::put(meta.modified.0, &mut free);
        if let Some(deadline) = meta.deadline {
            varint::put(deadline.0, &mut free);
        }
        let left = free.len();
        Head { length: buffer.len() - left, buffer }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// From this length on a value that is read is shared with its record instead of copied.
const SHARED_VALUE_BYTES_MIN: usize = 16 * 1024;

/// The buffer records are put together in may keep this much.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;

/// Two reference counts, the allocator's header, and its rounding to 16 bytes.
const fn allocated(length: usize) -> usize {
    (length + 2 * size_of::<usize>() + 8).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(modified: u64, deadline: Option<u64>) -> Meta {
        Meta { modified: LogIndex(modified), deadline: deadline.map(Timestamp) }
    }

    #[test]
    fn records_keep_what_they_were_given() {
        let mut scratch = Vec::new();
        for (key, value, meta) in [
            (&b"k"[..], &b"v"[..], meta(1, None)),
            (b"", b"", meta(u64::MAX, Some(u64::MAX))),
            (&[7; 70_000], &[9; 100_000], meta(300, Some(1_700_000_000_000))),
        ] {
            let record =
                Record::new(key, meta, &[&value[..value.len() / 2], &value[value.len() / 2..]], &mut scratch);
            assert_eq!(record.view(), View { key, value, meta });
            assert_eq!(record.value_bytes(), value);
            assert_eq!(Record::from_bytes(record.bytes()).unwrap().view(), record.view());
        }
        assert!(scratch.capacity() <= SCRATCH_KEPT_BYTES);
    }

    #[test]
    fn a_record_is_overwritten_only_when_nobody_shares_it() {
        let mut scratch = Vec::new();
        let mut record = Record::new(b"k", meta(5, None), &[b"old"], &mut scratch);
        assert!(record.overwrite(b"k", meta(6, None), b"new"));
        assert_eq!(record.view().value, b"new");
        assert_eq!(record.view().meta.modified, LogIndex(6));
        assert!(!record.overwrite(b"k", meta(6, None), b"longer"));
        let shared = record.clone();
        assert!(!record.overwrite(b"k", meta(7, None), b"abc"));
        assert_eq!(shared.view().value, b"new");
    }
}
