//! Torn or damaged: a torn tail heals by itself, damage to what was acknowledged is never cut.
use std::sync::Arc;

use raft_core::{Entry, LogId, LogIndex, Term};
use raft_wal::{
    Corruption, CorruptionKind, Dumped, Engine, Verdict, WalError, dump, layout, verify,
    vfs::{OsVfs, Vfs, sim::SimVfs},
};
use tempfile::{TempDir, tempdir};

use crate::support::*;

/// Batches of one entry of 100 bytes each; the last one without a witness.
fn small_log(batches: u64) -> TempDir {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 1..=batches {
        write(&mut engine, &writes.append(1, n, 1, 100));
    }
    dir
}

/// As [`small_log`], nine entries, the header of the fourth damaged.
fn log_without_entry_4() -> TempDir {
    let dir = small_log(9);
    patch(&segment(dir.path(), 1), |bytes| {
        let at = payload_at(bytes, 1, 4, 100) - 20;
        bytes[at] ^= 1;
    });
    dir
}

/// Damages both copies of a segment's header.
fn lose_header(vfs: &SimVfs, path: &std::path::Path) {
    for at in [60, 2048 + 60] {
        vfs.flip_bits(path, at, 4);
    }
}

#[test]
fn a_torn_tail_is_cut_kept_aside_and_healed() {
    let dir = small_log(5);
    // The last batch's commit record never reached the disk.
    patch(&segment(dir.path(), 1), |bytes| {
        let at = payload_at(bytes, 1, 5, 100) + 104;
        bytes[at..at + 168].fill(0);
    });
    let (mut engine, report) = open(dir.path());
    let torn = report.torn.unwrap();
    assert_eq!(report.damaged, None);
    assert_eq!(report.recovered.last, LogIndex(4));
    assert!(std::fs::metadata(torn.kept.unwrap()).unwrap().len() == torn.bytes);
    let mut writes = Writes { id: 50 };
    write(&mut engine, &writes.append(2, 5, 1, 100));
    drop(engine);
    let (engine, report) = open(dir.path());
    assert_eq!(report.torn, None);
    assert_eq!(contents(&engine).len(), 5);
    assert_eq!(report.recovered.hard_state.term, Term(2));
}

/// A log that takes a rotten record for its torn end cuts what was acknowledged behind it (Protocol-aware recovery,
/// TigerBeetle).
#[test]
fn mid_log_rot_is_not_truncated() {
    let dir = small_log(9);
    let path = segment(dir.path(), 1);
    patch(&path, |bytes| {
        let at = payload_at(bytes, 1, 4, 100);
        bytes[at] ^= 1;
    });
    let before = std::fs::read(&path).unwrap();
    let (mut engine, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.last), (LogIndex(4), LogIndex(4)));
    assert_eq!(damage.promised, LogId::new(1, 9));
    assert_eq!(damage.corruption.kind, CorruptionKind::Payload(LogId::new(1, 4)));
    assert_eq!(report.recovered.last, LogIndex(3));
    assert_eq!(contents(&engine), expect(|_| 1, 1..=3, 100));
    let mut writes = Writes { id: 50 };
    assert!(matches!(engine.append(&writes.append(1, 4, 1, 100)), Err(WalError::Damaged(_))));
    drop(engine);
    assert!(std::fs::read(&path).unwrap() == before, "not a byte was changed");
}

#[test]
fn a_refilled_hole_is_forgotten_only_once_the_promise_is_kept() {
    let dir = log_without_entry_4();
    let (mut engine, report) = open(dir.path());
    assert_eq!(report.damaged.as_ref().unwrap().first, LogIndex(4));
    engine.begin_repair().unwrap();
    let mut writes = Writes { id: 50 };
    write(&mut engine, &writes.append(1, 4, 3, 100));
    drop(engine);

    let (mut engine, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.promised), (LogIndex(7), LogId::new(1, 9)));
    assert_eq!(report.recovered.last, LogIndex(6));
    engine.begin_repair().unwrap();
    write(&mut engine, &writes.append(1, 7, 3, 100));
    drop(engine);

    let (engine, report) = open(dir.path());
    assert_eq!(report.damaged, None);
    assert_eq!(contents(&engine), expect(|_| 1, 1..=9, 100));
}

/// Entries of 3000 bytes and a mark in the first of three segments.
fn large_log() -> TempDir {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 5, 3000));
    snapshot_file(Arc::new(OsVfs), dir.path(), LogId::new(1, 5));
    write(&mut engine, &writes.mark(1, LogId::new(1, 5), false, false));
    for index in 6..=50 {
        write(&mut engine, &writes.append(1, index, 1, 3000));
    }
    engine.close().unwrap();
    assert!(segment(dir.path(), 3).exists());
    dir
}

