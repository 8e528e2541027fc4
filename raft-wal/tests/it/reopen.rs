//! What an open tells of the log it finds: terms, configurations, everything that was written.
use std::sync::Arc;

use raft_core::{Entry, EntryKind, LogId, LogIndex, Term};
use raft_wal::{
    Engine,
    vfs::{OsVfs, Vfs as _},
};
use tempfile::tempdir;

use crate::support::*;

/// What an open tells of the terms begins behind what was dropped, and ends with what a cut left.
#[test]
fn the_terms_of_the_log_are_those_of_what_is_kept() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 30, 3000));
    write(&mut engine, &writes.append(2, 31, 30, 3000));
    write(&mut engine, &writes.append(3, 61, 10, 3000));
    write(&mut engine, &writes.mark(3, LogId::new(2, 40), false, false));
    engine.compact(LogIndex(40)).unwrap();
    let start = engine.stats().log_start;
    assert_eq!(start.term, Term(if start.index.0 > 30 { 2 } else { 1 }));
    assert!(start.index > LogIndex::ZERO);
    let mut cut = writes.next(4, Vec::new());
    cut.truncate_after = Some(LogIndex(65));
    write(&mut engine, &cut);
    drop(engine);
    let (mut engine, report) = open(dir.path());
    let recovered = report.recovered;
    assert_eq!((recovered.log_start, recovered.last), (start, LogIndex(65)));
    let runs: Vec<(u64, u64)> = recovered.term_runs.iter().map(|run| (run.first.0, run.term.0)).collect();
    let first = start.index.0 + 1;
    assert_eq!(
        runs,
        if first <= 30 { vec![(first, 1), (31, 2), (61, 3)] } else { vec![(first, 2), (61, 3)] }
    );
    // A cut to the log's very start is as good as any.
    let mut cut = writes.next(5, Vec::new());
    cut.truncate_after = Some(start.index);
    write(&mut engine, &cut);
    drop(engine);
    let (_, report) = open(dir.path());
    assert_eq!((report.recovered.log_start, report.recovered.last), (start, start.index));
    assert!(report.recovered.term_runs.is_empty(), "{:?}", report.recovered.term_runs);
}

/// What a cut left is what is promised when something in front of it is lost.
#[test]
fn the_last_entry_behind_a_cut_keeps_its_term() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 5, 100));
    write(&mut engine, &writes.append(2, 6, 5, 100));
    let mut cut = writes.next(4, Vec::new());
    cut.truncate_after = Some(LogIndex(7));
    write(&mut engine, &cut);
    engine.close().unwrap();
    damage_payload(&segment(dir.path(), 1), 3, 100);
    let (_, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.promised), (LogIndex(3), LogId::new(2, 7)));
    assert_eq!(report.recovered.hard_state.term, Term(4));
}

/// The configurations of the log, but for those that a cut or a snapshot took.
#[test]
fn an_open_tells_the_configurations_that_the_log_holds() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    let conf = |index: u64| {
        let payload = meta(LogId::new(1, index)).conf.encode();
        let checksum = Entry::checksum_of(&payload);
        Entry { kind: EntryKind::ConfChange, checksum, payload: payload.into(), ..entry(1, index, 0) }
    };
    write(&mut engine, &writes.append(1, 1, 1, 3000));
    write(&mut engine, &writes.next(1, vec![conf(2)]));
    write(&mut engine, &writes.append(1, 3, 40, 3000));
    write(&mut engine, &writes.next(1, vec![conf(43), conf(44)]));
    write(&mut engine, &writes.append(1, 45, 3, 3000));
    write(&mut engine, &writes.next(1, vec![conf(48)]));
    write(&mut engine, &writes.cut(2, 46, 47, 1, 3000));
    let confs = |report: raft_wal::OpenReport| {
        let confs = report.recovered.confs.into_iter();
        confs.map(|(id, conf)| (id.index.0, conf.voters.len())).collect::<Vec<_>>()
    };
    drop(engine);
    let (mut engine, report) = open(dir.path());
    assert_eq!(confs(report), [(2, 3), (43, 3), (44, 3)]);
    // The segment of the first is dropped; the second is the last entry before the start of a log begun anew.
    write(&mut engine, &writes.mark(2, LogId::new(1, 40), false, false));
    engine.compact(LogIndex(40)).unwrap();
    drop(engine);
    let (mut engine, report) = open(dir.path());
    assert_eq!(confs(report), [(43, 3), (44, 3)]);
    write(&mut engine, &writes.mark(2, LogId::new(2, 60), false, true));
    drop(engine);
    assert_eq!(confs(open(dir.path()).1), []);
}

/// An open takes stretches of zeroes for unwritten space until something comes behind them.
#[test]
fn what_stands_behind_many_zeroes_is_read() {
    let dir = tempdir().unwrap();
    let options = raft_wal::Options { entry_bytes_max: 1 << 20, ..options().with_segment_bytes(4 << 20) };
    let opened = || Engine::open(Arc::new(OsVfs), dir.path(), options.clone()).unwrap();
    let (mut engine, _) = opened();
    let mut writes = Writes::default();
    let zeroes = bytes::Bytes::from(vec![0; 1_000_000]);
    let long = Entry { checksum: Entry::checksum_of(&zeroes), payload: zeroes, ..entry(1, 2, 0) };
    let entries = vec![entry(1, 1, 300), long, entry(1, 3, 300_000), entry(1, 4, 10)];
    write(&mut engine, &writes.next(1, entries.clone()));
    drop(engine);
    let (engine, report) = opened();
    assert_eq!((report.torn, report.damaged), (None, None));
    assert_eq!(contents(&engine), entries);
}

/// What is handed back of the log's end is bounded to the byte, and never without the last entry.
#[test]
fn as_many_of_the_last_entries_are_handed_back_as_fit() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    write(&mut engine, &Writes::default().append(1, 1, 10, 100));
    engine.close().unwrap();
    // The header of its record comes to what an entry takes in memory.
    let each = entry(1, 1, 100).size_bytes() + 56;
    let handed_back = |tail_bytes| {
        let options = raft_wal::Options { tail_bytes, ..options() };
        let (engine, report) = Engine::open(Arc::new(OsVfs), dir.path(), options).unwrap();
        drop(engine);
        report.recovered.tail.len()
    };
    assert_eq!([handed_back(3 * each - 1), handed_back(3 * each)], [2, 3]);
    assert_eq!(handed_back(0), 1);
}

/// What a compaction set aside is kept for use, one more than the spares wanted; the rest gives its room back.
#[test]
fn as_many_former_segments_are_kept_as_are_wanted() {
    let dir = tempdir().unwrap();
    open(dir.path()).0.close().unwrap();
    let wanted = options().spare_segments + 1;
    let spare = |number: u64| dir.path().join(raft_wal::layout::spare(number));
    let length = |number: u64| if number == 50 { SEGMENT / 2 } else { SEGMENT };
    for number in 50..60 {
        OsVfs.create(&spare(number)).unwrap().allocate(length(number)).unwrap();
    }
    let (engine, _) = open(dir.path());
    let kept = || (50..60).filter(|number| spare(*number).exists()).count();
    assert_eq!(kept(), wanted);
    assert!(!spare(50).exists(), "of another length");
    drop(engine);
}
