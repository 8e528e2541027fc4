//! Reads snapshot files: checked, for the state machine; raw, for a peer.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use crc32fast::Hasher;
use raft_core::{ClusterId, LogId, SnapshotMeta};

use super::{
    SnapshotDamage, SnapshotFileError, SnapshotInfo,
    format::{self, CHUNK_HEADER_BYTES, Header, TRAILER_BYTES, Trailer},
};
use crate::{
    layout,
    vfs::{Vfs, VfsFile, read_exact_at},
};

/// Gives back the bytes of a state machine through [`io::Read`], each chunk checked before a byte of it is handed out.
///
/// The end of the content is told only after the trailer and the checksum of the whole file fitted: who has read to
/// the end has read an undamaged snapshot. Memory: one chunk.
#[derive(Debug)]
pub struct SnapshotReader {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    header: Header,
    trailer: Trailer,
    /// Where the next chunk, or the trailer, begins.
    offset: u64,
    content_bytes: u64,
    hasher: Hasher,
    chunk: Vec<u8>,
    /// How much of `chunk` has been handed out.
    taken: usize,
    /// The first error; every later read gets it again.
    failed: Option<SnapshotFileError>,
}

impl SnapshotReader {
    /// Opens the snapshot up to `last` that is in place in `dir`, and checks its header and its trailer.
    ///
    /// # Errors
    /// [`SnapshotFileError::NotFound`], or what does not fit.
    pub fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        cluster: ClusterId,
        last: LogId,
    ) -> Result<SnapshotReader, SnapshotFileError> {
        let path = dir.join(layout::snapshot(last));
        let file = open_existing(vfs, &path)?;
        SnapshotReader::on(file, path, cluster, last)
    }

    pub(super) fn on(
        file: Arc<dyn VfsFile>,
        path: PathBuf,
        cluster: ClusterId,
        last: LogId,
    ) -> Result<SnapshotReader, SnapshotFileError> {
        let mut bytes = vec![0; format::HEADER_FIXED_BYTES];
        read(&*file, &path, &mut bytes, 0)?;
        let length = format::header_length(&path, &bytes)?;
        bytes.resize(length, 0);
        read(&*file, &path, &mut bytes, 0)?;
        let header = format::decode_header(&path, cluster, &bytes)?;
        if header.meta.last != last {
            let kind = SnapshotDamage::WrongSnapshot { expected: last, found: header.meta.last };
            return Err(SnapshotFileError::damaged(&path, 48, kind));
        }
        let mut hasher = Hasher::new();
        hasher.update(&bytes);

        let file_bytes = length_of(&*file, &path)?;
        let trailer_at = file_bytes.saturating_sub(TRAILER_BYTES as u64);
        if trailer_at < length as u64 {
            return Err(SnapshotFileError::damaged(&path, file_bytes, SnapshotDamage::Truncated));
        }
        let mut bytes = [0; TRAILER_BYTES];
        read(&*file, &path, &mut bytes, trailer_at)?;
        let trailer = format::decode_trailer(header.checksum, &bytes)
            .filter(|trailer| trailer.file_bytes == file_bytes)
            .ok_or_else(|| SnapshotFileError::damaged(&path, trailer_at, SnapshotDamage::Trailer))?;
        Ok(SnapshotReader {
            path,
            file,
            offset: header.length as u64,
            header,
            trailer,
            content_bytes: 0,
            hasher,
            chunk: Vec::new(),
            taken: 0,
            failed: None,
        })
    }

    /// What the snapshot stands for.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.header.meta
    }

    /// What the file says of itself. The content counts as checked only once it was read to the end.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            meta: self.header.meta.clone(),
            content_bytes: self.trailer.content_bytes,
            file_bytes: self.trailer.file_bytes,
            checksum: self.trailer.checksum,
        }
    }

    /// Reads what is left and checks it.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn verify(mut self) -> Result<SnapshotInfo, SnapshotFileError> {
        while self.next_chunk()? {}
        Ok(self.info())
    }

    /// Loads and checks the next chunk; `false` at the end, where the whole file has been checked.
    fn next_chunk(&mut self) -> Result<bool, SnapshotFileError> {
        let trailer_at = self.trailer.file_bytes - TRAILER_BYTES as u64;
        self.chunk.clear();
        self.taken = 0;
        if self.offset == trailer_at {
            return self.check_end().map(|()| false);
        }
        let damaged = |kind| Err(SnapshotFileError::damaged(&self.path, self.offset, kind));
        let room = trailer_at - self.offset;
        let mut head = [0; CHUNK_HEADER_BYTES];
        if room < head.len() as u64 {
            return damaged(SnapshotDamage::Length);
        }
        read(&*self.file, &self.path, &mut head, self.offset)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
        let in_bounds = (1..=self.header.chunk_bytes_max).contains(&length);
        if !in_bounds || u64::from(length) > room - head.len() as u64 {
            return damaged(SnapshotDamage::Length);
        }
        self.chunk.resize(length as usize, 0);
        read(&*self.file, &self.path, &mut self.chunk, self.offset + head.len() as u64)?;
        if format::chunk_checksum(self.header.checksum, self.offset, &self.chunk) != checksum {
            self.chunk.clear();
            return damaged(SnapshotDamage::Chunk);
        }
        self.hasher.update(&head);
        self.hasher.update(&self.chunk);
        self.offset += head.len() as u64 + u64::from(length);
        self.content_bytes += u64::from(length);
        Ok(true)
    }

    fn check_end(&self) -> Result<(), SnapshotFileError> {
        if self.content_bytes != self.trailer.content_bytes {
            return Err(SnapshotFileError::damaged(&self.path, self.offset, SnapshotDamage::Trailer));
        }
        if self.hasher.clone().finalize() != self.trailer.checksum {
            return Err(SnapshotFileError::damaged(&self.path, self.offset, SnapshotDamage::File));
        }
        Ok(())
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.taken == self.chunk.len() {
            if let Some(error) = &self.failed {
                return Err(error.clone().into_io());
            }
            match self.next_chunk() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    self.chunk.clear();
                    self.failed = Some(error.clone());
                    return Err(error.into_io());
                }
            }
        }
        let rest = &self.chunk[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// The raw bytes of a snapshot file in place, for streaming it to a peer. Stays readable while the snapshot is replaced
/// or removed.
#[derive(Debug)]
pub struct SnapshotSource {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    info: SnapshotInfo,
}

impl SnapshotSource {
    /// Opens the snapshot up to `last` that is in place in `dir`, and checks its header and its trailer. The receiver
    /// checks the rest.
    ///
    /// # Errors
    /// As [`SnapshotReader::open`].
    pub fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        cluster: ClusterId,
        last: LogId,
    ) -> Result<SnapshotSource, SnapshotFileError> {
        let reader = SnapshotReader::open(vfs, dir, cluster, last)?;
        Ok(SnapshotSource { info: reader.info(), path: reader.path, file: reader.file })
    }

    /// What the file says of itself.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Up to `bytes_max` bytes of the file at `offset`; none behind its end.
    ///
    /// # Errors
    /// The disk's, or [`SnapshotDamage::Truncated`] if somebody shortened the file.
    pub fn read_at(&self, offset: u64, bytes_max: usize) -> Result<Bytes, SnapshotFileError> {
        let left = self.info.file_bytes.saturating_sub(offset);
        let length = usize::try_from(left).map_or(bytes_max, |left| left.min(bytes_max));
        let mut bytes = vec![0; length];
        read(&*self.file, &self.path, &mut bytes, offset)?;
        Ok(bytes.into())
    }
}

pub(super) fn open_existing(vfs: &dyn Vfs, path: &Path) -> Result<Arc<dyn VfsFile>, SnapshotFileError> {
    vfs.open(path, false).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return SnapshotFileError::NotFound { path: path.to_owned() };
        }
        SnapshotFileError::io("open", path, source)
    })
}

pub(super) fn length_of(file: &dyn VfsFile, path: &Path) -> Result<u64, SnapshotFileError> {
    file.length().map_err(|source| SnapshotFileError::io("read", path, source))
}

fn read(file: &dyn VfsFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<(), SnapshotFileError> {
    read_exact_at(file, buffer, offset).map_err(|source| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return SnapshotFileError::damaged(path, offset, SnapshotDamage::Truncated);
        }
        SnapshotFileError::io("read", path, source)
    })
}
