//! The simulated disk. Its fault model, in full:
//!
//! **Writes** go to a page cache, which every process sees at once. The disk takes sectors of 512 bytes, each whole or
//! not at all. A *machine crash* keeps any subset of the sector writes made since the file's last successful sync, in
//! any order, so that one call may be torn at every sector and a later call may be there without an earlier one. What
//! was overwritten in place shows its former content where the new one is lost: zeros in a new file, stale records in
//! a recycled one. A file's length is one more such thing: lost, the bytes behind the old one are gone; kept without
//! the bytes, they read as zeros.
//!
//! **Names**: each creation, rename and removal is kept or lost for itself, until `sync_dir` of its directory returned.
//! Syncing a file does not sync its name. A rename is atomic. Directories themselves are durable when made.
//!
//! **A process crash** loses nothing of the cache: only locks and open files.
//!
//! **`sync_data` and `sync_dir`** that return `Ok` make everything durable that was written, or named, before. One that
//! fails marks it clean: each part may be on the disk or not, it can still be read, and no later sync writes it, unless
//! its sector is written, or its name changed, again. So kill, restart, sync, power cut loses data that the restarted process has read.
//!
//! **Faults on demand**: an error at the n-th call of a kind or at the n-th change of any kind; a write that ends short; a
//! write that lands at another place; no room from byte n on; sectors that cannot be read; flipped bits, zeroed
//! sectors, a shortened file; everything failing from the n-th change on.
//!
//! **Never**: a sector half old and half new, a change to bytes that nobody wrote (unless asked for), a disk that lies
//! about a sync, a name that leads to another file's bytes.
//!
//! Everything is deterministic. Copies ([`SimVfs::fork`], [`Moment`]) share their pages, so that thousands of crash
//! states cost little.

mod content;
mod disk;
mod faults;
mod moment;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::{
    content::SECTOR_BYTES,
    faults::{Call, Fault},
    moment::{Moment, Survivors},
};
use self::{
    disk::{Disk, Inode},
    faults::Faults,
};
use super::{DirEntry, Vfs, VfsFile};

/// A simulated disk, as one run of a process sees it. Clones are the same process.
///
/// After a crash of the process or the machine, this handle and every file opened through it only return errors; the
/// crash returns the handle for the next run.
#[derive(Clone, Debug)]
pub struct SimVfs {
    state: Arc<Mutex<State>>,
    run: u64,
}

#[derive(Debug, Default)]
struct State {
    disk: Disk,
    run: u64,
    locks: BTreeMap<PathBuf, u64>,
    next_lock: u64,
    faults: Faults,
    moments: Option<Vec<Moment>>,
    note: u64,
    reads: u64,
    read_bytes: u64,
}

impl Default for SimVfs {
    fn default() -> SimVfs {
        SimVfs::new()
    }
}

impl SimVfs {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimVfs {
        SimVfs::on(Disk::default())
    }

    fn on(disk: Disk) -> SimVfs {
        SimVfs { state: Arc::new(Mutex::new(State { disk, ..State::default() })), run: 0 }
    }

    /// An independent disk in the same condition, cache included; nobody holds a lock on it and no fault is planned.
    #[must_use]
    pub fn fork(&self) -> SimVfs {
        SimVfs::on(self.state().disk.clone())
    }

    /// Ends the process: the cache stays. Returns the handle of the next one. Planned faults are dropped.
    #[must_use]
    pub fn crash_process(&self) -> SimVfs {
        self.next_run(|_| ())
    }

    /// Ends the machine: of what was not synced, `survivors` say what is left.
    #[must_use]
    pub fn crash_machine(&self, survivors: Survivors) -> SimVfs {
        self.next_run(|disk| *disk = survivors.crash(disk))
    }

    fn next_run(&self, change: impl FnOnce(&mut Disk)) -> SimVfs {
        let mut state = self.state();
        state.run += 1;
        state.locks.clear();
        let unreadable = std::mem::take(&mut state.faults.unreadable);
        state.faults = Faults { unreadable, ..Faults::default() };
        change(&mut state.disk);
        SimVfs { state: Arc::clone(&self.state), run: state.run }
    }

    /// Lets the `n`-th call of this kind from now on fail (1 is the next one).
    pub fn fail_call(&self, call: Call, n: u64, fault: Fault) {
        let faults = &mut self.state().faults;
        let at = faults.calls.get(&call).copied().unwrap_or(0) + n;
        faults.by_call.insert((call, at), fault);
    }

