//! Appending, reading back, cutting, rotating, compacting; each across a reopening.

use std::sync::Arc;

use raft_core::{Entry, LogId, LogIndex, NodeId, SessionSeq, Term, TermRun};
use raft_wal::{
    Dumped, Engine, WalError, dump, layout,
    vfs::{OsVfs, Vfs as _, sim::SimVfs},
};
use tempfile::tempdir;

use crate::support::*;

#[test]
fn a_new_directory_is_founded() {
    let dir = tempdir().unwrap();
    let (engine, report) = open(dir.path());
    assert!(report.founded);
    assert_eq!(report.recovered, raft_core::Recovered::fresh(options().founding));
    engine.close().unwrap();
    let (_, report) = open(dir.path());
    assert!(!report.founded);
    assert_eq!(report.recovered, raft_core::Recovered::fresh(options().founding));
}

#[test]
fn what_was_flushed_is_found_again() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 3, 100));
    let mut second = writes.append(2, 4, 2, 0).clone();
    let mut entries = second.entries.to_vec();
    entries[0].session = Some(SessionSeq { session: 5, seq: 6 });
    second.entries = entries.into();
    write(&mut engine, &second);
    let before = contents(&engine);
    drop(engine);

    let (engine, report) = open(dir.path());
    assert_eq!(contents(&engine), before);
    assert_eq!(before[3].session, Some(SessionSeq { session: 5, seq: 6 }));
    let recovered = report.recovered;
    assert_eq!(recovered.last, LogIndex(5));
    assert_eq!(recovered.hard_state.term, Term(2));
    assert_eq!(recovered.hard_state.vote, Some(NodeId(1)));
    assert_eq!(recovered.tail, before);
    let runs = [(1, 1), (4, 2)].map(|(first, term)| TermRun { first: LogIndex(first), term: Term(term) });
    assert_eq!(recovered.term_runs, runs);
    assert_eq!(report.torn, None);
    assert_eq!(report.damaged, None);
}

#[test]
fn what_was_not_flushed_is_not_found() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 1, 10));
    engine.append(&writes.append(1, 2, 1, 10)).unwrap();
    assert!(matches!(engine.read(LogIndex(2), LogIndex(2), 100), Err(WalError::NotFound { .. })));
    drop(engine);
    assert_eq!(open(dir.path()).1.recovered.last, LogIndex(1));
}

#[test]
fn a_cut_is_a_record_and_reaches_into_sealed_segments() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..40 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
    }
    let stats = engine.stats();
    assert!(stats.segments > 3 && stats.segment_bytes == stats.segments * SEGMENT, "{stats:?}");
    write(&mut engine, &writes.cut(2, 20, 21, 10, 900));
    let term = |index| if index <= 20 { 1 } else { 2 };
    let mut expected = expect(term, 1..=20, 1000);
    expected.extend(expect(term, 21..=30, 900));
    assert_eq!(contents(&engine), expected);
    drop(engine);

    let (mut engine, report) = open(dir.path());
    assert_eq!(report.damaged, None);
    assert_eq!(report.recovered.last, LogIndex(30));
    assert_eq!(contents(&engine), expected);
    // A cut alone, without entries.
    let mut cut = writes.next(3, Vec::new());
    cut.truncate_after = Some(LogIndex(10));
    write(&mut engine, &cut);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!(report.recovered.term_runs, [TermRun { first: LogIndex(1), term: Term(1) }]);
    assert_eq!(contents(&engine), expected[..10]);
}

#[test]
fn segments_follow_each_other_and_open_by_their_footers() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..100 {
        write(&mut engine, &writes.append(1 + n / 30, 1 + n * 3, 3, 1500));
    }
    let expected = expect(|index| 1 + (index - 1) / 90, 1..=300, 1500);
    assert_eq!(contents(&engine), expected);
    assert!(engine.stats().segments >= 7);
    drop(engine);
    for verify in [false, true] {
        let mut options = options();
        options.verify_on_open = verify;
        options.tail_bytes = 10_000;
        let (engine, report) = Engine::open(Arc::new(OsVfs), dir.path(), options).unwrap();
        assert_eq!(report.rebuilt, []);
        assert_eq!(contents(&engine), expected);
        assert_eq!(report.recovered.tail, expected[294..]);
        assert_eq!(report.recovered.term_runs.len(), 4);
    }
}

