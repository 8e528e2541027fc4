//! Opens what a crash left and says whether the log may show it.

use std::{path::Path, sync::Arc};

use raft_core::{Entry, LogIndex, Recovered, Write, WriteId};

use super::{DIR, Known, Model, Version, options, term_at};
use crate::{
    Engine, OpenReport, WalError, snapshot_file,
    vfs::{
        Vfs as _,
        sim::{SimVfs, Survivors},
    },
};

/// What an open showed, and that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This version.
    Version {
        /// Which.
        number: usize,
        /// Whether an unfinished write was cut off.
        torn: bool,
    },
    /// Damage was reported, at the open or by a read.
    Reported,
    /// The last batch, not yet witnessed, was damaged and taken for torn: the limit that FORMAT.md tells.
    LostUnwitnessed,
}

/// Judges what a crash, without any damage, left on this disk.
///
/// # Errors
/// A sentence about the rule that is broken.
pub fn judge(vfs: &SimVfs, model: &Model, known: Known, seed: u64) -> Result<Found, String> {
    let (reads_before, bytes_before) = vfs.reads();
    let (engine, report) = open(vfs, seed).map_err(|error| format!("refused to open: {error}"))?;
    let (reads, bytes) = vfs.reads();
    let on_disk = size(vfs);
    if bytes - bytes_before > 4 * on_disk + (1 << 20) {
        let reads = reads - reads_before;
        return Err(format!("read {bytes} bytes in {reads} calls to open a log of {on_disk}"));
    }
    if let Some(damage) = &report.damaged {
        return Err(format!("took a crash for damage: {damage}"));
    }
    if let Some(corruption) = report.rebuilt.first() {
        return Err(format!("took a crash for damage: {corruption}"));
    }
    let entries = read_all(&engine, &report.recovered).map_err(|error| format!("cannot read: {error}"))?;
    let number = identify(model, known, &report.recovered, &entries)?;
    check_snapshot(vfs, &model.versions[number])?;
    Ok(Found::Version { number, torn: report.torn.is_some() })
}

/// As [`judge`], and again after a machine crash right behind the open, which must change nothing.
///
/// # Errors
/// A sentence about the rule that is broken.
pub fn judge_twice(vfs: &SimVfs, model: &Model, known: Known, seed: u64) -> Result<Found, String> {
    let first = judge(vfs, model, known, seed)?;
    let Found::Version { number, .. } = first else { return Ok(first) };
    let settled = Known { acked: number, submitted: number, ..known };
    for survivors in [Survivors::None, Survivors::Random(seed)] {
        let after = vfs.fork().crash_machine(survivors);
        judge(&after, model, settled, seed.wrapping_add(1))
            .map_err(|error| format!("version {number}, and after another crash ({survivors:?}): {error}"))?;
    }
    Ok(first)
}

