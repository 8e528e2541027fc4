//! The writer thread: tickets, the observer, failures, the full disk.
use std::sync::{Arc, Mutex, atomic::Ordering, mpsc};
use std::time::Duration;

use raft_core::{LogId, LogIndex, WriteId};
use raft_wal::{
    Engine, Wal, WalError,
    vfs::{OsVfs, Vfs as _},
};
use tempfile::tempdir;

use crate::support::*;

#[test]
fn tickets_say_when_a_write_is_durable() {
    let dir = tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    let tickets: Vec<_> = (0..200).map(|n| wal.submit(writes.append(1, 1 + n * 2, 2, 700))).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(wal.inflight_bytes(), 0);
    assert_eq!(wal.read(LogIndex(1), LogIndex(400), usize::MAX).unwrap(), expect(|_| 1, 1..=400, 700));
    let stats = wal.stats();
    assert_eq!((stats.entries, stats.last), (400, LogIndex(400)));
    assert!(stats.fsync_p99_us >= stats.fsync_p50_us);
    wal.close().unwrap();
    let (_, report) = Wal::open(dir.path(), options()).unwrap();
    assert_eq!(report.recovered.last, LogIndex(400));
    assert_eq!(report.torn, None);
}

#[test]
fn the_observer_is_told_the_last_durable_write_of_each_batch() {
    let dir = tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    let (sender, told) = mpsc::channel();
    wal.set_observer(Box::new(move |outcome| sender.send(outcome).unwrap()));
    let mut writes = Writes::default();
    for n in 0..50 {
        drop(wal.submit(writes.append(1, 1 + n, 1, 10)));
    }
    let mut last = WriteId(0);
    while last < WriteId(50) {
        let next = told.recv_timeout(SOON).unwrap().unwrap();
        assert!(next > last);
        last = next;
    }
    assert_eq!(wal.read(LogIndex(50), LogIndex(50), 1).unwrap().len(), 1);
    // Before whoever waits for the write.
    wal.submit(writes.append(1, 51, 1, 10)).wait().unwrap();
    assert_eq!(told.try_recv().unwrap().unwrap(), WriteId(51));
}

#[test]
fn compaction_runs_beside_the_appends() {
    let dir = tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    for n in 0..100 {
        drop(wal.submit(writes.append(1, 1 + n * 5, 5, 1000)));
    }
    drop(wal.submit(writes.mark(1, LogId::new(1, 400), false, false)));
    wal.compact(LogIndex(300));
    wal.submit(writes.append(1, 501, 1, 10)).wait().unwrap();
    assert!(wal.stats().log_start.index > LogIndex(200));
    assert!(matches!(wal.read(LogIndex(1), LogIndex(2), 1), Err(WalError::Compacted { .. })));
    wal.close().unwrap();
    let (_, report) = Wal::open(dir.path(), options()).unwrap();
    assert!(report.recovered.log_start.index > LogIndex(200));
    assert_eq!(report.recovered.last, LogIndex(501));
}

