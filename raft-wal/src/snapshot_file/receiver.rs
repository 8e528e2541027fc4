//! Takes a snapshot file from a peer, piece by piece.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{ClusterId, LogId};

use super::{
    SnapshotFileError, SnapshotInfo,
    reader::{SnapshotReader, length_of},
    writer::remove_leftover,
};
use crate::{
    layout,
    vfs::{Vfs, VfsFile},
};

/// Takes the raw bytes of a snapshot file at consecutive offsets.
///
/// Resumable: drop it, [`resume`](Self::resume) later and go on at [`next_offset`](Self::next_offset). Nothing counts
/// before [`finish`](Self::finish) has checked the whole file, so a piece that was damaged on the way, or a file that
/// a crash tore, is found there at the latest.
#[derive(Debug)]
pub struct SnapshotReceiver {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    cluster: ClusterId,
    last: LogId,
    next_offset: u64,
    failed: bool,
}

impl SnapshotReceiver {
    /// Begins to receive the snapshot up to `last`; what an earlier attempt left is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(
        vfs: &dyn Vfs,
        dir: &Path,
        cluster: ClusterId,
        last: LogId,
    ) -> Result<SnapshotReceiver, SnapshotFileError> {
        let path = dir.join(layout::snapshot_received(last));
        remove_leftover(vfs, &path)?;
        let file = vfs.create(&path).map_err(|source| SnapshotFileError::io("create", &path, source))?;
        Ok(SnapshotReceiver { path, file, cluster, last, next_offset: 0, failed: false })
    }

    /// Goes on with the snapshot up to `last` where an earlier receiver stopped, or begins if there was none.
    ///
    /// # Errors
    /// The disk's.
    pub fn resume(
        vfs: &dyn Vfs,
        dir: &Path,
        cluster: ClusterId,
        last: LogId,
    ) -> Result<SnapshotReceiver, SnapshotFileError> {
        let path = dir.join(layout::snapshot_received(last));
        match vfs.open(&path, true) {
            Ok(file) => {
                let next_offset = length_of(&*file, &path)?;
                Ok(SnapshotReceiver { path, file, cluster, last, next_offset, failed: false })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                SnapshotReceiver::create(vfs, dir, cluster, last)
            }
            Err(source) => Err(SnapshotFileError::io("open", &path, source)),
        }
    }

    /// The offset at which the next piece has to begin.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Takes the bytes of the file at `offset`.
    ///
    /// # Errors
    /// [`SnapshotFileError::WrongOffset`] if they do not continue what is there; nothing is changed. After an error of
    /// the disk the receiver is of no use any more.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        self.check_usable()?;
        if offset != self.next_offset {
            return Err(SnapshotFileError::WrongOffset { offset, expected: self.next_offset });
        }
        self.file.write_at(bytes, offset).map_err(|source| {
            self.failed = true;
            SnapshotFileError::io("write", &self.path, source)
        })?;
        self.next_offset += bytes.len() as u64;
        Ok(())
    }

    /// Checks the whole file and syncs it. It stays under its temporary name: the log's writer renames it, and syncs
    /// the directory, right before the mark that makes it count.
    ///
    /// # Errors
    /// What does not fit, or the disk's. Begin again with [`create`](Self::create).
    pub fn finish(self) -> Result<SnapshotInfo, SnapshotFileError> {
        self.check_usable()?;
        // First the sync: what the check then reads is what stays.
        self.file.sync_data().map_err(|source| SnapshotFileError::io("sync", &self.path, source))?;
        SnapshotReader::on(self.file, self.path, self.cluster, self.last)?.verify()
    }

    fn check_usable(&self) -> Result<(), SnapshotFileError> {
        match self.failed {
            false => Ok(()),
            true => Err(SnapshotFileError::GivenUp { path: self.path.clone() }),
        }
    }
}