#[test]
fn a_segment_without_its_footer_is_read_record_by_record_and_counted_once() {
    let dir = large_log();
    assert_eq!(verify(&OsVfs, dir.path()).unwrap().entries, 50);
    patch(&segment(dir.path(), 2), |bytes| {
        let trailer = bytes.len() - 64;
        bytes[trailer] ^= 1;
    });
    let report = verify(&OsVfs, dir.path()).unwrap();
    assert_eq!(report.entries, 50);
    assert!(matches!(report.verdict, Verdict::Corrupt(Corruption { kind: CorruptionKind::Footer, .. })));
}

/// Bytes made to fit every checksum: what a header tells of the state is what the seal before told.
#[test]
fn a_header_that_contradicts_the_seal_before_it_is_no_witness_of_a_footer() {
    let dir = large_log();
    patch(&segment(dir.path(), 2), |bytes| {
        for copy in [0, 2048] {
            // The vote.
            bytes[copy + 104 + 3 * 8] ^= 2;
            let header = &bytes[copy..copy + 232];
            let crc = crc32fast::hash(&[&header[..12], &header[16..]].concat());
            bytes[copy + 12..copy + 16].copy_from_slice(&crc.to_le_bytes());
        }
    });
    let report = verify(&OsVfs, dir.path()).unwrap();
    assert!(matches!(report.verdict, Verdict::Corrupt(_)), "{:?}", report.verdict);
    assert_eq!(report.entries, 50);
}

/// The segment in use begins with the newest mark. If that is lost, the footers tell where it stands.
#[test]
fn a_lost_repetition_of_the_mark_is_found_in_an_older_segment() {
    let dir = large_log();
    patch(&segment(dir.path(), 3), |bytes| bytes[4096 + 33] ^= 1);
    let (_, report) = open(dir.path());
    assert!(report.damaged.is_some());
    assert_eq!(report.recovered.snapshot, meta(LogId::new(1, 5)));
}

/// The mark that reset the log is lost, and what stands behind it tells where the log starts: what lies before that, a
/// configuration among it, is no longer part of it.
#[test]
fn a_lost_reset_never_brings_back_what_it_made_void() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    let mut conf = entry(1, 2, 0);
    conf.kind = raft_core::EntryKind::ConfChange;
    conf.payload = options().founding.encode().into();
    conf.checksum = Entry::checksum_of(&conf.payload);
    write(&mut engine, &writes.next(1, vec![entry(1, 1, 100), conf, entry(1, 3, 100)]));
    snapshot_file(Arc::new(OsVfs), dir.path(), LogId::new(1, 1000));
    write(&mut engine, &writes.mark(1, LogId::new(1, 1000), false, true));
    // The mark is repeated in the second segment.
    for index in 1001..=1030 {
        write(&mut engine, &writes.append(1, index, 1, 3000));
    }
    drop(engine);
    patch(&segment(dir.path(), 1), |bytes| {
        let name = b"host1:7402";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        // In the header of the mark's record; and without its footer the segment is read record by record.
        bytes[at - 120] ^= 1;
        let trailer = bytes.len() - 64;
        bytes[trailer] ^= 1;
    });
    let (engine, report) = open(dir.path());
    assert_eq!(report.damaged.unwrap().promised, LogId::new(1, 1030));
    assert_eq!(report.recovered.log_start, LogId::new(1, 1000));
    assert_eq!(report.recovered.last, LogIndex(1000));
    assert_eq!(report.recovered.confs, []);
    assert_eq!(contents(&engine), []);
}

#[test]
fn a_lost_cut_never_brings_back_what_it_cut() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 10, 100));
    write(&mut engine, &writes.cut(2, 5, 6, 2, 60));
    write(&mut engine, &writes.append(2, 8, 1, 60));
    write(&mut engine, &writes.append(2, 9, 1, 60));
    drop(engine);
    let path = segment(dir.path(), 1);
    patch(&path, |bytes| {
        let start = payload_at(bytes, 1, 10, 100) + 104 + 168;
        bytes[start..start + 40].fill(0xee);
    });
    let (engine, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.promised), (LogIndex(6), LogId::new(2, 9)));
    assert_eq!(contents(&engine), expect(|_| 1, 1..=5, 100));
    assert_eq!(report.recovered.hard_state.term, Term(2));
}

/// A closed log of one segment or more on a simulated disk, and its entries.
fn simulated(batches: u64, bytes: usize) -> (SimVfs, Vec<Entry>) {
    let vfs = SimVfs::new();
    let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), options()).unwrap();
    let mut writes = Writes::default();
    for n in 1..=batches {
        write(&mut engine, &writes.append(1, n, 1, bytes));
    }
    write(&mut engine, &writes.mark(1, LogId::new(1, 2), false, false));
    write(&mut engine, &writes.cut(2, batches - 1, batches, 2, bytes));
    engine.close().unwrap();
    let mut expected = expect(|_| 1, 1..=batches - 1, bytes);
    expected.extend(expect(|_| 2, batches..=batches + 1, bytes));
    (vfs, expected)
}

