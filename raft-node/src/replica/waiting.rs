//! Requests that wait for a leader to be known.

use std::collections::VecDeque;

use raft_core::{Instant, Proposal};

/// Commands and reads in the order they came in.
#[derive(Debug)]
pub(super) struct Waiting<W, R> {
    commands: VecDeque<Command<W>>,
    reads: VecDeque<(R, Instant)>,
}

/// A client's command that this node has not got rid of.
#[derive(Debug)]
pub(super) struct Command<W> {
    pub(super) proposal: Proposal,
    pub(super) waiter: W,
    /// When it came in: bounds the search for a leader.
    pub(super) since: Instant,
    /// Which one it is of all that came in: they keep this order.
    pub(super) order: u64,
}

impl<W, R> Default for Waiting<W, R> {
    fn default() -> Waiting<W, R> {
        Waiting { commands: VecDeque::new(), reads: VecDeque::new() }
    }
}

impl<W, R> Waiting<W, R> {
    /// Adds a command at its place: one that was forwarded and sent back is older than those that came meanwhile.
    pub(super) fn push_command(&mut self, command: Command<W>) {
        let place = self.commands.partition_point(|other| other.order < command.order);
        self.commands.insert(place, command);
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
        let command = self.commands.front().map(|command| command.since);
        let read = self.reads.front().map(|(_, since)| *since);
        command.into_iter().chain(read).min()
    }

    pub(super) fn take_commands(&mut self) -> Vec<Command<W>> {
        self.commands.drain(..).collect()
    }

    pub(super) fn take_reads(&mut self) -> Vec<(R, Instant)> {
        self.reads.drain(..).collect()
    }

    /// Takes out whatever has waited too long.
    pub(super) fn expire(&mut self, too_long: impl Fn(Instant) -> bool) -> (Vec<W>, Vec<R>) {
        let commands = self.commands.partition_point(|command| too_long(command.since));
        let reads = self.reads.partition_point(|(_, since)| too_long(*since));
        (
            self.commands.drain(..commands).map(|command| command.waiter).collect(),
            self.reads.drain(..reads).map(|(read, _)| read).collect(),
        )
    }
}
