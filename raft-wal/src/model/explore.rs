//! Every crash of generated workloads: at each change of the disk, with all of what was pending lost or kept, each part
//! of it lost or kept alone, and the last call torn at each sector. Then the crashes of the recovery from these.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{Driver, Found, Known, Model, Step, judge, judge_twice, recorded, workload};
use crate::vfs::sim::{Moment, SimVfs, Survivors};

/// What to try.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed of the first workload; the others follow.
    pub first_seed: u64,
    /// At least this many workloads, each to its end.
    pub workloads: u64,
    /// At least this many different disks.
    pub states: u64,
    /// No new workload begins after this, and none goes on.
    pub until: Instant,
    /// How many threads share the work.
    pub threads: usize,
}

/// What was tried, so that nothing passes because it was never reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Workloads explored to their end.
    pub workloads: u64,
    /// Different disks that a log was opened on, told apart by all their names and bytes.
    pub states: u64,
    /// Opens that were judged.
    pub judged: u64,
    /// Disks that a crash in the middle of a recovery left.
    pub in_recovery: u64,
    /// Recovered logs that were written to and crashed again.
    pub continued: u64,
    /// Opens that cut off an unfinished write.
    pub torn: u64,
    /// Opens that found a write which had not been acknowledged.
    pub unacknowledged: u64,
}

/// Explores crash states until the plan is fulfilled.
///
/// # Errors
/// The first rule that was broken, with the seed and the place that show it again.
pub fn explore(plan: &Plan) -> Result<Tally, String> {
    let explorer = Explorer::new(plan);
    std::thread::scope(|scope| {
        for _ in 0..plan.threads {
            scope.spawn(|| explorer.run());
        }
    });
    explorer.outcome()
}

struct Explorer<'a> {
    plan: &'a Plan,
    next_seed: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    seen: [Mutex<HashSet<u64>>; SHARDS],
    counts: Counts,
}

/// Two threads rarely want the same one.
const SHARDS: usize = 64;

#[derive(Default)]
struct Counts {
    workloads: AtomicU64,
    states: AtomicU64,
    judged: AtomicU64,
    in_recovery: AtomicU64,
    continued: AtomicU64,
    torn: AtomicU64,
    unacknowledged: AtomicU64,
}