const DIR: &str = "/data";

/// The acknowledged entries are there, or damage is reported and everything before the hole is there. Hard state and
/// snapshot are never lost.
fn check_damaged(vfs: SimVfs, expected: &[Entry], what: &str) -> bool {
    let (engine, report) = match Engine::open(Arc::new(vfs), DIR.as_ref(), options()) {
        Ok(opened) => opened,
        Err(WalError::Corrupt(_)) => return true,
        Err(error) => panic!("{what}: {error}"),
    };
    let last = expected[expected.len() - 1].id;
    assert_eq!(report.recovered.hard_state.term, Term(2), "{what}");
    assert_eq!(report.recovered.snapshot.last, LogId::new(1, 2), "{what}");
    let Some(damage) = report.damaged else {
        if contents_or_error(&engine).is_none_or(|contents| contents == expected) {
            return false;
        }
        panic!("{what}: entries are lost and nothing was said");
    };
    assert_eq!(damage.promised, last, "{what}");
    assert!(damage.first > report.recovered.last, "{what}");
    let kept = usize::try_from(report.recovered.last.0).unwrap();
    assert!(contents_or_error(&engine).is_none_or(|contents| contents == expected[..kept]), "{what}");
    true
}

/// `None` if a read reports the damage.
fn contents_or_error(engine: &Engine) -> Option<Vec<Entry>> {
    let last = engine.stats().last;
    if last == LogIndex::ZERO {
        return Some(Vec::new());
    }
    engine.read(LogIndex(1), last, usize::MAX).ok()
}

/// After a clean close everything is witnessed: no flipped bit loses an entry silently.
#[test]
fn no_flipped_bit_loses_an_acknowledged_entry_silently() {
    let (vfs, expected) = simulated(6, 40);
    let path = segment(DIR.as_ref(), 1);
    let clean = vfs.bytes(&path).unwrap();
    let end = clean.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut reported = 0;
    for bit in 0..end * 8 {
        if clean[bit / 8 / 512 * 512..][..512].iter().all(|byte| *byte == 0) {
            continue; // Nothing was ever written there.
        }
        let vfs = vfs.fork();
        vfs.flip_bits(&path, (bit / 8) as u64, 1 << (bit % 8));
        reported += u32::from(check_damaged(vfs, &expected, &format!("bit {bit}")));
    }
    assert!(reported > 1000, "{reported}");
}