#[test]
fn reads_stop_at_their_limit_and_never_before_the_first() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..30 {
        write(&mut engine, &writes.append(1, 1 + n * 4, 4, 2000));
    }
    let read = |first, last, bytes| engine.read(LogIndex(first), LogIndex(last), bytes).unwrap().len();
    assert_eq!(read(1, 120, 1), 1);
    assert_eq!(read(1, 120, 5000), 2);
    assert_eq!(read(5, 5, usize::MAX), 1);
    assert_eq!(read(1, 1000, usize::MAX), 120);
    assert_eq!(read(120, 1000, usize::MAX), 1);
    assert!(matches!(
        engine.read(LogIndex(0), LogIndex(3), 1),
        Err(WalError::Compacted { first: LogIndex(1), .. })
    ));
}

/// Removals and renames need not be durable: a crash brings back what they took.
#[test]
fn the_next_open_tidies_up_what_a_compaction_left() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..60 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
    }
    let first = std::fs::read(segment(dir.path(), 1)).unwrap();
    write(&mut engine, &writes.mark(1, LogId::new(1, 250), false, false));
    engine.compact(LogIndex(200)).unwrap();
    let expected = contents(&engine);
    drop(engine);
    let count = |prefix: &str| {
        let names = OsVfs.list(dir.path()).unwrap();
        names.iter().filter(|entry| entry.name.to_str().unwrap().starts_with(prefix)).count()
    };
    let (segments, spares) = (count("wal-"), count("spare-"));
    assert_eq!(spares, 1);
    #[expect(clippy::disallowed_methods, reason = "the test plays a crash that brings files back")]
    for (name, bytes) in [
        (layout::segment(1), &first[..]),
        (layout::spare(0x50), &first[..]),
        (layout::spare(0x51), &first[..]),
        (layout::spare(1), &first[..4096]),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let (mut engine, report) = open(dir.path());
    assert_eq!((report.damaged, report.unknown_files), (None, Vec::new()));
    assert_eq!((count("wal-"), count("spare-")), (segments, 1));
    assert!(!dir.path().join(layout::spare(1)).exists(), "one of another size was kept");
    assert_eq!(contents(&engine), expected);
    // The one that is kept is the next segment.
    for n in 60..75 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
    }
    assert_eq!(count("spare-"), 0);
}

#[test]
fn compaction_drops_whole_segments_and_recycles_one() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..60 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
    }
    let before = engine.stats();
    engine.compact(LogIndex(200)).unwrap();
    assert_eq!(engine.stats().segments, before.segments, "no snapshot covers them");
    write(&mut engine, &writes.mark(1, LogId::new(1, 250), false, false));
    engine.compact(LogIndex(200)).unwrap();
    let after = engine.stats();
    assert!(after.segments < before.segments);
    let start = after.log_start;
    assert!(start.index > LogIndex(100) && start.index <= LogIndex(200), "{start}");
    assert!(matches!(engine.read(start.index, start.index, 1), Err(WalError::Compacted { .. })));
    let expected = expect(|_| 1, start.index.0 + 1..=300, 1000);
    assert_eq!(contents(&engine), expected);
    drop(engine);

    let (mut engine, report) = open(dir.path());
    assert_eq!(report.recovered.log_start, start);
    assert_eq!(report.recovered.snapshot, meta(LogId::new(1, 250)));
    assert_eq!(contents(&engine), expected);
    // The recycled files hold records of their former life.
    for n in 60..120 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
        if n % 20 == 0 {
            engine.compact(LogIndex(250)).unwrap();
        }
    }
    let expected = contents(&engine);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!(report.damaged, None);
    assert_eq!(contents(&engine), expected);
}

