//! One node: what its process holds, how it starts, its turns, and how it ends.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use raft_core::{
    Body, ClusterId, Config, Incarnation, Input, Instant, LogIndex, Message, NodeId, Now, Raft, SnapshotMeta,
    Timestamp, Write,
};
use raft_net::{Founding, FoundingOutcome, FoundingOutput};
use raft_node::{
    data_dir::DataDir,
    error::{ClientError, StartError},
    kv::Kv,
    machine::Machine,
    opened::Opened,
    replica::{Effects, Forward, ForwardOutcome, Job, Limits, Replica},
    snapshot_store::SnapshotStore,
};
use raft_wal::{
    Engine, Options as WalOptions,
    vfs::{
        Vfs,
        sim::{SimVfs, Survivors},
    },
};

use crate::{
    clients::Outcome,
    coverage::Mark,
    network::{Dial, Packet, id, place},
    random::Random,
    world::{Event, MILLI, Time, World},
};

/// Where each node keeps its data, on its own disk.
const DIR: &str = "/data";

/// A place where a process runs, or ran.
pub(crate) struct Node {
    pub(crate) vfs: SimVfs,
    /// Counts the processes there have been.
    pub(crate) run: u64,
    pub(crate) life: Life,
    pub(crate) clock: Clock,
    pub(crate) paused_until: Time,
    /// What is going to go wrong with the disk in this run.
    pub(crate) armed: Option<Armed>,
}

/// A fault that waits for its file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    /// The process, or the machine, ends at this change.
    Crash { at_change: u64, machine: bool },
    /// A change fails.
    Error,
    /// There is little room left.
    Full,
}

pub(crate) enum Life {
    Down,
    Founding { data_dir: Box<DataDir>, founding: Box<Founding> },
    Up(Box<Process>),
}

/// A process that takes part.
pub(crate) struct Process {
    cluster: ClusterId,
    pub(crate) replica: Replica<Waiter, usize>,
    pub(crate) engine: Engine,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) machine: Machine<Kv>,
    pub(crate) inbox: Vec<Local>,
    pub(crate) disk_work: VecDeque<DiskWork>,
    pub(crate) disk_busy: bool,
    /// Writes are in the log's queue and wait for room.
    pub(crate) disk_full: bool,
    pub(crate) jobs: VecDeque<Job<Waiter, usize>>,
    pub(crate) applying: bool,
    turn_at: Option<Time>,
}

pub(crate) enum DiskWork {
    Write(Box<Write>),
    Compact(LogIndex),
}

/// Whoever waits for a command's reply.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    Client(usize),
    Peer { node: usize, run: u64, request: u64 },
}

/// What reaches the driver.
pub(crate) enum Local {
    Propose(usize),
    Read(usize),
    ReadStale(usize),
    Core(Input),
    Message(Message),
    Forward {
        node: usize,
        run: u64,
        request: u64,
        proposal: raft_core::Proposal,
        first: bool,
    },
    ForwardReply {
        from: NodeId,
        request: u64,
        outcome: ForwardOutcome,
    },
    PeerConnected(NodeId),
    PeerRedialled(NodeId),
    PeerDied(NodeId),
    SnapshotTaken {
        meta: Box<SnapshotMeta>,
        bytes: u64,
    },
    SnapshotFailed,
    /// The file of a snapshot that was to be sent cannot be opened.
    SnapshotUnreadable {
        to: NodeId,
        epoch: raft_core::Epoch,
    },
    SnapshotReceived(Message),
    SnapshotGone,
    TakeSnapshot,
    Transfer,
    /// The process cannot go on.
    Failed(String),
}

/// The clocks of one process: neither starts at zero nor runs exactly, and the wall clock may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Time,
    base: u64,
    rate: u64,
    pub(crate) wall: u64,
}

impl Clock {
    pub(crate) fn drawn(random: &mut Random, started: Time) -> Clock {
        Clock {
            started,
            base: random.between(0, 1 << 40),
            // Parts of a million; up to two per cent off.
            rate: random.between(980_000, 1_020_000),
            wall: 1_700_000_000_000 + random.between(0, 10_000),
        }
    }

    fn now(&self, time: Time) -> Now {
        Now {
            instant: Instant(self.base + (time - self.started) * self.rate / 1_000_000),
            wall: Timestamp(self.wall + time / 1000),
        }
    }

    /// The first moment at which it shows `at`.
    fn time(&self, at: Instant) -> Time {
        self.started + (at.0.saturating_sub(self.base) * 1_000_000).div_ceil(self.rate)
    }
}

