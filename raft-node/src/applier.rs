//! The state machine's only owner: applies, answers, takes views and restores, in the order of one queue.
//!
//! A task, not a thread: a batch costs microseconds, and the clients it wakes run on the same threads. What can take
//! long (writing a view, restoring) goes to the blocking pool. What a job does to the state is [`Machine`]'s.

use std::{io, sync::Arc, time::Instant};

use raft_core::{Entry, SnapshotMeta};
use raft_wal::snapshot_file::SnapshotFileError;
use tokio::sync::mpsc;

use crate::{
    driver::{DriverInput, Waiter},
    error::{ClientError, NodeError},
    machine::Machine,
    replica::Job,
    snapshot_store::SnapshotStore,
    state_machine::StateMachine,
};

/// A read, run on the state machine by its owner; answers for itself.
pub type ReadFn<S> = Box<dyn FnOnce(Result<&S, ClientError>) + Send>;

/// Tells the driver of a panic, which ends the node where it does not end the process: the state machine is in a state that
/// nobody knows, and a node that led on without it would take commands that are never applied.
struct LastWord<S>(mpsc::UnboundedSender<DriverInput<S>>);

impl<S> Drop for LastWord<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ =
                self.0.send(DriverInput::Failed(NodeError::Task("the state machine panicked".to_owned())));
        }
    }
}

/// Entries whose replies are held at once.
const STEP_ENTRIES: usize = 8;

/// Entries applied without letting other tasks of the thread run, in bytes as [`Entry::size_bytes`] counts them.
const SLICE_BYTES: usize = 256 << 10;

/// See the module.
pub(crate) struct Applier<S> {
    machine: Machine<S>,
    snapshots: Arc<SnapshotStore>,
    driver: mpsc::UnboundedSender<DriverInput<S>>,
    jobs: mpsc::UnboundedReceiver<Job<Waiter, ReadFn<S>>>,
}

impl<S: StateMachine> Applier<S> {
    pub(crate) fn new(
        machine: Machine<S>,
        snapshots: Arc<SnapshotStore>,
        driver: mpsc::UnboundedSender<DriverInput<S>>,
        jobs: mpsc::UnboundedReceiver<Job<Waiter, ReadFn<S>>>,
    ) -> Applier<S> {
        Applier { machine, snapshots, driver, jobs }
    }

    /// Works until the queue is closed or a snapshot turns out unusable.
    pub(crate) async fn run(mut self) {
        let _last_word = LastWord(self.driver.clone());
        let mut slice_bytes = 0;
        while let Some(job) = self.jobs.recv().await {
            match job {
                Job::Apply { entries, waiters } => {
                    slice_bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
                    self.apply(&entries, waiters);
                    self.applied();
                }
                Job::Reads(reads) => {
                    for read in reads {
                        read(Ok(self.machine.state()));
                    }
                }
                Job::TakeSnapshot => self.take_snapshot(),
                Job::Restore(meta) => match self.restore(meta).await {
                    Ok(restored) => {
                        self = restored;
                        self.applied();
                    }
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

    /// A few at a time: a reply can be much larger than its command, and those of a batch are all there before the first
    /// is answered, or dropped where nobody waits.
    fn apply(&mut self, entries: &[Entry], waiters: Vec<(usize, Waiter)>) {
        let mut waiters = waiters.into_iter().peekable();
        for (step, entries) in entries.chunks(STEP_ENTRIES).enumerate() {
            let first = step * STEP_ENTRIES;
            let of_step = std::iter::from_fn(|| waiters.next_if(|(at, _)| *at < first + entries.len()));
            let of_step = of_step.map(|(at, waiter)| (at - first, waiter)).collect();
            for (waiter, reply) in self.machine.apply(entries, of_step) {
                waiter.answer(Ok(reply));
            }
        }
    }

    fn applied(&self) {
        let _ = self.driver.send(DriverInput::Applied(self.machine.position().last.index));
    }

    fn take_snapshot(&self) {
        let driver = self.driver.clone();
        let started = Instant::now();
        let Some((meta, view)) = self.machine.view() else {
            let _ = driver.send(DriverInput::SnapshotFailed(io::Error::other("nothing is applied yet")));
            return;
        };
        let snapshots = Arc::clone(&self.snapshots);
        tokio::task::spawn_blocking(move || {
            let _last_word = LastWord(driver.clone());
            let input = match snapshots.write(&meta, view) {
                Ok(bytes) => DriverInput::SnapshotTaken { meta, bytes, took: started.elapsed() },
                Err(error) => match SnapshotFileError::from_io(&error) {
                    Some(failure) if failure.is_disk_failure() => {
                        DriverInput::Failed(NodeError::Disk(failure.clone()))
                    }
                    _ => DriverInput::SnapshotFailed(error),
                },
            };
            let _ = driver.send(input);
        });
    }

    async fn restore(
        mut self,
        meta: SnapshotMeta,
    ) -> Result<Applier<S>, (mpsc::UnboundedSender<DriverInput<S>>, NodeError)> {
        let driver = self.driver.clone();
        let restoring =
            tokio::task::spawn_blocking(move || self.machine.restore(&self.snapshots, meta).map(|_| self));
        match restoring.await {
            Ok(Ok(restored)) => Ok(restored),
            Ok(Err(error)) => Err((driver, error)),
            Err(join) => Err((driver, NodeError::Task(join.to_string()))),
        }
    }
}
