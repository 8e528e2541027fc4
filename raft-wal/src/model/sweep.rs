//! Damage in every place of a log: what becomes of each flipped bit, and of each write that ends early.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{DIR, Driver, Found, Known, Model, Step, judge, judge_damaged, judge_repaired};
use crate::{
    SEGMENT_BYTES_MIN, WalError,
    layout::{self, Name},
    record,
    segment::header::HEADER_BYTES,
    vfs::{Vfs as _, sim::SimVfs},
};

/// What became of each damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Everything was found.
    pub harmless: u64,
    /// The loss was reported.
    pub reported: u64,
    /// The last batch, not yet witnessed, was taken for torn.
    pub lost_unwitnessed: u64,
}

impl Outcomes {
    /// Counts one; an error is told with `what` was damaged.
    ///
    /// # Errors
    /// The judge's.
    pub fn count(&mut self, found: Result<Found, String>, what: impl Fn() -> String) -> Result<(), String> {
        match found.map_err(|error| format!("{}: {error}", what()))? {
            Found::Version { .. } => self.harmless += 1,
            Found::Reported => self.reported += 1,
            Found::LostUnwitnessed => self.lost_unwitnessed += 1,
        }
        Ok(())
    }

    fn add(&mut self, other: Outcomes) {
        self.harmless += other.harmless;
        self.reported += other.reported;
        self.lost_unwitnessed += other.lost_unwitnessed;
    }
}

/// The segment files, in order.
#[must_use]
pub fn segments(vfs: &SimVfs) -> Vec<PathBuf> {
    let names = vfs.list(Path::new(DIR)).unwrap_or_default().into_iter();
    let segments = names.filter(|entry| matches!(layout::parse(&entry.name), Name::Segment(_)));
    let mut paths: Vec<PathBuf> = segments.map(|entry| Path::new(DIR).join(entry.name)).collect();
    paths.sort();
    paths
}

/// A log whose first segment, of 64 KiB, is as full as it gets: sealed with a footer and followed by another one, or
/// still being written.
///
/// # Errors
/// The log's.
pub fn full_segment(sealed: bool) -> Result<Driver, WalError> {
    let mut steps = 0;
    loop {
        let driver = filled(steps)?;
        let second = segments(&driver.vfs).get(1).and_then(|path| driver.vfs.bytes(path));
        if second.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            return if sealed { Ok(driver) } else { filled(steps - 1) };
        }
        steps += 1;
    }
}

fn filled(steps: u16) -> Result<Driver, WalError> {
    let mut driver = Driver::open(SimVfs::new(), Model::default(), 8)?;
    for n in 0..steps {
        driver.step(Step::Append { count: 5, bytes: 200, new_term: n % 7 == 0 })?;
        match n % 5 {
            1 => driver.step(Step::Vote)?,
            2 => driver.step(Step::Replace { back: 2 })?,
            3 => driver.step(Step::Snapshot { back: 1 })?,
            4 => driver.step(Step::Configure)?,
            _ => {}
        }
        driver.step(Step::Flush)?;
    }
    driver.step(Step::Witness)?;
    Ok(driver)
}

/// Flips each bit of these bytes of the log's first segment, one at a time. `unwitnessed` as for [`judge_damaged`].
///
/// # Errors
/// The first loss that nobody reported, and which bit it was.
pub fn flip_every_bit(
    driver: &Driver,
    bytes: Range<u64>,
    unwitnessed: bool,
    threads: u64,
) -> Result<Outcomes, String> {
    let path = segments(&driver.vfs).into_iter().next().ok_or("no segment")?;
    let known = driver.model.now();
    // Each thread has its own copy of the disk: they would wait for each other's lock.
    each_share(driver, threads, |vfs, share| {
        let mut outcomes = Outcomes::default();
        for offset in bytes.clone().skip(usize::try_from(share).unwrap_or(0)).step_by(at_least_one(threads)) {
            for bit in 0..8 {
                let vfs = vfs.fork();
                vfs.flip_bits(&path, offset, 1 << bit);
                // A repair takes ten times as long, so there is one for each byte.
                let judge = if (offset + bit).is_multiple_of(8) { judge_repaired } else { judge_damaged };
                let found = judge(&vfs, &driver.model, known, unwitnessed, offset);
                outcomes.count(found, || format!("bit {bit} of byte {offset} flipped"))?;
            }
        }
        Ok(outcomes)
    })
}

/// Cuts the log's first and only segment short before each byte up to `end`, the rest zeroes: everything was written in
/// order, and the machine stopped there. A prefix of what was written must be found, and no damage. The founding, which
/// is acknowledged before anything else is written, stays.
///
/// # Errors
/// The first prefix that is refused, or shows something else.
pub fn every_prefix(driver: &Driver, end: u64, threads: u64) -> Result<Outcomes, String> {
    let path = segments(&driver.vfs).into_iter().next().ok_or("no segment")?;
    let bytes = driver.vfs.bytes(&path).ok_or("no segment")?;
    let known = Known { acked: 0, ..driver.model.now() };
    let founded = HEADER_BYTES + record::COMMIT_BYTES;
    let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
    each_share(driver, threads, |vfs, share| {
        let mut outcomes = Outcomes::default();
        for end in (founded..end).skip(usize::try_from(share).unwrap_or(0)).step_by(at_least_one(threads)) {
            let vfs = vfs.fork();
            vfs.overwrite(&path, end as u64, &vec![0; bytes.len() - end]);
            let found = judge(&vfs, &driver.model, known, end as u64);
            outcomes.count(found, || format!("everything from byte {end} on was never written"))?;
        }
        Ok(outcomes)
    })
}

fn at_least_one(threads: u64) -> usize {
    usize::try_from(threads).unwrap_or(1).max(1)
}

fn each_share(
    driver: &Driver,
    threads: u64,
    work: impl Fn(SimVfs, u64) -> Result<Outcomes, String> + Sync,
) -> Result<Outcomes, String> {
    let all = Mutex::new(Ok(Outcomes::default()));
    std::thread::scope(|scope| {
        for share in 0..threads.max(1) {
            let (vfs, work, all) = (driver.vfs.fork(), &work, &all);
            scope.spawn(move || {
                let result = work(vfs, share);
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *all, result) {
                    (Ok(sum), Ok(outcomes)) => sum.add(outcomes),
                    (Ok(_), Err(error)) => *all = Err(error),
                    (Err(_), _) => {}
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// All bytes of the smallest segment.
pub const WHOLE_SEGMENT: Range<u64> = 0..SEGMENT_BYTES_MIN;