#[test]
fn no_lost_sector_loses_an_acknowledged_entry_silently() {
    let (vfs, expected) = simulated(160, 1000);
    for number in 1..=3 {
        let path = segment(DIR.as_ref(), number);
        let length = vfs.bytes(&path).unwrap().len() as u64;
        for sector in 0..length / 512 {
            for fill in [0, 0xa5] {
                let vfs = vfs.fork();
                vfs.overwrite(&path, sector * 512, &[fill; 512]);
                check_damaged(vfs, &expected, &format!("segment {number} sector {sector} fill {fill}"));
            }
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let (vfs, expected) = simulated(300, 1000);
    for number in 1..=5 {
        let vfs = vfs.fork();
        vfs.remove(&segment(DIR.as_ref(), number)).unwrap();
        assert!(check_damaged(vfs, &expected, &format!("segment {number}")));
    }
}

/// A lone first segment cut to nothing was once taken for a directory that never held a log, and founded anew: the node
/// forgot its vote.
#[test]
fn a_first_segment_cut_to_nothing_is_not_founded_anew() {
    let dir = small_log(3);
    std::fs::OpenOptions::new().write(true).open(segment(dir.path(), 1)).unwrap().set_len(0).unwrap();
    // Only the segment in use is left, as after a crash before the next one was prepared.
    let _ = raft_wal::vfs::OsVfs.remove(&segment(dir.path(), 2));
    match raft_wal::Engine::open(Arc::new(raft_wal::vfs::OsVfs), dir.path(), options()) {
        Ok((_, report)) => assert!(report.damaged.is_some() && !report.founded, "{report:?}"),
        Err(WalError::Corrupt(_) | WalError::Damaged(_)) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_offline_check_tells_clean_torn_and_damaged_and_writes_nothing() {
    let (vfs, expected) = simulated(100, 1000);
    let Verdict::Corrupt(missing) = verify(&vfs, DIR.as_ref()).unwrap().verdict else { panic!() };
    let snapshot = std::path::Path::new(DIR).join(layout::snapshot(LogId::new(1, 2)));
    assert_eq!((&missing.path, missing.kind), (&snapshot, CorruptionKind::Missing));
    snapshot_file(Arc::new(vfs.clone()), DIR.as_ref(), LogId::new(1, 2));
    let changes = vfs.changes();
    let report = verify(&vfs, DIR.as_ref()).unwrap();
    assert_eq!(report.verdict, Verdict::Clean);
    assert_eq!(report.range, Some((LogIndex(1), LogIndex(101))));
    assert_eq!(report.marked, Some(LogId::new(1, 2)));

    vfs.flip_bits(&snapshot, 200, 1);
    let report = verify(&vfs, DIR.as_ref()).unwrap();
    let Verdict::Corrupt(corruption) = report.verdict else { panic!("{:?}", report.verdict) };
    assert_eq!(corruption.path, snapshot);
    assert!(matches!(corruption.kind, CorruptionKind::Snapshot(_)), "{corruption}");
    vfs.flip_bits(&snapshot, 200, 1);

    let path = segment(DIR.as_ref(), 1);
    let payload = &expected[9].payload;
    let bytes = vfs.bytes(&path).unwrap();
    let at = bytes.windows(1000).position(|window| window == &payload[..]).unwrap();
    vfs.flip_bits(&path, at as u64, 1);
    let before = vfs.changes();
    let report = verify(&vfs, DIR.as_ref()).unwrap();
    assert_eq!(vfs.changes(), before);
    let Verdict::Damaged(damage) = report.verdict else { panic!("{:?}", report.verdict) };
    assert_eq!((damage.first, damage.last), (LogIndex(10), LogIndex(10)));
    assert_eq!(damage.corruption.path, path);
    assert!(changes <= before);
    assert!(matches!(verify(&vfs, "/".as_ref()), Err(WalError::NotADataDirectory { .. })));
}

/// Damage inside a sealed segment that no open looks at is found when the entry is read.
#[test]
fn damage_in_a_sealed_segment_is_found_at_use() {
    let (vfs, expected) = simulated(100, 1000);
    let path = segment(DIR.as_ref(), 1);
    let bytes = vfs.bytes(&path).unwrap();
    let at = bytes.windows(1000).position(|window| window == &expected[9].payload[..]).unwrap();
    vfs.flip_bits(&path, at as u64, 1);
    let (_, report) = Engine::open(Arc::new(vfs.fork()), DIR.as_ref(), options()).unwrap();
    assert_eq!(report.damaged.unwrap().first, LogIndex(10), "the entry is part of the tail handed back");
    let mut short = options();
    short.tail_bytes = 0;
    let (engine, report) = Engine::open(Arc::new(vfs.fork()), DIR.as_ref(), short).unwrap();
    assert_eq!(report.damaged, None);
    assert_eq!(engine.read(LogIndex(9), LogIndex(9), 1).unwrap(), expected[8..9]);
    let error = engine.read(LogIndex(10), LogIndex(10), 1).unwrap_err();
    let WalError::Corrupt(corruption) = error else { panic!("{error}") };
    assert_eq!(corruption.kind, CorruptionKind::Payload(LogId::new(1, 10)));
    drop(engine);
    let mut options = options();
    options.verify_on_open = true;
    let (_, report) = Engine::open(Arc::new(vfs), DIR.as_ref(), options).unwrap();
    assert_eq!(report.damaged.unwrap().first, LogIndex(10));
}

/// As a node opens it, which holds the lock already: it once refused to start where [`Engine::open`] told the hole.
#[test]
fn damage_in_a_sealed_segment_is_told_to_whoever_holds_the_lock() {
    let (vfs, expected) = simulated(100, 1000);
    let path = segment(DIR.as_ref(), 1);
    let bytes = vfs.bytes(&path).unwrap();
    let at = bytes.windows(1000).position(|window| window == &expected[9].payload[..]).unwrap();
    vfs.flip_bits(&path, at as u64, 1);
    let lock = vfs.lock(DIR.as_ref()).unwrap();
    let (engine, report) = Engine::open_locked(Arc::new(vfs.clone()), DIR.as_ref(), options(), lock).unwrap();
    assert_eq!(report.damaged.unwrap().first, LogIndex(10));
    assert!(vfs.lock(DIR.as_ref()).is_err(), "the directory is not locked any more");
    drop(engine);
    vfs.lock(DIR.as_ref()).unwrap();
}

/// The dump shows what stands there, in order: cut entries too, and everything around a damaged place.
#[test]
fn a_dump_shows_every_record_and_goes_on_behind_damage() {
    let (vfs, expected) = simulated(100, 1000);
    let before = vfs.fingerprint();
    let dumped: Vec<_> = dump(&vfs, DIR.as_ref()).unwrap().map(|record| record.unwrap()).collect();
    let entries: Vec<&Entry> = dumped
        .iter()
        .filter_map(|record| if let Dumped::Entry(entry) = &record.content { Some(entry) } else { None })
        .collect();
    let cut = entry(1, 100, 1000);
    let written: Vec<&Entry> = expected[..99].iter().chain([&cut]).chain(&expected[99..]).collect();
    assert_eq!(entries, written);
    let count = |of: fn(&Dumped) -> bool| dumped.iter().filter(|record| of(&record.content)).count();
    assert_eq!(count(|content| matches!(content, Dumped::Cut { after } if after.0 == 99)), 1);
    assert_eq!(count(|content| matches!(content, Dumped::Mark { restated: false, .. })), 1);
    let segments = count(|content| matches!(content, Dumped::Segment { .. }));
    assert_eq!(count(|content| matches!(content, Dumped::Seal { .. })), segments - 1);
    assert!(segments > 1 && count(|content| matches!(content, Dumped::Commit { .. })) > 100);
    assert!(dumped.is_sorted_by_key(|record| (record.segment, record.offset)));

    // A header and a payload that do not fit: two errors in their places, everything else as before.
    let path = segment(DIR.as_ref(), 1);
    let at = |index: u64| {
        let found =
            dumped.iter().find(|record| matches!(&record.content, Dumped::Entry(e) if e.id.index.0 == index));
        found.unwrap().offset
    };
    vfs.flip_bits(&path, at(10) + 40, 1);
    vfs.flip_bits(&path, at(20) + 100, 1);
    let (records, errors): (Vec<_>, Vec<_>) =
        dump(&vfs, DIR.as_ref()).unwrap().partition(|record| record.is_ok());
    assert_eq!(records.len(), dumped.len() - 2);
    let kinds = errors.into_iter().map(|error| {
        let WalError::Corrupt(corruption) = error.unwrap_err() else { panic!() };
        (corruption.offset, corruption.kind)
    });
    let payload = CorruptionKind::Payload(LogId::new(1, 20));
    assert_eq!(kinds.collect::<Vec<_>>(), [(at(10), CorruptionKind::RecordHeader), (at(20), payload)]);
    vfs.flip_bits(&path, at(10) + 40, 1);
    vfs.flip_bits(&path, at(20) + 100, 1);
    assert_eq!(vfs.fingerprint(), before);
}

/// What is lost behind a cut takes with it what comes later, not what the cut had already replaced.
#[test]
fn a_loss_behind_a_cut_leaves_what_the_cut_left() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 5, 100));
    write(&mut engine, &writes.cut(2, 3, 4, 1, 100));
    for n in 5..=12 {
        write(&mut engine, &writes.append(2, n, 1, 100));
    }
    drop(engine);
    patch(&segment(dir.path(), 1), |bytes| {
        let payload = entry(2, 9, 100).payload;
        let at = bytes.windows(100).position(|window| window == &payload[..]).unwrap();
        bytes[at - 20] ^= 1;
    });
    let (engine, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.promised.index), (LogIndex(9), LogIndex(12)));
    assert_eq!(contents(&engine), expect(|n| if n < 4 { 1 } else { 2 }, 1..=8, 100));
}