/// Judges what is left of a disk whose bytes were changed after everything was acknowledged: either nothing is
/// missing, or the loss is reported. `unwitnessed` allows the last acknowledged version to be taken for torn.
///
/// # Errors
/// A sentence about the rule that is broken.
pub fn judge_damaged(
    vfs: &SimVfs,
    model: &Model,
    known: Known,
    unwitnessed: bool,
    seed: u64,
) -> Result<Found, String> {
    let (engine, report) = match open(vfs, seed) {
        Ok(opened) => opened,
        Err(
            WalError::Corrupt(_)
            | WalError::Damaged(_)
            | WalError::NewerFormat { .. }
            | WalError::UnknownFeatures { .. }
            | WalError::Foreign { .. }
            | WalError::Io { .. },
        ) => return Ok(Found::Reported),
        Err(error) => return Err(format!("an error that does not tell of damage: {error}")),
    };
    let version = &model.versions[known.acked];
    let recovered = &report.recovered;
    if let Some(damage) = &report.damaged {
        if recovered.hard_state != version.hard_state {
            return Err(format!("lost the hard state to damage: {:?}", recovered.hard_state));
        }
        if damage.promised < version.last() {
            return Err(format!("promised {} and remembers {}", version.last(), damage.promised));
        }
        if recovered.snapshot != version.snapshot {
            return Err(format!("lost snapshot {} to damage", version.snapshot.last));
        }
        if recovered.last >= damage.first {
            return Err(format!("shows entries up to {} behind a hole at {}", recovered.last, damage.first));
        }
        let mut before = version.clone();
        before.entries.split_off(&recovered.last.next().0);
        return match read_all(&engine, recovered) {
            Ok(entries) => compare(&before, known.compacted, recovered, &entries).map(|()| Found::Reported),
            Err(WalError::Corrupt(_)) => Ok(Found::Reported),
            Err(error) => Err(format!("an error that does not tell of damage: {error}")),
        };
    }
    let entries = match read_all(&engine, recovered) {
        Ok(entries) => entries,
        Err(WalError::Corrupt(_) | WalError::Io { .. }) => return Ok(Found::Reported),
        Err(error) => return Err(format!("an error that does not tell of damage: {error}")),
    };
    let lost = match identify(model, known, recovered, &entries) {
        Ok(number) => return Ok(Found::Version { number, torn: report.torn.is_some() }),
        Err(lost) => lost,
    };
    // Torn, or, if every trace of it is gone, never written.
    if unwitnessed && known.acked > 0 {
        let earlier = Known { acked: 0, submitted: known.acked, ..known };
        identify(model, earlier, recovered, &entries)
            .map_err(|error| format!("more than a prefix is missing: {error}"))?;
        return Ok(Found::LostUnwitnessed);
    }
    Err(format!("acknowledged data is missing and nobody said so: {lost}"))
}

/// As [`judge_damaged`]. If damage is reported, the log is refilled as its leader would, with a crash on the way, and must then
/// hold everything again.
///
/// # Errors
/// A sentence about the rule that is broken.
pub fn judge_repaired(
    vfs: &SimVfs,
    model: &Model,
    known: Known,
    unwitnessed: bool,
    seed: u64,
) -> Result<Found, String> {
    // Without the calls that are to fail: a repair of what they show is not looked for.
    let before = vfs.fork();
    let found = judge_damaged(vfs, model, known, unwitnessed, seed)?;
    let version = &model.versions[known.acked];
    if found == Found::Reported
        && let Ok((_, report)) = open(&before.fork(), seed)
        && let Some(damage) = report.damaged
        && damage.promised == version.last()
    {
        repair(before, version, known, seed).map_err(|error| format!("after {damage}: {error}"))?;
    }
    Ok(found)
}

fn repair(mut vfs: SimVfs, version: &Version, known: Known, seed: u64) -> Result<(), String> {
    for crash in [Some(1 + seed % 24), None] {
        let (mut engine, report) =
            open(&vfs, seed).map_err(|error| format!("refused while repaired: {error}"))?;
        if report.damaged.is_none() {
            break;
        }
        if report.recovered.hard_state != version.hard_state {
            return Err(format!("lost the hard state while repaired: {:?}", report.recovered.hard_state));
        }
        if let Some(at) = crash {
            vfs.halt_at_change(at);
        }
        let outcome = refill(&mut engine, &report.recovered, version);
        drop(engine);
        vfs = vfs.crash_machine(crash.map_or(Survivors::None, |_| Survivors::Random(seed)));
        if crash.is_none() {
            outcome.map_err(|error| format!("cannot be refilled: {error}"))?;
        }
    }
    let (engine, report) = open(&vfs, seed).map_err(|error| format!("refused once repaired: {error}"))?;
    if let Some(damage) = &report.damaged {
        return Err(format!("is not forgotten: {damage}"));
    }
    match read_all(&engine, &report.recovered) {
        Ok(entries) => compare(version, known.compacted, &report.recovered, &entries),
        // What lies before the hole was not read before, and may be damaged as well.
        Err(WalError::Corrupt(_)) => Ok(()),
        Err(error) => Err(format!("cannot be read once repaired: {error}")),
    }
}

