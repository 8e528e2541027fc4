//! Drives a log on the simulated disk, and keeps the model in step.

use std::{io::Write as _, path::Path, sync::Arc};

use bytes::Bytes;
use raft_core::{
    Entries, Entry, EntryKind, HardState, LogId, LogIndex, NodeId, SessionSeq, SnapshotMark, SnapshotMeta,
    Term, Timestamp, Write, WriteId,
};

use super::{DIR, Known, Model, Version, conf, options};
use crate::{
    Engine, Options, WalError, layout,
    snapshot_file::SnapshotWriter,
    vfs::{Vfs, sim::SimVfs},
};

/// One thing to do to a log. Numbers are bent to what the log allows, so that any step makes sense anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Append this many entries (at most 8) with payloads of about this many bytes, of a new term if asked.
    Append {
        /// How many.
        count: u8,
        /// The payload of the first; the others differ a little.
        bytes: u16,
        /// Whether their term is a new one.
        new_term: bool,
    },
    /// A new configuration as an entry.
    Configure,
    /// A new term or vote, or a commit hint, and no entry.
    Vote,
    /// Forget up to this many of the last entries (a new leader's conflict) and append as many new ones.
    Replace {
        /// How many.
        back: u8,
    },
    /// Forget up to this many of the last entries.
    Cut {
        /// How many.
        back: u8,
    },
    /// Mark a snapshot taken here, this far before the last entry.
    Snapshot {
        /// How far.
        back: u8,
    },
    /// Mark a snapshot received from a leader, this far behind the last entry; the log starts anew.
    Install {
        /// How far.
        ahead: u8,
    },
    /// Make durable what was queued.
    Flush,
    /// Note that everything is durable.
    Witness,
    /// Drop what the newest snapshot covers.
    Compact,
    /// Close and open again.
    Reopen,
    /// Kill the process after a flush, and open again.
    Kill,
}

/// A log, its disk and its model.
#[derive(Debug)]
pub struct Driver {
    /// The disk. Handles of earlier processes are dead.
    pub vfs: SimVfs,
    /// What the log was told.
    pub model: Model,
    /// Whether the last batch needs no witness.
    pub witnessed: bool,
    engine: Option<Engine>,
    next_write: u64,
    opens: u64,
    seed: u64,
    failed: bool,
}

