//! What goes wrong when. A seed decides which kinds of faults a storm has and how hard they blow. After each storm
//! everything stops going wrong, and the cluster must recover within a bound.

use raft_wal::vfs::sim::{Call, Fault as DiskFault, Survivors};

use crate::{
    coverage::Mark,
    network::{Weather, id},
    node::{Armed, Life, Local},
    random::Random,
    world::{Event, MILLI, SECOND, Time, World},
};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Storm,
    /// Faults have stopped, clients go on.
    Healing,
    /// Clients have stopped: before the deadline all nodes must have applied the same.
    Settling {
        deadline: Time,
    },
    /// The last storm is over and everything agrees.
    Over,
}

/// How hard it blows. Shares are per mille, times microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Storm {
    pub(crate) weather: Weather,
    faults: Vec<Fault>,
    every: Time,
    /// Effects after which a process ends, one in ten of this.
    pub(crate) interruption: u64,
    /// Inputs that wait for more.
    pub(crate) batching: u64,
    pub(crate) sync_max: Time,
    pub(crate) apply_max: Time,
    pub(crate) fetch_failure: u64,
    pub(crate) transfer_failure: u64,
    /// Snapshots that are offered twice.
    pub(crate) offered_again: u64,
    /// Between two pieces of a snapshot.
    pub(crate) transfer_pause_max: Time,
    pub(crate) down_max: Time,
    pub(crate) think_max: Time,
    /// Bytes of a value.
    pub(crate) padding: usize,
}

/// A fault that is started on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    OneWayCut,
    Partition,
    IsolateLeader,
    Mend,
    BreakConnection,
    KillProcess,
    CutPower,
    KillLeader,
    CutPowerOfAll,
    CutPowerWhileDown,
    CrashInAFileOperation,
    FailDisk,
    FillDisk,
    Pause,
    SetWallClock,
    HandOver,
    TakeSnapshot,
}

const FAULTS: &[Fault] = &[
    Fault::OneWayCut,
    Fault::Partition,
    Fault::IsolateLeader,
    Fault::Mend,
    Fault::BreakConnection,
    Fault::KillProcess,
    Fault::CutPower,
    Fault::KillLeader,
    Fault::CutPowerOfAll,
    Fault::CutPowerWhileDown,
    Fault::CrashInAFileOperation,
    Fault::FailDisk,
    Fault::FillDisk,
    Fault::Pause,
    Fault::SetWallClock,
    Fault::HandOver,
    Fault::TakeSnapshot,
];

impl Storm {
    pub(crate) fn drawn(random: &mut Random) -> Storm {
        let mut faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| random.chance(400)).collect();
        faults.push(Fault::Mend);
        Storm {
            weather: Weather::drawn(random),
            faults,
            every: random.pick(&[30, 100, 300]) * MILLI,
            interruption: random.pick(&[0, 0, 10, 50]),
            batching: random.pick(&[0, 100, 500]),
            sync_max: random.pick(&[200, 3000, 30_000]),
            apply_max: random.pick(&[50, 2000, 30_000]),
            fetch_failure: random.pick(&[0, 100]),
            transfer_failure: random.pick(&[0, 20, 100]),
            offered_again: random.pick(&[0, 1000]),
            transfer_pause_max: random.pick(&[1, 10, 100]) * MILLI,
            padding: random.pick(&[0, 100, 1000]),
            down_max: random.pick(&[20, 200, 1000, 3000]) * MILLI,
            think_max: random.pick(&[2, 10, 40]) * MILLI,
        }
    }

    fn over(&self) -> Storm {
        Storm {
            weather: Weather::FAIR,
            faults: Vec::new(),
            interruption: 0,
            sync_max: 1000,
            apply_max: 500,
            fetch_failure: 0,
            transfer_failure: 0,
            offered_again: 0,
            transfer_pause_max: MILLI,
            down_max: 20 * MILLI,
            think_max: 10 * MILLI,
            ..self.clone()
        }
    }
}

