//! The log's public handle: an [`Engine`] on a thread of its own. The shell moves writes and answers; every decision
//! is the engine's.
//!
//! Two threads: the *writer* owns the engine; the *helper* prepares the next segment and tidies up behind a compaction,
//! so that neither delays an append.

use std::{
    collections::VecDeque,
    fmt,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use raft_core::{Entry, LogIndex, Write, WriteId};

use crate::{
    engine::{self, Advance, Engine, Garbage},
    error::WalError,
    log::Log,
    open::{self, DirLock},
    options::Options,
    report::{OpenReport, Stats},
    segment::prepare::{Job, Prepared},
    ticket::{self, Completion, Ticket},
    vfs::{OsVfs, Vfs},
};

/// The write-ahead log of one node. Shared freely between threads.
///
/// Dropping it ends the writer thread after what was submitted; [`close`](Self::close) also tells how that went.
pub struct Wal {
    shared: Arc<Shared>,
    log: Arc<RwLock<Log>>,
    inflight_bytes_max: usize,
    /// `None` once closed.
    writer: Mutex<Option<JoinHandle<Result<(), WalError>>>>,
}

/// Called by the writer thread: once after each batch with the last durable write, once with the error that ended it.
pub type Observer = Box<dyn Fn(Result<WriteId, WalError>) + Send>;

impl Wal {
    /// Opens the log in `dir` of this machine's file system, founding it if the directory is empty.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(dir: &Path, options: Options) -> Result<(Wal, OpenReport), WalError> {
        Wal::open_with(Arc::new(OsVfs), dir, options)
    }

    /// Opens the log in `dir` through `vfs`, founding it if the directory is empty. Blocks.
    ///
    /// # Errors
    /// See [`WalError`]; a directory of somebody else, in use, or of a newer release is left unchanged.
    pub fn open_with(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Wal, OpenReport), WalError> {
        let inflight_bytes_max = options.inflight_bytes_max;
        let (engine, report) = Engine::open(vfs, dir, options)?;
        Ok((Wal::start(engine, dir, inflight_bytes_max)?, report))
    }

    /// As [`open_with`](Self::open_with), in a directory that exists and that the caller has locked already, because
    /// it keeps other files there. The log holds the lock from now on.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with), but for [`WalError::InUse`].
    pub fn open_locked(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: Options,
        lock: DirLock,
    ) -> Result<(Wal, OpenReport), WalError> {
        let inflight_bytes_max = options.inflight_bytes_max;
        let (engine, report) = open::open_locked(vfs, dir, options, lock)?;
        Ok((Wal::start(engine, dir, inflight_bytes_max)?, report))
    }

    fn start(mut engine: Engine, dir: &Path, inflight_bytes_max: usize) -> Result<Wal, WalError> {
        engine.clock = Some(micros);
        let log = Arc::clone(&engine.log);
        let shared = Arc::new(Shared {
            stats: Mutex::new(engine.stats()),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            inflight_bytes: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let writer = Writer::new(engine, Arc::clone(&shared))?;
        let writer = spawn("wal-writer", dir, move || writer.run())?;
        Ok(Wal { shared, log, inflight_bytes_max, writer: Mutex::new(Some(writer)) })
    }

    /// Hands a write to the writer thread. Never blocks, always takes it; see [`is_busy`](Self::is_busy).
    ///
    /// Writes must come in the order of their ids. After a failure the ticket answers at once.
    pub fn submit(&self, write: Write) -> Ticket {
        let (ticket, completion) = ticket::ticket();
        let bytes = write_bytes(&write);
        self.shared.inflight_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.push(Request::Write { write: Box::new(write), completion, bytes });
        ticket
    }

    /// Who is told about durable writes. Replaces the one before; told at once if the log is poisoned already.
    pub fn set_observer(&self, observer: Observer) {
        self.push(Request::Observe(observer));
    }

    /// Reads entries `first..=last`, stopping before `bytes_max` (as [`Entry::size_bytes`] counts) but not before the
    /// first. Each is verified. Only what is durable can be read; a `last` behind that is cut short. Blocks on the disk
    /// but never on the writer, from any thread.
    ///
    /// # Errors
    /// [`WalError::Compacted`], [`WalError::NotFound`], [`WalError::Corrupt`], [`WalError::Io`].
    pub fn read(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        engine::read(&self.log, first, last, bytes_max)
    }

    /// Lets the log drop whole segments whose entries all lie at or before `up_to`, and snapshots older than the
    /// newest marked one. Entries that no marked snapshot covers stay in any case. Returns at once; the work is done
    /// beside the appends.
    pub fn compact(&self, up_to: LogIndex) {
        self.push(Request::Compact(up_to));
    }

    /// After damage was reported: takes writes again, from the entry before the hole on. Until the log has grown past
    /// what was promised, every open reports the damage anew. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin_repair(&self) -> Result<(), WalError> {
        let (ticket, completion) = ticket::ticket();
        self.push(Request::Repair(completion));
        ticket.wait()
    }

    /// Bytes that wait or are being written.
    #[must_use]
    pub fn inflight_bytes(&self) -> usize {
        self.shared.inflight_bytes.load(Ordering::Relaxed)
    }

    /// Whether more than [`Options::inflight_bytes_max`] are in flight: shed load.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.inflight_bytes() > self.inflight_bytes_max
    }

    /// Figures, as of the last batch.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = lock(&self.shared.stats).clone();
        Stats { inflight_bytes: self.inflight_bytes() as u64, ..stats }
    }

    /// Writes what waits, notes that all of it is durable, and ends the writer thread. What is submitted later is
    /// answered with [`WalError::Closed`]; reads go on. Blocks.
    ///
    /// # Errors
    /// The first failure; the log is closed all the same. [`WalError::Closed`] the second time.
    pub fn close(&self) -> Result<(), WalError> {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.push(Request::Close);
        let writer = lock(&self.writer).take();
        match writer.map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            // The writer panicked: what is on disk is whatever its last sync covered.
            Some(Err(_)) | None => Err(WalError::Closed),
        }
    }

    fn push(&self, job: Request) {
        let mut queue = lock(&self.shared.queue);
        if queue.closed {
            drop(queue);
            // Dropping a write answers its ticket with `Closed`.
            return;
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.arrived.notify_one();
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Nobody is left to be told how it went.
        let _ = self.close();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    inflight_bytes: AtomicUsize,
    /// Somebody waits for the end: a full disk is not waited for any more.
    closing: AtomicBool,
    stats: Mutex<Stats>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Request>,
    /// The helper's answers come the same way, so that the writer has one thing to wait for.
    prepared: Option<Result<Prepared, WalError>>,
    spares: Vec<u64>,
    closed: bool,
}

enum Request {
    Write { write: Box<Write>, completion: Completion, bytes: usize },
    Compact(LogIndex),
    Observe(Observer),
    Repair(Completion),
    Close,
}

/// Work for the helper thread.
enum Chore {
    Prepare(Job),
    Collect(Garbage),
}

struct Writer {
    engine: Engine,
    shared: Arc<Shared>,
    /// `None` once the writer leaves.
    chores: Option<mpsc::Sender<Chore>>,
    helper: Option<JoinHandle<()>>,
    observer: Option<Observer>,
    /// The helper is preparing the next segment.
    preparing: bool,
    /// Batched and not yet durable, in order.
    waiting: Vec<(WriteId, Completion, usize)>,
    told_failure: bool,
}

impl Writer {
    fn new(engine: Engine, shared: Arc<Shared>) -> Result<Writer, WalError> {
        let (chores, inbox) = mpsc::channel();
        let (vfs, dir) = (Arc::clone(&engine.vfs), engine.dir.clone());
        let outbox = Arc::clone(&shared);
        let helper = spawn("wal-helper", &dir.clone(), move || help(&inbox, &*vfs, &dir, &outbox))?;
        Ok(Writer {
            engine,
            shared,
            chores: Some(chores),
            helper: Some(helper),
            observer: None,
            preparing: false,
            waiting: Vec::new(),
            told_failure: false,
        })
    }

    fn run(mut self) -> Result<(), WalError> {
        let idle = Duration::from_millis(self.engine.options.idle_commit_ms);
        loop {
            self.request_segment();
            let Some(jobs) = self.take_jobs(idle) else {
                // Idle: narrow the window in which damage looks like a torn write.
                if self.engine.refuse_if_unusable().is_ok() {
                    let _ = self.engine.witness();
                    self.publish();
                }
                continue;
            };
            let mut closing = false;
            for job in jobs {
                match job {
                    Request::Write { write, completion, bytes } => self.take_write(&write, completion, bytes),
                    Request::Compact(up_to) => {
                        self.commit();
                        self.compact(up_to);
                    }
                    Request::Observe(observer) => {
                        self.commit();
                        if let Some(error) = &self.engine.failure {
                            observer(Err(error.clone()));
                            self.told_failure = true;
                        }
                        self.observer = Some(observer);
                    }
                    Request::Repair(completion) => {
                        let outcome = self.engine.begin_repair();
                        wake(completion.complete(outcome));
                    }
                    Request::Close => closing = true,
                }
            }
            self.commit();
            if closing {
                return self.close();
            }
        }
    }

    /// Everything that is queued, at most one batch of writes; `None` if nothing came for `idle` and the last batch has
    /// no witness yet.
    fn take_jobs(&mut self, idle: Duration) -> Option<Vec<Request>> {
        let shared = Arc::clone(&self.shared);
        let mut queue = lock(&shared.queue);
        loop {
            self.take_answers(&mut queue);
            self.request_segment();
            if !queue.jobs.is_empty() {
                let mut bytes = 0;
                let mut jobs = Vec::with_capacity(queue.jobs.len().min(4096));
                while bytes < self.engine.options.batch_bytes_max
                    && let Some(job) = queue.jobs.pop_front()
                {
                    if let Request::Write { bytes: more, .. } = &job {
                        bytes += more;
                    }
                    jobs.push(job);
                }
                return Some(jobs);
            }
            let usable = self.engine.refuse_if_unusable().is_ok();
            let witnessed = self.engine.witnessed || !usable;
            // A full disk is asked again now and then, so that there is room before it is needed.
            let retries = usable && self.engine.full && !self.preparing;
            let limit = match (witnessed, retries) {
                (false, _) => idle,
                (true, true) => FULL_RETRY,
                (true, false) => {
                    queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            let timeout;
            (queue, timeout) =
                shared.arrived.wait_timeout(queue, limit).unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && queue.jobs.is_empty() {
                if !witnessed {
                    return None;
                }
                self.retry_segment();
            }
        }
    }

    /// Asks for the next segment although the last answer was that there is no room.
    fn retry_segment(&mut self) {
        self.engine.full = false;
        self.request_segment();
        self.engine.full = true;
    }

    fn take_answers(&mut self, queue: &mut MutexGuard<'_, Queue>) {
        self.engine.spares.append(&mut queue.spares);
        match queue.prepared.take() {
            Some(Ok(prepared)) => {
                self.preparing = false;
                self.engine.full = false;
                // A repair may have taken the number meanwhile.
                if prepared.number == self.engine.current.file.number + 1 {
                    self.engine.next = Some(prepared);
                }
            }
            Some(Err(WalError::Full { .. })) => {
                // Soft: what is needed is asked for again.
                self.preparing = false;
                self.engine.full = true;
            }
            Some(Err(error)) => {
                self.preparing = false;
                self.engine.poison(error);
            }
            None => {}
        }
    }

    /// Asks the helper for the next segment as soon as the last one is taken.
    fn request_segment(&mut self) {
        if self.preparing || self.engine.full || self.engine.refuse_if_unusable().is_err() {
            return;
        }
        if let Some(job) = self.engine.job() {
            self.preparing = self.send(Chore::Prepare(job));
        }
    }

    fn take_write(&mut self, write: &Write, completion: Completion, bytes: usize) {
        match self.engine.append(write) {
            Ok(()) => self.waiting.push((write.id, completion, bytes)),
            Err(error) => {
                self.shared.inflight_bytes.fetch_sub(bytes, Ordering::Relaxed);
                // A write that does not fit leaves a gap that no later one may jump: the owner is broken.
                let error = self.engine.poison(error);
                wake(completion.complete(Err(error)));
            }
        }
    }

    /// Makes all taken writes durable, then answers them in one sweep.
    fn commit(&mut self) {
        loop {
            if self.engine.failure.is_some() || self.engine.pending.is_empty() {
                break;
            }
            match self.engine.advance() {
                Ok(Advance::Done) | Err(_) => break,
                Ok(Advance::NeedsSegment) => {
                    self.publish();
                    self.answer_durable();
                    self.await_segment();
                }
            }
        }
        // The figures first: whoever was answered finds them right.
        self.publish();
        self.answer_durable();
        self.answer_failure();
    }

    /// Blocks until the helper delivers. While the disk is full this is where writes wait.
    fn await_segment(&mut self) {
        self.request_segment();
        let shared = Arc::clone(&self.shared);
        let mut queue = lock(&shared.queue);
        loop {
            self.take_answers(&mut queue);
            if self.engine.next.is_some() || self.engine.failure.is_some() {
                return;
            }
            if !self.preparing {
                drop(queue);
                self.publish();
                if self.engine.full {
                    if self.is_closing() {
                        let path = self.engine.dir.clone();
                        self.engine.poison(WalError::Full { path });
                        return;
                    }
                    std::thread::sleep(FULL_RETRY);
                    self.retry_segment();
                } else {
                    self.request_segment();
                }
                queue = lock(&shared.queue);
                continue;
            }
            queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed)
    }

    fn answer_durable(&mut self) {
        let Some(durable) = self.engine.durable else { return };
        let count = self.waiting.partition_point(|(id, ..)| *id <= durable);
        if count == 0 {
            return;
        }
        let done: Vec<_> = self.waiting.drain(..count).collect();
        let bytes = done.iter().map(|(.., bytes)| bytes).sum::<usize>();
        self.shared.inflight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer(Ok(durable));
        }
        // First all outcomes, then all wakers: nobody wakes to find his neighbour's answer missing.
        let wakers: Vec<_> =
            done.iter().filter_map(|(_, completion, _)| completion.complete(Ok(()))).collect();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// After a failure: everybody who waits, and the observer, once.
    fn answer_failure(&mut self) {
        let Some(error) = self.engine.failure.clone() else { return };
        self.engine.pending.clear();
        let done = std::mem::take(&mut self.waiting);
        let bytes = done.iter().map(|(.., bytes)| bytes).sum::<usize>();
        self.shared.inflight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let wakers: Vec<_> =
            done.iter().filter_map(|(_, completion, _)| completion.complete(Err(error.clone()))).collect();
        wakers.into_iter().for_each(std::task::Waker::wake);
        if let Some(observer) = &self.observer
            && !self.told_failure
        {
            self.told_failure = true;
            observer(Err(error));
        }
    }

    fn compact(&mut self, up_to: LogIndex) {
        if self.engine.refuse_if_unusable().is_err() {
            return;
        }
        if let Ok(garbage) = self.engine.drop_prefix(up_to) {
            self.send(Chore::Collect(garbage));
        }
    }

    fn send(&self, chore: Chore) -> bool {
        self.chores.as_ref().is_some_and(|chores| chores.send(chore).is_ok())
    }

    fn publish(&self) {
        *lock(&self.shared.stats) = self.engine.stats();
    }

    fn close(mut self) -> Result<(), WalError> {
        let outcome = if self.engine.damage.is_some() { Ok(()) } else { self.engine.witness() };
        self.answer_durable();
        self.answer_failure();
        self.publish();
        // From here on nothing is taken; what came meanwhile answers `Closed`.
        let left = {
            let mut queue = lock(&self.shared.queue);
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(left);
        outcome
    }
}

impl Drop for Writer {
    /// The helper works in the directory: it has to be gone before the engine lets go of the lock.
    fn drop(&mut self) {
        self.chores = None;
        if let Some(helper) = self.helper.take() {
            let _ = helper.join();
        }
    }
}

/// How long a full disk is left alone.
const FULL_RETRY: Duration = Duration::from_millis(100);

fn help(inbox: &mpsc::Receiver<Chore>, vfs: &dyn Vfs, dir: &Path, outbox: &Shared) {
    while let Ok(chore) = inbox.recv() {
        match chore {
            Chore::Prepare(job) => {
                let prepared = job.run(vfs, dir);
                lock(&outbox.queue).prepared = Some(prepared);
            }
            Chore::Collect(garbage) => {
                let spares = garbage.collect(vfs, dir);
                lock(&outbox.queue).spares.extend(spares);
            }
        }
        outbox.arrived.notify_all();
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    dir: &Path,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, WalError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|error| WalError::io("start a thread for", dir, error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: Option<std::task::Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn write_bytes(write: &Write) -> usize {
    raft_core::ENTRY_OVERHEAD_BYTES + write.entries.iter().map(Entry::size_bytes).sum::<usize>()
}

/// Microseconds since the first call.
fn micros() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}
