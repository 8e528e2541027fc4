//! What a core is handed: messages and everything else, and what it then shows.

use std::sync::Arc;

use super::{
    Sim,
    clock::{Event, MILLI},
    coverage::Mark,
    network::{Parcel, id, place},
    node::place8,
    rules::{
        Checked, View, check, e6_pre_vote_changes_nothing, e10_not_deposed_by_stranger,
        e13_absurd_term_refused,
    },
    schedule::Phase,
    trace,
};
use crate::{Body, Input, Instant, LogId, LogIndex, Message, Now, RoleKind, Term};

impl Sim {
    /// A message arrives.
    pub(super) fn deliver(&mut self, slot: u32) -> Checked {
        let Some(parcel) = self.network.arrive(slot, &mut self.coverage) else { return Ok(()) };
        let n = place(parcel.message.to);
        if !self.is_up(n) || !self.is_let_in(n, &parcel) {
            return Ok(());
        }
        let until = self.nodes[n].paused_until;
        if until > self.agenda.now() {
            self.network.postpone(parcel, until, &mut self.agenda);
            return Ok(());
        }
        let Parcel { message, snapshot, .. } = parcel;
        self.trace.line(self.agenda.now(), || format!("   recv {}", trace::message(&message)));
        if let Some(snapshot) = snapshot {
            self.keep_file(n, snapshot);
        }
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &self.nodes[n].core else { return Ok(()) };
        let before = (core.term(), core.role(), core.next_deadline());
        self.ghost.receives(n, &message, now.instant, &mut self.coverage);
        let stranger = before.1 == RoleKind::Leader
            && message.term > before.0
            && !core.conf().contains(message.from)
            && self.ghost.has_quorum(n, now.instant);
        let (from, term, pre_vote) =
            (message.from, message.term, matches!(message.body, Body::PreVote { .. }));
        let asks = match &message.body {
            Body::AppendEntries { .. } | Body::Heartbeat { .. } if term < before.0 => Some("E14"),
            Body::PreVote { .. } if term < before.0 => Some("E6"),
            Body::PreVote { .. } if matches!(before.1, RoleKind::PreCandidate | RoleKind::Candidate) => {
                Some("E7")
            }
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::RequestVote { .. }
            | Body::RequestVoteReply { .. }
            | Body::AppendEntries { .. }
            | Body::AppendReply { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::InstallSnapshot { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Removed { .. }
            | Body::Refill { .. }
            | Body::SnapshotNeeded { .. } => None,
        };
        if asks.is_some() && !self.nodes[n].drain_planned {
            self.nodes[n].owes = asks.map(|rule| (rule, from));
        }
        self.keep_answer(&message);
        self.handle(n, now, Input::Message(message))?;
        if stranger && let Some(core) = &self.nodes[n].core {
            self.coverage.hit(Mark::StrangersTerm);
            e10_not_deposed_by_stranger(id(n), from, before.0, core.term())?;
        }
        if pre_vote && let Some(core) = &self.nodes[n].core {
            let after = (core.term(), core.role(), core.next_deadline());
            e6_pre_vote_changes_nothing(id(n), &before, &after)?;
        }
        self.after_input(n)
    }

    /// Whether the receiver takes what the sender says: as the handshake of the product judges, by the data directory
    /// that its configuration names for the sender (D2). Who has another one and goes by a later configuration may lead,
    /// which is how the receiver learns of it; nothing else.
    fn is_let_in(&mut self, n: usize, parcel: &Parcel) -> bool {
        let (from, to) = parcel.directories;
        let message = &parcel.message;
        let conf = self.ghost.members[n].log.conf();
        let named = conf.1.members.get(&message.from).map(|member| member.incarnation);
        let let_in = to == self.disks[n].incarnation
            && (!named.is_some_and(|named| named.is_other(from))
                || from == self.disks[place(message.from)].incarnation
                    && self.ghost.members[place(message.from)].log.conf().0.index > conf.0.index
                    && matches!(
                        message.body,
                        Body::AppendEntries { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. }
                    ));
        if !let_in {
            self.coverage.hit(Mark::OtherDirectoryRefused);
        }
        let_in
    }

    /// A message with a term that cannot be.
    pub(super) fn deliver_absurd(&mut self, n: usize, from: usize) -> Checked {
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let before = core.term();
        let term = match self.random.below(3) {
            0 => Term::ZERO,
            1 => Term::MAX,
            _ => Term(before.0 + (1 << 32) + 1),
        };
        let body = Body::RequestVote {
            campaign: crate::CampaignId(1),
            last: LogId { term: before, index: LogIndex(1 << 40) },
            transfer: true,
        };
        let message = Message { from: id(from), to: id(n), term, body };
        let refused = core.handle(now, Input::Message(message)).is_err();
        self.coverage.hit(Mark::AbsurdTermRefused);
        e13_absurd_term_refused(id(n), refused, before, core.term())
    }

    /// A node that is no member, and came to a later term somewhere, asks the leader for its vote. It is not the leader, who
    /// may be no member either.
    pub(super) fn deliver_strange(&mut self, from: usize) -> Checked {
        let Some((term, leader)) = self.ghost.latest_leader() else { return Ok(()) };
        let n = place(leader);
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        if from == n
            || core.term() != term
            || core.conf().contains(id(from))
            || !self.ghost.has_quorum(n, now.instant)
        {
            return Ok(());
        }
        let body = Body::RequestVote { campaign: crate::CampaignId(1), last: LogId::ZERO, transfer: true };
        let message = Message { from: id(from), to: leader, term: term.next(), body };
        let done = core.handle(now, Input::Message(message));
        check(done.is_ok(), "E10", || format!("{leader} refused a stranger: {done:?}"))?;
        self.coverage.hit(Mark::StrangersTerm);
        e10_not_deposed_by_stranger(leader, id(from), term, core.term())?;
        self.after_input(n)
    }

    /// One input and all that follows from it at once.
    pub(super) fn input(&mut self, n: usize, input: Input) -> Checked {
        let now = self.nodes[n].clock.now(self.agenda.now());
        self.trace.line(self.agenda.now(), || {
            if let Input::Fetched { entries, .. } = &input {
                return format!("{} < Fetched {} entries", id(n), entries.len());
            }
            format!("{} < {input:?}", id(n))
        });
        self.handle(n, now, input)?;
        self.after_input(n)
    }

    fn handle(&mut self, n: usize, now: Now, input: Input) -> Checked {
        let told = if let Input::Persisted(write) = input { Some(write) } else { None };
        let node = &mut self.nodes[n];
        let Some(core) = &mut node.core else { return Ok(()) };
        let asked = matches!(core.role(), RoleKind::PreCandidate | RoleKind::Candidate);
        let term = core.term();
        let done = core.handle(now, input);
        let asks = matches!(core.role(), RoleKind::PreCandidate | RoleKind::Candidate);
        if asks && (!asked || core.term() > term) && told.is_none() {
            let late = |(_, since): &(_, Instant)| {
                now.instant.micros_since(*since) >= self.config.disk_stall_ms * 1000
            };
            check(!node.writes.front().is_some_and(late), "V5", || {
                format!("{} campaigns although its disk hangs", id(n))
            })?;
        }
        node.writes.retain(|(write, _)| Some(*write) > told);
        check(done.is_ok(), "STEP", || format!("{} refused what is true: {done:?}", id(n)))
    }

    /// Compares what the core shows with what it showed, then hands out its work, or waits for more inputs.
    pub(super) fn after_input(&mut self, n: usize) -> Checked {
        let node = &mut self.nodes[n];
        let Some(core) = &node.core else { return Ok(()) };
        if let Err(broken) = core.check() {
            let rule = broken.split(':').next().unwrap_or(broken);
            return check(false, rule, || format!("{} says of itself: {broken}", id(n)));
        }
        if core.conf_id() != node.conf.0 {
            node.conf = (core.conf_id(), Arc::new(core.conf().clone()));
        }
        let view = View {
            term: core.term(),
            role: core.role(),
            leader: core.leader(),
            commit: core.commit(),
            now: node.clock.now(self.agenda.now()).instant,
            conf: node.conf.clone(),
            transfer: core.transfer_target().zip(core.transfer_deadline()),
        };
        let before = self.ghost.members[n].term;
        let (led, leads) = (self.ghost.members[n].role == RoleKind::Leader, view.role == RoleKind::Leader);
        self.ghost.took(n, view, &self.disks, &mut self.coverage)?;
        if let Phase::Stable { term, .. } = self.phase
            && self.ghost.members[n].term != before
            && self.ghost.conf().1.members.contains_key(&id(n))
        {
            self.v1_term_stands(n, term)?;
        }
        if !led && leads {
            self.r3_no_lease_is_overtaken(n)?;
            if self.nodes[n].conf.1.lease.is_some() {
                self.coverage.hit(Mark::ElectionUnderLease);
            }
            self.repeat_answers(n);
        }
        for committed in self.ghost.unreported() {
            self.workload.x2_committed_once(committed)?;
        }
        if self.nodes[n].drain_planned {
            self.nodes[n].owes = None;
            return Ok(());
        }
        if self.random.chance(self.storm.batching) {
            self.nodes[n].drain_planned = true;
            self.nodes[n].owes = None;
            let delay = self.random.between(MILLI / 10, 3 * MILLI);
            self.agenda.plan_in(delay, Event::Drain(place8(n), self.nodes[n].run));
            return Ok(());
        }
        self.drain(n)
    }
}
