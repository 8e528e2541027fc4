//! What goes wrong when. A seed decides which kinds of faults a storm has and how hard they blow: runs that differ in
//! kind find more than one run with a little of everything. After each storm all faults stop and the cluster must
//! recover. How fast one thing follows another is the [`Pace`].

use super::Faults;
use super::{
    clock::{MILLI, Time},
    network::Weather,
    random::Random,
};
use crate::Term;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing goes wrong, nothing is asked.
    Calm,
    /// Faults, until then.
    Storm { until: Time },
    /// Faults have stopped. Before the deadline there must be a leader that commits a new command, and all nodes
    /// must have applied the same (V1, V2).
    Healing { settled: Time, deadline: Time, command: Option<usize> },
    /// The cluster is whole: until then the term may not change (V1).
    Stable { since: Time, until: Time, term: Term, given: usize },
}

/// How fast one thing follows another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// By how much faults, and the time a node is down, are slower than where every storm follows the last.
    pub(super) stretch: u64,
    /// By how much clients are slower in a storm.
    pub(super) client_stretch: u64,
    /// How long a storm lasts, at least and at most.
    pub(super) storm: (Time, Time),
    /// The time between two requests of clients while the cluster recovers.
    pub(super) healing_client_every: Time,
    /// And once it has.
    pub(super) stable_client_every: Time,
    /// How long the cluster is left alone after it has recovered, at least and at most; `None`: six election timeouts.
    pub(super) quiet: Option<(Time, Time)>,
    /// Whether somebody looks all the time how things stand; otherwise only when a phase may be over.
    pub(super) watched: bool,
}

impl Pace {
    pub(super) fn of(faults: Faults) -> Pace {
        let storms = Pace {
            stretch: 1,
            client_stretch: 1,
            storm: (300 * MILLI, 6000 * MILLI),
            healing_client_every: 5 * MILLI,
            stable_client_every: 5 * MILLI,
            quiet: None,
            watched: true,
        };
        match faults {
            Faults::Storms => storms,
            Faults::Episodes => Pace {
                stretch: 3,
                client_stretch: 20,
                storm: (1000 * MILLI, 15_000 * MILLI),
                healing_client_every: 200 * MILLI,
                stable_client_every: 1000 * MILLI,
                quiet: Some((60_000 * MILLI, 300_000 * MILLI)),
                watched: false,
            },
            Faults::None => {
                Pace { healing_client_every: 1000 * MILLI, stable_client_every: 1000 * MILLI, ..storms }
            }
        }
    }
}

/// A fault that is started on purpose. What the network and the crash points add by chance is in [`Storm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// One link goes dead in one direction.
    OneWayCut,
    /// The nodes fall into two halves.
    Partition,
    /// One node, often the leader, is cut off.
    Isolate,
    /// One link becomes slow.
    SlowLink,
    /// All links work again.
    MendLinks,
    /// A process ends.
    CrashProcess,
    /// A machine loses power.
    CrashMachine,
    /// The leader's process ends or its machine loses power.
    CrashLeader,
    /// All machines lose power.
    CrashAll,
    /// A machine whose process is down loses power as well.
    PowerCutWhileDown,
    /// A disk takes long.
    StallDisk,
    /// A disk's next sync fails.
    FailDisk,
    /// A disk loses entries that were acknowledged, and its process ends.
    DamageLog,
    /// A process stands still.
    Pause,
    /// A wall clock jumps.
    JumpWallClock,
    /// The leader asks a follower to take over.
    Transfer,
    /// A disk is lost and its node comes back with an empty one.
    LoseDisk,
    /// A message with an impossible term arrives.
    AbsurdTerm,
    /// A node hears that a peer died or came back, true or not.
    PeerNews,
    /// A leader that holds a lease does not hear of the one that others would elect.
    Overthrow,
}

const FAULTS: &[Fault] = &[
    Fault::OneWayCut,
    Fault::Partition,
    Fault::Isolate,
    Fault::SlowLink,
    Fault::MendLinks,
    Fault::CrashProcess,
    Fault::CrashMachine,
    Fault::CrashLeader,
    Fault::CrashAll,
    Fault::PowerCutWhileDown,
    Fault::StallDisk,
    Fault::FailDisk,
    Fault::DamageLog,
    Fault::Pause,
    Fault::JumpWallClock,
    Fault::Transfer,
    Fault::LoseDisk,
    Fault::AbsurdTerm,
    Fault::PeerNews,
];

