//! One simulated node: the runtime around a core. It hands the core its inputs and carries out what the core hands
//! out, effect by effect, and may crash between any two of them.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Sim,
    clock::{Event, MILLI, NEVER, NodeClock, Time},
    confs::InForce,
    coverage::Mark,
    disk::{Snapshot, chain},
    network::id,
    rules::{Checked, check},
};
use crate::{
    Apply, ConfState, Entry, EntryKind, Fetch, Input, Instant, LogId, LogIndex, Message, NodeId,
    PRIORITY_MAX, Raft, RoleKind, SnapshotMeta, StartNumber, Timestamp, WriteId,
};

/// A node's process, if it runs, and what outlives it (its disk is kept beside it).
#[derive(Debug)]
pub(super) struct Node {
    pub(super) core: Option<Raft>,
    /// Counts starts: events of an earlier run are void.
    pub(super) run: u32,
    pub(super) clock: NodeClock,
    pub(super) paused_until: Time,
    /// The configuration in force, as the core shows it.
    pub(super) conf: InForce,
    /// The next sync fails.
    pub(super) sync_fails: bool,
    /// When its timer event is due.
    pub(super) timer: Time,
    /// A [`Event::Drain`] is planned.
    pub(super) drain_planned: bool,
    /// Which rule demands an answer to whom in the next output.
    pub(super) owes: Option<(&'static str, NodeId)>,
    /// Writes the core was not told of yet, and when it handed them out by its clock.
    pub(super) writes: VecDeque<(WriteId, Instant)>,
    /// The last write that was handed out in this run.
    pub(super) issued: WriteId,
    /// The last planned [`Event::Told`].
    pub(super) told: Time,
    pub(super) apply: VecDeque<Apply>,
    pub(super) machine: StateMachine,
    pub(super) fetches: Vec<(Fetch, Option<Vec<Entry>>)>,
    /// Some of the answers it got, in whatever term.
    pub(super) answers: Vec<Message>,
    /// Snapshot files that no durable write has marked yet.
    pub(super) files: Vec<Snapshot>,
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
            conf: InForce::default(),
            sync_fails: false,
            timer: NEVER,
            drain_planned: false,
            owes: None,
            writes: VecDeque::new(),
            issued: WriteId(0),
            told: 0,
            apply: VecDeque::new(),
            machine: StateMachine::default(),
            fetches: Vec::new(),
            answers: Vec::new(),
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
        config.incarnation = self.disks[n].incarnation;
        config.start = StartNumber(u64::from(run));
        config.seed = self.random.next();
        if self.storms && self.random.chance(300) {
            config.priority = u8::try_from(self.random.below(4)).unwrap_or_default();
        }
        if config.priority < PRIORITY_MAX {
            self.coverage.hit(Mark::LowPriority);
        }
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
        self.ghost.starts(n, image, self.disks[n].incarnation);
        self.nodes[n] = Node {
            conf: (core.conf_id(), Arc::new(core.conf().clone())),
            core: Some(core),
            run,
            clock,
            machine: StateMachine::from_snapshot(&image.snapshot),
            ..Node::new()
        };
        if run > 1 {
            self.coverage.hit(Mark::Restart);
            if self.nodes[n].conf.1.lease.is_some() {
                self.coverage.hit(Mark::RestartUnderLease);
            }
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
    pub(super) fn is_current(&self, n: usize, run: u32) -> bool {
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
            | Event::Question(n, run)
            | Event::Restart(n, run) => (n, run),
            Event::Timer(n) => (n, self.nodes[usize::from(n)].run),
            Event::Deliver(_)
            | Event::Mend
            | Event::Client
            | Event::Fault
            | Event::Phase
            | Event::Silence(..) => {
                return Ok(());
            }
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
                self.input(n, Input::SnapshotTaken(Box::new(meta)))
            }
            Event::SnapshotBroke(_, _, to, epoch) => self.input(n, Input::SnapshotFailed { to, epoch }),
            Event::PeerNews(_, _, peer, died) => self.peer_news(n, peer, died),
            Event::Question(..) => self.read(n),
            Event::Restart(..)
            | Event::Deliver(_)
            | Event::Mend
            | Event::Client
            | Event::Fault
            | Event::Phase
            | Event::Silence(..) => Ok(()),
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
            self.input(n, Input::Tick)?;
            self.v6_time_moves_on(n)?;
            return self.v5_after_tick(n);
        }
        self.steps -= 1; // the timer had been moved: nothing happened
        self.arm(n);
        Ok(())
    }

