//! Writes a snapshot file and puts it in place.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crc32fast::Hasher;
use raft_core::{ClusterId, SnapshotMeta};

use super::{
    SYNC_NAMES, SnapshotFileError, SnapshotInfo,
    format::{self, CHUNK_BYTES, CHUNK_HEADER_BYTES, Trailer},
};
use crate::{
    layout,
    vfs::{Vfs, VfsFile},
};

/// Takes the bytes of a state machine through [`io::Write`] and makes a snapshot file of them.
///
/// Nothing counts before [`finish`](Self::finish); dropped without it, the temporary file is removed. Memory: one
/// chunk of 256 KiB.
#[derive(Debug)]
pub struct SnapshotWriter {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    meta: SnapshotMeta,
    header_checksum: u32,
    /// The chunk at work: its header's place, then its payload.
    chunk: Vec<u8>,
    /// Where that chunk goes.
    offset: u64,
    content_bytes: u64,
    hasher: Hasher,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writing,
    Failed,
    Finished,
}

impl SnapshotWriter {
    /// Begins the snapshot `meta`; what an earlier attempt at it left is removed.
    ///
    /// # Errors
    /// The disk's, or [`SnapshotFileError::BadConfiguration`].
    pub fn create(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        cluster: ClusterId,
        meta: &SnapshotMeta,
    ) -> Result<SnapshotWriter, SnapshotFileError> {
        meta.conf.validate().map_err(SnapshotFileError::BadConfiguration)?;
        let path = dir.join(layout::snapshot_temporary(meta.last));
        remove_leftover(&*vfs, &path)?;
        let file = vfs.create(&path).map_err(|source| SnapshotFileError::io("create", &path, source))?;
        let header = format::encode_header(cluster, meta);
        let header_checksum = header.last_chunk().map_or(0, |checksum| u32::from_le_bytes(*checksum));
        let mut writer = SnapshotWriter {
            vfs,
            dir: dir.to_owned(),
            path,
            file,
            meta: meta.clone(),
            header_checksum,
            chunk: Vec::new(),
            offset: 0,
            content_bytes: 0,
            hasher: Hasher::new(),
            state: State::Writing,
        };
        writer.put(&header)?;
        writer.chunk.reserve_exact(CHUNK_HEADER_BYTES + CHUNK_BYTES);
        writer.chunk.resize(CHUNK_HEADER_BYTES, 0);
        Ok(writer)
    }

    /// Writes what is left, syncs the file, renames it into place and syncs the directory. Durable when it returns;
    /// a crash before that leaves the snapshots there were.
    ///
    /// # Errors
    /// The disk's. Whether the snapshot is in place is then unknown; it must not be marked.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotFileError> {
        self.check_usable()?;
        self.flush_chunk()?;
        let trailer = Trailer {
            content_bytes: self.content_bytes,
            file_bytes: self.offset + format::TRAILER_BYTES as u64,
            checksum: self.hasher.clone().finalize(),
        };
        self.put(&format::encode_trailer(self.header_checksum, &trailer))?;
        // Before the rename: a crash must never find the final name on a file without all its bytes.
        self.file.sync_data().map_err(|source| SnapshotFileError::io("sync", &self.path, source))?;
        let place = self.dir.join(layout::snapshot(self.meta.last));
        self.vfs
            .rename(&self.path, &place)
            .map_err(|source| SnapshotFileError::io("rename", &self.path, source))?;
        self.state = State::Finished;
        // Before anybody marks it: the mark must never outlive the name.
        self.vfs
            .sync_dir(&self.dir)
            .map_err(|source| SnapshotFileError::io(SYNC_NAMES, &self.dir, source))?;
        Ok(SnapshotInfo {
            meta: self.meta.clone(),
            content_bytes: trailer.content_bytes,
            file_bytes: trailer.file_bytes,
            checksum: trailer.checksum,
        })
    }

    fn check_usable(&self) -> Result<(), SnapshotFileError> {
        match self.state {
            State::Writing => Ok(()),
            State::Failed | State::Finished => Err(SnapshotFileError::GivenUp { path: self.path.clone() }),
        }
    }

    fn flush_chunk(&mut self) -> Result<(), SnapshotFileError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let result = match chunk.split_first_chunk_mut::<CHUNK_HEADER_BYTES>() {
            Some((header, payload)) if !payload.is_empty() => {
                let checksum = format::chunk_checksum(self.header_checksum, self.offset, payload);
                header[..4].copy_from_slice(&format::as_u32(payload.len()).to_le_bytes());
                header[4..].copy_from_slice(&checksum.to_le_bytes());
                self.content_bytes += payload.len() as u64;
                self.put(&chunk)
            }
            _ => Ok(()),
        };
        chunk.truncate(CHUNK_HEADER_BYTES);
        self.chunk = chunk;
        result
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        self.file.write_at(bytes, self.offset).map_err(|source| {
            self.state = State::Failed;
            SnapshotFileError::io("write", &self.path, source)
        })?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_usable().map_err(SnapshotFileError::into_io)?;
        let room = (CHUNK_HEADER_BYTES + CHUNK_BYTES).saturating_sub(self.chunk.len());
        let count = room.min(bytes.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if count == room {
            self.flush_chunk().map_err(SnapshotFileError::into_io)?;
        }
        Ok(count)
    }

    /// Does nothing: only [`finish`](SnapshotWriter::finish) makes anything durable, and chunks are always full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.state != State::Finished {
            // A leftover costs room until the next open removes it; there is nobody to tell.
            let _ = self.vfs.remove(&self.path);
        }
    }
}

/// Removes the file at `path` if there is one.
pub(super) fn remove_leftover(vfs: &dyn Vfs, path: &Path) -> Result<(), SnapshotFileError> {
    match vfs.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| SnapshotFileError::io("remove", path, source)),
    }
}
