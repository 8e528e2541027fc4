//! One simulated node: the runtime around a core. It hands the core its inputs and carries out what the core hands
//! out, effect by effect, and may crash between any two of them.

use std::collections::VecDeque;

use super::{
    Sim,
    clock::{Event, MILLI, NEVER, NodeClock, Time},
    coverage::Mark,
    disk::{Snapshot, Stored, chain},
    network::{Parcel, id, place},
    rules::{
        Checked, View, answered, check, e6_pre_vote_changes_nothing, e13_absurd_term_refused, snapshot_hash,
    },
    trace,
};
use crate::{
    Apply, Body, ConfState, Entry, EntryKind, Fetch, Input, LogId, LogIndex, Message, NodeId, Now, Raft,
    Ready, RoleKind, SnapshotMeta, StartNumber, Term, Timestamp,
};

/// A node's process, if it runs, and what outlives it (its disk is kept beside it).
#[derive(Debug)]
pub(super) struct Node {
    pub(super) core: Option<Raft>,
    /// Counts starts: events of an earlier run are void.
    pub(super) run: u32,
    pub(super) clock: NodeClock,
    pub(super) paused_until: Time,
    /// The next sync fails.
    pub(super) sync_fails: bool,
    /// When its timer event is due.
    timer: Time,
    /// A [`Event::Drain`] is planned.
    drain_planned: bool,
    /// Which rule demands an answer to whom in the next output.
    owes: Option<(&'static str, NodeId)>,
    /// The last planned [`Event::Told`].
    told: Time,
    apply: VecDeque<Apply>,
    pub(super) machine: StateMachine,
    fetches: Vec<(Fetch, Option<Vec<Entry>>)>,
    /// Snapshot files that no durable write has marked yet.
    files: Vec<Snapshot>,
    /// The snapshot being written.
    taking: Option<Snapshot>,
}

/// A state machine whose state is the hash of what it applied, and what a snapshot of it must tell.
#[derive(Clone, Debug, Default)]
pub(super) struct StateMachine {
    pub(super) last: LogId,
    pub(super) hash: u64,
    time: Timestamp,
    conf: ConfState,
    conf_id: LogId,
}

impl StateMachine {
    fn from_snapshot(snapshot: &Snapshot) -> StateMachine {
        let SnapshotMeta { last, time, conf, conf_id } = snapshot.meta.clone();
        StateMachine { last, hash: snapshot.hash, time, conf, conf_id }
    }

    fn apply(&mut self, entry: &Entry) {
        self.last = entry.id;
        self.hash = chain(self.hash, entry);
        self.time = entry.time;
        if entry.kind == EntryKind::ConfChange
            && let Ok(conf) = ConfState::decode(&entry.payload)
        {
            self.conf = conf;
            self.conf_id = entry.id;
        }
    }

    fn snapshot(&self) -> Snapshot {
        let StateMachine { last, hash, time, conf, conf_id } = self.clone();
        Snapshot { meta: SnapshotMeta { last, time, conf, conf_id }, hash }
    }
}

impl Node {
    pub(super) fn new() -> Node {
        Node {
            core: None,
            run: 0,
            clock: NodeClock::default(),
            paused_until: 0,
            sync_fails: false,
            timer: NEVER,
            drain_planned: false,
            owes: None,
            told: 0,
            apply: VecDeque::new(),
            machine: StateMachine::default(),
            fetches: Vec::new(),
            files: Vec::new(),
            taking: None,
        }
    }
}

impl Sim {
    // --- Starting and stopping. ---

    /// Starts a process from what its disk holds.
    pub(super) fn start(&mut self, n: usize) -> Checked {
        let had_tail = self.disks[n].durable.log.last().index > LogIndex::ZERO;
        let recovered = self.disks[n].recover(&mut self.random);
        if had_tail && recovered.tail.len() <= 1 {
            self.coverage.hit(Mark::RestartWithoutTail);
        }
        if recovered.snapshot.last.index > LogIndex::ZERO {
            self.coverage.hit(Mark::RestartFromSnapshot);
        }
        if recovered.hard_state.vote.is_some() {
            self.coverage.hit(Mark::RestartedWithVote);
        }
        let drift = if self.storms { self.drift } else { 0 };
        let clock = NodeClock {
            base: if self.storms { self.random.below(1 << 40) } else { 0 },
            drift: match self.random.below(3) {
                0 => -drift,
                1 => 0,
                _ => drift,
            },
            wall: self.nodes[n].clock.wall,
        };
        if clock.drift != 0 {
            self.coverage.hit(Mark::ClockDrift);
        }
        let run = self.nodes[n].run + 1;
        let mut config = self.config.clone();
        config.id = id(n);
        config.start = StartNumber(u64::from(run));
        config.seed = self.random.next();
        let now = clock.now(self.agenda.now());
        self.trace.line(self.agenda.now(), || {
            let hard_state = recovered.hard_state;
            format!(
                "{} starts: {hard_state:?} snapshot={} log {}..={} tail of {}",
                id(n),
                recovered.snapshot.last,
                recovered.log_start,
                recovered.last,
                recovered.tail.len()
            )
        });
        let core = Raft::new(config, recovered, now);
        let core = match core {
            Ok(core) => core,
            Err(error) => return check(false, "START", || format!("{} does not start: {error}", id(n))),
        };
        let image = &self.disks[n].durable;
        self.ghost.starts(n, image);
        self.nodes[n] = Node {
            core: Some(core),
            run,
            clock,
            machine: StateMachine::from_snapshot(&image.snapshot),
            ..Node::new()
        };
        if run > 1 {
            self.coverage.hit(Mark::Restart);
        }
        self.after_input(n)
    }