    /// V6: once the time is told, no deadline stays behind: it would have the runtime come back for ever.
    fn v6_time_moves_on(&self, n: usize) -> Checked {
        let node = &self.nodes[n];
        let deadline = node.core.as_ref().filter(|_| !node.drain_planned).and_then(Raft::next_deadline);
        let now = node.clock.now(self.agenda.now()).instant;
        check(deadline.is_none_or(|deadline| deadline > now), "V6", || {
            format!("{} wants to be woken at {deadline:?} although it is {now:?}", id(n))
        })
    }

    /// V5: once time has told it, no leader has a write older than the bound and one election timeout.
    fn v5_after_tick(&mut self, n: usize) -> Checked {
        let node = &self.nodes[n];
        let Some(core) = &node.core else { return Ok(()) };
        let Some((_, since)) = node.writes.front() else { return Ok(()) };
        let age = node.clock.now(self.agenda.now()).instant.micros_since(*since);
        let patience_ms = self.config.disk_stall_ms + self.config.election_timeout_min_ms;
        if age >= self.config.disk_stall_ms * 1000 {
            self.coverage.hit(if core.role() == RoleKind::Leader {
                Mark::LeaderDiskLate
            } else {
                Mark::DiskLate
            });
        }
        let others =
            core.conf().all().into_iter().any(|peer| peer != id(n) && core.conf().voters.contains(&peer));
        check(core.role() != RoleKind::Leader || age < patience_ms * 1000 || !others, "V5", || {
            format!("{} leads on although a write has waited for {age} us", id(n))
        })
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
        if let Some(sync) = self.begin_sync(n) {
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

    /// The log's writer takes what waits, or less of it.
    pub(super) fn begin_sync(&mut self, n: usize) -> Option<u32> {
        let most = if self.random.chance(self.storm.small_syncs) { 1 } else { usize::MAX };
        self.disks[n].begin_sync(most)
    }

    pub(super) fn plan_sync(&mut self, n: usize, sync: u32) {
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

    pub(super) fn plan_apply(&mut self, n: usize) {
        let time = self.random.between(MILLI / 100, MILLI / 2);
        self.agenda.plan_in(time, Event::Applied(place8(n), self.nodes[n].run));
    }

    pub(super) fn read_log(&self, n: usize, fetch: &Fetch) -> Vec<Entry> {
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

    pub(super) fn keep_file(&mut self, n: usize, snapshot: Snapshot) {
        let files = &mut self.nodes[n].files;
        files.retain(|file| file.meta.last != snapshot.meta.last);
        files.push(snapshot);
    }

    pub(super) fn peer_news(&mut self, n: usize, peer: NodeId, died: bool) -> Checked {
        self.coverage.hit(if died { Mark::PeerDiedTold } else { Mark::PeerConnectedTold });
        if died {
            if self.nodes[n].conf.1.lease.is_some() {
                self.coverage.hit(Mark::DeathUnderLease);
            }
            self.ghost.leader_died(n, peer);
            self.input(n, Input::PeerDied(peer))
        } else {
            self.input(n, Input::PeerConnected(peer))
        }
    }
}

/// A node's place as events carry it.
pub(super) fn place8(n: usize) -> u8 {
    u8::try_from(n).expect("at most nine nodes")
}