#[test]
fn a_write_larger_than_a_segment_is_split_and_a_larger_entry_refused() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 200, 1000));
    let half = (SEGMENT / 2) as usize;
    write(&mut engine, &writes.append(1, 201, 3, half));
    let error = engine.append(&writes.append(1, 204, 1, half + 1)).unwrap_err();
    assert!(matches!(error, WalError::TooLarge { bytes, .. } if bytes == half + 1), "{error}");
    drop(engine);
    let (engine, _) = open(dir.path());
    assert_eq!(engine.read(LogIndex(203), LogIndex(203), 1).unwrap(), [entry(1, 203, half)]);
    assert_eq!(engine.stats().last, LogIndex(203));
}

#[test]
fn a_write_that_does_not_continue_the_log_changes_nothing() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(2, 1, 3, 10));
    for bad in [
        writes.append(2, 5, 1, 10),
        writes.append(2, 3, 1, 10),
        writes.append(1, 4, 1, 10),
        writes.next(2, vec![entry(3, 4, 1)]),
        writes.mark(2, LogId::new(2, (1 << 56) + 1), false, false),
        writes.mark(2, LogId::new(2, u64::MAX), true, true),
    ] {
        assert!(matches!(engine.append(&bad), Err(WalError::Discontinuous { .. })), "{bad:?}");
    }
    write(&mut engine, &writes.append(2, 4, 1, 10));
    assert_eq!(contents(&engine).len(), 4);
}

#[test]
fn the_last_entry_is_the_one_where_counting_ends() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    let end = 1 << 56;
    snapshot_file(Arc::new(OsVfs), dir.path(), LogId::new(1, end - 1));
    write(&mut engine, &writes.mark(1, LogId::new(1, end - 1), false, true));
    write(&mut engine, &writes.append(1, end, 1, 10));
    let error = engine.append(&writes.append(1, end + 1, 1, 10)).unwrap_err();
    assert!(matches!(error, WalError::Discontinuous { what: "an entry", .. }), "{error}");
    drop(engine);
    assert_eq!(contents(&open(dir.path()).0), [entry(1, end, 10)]);
}

#[test]
fn a_directory_of_another_node_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    drop(open(dir.path()));
    let before = std::fs::read(segment(dir.path(), 1)).unwrap();
    let mut other = options();
    other.node = NodeId(2);
    assert!(matches!(open_error(dir.path(), other), WalError::Foreign { found_node: NodeId(1), .. }));
    let mut other = options();
    other.cluster = raft_core::ClusterId(8);
    assert!(matches!(open_error(dir.path(), other), WalError::Foreign { .. }));
    assert!(std::fs::read(segment(dir.path(), 1)).unwrap() == before);
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempdir().unwrap();
    let (engine, _) = open(dir.path());
    assert!(matches!(open_error(dir.path(), options()), WalError::InUse { .. }));
    drop(engine);
    let _ = open(dir.path());
}

#[test]
fn strange_files_are_named_and_left_alone_and_unfinished_ones_removed() {
    let dir = tempdir().unwrap();
    drop(open(dir.path()));
    let touch = |name: &str| patch_new(&dir.path().join(name));
    touch("notes.txt");
    touch("empty.log");
    touch("snapshot-0000000000000005-0000000000000001.snap.tmp");
    touch("wal-0000000000000009.log.tmp");
    let (_, report) = open(dir.path());
    assert_eq!(report.unknown_files, ["empty.log", "notes.txt"].map(std::path::PathBuf::from));
    assert!(dir.path().join("notes.txt").exists());
    assert!(!dir.path().join("wal-0000000000000009.log.tmp").exists());
    assert!(!dir.path().join("snapshot-0000000000000005-0000000000000001.snap.tmp").exists());
}

#[expect(clippy::disallowed_methods, reason = "the test plays a stranger")]
fn patch_new(path: &std::path::Path) {
    std::fs::write(path, b"").unwrap();
}