/// Both copies, in one block of the disk: the seal before it tells what stood there.
#[test]
fn a_sealed_segment_without_a_header_costs_nothing() {
    for verify_on_open in [false, true] {
        for number in 1..=5 {
            let (vfs, expected) = simulated(300, 1000);
            let path = segment(DIR.as_ref(), number);
            let whole = vfs.bytes(&path).unwrap();
            vfs.overwrite(&path, 0, &[0xa5; 4096]);
            let told = Corruption { path: path.clone(), offset: 0, kind: CorruptionKind::SegmentHeader };
            let checked = raft_wal::Options { verify_on_open, tail_bytes: 0, ..options() };
            let (engine, report) =
                Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), checked.clone()).unwrap();
            assert_eq!((report.damaged, report.rebuilt), (None, vec![told.clone()]), "segment {number}");
            assert_eq!(contents(&engine), expected);
            engine.close().unwrap();
            let (_, report) = Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), checked).unwrap();
            if number > 1 {
                assert_eq!(report.rebuilt, [], "it was written again");
                assert_eq!(vfs.bytes(&path).unwrap()[..4096], whole[..4096]);
            } else {
                assert_eq!(report.rebuilt, [told], "nothing before it tells of it");
            }
        }
    }
}

/// The segments of a log need not be of one size.
#[test]
fn a_lost_header_is_made_again_with_the_size_of_its_own_segment() {
    let vfs = SimVfs::new();
    let mut writes = Writes::default();
    for (size, first) in [(SEGMENT, 1), (2 * SEGMENT, 151), (SEGMENT, 301)] {
        let sized = options().with_segment_bytes(size);
        let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), sized).unwrap();
        for n in first..first + 150 {
            write(&mut engine, &writes.append(1, n, 1, 1000));
        }
        engine.close().unwrap();
    }
    let sizes: Vec<usize> =
        (1..).map_while(|n| vfs.bytes(&segment(DIR.as_ref(), n))).map(|bytes| bytes.len()).collect();
    assert!(sizes.windows(2).any(|pair| pair[0] < pair[1]) && sizes.windows(2).any(|pair| pair[0] > pair[1]));
    for number in 2..=sizes.len() as u64 {
        let path = segment(DIR.as_ref(), number);
        let whole = vfs.bytes(&path).unwrap();
        if whole[..4096].iter().all(|byte| *byte == 0) {
            continue; // Prepared.
        }
        lose_header(&vfs, &path);
        let (engine, report) = Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), options()).unwrap();
        assert_eq!((report.damaged, report.recovered.last), (None, LogIndex(450)));
        engine.close().unwrap();
        assert_eq!(vfs.bytes(&path).unwrap()[..4096], whole[..4096], "segment {number} of {sizes:?}");
    }
}

