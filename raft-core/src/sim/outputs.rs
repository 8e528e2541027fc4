//! What a core hands out, carried out effect by effect. A crash may come between any two.

use std::sync::Arc;

use super::{
    Sim,
    clock::{Event, MILLI},
    confs::InForce,
    coverage::Mark,
    disk::Stored,
    network::{id, place},
    node::place8,
    rules::{Checked, answered, check, m2_conf_in_force, snapshot_hash},
    trace,
};
use crate::{Body, LogIndex, Message, Raft, Ready, RoleKind};

impl Sim {
    pub(super) fn drain(&mut self, n: usize) -> Checked {
        if self.ghost.members[n].inputs > 1 {
            self.coverage.hit(Mark::InputsBatched);
        }
        let run = self.nodes[n].run;
        let ready = self.nodes[n].core.as_mut().and_then(Raft::take_ready);
        if let Some(Err(broken)) = self.nodes[n].core.as_ref().map(Raft::check) {
            return check(false, "INVARIANT", || format!("{}: {broken}", id(n)));
        }
        if let Some((rule, asker)) = self.nodes[n].owes.take() {
            let term = self.ghost.members[n].term;
            // News of this very moment may not have reached it.
            if self.ghost.is_settled(n, self.disks[n].durable.hard_state)
                && self.nodes[n].told < self.agenda.now()
            {
                let messages = ready.as_ref().map_or(&[][..], |ready| &ready.messages);
                answered(rule, id(n), asker, term, messages)?;
            }
        }
        match ready {
            Some(ready) => self.carry_out(n, ready)?,
            None => self.ghost.members[n].inputs = 0,
        }
        if self.is_current(n, run) {
            self.arm(n);
        }
        Ok(())
    }

    /// Carries out one output, effect by effect.
    fn carry_out(&mut self, n: usize, ready: Ready) -> Checked {
        let now = self.agenda.now();
        for event in &ready.events {
            self.trace.line(now, || format!("{} ! {event:?}", id(n)));
        }
        if let Some(write) = &ready.write {
            self.trace.line(now, || format!("{} > {}", id(n), trace::write(write)));
        }
        if let Some(write) = &ready.write {
            let handed = self.nodes[n].clock.now(now).instant;
            self.nodes[n].writes.push_back((write.id, handed));
            self.nodes[n].issued = write.id;
        }
        let mark = ready.write.as_ref().and_then(|write| write.snapshot.as_ref());
        let snapshot = mark.and_then(|mark| {
            self.nodes[n].files.iter().find(|file| file.meta.last == mark.meta.last).cloned()
        });
        let hash = snapshot.as_ref().map(|snapshot| snapshot.hash);
        let before = self.ghost.members[n].log.conf().clone();
        self.ghost.hands_out(n, &ready, hash, &self.disks[n].durable, &mut self.coverage)?;
        if let Some(core) = &self.nodes[n].core {
            let log = self.ghost.members[n].log.conf();
            if core.conf_id() != log.0 || self.nodes[n].conf.0 != log.0 {
                m2_conf_in_force(id(n), &(core.conf_id(), Arc::new(core.conf().clone())), log)?;
                self.nodes[n].conf = log.clone();
            }
        }
        if ready.events.iter().any(|event| matches!(event, crate::Event::Removed { .. })) {
            // Nobody there will ever tell what became of what waits.
            self.coverage.hit(Mark::RemovedHeard);
            self.workload.restored(n, LogIndex(u64::MAX), &mut self.coverage);
        }
        let under_lease = self.nodes[n].conf.1.lease.is_some();
        if under_lease && ready.messages.iter().any(|message| matches!(message.body, Body::TimeoutNow)) {
            self.coverage.hit(Mark::TransferUnderLease);
        }
        let Ready { messages, write, apply, reads, fetches, compact, events: _ } = ready;
        let write = write.map(|write| Stored { write, snapshot });
        debug_assert_eq!(write.as_ref().and_then(snapshot_hash), hash);

        // Any order is allowed; the crash, if one comes, falls between any two effects.
        let effects =
            messages.len() + usize::from(write.is_some()) + apply.len() + reads.len() + fetches.len();
        let mut left = usize::MAX;
        if self.random.chance(self.storm.interruption) {
            left = self.random.index(effects + 1);
            if left > 0 && left < effects {
                self.coverage.hit(Mark::CrashBetweenEffects);
            }
        }
        let before_write = if self.storms { self.random.index(messages.len() + 1) } else { messages.len() };
        let mut write = write;
        for (number, message) in messages.into_iter().enumerate() {
            if number == before_write
                && let Some(write) = write.take()
            {
                if interrupted(&mut left) {
                    return self.interrupt(n);
                }
                self.write(n, write);
            }
            if interrupted(&mut left) {
                return self.interrupt(n);
            }
            self.send(n, message, &before)?;
        }
        if let Some(write) = write {
            if interrupted(&mut left) {
                return self.interrupt(n);
            }
            self.write(n, write);
        }
        for work in apply {
            if interrupted(&mut left) {
                return self.interrupt(n);
            }
            let idle = self.nodes[n].apply.is_empty();
            self.nodes[n].apply.push_back(work);
            if idle {
                self.plan_apply(n);
            }
        }
        for outcome in reads {
            if interrupted(&mut left) {
                return self.interrupt(n);
            }
            let leads = self.ghost.members[n].role == RoleKind::Leader;
            self.workload.read_answered(n, outcome, leads, &mut self.coverage)?;
            self.workload.serve_reads(n, self.nodes[n].machine.last.index);
        }
        for fetch in fetches {
            if interrupted(&mut left) {
                return self.interrupt(n);
            }
            self.trace.line(now, || format!("{} > {fetch:?}", id(n)));
            let early = self.random.chance(500).then(|| self.read_log(n, &fetch));
            self.nodes[n].fetches.push((fetch, early));
            let time = self.random.between(MILLI / 20, 2 * self.storm.sync_max);
            self.agenda.plan_in(time, Event::Fetched(place8(n), self.nodes[n].run, fetch.id));
        }
        if left == 0 {
            return self.interrupt(n);
        }
        if let Some(index) = compact {
            // The log drops whole files: it may keep more than it must.
            let log = &mut self.disks[n].durable.log;
            let before = log.start().index;
            let kept = if self.random.chance(500) { index.minus(self.random.below(8)) } else { index };
            log.compact(kept);
            if log.start().index > before {
                self.coverage.hit(Mark::Compacted);
            }
        }
        Ok(())
    }