#[test]
fn another_segment_size_is_taken_up_with_the_next_segment() {
    let dir = tempdir().unwrap();
    let mut writes = Writes::default();
    let mut next = 1;
    for size in [SEGMENT, SEGMENT * 4, SEGMENT * 2, SEGMENT] {
        let options = options().with_segment_bytes(size);
        let (mut engine, _) = Engine::open(Arc::new(OsVfs), dir.path(), options).unwrap();
        for _ in 0..40 {
            write(&mut engine, &writes.append(1, next, 3, 1000));
            next += 3;
        }
        assert_eq!(contents(&engine), expect(|_| 1, 1..=next - 1, 1000));
    }
    let (engine, _) = open(dir.path());
    assert_eq!(contents(&engine).len() as u64, next - 1);
}

/// A sealed segment that the scrub found intact is read through a map; its file is not recycled while a payload lives.
#[test]
fn payloads_read_from_a_map_outlive_the_compaction_of_their_segment() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 0..60 {
        write(&mut engine, &writes.append(1, 1 + n * 5, 5, 3000));
    }
    let before = engine.read(LogIndex(1), LogIndex(290), usize::MAX).unwrap();
    let report = engine.scrub();
    assert!(report.is_complete && report.errors.is_empty(), "{report:?}");
    assert!(report.segments > 3 && report.entries > 250);
    let mapped = engine.read(LogIndex(1), LogIndex(290), usize::MAX).unwrap();
    assert_eq!(mapped, before);
    let twice = [0; 2].map(|_| engine.read(LogIndex(1), LogIndex(10), usize::MAX).unwrap());
    assert_eq!(twice[0][0].payload.as_ptr(), twice[1][0].payload.as_ptr(), "both are parts of one map");

    write(&mut engine, &writes.mark(1, LogId::new(1, 290), false, false));
    engine.compact(LogIndex(290)).unwrap();
    assert!(engine.stats().log_start.index > LogIndex(200));
    for n in 60..120 {
        write(&mut engine, &writes.append(2, 1 + n * 5, 5, 3000));
    }
    assert_eq!(mapped, expect(|_| 1, 1..=290, 3000), "not a byte was written under the map");
}

// Term, vote and commit need room, too: a segment that was filled by nothing else ran over into its footer.
#[test]
fn writes_without_entries_fill_segments_as_well() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 3, 100));
    for term in 2..=2000 {
        write(&mut engine, &writes.next(term, Vec::new()));
    }
    assert!(engine.stats().segments > 3);
    let before = contents(&engine);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!((report.damaged, report.recovered.hard_state.term), (None, Term(2000)));
    assert_eq!(contents(&engine), before);
}

// One write whose entries fit no segment's index is split like one whose bytes fit no segment.
#[test]
fn a_write_of_very_many_small_entries_is_split() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 20_000, 0));
    assert!(engine.stats().segments > 3);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!((report.damaged, report.recovered.last), (None, LogIndex(20_000)));
    assert_eq!(contents(&engine).len(), 20_000);
}

/// A batch of 64 KiB or more ends with a page, so that the next one does not write that page once more.
#[test]
fn a_large_batch_ends_with_a_page() {
    let dir = tempdir().unwrap();
    let options = options().with_segment_bytes(1 << 20);
    let (mut engine, _) = Engine::open(Arc::new(OsVfs), dir.path(), options.clone()).unwrap();
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 1, 1000));
    let written = || std::fs::read(segment(dir.path(), 1)).unwrap();
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(!end(&written()).is_multiple_of(4096), "a small batch takes no more than it needs");
    for n in 0..4 {
        write(&mut engine, &writes.append(1, 2 + 70 * n, 70, 1001));
        let page = end(&written()).next_multiple_of(4096);
        assert!(page - end(&written()) < 8, "the last record's own zeroes and no more");
    }
    let before = contents(&engine);
    engine.close().unwrap();
    let options = raft_wal::Options { verify_on_open: true, ..options };
    let (engine, report) = Engine::open(Arc::new(OsVfs), dir.path(), options).unwrap();
    assert_eq!((report.torn, report.damaged), (None, None));
    assert_eq!(contents(&engine), before);
}

