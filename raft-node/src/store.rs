//! The binary's state machine: the key-value store, with its figures where others can see them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    kv::Kv,
    state_machine::{Command, RestoreError, SnapshotView, StateMachine},
};

/// See the module.
pub(crate) struct Store {
    kv: Kv,
    figures: Arc<Figures>,
    started: Instant,
}

/// What the store's owner publishes after each batch. Each number is right on its own, not all of them at one moment.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) keys: AtomicU64,
    pub(crate) expiring: AtomicU64,
    pub(crate) size_bytes: AtomicU64,
    pub(crate) entries_applied: AtomicU64,
    /// Something was applied.
    pub(crate) applied: Notify,
    /// Replicated time, in milliseconds since 1970.
    pub(crate) time_ms: AtomicU64,
    /// When that was published last, in milliseconds after the start that was given.
    pub(crate) time_at_ms: AtomicU64,
    /// When the next key expires; [`NO_DEADLINE`] if none does.
    pub(crate) deadline_ms: AtomicU64,
    /// The deadline has changed.
    pub(crate) deadline_changed: Notify,
}

pub(crate) const NO_DEADLINE: u64 = u64::MAX;

impl Store {
    /// An empty store. What it publishes about time counts from `started`.
    pub(crate) fn new(started: Instant) -> Store {
        let figures = Figures { deadline_ms: AtomicU64::new(NO_DEADLINE), ..Figures::default() };
        Store { kv: Kv::new(), figures: Arc::new(figures), started }
    }

    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    pub(crate) fn kv(&self) -> &Kv {
        &self.kv
    }

    fn publish(&self) {
        let stats = self.kv.stats();
        let figures = &self.figures;
        figures.keys.store(stats.keys as u64, Ordering::Relaxed);
        figures.expiring.store(stats.expiring as u64, Ordering::Relaxed);
        figures.size_bytes.store(stats.size_bytes as u64, Ordering::Relaxed);
        if figures.time_ms.load(Ordering::Relaxed) != stats.time.0 {
            let at = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            // In this order, so that nobody takes the new time for an old one that has run on since.
            figures.time_at_ms.store(at, Ordering::Release);
            figures.time_ms.store(stats.time.0, Ordering::Release);
        }
        let deadline = self.kv.earliest_deadline().map_or(NO_DEADLINE, |deadline| deadline.0);
        if figures.deadline_ms.swap(deadline, Ordering::Relaxed) != deadline {
            figures.deadline_changed.notify_one();
        }
    }
}

impl StateMachine for Store {
    fn apply(&mut self, batch: &[Command]) -> Vec<Bytes> {
        let replies = self.kv.apply(batch);
        self.figures.entries_applied.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.figures.applied.notify_one();
        self.publish();
        replies
    }

    fn view(&self) -> Box<dyn SnapshotView> {
        self.kv.view()
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> Result<(), RestoreError> {
        self.kv.restore(from)?;
        self.publish();
        Ok(())
    }
}