impl Driver {
    /// Founds a log on this disk, or opens the one that is there and of which `model` knows all.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open(vfs: SimVfs, model: Model, seed: u64) -> Result<Driver, WalError> {
        let mut driver = Driver {
            vfs,
            model,
            witnessed: false,
            engine: None,
            next_write: 1,
            opens: 0,
            seed,
            failed: false,
        };
        driver.start()?;
        Ok(driver)
    }

    /// The options of the next open: no two have the same seed.
    fn options(&mut self) -> Options {
        self.opens += 1;
        options(self.seed.wrapping_mul(1 << 20).wrapping_add(self.opens))
    }

    fn start(&mut self) -> Result<(), WalError> {
        let options = self.options();
        let (engine, _) = Engine::open(Arc::new(self.vfs.clone()), Path::new(DIR), options)?;
        self.engine = Some(engine);
        self.next_write = 1;
        self.witnessed = false;
        Ok(())
    }

    /// Takes one step.
    ///
    /// # Errors
    /// The log's. Every later step then only makes sure that the log acknowledges nothing any more.
    ///
    /// # Panics
    /// If the log acknowledges something after a failure, or something that was not flushed.
    pub fn step(&mut self, step: Step) -> Result<(), WalError> {
        if self.failed {
            self.check_poisoned();
            return Ok(());
        }
        let result = self.try_step(step);
        // A full disk is the one failure after which the log goes on.
        self.failed = result.as_ref().is_err_and(|error| !matches!(error, WalError::Full { .. }));
        result
    }

    /// Whether the log has refused for good.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    fn check_poisoned(&mut self) {
        let version = self.model.tip();
        let hard_state = HardState { commit: version.hard_state.commit.next(), ..version.hard_state };
        let write = write(self.next_write, hard_state);
        if let Some(engine) = &mut self.engine
            && engine.append(&write).is_ok()
        {
            assert!(engine.flush().is_err(), "a write was acknowledged after a failure");
        }
    }

    fn try_step(&mut self, step: Step) -> Result<(), WalError> {
        let version = self.model.tip().clone();
        match step {
            Step::Append { count, bytes, new_term } => {
                let hard_state = advance(&version, new_term);
                let entries = entries(version.last().index, &hard_state, count % 8 + 1, bytes, self.seed);
                self.submit(Write { entries, ..write(0, hard_state) })
            }
            Step::Configure => {
                let hard_state = advance(&version, false);
                let payload = Bytes::from(conf().encode());
                let entry = Entry {
                    kind: EntryKind::ConfChange,
                    checksum: Entry::checksum_of(&payload),
                    payload,
                    session: None,
                    id: LogId { term: hard_state.term, index: version.last().index.next() },
                    time: Timestamp(1),
                };
                self.submit(Write { entries: vec![entry].into(), ..write(0, hard_state) })
            }
            Step::Vote => self.submit(write(0, advance(&version, true))),
            Step::Replace { back } => {
                let after = self.cut_to(&version, back);
                let hard_state = advance(&version, true);
                let entries = entries(after, &hard_state, back % 4 + 1, 100, self.seed);
                self.submit(Write { truncate_after: Some(after), entries, ..write(0, hard_state) })
            }
            Step::Cut { back } => {
                let after = self.cut_to(&version, back);
                self.submit(Write { truncate_after: Some(after), ..write(0, advance(&version, true)) })
            }
            Step::Snapshot { back } => {
                let index = version.last().index.minus(u64::from(back % 8));
                match version.id(index) {
                    Some(last) if index > version.snapshot.last.index => self.mark(&version, last, false),
                    _ => Ok(()),
                }
            }
            Step::Install { ahead } => {
                let hard_state = advance(&version, true);
                let index = version.last().index.max(version.snapshot.last.index);
                let last = LogId { term: hard_state.term, index: index.plus(u64::from(ahead % 8) + 1) };
                self.mark(&version, last, true)
            }
            Step::Flush => self.flush(),
            Step::Witness => {
                self.flush()?;
                if let Some(engine) = &mut self.engine {
                    engine.witness()?;
                    self.witnessed = true;
                }
                Ok(())
            }
            Step::Compact => {
                self.flush()?;
                let up_to = self.model.tip().snapshot.last.index;
                self.know(|known| known.compacted = up_to);
                self.engine.as_mut().map_or(Ok(()), |engine| engine.compact(up_to))
            }
            Step::Reopen => {
                self.flush()?;
                if let Some(engine) = self.engine.take() {
                    engine.close()?;
                }
                self.vfs = self.vfs.crash_process();
                self.start()
            }
            Step::Kill => {
                self.flush()?;
                self.engine = None;
                self.vfs = self.vfs.crash_process();
                self.start()
            }
        }
    }

    /// The lowest index the log may still be cut to, at most `back` entries before its end.
    fn cut_to(&self, version: &Version, back: u8) -> LogIndex {
        let known = self.model.now();
        let floor = version.floor.index.max(known.compacted).max(version.snapshot.last.index);
        version.last().index.minus(u64::from(back % 16)).max(floor)
    }

    fn mark(&mut self, version: &Version, last: LogId, received: bool) -> Result<(), WalError> {
        let meta = SnapshotMeta { last, time: Timestamp(last.index.0), conf: conf(), conf_id: LogId::ZERO };
        if self.write_snapshot(&meta, received).is_err() {
            // Not the log's failure: a snapshot that could not be written is not marked.
            return Ok(());
        }
        let mark = SnapshotMark { meta, received, resets_log: received };
        let hard_state = advance(version, received);
        self.submit(Write { snapshot: Some(Box::new(mark)), ..write(0, hard_state) })
    }

    fn write_snapshot(&self, meta: &SnapshotMeta, received: bool) -> std::io::Result<()> {
        let dir = Path::new(DIR);
        let vfs = Arc::new(self.vfs.clone());
        let mut writer =
            SnapshotWriter::create(vfs, dir, options(0).cluster, meta).map_err(std::io::Error::other)?;
        writer.write_all(&[7; 40])?;
        writer.finish().map_err(std::io::Error::other)?;
        if received {
            // As a receiver leaves it: synced, under its temporary name.
            let received = dir.join(layout::snapshot_received(meta.last));
            self.vfs.rename(&dir.join(layout::snapshot(meta.last)), &received)?;
        }
        Ok(())
    }

    fn submit(&mut self, write: Write) -> Result<(), WalError> {
        let write = Write { id: WriteId(self.next_write), ..write };
        let Some(engine) = &mut self.engine else { return Err(WalError::Closed) };
        engine.append(&write)?;
        self.next_write += 1;
        self.witnessed = false;
        let version = self.model.tip().after(&write);
        self.model.versions.push(version);
        self.know(|known| known.submitted += 1);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WalError> {
        let Some(engine) = &mut self.engine else { return Err(WalError::Closed) };
        let durable = engine.flush()?;
        let submitted = self.next_write - 1;
        assert_eq!(durable.map_or(0, |id| id.0), submitted, "a flush left something behind");
        self.know(|known| known.acked = known.submitted);
        Ok(())
    }

    /// Changes what is known from the next change of the disk on.
    fn know(&mut self, change: impl FnOnce(&mut Known)) {
        let mut known = self.model.now();
        change(&mut known);
        if known != self.model.now() {
            self.model.known.push(known);
            self.vfs.note(self.model.known.len() as u64 - 1);
        }
    }
}

fn write(id: u64, hard_state: HardState) -> Write {
    Write { id: WriteId(id), hard_state, truncate_after: None, snapshot: None, entries: Entries::EMPTY }
}

/// A hard state that no version had before.
fn advance(version: &Version, new_term: bool) -> HardState {
    let HardState { term, vote, commit } = version.hard_state;
    if new_term || term == Term::ZERO {
        let term = term.next();
        let vote = (!term.0.is_multiple_of(3)).then_some(NodeId(term.0 % 5 + 1));
        HardState { term, vote, commit: commit.next() }
    } else {
        HardState { term, vote, commit: commit.next() }
    }
}

fn entries(last: LogIndex, hard_state: &HardState, count: u8, bytes: u16, seed: u64) -> Entries {
    (1..=u64::from(count))
        .map(|n| {
            let index = last.plus(n);
            let length = usize::from(bytes % 6000) + usize::try_from(n * 13 % 40).unwrap_or(0);
            let stamp = crc32fast::hash(
                &[seed, index.0, hard_state.term.0, hard_state.commit.0].map(u64::to_le_bytes).concat(),
            );
            let payload: Bytes =
                stamp.to_le_bytes().into_iter().cycle().take(length).collect::<Vec<u8>>().into();
            Entry {
                id: LogId { term: hard_state.term, index },
                time: Timestamp(index.0),
                session: index.0.is_multiple_of(2).then_some(SessionSeq { session: index.0, seq: n }),
                kind: if length == 0 { EntryKind::Noop } else { EntryKind::Command },
                checksum: Entry::checksum_of(&payload),
                payload,
            }
        })
        .collect()
}