/// Each term takes room in the footer, as each entry does.
#[test]
fn a_segment_whose_entries_are_all_of_different_terms_has_room_for_its_footer() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    let all: Vec<_> = (1..=2000).map(|n| entry(n, n, 0)).collect();
    write(&mut engine, &writes.next(2000, all.clone()));
    assert!(engine.stats().segments > 2);
    assert_eq!(contents(&engine), all);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!((report.damaged, report.rebuilt), (None, Vec::new()));
    assert_eq!(report.recovered.term_runs.len(), 2000);
    assert_eq!(contents(&engine), all);
}

// The same for writes that come one by one, of new terms or of changes of the members: what the footer will need is kept free.
#[test]
fn a_segment_of_small_writes_has_room_for_its_footer() {
    let conf = |n: u64| {
        let payload = bytes::Bytes::from(options().founding.encode());
        let checksum = raft_core::Entry::checksum_of(&payload);
        raft_core::Entry { kind: raft_core::EntryKind::ConfChange, payload, checksum, ..entry(1, n, 0) }
    };
    for (what, at_once) in [("terms", 1), ("configurations", 10)] {
        let make = |n| if what == "terms" { entry(n, n, 0) } else { conf(n) };
        let (vfs, dir) = (SimVfs::new(), std::path::Path::new("/data"));
        let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), dir, options()).unwrap();
        let mut writes = Writes::default();
        let all: Vec<_> = (1..=1500).map(make).collect();
        for part in all.chunks(3 * at_once) {
            for entries in part.chunks(at_once) {
                engine.append(&writes.next(entries[0].id.term.0, entries.to_vec())).unwrap();
            }
            engine.flush().unwrap();
        }
        assert!(engine.stats().segments > 2);
        assert_eq!(contents(&engine), all, "{what}");
        drop(engine);
        let (engine, report) = Engine::open(Arc::new(vfs), dir, options()).unwrap();
        assert_eq!((report.damaged, report.rebuilt), (None, Vec::new()), "{what}");
        assert_eq!(contents(&engine), all, "{what}");
    }
}

// Its header is written with it, and takes its room.
#[test]
fn the_first_write_to_a_segment_may_be_as_large_as_fits() {
    for bytes in (40_000..62_000).step_by(500) {
        let (vfs, dir) = (SimVfs::new(), std::path::Path::new("/data"));
        let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), dir, options()).unwrap();
        let mut writes = Writes::default();
        write(&mut engine, &writes.append(1, 1, 2, 22_000));
        write(&mut engine, &writes.append(1, 3, 2, bytes / 2));
        write(&mut engine, &writes.append(1, 5, 1, 30_000));
        let all = contents(&engine);
        drop(engine);
        let (engine, report) = Engine::open(Arc::new(vfs), dir, options()).unwrap();
        assert_eq!((report.damaged, report.rebuilt), (None, Vec::new()), "{bytes} bytes");
        assert_eq!((all.len(), contents(&engine)), (5, all), "{bytes} bytes");
    }
}

/// A long read takes a piece at a time into memory, and leaves out what was cut.
#[test]
fn entries_are_read_in_pieces() {
    let (vfs, dir) = (SimVfs::new(), std::path::Path::new("/data"));
    let options = raft_wal::Options { segment_bytes: 8 << 20, entry_bytes_max: 1 << 20, ..options() };
    let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), dir, options).unwrap();
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 3, 1000));
    write(&mut engine, &writes.append(1, 4, 3, 200_000));
    write(&mut engine, &writes.cut(2, 3, 4, 40, 100_000));
    let before = vfs.reads();
    assert_eq!(contents(&engine).len(), 43);
    let (reads, bytes) = (vfs.reads().0 - before.0, vfs.reads().1 - before.1);
    // What was cut, 600 kB; and ten entries of 100 kB are a megabyte.
    assert!((5..10).contains(&reads), "{reads} reads");
    assert!((4_000_000..4_100_000).contains(&bytes), "{bytes} bytes");
}

