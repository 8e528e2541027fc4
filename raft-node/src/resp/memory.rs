//! A node without a log: the store in memory behind the front end, for tests and for measuring the front end alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, StartNumber, Term, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::backend::{Backend, Consistency, ReadRequest, ReplyFuture, ReplySender};
use crate::{
    error::ClientError,
    kv::Kv,
    state_machine::{Command, StateMachine},
    status::{MemberKind, MemberStatus, Role, Status},
};

/// One store, applied to by one task. Nothing of it survives.
///
/// Writes wait for `delay` as they would for a disk, all that queue together; reads overtake them, as they may in a
/// real node. So a front end that mixes up the order of a connection's commands is found out.
#[derive(Clone, Debug)]
pub struct MemoryBackend {
    jobs: mpsc::UnboundedSender<Job>,
    applied: Arc<AtomicU64>,
    started: Instant,
}

enum Job {
    Write(Bytes, ReplySender),
    Read(ReadRequest),
    /// From now on every request fails like this, or none.
    Fail(Option<ClientError>),
}

impl MemoryBackend {
    /// Starts with an empty store, in a task of the current runtime.
    #[must_use]
    pub fn start(delay: Duration) -> MemoryBackend {
        let (jobs, received) = mpsc::unbounded_channel();
        let applied = Arc::new(AtomicU64::new(0));
        tokio::spawn(work(received, Arc::clone(&applied), delay));
        MemoryBackend { jobs, applied, started: Instant::now() }
    }

    /// Fails every later request with `error`, until it is called with `None`.
    pub fn fail(&self, error: Option<ClientError>) {
        // Without the task every request fails anyway.
        let _ = self.jobs.send(Job::Fail(error));
    }
}

impl Backend for MemoryBackend {
    fn propose(&self, payload: Bytes) -> ReplyFuture {
        let (sender, receiver) = oneshot::channel();
        // If the task is gone the sender is dropped, which the receiver notices.
        let _ = self.jobs.send(Job::Write(payload, sender));
        ReplyFuture::write(receiver)
    }

    fn read(&self, _consistency: Consistency, read: ReadRequest) {
        let _ = self.jobs.send(Job::Read(read));
    }

    fn time(&self) -> Timestamp {
        Timestamp(now_ms())
    }

    fn log_is_full(&self) -> bool {
        false
    }

    fn status(&self) -> Status {
        let applied = LogIndex(self.applied.load(Ordering::Relaxed));
        let id = NodeId(1);
        Status {
            cluster_id: ClusterId(0),
            id,
            role: Role::Leader,
            leader: Some(id),
            term: Term(1),
            commit: applied,
            applied,
            first_index: applied.next(),
            last_index: applied,
            snapshot_index: LogIndex::ZERO,
            ready: true,
            not_ready_reason: None,
            uptime_s: self.started.elapsed().as_secs(),
            fsync_p50_us: 0,
            fsync_p99_us: 0,
            members: vec![MemberStatus {
                id,
                kind: MemberKind::Voter,
                resp: "127.0.0.1:7400".into(),
                http: "127.0.0.1:7401".into(),
                peer: "127.0.0.1:7402".into(),
                matched: Some(applied),
                lag: Some(0),
                connected: true,
            }],
            version: env!("CARGO_PKG_VERSION").into(),
            start_number: StartNumber(1),
            incarnation: Incarnation(1),
            keys: None,
            expiring: None,
            memory_bytes: None,
            memory_bytes_max: None,
            segments: None,
            log_bytes: None,
            log_full: false,
            problems: Vec::new(),
        }
    }
}

/// The task that owns the store.
async fn work(mut jobs: mpsc::UnboundedReceiver<Job>, applied: Arc<AtomicU64>, delay: Duration) {
    let mut kv = Kv::new();
    let mut failing: Option<ClientError> = None;
    let mut received = Vec::new();
    let mut writes: Vec<(Bytes, ReplySender)> = Vec::new();
    let mut due = Instant::now();
    loop {
        let open = if writes.is_empty() {
            jobs.recv_many(&mut received, BATCH_MAX).await > 0
        } else {
            // Reads that come while writes wait are run at once.
            timeout_at(due, jobs.recv_many(&mut received, BATCH_MAX)).await.is_ok_and(|count| count > 0)
        };
        if !open && writes.is_empty() {
            return;
        }
        for job in received.drain(..) {
            match (job, &failing) {
                (Job::Fail(error), _) => failing = error,
                (Job::Read(read), None) => read(Ok(&kv)),
                (Job::Read(read), Some(error)) => read(Err(error.clone())),
                (Job::Write(_, sender), Some(error)) => {
                    // The client may have gone.
                    let _ = sender.send(Err(error.clone()));
                }
                (Job::Write(payload, sender), None) => {
                    if writes.is_empty() {
                        due = Instant::now() + delay;
                    }
                    writes.push((payload, sender));
                }
            }
        }
        if open && Instant::now() < due {
            continue;
        }
        apply(&mut kv, std::mem::take(&mut writes), &applied);
    }
}

fn apply(kv: &mut Kv, writes: Vec<(Bytes, ReplySender)>, applied: &AtomicU64) {
    let time = Timestamp(now_ms());
    let (payloads, senders): (Vec<Bytes>, Vec<ReplySender>) = writes.into_iter().unzip();
    let batch: Vec<Command> = (kv.applied().0 + 1..)
        .zip(payloads)
        .map(|(index, payload)| Command { index: LogIndex(index), time, session: None, payload })
        .collect();
    let replies = kv.apply(&batch);
    applied.store(kv.applied().0, Ordering::Relaxed);
    for (sender, reply) in senders.into_iter().zip(replies) {
        let _ = sender.send(Ok(reply));
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const BATCH_MAX: usize = 4096;
