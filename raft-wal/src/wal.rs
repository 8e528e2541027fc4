//! The log's public handle: an [`Engine`] shared with a thread of its own, which does nothing but wait for the disk.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, RwLock, atomic::Ordering},
    thread::JoinHandle,
    time::Instant,
};

use raft_core::{Entry, LogIndex, Write, WriteId};

use crate::{
    engine::{self, Engine},
    error::WalError,
    log::Log,
    open::{self, DirLock},
    options::Options,
    report::{OpenReport, Stats},
    scrub::ScrubReport,
    ticket::{self, Ticket},
    vfs::{OsVfs, Vfs},
    writer::{self, Command, Shared, Waiting, lock},
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
        let shared = Arc::new(Shared::new(engine));
        let writer = writer::start(&shared, dir)?;
        Ok(Wal { shared, log, inflight_bytes_max, writer: Mutex::new(Some(writer)) })
    }

    /// Encodes a write behind those before it, for the writer thread to take to the disk. Never waits for the disk,
    /// always takes it; see [`is_busy`](Self::is_busy).
    ///
    /// Writes must come in the order of their ids. After a failure the ticket answers as soon as the observer knows.
    pub fn submit(&self, write: Write) -> Ticket {
        let (ticket, completion) = ticket::ticket();
        let bytes = write_bytes(&write);
        let mut front = lock(&self.shared.front);
        if front.closed {
            return ticket; // The completion is dropped, and answers `Closed`.
        }
        if let Err(error) = front.engine.append(&write) {
            // A write that does not fit leaves a gap that no later one may jump: the owner is broken.
            front.engine.poison(error);
        }
        self.shared.inflight_bytes.fetch_add(bytes, Ordering::Relaxed);
        front.waiting.push_back(Waiting { id: write.id, completion, bytes });
        self.shared.rouse(front);
        ticket
    }

    /// Who is told about durable writes. Replaces the one before; told at once if the log is poisoned already.
    pub fn set_observer(&self, observer: Observer) {
        self.command(Command::Observe(observer));
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
        let mut front = lock(&self.shared.front);
        if !front.closed && front.engine.refuse_if_unusable().is_ok() {
            front.engine.drop_prefix(up_to);
            self.shared.rouse(front);
        }
    }

    /// After damage was reported: takes writes again, from the entry before the hole on. Until the log has grown past
    /// what was promised, every open reports the damage anew. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin_repair(&self) -> Result<(), WalError> {
        let (ticket, completion) = ticket::ticket();
        self.command(Command::Repair(completion));
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
        let stats = lock(&self.shared.front).engine.stats();
        Stats { inflight_bytes: self.inflight_bytes() as u64, ..stats }
    }

    /// What the scrub has found: it starts with the open, reads every entry of the sealed segments, and each segment that
    /// is sealed later. Damage it finds is told here, and by every read of such an entry.
    pub fn scrub_report(&self) -> ScrubReport {
        lock(&self.shared.scrubbed).clone()
    }

    /// Writes what waits, notes that all of it is durable, and ends the writer thread. What is submitted later is
    /// answered with [`WalError::Closed`]; reads go on. Blocks.
    ///
    /// # Errors
    /// The first failure; the log is closed all the same. [`WalError::Closed`] the second time.
    pub fn close(&self) -> Result<(), WalError> {
        let mut front = lock(&self.shared.front);
        front.closing = true;
        self.shared.rouse(front);
        let writer = lock(&self.writer).take();
        match writer.map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            // The writer panicked: what is on disk is whatever its last sync covered.
            Some(Err(_)) | None => Err(WalError::Closed),
        }
    }

    fn command(&self, command: Command) {
        let mut front = lock(&self.shared.front);
        if !front.closed {
            front.commands.push_back(command);
            self.shared.rouse(front);
        }
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

fn write_bytes(write: &Write) -> usize {
    raft_core::ENTRY_OVERHEAD_BYTES + write.entries.iter().map(Entry::size_bytes).sum::<usize>()
}

/// Microseconds since the first call.
fn micros() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on() {
        let before = micros();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(micros() >= before + 2000);
    }
}