impl Node {
    /// Bytes of all files.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.vfs.list(&PathBuf::from(DIR)).unwrap_or_default().iter().map(|entry| entry.length).sum()
    }

    pub(crate) fn process(&self) -> Option<&Process> {
        match &self.life {
            Life::Up(process) => Some(process),
            Life::Down | Life::Founding { .. } => None,
        }
    }

    pub(crate) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.life {
            Life::Up(process) => Some(process),
            Life::Down | Life::Founding { .. } => None,
        }
    }
}

impl World {
    pub(crate) fn start(&mut self, place: usize) -> Result<(), String> {
        let node = &mut self.nodes[place];
        if !matches!(node.life, Life::Down) {
            return Ok(());
        }
        node.run += 1;
        node.clock = Clock { wall: node.clock.wall, ..Clock::drawn(&mut self.random, self.now) };
        let fresh = Incarnation(self.random.next() | 1);
        let vfs: Arc<dyn Vfs> = Arc::new(self.nodes[place].vfs.clone());
        let opened = DataDir::open(vfs, &PathBuf::from(DIR), id(place), fresh);
        self.trace(|world| format!("{} starts, run {}", id(place), world.nodes[place].run));
        match opened {
            Err(error) => self.start_failed(place, &error),
            Ok(data_dir) if data_dir.is_founded() => self.take_part(place, data_dir),
            Ok(data_dir) => {
                let cluster = ClusterId(u128::from(self.random.next()) | 1);
                let (incarnation, pin) = (data_dir.incarnation(), data_dir.pin());
                let founding = Founding::new(id(place), incarnation, self.founders(), pin, cluster)
                    .map_err(|error| format!("{} cannot found: {error}", id(place)))?;
                self.nodes[place].life =
                    Life::Founding { data_dir: Box::new(data_dir), founding: Box::new(founding) };
                self.founding_tick(place)
            }
        }
    }

    /// A start may fail because the disk does, never otherwise.
    fn start_failed(&mut self, place: usize, error: &StartError) -> Result<(), String> {
        if self.strikes(place) {
            return Ok(());
        }
        if self.nodes[place].armed.is_none() {
            return Err(format!("{} does not start on a sound disk: {error}", id(place)));
        }
        self.trace(|_| format!("{} does not start: {error}", id(place)));
        self.coverage.note(Mark::StartRefusedByItsDisk);
        self.crash(place, false);
        Ok(())
    }

    pub(crate) fn founding_tick(&mut self, place: usize) -> Result<(), String> {
        let Life::Founding { founding, .. } = &mut self.nodes[place].life else { return Ok(()) };
        let output = founding.tick();
        let run = self.nodes[place].run;
        self.plan_in(100 * MILLI, Event::FoundingTick { node: place, run });
        self.found(place, output)
    }

    /// Carries out what founding asks for, as `raft_node::founding` does.
    pub(crate) fn found(&mut self, place: usize, mut output: FoundingOutput) -> Result<(), String> {
        loop {
            for (to, message) in output.send {
                self.send(place, crate::network::place(to), Packet::Founding(message));
            }
            let Life::Founding { data_dir, founding } = &mut self.nodes[place].life else { return Ok(()) };
            match (output.outcome, output.pin) {
                (Some(FoundingOutcome::Founded(pin)), _) => {
                    if data_dir.pin().as_ref() != Some(&pin) {
                        return Err(format!("D3: {} founds with what it has not pinned", id(place)));
                    }
                    let Life::Founding { data_dir, .. } =
                        std::mem::replace(&mut self.nodes[place].life, Life::Down)
                    else {
                        return Ok(());
                    };
                    return self.take_part(place, *data_dir);
                }
                (Some(FoundingOutcome::Refused(why)), _) => {
                    return Err(format!("D3: {} is refused: {why}", id(place)));
                }
                (None, None) => return Ok(()),
                (None, Some(pin)) => match data_dir.store_pin(&pin) {
                    Ok(()) => output = founding.pinned(),
                    Err(error) => return self.start_failed(place, &error),
                },
            }
        }
    }

