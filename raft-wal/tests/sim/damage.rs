//! Bytes that change behind the log's back: nothing acknowledged may be missing without a report.

use std::path::Path;

use raft_wal::{
    model::{
        Driver, Found, Model, Outcomes, Step, every_prefix, flip_every_bit, judge_repaired, segments,
        workload,
    },
    vfs::{
        Vfs as _,
        sim::{SECTOR_BYTES, SimVfs},
    },
};

/// The length of a segment up to its last byte that is not zero.
fn used(vfs: &SimVfs, path: &Path) -> u64 {
    let bytes = vfs.bytes(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// A log in one segment, of a few KiB: entries, a cut, a vote, a snapshot.
fn small(last: Step) -> Driver {
    let mut driver = Driver::open(SimVfs::new(), Model::default(), 5).unwrap();
    for step in [
        Step::Append { count: 3, bytes: 90, new_term: true },
        Step::Flush,
        Step::Vote,
        Step::Flush,
        Step::Replace { back: 2 },
        Step::Snapshot { back: 1 },
        Step::Flush,
        Step::Append { count: 2, bytes: 60, new_term: false },
        Step::Append { count: 1, bytes: 100, new_term: false },
        Step::Flush,
        last,
    ] {
        driver.step(step).unwrap();
    }
    driver
}

/// A log of several segments.
fn large() -> Driver {
    let mut driver = Driver::open(SimVfs::new(), Model::default(), 6).unwrap();
    for step in
        workload(3, 90).into_iter().filter(|step| !matches!(step, Step::Install { .. } | Step::Compact))
    {
        driver.step(step).unwrap();
    }
    driver.step(Step::Witness).unwrap();
    assert!(segments(&driver.vfs).len() > 3, "the log is too short for this test");
    driver
}

/// Every bit up to the log's end.
fn flip(driver: &Driver, unwitnessed: bool) -> Outcomes {
    let end = used(&driver.vfs, &segments(&driver.vfs)[0]);
    flip_every_bit(driver, 0..end, unwitnessed, 2).unwrap()
}

#[test]
fn every_flipped_bit_of_a_witnessed_log_is_harmless_or_reported() {
    let outcomes = flip(&small(Step::Witness), false);
    eprintln!("witnessed: {outcomes:?}");
    assert!(outcomes.reported > 1000);
}

/// The one limit: the last batch, before anything later proves it durable, looks like a torn write.
#[test]
fn only_the_last_unwitnessed_batch_can_be_taken_for_torn() {
    let outcomes = flip(&small(Step::Flush), true);
    eprintln!("unwitnessed: {outcomes:?}");
    assert!(outcomes.reported > 1000 && outcomes.lost_unwitnessed > 0);
}

#[test]
fn every_zeroed_sector_is_harmless_or_reported() {
    let driver = large();
    let mut outcomes = Outcomes::default();
    for_every_sector(&driver, |vfs, path, sector| {
        vfs.overwrite(path, sector * SECTOR_BYTES as u64, &[0; SECTOR_BYTES]);
        let found = judge_repaired(vfs, &driver.model, driver.model.now(), false, sector);
        count(&mut outcomes, found, || format!("sector {sector} of {} zeroed", path.display()));
    });
    eprintln!("zeroed: {outcomes:?}");
    assert!(outcomes.reported > 50);
}

#[test]
fn every_unreadable_sector_is_harmless_or_reported() {
    let driver = large();
    let mut outcomes = Outcomes::default();
    for_every_sector(&driver, |vfs, path, sector| {
        vfs.make_unreadable(path, sector);
        let found = judge_repaired(vfs, &driver.model, driver.model.now(), false, sector);
        count(&mut outcomes, found, || format!("sector {sector} of {} unreadable", path.display()));
    });
    eprintln!("unreadable: {outcomes:?}");
    assert!(outcomes.reported > 50);
}

/// A misdirected write: the sector of another place, whole and undamaged.
#[test]
fn every_sector_replaced_by_another_is_harmless_or_reported() {
    let driver = large();
    let mut outcomes = Outcomes::default();
    for_every_sector(&driver, |vfs, path, sector| {
        let bytes = vfs.bytes(path).unwrap();
        let size = SECTOR_BYTES;
        let from = (usize::try_from(sector).unwrap() + 9) * size % bytes.len();
        vfs.overwrite(path, sector * size as u64, &bytes[from..from + size]);
        let found = judge_repaired(vfs, &driver.model, driver.model.now(), false, sector);
        count(&mut outcomes, found, || format!("sector {sector} of {} replaced", path.display()));
    });
    eprintln!("replaced: {outcomes:?}");
    assert!(outcomes.reported > 50);
}

#[test]
fn every_shortened_or_missing_segment_is_harmless_or_reported() {
    let driver = large();
    let mut outcomes = Outcomes::default();
    for_every_sector(&driver, |vfs, path, sector| {
        vfs.shorten(path, sector * SECTOR_BYTES as u64);
        let found = judge_repaired(vfs, &driver.model, driver.model.now(), false, sector);
        count(&mut outcomes, found, || format!("{} cut to {sector} sectors", path.display()));
    });
    for path in segments(&driver.vfs) {
        let vfs = driver.vfs.fork();
        vfs.remove(&path).unwrap();
        let found = judge_repaired(&vfs, &driver.model, driver.model.now(), false, 1);
        count(&mut outcomes, found, || format!("{} missing", path.display()));
    }
    eprintln!("shortened: {outcomes:?}");
    assert!(outcomes.reported > 50);
}

fn count(outcomes: &mut Outcomes, found: Result<Found, String>, what: impl Fn() -> String) {
    outcomes.count(found, what).unwrap();
}

/// A write that stops anywhere, even within a sector, is torn and never damage.
#[test]
fn every_prefix_of_a_log_opens() {
    let driver = small(Step::Witness);
    let end = used(&driver.vfs, &segments(&driver.vfs)[0]);
    let outcomes = every_prefix(&driver, end, 2).unwrap();
    assert_eq!((outcomes.reported, outcomes.lost_unwitnessed), (0, 0));
    assert!(outcomes.harmless > 1000);
}

/// Calls `change` with a copy of the disk for each sector of each segment that holds anything, and one behind.
fn for_every_sector(driver: &Driver, mut change: impl FnMut(&SimVfs, &Path, u64)) {
    for path in segments(&driver.vfs) {
        let sectors = used(&driver.vfs, &path).div_ceil(SECTOR_BYTES as u64) + 1;
        for sector in 0..sectors {
            let vfs = driver.vfs.fork();
            let length = vfs.bytes(&path).unwrap().len() as u64;
            if (sector + 1) * SECTOR_BYTES as u64 <= length {
                change(&vfs, &path, sector);
            }
        }
    }
}
