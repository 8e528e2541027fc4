//! A seeded simulation of whole clusters of cores: virtual time, a network and disks that misbehave, and the rules
//! of SAFETY section 1 checked after each step.
//!
//! # The fault model
//! - **Network** ([`network`]): messages are lost, doubled, late and reordered; links are cut in one direction or
//!   both, or slow; nodes are cut off alone or in groups.
//! - **Crashes** ([`disk`]): a process or a machine ends at any moment, also between any two effects of one output
//!   of the core; power may go while a process is down. Of what was not synced, any prefix of the writes is left.
//! - **Disks**: syncs take long, stall for seconds, or fail, which ends the process. Reads of the log fail or show
//!   what has been cut since.
//! - **Time** ([`clock`]): monotonic clocks start anywhere and drift by up to two per cent, wall clocks are off and
//!   jump, processes stand still. A runtime may gather inputs for a while before it asks for the output.
//! - **Peers**: messages with impossible terms, handovers at any moment, news of deaths that may be wrong.
//!
//! Never: a changed message, a forged sender, a disk that forgets what it has synced.
//!
//! # One run
//! Storms and recoveries take turns ([`schedule`]). In a storm clients propose, read and take snapshots while faults
//! strike. Then all faults stop: within a bound there must be a leader, a new command must be committed, all nodes
//! must have applied the same, and the term may not change any more.
//!
//! A step is one event: one input to a core, one crash, one request of a client. Everything follows from
//! [`Options`]; a [`Failure`] prints the command that plays it again.

mod clock;
mod coverage;
mod disk;
mod network;
mod node;
mod random;
mod rules;
mod schedule;
mod trace;
mod workload;

use std::fmt;

use self::{
    clock::{Agenda, Event, MILLI, Time},
    disk::Disk,
    network::{Network, Weather, id, place},
    node::{Node, place8},
    random::Random,
    rules::{Checked, Ghost, check},
    schedule::{Fault, Phase, Storm},
    trace::Trace,
    workload::{Answer, Workload},
};
pub use self::{
    coverage::{Coverage, Mark},
    rules::Violation,
};
use crate::{Body, ConfState, Config, Member, Message, NodeId, ProposeError, RoleKind};

/// What determines a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many nodes, 1 to 9, all of them voters.
    pub nodes: usize,
    /// Everything else that is random.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
}

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Nothing: the product's default settings and a command each second. For measuring.
    None,
    /// Everything, in storms with recoveries between them, and with settings so small that every limit is met.
    Storms,
}

/// A simulated cluster.
#[derive(Debug)]
pub struct Sim {
    options: Options,
    config: Config,
    agenda: Agenda,
    random: Random,
    network: Network,
    disks: Vec<Disk>,
    nodes: Vec<Node>,
    ghost: Ghost,
    workload: Workload,
    storms: bool,
    storm: Storm,
    phase: Phase,
    /// How far clocks drift, in parts per million.
    drift: i64,
    coverage: Coverage,
    trace: Trace,
    steps: u64,
}

/// A run that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What determined the run.
    pub options: Options,
    /// How many steps it had been asked for.
    pub asked: u64,
    /// At which step it failed.
    pub step: u64,
    /// What went wrong.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { options, asked, step, violation } = self;
        writeln!(f, "{violation}")?;
        writeln!(f, "at step {step} of seed {} with {} nodes; replay with", options.seed, options.nodes)?;
        write!(
            f,
            "cargo run --release -p raft-core --features sim --example simulate -- --nodes {} --seed {} --steps {asked} --trace",
            options.nodes, options.seed
        )
    }
}

impl std::error::Error for Failure {}

impl Sim {
    /// A cluster whose nodes have just been founded and started.
    #[must_use]
    pub fn new(options: Options) -> Sim {
        let mut random = Random::new(options.seed.wrapping_mul(2) ^ options.nodes as u64);
        let storms = options.faults == Faults::Storms;
        let config = if storms { small_config(&mut random) } else { Config::new(NodeId(1), 0) };
        let conf = ConfState::of_voters((0..options.nodes).map(|n| {
            let address = format!("node{n}:7402");
            (id(n), Member { incarnation: crate::Incarnation(n as u64 + 1), address })
        }));
        let mut agenda = Agenda::default();
        agenda.plan(0, Event::Client);
        agenda.plan(0, Event::Phase);
        for n in 0..options.nodes {
            agenda.plan(0, Event::Restart(place8(n), 0));
        }
        let client_every = if storms { 5 * MILLI } else { 1000 * MILLI };
        Sim {
            options,
            agenda,
            network: Network::new(options.nodes),
            disks: vec![Disk::founded(conf); options.nodes],
            nodes: (0..options.nodes).map(|_| Node::new()).collect(),
            ghost: Ghost::new(options.nodes, config.election_timeout_min_ms),
            workload: Workload::new(options.nodes),
            config,
            storms,
            storm: Storm::calm(client_every),
            phase: Phase::Calm,
            drift: [0, 100, 20_000][random.index(3)],
            random,
            coverage: Coverage::default(),
            trace: Trace::default(),
            steps: 0,
        }
    }

