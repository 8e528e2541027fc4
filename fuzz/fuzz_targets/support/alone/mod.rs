//! One core and its surroundings. What it owes whatever it is told is in `rules`, as far as it shows after each input, and
//! in `outputs`.

mod disk;
mod forge;
mod outputs;
mod plan;
mod rules;
mod steps;

use std::collections::{BTreeMap, VecDeque};

use raft_core::{
    Apply, Body, ConfState, Config, Fetch, HardState, Incarnation, Input, Instant, Lease, LogIndex, Message,
    NodeId, Now, PRIORITY_MAX, Raft, ReadToken, Recovered, SnapshotMeta, StartError, StartNumber, Term,
    Timestamp,
};

pub use self::plan::Plan;
use self::{
    disk::{Disk, Image},
    forge::{Forge, Heard},
    plan::{Crash, FirstTerm, Start},
    rules::{View, Witness},
};

/// The core and what surrounds it.
struct World {
    raft: Raft,
    config: Config,
    disk: Disk,
    now: Now,
    /// Work for the state machine that it has not done.
    apply: VecDeque<Apply>,
    fetches: Vec<Fetch>,
    /// The core's latest messages, and all that peers said to it.
    said: VecDeque<Message>,
    was_told: Vec<Message>,
    heard: BTreeMap<NodeId, Heard>,
    /// Every snapshot that was marked.
    snapshots: Vec<SnapshotMeta>,
    /// A read that was asked for, and the least index it may be answered with.
    reads: BTreeMap<ReadToken, LogIndex>,
    tokens: u64,
    /// Inputs since its work was taken.
    gathered: u32,
    witness: Witness,
}

pub fn run(plan: &Plan) {
    let mut world = World::new(&plan.start);
    for turn in plan.turns.iter().take(TURNS_MAX) {
        world.step(&turn.step);
        if !turn.gather {
            world.take();
        }
    }
    world.take();
}

const TURNS_MAX: usize = 250;

/// The core itself.
const OWN: NodeId = NodeId(1);

impl World {
    fn new(start: &Start) -> World {
        let founding = founding(start);
        let term = match start.term {
            FirstTerm::None => Term::ZERO,
            FirstTerm::Late(below) => Term(u64::MAX - 1 - u64::from(below)),
        };
        let image = Image {
            hard_state: HardState { term, ..HardState::default() },
            snapshot: SnapshotMeta { conf: founding, ..SnapshotMeta::default() },
            ..Image::default()
        };
        let config = config(start.small);
        let now = Now { instant: Instant(1_000_000), wall: Timestamp(1000) };
        let mut disk = Disk::of(image);
        let raft = start_core(&config, &mut disk, now, &Crash::NONE);
        let witness = Witness::new(&raft);
        World {
            raft,
            config,
            disk,
            now,
            apply: VecDeque::new(),
            fetches: Vec::new(),
            said: VecDeque::new(),
            was_told: Vec::new(),
            heard: BTreeMap::new(),
            snapshots: Vec::new(),
            reads: BTreeMap::new(),
            tokens: 0,
            gathered: 0,
            witness,
        }
    }

    /// Hands in one input and looks what became of it.
    fn tell(&mut self, input: Input) {
        self.tell_at(self.now, input);
    }

    fn tell_at(&mut self, now: Now, input: Input) {
        let before = View { fits: fits(&self.raft, &input), ..View::of(&self.raft) };
        let outcome = self.raft.handle(now, input.clone());
        self.gathered += 1;
        self.witness.told(&self.raft, &self.disk, &before, &input, &outcome);
        if let (Input::Message(message), Ok(())) = (&input, &outcome) {
            self.was_told.push(message.clone());
        }
    }

    /// The process ends, and starts again with what its disk holds.
    fn crash(&mut self, crash: &Crash) {
        self.config.start = StartNumber(self.config.start.0 + 1);
        self.config.seed += 1;
        self.raft = start_core(&self.config, &mut self.disk, self.now, crash);
        self.apply.clear();
        self.fetches.clear();
        self.said.clear();
        self.reads.clear();
        self.witness.restarts(&self.raft, &self.disk);
    }

    fn forge(&self) -> Forge<'_> {
        Forge { raft: &self.raft, heard: &self.heard }
    }
}

/// Whether an append follows what the core has; what is committed here, every leader has.
fn fits(raft: &Raft, input: &Input) -> bool {
    let Input::Message(Message { body: Body::AppendEntries { prev, .. }, .. }) = input else { return false };
    prev.index <= raft.commit() || raft.term_at(prev.index) == Some(prev.term)
}

impl Crash {
    /// Nothing is lost but the process.
    const NONE: Crash = Crash { kept: 0, damaged: None, snapshot_lost: false, tail: u8::MAX };
}

/// What the core itself has written never keeps it from starting, unless it is alone with its damage.
fn start_core(config: &Config, disk: &mut Disk, now: Now, crash: &Crash) -> Raft {
    let before = disk.durable.clone();
    let start = |recovered: Recovered| Raft::new(config.clone(), recovered, now);
    let refused = match start(disk.crash(crash.kept, crash.damaged, crash.snapshot_lost, crash.tail)) {
        Ok(raft) => return raft,
        Err(refused) => refused,
    };
    let alone = matches!(refused, StartError::DamagedAlone { .. } | StartError::SnapshotLostAlone { .. });
    assert!(alone, "it does not start with what it wrote: {refused}, {:?}", disk.durable);
    // It is given another disk with all that was durable.
    *disk = Disk {
        kept: std::mem::take(&mut disk.kept),
        ..Disk::of(Image { promised: None, snapshot_lost: false, ..before })
    };
    start(disk.crash(0, None, false, crash.tail)).expect("nothing is damaged")
}

fn founding(start: &Start) -> ConfState {
    let voters = 1 + start.voters % 5;
    let mut conf = forge::conf((1 << voters) - 1);
    if start.learner {
        let learner = if start.learns && voters > 1 { OWN } else { NodeId(u64::from(voters) + 1) };
        conf.voters.remove(&learner);
        conf.learners.insert(learner);
        conf.members.insert(learner, forge::member(learner, false));
    }
    if start.lease {
        conf.lease = Some(Lease { timeout_ms: 400, drift_ppm: 1000 });
    }
    conf
}

fn config(small: bool) -> Config {
    let config = Config { incarnation: Incarnation(OWN.0), priority: PRIORITY_MAX, ..Config::new(OWN, 5) };
    if !small {
        return config;
    }
    Config {
        append_bytes_max: 100,
        inflight_messages_max: 2,
        inflight_bytes_max: 300,
        tail_bytes_max: 150,
        tail_bytes_idle_max: 0,
        uncommitted_bytes_max: 400,
        apply_bytes_max: 100,
        unapplied_bytes_max: 200,
        trailing_entries: 1,
        snapshot_timeout_ms: 500,
        disk_stall_ms: 300,
        greeting_delay_ms: 20,
        ..config
    }
}
