//! How a log is opened.

use std::hash::{BuildHasher, Hasher, RandomState};

use raft_core::{ClusterId, ConfState, NodeId};

use crate::error::WalError;

/// Settings of one log. All sizes are bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster the directory must belong to.
    pub cluster: ClusterId,
    /// The node the directory must belong to.
    pub node: NodeId,
    /// The configuration in force until the first snapshot.
    pub founding: ConfState,
    /// The size of new segments: a multiple of 4096, [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`]. Existing ones keep
    /// theirs.
    pub segment_bytes: u64,
    /// The largest payload of one entry; at most half a segment.
    pub entry_bytes_max: usize,
    /// Writes that wait are joined to batches of about this many bytes.
    pub batch_bytes_max: usize,
    /// Past this many bytes in flight [`Wal::is_busy`](crate::Wal::is_busy) says so. A bound for the caller to respect:
    /// a write that is submitted is always taken.
    pub inflight_bytes_max: usize,
    /// How much of the log's end is handed back in [`Recovered::tail`](raft_core::Recovered::tail).
    pub tail_bytes: usize,
    /// Files kept ready beside the next segment.
    pub spare_segments: usize,
    /// After this long without a write, the last batch gets a witness: damage to it can then be told from a torn write.
    pub idle_commit_ms: u64,
    /// Read and check every record before the open returns, not only the tail, the seals and the footers.
    pub verify_on_open: bool,
    /// Where segment salts come from. Must differ between any two opens of one directory; a simulation passes its own.
    pub seed: u64,
}

/// No segment is smaller.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// No segment is larger.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

impl Options {
    /// The product's defaults.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, founding: ConfState) -> Options {
        Options {
            cluster,
            node,
            founding,
            segment_bytes: 64 << 20,
            entry_bytes_max: 32 << 20,
            batch_bytes_max: 4 << 20,
            inflight_bytes_max: 64 << 20,
            tail_bytes: 8 << 20,
            spare_segments: 0,
            idle_commit_ms: 10,
            verify_on_open: false,
            // The standard library's hash keys come from the operating system's random numbers.
            seed: RandomState::new().build_hasher().finish(),
        }
    }

    /// Another segment size, the entry limit lowered to fit.
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Options {
        self.segment_bytes = segment_bytes;
        let half = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX);
        self.entry_bytes_max = self.entry_bytes_max.min(half);
        self
    }

    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// [`WalError::BadOptions`] with the first that does not.
    pub fn validate(&self) -> Result<(), WalError> {
        let bad = |what| Err(WalError::BadOptions(what));
        if self.node == NodeId(0) {
            return bad("node id 0 is not valid");
        }
        if !self.segment_bytes.is_multiple_of(4096) {
            return bad("the segment size must be a multiple of 4096");
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return bad("the segment size must be 64 KiB to 1 GiB");
        }
        if self.entry_bytes_max as u64 > self.segment_bytes / 2 {
            return bad("a segment must hold at least two of the largest entries");
        }
        if self.batch_bytes_max == 0 || self.inflight_bytes_max == 0 {
            return bad("a limit of zero would let nothing through");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new(ClusterId(1), NodeId(1), ConfState::default())
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(options().validate().is_ok());
        assert!(options().with_segment_bytes(SEGMENT_BYTES_MIN).validate().is_ok());
    }

    #[test]
    fn contradictions_are_refused() {
        let bad: [fn(&mut Options); 6] = [
            |o| o.node = NodeId(0),
            |o| o.segment_bytes = 4096,
            |o| o.segment_bytes += 1,
            |o| o.segment_bytes = SEGMENT_BYTES_MAX * 2,
            |o| o.entry_bytes_max = (o.segment_bytes / 2) as usize + 1,
            |o| o.batch_bytes_max = 0,
        ];
        for (i, change) in bad.iter().enumerate() {
            let mut options = options();
            change(&mut options);
            assert!(matches!(options.validate(), Err(WalError::BadOptions(_))), "case {i}");
        }
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(options().seed, options().seed);
    }
}
