//! Torn or damaged: a torn tail heals by itself, damage to what was acknowledged is never cut.
use raft_core::{LogId, LogIndex, Term};
use raft_wal::{CorruptionKind, WalError};
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

/// Where the payload of entry `index` begins.
fn payload_at(bytes: &[u8], index: u64) -> usize {
    let payload = entry(1, index, 100).payload;
    bytes.windows(100).position(|window| window == &payload[..]).unwrap()
}

#[test]
fn a_torn_tail_is_cut_kept_aside_and_healed() {
    let dir = small_log(5);
    // The last batch's commit record never reached the disk.
    patch(&segment(dir.path(), 1), |bytes| {
        let at = payload_at(bytes, 5) + 104;
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

#[test]
fn a_flipped_bit_in_acknowledged_data_is_reported_and_nothing_is_cut() {
    let dir = small_log(9);
    let path = segment(dir.path(), 1);
    patch(&path, |bytes| {
        let at = payload_at(bytes, 4);
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
    let dir = small_log(9);
    patch(&segment(dir.path(), 1), |bytes| {
        let at = payload_at(bytes, 4) - 20;
        bytes[at] ^= 1;
    });
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
        let start = payload_at(bytes, 10) + 104 + 168;
        bytes[start..start + 40].fill(0xee);
    });
    let (engine, report) = open(dir.path());
    let damage = report.damaged.unwrap();
    assert_eq!((damage.first, damage.promised), (LogIndex(6), LogId::new(2, 9)));
    assert_eq!(contents(&engine), expect(|_| 1, 1..=5, 100));
    assert_eq!(report.recovered.hard_state.term, Term(2));
}

/// Every bit of the written part: the acknowledged entries are there, or damage is reported, or the damage lies in the
/// last batch, which nothing witnesses.
#[test]
fn no_flipped_bit_loses_an_acknowledged_entry_silently() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 1..=4 {
        write(&mut engine, &writes.append(1, n, 1, 40));
    }
    write(&mut engine, &writes.cut(2, 3, 4, 2, 40));
    engine.close().unwrap();
    let path = segment(dir.path(), 1);
    let clean = std::fs::read(&path).unwrap();
    let end = clean.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let term = |index| if index <= 3 { 1 } else { 2 };
    let expected = expect(term, 1..=5, 40);
    let mut reported = 0;
    for bit in 0..end * 8 {
        if (512..2048).contains(&(bit / 8)) || (2560..4096).contains(&(bit / 8)) {
            continue; // Zeroes that nothing reads.
        }
        patch(&path, |bytes| {
            bytes.copy_from_slice(&clean);
            bytes[bit / 8] ^= 1 << (bit % 8);
        });
        let (engine, report) = open(dir.path());
        if let Some(damage) = report.damaged {
            reported += 1;
            assert!(damage.first > report.recovered.last, "bit {bit}");
            assert_eq!(damage.promised, LogId::new(2, 5), "bit {bit}");
            let last = report.recovered.last.0 as usize;
            assert_eq!(contents(&engine), expected[..last], "bit {bit}");
        } else {
            assert_eq!(contents(&engine), expected, "bit {bit}");
        }
        assert_eq!(report.recovered.hard_state.term, Term(2), "bit {bit}");
        drop(engine);
        clear(dir.path(), &path);
    }
    assert!(reported > 1000, "{reported}");
}

/// Takes away what an open made beside `keep`.
#[expect(clippy::disallowed_methods, reason = "the test tidies up behind the log")]
fn clear(dir: &std::path::Path, keep: &std::path::Path) {
    for name in std::fs::read_dir(dir).unwrap() {
        let path = name.unwrap().path();
        if path != keep {
            std::fs::remove_file(path).unwrap();
        }
    }
}