    fn take_part(&mut self, place: usize, data_dir: DataDir) -> Result<(), String> {
        let pin = data_dir.pin().ok_or("D3: a log without a pin")?;
        self.ghost.founded(&pin)?;
        let (incarnation, start) = (data_dir.incarnation(), data_dir.start());
        let options = WalOptions {
            seed: self.random.next(),
            tail_bytes: self.config.tail_bytes_max,
            ..WalOptions::new(pin.cluster, id(place), pin.conf_state()).with_segment_bytes(64 << 10)
        };
        // These disks tear and lose what was not synced, and nothing else: damage is a bug, not a case for repair.
        let no_repair = |_: &mut Engine| Err(raft_wal::WalError::Closed);
        let opened = match Opened::open(data_dir, options, Engine::open_locked, no_repair, Kv::new()) {
            Ok(opened) => opened,
            Err(error) => return self.start_failed(place, &error),
        };
        let Opened { log, recovered, machine, snapshots, snapshot_bytes, torn_bytes, unknown_files } = opened;
        if !unknown_files.is_empty() {
            return Err(format!("{} left files it does not know: {unknown_files:?}", id(place)));
        }
        if torn_bytes > 0 {
            self.coverage.note(Mark::LogTorn);
        }
        if machine.position().last.index > LogIndex::ZERO {
            self.coverage.note(Mark::RestoredAtStart);
        }
        let config =
            Config { id: id(place), incarnation, start, seed: self.random.next(), ..self.config.clone() };
        let now = self.clock(place);
        let raft = Raft::new(config, recovered, now).map_err(|error| format!("{}: {error}", id(place)))?;
        let limits = Limits {
            leader_wait_ms: 600,
            request_timeout_ms: 1500,
            snapshot_log_bytes: self.snapshot_log_bytes,
            ..Limits::default()
        };
        let restored = machine.position().last.index;
        let process = Process {
            cluster: pin.cluster,
            replica: Replica::new(raft, limits, restored, snapshot_bytes),
            engine: log,
            snapshots,
            machine,
            inbox: Vec::new(),
            disk_work: VecDeque::new(),
            disk_busy: false,
            disk_full: false,
            jobs: VecDeque::new(),
            applying: false,
            turn_at: None,
        };
        self.nodes[place].life = Life::Up(Box::new(process));
        if self.strikes(place) {
            return Ok(());
        }
        self.turn_in(place, 0);
        Ok(())
    }

    pub(crate) fn clock(&self, place: usize) -> Now {
        self.nodes[place].clock.now(self.now)
    }

    /// Puts something into a process's queue.
    pub(crate) fn give(&mut self, place: usize, local: Local) {
        if let Some(process) = self.nodes[place].process_mut() {
            process.inbox.push(local);
            let gather =
                if self.random.chance(self.storm.batching) { self.random.between(0, 5 * MILLI) } else { 10 };
            self.turn_in(place, gather);
        }
    }

    fn turn_in(&mut self, place: usize, delay: Time) {
        let (at, node) = (self.now + delay, &mut self.nodes[place]);
        let run = node.run;
        if let Some(process) = node.process_mut()
            && process.turn_at.is_none_or(|planned| planned > at || planned < self.now)
        {
            process.turn_at = Some(at);
            self.plan(at, Event::Turn { node: place, run });
        }
    }

    /// One turn of the driver's loop: everything that waits, then everything that follows.
    pub(crate) fn turn(&mut self, place: usize) -> Result<(), String> {
        let now = self.clock(place);
        let time = self.now;
        let Some(process) = self.nodes[place].process_mut() else { return Ok(()) };
        // An earlier one was planned since, and has been taken.
        if process.turn_at.is_none_or(|at| at > time) {
            return Ok(());
        }
        process.turn_at = None;
        for local in std::mem::take(&mut process.inbox) {
            if let Local::Failed(why) = local {
                return self.fail(place, &why);
            }
            self.take(place, now, local)?;
        }
        let Some(process) = self.nodes[place].process_mut() else { return Ok(()) };
        if process.replica.next_deadline().is_some_and(|at| at <= now.instant) {
            process.replica.tick(now).map_err(|error| format!("{}: {error}", id(place)))?;
        }
        while let Some(process) = self.nodes[place].process_mut()
            && let Some(effects) = process.replica.take_effects(now)
        {
            self.carry_out(place, effects)?;
        }
        let clock = self.nodes[place].clock;
        let Some(process) = self.nodes[place].process_mut() else { return Ok(()) };
        if let Some(at) = process.replica.next_deadline() {
            let delay = clock.time(at).saturating_sub(self.now).max(1);
            self.turn_in(place, delay);
        }
        Ok(())
    }

