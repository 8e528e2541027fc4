//! Requests that wait for a leader to be known.

use std::collections::VecDeque;

use raft_core::{Instant, Proposal};

/// Commands and reads in the order they came in.
#[derive(Debug)]
pub(super) struct Waiting<W, R> {
    commands: VecDeque<Command<W>>,
    reads: VecDeque<(R, Instant)>,
}

type Command<W> = (Proposal, W, Instant);

impl<W, R> Default for Waiting<W, R> {
    fn default() -> Waiting<W, R> {
        Waiting { commands: VecDeque::new(), reads: VecDeque::new() }
    }
}

impl<W, R> Waiting<W, R> {
    pub(super) fn push_command(&mut self, proposal: Proposal, waiter: W, since: Instant) {
        // A command that was forwarded and sent back is older than those that came meanwhile: keep the order of age,
        // so that the oldest is in front.
        let place = self.commands.partition_point(|(_, _, other)| *other <= since);
        self.commands.insert(place, (proposal, waiter, since));
    }

    pub(super) fn push_read(&mut self, read: R, since: Instant) {
        let place = self.reads.partition_point(|(_, other)| *other <= since);
        self.reads.insert(place, (read, since));
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len() + self.reads.len()
    }

    /// How many of them are reads.
    pub(super) fn reads(&self) -> usize {
        self.reads.len()
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Since when the oldest has been waiting.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let command = self.commands.front().map(|(_, _, since)| *since);
        let read = self.reads.front().map(|(_, since)| *since);
        command.into_iter().chain(read).min()
    }

    /// Takes out everything.
    pub(super) fn take(&mut self) -> (Vec<Command<W>>, Vec<(R, Instant)>) {
        (self.commands.drain(..).collect(), self.reads.drain(..).collect())
    }

    /// Takes out whatever has waited too long.
    pub(super) fn expire(&mut self, too_long: impl Fn(Instant) -> bool) -> (Vec<W>, Vec<R>) {
        let commands = self.commands.partition_point(|(_, _, since)| too_long(*since));
        let reads = self.reads.partition_point(|(_, since)| too_long(*since));
        (
            self.commands.drain(..commands).map(|(_, waiter, _)| waiter).collect(),
            self.reads.drain(..reads).map(|(read, _)| read).collect(),
        )
    }
}