    fn interrupt(&mut self, n: usize) -> Checked {
        let power_lost = self.random.chance(500);
        self.crash(n, power_lost);
        Ok(())
    }

    fn write(&mut self, n: usize, stored: Stored) {
        self.disks[n].write(stored);
        if let Some(sync) = self.begin_sync(n) {
            self.plan_sync(n, sync);
        }
    }

    fn send(&mut self, n: usize, message: Message, before: &InForce) -> Checked {
        let (from, to) = (self.disks[n].incarnation, self.disks[place(message.to)].incarnation);
        let own = self.ghost.members[n].log.conf();
        let other = |conf: &InForce| {
            let named = conf.1.members.get(&message.to).map(|member| member.incarnation);
            named.is_some_and(|named| named.is_other(to))
        };
        // What was said before the configuration named this directory went to the old one.
        if other(own) || other(before) {
            // The connection was refused, or it goes by a later configuration and gets answers only.
            let ahead = self.ghost.members[place(message.to)].log.conf().0.index > own.0.index;
            if !(ahead && matches!(message.body, Body::AppendReply { .. } | Body::HeartbeatReply { .. })) {
                self.coverage.hit(Mark::OtherDirectoryRefused);
                return Ok(());
            }
        }
        self.ghost.sends(&message, &self.disks, &mut self.coverage)?;
        self.trace.line(self.agenda.now(), || format!("   send {}", trace::message(&message)));
        if self.storm.deaf && matches!(message.body, Body::TimeoutNow) {
            return Ok(());
        }
        if self.send_alternative(n, &message) {
            return Ok(());
        }
        let mut snapshot = None;
        let mut broke = None;
        if let Body::InstallSnapshot { epoch, meta, .. } = &message.body {
            self.coverage.hit(Mark::SnapshotSent);
            let durable = &self.disks[n].durable.snapshot;
            snapshot = self.nodes[n].files.iter().chain([durable]).find(|file| file.meta == **meta).cloned();
            broke = Some((message.to, *epoch));
            if snapshot.is_none() {
                return check(false, "N7", || {
                    format!("{} sent a snapshot it does not have: {meta:?}", id(n))
                });
            }
        }
        let sent = self.network.send(
            message,
            snapshot,
            (from, to),
            &mut self.agenda,
            &mut self.random,
            &mut self.coverage,
        );
        if let Some((to, epoch)) = broke
            && !sent
        {
            self.coverage.hit(Mark::SnapshotLost);
            if self.random.chance(500) {
                let delay = self.random.between(MILLI, 20 * MILLI);
                self.agenda.plan_in(delay, Event::SnapshotBroke(place8(n), self.nodes[n].run, to, epoch));
            }
        }
        Ok(())
    }

    /// Plans the timer event, unless an earlier one is planned: that one will look again.
    pub(super) fn arm(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(deadline) = node.core.as_ref().and_then(Raft::next_deadline) else { return };
        let due = node.clock.time_of(deadline).max(self.agenda.now());
        if due < node.timer {
            node.timer = due;
            self.agenda.plan(due, Event::Timer(place8(n)));
        }
    }
}

/// Counts an effect; true if the crash comes before it.
fn interrupted(left: &mut usize) -> bool {
    if *left == 0 {
        return true;
    }
    *left -= 1;
    false
}
