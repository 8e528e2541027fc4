//! What a log must find again after any crash: a model of everything it was told, a driver that keeps both in step, and
//! the judge that compares them. For tests and fuzzing.
//!
//! Each [`Write`] makes one [`Version`]. After a crash the log must show exactly one of them: at least the last
//! acknowledged one, at most the last one handed in, and never a mix. That is:
//!
//! 1. every acknowledged entry is there, byte for byte;
//! 2. nothing is there that was never written, and nothing that an acknowledged cut had removed;
//! 3. what is there is a prefix of the history;
//! 4. what an open has reported is durable: a crash right after it changes nothing ([`judge_twice`]);
//! 5. damage to what was acknowledged is reported, never cut away ([`judge_damaged`]), and can be repaired
//!    ([`judge_repaired`]);
//! 6. a crash during recovery changes nothing;
//! 7. the marked snapshot is there and whole, the old one or the new one;
//! 8. opening reads no more than a few times what is on the disk;
//! 9. after a failed write or sync nothing is acknowledged any more ([`Driver::step`] checks it).

mod driver;
mod explore;
mod judge;
mod sweep;
mod workload;

use std::collections::BTreeMap;

use raft_core::{
    ClusterId, ConfState, Entry, HardState, LogId, LogIndex, Member, NodeId, SnapshotMeta, Term, Write,
};

pub use self::{
    driver::{Driver, Step},
    explore::{Plan, Tally, explore},
    judge::{Found, judge, judge_damaged, judge_repaired, judge_twice},
    sweep::{Outcomes, WHOLE_SEGMENT, every_prefix, flip_every_bit, full_segment, segments},
    workload::{recorded, workload},
};
use crate::{Options, SEGMENT_BYTES_MIN};

/// The directory the model's logs live in.
pub const DIR: &str = "/data";

/// What a log holds after one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Term, vote and commit hint.
    pub hard_state: HardState,
    /// The newest marked snapshot.
    pub snapshot: SnapshotMeta,
    /// Before this entry nothing can be left: zero, or where a snapshot reset the log.
    pub floor: LogId,
    /// Everything since then, compacted or not.
    pub entries: BTreeMap<u64, Entry>,
}

impl Version {
    /// Of a log just founded.
    #[must_use]
    pub fn founded() -> Version {
        Version {
            hard_state: HardState::default(),
            snapshot: SnapshotMeta { conf: conf(), ..SnapshotMeta::default() },
            floor: LogId::ZERO,
            entries: BTreeMap::new(),
        }
    }

    /// The last entry, or what stands for it.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.entries.last_key_value().map_or(self.floor, |(_, entry)| entry.id)
    }

    /// The id of the entry at `index`, the floor included.
    #[must_use]
    pub fn id(&self, index: LogIndex) -> Option<LogId> {
        if index == self.floor.index {
            return Some(self.floor);
        }
        self.entries.get(&index.0).map(|entry| entry.id)
    }

    /// What the log holds after `write`.
    #[must_use]
    pub fn after(&self, write: &Write) -> Version {
        let mut next = self.clone();
        next.hard_state = write.hard_state;
        if let Some(after) = write.truncate_after {
            next.entries.split_off(&after.next().0);
        }
        if let Some(mark) = &write.snapshot {
            next.snapshot = mark.meta.clone();
            if mark.resets_log {
                next.floor = mark.meta.last;
                next.entries.clear();
            }
        }
        next.entries.extend(write.entries.iter().map(|entry| (entry.id.index.0, entry.clone())));
        next
    }
}

/// Everything a log was told, and how much of it was acknowledged at each point.
#[derive(Clone, Debug)]
pub struct Model {
    /// One for each write since the log was founded or [`settled`](Self::settled).
    pub versions: Vec<Version>,
    /// What was known at each note of the simulated disk.
    pub known: Vec<Known>,
}

/// How far a log had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The last version acknowledged.
    pub acked: usize,
    /// The last version handed in.
    pub submitted: usize,
    /// Entries up to here may have been dropped.
    pub compacted: LogIndex,
}

impl Default for Model {
    fn default() -> Model {
        Model::settled(Version::founded(), LogIndex::ZERO)
    }
}

impl Model {
    /// A log of which exactly this is known.
    #[must_use]
    pub fn settled(version: Version, compacted: LogIndex) -> Model {
        Model { versions: vec![version], known: vec![Known { acked: 0, submitted: 0, compacted }] }
    }

    /// The last version handed in.
    #[must_use]
    pub fn tip(&self) -> &Version {
        &self.versions[self.versions.len() - 1]
    }

    /// What is known now.
    #[must_use]
    pub fn now(&self) -> Known {
        self.known[self.known.len() - 1]
    }
}

/// The smallest segments there are, so that a few dozen writes fill one.
#[must_use]
pub fn options(seed: u64) -> Options {
    Options {
        tail_bytes: 4096,
        spare_segments: 1,
        seed,
        ..Options::new(ClusterId(0xc1), NodeId(1), conf()).with_segment_bytes(SEGMENT_BYTES_MIN)
    }
}

/// One voter.
#[must_use]
pub fn conf() -> ConfState {
    ConfState::of_voters([(NodeId(1), Member { address: "host:7402".to_owned(), ..Member::default() })])
}

/// The terms of a run of entries, as [`Recovered::term_runs`](raft_core::Recovered::term_runs) tells them.
fn term_at(runs: &[raft_core::TermRun], index: LogIndex) -> Option<Term> {
    runs.iter().rev().find(|run| run.first <= index).map(|run| run.term)
}
