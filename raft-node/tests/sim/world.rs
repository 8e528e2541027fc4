//! Whole nodes in one thread: virtual time, and one agenda of everything that is going to happen.
//!
//! A node is the product's own parts: the replica with the core in it, the log's engine, the snapshot files, the
//! machine with the key-value store, the data directory, founding. In the place of the threads, sockets and clocks
//! around them are events of this agenda. So any failure is a seed that anybody can replay.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{Config, Message, NodeId, SnapshotMeta};
use raft_node::state_machine::SnapshotView;
use raft_wal::vfs::sim::SimVfs;

use crate::{
    clients::{Clients, Kind, OBJECTS, all_keys},
    coverage::{Coverage, Mark},
    faults::{Phase, Storm},
    ghost::Ghost,
    history::{self, KEYS, Step, Verdict},
    network::{Links, Packet, id},
    node::{Clock, Life, Local, Node},
    random::Random,
    storage::Transfer,
};

/// Virtual time in microseconds.
pub(crate) type Time = u64;
pub(crate) const MILLI: Time = 1000;
pub(crate) const SECOND: Time = 1_000_000;

/// What determines a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    pub(crate) trace: bool,
}

/// Something that is going to happen. What names a run is void once that run has ended.
pub(crate) enum Event {
    Start { node: usize },
    FoundingTick { node: usize, run: u64 },
    Packet { from: usize, to: usize, to_run: u64, packet: Packet },
    Local { node: usize, run: u64, local: Local },
    Turn { node: usize, run: u64 },
    Disk { node: usize, run: u64 },
    Apply { node: usize, run: u64 },
    WriteSnapshot { node: usize, run: u64, meta: Box<SnapshotMeta>, view: Box<dyn SnapshotView> },
    Offer { node: usize, run: u64, message: Box<Message> },
    Transfer { transfer: usize },
    Client { client: usize },
    Connect,
    Fault,
    Phase,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) now: Time,
    agenda: BTreeMap<(Time, u64), Event>,
    planned: u64,
    pub(crate) random: Random,
    pub(crate) config: Config,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Links,
    pub(crate) storm: Storm,
    pub(crate) phase: Phase,
    pub(crate) clients: Clients,
    /// Clients that are about to do something.
    thinking: BTreeSet<usize>,
    pub(crate) transfers: Vec<Option<Transfer>>,
    pub(crate) ghost: Ghost,
    pub(crate) coverage: Coverage,
    pub(crate) steps: u64,
    storms: u64,
    trace: Vec<String>,
}

pub(crate) const CLIENTS: usize = 6;
/// Storms of one run, each followed by a recovery.
const STORMS: u64 = 2;
/// More steps than this in one run are an endless loop.
const STEPS_MAX: u64 = 3_000_000;

impl World {
    pub(crate) fn new(options: Options) -> World {
        let mut random = Random::new(options.seed.wrapping_mul(16) + options.nodes as u64);
        let nodes = (0..options.nodes)
            .map(|_| Node {
                vfs: SimVfs::new(),
                run: 0,
                life: Life::Down,
                clock: Clock::drawn(&mut random, 0),
                paused_until: 0,
                armed: None,
            })
            .collect();
        let config = small_config(&mut random);
        let mut world = World {
            options,
            now: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            snapshot_log_bytes: random.pick(&[2_000, 6_000, 40_000]),
            config,
            nodes,
            links: Links::new(options.nodes),
            storm: Storm::drawn(&mut random),
            phase: Phase::Storm,
            clients: Clients::default(),
            thinking: BTreeSet::new(),
            transfers: Vec::new(),
            ghost: Ghost::new(all_keys()),
            coverage: Coverage::default(),
            steps: 0,
            storms: 0,
            trace: Vec::new(),
            random,
        };
        for node in 0..options.nodes {
            let at = world.random.between(0, 200 * MILLI);
            world.plan(at, Event::Start { node });
        }
        for client in 0..CLIENTS {
            world.think(client);
        }
        world.plan(10 * MILLI, Event::Connect);
        world.plan(50 * MILLI, Event::Fault);
        let storm_ends = world.random.between(2, 6) * SECOND;
        world.plan(storm_ends, Event::Phase);
        world
    }