/// The check of all records reads sealed segments in pieces; a record may be larger than one, or lie across two.
#[test]
fn records_of_every_size_are_verified_on_open() {
    let dir = tempdir().unwrap();
    let options = raft_wal::Options { segment_bytes: 8 << 20, entry_bytes_max: 4 << 20, ..options() };
    let verified = raft_wal::Options { verify_on_open: true, ..options.clone() };
    let (mut engine, _) = Engine::open(Arc::new(OsVfs), dir.path(), options).unwrap();
    let mut writes = Writes::default();
    let sizes = [3_000_000, 700_000, 10, 900_001, 0, 2_000_000, 3_500_000, 1_048_576, 600_000];
    for (bytes, index) in sizes.into_iter().zip(1..) {
        write(&mut engine, &writes.append(1, index, 1, bytes));
    }
    let before = contents(&engine);
    engine.close().unwrap();
    let report = raft_wal::verify(&OsVfs, dir.path()).unwrap();
    assert_eq!((report.verdict, report.entries), (raft_wal::Verdict::Clean, 9));
    let (engine, report) = Engine::open(Arc::new(OsVfs), dir.path(), verified.clone()).unwrap();
    assert!(report.segments > 1 && report.rebuilt.is_empty());
    assert_eq!(contents(&engine), before);
    drop(engine);

    // One byte in the middle of the first payload: its segment is sealed, and its footer still fits.
    patch(&segment(dir.path(), 1), |bytes| bytes[2_000_000] ^= 1);
    let (_, report) = Engine::open(Arc::new(OsVfs), dir.path(), verified).unwrap();
    assert_eq!(report.damaged.expect("it was read").first, LogIndex(1));
}

#[test]
fn at_least_the_last_entry_is_handed_back_by_the_open() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for (first, count) in [(1, 1), (2, 4)] {
        write(&mut engine, &writes.append(1, first, count, 100));
        engine.close().unwrap();
        let mut short = options();
        short.tail_bytes = 0;
        let report;
        (engine, report) = Engine::open(Arc::new(OsVfs), dir.path(), short).unwrap();
        let last = first + count - 1;
        assert_eq!(report.recovered.tail, expect(|_| 1, last..=last, 100));
    }
}

#[test]
fn a_cut_to_the_end_of_the_log_is_none() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 3, 100));
    write(&mut engine, &writes.cut(2, 3, 4, 1, 100));
    engine.close().unwrap();
    let records = dump(&OsVfs, dir.path()).unwrap().map(|record| record.unwrap().content);
    assert!(!records.into_iter().any(|content| matches!(content, Dumped::Cut { .. })));
}

#[test]
fn a_read_of_nothing_is_no_damage() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    write(&mut engine, &Writes::default().append(1, 1, 9, 100));
    assert_eq!(engine.read(LogIndex(5), LogIndex(4), usize::MAX).unwrap(), []);
}

/// A batch that a crash took may have had the next number: it is not given again.
#[test]
fn each_open_leaves_out_a_number_of_a_batch() {
    let dir = tempdir().unwrap();
    let mut writes = Writes::default();
    for index in 1..=3 {
        let (mut engine, _) = open(dir.path());
        write(&mut engine, &writes.append(1, index, 1, 10));
    }
    let batches = dump(&OsVfs, dir.path()).unwrap().filter_map(|record| {
        if let Dumped::Commit { batch, .. } = record.unwrap().content { Some(batch) } else { None }
    });
    // The founding's, and that of the first write in the same open.
    assert_eq!(batches.collect::<Vec<u64>>(), [2, 3, 5, 7]);
}

