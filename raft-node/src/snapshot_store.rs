//! The snapshot files of one node, and how a state machine gets into and out of them. Everything here blocks.

use std::{
    io::{self, BufReader, BufWriter, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use raft_core::{ClusterId, LogId, SnapshotMeta};
use raft_wal::{
    layout,
    snapshot_file::{SnapshotFileError, SnapshotReader, SnapshotReceiver, SnapshotSource, SnapshotWriter},
    vfs::{OsVfs, Vfs},
};

use crate::{
    error::NodeError,
    state_machine::{SnapshotView, StateMachine},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    cluster: ClusterId,
    /// One snapshot is received at a time.
    receiving: AtomicBool,
}

/// The right to receive a snapshot, given back when dropped.
#[derive(Debug)]
pub(crate) struct ReceiveSlot(Arc<SnapshotStore>);

impl Drop for ReceiveSlot {
    fn drop(&mut self) {
        self.0.receiving.store(false, Ordering::Release);
    }
}

impl SnapshotStore {
    pub(crate) fn new(dir: PathBuf, cluster: ClusterId) -> SnapshotStore {
        SnapshotStore { vfs: Arc::new(OsVfs), dir, cluster, receiving: AtomicBool::new(false) }
    }

    /// Writes a view into a snapshot file. In place and durable when it returns its length in bytes; it counts only
    /// once the log has marked it.
    pub(crate) fn write(&self, meta: &SnapshotMeta, view: Box<dyn SnapshotView>) -> io::Result<u64> {
        let writer = SnapshotWriter::create(Arc::clone(&self.vfs), &self.dir, self.cluster, meta);
        let mut buffered = BufWriter::with_capacity(64 << 10, writer.map_err(io::Error::other)?);
        view.write(&mut buffered)?;
        buffered.flush()?;
        let writer = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(writer.finish().map_err(io::Error::other)?.file_bytes)
    }

    /// Replaces the state of `machine` by the snapshot `meta` and returns the file's length in bytes.
    pub(crate) fn restore<S: StateMachine>(
        &self,
        meta: &SnapshotMeta,
        machine: &mut S,
    ) -> Result<u64, NodeError> {
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

    /// The bytes of a snapshot in place.
    pub(crate) fn source(&self, last: LogId) -> Result<SnapshotSource, SnapshotFileError> {
        SnapshotSource::open(&*self.vfs, &self.dir, self.cluster, last)
    }

    /// The right to receive; `None` while another is being received.
    pub(crate) fn receive_slot(self: &Arc<Self>) -> Option<ReceiveSlot> {
        let taken = self.receiving.swap(true, Ordering::AcqRel);
        (!taken).then(|| ReceiveSlot(Arc::clone(self)))
    }

    /// Begins to receive the snapshot up to `last`.
    pub(crate) fn receiver(&self, last: LogId) -> Result<SnapshotReceiver, SnapshotFileError> {
        SnapshotReceiver::create(&*self.vfs, &self.dir, self.cluster, last)
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
