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
//! - **Time** ([`clock`]): monotonic clocks start anywhere and drift by up to ten per cent, wall clocks are off and
//!   jump, processes stand still. A runtime may gather inputs for a while before it asks for the output.
//! - **Membership** ([`admin`]): any set of voters and learners is asked for at any moment, disks are lost and their
//!   nodes come back with empty ones, nodes join and leave.
//! - **Peers**: messages with impossible terms, handovers at any moment, news of deaths that may be wrong.
//! - **Callers** ([`confusion`]), only where a test asks for it: what was reported is reported again, and what was never
//!   asked for is answered.
//!
//! Never: a changed message, a forged sender, a disk that forgets what it has synced.
//!
//! # One run
//! Storms and recoveries take turns ([`schedule`]). In a storm clients propose, read and take snapshots while faults
//! strike. Then all faults stop: within a bound there must be a leader, a new command must be committed, all nodes
//! must have applied the same, and the term may not change any more. Either the next storm follows at once, or minutes
//! of quiet, which cost next to nothing: time jumps from event to event.
//!
//! A step is one event: one input to a core, one crash, one request of a client. Everything follows from
//! [`Options`]; a [`Failure`] prints the command that plays it again.

mod admin;
mod alternatives;
mod clients;
mod clock;
mod confs;
mod confusion;
mod coverage;
mod disk;
mod faults;
mod inputs;
pub mod lab;
mod network;
mod node;
mod outputs;
mod random;
mod recovery;
mod rules;
mod schedule;
mod trace;
mod workload;

use std::fmt;

use self::{
    clock::{Agenda, Event},
    disk::Disk,
    network::{Network, id},
    node::{Node, place8},
    random::Random,
    rules::Ghost,
    schedule::{Pace, Phase, Storm},
    trace::Trace,
    workload::Workload,
};
pub use self::{
    confusion::Confusion,
    coverage::{Coverage, Mark},
    rules::Violation,
};
use crate::{ConfState, Config, Incarnation, Lease, Member, NodeId};

/// What determines a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many nodes, 1 to 9. In storms some may have to join first.
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
    /// Everything, in episodes of seconds with minutes of quiet between them, and with the product's timers: as much
    /// time as possible, as a cluster might see it.
    Episodes,
    /// Everything, in storms with recoveries between them, and with settings so small that every limit is met.
    Storms,
}

impl fmt::Display for Faults {
    /// The word that `simulate --schedule` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Faults::None => "idle",
            Faults::Episodes => "calm",
            Faults::Storms => "storm",
        })
    }
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
    /// What the cluster began with: whoever joins later begins with it too.
    founding: ConfState,
    /// The latest data directory that was made.
    incarnations: u64,
    nodes: Vec<Node>,
    ghost: Ghost,
    workload: Workload,
    storms: bool,
    pace: Pace,
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
            "cargo run --release -p raft-core --features sim --example simulate -- --schedule {} --nodes {} --seed {} --steps {asked} --trace",
            options.faults, options.nodes, options.seed
        )
    }
}

impl std::error::Error for Failure {}

impl Sim {
    /// A cluster whose nodes have just been founded and started.
    #[must_use]
    pub fn new(options: Options) -> Sim {
        Sim::steered(options, Vec::new())
    }

