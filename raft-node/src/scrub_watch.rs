//! Tells what the log's scrub finds: damage to acknowledged entries that no open has looked at.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use raft_wal::Wal;
use tracing::error;

/// How often the scrub is asked.
const PERIOD: Duration = Duration::from_millis(500);
/// A disk that fails as a whole need not be told entry by entry.
const TOLD_MAX: usize = 16;

/// What to do about damage that the scrub has found.
pub(crate) const HELP: &str = "start this node with --verify-on-open, and the other voters refill its log; see all of \
                               it with `raft-node verify` while the node is stopped";

/// Runs until the log is gone.
pub(crate) async fn watch(wal: Weak<Wal>) {
    let mut told = 0;
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(report) = wal.upgrade().map(|wal: Arc<Wal>| wal.scrub_report()) else { return };
        for (index, damage) in report.errors.iter().take(TOLD_MAX).skip(told) {
            error!(%index, %damage, "an acknowledged entry of the log is damaged: {HELP}");
        }
        told = told.max(report.errors.len());
    }
}