/// How long clients go on while the cluster heals, and how long it may take to agree behind that.
const HEALING: Time = 2 * SECOND;
const SETTLING_MAX: Time = 20 * SECOND;

impl World {
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        if self.phase != Phase::Storm {
            return Ok(());
        }
        let next = self.random.between(self.storm.every / 2, self.storm.every * 2);
        self.plan_in(next, Event::Fault);
        let (fault, nodes) = (self.random.index(self.storm.faults.len()), self.options.nodes);
        let fault = self.storm.faults[fault];
        let victim = self.random.index(nodes);
        let other = (victim + 1 + self.random.index(nodes - 1)) % nodes;
        let up = !matches!(self.nodes[victim].life, Life::Down);
        self.trace(|_| format!("fault {fault:?} {}", id(victim)));
        match fault {
            Fault::OneWayCut => {
                self.links.cut(victim, other);
                self.coverage.note(Mark::OneWayCut);
            }
            Fault::Partition => {
                let group = self.random.next();
                self.links.split(|node| group >> node & 1 == 0);
                self.coverage.note(Mark::Partition);
            }
            Fault::IsolateLeader => {
                let alone = self.leader().unwrap_or(victim);
                self.links.split(|node| node == alone);
                self.coverage.note(Mark::Partition);
            }
            Fault::Mend => self.links.mend(),
            Fault::BreakConnection => {
                self.links.break_connection(victim, other);
                self.coverage.note(Mark::ConnectionBroken);
            }
            Fault::KillProcess if up => self.crash(victim, false),
            Fault::CutPower if up => self.crash(victim, true),
            Fault::KillLeader => {
                if let Some(leader) = self.leader() {
                    let machine = self.random.chance(500);
                    self.crash(leader, machine);
                }
            }
            Fault::CutPowerOfAll => {
                for node in 0..nodes {
                    if !matches!(self.nodes[node].life, Life::Down) {
                        self.crash(node, true);
                    }
                }
            }
            Fault::CutPowerWhileDown if !up => {
                let survivors = Survivors::Random(self.random.next());
                let node = &mut self.nodes[victim];
                node.vfs = node.vfs.crash_machine(survivors);
                self.coverage.note(Mark::PowerCutWhileDown);
            }
            Fault::CrashInAFileOperation if up && self.nodes[victim].armed.is_none() => {
                let (n, machine) = (self.random.between(1, 40), self.random.chance(600));
                let node = &mut self.nodes[victim];
                node.vfs.halt_at_change(n);
                node.armed = Some(Armed::Crash { at_change: node.vfs.changes() + n, machine });
            }
            Fault::FailDisk if up && self.nodes[victim].armed.is_none() => {
                let n = self.random.between(1, 20);
                let node = &mut self.nodes[victim];
                match self.random.index(4) {
                    0 => node.vfs.fail_call(Call::SyncData, n.div_ceil(4), DiskFault::Error),
                    1 => node.vfs.fail_call(Call::Write, n.div_ceil(2), DiskFault::Short(300)),
                    2 => node.vfs.fail_change(n, DiskFault::NoSpace),
                    _ => node.vfs.fail_change(n, DiskFault::Error),
                }
                node.armed = Some(Armed::Error);
                self.coverage.note(Mark::DiskError);
            }
            Fault::FillDisk if self.nodes[victim].armed.is_none() => {
                self.fill_disk(victim);
                self.coverage.note(Mark::DiskFull);
            }
            Fault::Pause if up => {
                let pause = self.random.between(20, 1000) * MILLI;
                self.nodes[victim].paused_until = self.now + pause;
                self.coverage.note(Mark::Pause);
            }
            Fault::SetWallClock => {
                self.nodes[victim].clock.wall = 1_700_000_000_000 + self.random.between(0, 100_000);
            }
            Fault::HandOver => {
                if let Some(leader) = self.leader() {
                    self.give(leader, Local::Transfer);
                }
            }
            Fault::TakeSnapshot => self.give(victim, Local::TakeSnapshot),
            Fault::KillProcess
            | Fault::CutPower
            | Fault::CutPowerWhileDown
            | Fault::CrashInAFileOperation
            | Fault::FailDisk
            | Fault::FillDisk
            | Fault::Pause => {}
        }
        Ok(())
    }

    pub(crate) fn next_phase(&mut self) -> Result<(), String> {
        match self.phase {
            Phase::Storm => {
                self.trace(|_| "the storm is over".to_owned());
                self.phase = Phase::Healing;
                self.storm = self.storm.over();
                self.links.mend();
                for node in 0..self.options.nodes {
                    self.nodes[node].paused_until = 0;
                    match self.nodes[node].armed {
                        // Whatever waited there has to happen now.
                        Some(Armed::Crash { .. } | Armed::Error)
                            if !matches!(self.nodes[node].life, Life::Down) =>
                        {
                            self.crash(node, false);
                        }
                        Some(Armed::Full) => {
                            self.nodes[node].vfs.set_capacity(None);
                            self.nodes[node].armed = None;
                        }
                        Some(Armed::Crash { .. } | Armed::Error) | None => {}
                    }
                }
                self.plan_in(HEALING, Event::Phase);
            }
            Phase::Healing => {
                self.phase = Phase::Settling { deadline: self.now + SETTLING_MAX };
                self.plan_in(50 * MILLI, Event::Phase);
            }
            Phase::Settling { deadline } => {
                if self.has_settled() {
                    self.check_agreement()?;
                    self.coverage.note(Mark::Healed);
                    if self.storm_is_over() {
                        self.phase = Phase::Over;
                        return Ok(());
                    }
                    self.storm = Storm::drawn(&mut self.random);
                    self.phase = Phase::Storm;
                    for client in 0..crate::world::CLIENTS {
                        self.think(client);
                    }
                    self.plan_in(self.storm.every, Event::Fault);
                    let storm = self.random.between(2, 6) * SECOND;
                    self.plan_in(storm, Event::Phase);
                } else if self.now > deadline {
                    return Err(self.why_unsettled());
                } else {
                    self.plan_in(50 * MILLI, Event::Phase);
                }
            }
            Phase::Over => {}
        }
        Ok(())
    }

    /// One leader, nobody waits, and everybody has applied everything.
    fn has_settled(&self) -> bool {
        self.clients.open().next().is_none()
            && self.leader().is_some()
            && self.nodes.iter().all(|node| {
                node.process().is_some_and(|process| {
                    process.machine.position().last.index == self.ghost.end()
                        && process.replica.raft().last().index == self.ghost.end()
                        && process.jobs.is_empty()
                })
            })
    }

    fn check_agreement(&self) -> Result<(), String> {
        for (place, node) in self.nodes.iter().enumerate() {
            let fingerprint = node.process().map(|process| process.machine.state().fingerprint());
            if fingerprint != Some(self.ghost.fingerprint()) {
                return Err(format!("V2: {} holds another state than the history gives", id(place)));
            }
        }
        Ok(())
    }

    fn why_unsettled(&self) -> String {
        let mut text = format!("V1: the cluster does not recover; decided up to {}", self.ghost.end());
        for (place, node) in self.nodes.iter().enumerate() {
            text += &match node.process() {
                Some(process) => {
                    let raft = process.replica.raft();
                    format!(
                        "; {} {:?} t{} leader {:?} last {} commit {} applied {}",
                        id(place),
                        raft.role(),
                        raft.term(),
                        raft.leader(),
                        raft.last(),
                        raft.commit(),
                        process.machine.position().last
                    )
                }
                None => format!("; {} is down or founding", id(place)),
            };
        }
        for request in self.clients.open().take(5) {
            text += &format!("; open: {:?} {}", request.outcome, request.operation);
        }
        text
    }
}