    /// Lets the `n`-th change of any kind from now on fail (1 is the next one).
    pub fn fail_change(&self, n: u64, fault: Fault) {
        let faults = &mut self.state().faults;
        faults.by_change.insert(faults.changes + n, fault);
    }

    /// Lets the `n`-th change from now on and everything after it fail: the process is as good as dead.
    pub fn halt_at_change(&self, n: u64) {
        let faults = &mut self.state().faults;
        faults.halt_at = Some(faults.changes + n);
    }

    /// How many changes there were in this run.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().faults.changes
    }

    /// How many calls of this kind there were in this run.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.state().faults.calls.get(&call).copied().unwrap_or(0)
    }

    /// How many reads there were, and of how many bytes.
    #[must_use]
    pub fn reads(&self) -> (u64, u64) {
        let state = self.state();
        (state.reads, state.read_bytes)
    }

    /// The disk holds no more than this from now on.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().faults.capacity_bytes = bytes;
    }

    /// Reading this sector of the file at `path` fails from now on. Nothing happens if there is no such file.
    pub fn make_unreadable(&self, path: &Path, sector: u64) {
        let mut state = self.state();
        if let Some(inode) = state.disk.lookup(path) {
            state.faults.unreadable.insert((inode, sector));
        }
    }

    /// Changes the byte at `offset` of the file at `path` on the medium: the bits of `mask` flip.
    pub fn flip_bits(&self, path: &Path, offset: u64, mask: u8) {
        let mut state = self.state();
        if let Some(inode) = state.disk.lookup(path) {
            state.disk.damage(inode, |content| {
                let mut byte = [0];
                if content.read(&mut byte, offset) == 1 {
                    content.write(&[byte[0] ^ mask], offset);
                }
            });
        }
    }

    /// Puts other bytes on the medium, within the length of the file: zeros, or what a former life of it held.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        if let Some(inode) = state.disk.lookup(path) {
            state.disk.damage(inode, |content| {
                let length = content.length;
                content.write(bytes, offset);
                content.length = length;
                content.trim();
            });
        }
    }

    /// Shortens the file at `path` on the medium.
    pub fn shorten(&self, path: &Path, length: u64) {
        let mut state = self.state();
        if let Some(inode) = state.disk.lookup(path) {
            state.disk.damage(inode, |content| {
                content.length = content.length.min(length);
                content.trim();
            });
        }
    }

    /// The bytes of the file at `path`, as a process would read them.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.disk.lookup(path)?;
        let mut bytes = vec![0; usize::try_from(state.disk.length(inode)).ok()?];
        state.disk.read(inode, &mut bytes, 0);
        Some(bytes)
    }

    /// Tells disks apart by what a process sees of them: the same names and bytes, the same number.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.state().disk.fingerprint()
    }

    /// Keeps a [`Moment`] after every change from now on.
    pub fn record(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// What the caller knows now, such as how much was acknowledged. Kept with each moment from the next change on: the
    /// crash that loses all of that change is the crash right behind the note.
    pub fn note(&self, note: u64) {
        self.state().note = note;
    }

    /// The moments since [`record`](Self::record), this one included, and no more from now on.
    #[must_use]
    pub fn take_moments(&self) -> Vec<Moment> {
        let mut state = self.state();
        state.keep_moment();
        state.moments.take().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.run == self.run { Ok(state) } else { Err(io::Error::other("this process has crashed")) }
    }

    /// Counts a call and tells whether it fails. A `Short` or `Misdirected` one is for the caller to carry out.
    fn begin(&self, call: Call) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.alive()?;
        let faults = &mut state.faults;
        let calls = faults.calls.entry(call).or_default();
        *calls += 1;
        let mut fault = faults.by_call.remove(&(call, *calls));
        if !matches!(call, Call::Read | Call::Open | Call::List) {
            faults.changes += 1;
            fault = fault.or(faults.by_change.remove(&faults.changes));
        }
        if faults.halt_at.is_some_and(|at| faults.changes >= at) {
            return Err(eio());
        }
        match fault {
            Some(Fault::Error) if !matches!(call, Call::SyncData | Call::SyncDir) => Err(eio()),
            Some(Fault::NoSpace) => Err(no_space()),
            fault => Ok((state, fault)),
        }
    }
}

