//! The operators: they change the membership at random in storms, and replace what lost its disk.

use super::{
    Sim,
    confs::has_majorities,
    coverage::Mark,
    disk::Disk,
    network::{id, place},
    rules::Checked,
};
use crate::{
    ChangeError, ConfChange, ConfState, Incarnation, LEASE_TIMEOUT_MS_MAX, Lease, LogId, LogIndex, Member,
    NodeId, RoleKind,
};

impl Sim {
    /// Somebody asks a node, often the leader, for another membership.
    pub(super) fn reconfigure(&mut self) -> Checked {
        let n = self.some_node();
        if !self.is_up(n) || self.nodes[n].paused_until > self.agenda.now() {
            return Ok(());
        }
        if self.random.chance(150) {
            return self.switch_leases(n);
        }
        let Some(core) = &self.nodes[n].core else { return Ok(()) };
        let conf = core.conf().clone();
        let change = match self.lost_member(&conf) {
            Some(lost) => self.replacement(&conf, lost),
            None => self.random_change(&conf),
        };
        self.change(n, &change)
    }

    /// Leases for a whole cluster. What is declared of the clocks is true.
    pub(super) fn lease(&mut self) -> Lease {
        let most =
            u32::try_from(self.config.election_timeout_min_ms).unwrap_or(u32::MAX).min(LEASE_TIMEOUT_MS_MAX);
        let timeout_ms = if self.random.chance(700) { most } else { most / 2 };
        Lease { timeout_ms, drift_ppm: u32::try_from(self.drift).unwrap_or_default() }
    }

    fn switch_leases(&mut self, n: usize) -> Checked {
        let now = self.nodes[n].clock.now(self.agenda.now());
        let lease = if self.random.chance(600) { Some(self.lease()) } else { None };
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let outcome = core.set_lease(now, lease);
        self.trace.line(self.agenda.now(), || format!("{} is asked for {lease:?}: {outcome:?}", id(n)));
        if outcome.is_ok() {
            self.coverage.hit(if lease.is_some() { Mark::LeaseSwitchedOn } else { Mark::LeaseSwitchedOff });
        }
        self.after_input(n)
    }

    /// R3: nobody is elected in a later term while another node may take itself for the only leader, by its own clock.
    pub(super) fn r3_no_lease_is_overtaken(&self, elected: usize) -> Checked {
        let term = self.ghost.members[elected].term;
        for (n, node) in self.nodes.iter().enumerate().filter(|(n, _)| *n != elected) {
            if let Some(core) = &node.core {
                let now = node.clock.now(self.agenda.now()).instant;
                super::rules::r3_lease_is_over(
                    id(elected),
                    term,
                    id(n),
                    core.term(),
                    core.lease_until(),
                    now,
                )?;
            }
        }
        Ok(())
    }

    /// A node loses its disk and comes back with an empty directory, unless too few others are left.
    pub(super) fn wipe(&mut self, n: usize) {
        if !self.can_spare(n) {
            return;
        }
        self.coverage.hit(Mark::DiskWiped);
        if self.is_up(n) {
            self.crash(n, true);
        }
        self.incarnations += 1;
        let incarnation = Incarnation(self.incarnations);
        self.trace.line(self.agenda.now(), || format!("*** {} comes back as {incarnation}", id(n)));
        // What was said to or by the old directory is not said again for the new one.
        self.nodes[n].answers.clear();
        for node in &mut self.nodes {
            node.answers.retain(|message| message.from != id(n));
        }
        self.disks[n].replace(Disk::founded(self.founding.clone(), incarnation));
        // What the old directory's process was last, nobody is any more.
        self.ghost.starts(n, &self.disks[n].durable, incarnation);
        self.nodes[n].machine = super::node::StateMachine::default();
    }

    /// Whether every configuration that may be in force has its majorities without this node: of members whose disks are
    /// neither lost nor damaged.
    pub(super) fn can_spare(&self, n: usize) -> bool {
        let latest = self.ghost.conf().0.index;
        let confs = self.ghost.members.iter().map(|member| member.log.conf());
        let in_force = confs.filter(|(id, _)| id.index >= latest).map(|(_, conf)| conf);
        in_force.chain([&self.ghost.conf().1]).all(|conf| {
            has_majorities(conf, |voter| {
                let whole = self.disks[place(voter)].durable.promised().is_none();
                place(voter) != n && whole && !is_lost(conf, voter, &self.disks)
            })
        })
    }

    /// Whether the membership is the one the cluster was founded with, and nobody asked for another.
    pub(super) fn is_as_founded(&self) -> bool {
        let untouched = |member: &super::rules::Member| member.log.conf().0 == LogId::ZERO;
        self.ghost.members.iter().all(untouched)
            && self.founding.voters.len() == self.nodes.len()
            && self.is_whole(&self.founding)
    }

