//! What the log holds: entries, and what a node must remember beside them.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, Range},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ConfState, LogId, LogIndex, NodeId, Term, Timestamp};

/// What an entry is for. The numbers are on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// A new leader's first entry: lets it commit what earlier terms left behind (dissertation 3.6.2, Figure 3.7).
    Noop = 0,
    /// A command for the state machine.
    Command = 1,
    /// A new configuration, in force from the moment it is appended (dissertation 4.1). The payload is an encoded
    /// [`ConfState`].
    ConfChange = 2,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<EntryKind> {
        match value {
            0 => Some(EntryKind::Noop),
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::ConfChange),
            _ => None,
        }
    }
}

/// Which command of which client session an entry carries; lets the state machine apply it at most once (SAFETY X3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionSeq {
    /// The session, as the state machine numbered it. Never zero.
    pub session: u64,
    /// The client's number of this command in that session.
    pub seq: u64,
}

/// One entry of the log. Cloning it copies no payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its term and place.
    pub id: LogId,
    /// The leader's clock when it was appended. Never less than that of the entry before.
    pub time: Timestamp,
    /// The client session it belongs to, if any.
    pub session: Option<SessionSeq>,
    /// What it is for.
    pub kind: EntryKind,
    /// CRC-32 (IEEE) of `payload`, made once where the payload was proposed and carried along to every disk.
    pub checksum: u32,
    /// The command, or the encoded configuration. Empty for a no-op.
    pub payload: Bytes,
}

impl Entry {
    /// The checksum an entry with this payload must carry.
    #[must_use]
    pub fn checksum_of(payload: &[u8]) -> u32 {
        crc32fast::hash(payload)
    }

    /// Whether the payload still is what was proposed.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        Self::checksum_of(&self.payload) == self.checksum
    }

    /// Bytes this entry counts for in windows, batches and the tail: payload and a flat charge for the rest.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.payload.len() + ENTRY_OVERHEAD_BYTES
    }
}

/// The flat charge for one entry's header, wherever bytes of entries are bounded.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// A run of entries with consecutive indexes, shared without copying: the same run lies in memory, goes to the log, to
/// each peer and to the state machine. A part of a run keeps the whole run's memory alive.
#[derive(Clone, Default)]
pub struct Entries {
    run: Option<Arc<[Entry]>>,
    from: usize,
    to: usize,
}

impl Entries {
    /// No entries, no allocation.
    pub const EMPTY: Entries = Entries { run: None, from: 0, to: 0 };

    /// The part of the run at these places, shared with it; what lies outside the run is left out.
    #[must_use]
    pub fn part(&self, places: Range<usize>) -> Entries {
        let to = self.from.saturating_add(places.end).min(self.to);
        let from = self.from.saturating_add(places.start);
        if from >= to { Entries::EMPTY } else { Entries { run: self.run.clone(), from, to } }
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        self.run.as_deref().and_then(|run| run.get(self.from..self.to)).unwrap_or_default()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl Hash for Entries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Entries {
        entries.into_iter().collect()
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(iter: I) -> Entries {
        // One allocation if the iterator knows its length.
        let run: Arc<[Entry]> = iter.into_iter().collect();
        if run.is_empty() { Entries::EMPTY } else { Entries { from: 0, to: run.len(), run: Some(run) } }
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What a node must remember of elections, and a hint of how far it had committed. Term and vote are one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// Whom it voted for in `term`.
    pub vote: Option<NodeId>,
    /// A commit index that was true once. A hint: it saves a restarted node some waiting, safety never needs it.
    pub commit: LogIndex,
}

/// What a snapshot stands for: everything up to and including `last`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry it covers.
    pub last: LogId,
    /// Replicated time at `last`.
    pub time: Timestamp,
    /// The configuration in force at `last` (SAFETY M7).
    pub conf: ConfState,
    /// The entry `conf` came from; [`LogId::ZERO`] for the founding configuration.
    pub conf_id: LogId,
}

/// A stretch of the log written in one term. Terms change only at elections, so a few of these tell the term of
/// every index of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TermRun {
    /// The first index of the run; it ends where the next begins.
    pub first: LogIndex,
    /// The term of all its entries.
    pub term: Term,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_numbers() {
        for kind in [EntryKind::Noop, EntryKind::Command, EntryKind::ConfChange] {
            assert_eq!(EntryKind::from_u8(kind as u8), Some(kind));
        }
        assert_eq!(EntryKind::from_u8(3), None);
    }

    #[test]
    fn a_payload_is_intact_until_it_changes() {
        // The check value of CRC-32 (IEEE), as every catalogue of checksums has it.
        assert_eq!(Entry::checksum_of(b"123456789"), 0xCBF4_3926);
        let mut entry = crate::test_util::entry(1, 1);
        entry.payload = Bytes::from_static(b"123456789");
        entry.checksum = 0xCBF4_3926;
        assert!(entry.is_intact());
        entry.payload = Bytes::from_static(b"123456788");
        assert!(!entry.is_intact());
    }

    #[test]
    fn entries_print_as_the_list_they_are() {
        let run: Entries = (1..=2).map(|index| crate::test_util::entry(1, index)).collect();
        assert_eq!(format!("{run:?}"), format!("{:?}", run.iter().collect::<Vec<_>>()));
    }

    #[test]
    fn empty_entries_are_one_value() {
        assert_eq!(Entries::from(Vec::new()), Entries::EMPTY);
        assert!(Entries::EMPTY.is_empty());
    }

    #[test]
    fn a_part_of_a_part_is_what_it_says() {
        let run: Entries = (1..=6).map(|index| crate::test_util::entry(1, index)).collect();
        let indexes = |part: &Entries| part.iter().map(|entry| entry.id.index.0).collect::<Vec<_>>();
        assert_eq!(indexes(&run.part(1..5)), [2, 3, 4, 5]);
        assert_eq!(indexes(&run.part(1..5).part(1..9)), [3, 4, 5], "never beyond the part it was taken from");
        assert_eq!(run.part(6..9), Entries::EMPTY);
        assert_eq!(run.part(2..3), Entries::from(vec![crate::test_util::entry(1, 3)]), "compared by content");
    }

    #[test]
    fn entries_are_compared_by_content() {
        let run = |indexes: std::ops::RangeInclusive<u64>| -> Entries {
            indexes.map(|index| crate::test_util::entry(1, index)).collect()
        };
        assert_ne!(run(1..=2), run(1..=3));
        assert_ne!(run(1..=2), run(2..=3));
        let hash = |entries: Entries| {
            let mut hasher = std::hash::DefaultHasher::new();
            entries.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(run(1..=3).part(1..3)), hash(run(2..=3)));
        assert_ne!(hash(run(1..=2)), hash(run(2..=3)));
    }
}
