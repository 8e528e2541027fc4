//! A disk that says no: after the first failure nothing is acknowledged any more, and what was acknowledged is found.

use raft_wal::{
    WalError,
    model::{Driver, Found, Model, Step, judge, judge_repaired, judge_twice, segments, workload},
    vfs::sim::{Call, Fault, SimVfs, Survivors},
};

/// Runs the workload of `seed` with `fault` at its `at`-th change; tells how many changes there were.
fn fail_at(seed: u64, at: u64, fault: Fault) -> u64 {
    let vfs = SimVfs::new();
    vfs.fail_change(at, fault);
    let Ok(mut driver) = Driver::open(vfs.clone(), Model::default(), seed) else {
        // Founding failed: nothing can have been acknowledged, and the next open founds anew or goes on.
        let model = Model::default();
        let found = judge_twice(&vfs.crash_process(), &model, model.now(), seed);
        assert!(matches!(found, Ok(Found::Version { number: 0, .. })), "change {at}: {found:?}");
        return vfs.changes();
    };
    // Without reopening: planned faults count the changes of one process.
    for step in without_restarts(seed, 60) {
        match driver.step(step) {
            Ok(()) => {}
            Err(WalError::Full { .. }) if fault == Fault::NoSpace => driver
                .step(Step::Flush)
                .unwrap_or_else(|error| panic!("seed {seed}, change {at}: room again, and yet {error}")),
            Err(WalError::Io { .. } | WalError::Full { .. }) => {}
            Err(error) => panic!("seed {seed}, change {at}, {step:?}: {error}"),
        }
    }
    let changes = vfs.changes();
    let known = driver.model.now();
    for survivors in [Survivors::None, Survivors::All, Survivors::Random(at), Survivors::Random(at + 1)] {
        judge_twice(&vfs.fork().crash_machine(survivors), &driver.model, known, seed)
            .unwrap_or_else(|error| panic!("seed {seed}, {fault:?} at change {at}, {survivors:?}: {error}"));
    }
    judge_twice(&vfs.crash_process(), &driver.model, known, seed)
        .unwrap_or_else(|error| panic!("seed {seed}, {fault:?} at change {at}, killed: {error}"));
    changes
}

fn without_restarts(seed: u64, count: usize) -> impl Iterator<Item = Step> {
    workload(seed, count).into_iter().filter(|step| !matches!(step, Step::Reopen | Step::Kill))
}

fn fail_everywhere(fault: Fault) {
    let mut tried = 0;
    for seed in 1..=6 {
        let changes = fail_at(seed, u64::MAX / 2, fault);
        for at in 1..=changes {
            fail_at(seed, at, fault);
            tried += 1;
        }
    }
    eprintln!("{fault:?}: {tried} places");
    assert!(tried > 300, "only {tried} places were tried");
}

#[test]
fn an_error_at_any_change_loses_nothing_and_acknowledges_nothing() {
    fail_everywhere(Fault::Error);
}

#[test]
fn a_short_write_at_any_change_loses_nothing_and_acknowledges_nothing() {
    for bytes in [0, 700, 4608] {
        fail_everywhere(Fault::Short(bytes));
    }
}

#[test]
fn no_room_at_any_change_loses_nothing() {
    fail_everywhere(Fault::NoSpace);
}

/// After a failed call the process ends, and is started again on the same cache: what that shows may never reach the disk.
/// Whatever is acknowledged from then on must not rest on it.
#[test]
fn what_a_failed_call_left_in_the_cache_is_not_believed_after_a_restart() {
    let mut tried = 0;
    for seed in 1..=6 {
        let changes = fail_at(seed, u64::MAX / 2, Fault::Error);
        for at in 1..=changes {
            let vfs = SimVfs::new();
            vfs.fail_change(at, Fault::Error);
            let Ok(mut driver) = Driver::open(vfs.clone(), Model::default(), seed) else { continue };
            let failed = without_restarts(seed, 60).any(|step| driver.step(step).is_err());
            let vfs = vfs.crash_process();
            let known = driver.model.now();
            let shown = judge(&vfs.fork(), &driver.model, known, seed);
            let Ok(Found::Version { number, .. }) = shown else {
                panic!("seed {seed}, change {at}: {shown:?}")
            };
            let model = Model::settled(driver.model.versions[number].clone(), known.compacted);
            let mut driver = Driver::open(vfs.clone(), model, seed)
                .unwrap_or_else(|error| panic!("seed {seed}, change {at}, started again: {error}"));
            for step in workload(seed + 100, 30) {
                driver
                    .step(step)
                    .unwrap_or_else(|error| panic!("seed {seed}, change {at}, then {step:?}: {error}"));
            }
            for survivors in [Survivors::None, Survivors::Random(at)] {
                judge_twice(&vfs.fork().crash_machine(survivors), &driver.model, driver.model.now(), seed)
                    .unwrap_or_else(|error| panic!("seed {seed}, change {at}, {survivors:?}: {error}"));
            }
            tried += usize::from(failed);
        }
    }
    assert!(tried > 300, "only {tried} failures were tried");
}

