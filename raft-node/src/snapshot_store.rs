//! The snapshot files of one node, and how a state machine gets into and out of them. Everything here blocks.

use std::{
    io::{self, BufReader, BufWriter, Write},
    path::PathBuf,
    sync::Arc,
};

use raft_core::{ClusterId, LogId, SnapshotMeta};
use raft_wal::{
    layout,
    snapshot_file::{
        self, SnapshotFileError, SnapshotInfo, SnapshotReader, SnapshotReceiver, SnapshotSource,
        SnapshotWriter,
    },
    vfs::Vfs,
};

use crate::{
    error::NodeError,
    state_machine::{SnapshotView, StateMachine},
};

/// See the module.
#[derive(Debug)]
pub struct SnapshotStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    cluster: ClusterId,
}

impl SnapshotStore {
    /// The snapshots in `dir`, of this cluster.
    pub fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, cluster: ClusterId) -> SnapshotStore {
        SnapshotStore { vfs, dir, cluster }
    }

    /// Writes a view into a snapshot file. In place and durable when it returns its length in bytes; it counts only
    /// once the log has marked it.
    ///
    /// # Errors
    /// The disk's; nothing is in place then, or what is will never be marked.
    pub fn write(&self, meta: &SnapshotMeta, view: Box<dyn SnapshotView>) -> io::Result<u64> {
        let writer = SnapshotWriter::create(Arc::clone(&self.vfs), &self.dir, self.cluster, meta);
        let mut buffered = BufWriter::with_capacity(64 << 10, writer.map_err(io::Error::other)?);
        view.write(&mut buffered)?;
        buffered.flush()?;
        let writer = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(writer.finish().map_err(io::Error::other)?.file_bytes)
    }

    /// Replaces the state of `machine` by the snapshot `meta` and returns the file's length in bytes.
    ///
    /// # Errors
    /// [`NodeError::Snapshot`]: the file cannot be used.
    pub fn restore<S: StateMachine>(&self, meta: &SnapshotMeta, machine: &mut S) -> Result<u64, NodeError> {
        let unusable =
            |reason: String| NodeError::Snapshot { path: self.dir.join(layout::snapshot(meta.last)), reason };
        let reader = SnapshotReader::open(&*self.vfs, &self.dir, self.cluster, meta.last)
            .map_err(|error| unusable(error.to_string()))?;
        let bytes = reader.info().file_bytes;
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        machine.restore(&mut reader).map_err(|error| unusable(sentence(&error)))?;
        // Only the end of the content proves that the whole file fitted its checksum.
        match io::copy(&mut reader, &mut io::sink()) {
            Ok(0) => Ok(bytes),
            Ok(more) => Err(unusable(format!("{more} bytes follow the state"))),
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    /// What keeps the snapshot up to `last` from being read, if it is the disk's fault: bytes that changed, a file that
    /// is gone, a read that fails. Reads the whole file.
    pub fn damage(&self, last: LogId) -> Option<SnapshotFileError> {
        let error = snapshot_file::verify(&*self.vfs, &self.dir, self.cluster, last).err()?;
        let is_damage = matches!(
            error,
            SnapshotFileError::Damaged { .. }
                | SnapshotFileError::NotFound { .. }
                | SnapshotFileError::Io { .. }
        );
        is_damage.then_some(error)
    }

    /// The newest snapshot in place that is older than `last`.
    pub fn older(&self, last: LogId) -> Option<PathBuf> {
        let all = snapshot_file::list(&*self.vfs, &self.dir).ok()?;
        let older = all.into_iter().rfind(|id| id.index < last.index)?;
        Some(self.dir.join(layout::snapshot(older)))
    }

    /// The bytes of a snapshot in place, to send.
    ///
    /// # Errors
    /// There is none, or what is there does not fit.
    pub fn source(&self, last: LogId) -> Result<SnapshotSource, SnapshotFileError> {
        SnapshotSource::open(&*self.vfs, &self.dir, self.cluster, last)
    }

    /// Begins to receive the snapshot up to `last`.
    ///
    /// # Errors
    /// The disk's.
    pub fn receiver(&self, last: LogId) -> Result<SnapshotReceiver, SnapshotFileError> {
        SnapshotReceiver::create(&*self.vfs, &self.dir, self.cluster, last)
    }

    /// Ends receiving: checks and syncs the whole file. `None` if it is whole and yet not what was offered.
    ///
    /// # Errors
    /// What does not fit, or the disk's.
    pub fn received(
        &self,
        file: SnapshotReceiver,
        offered: &SnapshotMeta,
    ) -> Result<Option<SnapshotInfo>, SnapshotFileError> {
        let info = file.finish()?;
        Ok(Some(info).filter(|info| info.meta == *offered))
    }

    /// Removes what was received of the snapshot up to `last` and is not needed. A failure costs room until the next
    /// open removes it.
    pub fn discard(&self, last: LogId) {
        let _ = self.vfs.remove(&self.dir.join(layout::snapshot_received(last)));
    }
}

/// An error with its causes, as one sentence.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