/// Seal and footer of a segment are lost, and every entry is there: nothing is lost.
#[test]
fn a_segment_without_its_seal_and_footer_costs_nothing() {
    let (vfs, expected) = simulated(300, 1000);
    let seals = dump(&vfs, DIR.as_ref()).unwrap().filter_map(|record| {
        let record = record.unwrap();
        matches!(record.content, Dumped::Seal { .. }).then_some((record.segment, record.offset))
    });
    let (number, at) = seals.take(2).last().unwrap();
    let path = segment(DIR.as_ref(), number);
    vfs.flip_bits(&path, at + 20, 1);
    vfs.flip_bits(&path, SEGMENT - 9, 1);
    let (engine, report) = Engine::open(Arc::new(vfs), DIR.as_ref(), options()).unwrap();
    let told = Corruption { path, offset: at, kind: CorruptionKind::Footer };
    assert_eq!((report.damaged, report.rebuilt), (None, vec![told]));
    assert_eq!(contents(&engine), expected);
}

/// A segment begun behind accepted damage says so in its header; the next one, made again, must not: what stands before it
/// would no longer have to fit.
#[test]
fn the_header_behind_a_repair_is_made_again_as_it_was() {
    let dir = log_without_entry_4();
    let (mut engine, _) = open(dir.path());
    engine.begin_repair().unwrap();
    let mut writes = Writes { id: 50 };
    for index in 4..=30 {
        write(&mut engine, &writes.append(1, index, 1, 3000));
    }
    engine.close().unwrap();
    let last = segment(dir.path(), 3);
    assert!(
        !segment(dir.path(), 4).exists() || std::fs::read(segment(dir.path(), 4)).unwrap()[..8] == [0; 8]
    );
    let whole = std::fs::read(&last).unwrap();
    patch(&last, |bytes| bytes[..4096].fill(0));
    let (engine, report) = open(dir.path());
    assert_eq!(report.damaged, None);
    assert_eq!(report.recovered.last, LogIndex(30));
    engine.close().unwrap();
    assert_eq!(std::fs::read(&last).unwrap()[..4096], whole[..4096]);
}

/// Nothing tells what the lost segment had cut, once the next one's header is lost with it: nothing before is believed.
#[test]
fn a_lost_segment_and_the_next_ones_header_take_what_was_before() {
    let (vfs, _) = simulated(300, 1000);
    vfs.overwrite(&segment(DIR.as_ref(), 2), 0, &vec![0; SEGMENT as usize]);
    lose_header(&vfs, &segment(DIR.as_ref(), 3));
    let (engine, report) = Engine::open(Arc::new(vfs), DIR.as_ref(), options()).unwrap();
    assert_eq!(report.damaged.unwrap().first, LogIndex(1));
    assert_eq!(contents(&engine), []);
}

/// What the fuzzer found: the sector that told of the last vote and of the dropped segments is gone. That the segments are, too,
/// shows that there was such a batch, and that the vote read is not the last one.
#[test]
fn a_log_whose_dropped_segments_are_all_that_is_left_of_its_last_batch_is_refused() {
    let vfs = SimVfs::new();
    let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), options()).unwrap();
    let mut writes = Writes::default();
    for n in 1..=150 {
        write(&mut engine, &writes.append(1, n, 1, 1000));
    }
    let last = segment(DIR.as_ref(), engine.stats().segments);
    let known = vfs.bytes(&last).unwrap();
    write(&mut engine, &writes.mark(2, LogId::new(1, 140), false, false));
    engine.compact(LogIndex(140)).unwrap();
    engine.close().unwrap();
    assert!(vfs.bytes(&segment(DIR.as_ref(), 1)).is_none());
    vfs.overwrite(&last, 0, &known);
    let error = Engine::open(Arc::new(vfs), DIR.as_ref(), options()).unwrap_err();
    let WalError::Corrupt(corruption) = error else { panic!("{error}") };
    assert_eq!(corruption.kind, CorruptionKind::Missing);
}