    fn take(&mut self, place: usize, now: Now, local: Local) -> Result<(), String> {
        let requests = &self.clients.requests;
        let Some(process) = self.nodes[place].process_mut() else { return Ok(()) };
        let replica = &mut process.replica;
        let done = match local {
            Local::Propose(request) => {
                let proposal = raft_core::Proposal::new(requests[request].payload());
                replica.propose(now, proposal, Waiter::Client(request));
                Ok(())
            }
            Local::Read(request) => {
                replica.read(now, request);
                Ok(())
            }
            Local::ReadStale(request) => {
                replica.read_stale(request);
                Ok(())
            }
            Local::Core(input) => {
                if matches!(input, Input::Fetched { .. }) {
                    self.coverage.note(Mark::EntriesFetched);
                }
                replica.handle(now, input)
            }
            Local::Message(message) => {
                // A peer's message may make no sense any more: it is refused and changes nothing.
                let _ = replica.handle(now, Input::Message(message));
                Ok(())
            }
            Local::Forward { node, run, request, proposal, first } => {
                let waiter = Waiter::Peer { node, run, request };
                replica.propose_forwarded(now, id(node), first, proposal, waiter);
                Ok(())
            }
            Local::ForwardReply { from, request, outcome } => {
                if outcome == ForwardOutcome::NotLeader {
                    self.coverage.note(Mark::ForwardReoffered);
                }
                replica.forward_answered(now, from, request, outcome);
                Ok(())
            }
            Local::PeerConnected(peer) => {
                replica.connection_lost(peer);
                replica.handle(now, Input::PeerConnected(peer))
            }
            Local::PeerRedialled(peer) => {
                replica.connection_lost(peer);
                Ok(())
            }
            Local::PeerDied(peer) => {
                replica.connection_lost(peer);
                replica.handle(now, Input::PeerDied(peer))
            }
            Local::SnapshotTaken { meta, bytes } => replica.snapshot_taken(now, *meta, bytes),
            Local::SnapshotFailed => replica.snapshot_failed(now),
            Local::SnapshotUnreadable { to, epoch } => replica.snapshot_not_sent(now, to, epoch, true),
            Local::SnapshotReceived(message) => replica.snapshot_received(now, message).or(Ok(())),
            Local::SnapshotGone => {
                replica.snapshot_gone();
                Ok(())
            }
            Local::TakeSnapshot => {
                replica.request_snapshot();
                Ok(())
            }
            Local::Transfer => {
                if let Some(to) = replica.successor(now) {
                    replica.transfer_leadership(now, to);
                    self.coverage.note(Mark::Handover);
                }
                Ok(())
            }
            Local::Failed(_) => Ok(()),
        };
        done.map_err(|error| format!("{}: the core refused an input of its own node: {error}", id(place)))
    }

    /// As the driver does; the node may end between any two.
    fn carry_out(&mut self, place: usize, effects: Effects<Waiter, usize>) -> Result<(), String> {
        let Effects {
            messages,
            writes,
            jobs,
            fetches,
            compact,
            discard,
            forwards,
            failed,
            failed_reads,
            events,
            replies,
        } = effects;
        let run = self.nodes[place].run;
        for event in events {
            self.trace(|_| format!("{} {event:?}", id(place)));
            if let raft_core::Event::Halted(reason) = &event {
                return Err(format!("{} halted: {reason}", id(place)));
            }
            if self.ghost.event(id(place), &event)? {
                self.coverage.note(Mark::LeaderChanged);
            }
        }
        for write in writes {
            self.trace(|_| format!("{} {}", id(place), describe(&write)));
            self.disk_work(place, DiskWork::Write(Box::new(write)));
        }
        if self.interrupted(place) {
            return Ok(());
        }
        for message in messages {
            self.ghost.sent(&message)?;
            if self.interrupted(place) {
                return Ok(());
            }
            if matches!(message.body, Body::InstallSnapshot { .. }) {
                self.send_snapshot(place, message);
            } else {
                let to = crate::network::place(message.to);
                self.send(place, to, Packet::Raft(message));
            }
        }
        for job in jobs {
            if let Job::Apply { entries, .. } = &job {
                self.ghost.applied(id(place), entries)?;
            }
            self.job(place, job);
        }
        for fetch in fetches {
            self.fetch(place, fetch);
        }
        for Forward { to, request, proposal, first } in forwards {
            let packet = Packet::Forward { request, origin_run: run, proposal, first };
            self.send(place, crate::network::place(to), packet);
        }
        if self.interrupted(place) {
            return Ok(());
        }
        for (waiter, error) in failed {
            self.answer(place, waiter, Err(error))?;
        }
        for (request, error) in failed_reads {
            self.answer(place, Waiter::Client(request), Err(error))?;
        }
        for (waiter, reply) in replies {
            self.answer(place, waiter, Ok(reply))?;
        }
        if let Some(up_to) = compact {
            self.disk_work(place, DiskWork::Compact(up_to));
        }
        if let Some(last) = discard {
            self.discard(place, last);
        }
        Ok(())
    }

