//! A repair, and an open that begins a segment: what rests on them is never lost silently, and counts only once it is durable.

use std::{path::Path, sync::Arc};

use raft_core::{LogId, LogIndex};
use raft_wal::{
    CorruptionKind, Engine, OpenReport, Options, WalError,
    vfs::sim::{Call, Fault, SimVfs, Survivors},
};

use crate::support::*;

const DIR: &str = "/data";

fn open_with(vfs: &SimVfs, options: Options) -> Result<(Engine, OpenReport), WalError> {
    Engine::open(Arc::new(vfs.clone()), DIR.as_ref(), options)
}

fn number(number: u64) -> std::path::PathBuf {
    segment(DIR.as_ref(), number)
}

/// Flips a bit in the header of entry 4.
fn damage_entry_4(vfs: &SimVfs, bytes: usize) {
    let at = payload_at(&vfs.bytes(&number(1)).unwrap(), 1, 4, bytes);
    vfs.flip_bits(&number(1), at as u64 - 20, 1);
}

/// Nine entries in one segment that has no seal, the fourth damaged.
fn unsealed() -> SimVfs {
    let vfs = SimVfs::new();
    let (mut engine, _) = open_with(&vfs, options()).unwrap();
    let mut writes = Writes::default();
    for index in 1..=9 {
        write(&mut engine, &writes.append(1, index, 1, 100));
    }
    drop(engine);
    damage_entry_4(&vfs, 100);
    vfs.crash_process()
}

/// Two segments with a seal, and the one that the second names without a byte. Tells the last entry.
fn sealed() -> (SimVfs, u64) {
    for nth in 1..60 {
        let vfs = SimVfs::new();
        let (mut engine, _) = open_with(&vfs, options()).unwrap();
        let mut writes = Writes::default();
        let mut last = 0;
        let mut append = |last: u64| {
            engine.append(&writes.append(1, last + 1, 1, 3000))?;
            engine.flush()
        };
        while last < 30 {
            append(last).unwrap();
            last += 1;
        }
        vfs.fail_change(nth, Fault::Error);
        while append(last).is_ok() {
            last += 1;
        }
        let vfs = vfs.crash_process();
        let segments = [2, 3].map(|n| vfs.bytes(&number(n)).unwrap_or_default());
        if let [second, third] = &segments
            && second.len() == third.len()
            && second[second.len() - 64..].starts_with(b"RWALFOOT")
            && third.iter().all(|byte| *byte == 0)
        {
            return (vfs, last);
        }
    }
    panic!("no place between two segments");
}

/// Nothing but its own header tells of a segment that a repair began, and it looks like one that was prepared and never used.
#[test]
fn a_repair_without_its_header_is_refused_and_left_alone() {
    let (with_seals, last) = sealed();
    damage_entry_4(&with_seals, 3000);
    for (vfs, repair, bytes, end) in [(unsealed(), 2, 100, 9), (with_seals, 3, 3000, last)] {
        for (lost, with) in [(4096, 0), (4096, 7), (512, 0)] {
            let vfs = vfs.fork();
            let (mut engine, report) =
                open_with(&vfs, Options { verify_on_open: true, ..options() }).unwrap();
            assert_eq!(report.damaged.unwrap().promised, LogId::new(1, end));
            engine.begin_repair().unwrap();
            let mut writes = Writes { id: 50 };
            write(&mut engine, &writes.append(5, 4, 3, bytes));
            engine.close().unwrap();
            vfs.overwrite(&number(repair), 0, &vec![with; lost]);
            let before = vfs.bytes(&number(repair));
            let opened = open_with(&vfs, options()).map(|(_, report)| report.recovered.last);
            if lost == 512 {
                assert_eq!(opened.unwrap(), LogIndex(6), "the other copy is there");
                continue;
            }
            let Err(WalError::Corrupt(corruption)) = opened else { panic!("{opened:?}") };
            assert_eq!((corruption.path, corruption.kind), (number(repair), CorruptionKind::SegmentHeader));
            assert!(vfs.bytes(&number(repair)) == before, "segment {repair} was changed");
        }
    }
}

