//! Faults that are started on purpose, one at a time.

use super::{
    Sim,
    clock::{Event, MILLI},
    coverage::Mark,
    disk::Disk,
    network::{id, place},
    node::place8,
    rules::Checked,
    schedule::{Fault, Phase},
};
use crate::{Body, Message, RoleKind};

impl Sim {
    pub(super) fn fault(&mut self) -> Checked {
        let Phase::Storm { until } = self.phase else { return Ok(()) };
        let pause = self.random.between(self.storm.fault_every / 4, self.storm.fault_every * 2);
        if self.agenda.now() + pause < until {
            self.agenda.plan_in(pause, Event::Fault);
        }
        if self.storm.faults.is_empty() {
            return Ok(());
        }
        let fault = self.storm.faults[self.random.index(self.storm.faults.len())];
        let nodes = self.nodes.len();
        let n = self.random.index(nodes);
        let other = (n + 1 + self.random.index(nodes - 1)) % nodes;
        let now = self.agenda.now();
        self.trace.line(now, || format!("*** {fault:?} {} {}", id(n), id(other)));
        match fault {
            Fault::OneWayCut => {
                self.network.set_cut(n, other, true);
                if !self.network.is_cut(other, n) {
                    self.coverage.hit(Mark::OneWayCut);
                }
            }
            Fault::Partition => {
                self.coverage.hit(Mark::Partition);
                let side = self.random.next();
                for from in 0..nodes {
                    for to in 0..nodes {
                        self.network.set_cut(from, to, (side >> from ^ side >> to) & 1 == 1);
                    }
                }
            }
            Fault::Isolate => {
                self.coverage.hit(Mark::Isolation);
                let n = self.some_node();
                for peer in 0..nodes {
                    self.network.set_cut(n, peer, true);
                    self.network.set_cut(peer, n, true);
                }
            }
            Fault::SlowLink => {
                self.coverage.hit(Mark::SlowLink);
                self.network.set_slow(n, other);
            }
            Fault::MendLinks => self.network.heal(),
            Fault::CrashProcess | Fault::CrashMachine => {
                if self.is_up(n) {
                    self.crash(n, fault == Fault::CrashMachine);
                }
            }
            Fault::CrashLeader => {
                let n = self.some_node();
                if self.is_up(n) {
                    let power_lost = self.random.chance(500);
                    self.crash(n, power_lost);
                }
            }
            Fault::CrashAll => {
                self.coverage.hit(Mark::AllCrashed);
                for n in 0..nodes {
                    if self.is_up(n) {
                        self.crash(n, true);
                    }
                }
            }
            Fault::PowerCutWhileDown => {
                if self.is_up(n) {
                    self.crash(n, false);
                }
                if self.disks[n].has_cached() {
                    self.coverage.hit(Mark::PowerCutWhileDown);
                }
                self.disks[n].crash_machine(&mut self.random, &mut self.coverage);
            }
            Fault::StallDisk => {
                self.coverage.hit(Mark::DiskStalled);
                if self.random.chance(300) {
                    return self.strand();
                }
                self.disks[n].stalled_until = now + self.random.between(50 * MILLI, 3000 * MILLI);
            }
            Fault::DamageLog => self.damage_log(n),
            Fault::FailDisk => self.nodes[n].sync_fails = true,
            Fault::Pause => {
                self.coverage.hit(Mark::Paused);
                let n = if self.random.chance(500) { self.some_node() } else { n };
                let until = now + self.random.between(5 * MILLI, 2000 * MILLI);
                self.nodes[n].paused_until = until;
                self.agenda.plan(until, Event::Question(place8(n), self.nodes[n].run));
            }
            Fault::JumpWallClock => {
                self.coverage.hit(Mark::WallClockJump);
                self.nodes[n].clock.wall = self.random.below(1 << 42);
            }
            Fault::Transfer => self.hand_over(n)?,
            Fault::LoseDisk => {
                if self.random.chance(250) {
                    self.wipe(n);
                }
            }
            Fault::AbsurdTerm => {
                self.deliver_absurd(n, other)?;
                self.deliver_strange(other)?;
            }
            Fault::PeerNews => {
                let died = self.random.chance(500);
                // One node hears it, or everybody else.
                let all = self.random.chance(300);
                for n in (0..nodes).filter(|node| *node == n || (all && *node != other)) {
                    if self.is_up(n) && self.nodes[n].paused_until <= now {
                        self.peer_news(n, id(other), died)?;
                    }
                }
            }
            Fault::Overthrow => self.overthrow()?,
        }
        Ok(())
    }

    /// A leader that nobody hears takes commands while its disk hangs, and is found by its successor before they are
    /// written: what hangs there is cut first, and ends write by write (L7).
    fn strand(&mut self) -> Checked {
        let n = self.some_node();
        let now = self.agenda.now();
        self.network.heal();
        self.cut_off(n, true, true);
        self.storm.small_syncs = self.storm.small_syncs.max(500);
        self.disks[n].stalled_until = now + self.random.between(1000 * MILLI, 3000 * MILLI);
        self.agenda.plan_in(self.random.between(200 * MILLI, 1000 * MILLI), Event::Mend);
        if self.is_up(n) && self.nodes[n].paused_until <= now {
            for _ in 0..self.random.between(2, 6) {
                self.propose(n, 0)?;
            }
        }
        Ok(())
    }

