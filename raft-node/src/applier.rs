//! The state machine's only owner: applies, answers, takes views and restores, in the order of one queue.
//!
//! A task, not a thread: a batch costs microseconds, and the clients it wakes run on the same threads. What can take
//! long (writing a view, restoring) goes to the blocking pool.

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;
use raft_core::{ConfState, Entry, EntryKind, LogIndex, SnapshotMeta};
use tokio::sync::mpsc;

use crate::{
    driver::{DriverInput, Waiter},
    error::{ClientError, NodeError},
    replica::Job,
    snapshot_store::SnapshotStore,
    state_machine::{Command, StateMachine},
};

/// A read, run on the state machine by its owner; answers for itself.
pub type ReadFn<S> = Box<dyn FnOnce(Result<&S, ClientError>) + Send>;

/// Entries applied without letting other tasks of the thread run, in bytes as [`Entry::size_bytes`] counts them.
const SLICE_BYTES: usize = 256 << 10;

/// See the module.
pub(crate) struct Applier<S> {
    machine: S,
    /// What a view taken now would stand for.
    position: SnapshotMeta,
    snapshots: Arc<SnapshotStore>,
    driver: mpsc::UnboundedSender<DriverInput<S>>,
    jobs: mpsc::UnboundedReceiver<Job<Waiter, ReadFn<S>>>,
}

impl<S: StateMachine> Applier<S> {
    /// An applier whose state machine stands at `position`.
    pub(crate) fn new(
        machine: S,
        position: SnapshotMeta,
        snapshots: Arc<SnapshotStore>,
        driver: mpsc::UnboundedSender<DriverInput<S>>,
        jobs: mpsc::UnboundedReceiver<Job<Waiter, ReadFn<S>>>,
    ) -> Applier<S> {
        Applier { machine, position, snapshots, driver, jobs }
    }

    /// Works until the queue is closed or a snapshot turns out unusable.
    pub(crate) async fn run(mut self) {
        let mut slice_bytes = 0;
        while let Some(job) = self.jobs.recv().await {
            match job {
                Job::Apply { entries, waiters } => {
                    slice_bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
                    self.apply(&entries, waiters);
                }
                Job::Reads(reads) => {
                    for read in reads {
                        read(Ok(&self.machine));
                    }
                }
                Job::TakeSnapshot => self.take_snapshot(),
                Job::Restore(meta) => match self.restore(meta).await {
                    Ok(restored) => self = restored,
                    Err((driver, error)) => {
                        // The driver ends the node; nothing here may be used any more.
                        let _ = driver.send(DriverInput::Failed(error));
                        return;
                    }
                },
            }
            if slice_bytes >= SLICE_BYTES {
                slice_bytes = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn apply(&mut self, entries: &[Entry], waiters: Vec<(usize, Waiter)>) {
        let Some(last) = entries.last() else { return };
        let commands: Vec<Command> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Command)
            .map(|entry| Command {
                index: entry.id.index,
                time: entry.time,
                session: entry.session,
                payload: entry.payload.clone(),
            })
            .collect();
        let replies = self.machine.apply(&commands);
        assert_eq!(replies.len(), commands.len(), "a state machine gives one reply to each command");
        answer(entries, waiters, replies);
        for entry in entries {
            if entry.kind == EntryKind::ConfChange {
                // The core has refused what cannot be decoded before it was committed.
                if let Ok(conf) = ConfState::decode(&entry.payload) {
                    self.position.conf = conf;
                    self.position.conf_id = entry.id;
                }
            }
        }
        self.position.last = last.id;
        self.position.time = last.time;
        let _ = self.driver.send(DriverInput::Applied(last.id.index));
    }

    fn take_snapshot(&self) {
        let meta = self.position.clone();
        let driver = self.driver.clone();
        if meta.last.index == LogIndex::ZERO {
            let _ = driver.send(DriverInput::SnapshotFailed(io::Error::other("nothing is applied yet")));
            return;
        }
        let started = Instant::now();
        let view = self.machine.view();
        let snapshots = Arc::clone(&self.snapshots);
        tokio::task::spawn_blocking(move || {
            let input = match snapshots.write(&meta, view) {
                Ok(bytes) => DriverInput::SnapshotTaken { meta, bytes, took: started.elapsed() },
                Err(error) => DriverInput::SnapshotFailed(error),
            };
            let _ = driver.send(input);
        });
    }

    async fn restore(
        mut self,
        meta: SnapshotMeta,
    ) -> Result<Applier<S>, (mpsc::UnboundedSender<DriverInput<S>>, NodeError)> {
        let driver = self.driver.clone();
        let joined =
            tokio::task::spawn_blocking(move || match self.snapshots.restore(&meta, &mut self.machine) {
                Ok(_) => {
                    self.position = meta;
                    Ok(self)
                }
                Err(error) => Err(error),
            })
            .await;
        match joined {
            Ok(Ok(applier)) => {
                let _ = applier.driver.send(DriverInput::Applied(applier.position.last.index));
                Ok(applier)
            }
            Ok(Err(error)) => Err((driver, error)),
            Err(join) => Err((driver, NodeError::Task(join.to_string()))),
        }
    }
}

/// Gives each waiter the reply of its entry. Only commands have replies, so positions are counted along.
fn answer(entries: &[Entry], waiters: Vec<(usize, Waiter)>, replies: Vec<Bytes>) {
    let mut replies = replies.into_iter();
    let mut waiters = waiters.into_iter().peekable();
    for (position, entry) in entries.iter().enumerate() {
        if entry.kind != EntryKind::Command {
            continue;
        }
        let Some(reply) = replies.next() else { break };
        if waiters.peek().is_some_and(|(at, _)| *at == position)
            && let Some((_, waiter)) = waiters.next()
        {
            waiter.answer(Ok(reply));
        }
    }
}