    /// Ends a process, and if the machine loses power, what its disk had not synced.
    pub(super) fn crash(&mut self, n: usize, power_lost: bool) {
        self.trace.line(self.agenda.now(), || {
            format!("{} crashes, {}", id(n), if power_lost { "power lost" } else { "process only" })
        });
        let node = &mut self.nodes[n];
        node.core = None;
        node.paused_until = 0;
        let run = node.run;
        if power_lost {
            self.coverage.hit(Mark::MachineCrash);
            self.disks[n].crash_machine(&mut self.random, &mut self.coverage);
        } else {
            self.coverage.hit(Mark::ProcessCrash);
            self.disks[n].crash_process(&mut self.random, &mut self.coverage);
        }
        self.workload.crashed(n, &mut self.coverage);
        self.ghost.members[n].role = RoleKind::Follower;
        let down = self.random.between(MILLI, self.storm.down_max);
        self.agenda.plan_in(down, Event::Restart(place8(n), run));
        for peer in 0..self.nodes.len() {
            if peer != n && self.random.chance(300) {
                let run = self.nodes[peer].run;
                let delay = self.random.between(MILLI, 20 * MILLI);
                self.agenda.plan_in(delay, Event::PeerNews(place8(peer), run, id(n), true));
                self.agenda.plan_in(delay + down, Event::PeerNews(place8(peer), run, id(n), false));
            }
        }
    }

    pub(super) fn is_up(&self, n: usize) -> bool {
        self.nodes[n].core.is_some()
    }

    /// Whether an event of this run still counts.
    fn is_current(&self, n: usize, run: u32) -> bool {
        self.nodes[n].run == run && self.is_up(n)
    }

    // --- Events. ---

    /// One event of one node. A process that stands still takes it in when it moves again.
    pub(super) fn node_event(&mut self, event: Event) -> Checked {
        let (place, run) = match event {
            Event::Drain(n, run)
            | Event::Synced(n, run, _)
            | Event::Told(n, run, _)
            | Event::Applied(n, run)
            | Event::Fetched(n, run, _)
            | Event::SnapshotTaken(n, run)
            | Event::SnapshotBroke(n, run, ..)
            | Event::PeerNews(n, run, ..)
            | Event::Restart(n, run) => (n, run),
            Event::Timer(n) => (n, self.nodes[usize::from(n)].run),
            Event::Deliver(_) | Event::Client | Event::Fault | Event::Phase => return Ok(()),
        };
        let n = usize::from(place);
        let now = self.agenda.now();
        if let Event::Restart(..) = event {
            return if self.is_up(n) || self.nodes[n].run != run { Ok(()) } else { self.start(n) };
        }
        if !self.is_current(n, run) {
            return Ok(());
        }
        let until = self.nodes[n].paused_until;
        if until > now {
            if let Event::Timer(_) = event {
                if self.nodes[n].timer != now {
                    return Ok(());
                }
                self.nodes[n].timer = until;
            }
            self.agenda.plan(until, event);
            return Ok(());
        }
        match event {
            Event::Timer(_) => self.timer(n),
            Event::Drain(..) => {
                self.nodes[n].drain_planned = false;
                self.drain(n)
            }
            Event::Synced(_, _, sync) => self.synced(n, sync),
            Event::Told(_, _, write) => self.input(n, Input::Persisted(write)),
            Event::Applied(..) => self.applied(n),
            Event::Fetched(_, _, fetch) => {
                let Some(at) = self.nodes[n].fetches.iter().position(|(asked, _)| asked.id == fetch) else {
                    return Ok(());
                };
                let (fetch, early) = self.nodes[n].fetches.swap_remove(at);
                let entries = early.unwrap_or_else(|| self.read_log(n, &fetch));
                if entries.is_empty() || self.random.chance(self.storm.fetch_failure) {
                    self.coverage.hit(Mark::FetchFailed);
                    return self.input(n, Input::FetchFailed { id: fetch.id });
                }
                self.coverage.hit(Mark::Fetched);
                self.input(n, Input::Fetched { id: fetch.id, entries })
            }
            Event::SnapshotTaken(..) => {
                let Some(snapshot) = self.nodes[n].taking.take() else { return Ok(()) };
                let meta = snapshot.meta.clone();
                self.keep_file(n, snapshot);
                self.coverage.hit(Mark::SnapshotTaken);
                self.input(n, Input::SnapshotTaken(meta))
            }
            Event::SnapshotBroke(_, _, to, epoch) => self.input(n, Input::SnapshotFailed { to, epoch }),
            Event::PeerNews(_, _, peer, died) => self.peer_news(n, peer, died),
            Event::Restart(..) | Event::Deliver(_) | Event::Client | Event::Fault | Event::Phase => Ok(()),
        }
    }