    /// A leader that holds a lease hears nothing, or nothing in time, while the others have a reason to elect another.
    fn overthrow(&mut self) -> Checked {
        self.network.heal();
        let Some((_, leader)) = self.ghost.latest_leader() else { return Ok(()) };
        let n = place(leader);
        let now = self.nodes[n].clock.now(self.agenda.now()).instant;
        let until = self.nodes[n].core.as_ref().and_then(crate::Raft::lease_until);
        if until.is_none_or(|until| until <= now) {
            return Ok(());
        }
        self.coverage.hit(Mark::LeaseAttacked);
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != n).collect();
        match self.random.below(5) {
            // They only fall silent for each other.
            0 => self.cut_off(n, true, true),
            1 => {
                self.cut_off(n, true, true);
                for other in others.into_iter().filter(|other| self.is_up(*other)).collect::<Vec<_>>() {
                    self.peer_news(other, leader, true)?;
                }
            }
            2 => {
                self.cut_off(n, true, true);
                for other in others.into_iter().filter(|other| self.is_up(*other)).collect::<Vec<_>>() {
                    self.crash(other, false);
                }
            }
            // Its word to campaign arrives, nothing comes back.
            3 => {
                let to = others[self.random.index(others.len())];
                let now = self.nodes[n].clock.now(self.agenda.now());
                if let Some(core) = &mut self.nodes[n].core
                    && core.transfer_leadership(now, id(to)).is_ok()
                {
                    self.coverage.hit(Mark::TransferStarted);
                    self.cut_off(n, false, true);
                    self.after_input(n)?;
                }
            }
            // It speaks no more, and the answers to what it said come late.
            _ => {
                for other in others {
                    self.network.set_slow(other, n);
                }
                let term = self.ghost.members[n].term;
                self.agenda.plan_in(self.random.between(30, 100) * MILLI, Event::Silence(place8(n), term));
            }
        }
        Ok(())
    }

    /// A leader's words do not arrive any more.
    pub(super) fn silence(&mut self, n: usize, term: crate::Term) -> Checked {
        if self.ghost.members[n].term == term && matches!(self.phase, Phase::Storm { .. }) {
            self.cut_off(n, true, false);
        }
        Ok(())
    }

    fn cut_off(&mut self, n: usize, from: bool, to: bool) {
        for other in 0..self.nodes.len() {
            self.network.set_cut(n, other, from);
            self.network.set_cut(other, n, to);
        }
    }

    /// Entries that were acknowledged are lost. Never so many that what is committed might be on no disk (D1): either a
    /// majority stays whole, or one whole log reaches as far as all the promises.
    fn damage_log(&mut self, n: usize) {
        let whole = |disk: &Disk| disk.durable.promised().is_none();
        let promised = self.disks.iter().map(|disk| disk.durable.bound()).max();
        let others = || self.disks.iter().enumerate().filter(|(other, disk)| *other != n && whole(disk));
        let majority = self.can_spare(n);
        if !majority && !self.is_as_founded() {
            return;
        }
        if !majority && !others().any(|(_, disk)| Some(disk.durable.log.last()) == promised) {
            return;
        }
        if self.is_up(n) {
            self.crash(n, true);
        }
        if self.disks[n].damage(id(n), &mut self.random) {
            self.coverage.hit(Mark::LogDamaged);
            if !majority {
                self.coverage.hit(Mark::ManyDamaged);
            }
            let (now, disk) = (self.agenda.now(), &self.disks[n].durable);
            self.trace
                .line(now, || format!("*** {} lost {:?} behind {}", id(n), disk.promised(), disk.log.last()));
        }
    }

    /// The leader is asked to hand over; or it tells a follower to campaign at once, ready for it or not (dissertation
    /// 3.10).
    pub(super) fn hand_over(&mut self, to: usize) -> Checked {
        let Some((term, leader)) = self.ghost.latest_leader() else { return Ok(()) };
        let n = place(leader);
        let member = &self.ghost.members[n];
        let now = self.agenda.now();
        if n == to
            || member.role != RoleKind::Leader
            || member.term != term
            || self.nodes[n].paused_until > now
        {
            return Ok(());
        }
        let leases = self.ghost.members.iter().any(|member| member.log.conf().1.lease.is_some());
        // Where leases are on, the word to campaign costs the leader its own: nobody else may say it.
        if leases || self.random.chance(500) {
            let now = self.nodes[n].clock.now(now);
            let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
            if core.transfer_leadership(now, id(to)).is_ok() {
                self.coverage.hit(Mark::TransferStarted);
                self.after_input(n)?;
                if self.random.chance(200) {
                    return self.demote(n, id(to));
                }
            }
            return self.after_input(n);
        }
        self.coverage.hit(Mark::CampaignForced);
        let message = Message { from: leader, to: id(to), term, body: Body::TimeoutNow };
        let directories = (self.disks[n].incarnation, self.disks[to].incarnation);
        self.network.send(message, None, directories, &mut self.agenda, &mut self.random, &mut self.coverage);
        Ok(())
    }
}
