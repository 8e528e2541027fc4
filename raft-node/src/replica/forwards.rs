//! Commands under way to another node, the leader as far as this one knew.

use std::collections::BTreeMap;

use raft_core::{Instant, NodeId, Proposal};

use super::waiting::Command;

/// What was sent and is not answered. The commands are kept: a leader may say that it is none.
///
/// Invariant: `to` counts the commands of each destination, and names none without any.
#[derive(Debug)]
pub(super) struct Forwards<W> {
    commands: BTreeMap<u64, (NodeId, Command<W>)>,
    to: BTreeMap<NodeId, usize>,
    next: u64,
}

impl<W> Default for Forwards<W> {
    fn default() -> Forwards<W> {
        Forwards { commands: BTreeMap::new(), to: BTreeMap::new(), next: 1 }
    }
}

impl<W> Forwards<W> {
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether any is under way to somebody other than `leader`.
    pub(super) fn any_elsewhere(&self, leader: Option<NodeId>) -> bool {
        self.to.keys().any(|to| Some(*to) != leader)
    }

    /// Adds a command for `to`; returns the number of the request and what to send.
    pub(super) fn add(&mut self, to: NodeId, command: Command<W>) -> (u64, Proposal) {
        let (request, proposal) = (self.next, command.proposal.clone());
        self.next += 1;
        *self.to.entry(to).or_default() += 1;
        self.commands.insert(request, (to, command));
        (request, proposal)
    }

    /// Whom the request was sent to.
    pub(super) fn destination(&self, request: u64) -> Option<NodeId> {
        self.commands.get(&request).map(|(to, _)| *to)
    }

    /// Takes a command out.
    pub(super) fn remove(&mut self, request: u64) -> Option<Command<W>> {
        let (to, command) = self.commands.remove(&request)?;
        if let Some(count) = self.to.get_mut(&to) {
            *count -= 1;
            if *count == 0 {
                self.to.remove(&to);
            }
        }
        Some(command)
    }

    /// Takes out whatever was sent to one of these.
    pub(super) fn remove_to(&mut self, lost: impl Fn(NodeId) -> bool) -> Vec<Command<W>> {
        let lost: Vec<u64> =
            self.commands.iter().filter(|(_, (to, _))| lost(*to)).map(|(request, _)| *request).collect();
        lost.into_iter().filter_map(|request| self.remove(request)).collect()
    }

    /// Since when the first has been waiting.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.commands.values().next().map(|(_, command)| command.since)
    }

    /// Takes out the first.
    pub(super) fn pop_oldest(&mut self) -> Option<Command<W>> {
        let request = *self.commands.keys().next()?;
        self.remove(request)
    }
}
