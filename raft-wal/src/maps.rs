//! Catch-up reads without copying: sealed segments are mapped, and the entries' payloads are parts of the map.
//!
//! Only what the scrub has read and found intact is mapped, for a medium that fails under a map ends the process. One
//! segment is kept mapped at a time; the payloads that were handed out keep theirs alive. A map holds its segment's
//! file, so that the file is not recycled under it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::log::SegmentFile;

/// The segment that was mapped last.
#[derive(Debug, Default)]
pub(crate) struct Maps(Mutex<Option<(u64, Bytes)>>);

/// A map, and the file it must outlive.
struct Pinned {
    bytes: Bytes,
    _file: Arc<SegmentFile>,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Maps {
    /// The whole segment, if it may be mapped.
    pub(crate) fn of(&self, file: &Arc<SegmentFile>) -> Option<Bytes> {
        if !file.is_verified() {
            return None;
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((tag, bytes)) = &*last
            && *tag == file.stamp.tag
        {
            return Some(bytes.clone());
        }
        // A map that cannot be had is no loss: the entries are read instead.
        let bytes = file.file.map().ok()??;
        if bytes.len() as u64 != file.bytes {
            return None;
        }
        let bytes = Bytes::from_owner(Pinned { bytes, _file: Arc::clone(file) });
        *last = Some((file.stamp.tag, bytes.clone()));
        Some(bytes)
    }

    /// Lets go of it: its pages count as the process's memory.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::Stamp,
        vfs::{OsVfs, Vfs as _},
    };

    // A medium that fails under a map ends the process: nobody knows yet that this one does not.
    #[test]
    fn what_the_scrub_has_not_found_intact_is_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let file = OsVfs.create(&path).unwrap();
        file.allocate(8192).unwrap();
        let segment = SegmentFile::new(1, path, file, Stamp::new(1, 2), 8192);
        let maps = Maps::default();
        assert!(maps.of(&segment).is_none());
        segment.set_scrubbed(false);
        assert!(maps.of(&segment).is_none() && segment.is_scrubbed());
        segment.set_scrubbed(true);
        assert_eq!(maps.of(&segment).unwrap().len(), 8192);
        assert!(maps.0.lock().unwrap().is_some());
        maps.forget();
        assert!(maps.0.lock().unwrap().is_none());
    }
}