/// A directory's sync that fails while dropped segments are tidied away marks other names as clean, too.
#[test]
fn a_failure_beside_the_log_is_final_for_the_log() {
    for kind in ["rename", "dir_sync"] {
        let dir = tempdir().unwrap();
        let plan = Arc::new(Plan::default());
        let (wal, _) =
            Wal::open_with(Arc::new(FailingVfs { plan: Arc::clone(&plan) }), dir.path(), options()).unwrap();
        let (sender, told) = mpsc::channel();
        wal.set_observer(Box::new(move |outcome| sender.send(outcome).unwrap()));
        let mut writes = Writes::default();
        for n in 0..100 {
            wal.submit(writes.append(1, 1 + n, 1, 5000)).wait().unwrap();
        }
        snapshot_file(Arc::new(OsVfs), dir.path(), LogId::new(1, 60));
        wal.submit(writes.mark(1, LogId::new(1, 60), false, false)).wait().unwrap();
        // The next segment is there already: nothing else renames or syncs names.
        while !segment(dir.path(), wal.stats().segments + 1).exists() {
            std::thread::yield_now();
        }
        let (counter, fail) = match kind {
            "rename" => (&plan.renames, &plan.fail_rename),
            _ => (&plan.dir_syncs, &plan.fail_dir_sync),
        };
        fail.store(counter.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
        wal.compact(LogIndex(60));
        let error = loop {
            if let Err(error) = told.recv_timeout(SOON).unwrap() {
                break error;
            }
        };
        assert!(matches!(error, WalError::Io { .. }), "{kind}: {error}");
        assert!(wal.submit(writes.append(1, 101, 1, 10)).wait().is_err(), "{kind}: Ok after a failure");
        assert!(wal.close().is_err());
        let (_, report) = Wal::open(dir.path(), options()).unwrap();
        assert_eq!(report.recovered.last, LogIndex(100));
    }
}

/// A former segment whose wiping or sync fails while it becomes a segment again: the disk fails, although a new file
/// would do.
#[test]
fn a_failure_under_a_spare_is_final() {
    for kind in ["write", "sync", "dir_sync", "rename"] {
        let mut nth = 0;
        loop {
            nth += 1;
            let dir = tempdir().unwrap();
            let plan = Arc::new(Plan::default());
            let vfs = Arc::new(FailingVfs { plan: Arc::clone(&plan) });
            let (mut engine, _) = Engine::open(vfs, dir.path(), options()).unwrap();
            let mut writes = Writes::default();
            write(&mut engine, &writes.append(1, 1, 40, 5000));
            write(&mut engine, &writes.mark(1, LogId::new(1, 40), false, false));
            let (counter, fail) = match kind {
                "write" => (&plan.writes, &plan.fail_write),
                "sync" => (&plan.syncs, &plan.fail_sync),
                "dir_sync" => (&plan.dir_syncs, &plan.fail_dir_sync),
                _ => (&plan.renames, &plan.fail_rename),
            };
            fail.store(counter.load(Ordering::SeqCst) + nth, Ordering::SeqCst);
            let mut durable = 40;
            let mut outcome = engine.compact(LogIndex(40));
            while outcome.is_ok() && durable < 80 {
                outcome = engine
                    .append(&writes.append(1, durable + 1, 5, 5000))
                    .and_then(|()| engine.flush().map(drop));
                let was_reached = counter.load(Ordering::SeqCst) >= fail.load(Ordering::SeqCst);
                assert_eq!(outcome.is_err(), was_reached, "{kind} {nth}: {outcome:?}");
                durable += if outcome.is_ok() { 5 } else { 0 };
            }
            let Err(error) = outcome else { break };
            assert!(matches!(error, WalError::Io { .. }), "{kind} {nth}: {error}");
            assert!(engine.flush().is_err(), "{kind} {nth}: Ok after a failure");
            drop(engine);
            let (_, report) = open(dir.path());
            assert!(report.recovered.last >= LogIndex(durable), "{kind} {nth}");
        }
        assert!(nth > 3, "{kind}: only {nth} places");
    }
}

/// What a compaction frees is set aside at once, and only later removed, one file after the other.
#[test]
fn freed_segments_can_be_used_at_once_and_go_one_by_one() {
    let dir = tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    for n in 0..100 {
        wal.submit(writes.append(1, 1 + n * 5, 5, 1000)).wait().unwrap();
    }
    let count = |prefix: &str| {
        let names = OsVfs.list(dir.path()).unwrap();
        names.iter().filter(|entry| entry.name.to_str().unwrap().starts_with(prefix)).count()
    };
    let segments = count("wal-");
    drop(wal.submit(writes.mark(1, LogId::new(1, 500), false, false)));
    wal.compact(LogIndex(500));
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_so() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    wait("nothing was set aside", &|| count("spare-") > 1);
    assert!(count("wal-") < segments, "{} of {segments}", count("wal-"));
    wait("the rest was not removed", &|| count("spare-") <= 1);
    wal.close().unwrap();
}

/// Fails one operation after the other; each time no later ticket may say Ok, and none may hang.
#[test]
fn the_first_failure_is_final_and_nobody_hangs() {
    for kind in ["write", "sync", "dir_sync", "rename"] {
        for nth in 1..=6 {
            let dir = tempdir().unwrap();
            let plan = Arc::new(Plan::default());
            let vfs = Arc::new(FailingVfs { plan: Arc::clone(&plan) });
            let (wal, _) = Wal::open_with(vfs, dir.path(), options()).unwrap();
            let errors = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&errors);
            wal.set_observer(Box::new(move |outcome| {
                if let Err(error) = outcome {
                    seen.lock().unwrap().push(error);
                }
            }));
            let (counter, fail) = match kind {
                "write" => (&plan.writes, &plan.fail_write),
                "sync" => (&plan.syncs, &plan.fail_sync),
                "dir_sync" => (&plan.dir_syncs, &plan.fail_dir_sync),
                _ => (&plan.renames, &plan.fail_rename),
            };
            fail.store(counter.load(Ordering::SeqCst) + nth, Ordering::SeqCst);
            let mut writes = Writes::default();
            let mut durable = 0;
            let mut failed = false;
            for n in 0..400 {
                match wal.submit(writes.append(1, 1 + n, 1, 2000)).wait() {
                    Ok(()) => {
                        assert!(!failed, "{kind} {nth}: Ok after a failure");
                        durable = n + 1;
                    }
                    Err(_) => failed = true,
                }
            }
            assert!(failed, "{kind} {nth} was never reached");
            assert_eq!(errors.lock().unwrap().len(), 1, "{kind} {nth}: the observer is told once");
            if durable > 0 {
                let read = wal.read(LogIndex(1), LogIndex(durable), usize::MAX).unwrap();
                assert_eq!(read.len() as u64, durable, "reads go on");
            }
            assert!(wal.close().is_err());
            let (_, report) = Wal::open(dir.path(), options()).unwrap();
            assert!(report.recovered.last >= LogIndex(durable), "{kind} {nth}");
        }
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let dir = tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let vfs = Arc::new(FailingVfs { plan: Arc::clone(&plan) });
    let (wal, _) = Wal::open_with(vfs, dir.path(), options()).unwrap();
    plan.full.store(1, Ordering::SeqCst);
    let mut writes = Writes::default();
    let tickets: Vec<_> = (0..200).map(|n| wal.submit(writes.append(1, 1 + n, 1, 2000))).collect();
    while !wal.stats().full {
        std::thread::yield_now();
    }
    assert!(wal.inflight_bytes() > 0);
    // It is asked again now and then, not all the time.
    let (start, refused) = (std::time::Instant::now(), plan.refused.load(Ordering::SeqCst));
    while plan.refused.load(Ordering::SeqCst) < refused + 3 {
        assert!(start.elapsed() < SOON, "it is not asked again");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "asked three times within {:?}", start.elapsed());
    plan.full.store(0, Ordering::SeqCst);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    // The figures follow the answers.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while wal.stats().full {
        assert!(std::time::Instant::now() < deadline, "still said to be full");
        std::thread::yield_now();
    }
    wal.close().unwrap();
}