/// The file with the highest number goes first, and for good: a hole in the numbers would look like a lost segment.
#[test]
fn prepared_segments_are_set_aside_from_the_highest_on() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    write(&mut engine, &Writes::default().append(1, 1, 3, 10));
    engine.close().unwrap();
    let prepared = |number| segment(dir.path(), number);
    for number in [2, 3] {
        let _ = OsVfs.remove(&prepared(number));
        OsVfs.create(&prepared(number)).unwrap().allocate(SEGMENT).unwrap();
    }
    let plan = Arc::new(Plan::default());
    let vfs = Arc::new(FailingVfs { plan: plan.clone() });
    plan.fail_rename.store(2, std::sync::atomic::Ordering::SeqCst);
    Engine::open(vfs, dir.path(), options()).unwrap_err();
    assert!(prepared(2).exists() && !prepared(3).exists());
    assert_eq!(
        plan.dir_syncs.load(std::sync::atomic::Ordering::SeqCst),
        2,
        "one of the tail, one of the name"
    );
    let (engine, report) = open(dir.path());
    assert_eq!((report.damaged, contents(&engine).len()), (None, 3));
}

/// In a block of its own, so that it does not share the fate of what it witnesses.
#[test]
fn a_witness_begins_with_the_next_block() {
    for bytes in [10, 1000, 3700, 4000] {
        let dir = tempdir().unwrap();
        let (mut engine, _) = open(dir.path());
        write(&mut engine, &Writes::default().append(1, 1, 1, bytes));
        let commits = || -> Vec<u64> {
            let records = raft_wal::dump(&OsVfs, dir.path()).unwrap().map(Result::unwrap);
            records
                .filter(|record| matches!(record.content, raft_wal::Dumped::Commit { .. }))
                .map(|record| record.offset)
                .collect()
        };
        drop(engine);
        let before = commits();
        open(dir.path()).0.close().unwrap();
        let after = commits();
        assert_eq!(after[..before.len()], before);
        let witness = after[before.len()];
        assert!(witness.is_multiple_of(4096) && witness > *before.last().unwrap(), "{bytes}: {after:?}");
    }
}

/// As many as the limit takes, as entries count towards it, and at least one.
#[test]
fn a_read_gives_as_much_as_its_limit_takes() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let sizes = [100, 3, 250, 80, 0, 41, 900];
    let entries: Vec<Entry> = (1..).zip(sizes).map(|(index, bytes)| entry(1, index, bytes)).collect();
    write(&mut engine, &Writes::default().next(1, entries.clone()));
    let all: usize = entries.iter().map(Entry::size_bytes).sum();
    for limit in 0..all + 200 {
        let read = engine.read(LogIndex(1), LogIndex(7), limit).unwrap();
        let bytes = |count: usize| entries[..count].iter().map(Entry::size_bytes).sum::<usize>();
        assert_eq!(read, entries[..read.len()]);
        assert!(read.len() == 1 || bytes(read.len()) <= limit, "{limit}: {} entries", read.len());
        // An entry may count for a few bytes more than it is.
        assert!(
            read.len() == 7 || bytes(read.len() + 1) + 16 * (read.len() + 1) > limit,
            "{limit}: {} entries",
            read.len()
        );
    }
}

/// The mark at the head of each segment is written once, also where the first write behind it has to be split.
#[test]
fn a_write_larger_than_a_segment_is_split_behind_a_mark_too() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 5, 3000));
    write(&mut engine, &writes.mark(1, LogId::new(1, 5), false, false));
    write(&mut engine, &writes.append(1, 6, 100, 3000));
    write(&mut engine, &writes.append(1, 106, 100, 3000));
    engine.close().unwrap();
    let (engine, report) = open(dir.path());
    assert_eq!((report.torn, report.damaged), (None, None));
    assert_eq!(contents(&engine), expect(|_| 1, 1..=205, 3000));
    drop(engine);
    let verify = raft_wal::verify(&OsVfs, dir.path()).unwrap();
    assert_eq!(verify.entries, 205);
}
