//! The real disk: plain positional system calls.

#![expect(clippy::disallowed_methods, reason = "this is the file system everything else has to go through")]

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::{
    fs::{Advice, FallocateFlags, FlockOperation, OFlags},
    io::Errno,
};

use super::{DirEntry, Vfs, VfsFile};
use crate::{layout, mmap};

/// The operating system's file system. Holds nothing; two of them are the same.
///
/// Directories are made with mode 0700 and files with 0600; an existing data directory that others may enter is
/// closed to them. No call follows a link at the last step of a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = std::path::absolute(dir)?;
        let mut missing: Vec<&Path> = Vec::new();
        let mut existing = dir.as_path();
        while !existing.try_exists()? {
            missing.push(existing);
            existing = existing.parent().ok_or(io::ErrorKind::NotFound)?;
        }
        // A process killed between the two calls below left a directory whose name is not durable. Each is synced
        // before the next is made, so that only the deepest one can be such a leftover.
        if let Some(parent) = existing.parent() {
            match self.sync_dir(parent) {
                // Not readable to us: then it was not us who made something in it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => result?,
            }
        }
        for path in missing.iter().rev() {
            match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
            self.sync_dir(path.parent().ok_or(io::ErrorKind::NotFound)?)?;
        }
        close_to_others(&dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(flags(OFlags::NOFOLLOW))
            .open(dir.join(layout::LOCK_FILE))?;
        // Bound to this open file: a second handle of this very process is refused too, and the kernel lets go of it
        // however the process ends.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(Lock { _file: file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_file = metadata.is_file();
            let length = if is_file { metadata.len() } else { 0 };
            entries.push(DirEntry { name: PathBuf::from(entry.file_name()), is_file, length });
        }
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(OsFile { file }))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn VfsFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            // A FIFO put in the way must not hold us up; regular files do not care.
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(OsFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = OpenOptions::new().read(true).custom_flags(flags(OFlags::DIRECTORY)).open(dir)?;
        Ok(rustix::fs::fsync(&dir)?)
    }

    fn readers(&self) -> usize {
        // With one processor, one can still check while the other waits for the disk.
        std::thread::available_parallelism().map_or(2, usize::from).clamp(2, READERS_MAX)
    }
}

/// More make a disk no faster, and each takes a piece's worth of memory.
const READERS_MAX: usize = 4;

/// Held until dropped.
#[derive(Debug)]
struct Lock {
    _file: File,
}

#[derive(Debug)]
struct OsFile {
    file: File,
}

impl VfsFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not `File::sync_data`, which tries again after a signal: a sync that failed is final, whatever the reason.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let reserved = loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        match reserved {
            // File systems that copy on write have nothing to reserve. Writing zeros, which follows, needs the room.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(Errno::DQUOT) => return Err(io::Error::new(io::ErrorKind::StorageFull, Errno::DQUOT)),
            Err(error) => return Err(error.into()),
        }
        if self.file.metadata()?.len() != length {
            self.file.set_len(length)?;
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn will_read(&self, offset: u64, length: u64) {
        let Some(length) = std::num::NonZeroU64::new(length) else { return };
        // Told of parts of many files, the disk has many requests at once. A refusal changes nothing.
        let _ = rustix::fs::fadvise(&self.file, offset, Some(length), Advice::WillNeed);
    }

    fn map(&self) -> io::Result<Option<Bytes>> {
        match self.length()? {
            0 => Ok(None),
            length => mmap::map_read_only(&self.file, length).map(Some),
        }
    }
}