#[test]
fn a_crash_while_a_repair_begins_leaves_the_damage_or_the_repair() {
    let survivors = [Survivors::None, Survivors::All].into_iter();
    let survivors = survivors.chain((0..30).map(Survivors::Random)).collect::<Vec<_>>();
    let damaged = unsealed();
    let (mut begun, mut places) = (0, 0);
    loop {
        places += 1;
        let vfs = damaged.fork();
        let (mut engine, _) = open_with(&vfs, options()).unwrap();
        assert_eq!((vfs.calls(Call::Write), vfs.calls(Call::SyncData)), (0, 0), "a damaged log was changed");
        vfs.halt_at_change(places);
        let outcome = engine.begin_repair();
        drop(engine);
        for survivors in &survivors {
            let what = format!("change {places}, {survivors:?}");
            let vfs = vfs.fork().crash_machine(*survivors);
            let (mut engine, report) =
                open_with(&vfs, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let damage = report.damaged.unwrap();
            assert_eq!((damage.first, damage.promised), (LogIndex(4), LogId::new(1, 9)), "{what}");
            assert_eq!(report.recovered.last, LogIndex(3), "{what}");
            begun += u32::from(damage.corruption.kind == CorruptionKind::Missing);
            engine.begin_repair().unwrap();
            let mut writes = Writes { id: 50 };
            write(&mut engine, &writes.append(5, 4, 9, 100));
            drop(engine);
            let (engine, report) = open_with(&vfs.crash_machine(Survivors::None), options()).unwrap();
            assert_eq!((report.damaged, report.recovered.last), (None, LogIndex(12)), "{what}");
            assert_eq!(contents(&engine), expect(|n| if n < 4 { 1 } else { 5 }, 1..=12, 100), "{what}");
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert!(places > 5 && begun > 30, "{places} places, the repair had begun {begun} times");
}

/// What was refilled may be in the page cache only: the sync behind it failed, or the process was killed before.
#[test]
fn what_a_repair_has_refilled_is_durable_before_it_counts() {
    for failed in [false, true] {
        let vfs = unsealed();
        let (mut engine, _) = open_with(&vfs, options()).unwrap();
        engine.begin_repair().unwrap();
        let mut writes = Writes { id: 50 };
        vfs.fail_call(Call::SyncData, 1, Fault::Error);
        if !failed {
            vfs.halt_at_change(2);
        }
        engine.append(&writes.append(1, 4, 3, 100)).unwrap();
        engine.flush().unwrap_err();
        drop(engine);
        let vfs = vfs.crash_process();
        let (mut engine, report) = open_with(&vfs, options()).unwrap();
        assert_eq!(report.recovered.last, LogIndex(6));
        assert_eq!(report.damaged.unwrap().first, LogIndex(7));
        engine.begin_repair().unwrap();
        write(&mut engine, &writes.append(1, 7, 2, 100));
        drop(engine);
        let (engine, report) = open_with(&vfs.crash_machine(Survivors::None), options()).unwrap();
        assert_eq!(report.damaged.unwrap().first, LogIndex(9));
        assert_eq!(contents(&engine), expect(|_| 1, 1..=8, 100));
    }
}

/// The open that gives the next segment its name fails to sync the directory. The one after it must not take that name for durable.
#[test]
fn a_segment_whose_name_one_open_could_not_sync_is_not_used_by_the_next() {
    let (between, last) = sealed();
    let mut failed = 0;
    for size in [SEGMENT, 2 * SEGMENT] {
        for dirty in [false, true] {
            for nth in 1..6 {
                let what = format!("segments of {size}, dirty: {dirty}, sync {nth}");
                let vfs = between.fork();
                if dirty {
                    vfs.overwrite(&number(3), 100, &[1]);
                }
                vfs.fail_call(Call::SyncDir, nth, Fault::Error);
                failed += u32::from(open_with(&vfs, options().with_segment_bytes(size)).is_err());
                let vfs = vfs.crash_process();
                let (mut engine, _) = open_with(&vfs, options().with_segment_bytes(size)).unwrap();
                let mut writes = Writes { id: 50 };
                write(&mut engine, &writes.append(1, last + 1, 3, 3000));
                drop(engine);
                let (engine, report) = open_with(&vfs.crash_machine(Survivors::None), options()).unwrap();
                assert_eq!(report.recovered.last, LogIndex(last + 3), "{what}");
                assert_eq!(contents(&engine), expect(|_| 1, 1..=last + 3, 3000), "{what}");
            }
        }
    }
    assert!(failed >= 8, "only {failed} opens failed");
}

/// Where a spare is at hand no room is needed for the segment that a seal names.
#[test]
fn the_segment_that_a_seal_names_is_made_of_a_spare() {
    let (vfs, last) = sealed();
    let spare = Path::new(DIR).join(raft_wal::layout::spare(77));
    let file = raft_wal::vfs::Vfs::create(&vfs, &spare).unwrap();
    file.write_at(&vec![3; SEGMENT as usize], 0).unwrap();
    let (mut engine, _) = open_with(&vfs, options()).unwrap();
    assert_eq!((vfs.bytes(&spare), vfs.calls(Call::Allocate)), (None, 0));
    let mut writes = Writes { id: 50 };
    write(&mut engine, &writes.append(1, last + 1, 3, 3000));
    engine.close().unwrap();
    let (engine, report) = open_with(&vfs, options()).unwrap();
    assert_eq!((report.damaged, report.torn), (None, None));
    assert_eq!(contents(&engine), expect(|_| 1, 1..=last + 3, 3000));
}

/// A crash took the first batch of a segment and left its header, which tells what the segment before had cut. What is
/// written then has cut nothing.
#[test]
fn a_segment_begun_twice_does_not_repeat_the_cuts_of_the_one_before() {
    let vfs = SimVfs::new();
    let (mut engine, _) = open_with(&vfs, options()).unwrap();
    let mut writes = Writes::default();
    write(&mut engine, &writes.append(1, 1, 10, 1000));
    write(&mut engine, &writes.cut(2, 5, 6, 1, 1000));
    let mut last = 6;
    while engine.stats().segments < 2 {
        last += 1;
        write(&mut engine, &writes.append(2, last, 1, 1000));
    }
    drop(engine);
    let vfs = vfs.crash_process();
    vfs.overwrite(&number(2), 4096, &vec![0; SEGMENT as usize - 4096]);
    let (mut engine, report) = open_with(&vfs, options()).unwrap();
    assert_eq!((report.recovered.last, report.damaged), (LogIndex(last - 1), None));
    for index in last..last + 3 {
        write(&mut engine, &writes.append(2, index, 1, 1000));
    }
    engine.close().unwrap();
    vfs.flip_bits(&number(2), 4096 + 20, 1);
    let (engine, report) = open_with(&vfs, options()).unwrap();
    assert_eq!(report.damaged.unwrap().first, LogIndex(last));
    assert_eq!(contents(&engine), expect(|n| if n < 6 { 1 } else { 2 }, 1..=last - 1, 1000));
}

/// The record that began the log anew is lost, with all before it or alone. What was before costs nothing, and no repair has to
/// reach so far.
#[test]
fn a_repair_is_complete_though_the_record_that_began_the_log_is_lost_too() {
    for alone in [false, true] {
        let vfs = SimVfs::new();
        let (mut engine, _) = open_with(&vfs, options()).unwrap();
        let mut writes = Writes::default();
        snapshot_file(Arc::new(vfs.clone()), DIR.as_ref(), LogId::new(1, 8));
        write(&mut engine, &writes.append(1, 1, 3, 100));
        let before = vfs.bytes(&number(1)).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        write(&mut engine, &writes.mark(1, LogId::new(1, 8), false, true));
        for index in 9..=40 {
            write(&mut engine, &writes.append(1, index, 1, 3000));
        }
        engine.close().unwrap();
        vfs.shorten(&number(1), if alone { before as u64 + 9 } else { 255 });
        let (mut engine, report) = open_with(&vfs, options()).unwrap();
        let damage = report.damaged.unwrap();
        assert_eq!((damage.first, damage.promised), (LogIndex(9), LogId::new(1, 40)));
        engine.begin_repair().unwrap();
        write(&mut engine, &writes.append(1, 9, 32, 3000));
        engine.close().unwrap();
        let (engine, report) = open_with(&vfs, options()).unwrap();
        assert_eq!((report.damaged, report.recovered.last), (None, LogIndex(40)));
        assert_eq!(contents(&engine), expect(|_| 1, 9..=40, 3000));
    }
}

/// The header may be in the page cache only, as the batch behind it.
#[test]
fn what_a_failed_founding_left_is_written_again_before_it_counts() {
    let vfs = SimVfs::new();
    vfs.fail_call(Call::SyncData, 2, Fault::Error);
    open_with(&vfs, options()).unwrap_err();
    let vfs = vfs.crash_process();
    let (mut engine, report) = open_with(&vfs, options()).unwrap();
    assert!(!report.founded);
    write(&mut engine, &Writes::default().append(1, 1, 1, 100));
    drop(engine);
    let (_, report) = open_with(&vfs.crash_machine(Survivors::None), options()).unwrap();
    assert_eq!(report.recovered.last, LogIndex(1));
}

#[test]
fn a_segment_prepared_behind_the_one_that_a_seal_names_is_removed() {
    let (vfs, last) = sealed();
    let file = raft_wal::vfs::Vfs::create(&vfs, &number(4)).unwrap();
    file.write_at(&vec![0; SEGMENT as usize], 0).unwrap();
    let (_, report) = open_with(&vfs, options()).unwrap();
    assert_eq!((report.recovered.last, vfs.bytes(&number(4))), (LogIndex(last), None));
}
