//! Every crash of generated workloads: at each change of the disk, with all of what was pending lost or kept, each part
//! of it lost or kept alone, and the last call torn at each sector.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use raft_wal::{
    model::{Driver, Found, Known, Model, Step, judge, judge_twice},
    vfs::sim::{Moment, SimVfs, Survivors},
};

use crate::workload::{recorded, steps};

/// What was tried, so that nothing passes because it was never reached.
#[derive(Debug, Default)]
struct Counts {
    states: AtomicU64,
    twice: AtomicU64,
    in_recovery: AtomicU64,
    continued: AtomicU64,
    torn: AtomicU64,
    unacknowledged: AtomicU64,
    workloads: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How long the exploration goes on. More seconds, more seeds: `RAFT_WAL_CRASH_SECONDS=600 cargo test -p raft-wal crash`.
fn budget() -> Duration {
    let seconds = std::env::var("RAFT_WAL_CRASH_SECONDS").ok().and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

#[test]
fn every_crash_state_shows_what_was_acknowledged() {
    let counts = Counts::default();
    let next_seed = AtomicU64::new(first_seed());
    let end = Instant::now() + budget();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    explore(next_seed.fetch_add(1, Ordering::Relaxed), end, &counts);
                }
            });
        }
    });
    eprintln!("{counts:?}");
    assert!(counts.torn.into_inner() > 0, "no unfinished write was ever cut off");
    assert!(counts.unacknowledged.into_inner() > 0, "no write ever survived unacknowledged");
    assert!(counts.in_recovery.into_inner() > 0, "no recovery was ever interrupted");
    assert!(counts.continued.into_inner() > 0, "no recovered log was ever written to");
}

fn first_seed() -> u64 {
    std::env::var("RAFT_WAL_CRASH_SEED").ok().and_then(|value| value.parse().ok()).unwrap_or(1)
}

fn explore(seed: u64, end: Instant, counts: &Counts) {
    let steps = steps(seed, 30 + usize::try_from(seed % 50).unwrap());
    let driver = recorded(seed, &steps);
    let moments = driver.vfs.take_moments();
    let mut seen = HashSet::new();
    add(&counts.workloads);
    for (number, moment) in moments.iter().enumerate() {
        for survivors in moment.survivors().into_iter().chain([Survivors::Random(seed ^ number as u64)]) {
            if !seen.insert(moment.key(survivors)) {
                continue;
            }
            if Instant::now() > end {
                return;
            }
            let nth = counts.states.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = one_state(&driver.model, moment, survivors, nth, counts) {
                panic!("seed {seed}, change {number} of {}, {survivors:?}: {error}", moments.len());
            }
        }
        let known = driver.model.known[usize::try_from(moment.note()).unwrap()];
        if let Err(error) = judge_twice(&moment.crash_process(), &driver.model, known, seed) {
            panic!("seed {seed}, killed at change {number} of {}: {error}", moments.len());
        }
    }
}

fn one_state(
    model: &Model,
    moment: &Moment,
    survivors: Survivors,
    nth: u64,
    counts: &Counts,
) -> Result<(), String> {
    let known = model.known[usize::try_from(moment.note()).unwrap()];
    let image = moment.crash(survivors);
    let found = if nth.is_multiple_of(8) {
        add(&counts.twice);
        judge_twice(&image.fork(), model, known, nth)?
    } else {
        judge(&image.fork(), model, known, nth)?
    };
    let Found::Version { number, torn } = found else {
        return Err("took a crash for damage".to_owned());
    };
    if torn {
        add(&counts.torn);
    }
    if number > known.acked {
        add(&counts.unacknowledged);
    }
    let settled = Known { acked: number, submitted: number, ..known };
    if nth.is_multiple_of(64) || (torn && nth.is_multiple_of(16)) {
        interrupt_recovery(&image, model, settled, nth, counts)?;
    }
    if nth.is_multiple_of(32) {
        go_on(&image, model, settled, nth, counts)?;
    }
    Ok(())
}

/// A crash at any change that recovery makes leads to the same answer.
fn interrupt_recovery(
    image: &SimVfs,
    model: &Model,
    settled: Known,
    seed: u64,
    counts: &Counts,
) -> Result<(), String> {
    let vfs = image.fork();
    vfs.record();
    judge(&vfs, model, settled, seed)?;
    let mut seen = HashSet::new();
    for (number, moment) in vfs.take_moments().iter().enumerate() {
        let all = moment.survivors();
        let stride = all.len().div_ceil(12);
        for survivors in all.into_iter().step_by(stride) {
            if seen.insert(moment.key(survivors)) {
                add(&counts.in_recovery);
                judge(&moment.crash(survivors), model, settled, seed + 1).map_err(|error| {
                    format!("recovery crashed at change {number}, {survivors:?}: {error}")
                })?;
            }
        }
    }
    Ok(())
}

/// What is written after a recovery is found after the next crash.
fn go_on(image: &SimVfs, model: &Model, settled: Known, seed: u64, counts: &Counts) -> Result<(), String> {
    add(&counts.continued);
    let vfs = image.fork();
    let model = Model::settled(model.versions[settled.acked].clone(), settled.compacted);
    let mut driver = Driver::open(vfs.clone(), model, seed + 7).map_err(|error| error.to_string())?;
    vfs.record();
    for step in [
        Step::Append { count: 2, bytes: 200, new_term: false },
        Step::Flush,
        Step::Replace { back: 1 },
        Step::Append { count: 1, bytes: 2000, new_term: false },
        Step::Flush,
    ] {
        driver.step(step).map_err(|error| format!("{step:?} after a recovery: {error}"))?;
    }
    for (number, moment) in vfs.take_moments().iter().enumerate() {
        let known = driver.model.known[usize::try_from(moment.note()).unwrap()];
        for survivors in
            [Survivors::None, Survivors::All, Survivors::Random(seed), Survivors::Random(seed + 1)]
        {
            judge(&moment.crash(survivors), &driver.model, known, seed + 9).map_err(|error| {
                format!("recovered, written to and crashed at change {number}, {survivors:?}: {error}")
            })?;
        }
    }
    Ok(())
}
