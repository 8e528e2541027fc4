//! A disk that says no: after the first failure nothing is acknowledged any more, and what was acknowledged is found.

use raft_wal::{
    WalError,
    model::{Driver, Found, Model, Step, judge_twice, workload},
    vfs::sim::{Fault, SimVfs, Survivors},
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
    let steps = workload(seed, 60).into_iter().filter(|step| !matches!(step, Step::Reopen | Step::Kill));
    for step in steps {
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
    fail_everywhere(Fault::Short(700));
}

#[test]
fn no_room_at_any_change_loses_nothing() {
    fail_everywhere(Fault::NoSpace);
}