/// One pass of the scrub tells every damaged entry of the sealed segments, although no open looked at them.
#[test]
fn one_pass_of_the_scrub_tells_damage_in_sealed_segments() {
    let (vfs, expected) = simulated(100, 1000);
    let path = segment(DIR.as_ref(), 1);
    let bytes = vfs.bytes(&path).unwrap();
    for damaged in [4, 9] {
        let payload = &expected[damaged].payload;
        let at = bytes.windows(1000).position(|window| window == &payload[..]).unwrap();
        vfs.flip_bits(&path, at as u64, 1);
    }
    let mut short = options();
    short.tail_bytes = 0;
    let (engine, report) = Engine::open(Arc::new(vfs), DIR.as_ref(), short).unwrap();
    assert_eq!(report.damaged, None);
    let report = engine.scrub();
    assert!(report.is_complete);
    let found: Vec<_> = report.errors.iter().map(|(index, _)| *index).collect();
    assert_eq!(found, [LogIndex(5), LogIndex(10)]);
    let WalError::Corrupt(corruption) = &report.errors[0].1 else { panic!("{:?}", report.errors) };
    assert_eq!(corruption.kind, CorruptionKind::Payload(LogId::new(1, 5)));
    assert_eq!(corruption.path, path);
    assert!(engine.scrub().is_complete && engine.scrub().segments == 0, "nothing is read twice");
}

/// What was damaged in one segment does not count against the next; and an entry that has a segment to itself is read, too.
#[test]
fn the_scrub_counts_each_segment_by_itself() {
    for (entries, payload_bytes) in [(300, 1000), (9, 32 << 10)] {
        let scrubbed = |vfs: &SimVfs| {
            let mut short = options();
            short.tail_bytes = 0;
            let (engine, _) = Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), short).unwrap();
            engine.scrub()
        };
        let (vfs, expected) = simulated(entries, payload_bytes);
        let whole = scrubbed(&vfs);
        assert!(whole.segments >= 3 && whole.errors.is_empty(), "{whole:?}");
        let path = segment(DIR.as_ref(), 1);
        let payload = &expected[0].payload;
        let bytes = vfs.bytes(&path).unwrap();
        let at = bytes.windows(payload_bytes).position(|window| window == &payload[..]).unwrap();
        vfs.flip_bits(&path, at as u64, 1);
        let report = scrubbed(&vfs);
        assert_eq!(report.errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [LogIndex(1)]);
        assert_eq!((report.segments, report.entries), (whole.segments, whole.entries - 1));
    }
}

/// Either copy of any header: told with its place, and written again, so that the offline check has nothing to say.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test plays the bad medium")]
fn a_copy_of_a_header_that_does_not_fit_is_told_and_written_again() {
    for (number, at) in [(1, 0), (1, 2048), (2, 0), (2, 2048)] {
        let dir = tempdir().unwrap();
        let (mut engine, _) = open(dir.path());
        let mut writes = Writes::default();
        for n in 0..20 {
            write(&mut engine, &writes.append(1, 1 + n * 5, 5, 1000));
        }
        engine.close().unwrap();
        let path = dir.path().join(layout::segment(number));
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[at + 60] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let told =
            Corruption { path: path.clone(), offset: at as u64, kind: CorruptionKind::SegmentHeaderCopy };
        let verified = verify(&OsVfs, dir.path()).unwrap();
        assert_eq!(verified.verdict, Verdict::Corrupt(told.clone()));
        let (engine, report) = open(dir.path());
        assert_eq!((report.rebuilt, report.damaged), (vec![told], None));
        assert_eq!(contents(&engine).len(), 100);
        engine.close().unwrap();
        assert_eq!(verify(&OsVfs, dir.path()).unwrap().verdict, Verdict::Clean);
        assert_eq!(std::fs::read(&path).unwrap()[..4096], whole[..4096]);
    }
}

/// An unfinished write is no damage; how much of it there is, is told.
#[test]
fn the_offline_check_tells_a_torn_tail() {
    let dir = small_log(5);
    patch(&segment(dir.path(), 1), |bytes| {
        let at = payload_at(bytes, 1, 5, 100) + 104;
        bytes[at..at + 168].fill(0);
    });
    let report = verify(&OsVfs, dir.path()).unwrap();
    let Verdict::Torn(torn) = report.verdict else { panic!("{:?}", report.verdict) };
    assert_eq!((torn.path, torn.kept), (segment(dir.path(), 1), None));
    assert_eq!(report.range, Some((LogIndex(1), LogIndex(4))));
    let (_, opened) = open(dir.path());
    let cut = opened.torn.unwrap();
    assert_eq!((cut.offset, cut.bytes), (torn.offset, torn.bytes));
    assert_eq!(verify(&OsVfs, dir.path()).unwrap().verdict, Verdict::Clean);
}

