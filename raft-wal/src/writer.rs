//! The log's threads. The *writer* takes one flight after the other to the disk and answers whoever waits; the *helper*
//! prepares the next segment and tidies up behind a compaction, so that neither delays an append; the *scrub* reads
//! what is sealed. Every decision is the engine's.
//!
//! The engine is locked for as long as it takes to encode a write or to count a batch, never while the disk works: so
//! whoever submits encodes the next batch while the writer waits for the fdatasync of the last one. A third thread for
//! that would cost a wake-up for each batch, which is more than the encoding itself.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::Waker,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use raft_core::WriteId;

use crate::{
    engine::{Engine, Flight, Garbage, Step},
    error::WalError,
    layout,
    log::Log,
    scrub::{Scrub, ScrubReport},
    segment::prepare::{Job, Prepared},
    ticket::Completion,
    vfs::Vfs,
    wal::Observer,
};

/// What the handle and the threads share.
pub(crate) struct Shared {
    pub(crate) front: Mutex<Front>,
    arrived: Condvar,
    /// Bytes that wait or are being written.
    pub(crate) inflight_bytes: AtomicUsize,
    /// What the scrub has seen.
    pub(crate) scrubbed: Mutex<ScrubReport>,
}

/// The engine, and whoever waits for it.
pub(crate) struct Front {
    pub(crate) engine: Engine,
    /// Appended and not yet durable, in order.
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) commands: VecDeque<Command>,
    /// The helper's answer.
    prepared: Option<Result<Prepared, WalError>>,
    /// The writer sleeps: whoever brings work wakes it.
    asleep: bool,
    /// Somebody waits for the end: a full disk is not waited for any more.
    pub(crate) closing: bool,
    /// Nothing is taken any more.
    pub(crate) closed: bool,
}

/// A write whose ticket is still open.
pub(crate) struct Waiting {
    pub(crate) id: WriteId,
    pub(crate) completion: Completion,
    pub(crate) bytes: usize,
}

/// What only the writer may do.
pub(crate) enum Command {
    Observe(Observer),
    Repair(Completion),
}

impl Shared {
    pub(crate) fn new(engine: Engine) -> Shared {
        Shared {
            front: Mutex::new(Front {
                engine,
                waiting: VecDeque::new(),
                commands: VecDeque::new(),
                prepared: None,
                asleep: false,
                closing: false,
                closed: false,
            }),
            arrived: Condvar::new(),
            inflight_bytes: AtomicUsize::new(0),
            scrubbed: Mutex::default(),
        }
    }

    /// Lets go of the front and wakes the writer if it sleeps.
    pub(crate) fn rouse(&self, mut front: MutexGuard<'_, Front>) {
        let asleep = std::mem::take(&mut front.asleep);
        drop(front);
        if asleep {
            self.arrived.notify_one();
        }
    }
}

impl Front {
    /// Takes whoever is answered by what is durable now.
    fn take_durable(&mut self, done: &mut Vec<Waiting>) {
        if let Some(durable) = self.engine.durable {
            let count = self.waiting.partition_point(|waiting| waiting.id <= durable);
            done.extend(self.waiting.drain(..count));
        }
    }
}

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>, dir: &Path) -> Result<JoinHandle<Result<(), WalError>>, WalError> {
    let writer = Writer::new(Arc::clone(shared))?;
    spawn("wal-writer", dir, move || writer.run())
}

/// Work for the helper thread.
enum Chore {
    Prepare(Job),
    Collect(Garbage),
}

/// What the writer does next.
enum Work {
    Fly(Box<Flight>),
    Command(Command),
    AnswerFailure(WalError),
    End,
}

struct Writer {
    shared: Arc<Shared>,
    vfs: Arc<dyn Vfs>,
    idle: Duration,
    /// `None` once the writer leaves.
    chores: Option<mpsc::Sender<Chore>>,
    helper: Option<JoinHandle<()>>,
    /// Told of each segment that is sealed; `None` once the writer leaves.
    sealed: Option<mpsc::Sender<()>>,
    scrubber: Option<JoinHandle<()>>,
    observer: Option<Observer>,
    told_failure: bool,
    /// The helper is preparing the next segment.
    preparing: bool,
    /// When the helper last said that there is no room.
    full_since: Option<Instant>,
    done: Vec<Waiting>,
    /// How many were answered last, and how long the disk took for them.
    answered: usize,
    flight_duration: Duration,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Result<Writer, WalError> {
        let (chores, inbox) = mpsc::channel();
        let (vfs, dir, idle) = {
            let engine = &lock(&shared.front).engine;
            (Arc::clone(&engine.vfs), engine.dir.clone(), engine.options.idle_commit_ms)
        };
        let (helpers_vfs, outbox) = (Arc::clone(&vfs), Arc::clone(&shared));
        let at = dir.clone();
        let helper = spawn("wal-helper", &at, move || help(&inbox, &*helpers_vfs, &dir, &outbox))?;
        let (sealed, sealings) = mpsc::channel();
        let (log, told) = (Arc::clone(&lock(&shared.front).engine.log), Arc::clone(&shared));
        let scrubber = spawn("wal-scrub", &at, move || scrub(&sealings, &log, &told.scrubbed))?;
        Ok(Writer {
            shared,
            vfs,
            sealed: Some(sealed),
            scrubber: Some(scrubber),
            idle: Duration::from_millis(idle),
            chores: Some(chores),
            helper: Some(helper),
            observer: None,
            told_failure: false,
            preparing: false,
            full_since: None,
            done: Vec::new(),
            answered: 0,
            flight_duration: Duration::ZERO,
        })
    }

