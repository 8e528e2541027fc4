//! Writes for raft-wal as a node with one voter would make them.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use raft_core::{
    ClusterId, ConfState, Entries, Entry, EntryKind, HardState, LogId, LogIndex, Member, NodeId,
    SnapshotMark, SnapshotMeta, Term, Timestamp, Write, WriteId,
};
use raft_wal::{Engine, Options, vfs::OsVfs};

/// The product's defaults.
#[must_use]
pub fn options() -> Options {
    Options::new(ClusterId(1), NodeId(1), conf())
}

fn conf() -> ConfState {
    let member = Member { address: "host:7402".to_owned(), ..Member::default() };
    ConfState::of_voters([(NodeId(1), member)])
}

/// Makes writes that continue each other.
#[derive(Debug)]
pub struct Writes {
    next_write: u64,
    /// The last entry.
    pub last: LogIndex,
}

impl Writes {
    /// For a log that ends at `last`.
    #[must_use]
    pub fn behind(last: LogIndex) -> Writes {
        Writes { next_write: 1, last }
    }

    /// Entries with these payloads. Each gets its checksum here, as it would where it is proposed.
    pub fn append(&mut self, payloads: &[Bytes]) -> Write {
        let entries = payloads.iter().map(|payload| {
            self.last = self.last.next();
            Entry {
                id: LogId { term: Term(1), index: self.last },
                time: Timestamp(1),
                session: None,
                kind: EntryKind::Command,
                checksum: Entry::checksum_of(payload),
                payload: payload.clone(),
            }
        });
        let entries = entries.collect();
        Write { entries, ..self.empty() }
    }

    /// Notes a snapshot of everything up to `index`, after which that prefix may be dropped.
    pub fn mark(&mut self, index: LogIndex) -> Write {
        let last = LogId { term: Term(1), index };
        let meta = SnapshotMeta { last, time: Timestamp(1), conf: conf(), conf_id: LogId::ZERO };
        let mark = SnapshotMark { meta, received: false, resets_log: false };
        Write { snapshot: Some(Box::new(mark)), ..self.empty() }
    }

    fn empty(&mut self) -> Write {
        let id = WriteId(self.next_write);
        self.next_write += 1;
        Write {
            id,
            hard_state: HardState { term: Term(1), vote: Some(NodeId(1)), commit: self.last },
            truncate_after: None,
            snapshot: None,
            entries: Entries::EMPTY,
        }
    }
}

/// The log as plain calls on the caller's thread.
#[derive(Debug)]
pub struct WalLog {
    /// The log.
    pub engine: Engine,
    /// What continues it.
    pub writes: Writes,
}

impl WalLog {
    /// Opens the log in `dir`, or founds one.
    #[must_use]
    pub fn open(dir: &Path, options: Options) -> WalLog {
        let (engine, report) =
            Engine::open(Arc::new(OsVfs), dir, options).expect("a directory of this benchmark");
        let last = report.recovered.last;
        WalLog { engine, writes: Writes::behind(last) }
    }

    /// One durable batch.
    pub fn append(&mut self, payloads: &[Bytes]) {
        let write = self.writes.append(payloads);
        self.engine.append(&write).expect("the write continues the log");
        self.engine.flush().expect("the disk works");
    }

    /// Drops everything, so that the space is used again.
    pub fn drop_all(&mut self) {
        let last = self.writes.last;
        let write = self.writes.mark(last);
        self.engine.append(&write).expect("the write continues the log");
        self.engine.compact(last).expect("the disk works");
    }
}