/// The marked snapshot and older ones that are still there are checked; one that the log never marked does not count.
#[test]
fn the_offline_check_reads_the_snapshots_that_the_log_has_marked() {
    for (damaged, told) in [(2, true), (5, true), (8, false)] {
        let dir = small_log(9);
        let ids = [2, 5, 8].map(|index| LogId::new(1, index));
        let (mut engine, _) = Engine::open(Arc::new(OsVfs), dir.path(), options()).unwrap();
        let mut writes = Writes { id: 50 };
        write(&mut engine, &writes.mark(1, ids[1], false, false));
        engine.close().unwrap();
        ids.into_iter().for_each(|id| snapshot_file(Arc::new(OsVfs), dir.path(), id));
        let path = dir.path().join(layout::snapshot(LogId::new(1, damaged)));
        patch(&path, |bytes| bytes[200] ^= 1);
        let report = verify(&OsVfs, dir.path()).unwrap();
        if told {
            let Verdict::Corrupt(corruption) = report.verdict else {
                panic!("{damaged}: {:?}", report.verdict)
            };
            assert_eq!(corruption.path, path);
        } else {
            assert_eq!(report.verdict, Verdict::Clean);
        }
    }
}

/// A file that another segment's header tells of is not shown as what its name says.
#[test]
fn a_dump_names_a_segment_under_a_wrong_name() {
    let (vfs, _) = simulated(100, 1000);
    let other = vfs.bytes(&segment(DIR.as_ref(), 2)).unwrap();
    vfs.overwrite(&segment(DIR.as_ref(), 1), 0, &other);
    let errors: Vec<_> = dump(&vfs, DIR.as_ref()).unwrap().filter_map(Result::err).collect();
    let [WalError::Corrupt(corruption), ..] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(
        (&corruption.path, corruption.kind),
        (&segment(DIR.as_ref(), 1), CorruptionKind::SegmentHeader)
    );
}

/// What had been promised before the repair was of a higher term and shorter.
#[test]
fn damage_behind_what_was_promised_is_told_too() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for index in 1..=7 {
        write(&mut engine, &writes.append(1, index, 1, 100));
    }
    write(&mut engine, &writes.append(3, 8, 1, 100));
    drop(engine);
    let damage_header = |number: u64, index: u64| {
        patch(&segment(dir.path(), number), |bytes| {
            let at = payload_at(bytes, 1, index, 100) - 20;
            bytes[at] ^= 1;
        });
    };
    damage_header(1, 4);
    let (mut engine, report) = open(dir.path());
    assert_eq!(report.damaged.unwrap().promised, LogId::new(3, 8));
    engine.begin_repair().unwrap();
    for index in 4..=14 {
        write(&mut engine, &writes.next(4, vec![entry(1, index, 100)]));
    }
    drop(engine);
    damage_header(2, 11);
    let (_, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.last), (LogIndex(11), LogIndex(14)));
}

/// It is for somebody to look at, though no entry of the log is lost with it.
#[test]
fn what_is_left_of_destroyed_segments_stays_until_they_are_dropped() {
    let dir = large_log();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes { id: 100 };
    snapshot_file(Arc::new(OsVfs), dir.path(), LogId::new(1, 60));
    write(&mut engine, &writes.mark(1, LogId::new(1, 60), false, true));
    engine.close().unwrap();
    let destroyed = [1, 2].map(|number| segment(dir.path(), number));
    destroyed.iter().for_each(|path| patch(path, |bytes| bytes.fill(0xAA)));
    let (_, report) = open(dir.path());
    assert_eq!((report.damaged, report.recovered.last), (None, LogIndex(60)));
    assert!(destroyed.iter().all(|path| path.exists()));
}

#[test]
fn the_offline_check_reads_no_snapshot_of_another_term_than_the_marked_one() {
    let dir = small_log(9);
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes { id: 50 };
    write(&mut engine, &writes.mark(1, LogId::new(1, 5), false, false));
    engine.close().unwrap();
    for term in [1, 2] {
        snapshot_file(Arc::new(OsVfs), dir.path(), LogId::new(term, 5));
    }
    patch(&dir.path().join(layout::snapshot(LogId::new(2, 5))), |bytes| bytes[200] ^= 1);
    assert_eq!(verify(&OsVfs, dir.path()).unwrap().verdict, Verdict::Clean);
}