#[test]
fn a_full_disk_does_not_keep_the_log_from_closing() {
    let dir = tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let vfs = Arc::new(FailingVfs { plan: Arc::clone(&plan) });
    let (wal, _) = Wal::open_with(vfs, dir.path(), options()).unwrap();
    plan.full.store(1, Ordering::SeqCst);
    let mut writes = Writes::default();
    let tickets: Vec<_> = (0..200).map(|n| wal.submit(writes.append(1, 1 + n, 1, 2000))).collect();
    assert!(matches!(wal.close(), Err(WalError::Full { .. })));
    let durable = tickets.into_iter().map(raft_wal::Ticket::wait).filter(Result::is_ok).count() as u64;
    let (_, report) = Wal::open_with(Arc::new(OsVfs), dir.path(), options()).unwrap();
    assert_eq!(report.recovered.last, LogIndex(durable));
}

#[test]
fn a_log_with_nothing_in_flight_is_not_busy_and_can_be_shown() {
    let dir = tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    assert!(!wal.is_busy());
    assert!(format!("{wal:?}").starts_with("Wal"), "{wal:?}");
}

/// The scrub starts with the open and follows the log as segments are sealed.
#[test]
fn the_scrub_runs_beside_the_log() {
    let dir = tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    for n in 0..100 {
        drop(wal.submit(writes.append(1, 1 + n * 5, 5, 1000)));
    }
    wal.close().unwrap();
    drop(wal);
    let (wal, _) = Wal::open(dir.path(), options()).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let report = wal.scrub_report();
        if report.is_complete {
            assert!(report.segments >= 5 && report.errors.is_empty(), "{report:?}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{report:?}");
        std::thread::yield_now();
    }
}