    fn timer(&mut self, n: usize) -> Checked {
        let now = self.agenda.now();
        let node = &mut self.nodes[n];
        if node.timer != now {
            return Ok(());
        }
        node.timer = NEVER;
        let deadline = node.core.as_ref().and_then(Raft::next_deadline);
        if deadline.is_some_and(|deadline| node.clock.time_of(deadline) <= now) {
            return self.input(n, Input::Tick);
        }
        self.steps -= 1; // the timer had been moved: nothing happened
        self.arm(n);
        Ok(())
    }

    fn synced(&mut self, n: usize, sync: u32) -> Checked {
        let now = self.agenda.now();
        let disk = &mut self.disks[n];
        if disk.sync != sync {
            return Ok(());
        }
        if std::mem::take(&mut self.nodes[n].sync_fails) {
            self.coverage.hit(Mark::DiskFailed);
            self.crash(n, true);
            return Ok(());
        }
        let Some((write, writes)) = disk.end_sync() else { return Ok(()) };
        if writes > 1 {
            self.coverage.hit(Mark::GroupCommit);
        }
        let node = &mut self.nodes[n];
        let marked = disk.durable.snapshot.meta.last.index;
        node.files.retain(|file| file.meta.last.index > marked);
        let run = node.run;
        if let Some(sync) = disk.begin_sync() {
            self.plan_sync(n, sync);
        }
        // The news may take its time, but it keeps its order.
        if self.storms && (self.nodes[n].told >= now || self.random.chance(200)) {
            let at = self.nodes[n].told.max(now + self.random.below(2 * MILLI));
            self.nodes[n].told = at;
            self.agenda.plan(at, Event::Told(place8(n), run, write));
            return Ok(());
        }
        self.input(n, Input::Persisted(write))
    }

    fn plan_sync(&mut self, n: usize, sync: u32) {
        let run = self.nodes[n].run;
        let time = self.random.between(MILLI / 20, self.storm.sync_max);
        let begin = self.disks[n].stalled_until.max(self.agenda.now());
        self.agenda.plan(begin + time, Event::Synced(place8(n), run, sync));
    }

    /// The disks work well again: stalled syncs end soon.
    pub(super) fn hurry_sync(&mut self, n: usize) {
        let disk = &mut self.disks[n];
        disk.stalled_until = 0;
        self.nodes[n].sync_fails = false;
        if disk.syncing {
            let sync = disk.sync;
            self.plan_sync(n, sync);
        }
    }

    fn applied(&mut self, n: usize) -> Checked {
        let node = &mut self.nodes[n];
        let Some(work) = node.apply.pop_front() else { return Ok(()) };
        match work {
            Apply::Entries(entries) => {
                for entry in &entries {
                    node.machine.apply(entry);
                    self.workload.applied(n, entry.id, &mut self.coverage)?;
                }
            }
            Apply::Restore(meta) => {
                let file = node.files.iter().chain([&self.disks[n].durable.snapshot]);
                let Some(file) = file.into_iter().find(|file| file.meta.last == meta.last) else {
                    return check(false, "N4", || {
                        format!("{} was to restore {}, whose file is gone", id(n), meta.last)
                    });
                };
                node.machine = StateMachine::from_snapshot(file);
                self.workload.restored(n, meta.last.index, &mut self.coverage);
            }
        }
        let applied = node.machine.last.index;
        self.workload.serve_reads(n, applied);
        if !node.apply.is_empty() {
            self.plan_apply(n);
        }
        self.input(n, Input::Applied(applied))
    }