    /// As [`new`](Self::new), but each of the first choices is made by a byte of `tape`: what a fuzzer can search.
    #[must_use]
    pub fn steered(options: Options, tape: Vec<u8>) -> Sim {
        let mut random = Random::steered(options.seed.wrapping_mul(2) ^ options.nodes as u64, tape);
        let storms = options.faults != Faults::None;
        let mut config = match options.faults {
            Faults::None => Config::new(NodeId(1), 0),
            Faults::Episodes => patient(small_config(&mut random)),
            Faults::Storms => small_config(&mut random),
        };
        let pace = Pace::of(options.faults);
        // In half of the runs some nodes have yet to join.
        let outside = if storms && random.chance(500) { random.index(options.nodes.min(3)) } else { 0 };
        let drift = [0, 100, 20_000, 100_000][random.index(4)];
        let mut founding = ConfState::of_voters((0..options.nodes - outside).map(|n| {
            let address = format!("node{n}:7402");
            (id(n), Member { incarnation: Incarnation(n as u64 + 1), address })
        }));
        // In a third of the runs leases are on from the beginning.
        if storms && random.chance(333) {
            let timeout_ms = u32::try_from(config.election_timeout_min_ms).unwrap_or(u32::MAX);
            // Then elections follow each other as close as they may.
            config.election_timeout_max_ms = config.election_timeout_min_ms + random.between(20, 150);
            founding.lease = Some(Lease { timeout_ms, drift_ppm: u32::try_from(drift).unwrap_or_default() });
        }
        let mut agenda = Agenda::default();
        agenda.plan(0, Event::Client);
        agenda.plan(0, Event::Phase);
        for n in 0..options.nodes {
            agenda.plan(0, Event::Restart(place8(n), 0));
        }
        Sim {
            options,
            agenda,
            network: Network::new(options.nodes),
            disks: (0..options.nodes)
                .map(|n| Disk::founded(founding.clone(), Incarnation(n as u64 + 1)))
                .collect(),
            incarnations: options.nodes as u64,
            nodes: (0..options.nodes).map(|_| Node::new()).collect(),
            ghost: Ghost::new(
                options.nodes,
                (config.election_timeout_min_ms, config.election_timeout_max_ms),
                founding.clone(),
            ),
            founding,
            workload: Workload::new(options.nodes),
            config,
            storms,
            storm: Storm::calm(pace.healing_client_every),
            pace,
            phase: Phase::Calm,
            drift,
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
            Event::Mend => {
                self.network.heal();
                Ok(())
            }
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Phase => self.phase(),
            Event::Silence(n, term) => self.silence(usize::from(n), term),
            event @ (Event::Timer(..)
            | Event::Drain(..)
            | Event::Synced(..)
            | Event::Told(..)
            | Event::Applied(..)
            | Event::Fetched(..)
            | Event::SnapshotTaken(..)
            | Event::SnapshotBroke(..)
            | Event::PeerNews(..)
            | Event::Question(..)
            | Event::Restart(..)) => self.node_event(event),
        }
    }

    /// How many steps were done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether choices are left for the tape to make.
    #[must_use]
    pub fn is_steered(&self) -> bool {
        self.random.is_steered()
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
}

/// The product's timers; the limits stay as small as they are.
fn patient(config: Config) -> Config {
    let product = Config::new(config.id, config.seed);
    Config {
        heartbeat_ms: product.heartbeat_ms,
        election_timeout_min_ms: product.election_timeout_min_ms,
        election_timeout_max_ms: product.election_timeout_max_ms,
        suspicion_delay_max_ms: product.suspicion_delay_max_ms,
        commit_notice_delay_ms: product.commit_notice_delay_ms,
        disk_stall_ms: product.disk_stall_ms,
        snapshot_timeout_ms: 2000,
        ..config
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
        tail_bytes_idle_max: 400,
        uncommitted_bytes_max: disk::count(random.between(2000, 20_000)),
        apply_bytes_max: disk::count(random.between(300, 4000)),
        unapplied_bytes_max: disk::count(random.between(1000, 8000)),
        trailing_entries: random.below(40),
        snapshot_timeout_ms: 500,
        disk_stall_ms: random.between(100, 500),
        ..Config::new(NodeId(1), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bounded piece of what `tests/sim.rs` and the example do at length.
    #[test]
    fn a_few_storms_and_episodes_break_no_rule() {
        for (faults, seeds, steps) in [(Faults::Storms, 24, 3000), (Faults::Episodes, 4, 6000)] {
            for seed in 0..seeds {
                let nodes = if seed % 2 == 0 { 3 } else { 5 };
                if let Err(failure) = Sim::new(Options { nodes, seed, faults }).run(steps) {
                    panic!("{failure}");
                }
            }
        }
    }
}