/// How hard it blows. Shares are per mille.
#[derive(Clone, Debug)]
pub(super) struct Storm {
    pub(super) weather: Weather,
    pub(super) faults: Vec<Fault>,
    pub(super) fault_every: Time,
    /// Outputs that a crash interrupts.
    pub(super) interruption: u64,
    /// Inputs after which a node waits for more before it hands out its work.
    pub(super) batching: u64,
    /// Syncs that cover one write although more wait.
    pub(super) small_syncs: u64,
    /// Appends beside which something goes out that their leader might have sent instead; elections after which the
    /// leader gets answers from earlier terms.
    pub(super) alternatives: u64,
    /// How long a sync takes at most, short of a stall.
    pub(super) sync_max: Time,
    /// Reads of the log that fail.
    pub(super) fetch_failure: u64,
    /// Every word to campaign is lost.
    pub(super) deaf: bool,
    /// Requests of clients in whose place an operator asks for another membership.
    pub(super) changes: u64,
    /// How long a node stays down at most.
    pub(super) down_max: Time,
    /// The time between two requests of clients.
    pub(super) client_every: Time,
}

impl Storm {
    /// No storm at all.
    pub(super) fn calm(client_every: Time) -> Storm {
        Storm {
            weather: Weather::FAIR,
            faults: Vec::new(),
            fault_every: 0,
            interruption: 0,
            batching: 0,
            small_syncs: 0,
            alternatives: 0,
            sync_max: MILLI,
            fetch_failure: 0,
            deaf: false,
            changes: 0,
            down_max: MILLI,
            client_every,
        }
    }

    /// A storm of its own kind.
    pub(super) fn drawn(random: &mut Random, pace: &Pace) -> Storm {
        let weather = Weather {
            loss: pick(random, &[0, 0, 10, 100, 300]),
            duplication: pick(random, &[0, 10, 100]),
            lateness: pick(random, &[0, 20, 200, 500]),
            delay_max: pick(random, &[2, 20, 100, 400]) * MILLI,
            straggle_max: pick(random, &[0, 0, 0, 1500]) * MILLI,
        };
        let mut faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| random.chance(400)).collect();
        if faults.iter().any(|fault| matches!(fault, Fault::OneWayCut | Fault::Partition | Fault::Isolate)) {
            faults.push(Fault::MendLinks);
        }
        Storm {
            weather,
            faults,
            fault_every: pick(random, &[20, 60, 200, 500]) * MILLI * pace.stretch,
            interruption: pick(random, &[0, 0, 2, 10]),
            batching: pick(random, &[0, 0, 100, 500]),
            small_syncs: pick(random, &[0, 0, 500]),
            alternatives: pick(random, &[0, 50, 300]),
            sync_max: pick(random, &[1, 5, 30]) * MILLI,
            fetch_failure: pick(random, &[0, 50, 300]),
            deaf: random.chance(250),
            changes: pick(random, &[0, 0, 10, 50]),
            down_max: pick(random, &[20, 200, 1000]) * MILLI * pace.stretch,
            client_every: pick(random, &[1, 5, 20]) * MILLI * pace.client_stretch,
        }
    }

    /// A storm that strikes where leases could be overtaken: quick elections, slow answers, whole leaders.
    pub(super) fn at_leases(random: &mut Random, pace: &Pace) -> Storm {
        let weather = Weather { delay_max: pick(random, &[50, 100, 200]) * MILLI, ..Weather::FAIR };
        Storm {
            weather,
            faults: vec![Fault::Overthrow],
            fault_every: pick(random, &[200, 400]) * MILLI * pace.stretch,
            down_max: 2 * MILLI,
            ..Storm::calm(20 * MILLI * pace.client_stretch)
        }
    }
}

fn pick(random: &mut Random, values: &[u64]) -> u64 {
    values[random.index(values.len())]
}