    fn run(mut self) -> Result<(), WalError> {
        loop {
            self.gather();
            match self.next() {
                Work::Fly(flight) => self.fly(*flight),
                Work::Command(Command::Observe(observer)) => self.observe(observer),
                Work::Command(Command::Repair(completion)) => {
                    let outcome = lock(&self.shared.front).engine.begin_repair();
                    completion.complete(outcome).into_iter().for_each(Waker::wake);
                }
                Work::AnswerFailure(error) => self.answer_failure(&error),
                Work::End => return self.end(),
            }
        }
    }

    /// Many who were answered at once are about to come back at once. Without a pause the first of them would make a batch
    /// of their own and the others wait for the one after it, so that each flush carries half of them. So the writer lets
    /// them come, for as long as they do and for less than a flush would take.
    fn gather(&mut self) {
        let answered = std::mem::take(&mut self.answered);
        if answered < GATHER_MIN {
            return;
        }
        let mut gathering = Gathering::new(answered, self.flight_duration, Instant::now());
        while gathering.goes_on(lock(&self.shared.front).waiting.len(), Instant::now()) {
            std::thread::yield_now();
        }
    }

    /// Waits for something to do.
    fn next(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut front = lock(&shared.front);
        loop {
            self.take_answers(&mut front);
            if let Some(command) = front.commands.pop_front() {
                return Work::Command(command);
            }
            let to_be_told = self.observer.is_some() && !self.told_failure;
            if let Some(error) = &front.engine.failure
                && (to_be_told || !front.waiting.is_empty())
            {
                return Work::AnswerFailure(error.clone());
            }
            self.request_segment(&mut front.engine);
            let mut blocked = false;
            match front.engine.start() {
                Ok(Step::Fly(flight)) => return Work::Fly(flight),
                Ok(Step::NeedsSegment) => blocked = true,
                Ok(Step::Done) | Err(_) => {}
            }
            self.send_garbage(&mut front.engine);
            let usable = front.engine.refuse_if_unusable().is_ok();
            if front.closing {
                if !blocked {
                    let witness = if usable { front.engine.start_witness() } else { None };
                    front.closed = witness.is_none();
                    return witness.map_or(Work::End, Work::Fly);
                }
                if front.engine.full && !self.preparing {
                    if usable && let Some(witness) = front.engine.start_witness() {
                        return Work::Fly(witness);
                    }
                    let path = front.engine.dir.clone();
                    front.engine.poison(WalError::Full { path });
                    continue;
                }
            }
            if self.retry_segment(&mut front.engine) {
                continue;
            }
            let witness = usable && front.engine.wants_witness();
            let limit = if witness { Some(self.idle) } else { self.full_since.map(|_| FULL_RETRY) };
            let nothing_came;
            (front, nothing_came) = wait(&shared, front, limit);
            if nothing_came && witness {
                // Idle: narrow the window in which damage looks like a torn write.
                front.engine.shrink();
                front.waiting.shrink_to(WAITING_AT_REST);
                self.done.shrink_to(WAITING_AT_REST);
                if let Some(flight) = front.engine.start_witness() {
                    return Work::Fly(flight);
                }
            }
        }
    }

    /// To the disk and back; then all who were waiting for it are answered in one sweep.
    fn fly(&mut self, flight: Flight) {
        let start = Instant::now();
        let outcome = flight.carry_out(&*self.vfs);
        self.flight_duration = start.elapsed();
        let mut done = std::mem::take(&mut self.done);
        let durable = {
            let mut front = lock(&self.shared.front);
            // A failure is the engine's from here on, and answered next.
            let _ = front.engine.finish(flight, outcome);
            front.take_durable(&mut done);
            self.send_garbage(&mut front.engine);
            front.engine.durable
        };
        self.release(&done);
        if !done.is_empty()
            && let (Some(observer), Some(durable)) = (&self.observer, durable)
        {
            observer(Ok(durable));
        }
        self.answered = done.len();
        answer(&mut done, &Ok(()));
        self.done = done;
    }