    /// Ends a wait.
    pub(crate) fn answer(
        &mut self,
        place: usize,
        waiter: Waiter,
        result: Result<bytes::Bytes, ClientError>,
    ) -> Result<(), String> {
        match waiter {
            Waiter::Client(request) => {
                let result = match result {
                    Ok(reply) => Ok(self.clients.requests[request].answers(&reply)?),
                    Err(error) => Err(error),
                };
                self.end(request, result)
            }
            Waiter::Peer { node, run, request } => {
                let outcome = ForwardOutcome::of(result);
                self.send(place, node, Packet::ForwardReply { request, origin_run: run, outcome });
                Ok(())
            }
        }
    }

    /// Tells a client.
    pub(crate) fn end(
        &mut self,
        request: usize,
        result: Result<Vec<crate::history::Answer>, ClientError>,
    ) -> Result<(), String> {
        self.trace(|_| format!("request {request} ends: {result:?}"));
        let reads = self.clients.requests[request].kind != crate::clients::Kind::Write;
        let outcome = self.clients.end(request, self.now, result)?;
        self.coverage.note(match (outcome, reads) {
            (Outcome::Answered, true) => Mark::ReadAnswered,
            (Outcome::Answered, false) => Mark::WriteAcknowledged,
            (Outcome::Refused, true) => Mark::ReadRefused,
            (Outcome::Refused, false) => Mark::WriteRefused,
            (Outcome::Unknown | Outcome::Open { .. }, _) => Mark::WriteUnknown,
        });
        let client = self.clients.requests[request].operation.client;
        self.think(client);
        Ok(())
    }

    /// Whether the process ends right here.
    fn interrupted(&mut self, place: usize) -> bool {
        let strikes = self.random.chance(self.storm.interruption) && self.random.chance(100);
        if strikes {
            self.coverage.note(Mark::CrashBetweenEffects);
            let machine = self.random.chance(500);
            self.crash(place, machine);
        }
        strikes
    }

    /// After a call that went to the disk: whether it met the crash that waited there.
    pub(crate) fn strikes(&mut self, place: usize) -> bool {
        let node = &self.nodes[place];
        let Some(Armed::Crash { at_change, machine }) = node.armed else { return false };
        let strikes = node.vfs.changes() >= at_change;
        if strikes {
            self.coverage.note(Mark::CrashInAFileOperation);
            self.crash(place, machine);
        }
        strikes
    }

    /// The process ends because it cannot go on. Only its disk may make it.
    pub(crate) fn fail(&mut self, place: usize, why: &str) -> Result<(), String> {
        if self.strikes(place) {
            return Ok(());
        }
        if self.nodes[place].armed.is_none() {
            return Err(format!("{} ended on a sound disk: {why}", id(place)));
        }
        self.trace(|_| format!("{} ends: {why}", id(place)));
        self.coverage.note(Mark::NodeEndedByItsDisk);
        self.crash(place, false);
        Ok(())
    }

    /// Ends the process, or the machine, and plans the next start.
    pub(crate) fn crash(&mut self, place: usize, machine: bool) {
        self.trace(|_| format!("{} ends, {}", id(place), if machine { "power cut" } else { "killed" }));
        let (seed, node) = (self.random.next(), &mut self.nodes[place]);
        let run = node.run;
        if matches!(node.life, Life::Founding { .. }) {
            self.coverage.note(Mark::CrashWhileFounding);
        }
        node.life = Life::Down;
        let full = node.armed == Some(Armed::Full);
        node.vfs =
            if machine { node.vfs.crash_machine(Survivors::Random(seed)) } else { node.vfs.crash_process() };
        node.armed = None;
        if full {
            self.fill_disk(place);
        }
        self.coverage.note(if machine { Mark::CrashOfMachine } else { Mark::CrashOfProcess });
        for client in self.clients.lost(place, run) {
            self.think(client);
        }
        for peer in 0..self.options.nodes {
            let broke = self.links.break_connection(peer, place);
            self.links.break_connection(place, peer);
            // A killed process refuses connections; a machine without power does not answer.
            if broke && !machine && !self.links.is_cut(place, peer) {
                let (delay, peer_run) = (self.random.between(100, 5000), self.nodes[peer].run);
                let local = Local::PeerDied(id(place));
                self.plan_in(delay, Event::Local { node: peer, run: peer_run, local });
            }
        }
        let down = self.random.between(MILLI, self.storm.down_max);
        self.plan_in(down, Event::Start { node: place });
    }

