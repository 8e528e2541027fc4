//! One key with all that belongs to it, as bytes: the same in a page of memory and in a snapshot.
//!
//! ```text
//! length of what follows               LEB128
//! key length × 2 + (1 if it expires)   LEB128
//! modification index                   LEB128
//! deadline, if it expires              LEB128
//! key, value                           the rest is the value
//! ```
//! A key of 16 bytes with a value of 256 costs six bytes more than both.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use raft_core::{LogIndex, Timestamp};

use super::{
    page::Page,
    varint::{self, Reader, VARINT_BYTES_MAX},
};

/// A record in the page it lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    page: &'a Arc<Page>,
    start: usize,
}

impl<'a> Record<'a> {
    /// The record that begins at `start`, where one was written.
    pub(super) fn at(page: &'a Arc<Page>, start: usize) -> Record<'a> {
        Record { page, start }
    }

    /// What it holds.
    pub(super) fn view(self) -> View<'a> {
        View::read(self.body()).expect("whatever makes a record writes its head, or has read it")
    }

    /// All of it, its length first.
    pub(super) fn bytes(self) -> &'a [u8] {
        let from = &self.page[self.start..];
        let body = self.body();
        &from[..varint::size(body.len() as u64) + body.len()]
    }

    /// The key alone.
    pub(super) fn key(self) -> &'a [u8] {
        self.view().key
    }

    /// The value as bytes that live on: a long one is shared with the record, a short one is copied.
    pub(super) fn value_bytes(self) -> Bytes {
        let value = self.view().value;
        if value.len() < SHARED_VALUE_BYTES_MIN {
            return Bytes::copy_from_slice(value);
        }
        // A record this long has a page of its own, and its value ends the page.
        let start = self.page.len() - value.len();
        Bytes::from_owner(Shared(Arc::clone(self.page))).slice(start..)
    }

    fn body(self) -> &'a [u8] {
        let body = Reader(&self.page[self.start..]).bytes();
        body.expect("whatever makes a record writes its length, or has read it")
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
    /// Reads what follows the length, if these bytes are a record.
    pub(super) fn read(body: &'a [u8]) -> Option<View<'a>> {
        let mut reader = Reader(body);
        let length = reader.length()?;
        let modified = LogIndex(reader.number()?);
        let deadline = if length & 1 == 1 { Some(Timestamp(reader.number()?)) } else { None };
        let key = reader.take(length >> 1)?;
        Some(View { key, value: reader.0, meta: Meta { modified, deadline } })
    }
}

/// A record that is yet to be written. The value is given in parts, so that what appends needs no buffer of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub(super) key: &'a [u8],
    pub(super) meta: Meta,
    pub(super) value: &'a [&'a [u8]],
}

impl Draft<'_> {
    /// How many bytes it will take.
    pub(super) fn size(&self) -> usize {
        let body = self.body_size();
        varint::size(body as u64) + body
    }

    /// Writes it.
    pub(super) fn write(&self, to: &mut impl BufMut) {
        let mut head = [0; 4 * VARINT_BYTES_MAX];
        let mut free = &mut head[..];
        varint::put(self.body_size() as u64, &mut free);
        varint::put(self.key_field(), &mut free);
        varint::put(self.meta.modified.0, &mut free);
        if let Some(deadline) = self.meta.deadline {
            varint::put(deadline.0, &mut free);
        }
        let left = free.len();
        to.put_slice(&head[..head.len() - left]);
        to.put_slice(self.key);
        for part in self.value {
            to.put_slice(part);
        }
    }

    fn key_field(&self) -> u64 {
        (self.key.len() as u64) << 1 | u64::from(self.meta.deadline.is_some())
    }

    fn body_size(&self) -> usize {
        varint::size(self.key_field())
            + varint::size(self.meta.modified.0)
            + self.meta.deadline.map_or(0, |deadline| varint::size(deadline.0))
            + self.key.len()
            + self.value.iter().map(|part| part.len()).sum::<usize>()
    }
}

struct Shared(Arc<Page>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// From this length on a value that is read is shared with its record instead of copied. Longer than any record that
/// shares its page with others.
pub(super) const SHARED_VALUE_BYTES_MIN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(modified: u64, deadline: Option<u64>) -> Meta {
        Meta { modified: LogIndex(modified), deadline: deadline.map(Timestamp) }
    }

    #[test]
    fn records_keep_what_they_were_given() {
        for (key, value, meta) in [
            (&b"k"[..], &b"v"[..], meta(1, None)),
            (b"", b"", meta(u64::MAX, Some(u64::MAX))),
            (&[7; 70_000], &[9; 100_000], meta(300, Some(1_700_000_000_000))),
        ] {
            let parts = value.split_at(value.len() / 2);
            let draft = Draft { key, meta, value: &[parts.0, parts.1] };
            let mut page = Page::own(6 + draft.size());
            page.fill(6).copy_from_slice(b"before");
            draft.write(&mut page.fill(draft.size()));
            let page = Arc::new(page);
            let record = Record::at(&page, 6);
            assert_eq!(record.view(), View { key, value, meta });
            assert_eq!(record.value_bytes(), value);
            assert_eq!(record.bytes(), &page[6..]);
        }
    }

    #[test]
    fn a_key_and_value_cost_six_bytes_more() {
        let draft = Draft { key: &[b'k'; 16], meta: meta(300_000, None), value: &[&[b'v'; 256]] };
        assert_eq!(draft.size(), 16 + 256 + 6);
    }
}
