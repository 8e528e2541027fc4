//! What unit tests of several files share.

use bytes::Bytes;

use crate::{Entry, EntryKind, LogId, Timestamp};

/// A small command at `index` of `term`.
pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let payload = Bytes::from_static(b"x");
    Entry {
        id: LogId::new(term, index),
        time: Timestamp(index),
        session: None,
        kind: EntryKind::Command,
        checksum: Entry::checksum_of(&payload),
        payload,
    }
}