impl Explorer<'_> {
    fn new(plan: &Plan) -> Explorer<'_> {
        Explorer {
            plan,
            next_seed: AtomicU64::new(plan.first_seed),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            seen: std::array::from_fn(|_| Mutex::default()),
            counts: Counts::default(),
        }
    }

    fn run(&self) {
        while !self.is_over() {
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            let enough = seed - self.plan.first_seed >= self.plan.workloads
                && read(&self.counts.states) >= self.plan.states;
            if enough {
                return;
            }
            if let Err(error) = self.workload(seed) {
                self.failed.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(format!("seed {seed}, {error}"));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || Instant::now() > self.plan.until
    }

    fn outcome(self) -> Result<Tally, String> {
        if let Some(failure) = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let Counts { workloads, states, judged, in_recovery, continued, torn, unacknowledged } = self.counts;
        Ok(Tally {
            workloads: read(&workloads),
            states: read(&states),
            judged: read(&judged),
            in_recovery: read(&in_recovery),
            continued: read(&continued),
            torn: read(&torn),
            unacknowledged: read(&unacknowledged),
        })
    }

    /// Counts a disk; `false` if it was seen before.
    fn is_new(&self, disk: &SimVfs) -> bool {
        let fingerprint = disk.fingerprint();
        let shard = usize::try_from(fingerprint % SHARDS as u64).unwrap_or(0);
        let is_new = self.seen[shard].lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint);
        if is_new {
            add(&self.counts.states);
        }
        is_new
    }

    fn workload(&self, seed: u64) -> Result<(), String> {
        let steps = workload(seed, 30 + usize::try_from(seed % 50).unwrap_or(0));
        let driver = recorded(seed, &steps).map_err(|error| format!("without any crash: {error}"))?;
        let moments = driver.vfs.take_moments();
        let (mut tried, mut settled) = (HashSet::new(), HashSet::new());
        // Which states are looked at more closely depends on the seed alone, not on what other threads did.
        let mut nth = seed;
        for (number, moment) in moments.iter().enumerate() {
            let known = known_at(&driver.model, moment);
            let random = Survivors::Random(seed ^ number as u64);
            for survivors in moment.survivors().into_iter().chain([random]) {
                // The same disk at another moment may have to show more.
                if !tried.insert(moment.key(survivors)) {
                    continue;
                }
                if self.is_over() {
                    return Ok(());
                }
                nth += 1;
                self.state(&driver.model, moment, survivors, nth, &mut settled).map_err(|error| {
                    format!("change {number} of {}, {survivors:?}: {error}", moments.len())
                })?;
            }
            let killed = moment.crash_process();
            self.is_new(&killed);
            add(&self.counts.judged);
            judge_twice(&killed, &driver.model, known, seed)
                .map_err(|error| format!("killed at change {number} of {}: {error}", moments.len()))?;
        }
        add(&self.counts.workloads);
        Ok(())
    }

    fn state(
        &self,
        model: &Model,
        moment: &Moment,
        survivors: Survivors,
        nth: u64,
        settled_disks: &mut HashSet<(u64, usize)>,
    ) -> Result<(), String> {
        let known = known_at(model, moment);
        let image = moment.crash(survivors);
        self.is_new(&image);
        add(&self.counts.judged);
        let found = if nth.is_multiple_of(8) {
            judge_twice(&image.fork(), model, known, nth)?
        } else {
            judge(&image.fork(), model, known, nth)?
        };
        let Found::Version { number, torn } = found else {
            return Err("took a crash for damage".to_owned());
        };
        if torn {
            add(&self.counts.torn);
        }
        if number > known.acked {
            add(&self.counts.unacknowledged);
        }
        let settled = Known { acked: number, submitted: number, ..known };
        if nth.is_multiple_of(64) || (torn && nth.is_multiple_of(16)) {
            self.interrupt_recovery(&image, model, settled, nth, settled_disks)?;
        }
        if nth.is_multiple_of(32) {
            self.go_on(&image, model, settled, nth)?;
        }
        Ok(())
    }

    /// A crash at any change that recovery makes leads to the same answer.
    fn interrupt_recovery(
        &self,
        image: &SimVfs,
        model: &Model,
        settled: Known,
        seed: u64,
        settled_disks: &mut HashSet<(u64, usize)>,
    ) -> Result<(), String> {
        let vfs = image.fork();
        vfs.record();
        judge(&vfs, model, settled, seed)?;
        for (number, moment) in vfs.take_moments().iter().enumerate() {
            for survivors in moment.survivors() {
                let image = moment.crash(survivors);
                self.is_new(&image);
                if settled_disks.insert((image.fingerprint(), settled.acked)) {
                    add(&self.counts.in_recovery);
                    judge(&image, model, settled, seed + 1).map_err(|error| {
                        format!("recovery crashed at change {number}, {survivors:?}: {error}")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// What is written after a recovery is found after the next crash.
    fn go_on(&self, image: &SimVfs, model: &Model, settled: Known, seed: u64) -> Result<(), String> {
        add(&self.counts.continued);
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
            let known = known_at(&driver.model, moment);
            for survivors in
                [Survivors::None, Survivors::All, Survivors::Random(seed), Survivors::Random(seed + 1)]
            {
                let image = moment.crash(survivors);
                self.is_new(&image);
                add(&self.counts.judged);
                judge(&image, &driver.model, known, seed + 9).map_err(|error| {
                    format!("recovered, written to and crashed at change {number}, {survivors:?}: {error}")
                })?;
            }
        }
        Ok(())
    }
}

fn known_at(model: &Model, moment: &Moment) -> Known {
    let at = usize::try_from(moment.note()).unwrap_or(usize::MAX);
    model.known.get(at).copied().unwrap_or_else(|| model.now())
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
