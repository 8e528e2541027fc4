//! A state machine and the place in the log it stands at: what applying, viewing and restoring do to both.
//!
//! Its owner, a task or a simulation, decides when; nothing here waits or runs beside anything else.

use bytes::Bytes;
use raft_core::{ConfState, Entry, EntryKind, LogIndex, SnapshotMeta};

use crate::{
    error::NodeError,
    snapshot_store::SnapshotStore,
    state_machine::{Command, SnapshotView, StateMachine},
};

/// See the module.
///
/// Invariant: `position` is what a view taken now stands for.
#[derive(Debug)]
pub struct Machine<S> {
    state: S,
    position: SnapshotMeta,
}

impl<S: StateMachine> Machine<S> {
    /// A state machine that stands at `position`.
    pub fn new(state: S, position: SnapshotMeta) -> Machine<S> {
        Machine { state, position }
    }

    /// The state, to read.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Where it stands.
    pub fn position(&self) -> &SnapshotMeta {
        &self.position
    }

    /// Applies committed entries and gives each waiter the reply of its entry. `waiters` name entries by position, in
    /// ascending order; only commands have replies.
    pub fn apply<W>(&mut self, entries: &[Entry], waiters: Vec<(usize, W)>) -> Vec<(W, Bytes)> {
        let Some(last) = entries.last() else { return Vec::new() };
        let commands: Vec<Command> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Command)
            .map(|entry| Command {
                index: entry.id.index,
                time: entry.time,
                session: entry.session,
                payload: entry.payload.clone(),
            })
            .collect();
        let replies = self.state.apply(&commands);
        assert_eq!(replies.len(), commands.len(), "a state machine gives one reply to each command");
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
            // The core has refused what cannot be decoded before it was committed.
            if let Ok(conf) = ConfState::decode(&entry.payload) {
                self.position.conf = conf;
                self.position.conf_id = entry.id;
            }
        }
        self.position.last = last.id;
        self.position.time = last.time;
        pair(entries, waiters, replies)
    }

    /// A view of the state and what it stands for; `None` before the first entry.
    pub fn view(&self) -> Option<(SnapshotMeta, Box<dyn SnapshotView>)> {
        (self.position.last.index > LogIndex::ZERO).then(|| (self.position.clone(), self.state.view()))
    }

    /// Replaces the state by the snapshot `meta` and returns the file's length in bytes. Blocks.
    ///
    /// # Errors
    /// The file cannot be used. The state must not be used any more either.
    pub fn restore(&mut self, store: &SnapshotStore, meta: SnapshotMeta) -> Result<u64, NodeError> {
        let bytes = store.restore(&meta, &mut self.state)?;
        self.position = meta;
        Ok(bytes)
    }
}

/// Only commands have replies, so positions are counted along.
fn pair<W>(entries: &[Entry], waiters: Vec<(usize, W)>, replies: Vec<Bytes>) -> Vec<(W, Bytes)> {
    let mut answers = Vec::with_capacity(waiters.len());
    let mut waiters = waiters.into_iter().peekable();
    let commands = entries.iter().enumerate().filter(|(_, entry)| entry.kind == EntryKind::Command);
    for ((position, _), reply) in commands.zip(replies) {
        if let Some((_, waiter)) = waiters.next_if(|(at, _)| *at == position) {
            answers.push((waiter, reply));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use raft_core::{LogId, Timestamp};

    use super::*;
    use crate::kv::{Kv, request};

    fn entry(index: u64, kind: EntryKind, payload: Bytes) -> Entry {
        let checksum = Entry::checksum_of(&payload);
        Entry { id: LogId::new(1, index), time: Timestamp(index), session: None, kind, checksum, payload }
    }

    #[test]
    fn each_waiter_gets_the_reply_of_its_entry_and_nobody_that_of_a_noop() {
        let mut machine = Machine::new(Kv::new(), SnapshotMeta::default());
        assert!(machine.view().is_none(), "a snapshot of nothing stands for nothing");
        let incr = |index| entry(index, EntryKind::Command, request::encode_command(&["INCR", "k"]));
        let entries = [incr(1), entry(2, EntryKind::Noop, Bytes::new()), incr(3), incr(4)];
        let answers = machine.apply(&entries, vec![(0, "first"), (3, "last")]);
        assert_eq!(answers, [("first", Bytes::from(":1\r\n")), ("last", Bytes::from(":3\r\n"))]);
        assert_eq!(machine.position().last, LogId::new(1, 4));
        assert_eq!(machine.view().map(|(meta, _)| meta.last), Some(LogId::new(1, 4)));
    }
}