    /// A message leaves.
    pub(crate) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let to_run = self.nodes[to].run;
        let weather = self.storm.weather.clone();
        let delay = weather.delay(&mut self.random);
        if matches!(packet, Packet::Raft(_) | Packet::Founding(_)) {
            if self.random.chance(weather.loss) {
                self.coverage.note(Mark::MessageLost);
                return;
            }
            if self.random.chance(weather.duplication) {
                self.coverage.note(Mark::MessageDoubled);
                let (again, packet) = (weather.delay(&mut self.random) * 3, packet.clone());
                self.plan_in(again, Event::Packet { from, to, to_run, packet });
            }
        }
        self.plan_in(delay, Event::Packet { from, to, to_run, packet });
    }

    /// A message arrives, if it does.
    pub(crate) fn arrive(
        &mut self,
        from: usize,
        to: usize,
        to_run: u64,
        packet: Packet,
    ) -> Result<(), String> {
        let cut = self.links.is_cut(from, to);
        let same = self.nodes[to].run == to_run;
        match packet {
            Packet::Raft(_) | Packet::Founding(_) if cut => Ok(()),
            Packet::Raft(message) => {
                self.give(to, Local::Message(message));
                Ok(())
            }
            Packet::Founding(message) => match &mut self.nodes[to].life {
                Life::Down => Ok(()),
                Life::Founding { founding, .. } => {
                    let output = founding.receive(id(from), &message);
                    self.found(to, output)
                }
                Life::Up(process) => {
                    let members = &process.replica.raft().conf().members;
                    let answer = Founding::answer_of_member(process.cluster, members, id(from), &message);
                    if let Some(answer) = answer {
                        self.send(to, from, Packet::Founding(answer));
                    }
                    Ok(())
                }
            },
            // The connection ended with the process that held its other end.
            Packet::Forward { .. } | Packet::ForwardReply { .. } if !same => {
                self.coverage.note(Mark::ForwardLost);
                Ok(())
            }
            packet @ (Packet::Forward { .. } | Packet::ForwardReply { .. }) if cut => {
                if self.random.chance(900) {
                    self.coverage.note(Mark::ForwardHeldBack);
                    self.plan_in(40 * MILLI, Event::Packet { from, to, to_run, packet });
                } else {
                    self.coverage.note(Mark::ForwardLost);
                    self.links.break_connection(from, to);
                }
                Ok(())
            }
            Packet::Forward { request, origin_run, proposal, first } => {
                self.give(to, Local::Forward { node: from, run: origin_run, request, proposal, first });
                Ok(())
            }
            Packet::ForwardReply { request, origin_run, outcome } => {
                if self.nodes[to].run == origin_run {
                    self.give(to, Local::ForwardReply { from: id(from), request, outcome });
                }
                Ok(())
            }
        }
    }

    /// Makes connections where there are none and can be.
    pub(crate) fn connect(&mut self) {
        for a in 0..self.options.nodes {
            for b in (0..self.options.nodes).filter(|b| *b != a) {
                let (run_a, run_b) = (self.nodes[a].run, self.nodes[b].run);
                if !self.lives(a, run_a) || !self.lives(b, run_b) {
                    continue;
                }
                if let Some(dial) = self.links.connect((a, run_a), (b, run_b)) {
                    self.give(a, Local::PeerConnected(id(b)));
                    if dial == Dial::Again {
                        self.give(b, Local::PeerRedialled(id(a)));
                    }
                }
            }
        }
        self.plan_in(20 * MILLI, Event::Connect);
    }
}

fn describe(write: &Write) -> String {
    let hard_state = write.hard_state;
    let mut text = format!("write {} t{} vote={:?}", write.id.0, hard_state.term, hard_state.vote.map(place));
    if let Some(after) = write.truncate_after {
        text += &format!(" cut after {after}");
    }
    if let Some(mark) = &write.snapshot {
        text +=
            &format!(" snapshot {} received={} resets={}", mark.meta.last, mark.received, mark.resets_log);
    }
    if let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) {
        text += &format!(" entries {}..={}", first.id, last.id);
    }
    text
}
