//! A full disk: what frees room is not kept waiting by what needs it, and what was acknowledged stays provable.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use raft_core::{LogId, LogIndex};
use raft_wal::{Engine, Options, Wal, WalError, vfs::OsVfs};
use tempfile::tempdir;

use crate::support::*;

fn plan_and_vfs() -> (Arc<Plan>, Arc<FailingVfs>) {
    let plan = Arc::new(Plan::default());
    (Arc::clone(&plan), Arc::new(FailingVfs { plan }))
}

#[test]
fn a_compaction_makes_room_for_the_write_in_front_of_it() {
    let dir = tempdir().unwrap();
    let (plan, vfs) = plan_and_vfs();
    let (mut engine, _) = Engine::open(vfs, dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 40, 5000));
    write(&mut engine, &writes.mark(1, LogId::new(1, 40), false, false));
    plan.full.store(1, Ordering::SeqCst);
    let mut last = 40;
    let blocked = loop {
        let one = writes.append(1, last + 1, 1, 5000);
        engine.append(&one).unwrap();
        match engine.flush() {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(blocked, WalError::Full { .. }), "{blocked}");
    engine.compact(LogIndex(40)).unwrap();
    assert_eq!(engine.stats().last, LogIndex(last + 1), "what waited is written");
    assert!(engine.stats().log_start.index > LogIndex::ZERO);
    engine.close().unwrap();
    let (_, report) = open(dir.path());
    assert_eq!((report.recovered.last, report.torn), (LogIndex(last + 1), None));
}

#[test]
fn a_compaction_makes_room_while_the_writer_waits_for_it() {
    let dir = tempdir().unwrap();
    let (plan, vfs) = plan_and_vfs();
    let (wal, _) = Wal::open_with(vfs, dir.path(), options()).unwrap();
    let mut writes = Writes::default();
    wal.submit(writes.append(1, 1, 40, 5000)).wait().unwrap();
    wal.submit(writes.mark(1, LogId::new(1, 40), false, false)).wait().unwrap();
    plan.full.store(1, Ordering::SeqCst);
    let tickets: Vec<_> = (41..100).map(|index| wal.submit(writes.append(1, index, 1, 5000))).collect();
    let start = Instant::now();
    while !wal.stats().full {
        assert!(start.elapsed() < SOON);
        std::thread::yield_now();
    }
    wal.compact(LogIndex(40));
    // The room of the dropped segments is enough for what the first of the writes need.
    let first = tickets.iter().filter(|ticket| !ticket.is_done()).count();
    while tickets.iter().filter(|ticket| !ticket.is_done()).count() + 10 > first {
        assert!(start.elapsed() < SOON, "nothing was freed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    plan.full.store(0, Ordering::SeqCst);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    wal.close().unwrap();
}

/// With the payload of the last acknowledged entry damaged: is it told as damage, or cut as if it had never been acknowledged?
#[expect(clippy::disallowed_methods, reason = "the test plays whoever copies a directory")]
fn is_witnessed(dir: &Path, last: u64) -> bool {
    let copy = tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    damage_payload(&segment(copy.path(), 1), last, 5000);
    let (_, report) = open(copy.path());
    assert_eq!(report.torn.is_none(), report.damaged.is_some());
    report.damaged.is_some()
}

#[test]
fn what_was_acknowledged_last_is_witnessed_although_the_disk_is_full() {
    for by_closing in [false, true] {
        let dir = tempdir().unwrap();
        let (plan, vfs) = plan_and_vfs();
        let options = if by_closing { Options { idle_commit_ms: 60_000, ..options() } } else { options() };
        let (wal, _) = Wal::open_with(vfs, dir.path(), options).unwrap();
        plan.full.store(1, Ordering::SeqCst);
        let mut writes = Writes::default();
        let tickets: Vec<_> = (1..60).map(|index| wal.submit(writes.append(1, index, 1, 5000))).collect();
        let start = Instant::now();
        while !wal.stats().full || !tickets[0].is_done() {
            assert!(start.elapsed() < SOON);
            std::thread::yield_now();
        }
        if by_closing {
            assert!(matches!(wal.close(), Err(WalError::Full { .. })));
            let last = tickets.into_iter().map(raft_wal::Ticket::wait).filter(Result::is_ok).count();
            assert!(is_witnessed(dir.path(), last as u64));
            continue;
        }
        let last = || wal.stats().last.0;
        while !is_witnessed(dir.path(), last()) {
            assert!(start.elapsed() < SOON, "no witness comes");
        }
        plan.full.store(0, Ordering::SeqCst);
        tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
        wal.close().unwrap();
    }
}

#[test]
fn a_close_of_the_engine_leaves_a_witness_although_the_disk_is_full() {
    let dir = tempdir().unwrap();
    let (plan, vfs) = plan_and_vfs();
    let (mut engine, _) = Engine::open(vfs, dir.path(), options()).unwrap();
    plan.full.store(1, Ordering::SeqCst);
    let mut writes = Writes::default();
    let mut last = 0;
    loop {
        engine.append(&writes.append(1, last + 1, 1, 5000)).unwrap();
        if engine.flush().is_err() {
            break;
        }
        last += 1;
    }
    assert!(!is_witnessed(dir.path(), last));
    assert!(matches!(engine.close(), Err(WalError::Full { .. })));
    assert!(is_witnessed(dir.path(), last));
}

/// Nothing was begun: it can be tried again.
#[test]
fn a_repair_waits_for_room() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for index in 1..=9 {
        write(&mut engine, &writes.append(1, index, 1, 100));
    }
    drop(engine);
    damage_payload(&segment(dir.path(), 1), 4, 100);
    let (plan, vfs) = plan_and_vfs();
    plan.full.store(1, Ordering::SeqCst);
    let (mut engine, report) = Engine::open(vfs, dir.path(), options()).unwrap();
    assert!(report.damaged.is_some());
    assert!(matches!(engine.begin_repair(), Err(WalError::Full { .. })));
    plan.full.store(0, Ordering::SeqCst);
    engine.begin_repair().unwrap();
    write(&mut engine, &writes.append(2, 4, 9, 100));
    drop(engine);
    let (_, report) = Engine::open(Arc::new(OsVfs), dir.path(), options()).unwrap();
    assert_eq!((report.damaged, report.recovered.last), (None, LogIndex(12)));
}
