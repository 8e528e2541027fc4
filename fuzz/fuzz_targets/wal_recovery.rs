//! Any operations, a crash, damage, against the model: `cargo fuzz run wal_recovery`.
#![no_main]

use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use raft_wal::{
    layout::{self, Name},
    model::{DIR, Driver, Known, Model, Step, judge_repaired, judge_twice},
    vfs::{
        Vfs as _,
        sim::{Fault, SimVfs, Survivors},
    },
};

#[derive(Debug, Arbitrary)]
struct Plan {
    steps: Vec<Action>,
    fault: Option<(u8, Failure)>,
    crash: Crash,
    damage: Option<Damage>,
}

#[derive(Debug, Arbitrary)]
enum Action {
    Append { count: u8, bytes: u16, new_term: bool },
    Configure,
    Vote,
    Replace { back: u8 },
    Cut { back: u8 },
    Snapshot { back: u8 },
    Install { ahead: u8 },
    Flush,
    Witness,
    Compact,
    Reopen,
    Kill,
}

impl Action {
    fn step(&self) -> Step {
        match *self {
            Action::Append { count, bytes, new_term } => Step::Append { count, bytes, new_term },
            Action::Configure => Step::Configure,
            Action::Vote => Step::Vote,
            Action::Replace { back } => Step::Replace { back },
            Action::Cut { back } => Step::Cut { back },
            Action::Snapshot { back } => Step::Snapshot { back },
            Action::Install { ahead } => Step::Install { ahead },
            Action::Flush => Step::Flush,
            Action::Witness => Step::Witness,
            Action::Compact => Step::Compact,
            Action::Reopen => Step::Reopen,
            Action::Kill => Step::Kill,
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Failure {
    Error,
    NoSpace,
    Short(u16),
}

#[derive(Debug, Arbitrary)]
enum Crash {
    /// Of the process alone.
    Kill,
    /// Right behind the last step.
    Now { keep: u64 },
    /// At any change on the way.
    Earlier { moment: u16, survivors: u16 },
}

#[derive(Debug, Arbitrary)]
enum Damage {
    Flip { segment: u8, offset: u16, bit: u8 },
    Zero { segment: u8, sector: u8 },
    Shorten { segment: u8, length: u16 },
}

fuzz_target!(|plan: Plan| run(&plan));

fn run(plan: &Plan) {
    let vfs = SimVfs::new();
    vfs.record();
    let mut driver = Driver::open(vfs.clone(), Model::default(), 1).expect("an empty disk takes a log");
    if let Some((at, failure)) = &plan.fault {
        let fault = match failure {
            Failure::Error => Fault::Error,
            Failure::NoSpace => Fault::NoSpace,
            Failure::Short(bytes) => Fault::Short(usize::from(*bytes)),
        };
        vfs.fail_change(u64::from(*at) + 1, fault);
    }
    for action in plan.steps.iter().take(80) {
        // Errors are the planned fault's; the driver makes sure that nothing is acknowledged behind one.
        let _ = driver.step(action.step());
    }
    let now = driver.model.now();
    let moments = driver.vfs.take_moments();
    let failed = driver.has_failed();
    if let Some(damage) = &plan.damage
        && !failed
        && driver.step(Step::Flush).is_ok()
    {
        let known = driver.model.now();
        let after = driver.vfs.fork();
        if harm(&after, damage) {
            let seed = if let Crash::Now { keep } = plan.crash { keep } else { 3 };
            let found = judge_repaired(&after, &driver.model, known, !driver.witnessed, seed);
            assert!(found.is_ok(), "{found:?}");
        }
        return;
    }
    let (after, known): (SimVfs, Known) = match plan.crash {
        Crash::Kill => (driver.vfs.crash_process(), now),
        Crash::Now { keep } => (driver.vfs.crash_machine(Survivors::Random(keep)), now),
        Crash::Earlier { moment, survivors } => {
            let moment = &moments[usize::from(moment) % moments.len()];
            let all = moment.survivors();
            let known = driver.model.known[usize::try_from(moment.note()).expect("a small number")];
            (moment.crash(all[usize::from(survivors) % all.len()]), known)
        }
    };
    let found = judge_twice(&after, &driver.model, known, 5);
    assert!(found.is_ok(), "{found:?}");
}

/// Changes bytes of one segment; `false` if there is nothing to change.
fn harm(vfs: &SimVfs, damage: &Damage) -> bool {
    let names = vfs.list(Path::new(DIR)).expect("the directory is there");
    let mut segments: Vec<_> = names
        .into_iter()
        .filter(|entry| matches!(layout::parse(&entry.name), Name::Segment(_)))
        .map(|entry| Path::new(DIR).join(entry.name))
        .collect();
    segments.sort();
    let pick = |segment: u8| &segments[usize::from(segment) % segments.len()];
    let Some(length) = segments.first().and_then(|path| vfs.bytes(path)).map(|bytes| bytes.len()) else {
        return false;
    };
    match *damage {
        Damage::Flip { segment, offset, bit } => {
            vfs.flip_bits(pick(segment), u64::from(offset), 1 << (bit % 8))
        }
        Damage::Zero { segment, sector } => {
            let offset = usize::from(sector) * 512 % length;
            vfs.overwrite(pick(segment), offset as u64, &[0; 512]);
        }
        Damage::Shorten { segment, length } => vfs.shorten(pick(segment), u64::from(length)),
    }
    true
}
