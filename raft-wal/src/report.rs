//! What opening, checking and measuring a log tells its owner.

use std::path::PathBuf;

use raft_core::{LogId, LogIndex, Recovered};

use crate::error::{Corruption, Damage};

/// What opening found and did.
#[derive(Clone, Debug)]
#[must_use]
pub struct OpenReport {
    /// What the core starts from. With damage, the log up to the hole; hard state, snapshot and log start are complete
    /// even then.
    pub recovered: Recovered,
    /// An unfinished write was cut off: harmless, nothing of it was acknowledged.
    pub torn: Option<Torn>,
    /// Acknowledged entries are lost here. Nothing was cut or changed; see [`Wal::begin_repair`](crate::Wal::begin_repair).
    pub damaged: Option<Damage>,
    /// What did not fit and cost no entry: a sealed segment's footer, which was read whole instead, a header or one of its
    /// copies, which is written again. This disk changed bytes.
    pub rebuilt: Vec<Corruption>,
    /// Names in the directory that are not ours. They were left alone.
    pub unknown_files: Vec<PathBuf>,
    /// The snapshot files found, older ones first. The marked one is the recovered snapshot's.
    pub snapshots: Vec<LogId>,
    /// Segments in use.
    pub segments: usize,
    /// Whether the directory was empty and the log was founded by this open.
    pub founded: bool,
}

/// An unfinished write that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub path: PathBuf,
    /// Where the cut begins.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// Where they are kept aside; `None` if there was no room for that.
    pub kept: Option<PathBuf>,
}

/// Figures of a running log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments in use.
    pub segments: u64,
    /// Bytes of their files.
    pub segment_bytes: u64,
    /// Bytes written since the open, preparation of segments not counted.
    pub written_bytes: u64,
    /// The entry before the first one kept.
    pub log_start: LogId,
    /// The last durable entry.
    pub last: LogIndex,
    /// Entries made durable since the open.
    pub entries: u64,
    /// Batches made durable since the open.
    pub batches: u64,
    /// Syncs on the append path since the open.
    pub fsyncs: u64,
    /// The median of those, in microseconds.
    pub fsync_p50_us: u64,
    /// The 99th percentile, in microseconds.
    pub fsync_p99_us: u64,
    /// The latest one, in microseconds.
    pub fsync_last_us: u64,
    /// Bytes that wait or are being written.
    pub inflight_bytes: u64,
    /// Whether writes wait because there is no room for the next segment.
    pub full: bool,
}

/// What an offline check found.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifyReport {
    /// The verdict.
    pub verdict: Verdict,
    /// Segments read.
    pub segments: usize,
    /// Entries whose checksums were verified.
    pub entries: u64,
    /// The log's first and last entry as far as it can be read; `None` if it is empty.
    pub range: Option<(LogIndex, LogIndex)>,
    /// Everything that does not fit, in file order.
    pub corruptions: Vec<Corruption>,
    /// The snapshot files found.
    pub snapshots: Vec<LogId>,
    /// The newest snapshot that the log has marked.
    pub marked: Option<LogId>,
    /// Names in the directory that are not ours.
    pub unknown_files: Vec<PathBuf>,
}

/// The answer of an offline check, from good to bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything fits.
    Clean,
    /// An unfinished write at the end: harmless, the next open cuts it off.
    Torn(Torn),
    /// Acknowledged entries are lost.
    Damaged(Damage),
    /// Bytes changed that cost no entry, or the log cannot be put together at all.
    Corrupt(Corruption),
}
