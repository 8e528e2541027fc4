//! Which file names mean what. One flat directory holds everything a node keeps; nothing else in this crate makes or
//! reads a name.
//!
//! | name | what it is |
//! |---|---|
//! | `LOCK` | held while a process has the directory open |
//! | `identity` | cluster, node, incarnation and start number |
//! | `wal-<number>.log` | a segment of the log; the highest ones may be prepared and not yet in use |
//! | `spare-<number>.log` | a zero-filled or recycled file waiting to become a segment |
//! | `torn-<number>-<offset>.bin` | bytes of an unfinished write that recovery cut off and kept aside |
//! | `snapshot-<index>-<term>.snap` | a snapshot, complete and synced |
//! | `….tmp`, `….recv.tmp` | being written, or being received; removed when the log is opened |
//!
//! All numbers are 16 lower-case hexadecimal digits, so that names sort as numbers do.

use std::path::Path;

use raft_core::{LogId, LogIndex, Term};

/// The lock file's name.
pub const LOCK_FILE: &str = "LOCK";
/// The identity file's name.
pub const IDENTITY_FILE: &str = "identity";
/// What a file being written ends in, after its final name.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
/// What a snapshot file being received ends in, after its final name.
pub const RECEIVED_SUFFIX: &str = ".recv.tmp";

/// What a name in the directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The lock file.
    Lock,
    /// The identity file.
    Identity,
    /// The segment of this number.
    Segment(u64),
    /// A spare file.
    Spare(u64),
    /// Bytes kept aside by a recovery.
    Torn,
    /// The snapshot up to this entry.
    Snapshot(LogId),
    /// One of ours that was never finished.
    Temporary,
    /// Not ours: named in reports, otherwise left alone.
    Unknown,
}

/// The name of segment `number`.
#[must_use]
pub fn segment(number: u64) -> String {
    format!("wal-{number:016x}.log")
}

/// The name of spare file `number`.
#[must_use]
pub fn spare(number: u64) -> String {
    format!("spare-{number:016x}.log")
}

/// The name for the bytes cut from segment `number` at `offset`.
#[must_use]
pub fn torn(number: u64, offset: u64) -> String {
    format!("torn-{number:016x}-{offset:016x}.bin")
}

/// The name of the snapshot up to `last`.
#[must_use]
pub fn snapshot(last: LogId) -> String {
    format!("snapshot-{:016x}-{:016x}.snap", last.index.0, last.term.0)
}

/// The name of that snapshot while this node writes it.
#[must_use]
pub fn snapshot_temporary(last: LogId) -> String {
    snapshot(last) + TEMPORARY_SUFFIX
}

/// The name of that snapshot while it is received, and until the log's writer renames it into place.
#[must_use]
pub fn snapshot_received(last: LogId) -> String {
    snapshot(last) + RECEIVED_SUFFIX
}

/// What `name` stands for. Only names exactly as this module makes them are ours.
#[must_use]
pub fn parse(name: &Path) -> Name {
    let Some(name) = name.to_str() else { return Name::Unknown };
    if let Some(finished) = name.strip_suffix(RECEIVED_SUFFIX) {
        return if matches!(parse_finished(finished), Name::Snapshot(_)) {
            Name::Temporary
        } else {
            Name::Unknown
        };
    }
    if let Some(finished) = name.strip_suffix(TEMPORARY_SUFFIX) {
        return match parse_finished(finished) {
            Name::Unknown | Name::Lock | Name::Temporary => Name::Unknown,
            Name::Identity | Name::Segment(_) | Name::Spare(_) | Name::Torn | Name::Snapshot(_) => {
                Name::Temporary
            }
        };
    }
    parse_finished(name)
}

fn parse_finished(name: &str) -> Name {
    if name == LOCK_FILE {
        return Name::Lock;
    }
    if name == IDENTITY_FILE {
        return Name::Identity;
    }
    let number = |prefix: &str| {
        hexadecimal(name.strip_prefix(prefix)?.strip_suffix(".log")?).filter(|number| *number != 0)
    };
    if let Some(number) = number("wal-") {
        return Name::Segment(number);
    }
    if let Some(number) = number("spare-") {
        return Name::Spare(number);
    }
    let pair = |prefix: &str, suffix: &str| {
        let (first, second) = name.strip_prefix(prefix)?.strip_suffix(suffix)?.split_once('-')?;
        Some((hexadecimal(first)?, hexadecimal(second)?))
    };
    if pair("torn-", ".bin").is_some() {
        return Name::Torn;
    }
    if let Some((index, term)) = pair("snapshot-", ".snap") {
        return Name::Snapshot(LogId { term: Term(term), index: LogIndex(index) });
    }
    Name::Unknown
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(lower) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_parsing() {
        let id = LogId::new(3, 77);
        let known = [
            (segment(1), Name::Segment(1)),
            (segment(u64::MAX), Name::Segment(u64::MAX)),
            (spare(9), Name::Spare(9)),
            (torn(1, 4096), Name::Torn),
            (snapshot(id), Name::Snapshot(id)),
            (snapshot_temporary(id), Name::Temporary),
            (snapshot_received(id), Name::Temporary),
            (spare(2) + TEMPORARY_SUFFIX, Name::Temporary),
            (IDENTITY_FILE.to_owned() + TEMPORARY_SUFFIX, Name::Temporary),
            (LOCK_FILE.to_owned(), Name::Lock),
            (IDENTITY_FILE.to_owned(), Name::Identity),
        ];
        for (name, meaning) in known {
            assert_eq!(parse(Path::new(&name)), meaning, "{name}");
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in [
            "",
            ".tmp",
            "notes.tmp",
            "lost+found",
            "wal-1.log",
            "wal-0000000000000000.log",
            "wal-000000000000000G.log",
            "wal-000000000000000A.log",
            "wal-+00000000000001f.log",
            "wal-0000000000000001.log.bak",
            "wal-0000000000000001.log.recv.tmp",
            "LOCK.tmp",
            "snapshot-0000000000000001.snap",
        ] {
            assert_eq!(parse(Path::new(name)), Name::Unknown, "{name:?}");
        }
    }
}