    /// Faults have stopped: who lost its disk is replaced, so that all can recover.
    pub(super) fn mend_membership(&mut self) -> Checked {
        let Some((_, leader)) = self.ghost.latest_leader() else { return Ok(()) };
        let n = place(leader);
        let Some(core) = self.nodes[n].core.as_ref().filter(|core| core.role() == RoleKind::Leader) else {
            return Ok(());
        };
        let conf = core.conf().clone();
        match self.lost_member(&conf) {
            Some(lost) if !conf.is_joint() => {
                let change = self.replacement(&conf, lost);
                self.change(n, &change)
            }
            _ => Ok(()),
        }
    }

    /// Whether every member of this configuration still has the directory that is named there.
    pub(super) fn is_whole(&self, conf: &ConfState) -> bool {
        self.lost_member(conf).is_none()
    }

    fn lost_member(&self, conf: &ConfState) -> Option<NodeId> {
        conf.members.keys().copied().find(|id| is_lost(conf, *id, &self.disks))
    }

    fn replacement(&self, conf: &ConfState, lost: NodeId) -> ConfChange {
        let mut change = ConfChange::of(conf);
        change.voters.retain(|id| *id != lost);
        change.learners.retain(|id| *id != lost);
        change.learners.push(lost);
        change.members.push((lost, self.member(lost)));
        change
    }

    fn member(&self, id: NodeId) -> Member {
        Member { incarnation: self.disks[place(id)].incarnation, address: String::new() }
    }

    /// An operator changes her mind about who is to lead.
    pub(super) fn demote(&mut self, n: usize, target: NodeId) -> Checked {
        let Some(core) = self.nodes[n].core.as_ref().filter(|core| self.is_whole(core.conf())) else {
            return Ok(());
        };
        let mut change = ConfChange::of(core.conf());
        change.voters.retain(|id| *id != target);
        change.learners.push(target);
        self.change(n, &change)
    }

    /// One or several members change their part at once; now and then all of them; now and then it makes no sense.
    fn random_change(&mut self, conf: &ConfState) -> ConfChange {
        let mut change = ConfChange::of(conf);
        let anew = self.random.chance(150);
        for n in 0..self.nodes.len() {
            let node = id(n);
            if !anew && !self.random.chance(300) {
                continue;
            }
            let was_voter = change.voters.contains(&node);
            change.voters.retain(|id| *id != node);
            change.learners.retain(|id| *id != node);
            match self.random.below(if anew || was_voter { 4 } else { 6 }) {
                0 => {}
                1 => change.learners.push(node),
                _ => change.voters.push(node),
            }
        }
        let named = change.voters.iter().chain(&change.learners).copied();
        let new: Vec<NodeId> = named.filter(|id| !conf.members.contains_key(id)).collect();
        change.members = new.into_iter().map(|id| (id, self.member(id))).collect();
        // Strangers begin as learners, most of the time.
        change.force = self.random.chance(150);
        if !change.force && !self.random.chance(100) {
            let (members, strangers): (Vec<NodeId>, Vec<NodeId>) =
                change.voters.iter().partition(|id| conf.members.contains_key(id));
            change.voters = members;
            change.learners.extend(strangers);
        }
        if self.random.chance(20) {
            change.voters.clear();
        }
        change
    }

    fn change(&mut self, n: usize, change: &ConfChange) -> Checked {
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let last = core.last();
        let outcome = core.change_membership(now, change);
        self.trace.line(self.agenda.now(), || format!("{} is asked for {change:?}: {outcome:?}", id(n)));
        match outcome {
            Ok(_) => self.coverage.hit(Mark::ChangeTaken),
            Err(ChangeError::InProgress) => self.coverage.hit(Mark::ChangeInProgress),
            Err(ChangeError::NotReady) => self.coverage.hit(Mark::ChangeNotReady),
            Err(ChangeError::TooFarBehind { matched, .. }) => {
                super::rules::check(matched < last.index, "M8", || format!("{} refused {change:?}", id(n)))?;
                self.coverage.hit(Mark::PromotionRefused);
            }
            Err(ChangeError::Conf(_)) => self.coverage.hit(Mark::ImpossibleChangeRefused),
            Err(
                ChangeError::NotLeader { .. }
                | ChangeError::Transferring { .. }
                | ChangeError::Unchanged
                | ChangeError::Duplicate { .. }
                | ChangeError::Unknown { .. }
                | ChangeError::NotALearner { .. }
                | ChangeError::ReplaceAlone { .. }
                | ChangeError::LeaseTooLong { .. }
                | ChangeError::Halted,
            ) => {}
        }
        self.after_input(n)
    }

    /// Whether the configuration at the index of a node's applied state still is what was committed (V3).
    pub(super) fn has_settled(&self) -> bool {
        let (conf_id, conf) = self.ghost.conf();
        !conf.is_joint()
            && self.is_whole(conf)
            && conf.members.keys().all(|member| {
                let log = &self.ghost.members[place(*member)].log;
                log.conf().0 == *conf_id && log.last().index > LogIndex::ZERO
            })
    }
}

/// Whether the member's data directory is another one than this configuration names.
fn is_lost(conf: &ConfState, id: NodeId, disks: &[Disk]) -> bool {
    let named = conf.members.get(&id).map(|member| member.incarnation);
    named.is_some_and(|named| named.is_other(disks[place(id)].incarnation))
}
