//! Snapshot marks, and the files that go with them.
use std::{io::Write as _, sync::atomic::Ordering};

use raft_core::{LogId, LogIndex};
use raft_wal::{
    layout,
    snapshot_file::{SnapshotFileError, SnapshotWriter},
};
use tempfile::tempdir;

use crate::support::*;

#[expect(clippy::disallowed_methods, reason = "the test plays the snapshot's writer")]
fn touch(path: &std::path::Path) {
    std::fs::write(path, b"snapshot").unwrap();
}

#[test]
fn the_highest_mark_wins_and_a_late_one_is_ignored() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 10, 10));
    write(&mut engine, &writes.mark(1, LogId::new(1, 8), false, false));
    write(&mut engine, &writes.mark(1, LogId::new(1, 5), false, false));
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!(report.recovered.snapshot, meta(LogId::new(1, 8)));
    assert_eq!(report.recovered.log_start, LogId::ZERO);
    assert_eq!(contents(&engine).len(), 10);
}

#[test]
fn a_received_snapshot_is_renamed_before_its_mark_and_resets_the_log() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..40 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
    }
    let last = LogId::new(3, 1000);
    touch(&dir.path().join(layout::snapshot_received(last)));
    let mut install = writes.mark(3, last, true, true);
    install.entries = vec![entry(3, 1001, 50)].into();
    write(&mut engine, &install);
    assert!(dir.path().join(layout::snapshot(last)).exists());
    assert_eq!(contents(&engine), [entry(3, 1001, 50)]);
    drop(engine);
    let (mut engine, report) = open(dir.path());
    assert_eq!(report.damaged, None);
    assert_eq!(report.recovered.snapshot, meta(last));
    assert_eq!(report.recovered.log_start, last);
    assert_eq!(report.recovered.last, LogIndex(1001));
    assert_eq!(report.snapshots, [last]);
    engine.compact(LogIndex(1000)).unwrap();
    assert_eq!(engine.stats().segments, 1);
    for n in 0..40 {
        write(&mut engine, &writes.append(3, 1002 + n * 5, 5, 1000));
    }
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!(report.recovered.snapshot, meta(last), "each segment repeats the mark");
    assert_eq!(report.rebuilt, [], "the footer behind the reset is as good as any");
    assert_eq!(contents(&engine).len(), 201);
}

#[test]
fn a_reset_below_the_last_entry_drops_what_lies_behind_it() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..40 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
    }
    write(&mut engine, &writes.mark(3, LogId::new(2, 50), false, true));
    assert_eq!(contents(&engine), []);
    write(&mut engine, &writes.append(3, 51, 2, 10));
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!(report.recovered.log_start, LogId::new(2, 50));
    assert_eq!(contents(&engine), expect(|_| 3, 51..=52, 10));
}

#[test]
fn files_without_a_mark_are_removed_and_older_ones_go_with_a_compaction() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 10, 10));
    let [old, marked, orphan] = [3, 6, 9].map(|index| LogId::new(1, index));
    for id in [old, marked, orphan] {
        touch(&dir.path().join(layout::snapshot(id)));
    }
    write(&mut engine, &writes.mark(1, old, false, false));
    write(&mut engine, &writes.mark(1, marked, false, false));
    drop(engine);
    let (mut engine, report) = open(dir.path());
    assert_eq!(report.snapshots, [old, marked]);
    assert!(!dir.path().join(layout::snapshot(orphan)).exists());
    engine.compact(LogIndex(6)).unwrap();
    assert!(!dir.path().join(layout::snapshot(old)).exists());
    assert!(dir.path().join(layout::snapshot(marked)).exists());
}

/// The marked snapshot's file was damaged, and a leader's of the same entry takes its place.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test plays the snapshot's writer")]
fn the_marked_snapshot_received_once_more_replaces_its_file_and_keeps_the_log() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 10, 10));
    let last = LogId::new(1, 8);
    let (place, received) = (layout::snapshot(last), layout::snapshot_received(last));
    let (place, received) = (dir.path().join(place), dir.path().join(received));
    touch(&place);
    write(&mut engine, &writes.mark(1, last, false, false));
    std::fs::write(&received, b"another").unwrap();
    write(&mut engine, &writes.mark(1, last, true, false));
    assert_eq!(std::fs::read(&place).unwrap(), b"another");
    assert!(!received.exists());
    // One of another term is no such thing: it is refused, and what was received of it goes.
    let foreign = LogId::new(2, 8);
    let received = dir.path().join(layout::snapshot_received(foreign));
    touch(&received);
    write(&mut engine, &writes.mark(2, foreign, true, false));
    assert!(!received.exists() && !dir.path().join(layout::snapshot(foreign)).exists());
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!((report.recovered.snapshot, report.snapshots), (meta(last), vec![last]));
    assert_eq!(contents(&engine).len(), 10);
}

#[test]
fn a_snapshot_that_could_not_be_written_takes_nothing_more() {
    let dir = tempdir().unwrap();
    let plan = std::sync::Arc::new(Plan::default());
    let vfs = std::sync::Arc::new(FailingVfs { plan: plan.clone() });
    let mut writer =
        SnapshotWriter::create(vfs, dir.path(), options().cluster, &meta(LogId::new(1, 5))).unwrap();
    // The header is written; the first chunk is not.
    plan.fail_write.store(2, Ordering::SeqCst);
    assert!(writer.write_all(&vec![7; 300 << 10]).is_err());
    assert!(writer.write_all(&[7; 300]).is_err(), "the disk works again, but a piece is missing");
    assert!(matches!(writer.finish(), Err(SnapshotFileError::GivenUp { .. })));
}