    fn plan_apply(&mut self, n: usize) {
        let time = self.random.between(MILLI / 100, MILLI / 2);
        self.agenda.plan_in(time, Event::Applied(place8(n), self.nodes[n].run));
    }

    fn read_log(&self, n: usize, fetch: &Fetch) -> Vec<Entry> {
        let log = &self.ghost.members[n].log;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut index = fetch.first;
        while index <= fetch.last
            && let Some(entry) = log.entry(index)
        {
            bytes += entry.size_bytes();
            if bytes > fetch.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
            index = index.next();
        }
        entries
    }

    /// Starts to write a snapshot of what is applied.
    pub(super) fn take_snapshot(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.taking.is_some() || node.machine.last <= self.disks[n].durable.snapshot.meta.last {
            return;
        }
        node.taking = Some(node.machine.snapshot());
        let time = self.random.between(MILLI, 20 * MILLI);
        self.agenda.plan_in(time, Event::SnapshotTaken(place8(n), node.run));
    }

    fn keep_file(&mut self, n: usize, snapshot: Snapshot) {
        let files = &mut self.nodes[n].files;
        files.retain(|file| file.meta.last != snapshot.meta.last);
        files.push(snapshot);
    }

    pub(super) fn peer_news(&mut self, n: usize, peer: NodeId, died: bool) -> Checked {
        self.coverage.hit(if died { Mark::PeerDiedTold } else { Mark::PeerConnectedTold });
        if died {
            self.ghost.leader_died(n, peer);
            self.input(n, Input::PeerDied(peer))
        } else {
            self.input(n, Input::PeerConnected(peer))
        }
    }

    // --- Inputs. ---

    /// A message arrives.
    pub(super) fn deliver(&mut self, slot: u32) -> Checked {
        let Some(parcel) = self.network.arrive(slot, &mut self.coverage) else { return Ok(()) };
        let n = place(parcel.message.to);
        if !self.is_up(n) {
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
            | Body::ReadIndexReply { .. } => None,
        };
        if asks.is_some() && !self.nodes[n].drain_planned {
            self.nodes[n].owes = asks.map(|rule| (rule, from));
        }
        self.handle(n, now, Input::Message(message))?;
        if pre_vote && let Some(core) = &self.nodes[n].core {
            let after = (core.term(), core.role(), core.next_deadline());
            e6_pre_vote_changes_nothing(id(n), &before, &after)?;
        }
        self.after_input(n)
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
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let done = core.handle(now, input);
        check(done.is_ok(), "STEP", || format!("{} refused what is true: {done:?}", id(n)))
    }

    /// Compares what the core shows with what it showed, then hands out its work, or waits for more inputs.
    pub(super) fn after_input(&mut self, n: usize) -> Checked {
        let Some(core) = &self.nodes[n].core else { return Ok(()) };
        let view =
            View { term: core.term(), role: core.role(), leader: core.leader(), commit: core.commit() };
        self.ghost.took(n, view, &self.disks, &mut self.coverage)?;
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

    // --- Outputs. ---

    fn drain(&mut self, n: usize) -> Checked {
        if self.ghost.members[n].inputs > 1 {
            self.coverage.hit(Mark::InputsBatched);
        }
        let run = self.nodes[n].run;
        let ready = self.nodes[n].core.as_mut().and_then(Raft::take_ready);
        if let Some((rule, asker)) = self.nodes[n].owes.take() {
            let term = self.ghost.members[n].term;
            if self.ghost.is_settled(n, self.disks[n].durable.hard_state)
                && self.nodes[n].told <= self.agenda.now()
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
        let mark = ready.write.as_ref().and_then(|write| write.snapshot.as_ref());
        let snapshot = mark.and_then(|mark| {
            self.nodes[n].files.iter().find(|file| file.meta.last == mark.meta.last).cloned()
        });
        let hash = snapshot.as_ref().map(|snapshot| snapshot.hash);
        self.ghost.hands_out(n, &ready, hash, &self.disks[n].durable, &mut self.coverage)?;
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
            self.send(n, message)?;
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
        if let Some(sync) = self.disks[n].begin_sync() {
            self.plan_sync(n, sync);
        }
    }

    fn send(&mut self, n: usize, message: Message) -> Checked {
        self.ghost.sends(&message, &self.disks, &mut self.coverage)?;
        self.trace.line(self.agenda.now(), || format!("   send {}", trace::message(&message)));
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
        let sent =
            self.network.send(message, snapshot, &mut self.agenda, &mut self.random, &mut self.coverage);
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

/// A node's place as events carry it.
pub(super) fn place8(n: usize) -> u8 {
    u8::try_from(n).expect("at most nine nodes")
}