    /// Runs all storms and recoveries, then judges the clients' history.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while self.phase != Phase::Over {
            self.step()?;
        }
        self.read_everything_everywhere()?;
        for object in 0..OBJECTS {
            match history::check(&self.clients.history(object)) {
                Verdict::Linearizable => {}
                Verdict::Broken(why) => {
                    return Err(format!("R4: object {object} is not linearizable: {why}"));
                }
                Verdict::Undecided(why) => {
                    return Err(format!("object {object}: the checker gave up: {why}"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn plan(&mut self, at: Time, event: Event) {
        self.planned += 1;
        self.agenda.insert((at.max(self.now), self.planned), event);
    }

    pub(crate) fn plan_in(&mut self, delay: Time, event: Event) {
        self.plan(self.now + delay, event);
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(((at, _), event)) = self.agenda.pop_first() else {
            return Err("nothing is left to happen".into());
        };
        self.now = at;
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err("the run does not come to an end".into());
        }
        // A process that stands still does nothing; what comes for it waits in the kernel.
        if let Event::FoundingTick { node, .. }
        | Event::Turn { node, .. }
        | Event::Disk { node, .. }
        | Event::Apply { node, .. }
        | Event::WriteSnapshot { node, .. } = event
            && self.nodes[node].paused_until > at
        {
            let until = self.nodes[node].paused_until;
            self.plan(until, event);
            return Ok(());
        }
        match event {
            Event::Start { node } => self.start(node),
            Event::FoundingTick { node, run } if self.lives(node, run) => self.founding_tick(node),
            Event::Packet { from, to, to_run, packet } => self.arrive(from, to, to_run, packet),
            Event::Local { node, run, local } if self.lives(node, run) => {
                self.give(node, local);
                Ok(())
            }
            Event::Turn { node, run } if self.lives(node, run) => self.turn(node),
            Event::Disk { node, run } if self.lives(node, run) => self.disk(node),
            Event::Apply { node, run } if self.lives(node, run) => self.apply(node),
            Event::WriteSnapshot { node, run, meta, view } if self.lives(node, run) => {
                self.write_snapshot(node, *meta, view)
            }
            Event::Offer { node, run, message } if self.lives(node, run) => {
                self.offer_snapshot(node, *message);
                Ok(())
            }
            Event::Transfer { transfer } => self.transfer(transfer),
            Event::Client { client } => {
                self.call(client);
                Ok(())
            }
            Event::Connect => {
                self.connect();
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Phase => self.next_phase(),
            // Of a run that has ended.
            Event::FoundingTick { .. }
            | Event::Local { .. }
            | Event::Turn { .. }
            | Event::Disk { .. }
            | Event::Apply { .. }
            | Event::WriteSnapshot { .. }
            | Event::Offer { .. } => Ok(()),
        }
    }

    /// Counts one more; true if it was the last.
    pub(crate) fn storm_is_over(&mut self) -> bool {
        self.storms += 1;
        self.storms == STORMS
    }

    pub(crate) fn lives(&self, node: usize, run: u64) -> bool {
        self.nodes[node].run == run && !matches!(self.nodes[node].life, Life::Down)
    }

    /// One client does something, if the node it comes to is there.
    fn call(&mut self, client: usize) {
        self.thinking.remove(&client);
        if self.phase != Phase::Storm && self.phase != Phase::Healing {
            return;
        }
        let node = if self.random.chance(300) {
            self.random.index(self.options.nodes)
        } else {
            client % self.options.nodes
        };
        if self.nodes[node].process().is_none() {
            self.think(client);
            return;
        }
        let run = self.nodes[node].run;
        self.clients.padding = self.storm.padding;
        let request = self.clients.call(&mut self.random, client, self.now, (node, run));
        self.submit(request);
    }

    fn submit(&mut self, request: usize) {
        let entry = &self.clients.requests[request];
        let crate::clients::Outcome::Open { node, .. } = entry.outcome else { return };
        let local = match entry.kind {
            Kind::Write => Local::Propose(request),
            Kind::Read => Local::Read(request),
            Kind::Stale => Local::ReadStale(request),
        };
        if entry.operation.steps.len() > 1 {
            self.coverage.note(Mark::Transaction);
        }
        self.trace(|world| {
            format!("call {request} at {} {:?}", id(node), world.clients.requests[request].operation.steps)
        });
        self.give(node, local);
    }

    /// When a client whose operation has ended goes on.
    pub(crate) fn think(&mut self, client: usize) {
        if self.thinking.insert(client) {
            let pause = self.random.between(1, self.storm.think_max);
            self.plan_in(pause, Event::Client { client });
        }
    }

    /// At the very end: every key, read at every node.
    fn read_everything_everywhere(&mut self) -> Result<(), String> {
        for node in 0..self.options.nodes {
            for object in 0..OBJECTS {
                let steps = (0..KEYS).map(Step::Get).collect();
                let run = self.nodes[node].run;
                let request =
                    self.clients.put(object, Kind::Read, steps, CLIENTS + node, self.now, (node, run));
                self.submit(request);
            }
        }
        let deadline = self.now + 5 * SECOND;
        while self.clients.open().next().is_some() {
            if self.now > deadline {
                return Err("V1: the last reads were not answered".into());
            }
            self.step()?;
        }
        Ok(())
    }

    pub(crate) fn trace(&mut self, text: impl FnOnce(&World) -> String) {
        if self.options.trace {
            let (millis, micros) = (self.now / 1000, self.now % 1000);
            let line = format!("{millis:>7}.{micros:03} ms  {}", text(self));
            self.trace.push(line);
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    /// Whoever leads, by the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leading = self.nodes.iter().enumerate().filter_map(|(place, node)| {
            let raft = node.process()?.replica.raft();
            (raft.leader() == Some(raft.id())).then(|| (raft.term(), place))
        });
        leading.max().map(|(_, place)| place)
    }

    pub(crate) fn founders(&self) -> BTreeMap<NodeId, String> {
        (0..self.options.nodes).map(|place| (id(place), format!("node{place}:7402"))).collect()
    }
}

/// Settings so small that every limit is met.
fn small_config(random: &mut Random) -> Config {
    let trailing = random.pick(&[0, 0, 10, 40]);
    let mut size = |low, high| usize::try_from(random.between(low, high)).unwrap();
    Config {
        heartbeat_ms: 30,
        election_timeout_min_ms: 150,
        election_timeout_max_ms: 300,
        suspicion_delay_max_ms: 20,
        append_bytes_max: size(200, 4000),
        inflight_messages_max: size(1, 8),
        inflight_bytes_max: size(1000, 8000),
        tail_bytes_max: size(500, 8000),
        uncommitted_bytes_max: size(4000, 40_000),
        apply_bytes_max: size(300, 4000),
        unapplied_bytes_max: size(1000, 8000),
        trailing_entries: trailing,
        snapshot_timeout_ms: 500,
        ..Config::new(NodeId(1), 0)
    }
}