impl State {
    fn keep_moment(&mut self) {
        if let Some(moments) = &mut self.moments {
            moments.push(Moment { disk: self.disk.clone(), note: self.note });
        }
    }
}

impl Vfs for SimVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let (mut state, _) = self.begin(Call::MakeDir)?;
        if !state.disk.has_dir(dir) {
            state.disk.make_dir(dir);
            state.keep_moment();
        }
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let mut state = self.alive()?;
        if !state.disk.has_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.locks.contains_key(dir) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.next_lock += 1;
        let number = state.next_lock;
        state.locks.insert(dir.to_owned(), number);
        Ok(Box::new(Lock { vfs: self.clone(), dir: dir.to_owned(), number }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let (state, _) = self.begin(Call::List)?;
        let names = state.disk.names(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(names.map(|(name, length)| DirEntry { name: name.clone(), is_file: true, length }).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let (mut state, _) = self.begin(Call::Create)?;
        if state.disk.lookup(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.disk.has_dir(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = state.disk.create(path);
        state.keep_moment();
        Ok(Arc::new(SimFile { vfs: self.clone(), inode, writable: true }))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn VfsFile>> {
        let (state, _) = self.begin(Call::Open)?;
        let inode = state.disk.lookup(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { vfs: self.clone(), inode, writable: write }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, _) = self.begin(Call::Rename)?;
        if from.parent() != to.parent() {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let inode = state.disk.lookup(from).ok_or(io::ErrorKind::NotFound)?;
        state.disk.rename(from, to, inode);
        state.keep_moment();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, _) = self.begin(Call::Remove)?;
        let inode = state.disk.lookup(path).ok_or(io::ErrorKind::NotFound)?;
        state.disk.unlink(path, inode);
        state.keep_moment();
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, fault) = self.begin(Call::SyncDir)?;
        if !state.disk.has_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.disk.sync_dir(dir, fault.is_none());
        state.keep_moment();
        if fault.is_some() { Err(eio()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Lock {
    vfs: SimVfs,
    dir: PathBuf,
    number: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.vfs.state();
        if state.locks.get(&self.dir) == Some(&self.number) {
            state.locks.remove(&self.dir);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    vfs: SimVfs,
    inode: Inode,
    writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(EBADF)) }
    }
}

impl VfsFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut state, _) = self.vfs.begin(Call::Read)?;
        let count = state.disk.read(self.inode, buffer, offset);
        let mut touched = content::sectors(offset, count);
        if !state.faults.unreadable.is_empty()
            && touched.any(|sector| state.faults.unreadable.contains(&(self.inode, sector)))
        {
            return Err(eio());
        }
        state.reads += 1;
        state.read_bytes += count as u64;
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let (mut state, fault) = self.vfs.begin(Call::Write)?;
        let (mut offset, mut count, mut result) = (offset, bytes.len(), Ok(()));
        match fault {
            Some(Fault::Short(length)) => (count, result) = (count.min(length), Err(eio())),
            Some(Fault::Misdirected(distance)) => offset = offset.saturating_add_signed(distance),
            Some(Fault::Error | Fault::NoSpace) | None => {}
        }
        let grows = (offset + count as u64).saturating_sub(state.disk.length(self.inode));
        let room =
            state.faults.capacity_bytes.map(|capacity| capacity.saturating_sub(state.disk.used_bytes()));
        if let Some(room) = room
            && grows > room
        {
            let missing = usize::try_from(grows - room).unwrap_or(usize::MAX);
            (count, result) = (count.saturating_sub(missing), Err(no_space()));
        }
        if count > 0 {
            state.disk.write(self.inode, &bytes[..count], offset);
            state.keep_moment();
        }
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, fault) = self.vfs.begin(Call::SyncData)?;
        state.disk.sync_data(self.inode, fault.is_none());
        state.keep_moment();
        if fault.is_some() { Err(eio()) } else { Ok(()) }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.check_writable()?;
        let (mut state, _) = self.vfs.begin(Call::Allocate)?;
        let grows = length.saturating_sub(state.disk.length(self.inode));
        if let Some(capacity) = state.faults.capacity_bytes
            && grows > capacity.saturating_sub(state.disk.used_bytes())
        {
            return Err(no_space());
        }
        state.disk.set_length(self.inode, length);
        state.keep_moment();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.vfs.alive()?.disk.length(self.inode))
    }
}

/// SplitMix64's finaliser.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
const EBADF: i32 = rustix::io::Errno::BADF.raw_os_error();