    fn observe(&mut self, observer: Observer) {
        let failure = lock(&self.shared.front).engine.failure.clone();
        self.told_failure = failure.is_some();
        if let Some(error) = failure {
            observer(Err(error));
        }
        self.observer = Some(observer);
    }

    /// After a failure: the observer, once, and everybody who waits.
    fn answer_failure(&mut self, error: &WalError) {
        if let Some(observer) = &self.observer
            && !self.told_failure
        {
            self.told_failure = true;
            observer(Err(error.clone()));
        }
        let mut done: Vec<Waiting> = lock(&self.shared.front).waiting.drain(..).collect();
        self.release(&done);
        answer(&mut done, &Err(error.clone()));
    }

    fn release(&self, done: &[Waiting]) {
        let bytes = done.iter().map(|waiting| waiting.bytes).sum::<usize>();
        self.shared.inflight_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn end(self) -> Result<(), WalError> {
        let front = lock(&self.shared.front);
        match &front.engine.failure {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn take_answers(&mut self, front: &mut Front) {
        let Some(prepared) = front.prepared.take() else { return };
        self.preparing = false;
        self.full_since = None;
        let engine = &mut front.engine;
        match prepared {
            Ok(prepared) => {
                engine.full = false;
                // A repair may have taken the number meanwhile.
                if prepared.number == engine.current.file.number + 1 {
                    engine.next = Some(prepared);
                }
            }
            Err(WalError::Full { .. }) => {
                // Soft: it is asked for again now and then, so that there is room before it is needed.
                engine.full = true;
                self.full_since = Some(Instant::now());
            }
            Err(error) => {
                engine.poison(error);
            }
        }
    }

    /// Asks the helper for the next segment as soon as the last one is taken.
    fn request_segment(&mut self, engine: &mut Engine) {
        if self.preparing || engine.full || engine.refuse_if_unusable().is_err() {
            return;
        }
        if let Some(job) = engine.job(true) {
            self.preparing = self.send(Chore::Prepare(job));
            if let Some(sealed) = &self.sealed {
                // A new segment is wanted because the one before is sealed. Without a scrub nothing is lost at once.
                let _ = sealed.send(());
            }
        }
    }

    /// Asks for the next segment although the last answer was that there is no room.
    fn retry_segment(&mut self, engine: &mut Engine) -> bool {
        if self.full_since.is_none_or(|since| since.elapsed() < FULL_RETRY) {
            return false;
        }
        self.full_since = None;
        engine.full = false;
        self.request_segment(engine);
        engine.full = true;
        true
    }

    fn send_garbage(&self, engine: &mut Engine) {
        for garbage in engine.garbage.drain(..) {
            // All of it is set aside at once, so that the log can use it again; the helper takes its time to remove what
            // is too much. A helper that is gone leaves it to the next open.
            let _ = self.send(Chore::Collect(Garbage { spares_wanted: usize::MAX, ..garbage }));
        }
    }

    fn send(&self, chore: Chore) -> bool {
        self.chores.as_ref().is_some_and(|chores| chores.send(chore).is_ok())
    }
}

/// Whether the writer still lets those come who were answered.
struct Gathering {
    answered: usize,
    start: Instant,
    limit: Duration,
    came: usize,
    /// When the last of them came.
    last: Instant,
}

impl Gathering {
    fn new(answered: usize, flight: Duration, start: Instant) -> Gathering {
        Gathering { answered, start, limit: (flight / 2).min(GATHER_MAX), came: 0, last: start }
    }

    fn goes_on(&mut self, waiting: usize, now: Instant) -> bool {
        if waiting > self.came {
            (self.came, self.last) = (waiting, now);
        }
        waiting < self.answered && now - self.start < self.limit && now - self.last < GATHER_GAP
    }
}

impl Drop for Writer {
    /// Whatever ended the writer: nobody may go on waiting, and the helper works in the directory, so it has to be gone
    /// before the engine lets go of the lock.
    fn drop(&mut self) {
        let (waiting, commands) = {
            let mut front = lock(&self.shared.front);
            front.closed = true;
            (std::mem::take(&mut front.waiting), std::mem::take(&mut front.commands))
        };
        drop((waiting, commands));
        self.chores = None;
        self.sealed = None;
        if let Some(scrubber) = self.scrubber.take() {
            let _ = scrubber.join();
        }
        if let Some(helper) = self.helper.take() {
            let _ = helper.join();
        }
        lock(&self.shared.front).engine.release_dir();
    }
}

/// How long a full disk is left alone.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// Fewer than this many are not waited for.
const GATHER_MIN: usize = 8;
const GATHER_MAX: Duration = Duration::from_micros(500);
/// Nobody for this long: the rest does not come.
const GATHER_GAP: Duration = Duration::from_micros(20);
/// What the lists of who waits keep when nothing happens.
const WAITING_AT_REST: usize = 64;

/// Sleeps until somebody brings work or `limit` is over; tells whether it was the latter.
fn wait<'a>(
    shared: &Shared,
    mut front: MutexGuard<'a, Front>,
    limit: Option<Duration>,
) -> (MutexGuard<'a, Front>, bool) {
    front.asleep = true;
    let mut front = match limit {
        None => shared.arrived.wait(front).unwrap_or_else(PoisonError::into_inner),
        Some(limit) => shared.arrived.wait_timeout(front, limit).unwrap_or_else(PoisonError::into_inner).0,
    };
    let nothing_came = std::mem::take(&mut front.asleep);
    (front, nothing_came)
}

/// First all outcomes, then all wakers: nobody wakes to find his neighbour's answer missing.
fn answer(done: &mut Vec<Waiting>, outcome: &Result<(), WalError>) {
    let wakers: Vec<Waker> =
        done.iter().filter_map(|waiting| waiting.completion.complete(outcome.clone())).collect();
    wakers.into_iter().for_each(Waker::wake);
    done.clear();
}

/// One piece after the other with a pause between them, then whatever is sealed later.
fn scrub(sealings: &mpsc::Receiver<()>, log: &RwLock<Log>, told: &Mutex<ScrubReport>) {
    let (mut scrub, mut report) = (Scrub::default(), ScrubReport::default());
    loop {
        let more = scrub.step(log, &mut report);
        lock(told).clone_from(&report);
        let gone = if more {
            matches!(sealings.recv_timeout(SCRUB_PAUSE), Err(mpsc::RecvTimeoutError::Disconnected))
        } else {
            sealings.recv().is_err()
        };
        if gone {
            return;
        }
    }
}

/// Between two pieces of 1 MiB: a pass reads at most 100 MiB a second, so that the appends keep the disk.
const SCRUB_PAUSE: Duration = Duration::from_millis(10);

fn help(inbox: &mpsc::Receiver<Chore>, vfs: &dyn Vfs, dir: &Path, outbox: &Shared) {
    let mut too_many_spares = false;
    loop {
        let chore = if too_many_spares {
            inbox.recv_timeout(TRIM_PAUSE)
        } else {
            inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        };
        match chore {
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let spare = lock(&outbox.front).engine.take_surplus_spare();
                too_many_spares = spare.is_some();
                if let Some(spare) = spare {
                    // A failure is no harm: the next open tidies up.
                    let _ = vfs.remove(&dir.join(layout::spare(spare)));
                }
            }
            Ok(Chore::Prepare(job)) => {
                let prepared = job.run(vfs, dir);
                let mut front = lock(&outbox.front);
                if let Err(error) = &prepared
                    && !matches!(error, WalError::Full { .. })
                {
                    // At once: a flight that is under way must not count any more.
                    front.engine.poison(error.clone());
                }
                front.prepared = Some(prepared);
                outbox.rouse(front);
            }
            Ok(Chore::Collect(garbage)) => {
                let collected = garbage.collect(vfs, dir);
                let mut front = lock(&outbox.front);
                match collected {
                    Ok(spares) => front.engine.spares.extend(spares),
                    Err(error) => {
                        front.engine.poison(error);
                        outbox.rouse(front);
                    }
                }
                too_many_spares = true;
            }
        }
    }
}

/// Between the removals of two files that are too many. To remove one of 64 MiB keeps a core and the file system busy for
/// 15 ms; a dozen at once would be felt by the appends.
const TRIM_PAUSE: Duration = Duration::from_millis(100);

fn spawn<T: Send + 'static>(
    name: &str,
    dir: &Path,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, WalError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|error| WalError::io("start a thread for", dir, error))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_answered_are_let_come_while_they_do_and_not_for_long() {
        let start = Instant::now();
        let after = |micros| start + Duration::from_micros(micros);
        let gathering = |flight| Gathering::new(10, Duration::from_micros(flight), start);
        // All there; nobody in time; then one after the other.
        assert!(!gathering(200).goes_on(10, after(0)));
        assert!(gathering(200).goes_on(9, after(0)));
        assert!(gathering(200).goes_on(0, after(19)));
        assert!(!gathering(200).goes_on(0, after(20)));
        let mut slowly = gathering(200);
        assert!((1..7).all(|n| slowly.goes_on(n, after(15 * n as u64))));
        assert!(!slowly.goes_on(6, after(110)), "nobody came any more");
        // Half a flight at most, and never longer than the bound.
        let mut slowly = gathering(200);
        assert!((1..10).all(|n| slowly.goes_on(n, after(11 * n as u64))));
        assert!(!slowly.goes_on(9, after(100)));
        assert!(!gathering(100_000).goes_on(9, after(500)));
    }
}
