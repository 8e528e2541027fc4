//! What a start prints: what was found, how fast this disk is, where the node is, and that it serves.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use raft_core::{ClusterId, LogIndex, NodeId, StartNumber, Term};
use raft_wal::{layout, vfs::Vfs};

use super::status::micros;

/// How long syncs take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTimes {
    /// The median, in microseconds.
    pub p50_us: u64,
    /// The slowest of about twenty, in microseconds.
    pub p99_us: u64,
}

/// Syncs measured.
const SYNCS: usize = 20;
/// A slow disk is measured no longer than this, if a few syncs have been seen.
const MEASURE_MAX: Duration = Duration::from_millis(40);
/// As much as a small batch.
const BLOCK_BYTES: usize = 4096;

/// Measures `fdatasync` on a small file in `dir`, which is removed again. Blocks for about 40 ms at most on a disk that
/// syncs within 10 ms; on a slower one for three syncs.
///
/// # Errors
/// What the file system says. The name is one that the log removes when it is opened, should we die in between.
pub fn measure_syncs(vfs: &dyn Vfs, dir: &Path) -> io::Result<SyncTimes> {
    let path = dir.join(layout::spare(u64::MAX) + layout::TEMPORARY_SUFFIX);
    match vfs.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = vfs.create(&path)?;
    let measured: io::Result<SyncTimes> = (|| {
        // As the log does: within a file whose blocks are there already, so that no sync has to write metadata.
        file.write_at(&[0; BLOCK_BYTES], 0)?;
        file.sync_data()?;
        let started = Instant::now();
        let mut times = Vec::with_capacity(SYNCS);
        while times.len() < SYNCS && (times.len() < 3 || started.elapsed() < MEASURE_MAX) {
            file.write_at(&[u8::try_from(times.len()).unwrap_or(u8::MAX); BLOCK_BYTES], 0)?;
            let before = Instant::now();
            file.sync_data()?;
            times.push(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        times.sort_unstable();
        Ok(SyncTimes { p50_us: times[times.len() / 2], p99_us: times[(times.len() * 99).div_ceil(100) - 1] })
    })();
    let removed = vfs.remove(&path);
    let times = measured?;
    removed.map(|()| times)
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// This node.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// How often the directory has been opened.
    pub start: StartNumber,
    /// The term recovered.
    pub term: Term,
    /// The last index recovered.
    pub last: LogIndex,
    /// The newest snapshot's index, 0 without one.
    pub snapshot: LogIndex,
    /// Bytes of an unfinished write that were cut off.
    pub torn_bytes: u64,
}

impl Recovery {
    /// One line, without a line feed.
    #[must_use]
    pub fn line(&self, dir: &Path) -> String {
        let dir = dir.display();
        if self.start.0 <= 1 {
            return format!("founded {} of cluster {} in {dir}", self.id, self.cluster);
        }
        let snapshot = if self.snapshot == LogIndex::ZERO {
            "no snapshot".to_owned()
        } else {
            format!("snapshot at {}", self.snapshot)
        };
        let torn = if self.torn_bytes == 0 {
            "nothing torn".to_owned()
        } else {
            format!("{} torn bytes cut off", self.torn_bytes)
        };
        format!(
            "recovered {} of cluster {} from {dir}: term {}, last index {}, {snapshot}, {torn}",
            self.id, self.cluster, self.term, self.last
        )
    }
}

impl SyncTimes {
    /// One line, without a line feed.
    #[must_use]
    pub fn line(&self) -> String {
        format!("this disk: fdatasync p50 {}, p99 {}", micros(self.p50_us), micros(self.p99_us))
    }
}

/// Where the node is, one line.
#[must_use]
pub fn addresses_line(
    resp: impl std::fmt::Display,
    http: impl std::fmt::Display,
    peer: impl std::fmt::Display,
) -> String {
    format!("listening: clients (RESP) {resp}, operators (HTTP) {http}, peers {peer}")
}

/// It serves: the leader is known and this node has caught up.
#[must_use]
pub fn ready_line(id: NodeId, leader: Option<NodeId>) -> String {
    match leader {
        Some(leader) if leader == id => format!("ready: {id} leads"),
        Some(leader) => format!("ready: {id} follows {leader}"),
        None => format!("ready: {id}"),
    }
}

#[cfg(test)]
mod tests {
    use raft_wal::vfs::OsVfs;

    use super::*;

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let times = measure_syncs(&OsVfs, dir.path()).unwrap();
        assert!(times.p50_us <= times.p99_us);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(measure_syncs(&OsVfs, &dir.path().join("missing")).is_err());
    }

    #[test]
    fn lines() {
        let mut recovery = Recovery {
            id: NodeId(2),
            cluster: ClusterId(0xabc),
            start: StartNumber(4),
            term: Term(3),
            last: LogIndex(77),
            snapshot: LogIndex(50),
            torn_bytes: 12,
        };
        let dir = Path::new("./raft-data");
        assert_eq!(
            recovery.line(dir),
            "recovered n2 of cluster 00000000000000000000000000000abc from ./raft-data: term 3, last index 77, snapshot at \
             50, 12 torn bytes cut off"
        );
        recovery.start = StartNumber(1);
        assert_eq!(
            recovery.line(dir),
            "founded n2 of cluster 00000000000000000000000000000abc in ./raft-data"
        );
        assert_eq!(
            SyncTimes { p50_us: 210, p99_us: 1900 }.line(),
            "this disk: fdatasync p50 210 µs, p99 1.9 ms"
        );
        assert_eq!(ready_line(NodeId(1), Some(NodeId(1))), "ready: n1 leads");
    }
}