/// The disk is full at every size that the log ever needed; then there is room again, and it goes on.
#[test]
fn a_disk_full_at_any_size_loses_nothing_and_goes_on_with_room() {
    let steps: Vec<Step> = without_restarts(2, 60).collect();
    let mut full = 0;
    for kib in (64..900).step_by(4) {
        let vfs = SimVfs::new();
        vfs.set_capacity(Some(kib << 10));
        let mut driver = match Driver::open(vfs.clone(), Model::default(), 2) {
            Ok(driver) => driver,
            Err(WalError::Full { .. }) => continue,
            Err(error) => panic!("{kib} KiB: {error}"),
        };
        for step in &steps {
            match driver.step(*step) {
                Ok(()) => {}
                Err(WalError::Full { .. }) => {
                    full += 1;
                    // What was acknowledged is there, full or not; a crash now loses nothing of it.
                    let known = driver.model.now();
                    let after = vfs.fork().crash_machine(Survivors::None);
                    judge_twice(&after, &driver.model, known, kib)
                        .unwrap_or_else(|error| panic!("full at {kib} KiB: {error}"));
                    vfs.set_capacity(None);
                    driver.step(Step::Flush).unwrap_or_else(|error| panic!("{kib} KiB, then room: {error}"));
                }
                Err(error) => panic!("{kib} KiB, {step:?}: {error}"),
            }
        }
        let after = vfs.crash_machine(Survivors::None);
        judge_twice(&after, &driver.model, driver.model.now(), kib)
            .unwrap_or_else(|error| panic!("full at {kib} KiB, then room: {error}"));
    }
    assert!(full > 20, "the disk was full {full} times only");
}

/// A read that fails is an error, and no reason to cut or change anything.
#[test]
fn an_error_at_any_read_of_an_open_changes_nothing() {
    let mut tried = 0;
    for seed in 1..=6 {
        let mut driver = Driver::open(SimVfs::new(), Model::default(), seed).unwrap();
        workload(seed, 60).into_iter().for_each(|step| driver.step(step).unwrap());
        let known = driver.model.now();
        for call in [Call::Read, Call::Open, Call::List] {
            for n in 1.. {
                let vfs = driver.vfs.fork();
                vfs.fail_call(call, n, Fault::Error);
                let found = judge_repaired(&vfs, &driver.model, known, false, n);
                match found.unwrap_or_else(|error| panic!("seed {seed}, {call:?} {n}: {error}")) {
                    // The fault lay behind everything that is read.
                    Found::Version { .. } if n > 3 => break,
                    Found::Version { .. } | Found::Reported | Found::LostUnwitnessed => {}
                }
                tried += 1;
                judge_twice(&vfs.crash_process(), &driver.model, known, n)
                    .unwrap_or_else(|error| panic!("seed {seed}, {call:?} {n}, then read: {error}"));
            }
        }
    }
    assert!(tried > 60, "only {tried} reads failed");
}

/// A write that lands elsewhere in its file: its own bytes are missing, and others are overwritten.
#[test]
fn a_misdirected_write_at_any_change_is_harmless_or_reported() {
    let mut reported = 0;
    for seed in 1..=3 {
        for distance in [-4096, -512, 512, 4096, 16384] {
            let (mut at, mut writes) = (1, u64::MAX);
            while at <= writes {
                let vfs = SimVfs::new();
                let mut driver = Driver::open(vfs.clone(), Model::default(), seed).unwrap();
                let before = vfs.calls(Call::Write);
                vfs.fail_call(Call::Write, at, Fault::Misdirected(distance));
                for step in without_restarts(seed, 40).chain([Step::Flush, Step::Witness]) {
                    driver.step(step).unwrap();
                }
                writes = vfs.calls(Call::Write) - before;
                // The witness itself, fallen upon the batch that it was to prove: FORMAT.md, section 7.
                let last = at >= writes;
                let found = judge_repaired(&vfs.crash_process(), &driver.model, driver.model.now(), last, at);
                let found = found
                    .unwrap_or_else(|error| panic!("seed {seed}, write {at} off by {distance}: {error}"));
                reported += u64::from(found == Found::Reported);
                at += 1;
            }
        }
    }
    eprintln!("misdirected: {reported} reported");
    assert!(reported > 100, "only {reported} were noticed");
}

/// A directory sync fails between two snapshots that are installed in one go: the first one's mark is already durable.
#[test]
fn a_failure_at_any_change_of_many_installs_leaves_a_marked_snapshot() {
    let steps = [
        Step::Append { count: 69, bytes: 4607, new_term: false },
        Step::Install { ahead: 137 },
        Step::Install { ahead: 137 },
        Step::Install { ahead: 137 },
        Step::Install { ahead: 255 },
        Step::Flush,
    ];
    for fault in [Fault::Error, Fault::Short(65535), Fault::NoSpace] {
        for at in 20..50 {
            let vfs = SimVfs::new();
            let mut driver = Driver::open(vfs.clone(), Model::default(), 1).unwrap();
            vfs.fail_change(at, fault);
            for step in steps {
                let _ = driver.step(step);
            }
            for seed in 0..5 {
                let after = vfs.fork().crash_machine(Survivors::Random(seed));
                judge_twice(&after, &driver.model, driver.model.now(), 5)
                    .unwrap_or_else(|error| panic!("{fault:?} at change {at}, crash {seed}: {error}"));
            }
        }
    }
}

/// A damaged segment that costs no entry, for the log has begun anew behind it, is told and left where it is.
#[test]
fn a_damaged_segment_that_costs_nothing_is_left_alone() {
    let mut driver = Driver::open(SimVfs::new(), Model::default(), 1).unwrap();
    for n in 0..12 {
        driver.step(Step::Append { count: 7, bytes: 3000, new_term: false }).unwrap();
        if n % 4 == 3 {
            driver.step(Step::Install { ahead: 1 }).unwrap();
        }
        driver.step(Step::Flush).unwrap();
    }
    driver.step(Step::Witness).unwrap();
    for path in segments(&driver.vfs) {
        let vfs = driver.vfs.fork();
        vfs.shorten(&path, 0);
        let found = judge_repaired(&vfs, &driver.model, driver.model.now(), false, 3).unwrap();
        assert!(segments(&vfs).contains(&path), "{} was removed: {found:?}", path.display());
    }
}