/// Takes from group and others what they may do in `dir`.
///
/// # Errors
/// A directory that everybody may write to by design (with the sticky bit, such as `/tmp`) is refused: it is a
/// mistake, and closing it would harm others.
fn close_to_others(dir: &Path) -> io::Result<()> {
    let metadata = fs::metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mode = metadata.permissions().mode();
    if mode & STICKY_BIT != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a directory shared with other users cannot hold the data of a node",
        ));
    }
    if mode & OTHERS_MASK != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(DIRECTORY_MODE))?;
    }
    Ok(())
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS_MASK: u32 = 0o077;
const STICKY_BIT: u32 = 0o1000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::vfs::read_exact_at;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_created_is_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        OsVfs.create_dir_all(&dir).unwrap();
        OsVfs.create_dir_all(&dir).unwrap();
        OsVfs.create(&dir.join("file")).unwrap();
        let _lock = OsVfs.lock(&dir).unwrap();
        assert_eq!(mode(&parent.path().join("a")), 0o700);
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("file")), 0o600);
        assert_eq!(mode(&dir.join(layout::LOCK_FILE)), 0o600);
    }

    #[test]
    fn an_open_directory_is_closed_and_a_shared_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        OsVfs.create_dir_all(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let error = OsVfs.create_dir_all(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(mode(dir.path()), 0o1777, "a shared directory was changed");
    }

    #[test]
    fn a_file_in_the_way_of_the_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        OsVfs.create(&dir.path().join("file")).unwrap();
        let error = OsVfs.create_dir_all(&dir.path().join("file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let lock = OsVfs.lock(dir.path()).unwrap();
        assert_eq!(OsVfs.lock(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        OsVfs.lock(dir.path()).unwrap();
    }

    #[test]
    fn links_and_fifos_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        OsVfs.create(&target).unwrap();
        symlink(&target, &link).unwrap();
        assert!(OsVfs.open(&link, false).is_err());
        assert_eq!(OsVfs.create(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        symlink(&target, dir.path().join(layout::LOCK_FILE)).unwrap();
        assert!(OsVfs.lock(dir.path()).is_err());
        assert_eq!(OsVfs.open(dir.path(), false).unwrap_err().kind(), io::ErrorKind::InvalidInput);

        let names = OsVfs.list(dir.path()).unwrap();
        let link = names.iter().find(|entry| entry.name == Path::new("link")).unwrap();
        assert!(!link.is_file);
        assert_eq!(link.length, 0);
    }

    #[test]
    fn allocation_sets_the_length_and_reads_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsVfs.create(&dir.path().join("file")).unwrap();
        file.allocate(8192).unwrap();
        file.write_at(b"x", 4096).unwrap();
        file.sync_data().unwrap();
        OsVfs.sync_dir(dir.path()).unwrap();
        assert_eq!(file.length().unwrap(), 8192);
        let mut bytes = [9; 2];
        read_exact_at(&*file, &mut bytes, 4096).unwrap();
        assert_eq!(bytes, *b"x\0");
        assert_eq!(file.read_at(&mut bytes, 8192).unwrap(), 0);
        assert_eq!(file.map().unwrap().unwrap().len(), 8192);
        file.allocate(4096).unwrap();
        assert_eq!(file.length().unwrap(), 4096);
    }

    #[test]
    fn no_room_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsVfs.create(&dir.path().join("file")).unwrap();
        let error = file.allocate(1 << 46).unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge),
            "unexpected: {error}"
        );
    }

    #[test]
    fn a_directory_that_others_cannot_use_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        OsVfs.create_dir_all(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o500);
    }

    #[test]
    fn what_cannot_be_synced_or_listed_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        OsVfs.sync_dir(dir.path()).unwrap();
        OsVfs.create(&dir.path().join("file")).unwrap();
        assert!(OsVfs.sync_dir(&dir.path().join("none")).is_err());
        assert!(OsVfs.sync_dir(&dir.path().join("file")).is_err());
        assert!(OsVfs.list(&dir.path().join("none")).is_err());
    }

    #[test]
    fn at_least_two_and_at_most_four_read_at_once() {
        assert!((2..=4).contains(&OsVfs.readers()));
    }

    #[test]
    fn several_who_make_the_same_directory_at_once_all_have_it() {
        let parent = tempfile::tempdir().unwrap();
        for n in 0..20 {
            let dir = parent.path().join(format!("{n}/a/b"));
            let start = std::sync::Barrier::new(4);
            let make = || {
                start.wait();
                OsVfs.create_dir_all(&dir)
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
            });
        }
    }
}