/// Dropped without a close, it ends all the same: nobody is kept out of the directory.
#[test]
fn a_dropped_log_can_be_opened_again_at_once() {
    let dir = tempdir().unwrap();
    let mut writes = Writes::default();
    for n in 0..5 {
        let (wal, report) = Wal::open(dir.path(), options()).unwrap();
        assert_eq!((report.recovered.last, report.torn), (LogIndex(n), None));
        wal.submit(writes.append(1, n + 1, 1, 10)).wait().unwrap();
    }
}

#[test]
fn a_damaged_log_takes_writes_once_a_repair_has_begun() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = Engine::open(Arc::new(OsVfs), dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    for index in 1..=9 {
        write(&mut engine, &writes.append(1, index, 1, 100));
    }
    drop(engine);
    damage_payload(&segment(dir.path(), 1), 4, 100);
    let (engine, _) = Engine::open(Arc::new(OsVfs), dir.path(), options()).unwrap();
    assert_eq!(engine.damage().unwrap().first, LogIndex(4));
    drop(engine);
    let (wal, report) = Wal::open(dir.path(), options()).unwrap();
    assert!(report.damaged.is_some());
    wal.compact(LogIndex(3)); // Nothing to do while damage is told.
    wal.begin_repair().unwrap();
    wal.submit(writes.append(2, 4, 9, 100)).wait().unwrap();
    assert_eq!(wal.read(LogIndex(12), LogIndex(12), 1).unwrap(), [entry(2, 12, 100)]);
    wal.close().unwrap();
    let (engine, report) = Engine::open(Arc::new(OsVfs), dir.path(), options()).unwrap();
    assert!(report.damaged.is_none() && engine.damage().is_none());
}

/// Load is to be shed once more than the bound waits, not before.
#[test]
fn a_log_is_busy_while_more_than_its_bound_is_in_flight() {
    let dir = tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let vfs = Arc::new(FailingVfs { plan: Arc::clone(&plan) });
    let bound = 200_000;
    let options = raft_wal::Options { inflight_bytes_max: bound, ..options() };
    let (wal, _) = Wal::open_with(vfs, dir.path(), options).unwrap();
    plan.full.store(1, Ordering::SeqCst);
    let mut writes = Writes::default();
    let mut tickets = Vec::new();
    for index in 1..=400 {
        tickets.push(wal.submit(writes.append(1, index, 1, 2000)));
        // Between the two looks some may have been answered, never come.
        let (before, busy) = (wal.inflight_bytes(), wal.is_busy());
        assert!(!busy || before > bound);
        if wal.stats().full {
            assert_eq!(wal.is_busy(), wal.inflight_bytes() > bound);
        }
    }
    let waiting = tickets.iter().filter(|ticket| !ticket.is_done()).count();
    let each = wal.inflight_bytes() / waiting;
    assert!(waiting > 300 && (2000..2300).contains(&each), "{waiting} wait, each takes {each} bytes");
    assert!(wal.is_busy());
    plan.full.store(0, Ordering::SeqCst);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert!(!wal.is_busy() && wal.inflight_bytes() == 0);
}

#[test]
fn a_log_with_as_much_in_flight_as_it_may_is_not_busy() {
    let dir = tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let vfs = Arc::new(FailingVfs { plan: Arc::clone(&plan) });
    let bound = 100 * (raft_core::ENTRY_OVERHEAD_BYTES + entry(1, 1, 2000).size_bytes());
    let options = raft_wal::Options { inflight_bytes_max: bound, ..options() };
    let (wal, _) = Wal::open_with(vfs, dir.path(), options).unwrap();
    plan.full.store(1, Ordering::SeqCst);
    let mut writes = Writes::default();
    let mut submit = |index| drop(wal.submit(writes.append(1, index, 1, 2000)));
    (1..=70).for_each(&mut submit);
    while !wal.stats().full {
        std::thread::yield_now();
    }
    (71..).take_while(|_| wal.inflight_bytes() < bound).for_each(submit);
    assert!(!wal.is_busy());
}