    /// Writes down what happens from now on; [`take_trace`](Self::take_trace) gives it out.
    pub fn enable_trace(&mut self) {
        self.trace.on = true;
    }

    /// The lines written since the last call.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take()
    }

    /// Runs for `steps` steps and then to the end of the next recovery, whose success is part of the test.
    ///
    /// # Errors
    /// The first rule that was broken. The simulation must not be continued then.
    pub fn run(&mut self, steps: u64) -> Result<(), Failure> {
        let end = self.steps + steps;
        let mut recoveries = None;
        loop {
            let recovered = self.coverage.count(Mark::Healed);
            if self.steps >= end && (!self.storms || recoveries.is_some_and(|before| recovered > before)) {
                return Ok(());
            }
            if self.steps >= end && recoveries.is_none() {
                recoveries = Some(recovered);
            }
            let done = self.step();
            if let Err(violation) = done {
                self.trace.line(self.agenda.now(), || violation.to_string());
                return Err(Failure { options: self.options, asked: steps, step: self.steps, violation });
            }
        }
    }

    /// Lets one event happen and checks the rules.
    ///
    /// # Errors
    /// The rule that it broke.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.steps += 1;
        match self.agenda.next() {
            Event::Deliver(slot) => self.deliver(slot),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Phase => self.phase(),
            event @ (Event::Timer(..)
            | Event::Drain(..)
            | Event::Synced(..)
            | Event::Told(..)
            | Event::Applied(..)
            | Event::Fetched(..)
            | Event::SnapshotTaken(..)
            | Event::SnapshotBroke(..)
            | Event::PeerNews(..)
            | Event::Restart(..)) => self.node_event(event),
        }
    }

    /// How many steps were done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Simulated microseconds since the beginning.
    #[must_use]
    pub fn elapsed_micros(&self) -> u64 {
        self.agenda.now()
    }

    /// How many entries were committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.ghost.commit().0
    }

    /// What occurred so far.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    // --- Clients. ---

    fn client(&mut self) -> Checked {
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
    fn some_node(&mut self) -> usize {
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

    fn propose(&mut self, n: usize, padding: u64) -> Result<Option<usize>, Violation> {
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
                    ProposeError::Halted => {}
                }
                Ok(None)
            }
        }
    }

    fn read(&mut self, n: usize) -> Checked {
        let now = self.nodes[n].clock.now(self.agenda.now());
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let floor = self.ghost.commit();
        let token = self.workload.read(n, floor, self.agenda.now());
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

    // --- Faults. ---

    fn fault(&mut self) -> Checked {
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
                self.disks[n].stalled_until = now + self.random.between(50 * MILLI, 3000 * MILLI);
            }
            Fault::FailDisk => self.nodes[n].sync_fails = true,
            Fault::Pause => {
                self.coverage.hit(Mark::Paused);
                self.nodes[n].paused_until = now + self.random.between(5 * MILLI, 2000 * MILLI);
            }
            Fault::JumpWallClock => {
                self.coverage.hit(Mark::WallClockJump);
                self.nodes[n].clock.wall = self.random.below(1 << 42);
            }
            Fault::Transfer => self.hand_over(n)?,
            Fault::AbsurdTerm => self.deliver_absurd(n, other)?,
            Fault::PeerNews => {
                if self.is_up(n) && self.nodes[n].paused_until <= now {
                    let died = self.random.chance(500);
                    self.peer_news(n, id(other), died)?;
                }
            }
        }
        Ok(())
    }

    /// The leader is asked to hand over; or it tells a follower to campaign at once, ready for it or not (dissertation
    /// 3.10).
    fn hand_over(&mut self, to: usize) -> Checked {
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
        if self.random.chance(500) {
            let now = self.nodes[n].clock.now(now);
            let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
            if core.transfer_leadership(now, id(to)).is_ok() {
                self.coverage.hit(Mark::TransferStarted);
            }
            return self.after_input(n);
        }
        self.coverage.hit(Mark::CampaignForced);
        let message = Message { from: leader, to: id(to), term, body: Body::TimeoutNow };
        self.network.send(message, None, &mut self.agenda, &mut self.random, &mut self.coverage);
        Ok(())
    }

    // --- Phases. ---

    fn phase(&mut self) -> Checked {
        let now = self.agenda.now();
        if !self.storms {
            return Ok(());
        }
        self.agenda.plan_in(10 * MILLI, Event::Phase);
        match self.phase {
            Phase::Calm => self.begin_storm(),
            Phase::Storm { until } => {
                if now >= until {
                    self.heal()?;
                }
            }
            Phase::Healing { settled, deadline, command } => {
                if now < settled {
                    return Ok(());
                }
                if self.has_recovered(command) {
                    let Some((term, leader)) = self.ghost.latest_leader() else { return Ok(()) };
                    self.trace.line(now, || format!("*** recovered under {leader} in term {term}"));
                    let until = now + 6 * self.election_timeout();
                    self.phase = Phase::Stable { since: now, until, term };
                    return Ok(());
                }
                check(now < deadline, "V1", || self.state_of_cluster("no recovery"))?;
                let waits = command.is_some_and(|command| {
                    matches!(self.workload.answer(command), Answer::Waiting | Answer::Committed)
                });
                if !waits && let Some((_, leader)) = self.ghost.latest_leader() {
                    let command = self.propose(place(leader), 0)?;
                    self.phase = Phase::Healing { settled, deadline, command };
                }
            }
            Phase::Stable { since, until, term } => {
                let held = self.ghost.members.iter().all(|member| member.term == term);
                check(held, "V1", || self.state_of_cluster("the term changed without need"))?;
                if now >= until {
                    self.workload.r2_reads_are_answered(since + 2 * self.election_timeout())?;
                    self.coverage.hit(Mark::Healed);
                    self.begin_storm();
                }
            }
        }
        Ok(())
    }

    fn begin_storm(&mut self) {
        let now = self.agenda.now();
        self.storm = Storm::drawn(&mut self.random);
        self.network.weather = self.storm.weather;
        self.phase = Phase::Storm { until: now + self.random.between(300, 6000) * MILLI };
        self.agenda.plan_in(MILLI, Event::Fault);
        let storm = &self.storm;
        self.trace.line(now, || format!("*** {storm:?}"));
    }

    fn heal(&mut self) -> Checked {
        let now = self.agenda.now();
        self.trace.line(now, || "*** all faults stop".to_owned());
        // What is still on its way may arrive late; what was postponed arrives as well.
        let paused = self.nodes.iter().map(|node| node.paused_until).max().unwrap_or_default();
        let settled = paused.max(now + 2 * 8 * self.storm.weather.delay_max);
        self.storm = Storm::calm(5 * MILLI);
        self.network.weather = Weather::FAIR;
        self.network.heal();
        for n in 0..self.nodes.len() {
            self.hurry_sync(n);
            if !self.is_up(n) {
                self.start(n)?;
            }
        }
        let deadline = settled + 20 * self.election_timeout() + 3 * self.config.snapshot_timeout_ms * MILLI;
        self.phase = Phase::Healing { settled, deadline, command: None };
        Ok(())
    }

    fn election_timeout(&self) -> Time {
        self.config.election_timeout_max_ms * MILLI
    }

    /// V1 and V2: the new command is committed and all nodes have applied the same.
    fn has_recovered(&self, command: Option<usize>) -> bool {
        let Some(index) = command.and_then(|command| self.workload.committed(command)) else { return false };
        let term = self.ghost.members[0].term;
        self.ghost.members.iter().all(|member| member.term == term)
            && self.nodes.iter().all(|node| {
                let machine = &node.machine;
                machine.last.index >= index && self.ghost.is_history(machine.last.index, machine.hash)
            })
    }

    fn state_of_cluster(&self, what: &str) -> String {
        let mut text = what.to_owned();
        for (n, member) in self.ghost.members.iter().enumerate() {
            text += &format!(
                "; {} {:?} term={} log={}..={} commit={} applied={}",
                id(n),
                member.role,
                member.term,
                member.log.start(),
                member.log.last(),
                member.commit,
                self.nodes[n].machine.last
            );
        }
        text
    }
}

/// Settings so small that every limit is met within seconds.
fn small_config(random: &mut Random) -> Config {
    Config {
        heartbeat_ms: 30,
        election_timeout_min_ms: 150,
        election_timeout_max_ms: 300,
        suspicion_delay_max_ms: 20,
        commit_notice_delay_ms: random.between(0, 5),
        append_bytes_max: disk::count(random.between(100, 2000)),
        inflight_messages_max: disk::count(random.between(1, 8)),
        inflight_bytes_max: disk::count(random.between(500, 8000)),
        tail_bytes_max: disk::count(random.between(500, 20_000)),
        uncommitted_bytes_max: disk::count(random.between(2000, 20_000)),
        apply_bytes_max: disk::count(random.between(300, 4000)),
        unapplied_bytes_max: disk::count(random.between(1000, 8000)),
        trailing_entries: random.below(40),
        snapshot_timeout_ms: 500,
        ..Config::new(NodeId(1), 0)
    }
}
