//! Reading a log without opening it: the offline check and the dump. Takes the lock, never writes.

use std::{collections::VecDeque, fmt, io, path::Path};

use raft_core::{Entry, LogIndex};

use crate::{
    error::{Corruption, WalError},
    log::Log,
    open,
    recovery::Ending,
    report::{Torn, Verdict, VerifyReport},
    segment::reader,
    survey::{Names, Survey, survey},
    vfs::Vfs,
};

/// Reads and checks everything in `dir`: every segment, every record, every payload.
///
/// # Errors
/// [`WalError::NotADataDirectory`], [`WalError::InUse`], [`WalError::Io`], [`WalError::NewerFormat`] and
/// [`WalError::UnknownFeatures`]: nothing was concluded. Whatever is wrong with the bytes is in the report.
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<VerifyReport, WalError> {
    let _lock = lock(vfs, dir)?;
    let names = Names::list(vfs, dir)?;
    let mut report = VerifyReport {
        verdict: Verdict::Clean,
        segments: names.segments.len(),
        entries: 0,
        range: None,
        corruptions: Vec::new(),
        snapshots: names.snapshots.clone(),
        marked: None,
        unknown_files: names.unknown.clone(),
    };
    if names.segments.is_empty() && names.snapshots.is_empty() {
        return Err(WalError::NotADataDirectory { path: dir.to_owned() });
    }
    match survey(vfs, dir, names, None, true, false) {
        // What the first instants of a founding leave behind: harmless.
        Ok(Err(_)) => {}
        Ok(Ok(survey)) => judge(&survey, &mut report),
        Err(WalError::Corrupt(corruption)) => {
            report.corruptions.push(corruption.clone());
            report.verdict = Verdict::Corrupt(corruption);
        }
        Err(error) => return Err(error),
    }
    Ok(report)
}

fn judge(survey: &Survey, report: &mut VerifyReport) {
    report.segments = survey.log.segments.len();
    report.entries = survey.entries;
    report.marked = survey.mark.as_ref().map(|mark| mark.last);
    report.corruptions.clone_from(&survey.notes);
    let first = survey.log.log_start.index.next();
    if first <= survey.log.last {
        report.range = Some((first, survey.log.last));
    }
    report.verdict = if let Some(damage) = &survey.damage {
        report.corruptions.push(damage.corruption.clone());
        Verdict::Damaged(damage.clone())
    } else if let Some(corruption) = report.corruptions.first() {
        Verdict::Corrupt(corruption.clone())
    } else if let Some(torn) = torn(survey) {
        Verdict::Torn(torn)
    } else if let Some(missing) = missing_snapshot(survey) {
        report.corruptions.push(missing.clone());
        Verdict::Corrupt(missing)
    } else {
        Verdict::Clean
    };
}

fn torn(survey: &Survey) -> Option<Torn> {
    let Ending::Torn { to } = survey.tail.scan.ending else { return None };
    let path = survey.log.segments.last()?.file.path.clone();
    let offset = survey.tail.scan.end;
    Some(Torn { path, offset, bytes: to.saturating_sub(offset), kept: None })
}

/// The log starts behind a snapshot, and its file is not there.
fn missing_snapshot(survey: &Survey) -> Option<Corruption> {
    let mark = survey.mark.as_ref()?.last;
    if survey.names.snapshots.contains(&mark) {
        return None;
    }
    let path = survey.log.segments.last()?.file.path.clone();
    let path = path.with_file_name(crate::layout::snapshot(mark));
    Some(Corruption { path, offset: 0, kind: crate::error::CorruptionKind::SnapshotMark(mark) })
}

/// The entries of the log in `dir`, first to last, each verified. Holds the lock while it lives.
///
/// # Errors
/// As [`verify`], and [`WalError::Corrupt`] for a log that cannot be put together. Of a damaged log the entries before
/// the hole come, then the damage.
pub fn dump(vfs: &dyn Vfs, dir: &Path) -> Result<Dump, WalError> {
    let lock = lock(vfs, dir)?;
    let names = Names::list(vfs, dir)?;
    if names.segments.is_empty() {
        return Err(WalError::NotADataDirectory { path: dir.to_owned() });
    }
    let Ok(survey) = survey(vfs, dir, names, None, false, false)? else {
        return Err(WalError::NotADataDirectory { path: dir.to_owned() });
    };
    let next = survey.log.log_start.index.next();
    let last_error = survey.damage.map(|damage| WalError::Damaged(Box::new(damage)));
    Ok(Dump { _lock: lock, log: survey.log, next, ready: VecDeque::new(), last_error })
}

/// The entries of a log that nobody has open. Made by [`dump`].
#[derive(Debug)]
pub struct Dump {
    _lock: Box<dyn fmt::Debug + Send + Sync>,
    log: Log,
    next: LogIndex,
    ready: VecDeque<Entry>,
    last_error: Option<WalError>,
}

/// Entries are read in pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 20;

impl Dump {
    /// Goes on at entry `index`; one before the first kept means the first kept.
    pub fn seek(&mut self, index: LogIndex) {
        self.next = index.max(self.log.log_start.index.next());
        self.ready.clear();
    }
}

impl Iterator for Dump {
    type Item = Result<Entry, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && self.next <= self.log.last {
            let spans = self.log.locate(self.next, self.log.last, PIECE_BYTES);
            match spans.and_then(|spans| reader::read(&spans)) {
                Ok(entries) => self.ready.extend(entries),
                Err(error) => {
                    // One entry that cannot be read does not hide those behind it.
                    self.next = self.next.next();
                    return Some(Err(error));
                }
            }
        }
        match self.ready.pop_front() {
            Some(entry) => {
                self.next = entry.id.index.next();
                Some(Ok(entry))
            }
            None => self.last_error.take().map(Err),
        }
    }
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn fmt::Debug + Send + Sync>, WalError> {
    // Locking would make a lock file in any directory; look first.
    match vfs.list(dir) {
        Ok(names) if !names.is_empty() => {}
        Ok(_) => return Err(WalError::NotADataDirectory { path: dir.to_owned() }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(WalError::NotADataDirectory { path: dir.to_owned() });
        }
        Err(error) => return Err(WalError::io("list", dir, error)),
    }
    if Names::list(vfs, dir)?.is_foreign() {
        return Err(WalError::NotADataDirectory { path: dir.to_owned() });
    }
    open::lock(vfs, dir)
}
