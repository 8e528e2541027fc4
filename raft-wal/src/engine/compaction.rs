//! Dropping the log's prefix: which segments go, and what becomes of their files.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
};

use raft_core::{LogId, LogIndex};

use super::{Engine, Queued, flight::Drops};
use crate::{
    WalError, layout,
    log::{self, SegmentFile},
    vfs::Vfs,
};

/// What a compaction leaves to be tidied up; plain file operations that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    pub(crate) segments: Vec<Arc<SegmentFile>>,
    /// Snapshots older than this one.
    pub(crate) snapshots_before: Option<LogIndex>,
    /// At most so many segments become spares.
    pub(crate) spares_wanted: usize,
    pub(crate) segment_bytes: u64,
}

impl Engine {
    /// Queues the end of every segment that holds nothing behind `up_to`, in order with the writes.
    pub(crate) fn drop_prefix(&mut self, up_to: LogIndex) {
        self.pending.push_back(Queued::Drop(up_to));
    }

    /// A spare that is one more than wanted, to be removed.
    pub(crate) fn take_surplus_spare(&mut self) -> Option<u64> {
        if self.spares.len() > self.options.spare_segments + 1 { self.spares.pop() } else { None }
    }

    /// What can go and the first segment that stays; without any, what else there is to tidy up.
    pub(super) fn droppable(&self, up_to: LogIndex) -> Result<(Drops, u64), Garbage> {
        // Entries that no marked snapshot covers are never dropped.
        let up_to = up_to.min(self.state.mark.index);
        let garbage = Garbage {
            snapshots_before: Some(self.state.mark.index).filter(|index| *index > LogIndex::ZERO),
            spares_wanted: (self.options.spare_segments + 1).saturating_sub(self.spares.len()),
            segment_bytes: self.options.segment_bytes,
            ..Garbage::default()
        };
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = log.droppable(up_to);
        // Without room for the note the next segment is near; the next call has room.
        if count == 0 || !self.current.has_room_for_empty_batch() {
            return Err(garbage);
        }
        let log_start = last.map_or(self.state.log_start, |index| {
            let term = log::term_at(&self.runs, index).expect("an entry that is kept has a term");
            LogId { term, index }
        });
        Ok((Drops { count, log_start, garbage }, log.segments[count].file.number))
    }
}

impl Garbage {
    /// Removes or sets aside what is no longer needed and returns the numbers of new spares.
    ///
    /// # Errors
    /// A rename or the sync of the directory failed. Nothing that is needed was touched, and the next open tidies up; but
    /// a failed sync marks other names as clean too, such as that of a snapshot just renamed, and their own sync, right
    /// behind it, says Ok. So it is final.
    pub(crate) fn collect(self, vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u64>, WalError> {
        let mut spares = Vec::new();
        for file in self.segments {
            let reusable = file.bytes == self.segment_bytes && spares.len() < self.spares_wanted;
            // Somebody still reads from it: unlinking leaves the bytes to him, recycling would not.
            if reusable && Arc::strong_count(&file) == 1 {
                vfs.rename(&file.path, &dir.join(layout::spare(file.number)))
                    .map_err(|error| WalError::io("rename", &file.path, error))?;
                spares.push(file.number);
            } else {
                let _ = vfs.remove(&file.path);
            }
        }
        if let Some(before) = self.snapshots_before {
            for entry in vfs.list(dir).unwrap_or_default() {
                if let layout::Name::Snapshot(id) = layout::parse(&entry.name)
                    && id.index < before
                {
                    let _ = vfs.remove(&dir.join(&entry.name));
                }
            }
        }
        vfs.sync_dir(dir).map_err(|error| WalError::io("sync", dir, error))?;
        Ok(spares)
    }
}
