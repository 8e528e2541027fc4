//! What clients ask of the nodes, and of which one.

use super::{
    Sim,
    clock::Event,
    coverage::Mark,
    disk,
    network::id,
    rules::{Checked, Violation},
};
use crate::{ProposeError, RoleKind};

impl Sim {
    pub(super) fn client(&mut self) -> Checked {
        let every = self.storm.client_every;
        let next = if self.storms { self.random.between(every / 2, every * 2) } else { every };
        self.agenda.plan_in(next, Event::Client);
        let n = self.some_node();
        if !self.is_up(n) || self.nodes[n].paused_until > self.agenda.now() {
            return Ok(());
        }
        if !self.storms {
            self.propose(n, 0)?;
            return Ok(());
        }
        if self.random.chance(self.storm.changes) {
            return self.reconfigure();
        }
        match self.random.below(20) {
            0..=11 => {
                for _ in 0..self.random.between(1, 4) {
                    let padding = if self.random.chance(50) { 700 } else { self.random.below(40) };
                    self.propose(n, padding)?;
                }
                Ok(())
            }
            12..=17 => self.read(n),
            _ => {
                self.take_snapshot(n);
                Ok(())
            }
        }
    }

    /// Often the leader, or who takes itself for it.
    pub(super) fn some_node(&mut self) -> usize {
        if self.random.chance(700) {
            let leads = |n: &usize| self.ghost.members[*n].role == RoleKind::Leader;
            let leaders = (0..self.nodes.len()).filter(leads).count();
            let chosen = self.random.index(leaders);
            let leads = |n: &usize| self.ghost.members[*n].role == RoleKind::Leader;
            if let Some(leader) = (0..self.nodes.len()).filter(leads).nth(chosen) {
                return leader;
            }
        }
        self.random.index(self.nodes.len())
    }

    pub(super) fn propose(&mut self, n: usize, padding: u64) -> Result<Option<usize>, Violation> {
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &mut self.nodes[n].core else { return Ok(None) };
        let (command, proposal) = self.workload.command(disk::count(padding));
        match core.propose(now, proposal) {
            Ok(at) => {
                self.trace.line(self.agenda.now(), || format!("{} takes command {command} at {at}", id(n)));
                self.workload.taken(n, command, at);
                self.after_input(n)?;
                Ok(Some(command))
            }
            Err(error) => {
                self.workload.refused(command);
                match error {
                    ProposeError::Busy => self.coverage.hit(Mark::ProposalBusy),
                    ProposeError::NotLeader { .. } => self.coverage.hit(Mark::ProposalNotLeader),
                    ProposeError::Transferring { .. } => self.coverage.hit(Mark::ProposalDuringTransfer),
                    ProposeError::Halted => {}
                }
                Ok(None)
            }
        }
    }

    pub(super) fn read(&mut self, n: usize) -> Checked {
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let floor = self.ghost.commit();
        let token = self.workload.read(n, floor, self.agenda.now());
        let leased = core.lease_until().is_some_and(|until| now.instant < until);
        if leased {
            self.coverage.hit(Mark::ReadUnderLease);
        }
        if core.read(now, token).is_err() {
            self.workload.read_refused(token);
            return Ok(());
        }
        let member = &self.ghost.members[n];
        if member.role == RoleKind::Leader
            && member.commit < floor
            && self.ghost.latest_leader().is_some_and(|(term, _)| term > member.term)
        {
            self.coverage.hit(Mark::ReadAtDeposedLeader);
        }
        self.trace.line(self.agenda.now(), || format!("{} reads, committed is {floor}", id(n)));
        self.after_input(n)
    }
}