fn refill(engine: &mut Engine, recovered: &Recovered, version: &Version) -> Result<(), WalError> {
    engine.begin_repair()?;
    let missing: Vec<Entry> =
        version.entries.range(recovered.last.next().0..).map(|(_, entry)| entry.clone()).collect();
    // In two writes: a crash finds the one and not the other.
    for (entries, id) in missing.chunks(missing.len().div_ceil(2).max(1)).zip(1..) {
        engine.append(&Write {
            id: WriteId(id),
            hard_state: version.hard_state,
            truncate_after: None,
            snapshot: None,
            entries: entries.to_vec().into(),
        })?;
        engine.flush()?;
    }
    Ok(())
}

fn open(vfs: &SimVfs, seed: u64) -> Result<(Engine, OpenReport), WalError> {
    Engine::open(Arc::new(vfs.clone()), Path::new(DIR), options(seed | 1 << 63))
}

fn size(vfs: &SimVfs) -> u64 {
    vfs.list(Path::new(DIR)).map_or(0, |names| names.iter().map(|entry| entry.length).sum())
}

fn read_all(engine: &Engine, recovered: &Recovered) -> Result<Vec<Entry>, WalError> {
    let mut out: Vec<Entry> = Vec::new();
    let mut next = recovered.log_start.index.next();
    while next <= recovered.last {
        let some = engine.read(next, recovered.last, usize::MAX)?;
        assert!(!some.is_empty(), "a read of entries {next} to {} gave nothing", recovered.last);
        out.extend(some);
        next = recovered.log_start.index.plus(out.len() as u64 + 1);
    }
    Ok(out)
}

/// Which version this is, among those it may be.
fn identify(model: &Model, known: Known, recovered: &Recovered, entries: &[Entry]) -> Result<usize, String> {
    let mut why = String::new();
    for number in (known.acked..=known.submitted).rev() {
        match compare(&model.versions[number], known.compacted, recovered, entries) {
            Ok(()) => return Ok(number),
            Err(difference) => why = difference,
        }
    }
    Err(format!("no version from {} to {}: the oldest differs in {why}", known.acked, known.submitted))
}

fn compare(
    version: &Version,
    compacted: LogIndex,
    recovered: &Recovered,
    entries: &[Entry],
) -> Result<(), String> {
    let differs = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        Err(format!("{what}: {found:?} instead of {expected:?}"))
    };
    if recovered.hard_state != version.hard_state {
        return differs("the hard state", &recovered.hard_state, &version.hard_state);
    }
    if recovered.snapshot != version.snapshot {
        return differs("the snapshot", &recovered.snapshot.last, &version.snapshot.last);
    }
    let start = recovered.log_start;
    if start.index > version.floor.index.max(compacted) || version.id(start.index) != Some(start) {
        return differs("the log's start", &start, &(version.floor, compacted));
    }
    if recovered.last != version.last().index {
        return differs("the last entry", &recovered.last, &version.last());
    }
    for (found, expected) in entries.iter().zip(version.entries.range(start.index.next().0..)) {
        if found != expected.1 {
            return differs("an entry", &found.id, &expected.1.id);
        }
        if term_at(&recovered.term_runs, found.id.index) != Some(found.id.term) {
            return differs("the term runs", &recovered.term_runs, &found.id);
        }
    }
    let skip = entries.len().saturating_sub(recovered.tail.len());
    if recovered.tail[..] != entries[skip..] {
        return differs("the tail", &recovered.tail.first().map(|entry| entry.id), &skip);
    }
    Ok(())
}

fn check_snapshot(vfs: &SimVfs, version: &Version) -> Result<(), String> {
    let last = version.snapshot.last;
    if last.index == LogIndex::ZERO {
        return Ok(());
    }
    match snapshot_file::verify(vfs, Path::new(DIR), options(0).cluster, last) {
        Ok(info) if info.meta == version.snapshot => Ok(()),
        Ok(info) => Err(format!("snapshot {last} is another one: {:?}", info.meta)),
        Err(error) => Err(format!("the marked snapshot is gone or damaged: {error}")),
    }
}
