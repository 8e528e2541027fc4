//! Commands under way to another node, the leader as far as this one knew.

use std::collections::BTreeMap;

use raft_core::{Instant, NodeId};

use super::{effects::Forward, waiting::Command};

/// What was sent and is not answered. The commands are kept: a leader may say that it is none.
///
/// Invariant: `to` counts the commands of each destination, and names none without any.
/// Invariant: `refused` only while there are commands.
#[derive(Debug)]
pub(super) struct Forwards<W> {
    commands: BTreeMap<u64, (NodeId, Command<W>)>,
    to: BTreeMap<NodeId, usize>,
    /// One of those that were under way together came back: the others will, too, and none may be sent before they have.
    refused: bool,
    next: u64,
}

impl<W> Default for Forwards<W> {
    fn default() -> Forwards<W> {
        Forwards { commands: BTreeMap::new(), to: BTreeMap::new(), refused: false, next: 1 }
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

    /// Adds a command for `to`; returns what to send.
    pub(super) fn add(&mut self, to: NodeId, command: Command<W>) -> Forward {
        let (request, proposal, first) = (self.next, command.proposal.clone(), self.commands.is_empty());
        self.next += 1;
        *self.to.entry(to).or_default() += 1;
        self.commands.insert(request, (to, command));
        Forward { to, request, proposal, first }
    }

    /// A command came back.
    pub(super) fn came_back(&mut self) {
        self.refused = !self.commands.is_empty();
    }

    /// Whether commands that came back wait for others that will.
    pub(super) fn are_coming_back(&self) -> bool {
        self.refused
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
        self.refused &= !self.commands.is_empty();
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
