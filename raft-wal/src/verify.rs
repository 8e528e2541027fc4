//! The offline check of a log that nobody has open. Takes the lock, never writes.

use std::{fmt, io, path::Path};

use raft_core::LogId;

use crate::{
    error::{Corruption, CorruptionKind, WalError},
    identity::{Identity, IdentityError},
    layout, open,
    recovery::Ending,
    report::{Torn, Verdict, VerifyReport},
    snapshot_file::{self, SnapshotFileError},
    survey::{Names, Survey, corruption, survey},
    vfs::Vfs,
};

/// Reads and checks everything in `dir`: every segment, every record, every payload, every snapshot that the log has
/// marked, the identity.
///
/// # Errors
/// [`WalError::NotADataDirectory`], [`WalError::InUse`], [`WalError::Io`], [`WalError::NewerFormat`] and
/// [`WalError::UnknownFeatures`]: nothing was concluded. Whatever is wrong with the bytes is in the report.
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<VerifyReport, WalError> {
    let _lock = lock_existing(vfs, dir)?;
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
        Ok(Ok(survey)) => {
            judge(&survey, &mut report);
            let others = Others { vfs, dir, survey: &survey };
            let damaged: Vec<Corruption> =
                [others.identity()?, others.snapshots()?].into_iter().flatten().collect();
            if let (Verdict::Clean | Verdict::Torn(_), Some(first)) = (&report.verdict, damaged.first()) {
                report.verdict = Verdict::Corrupt(first.clone());
            }
            report.corruptions.extend(damaged);
        }
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

/// The files beside the log.
struct Others<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    survey: &'a Survey,
}

impl Others<'_> {
    /// Is it that of the node whose log this is? It may be missing: a log can be used without one.
    fn identity(&self) -> Result<Vec<Corruption>, WalError> {
        let path = self.dir.join(layout::IDENTITY_FILE);
        let found = |offset, kind| Ok(vec![corruption(&path, offset, kind)]);
        match Identity::load(self.vfs, self.dir) {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(identity)) => {
                let header = &self.survey.tail.header;
                let fits = identity.node == header.node
                    && identity.cluster.is_none_or(|cluster| cluster == header.cluster);
                if fits { Ok(Vec::new()) } else { found(0, CorruptionKind::Foreign) }
            }
            Err(IdentityError::Damaged { offset, kind, .. }) => found(offset, CorruptionKind::Identity(kind)),
            Err(IdentityError::Io { operation, path, source }) => {
                Err(WalError::Io { operation, path, source })
            }
            Err(IdentityError::NewerFormat { path, version, known }) => {
                Err(WalError::NewerFormat { path, version, known })
            }
            Err(IdentityError::UnknownFeatures { path, bits }) => {
                Err(WalError::UnknownFeatures { path, bits })
            }
        }
    }

    /// The marked one must be there and whole; an older one that is still there, whole. One that the log has not marked
    /// never counted.
    fn snapshots(&self) -> Result<Vec<Corruption>, WalError> {
        let Some(mark) = self.survey.mark.as_ref().map(|mark| mark.last) else { return Ok(Vec::new()) };
        let mut damaged = Vec::new();
        if !self.survey.names.snapshots.contains(&mark) {
            damaged.push(corruption(&self.path(mark), 0, CorruptionKind::Missing));
        }
        for id in self.survey.names.snapshots.iter().filter(|id| id.index < mark.index || **id == mark) {
            damaged.extend(self.snapshot(*id)?);
        }
        Ok(damaged)
    }

    fn snapshot(&self, id: LogId) -> Result<Option<Corruption>, WalError> {
        let path = self.path(id);
        let found = |offset, kind| Ok(Some(corruption(&path, offset, kind)));
        let cluster = self.survey.tail.header.cluster;
        match snapshot_file::verify(self.vfs, self.dir, cluster, id) {
            Ok(_) => Ok(None),
            Err(SnapshotFileError::Damaged { offset, kind, .. }) => {
                found(offset, CorruptionKind::Snapshot(kind))
            }
            Err(SnapshotFileError::Foreign { .. } | SnapshotFileError::ForeignGroup { .. }) => {
                found(0, CorruptionKind::Foreign)
            }
            Err(SnapshotFileError::NotFound { .. }) => found(0, CorruptionKind::Missing),
            Err(SnapshotFileError::Io { operation, path, source }) => {
                Err(WalError::Io { operation, path, source })
            }
            Err(SnapshotFileError::NewerFormat { path, version, known }) => {
                Err(WalError::NewerFormat { path, version, known })
            }
            Err(SnapshotFileError::UnknownFeatures { path, bits }) => {
                Err(WalError::UnknownFeatures { path, bits })
            }
            Err(
                error @ (SnapshotFileError::WrongOffset { .. }
                | SnapshotFileError::BadConfiguration(_)
                | SnapshotFileError::GivenUp { .. }),
            ) => unreachable!("nothing is written here: {error}"),
        }
    }

    fn path(&self, id: LogId) -> std::path::PathBuf {
        self.dir.join(layout::snapshot(id))
    }
}

/// The lock of a directory that holds something of ours; nothing is made in any other.
pub(crate) fn lock_existing(
    vfs: &dyn Vfs,
    dir: &Path,
) -> Result<Box<dyn fmt::Debug + Send + Sync>, WalError> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_core::{ClusterId, ConfState, Incarnation, Member, NodeId};

    use super::*;
    use crate::{
        Engine, Options,
        vfs::sim::{Call, Fault, SimVfs},
    };

    /// A log of node 1 in cluster 7.
    fn log() -> (SimVfs, &'static Path) {
        let (vfs, dir) = (SimVfs::new(), Path::new("/data"));
        let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
        let options = Options::new(ClusterId(7), NodeId(1), founding);
        let (engine, _) = Engine::open(Arc::new(vfs.clone()), dir, options).unwrap();
        engine.close().unwrap();
        (vfs, dir)
    }

    #[test]
    fn an_identity_of_another_node_or_cluster_is_told() {
        for (node, cluster, fits) in
            [(1, Some(7), true), (1, None, true), (1, Some(8), false), (2, Some(7), false), (2, None, false)]
        {
            let (vfs, dir) = log();
            let mut identity = Identity::new(NodeId(node), Incarnation(5));
            identity.cluster = cluster.map(ClusterId);
            identity.store(&vfs, dir).unwrap();
            let report = verify(&vfs, dir).unwrap();
            assert_eq!(report.verdict == Verdict::Clean, fits, "{node} {cluster:?}: {:?}", report.verdict);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_no_proof_that_it_is_another_one() {
        let (vfs, dir) = log();
        vfs.fail_call(Call::List, 1, Fault::Error);
        assert!(matches!(verify(&vfs, dir), Err(WalError::Io { .. })));
        assert!(matches!(verify(&vfs, Path::new("/other")), Err(WalError::NotADataDirectory { .. })));
    }
}
