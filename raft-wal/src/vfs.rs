//! The seam between the log and the disk: as small as the log needs, and nothing in this crate goes around it.
//!
//! Directory syncs are part of it, so that the simulated disk can lose names as well as bytes.

mod os;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf as _, BytesMut};

pub use os::OsVfs;

/// A file system, real or simulated. Calls block.
pub trait Vfs: fmt::Debug + Send + Sync + 'static {
    /// Creates a directory and its missing parents, mode 0700, and syncs the parent of each one created. It is no
    /// error if it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of `dir` (a lock file in it, held until the returned value is dropped or the process
    /// dies). [`io::ErrorKind::WouldBlock`] if another process or handle holds it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>>;
    /// Everything in `dir`, in no particular order. Links are reported as such, not followed.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a file that must not exist yet, mode 0600, open for reading and writing. Its name is durable only
    /// after [`sync_dir`](Self::sync_dir).
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens an existing regular file for reading and, if asked, writing. Does not follow a link at the last step.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn VfsFile>>;
    /// Renames within one file system, replacing `to`. Durable only after [`sync_dir`](Self::sync_dir).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Durable only after [`sync_dir`](Self::sync_dir).
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable: creations, renames and removals.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How many threads gain from reading at the same time.
    fn readers(&self) -> usize {
        1
    }
}

/// An open file. Positional reads and writes only; shared freely between threads.
pub trait VfsFile: fmt::Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 means the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`: what was written is durable, and so is the length. After an error nothing may be assumed, not
    /// even by calling it again.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves blocks for `0..length` and sets the length. [`io::ErrorKind::StorageFull`] if there is no room.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// This part will be read soon, out of turn: what is read from front to back the kernel reads ahead better unasked. Only a
    /// hint.
    fn will_read(&self, _offset: u64, _length: u64) {}
    /// Maps the file read-only, where that is possible. Only for sealed segments, whose length was checked.
    fn map(&self) -> io::Result<Option<bytes::Bytes>> {
        Ok(None)
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: PathBuf,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Its length in bytes, 0 if it is no regular file.
    pub length: u64,
}

/// Zeroed memory that begins at a cache line: there is a processor that copies what is read in half the time then.
pub(crate) fn aligned(length: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(length + CACHE_LINE);
    let skew = buffer.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE);
    buffer.advance(skew);
    buffer.truncate(length);
    buffer
}

const CACHE_LINE: usize = 64;

/// Reads exactly `buffer.len()` bytes.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file ends before, or what the file system says.
pub fn read_exact_at(file: &dyn VfsFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A file of which only reads are asked.
    struct Reads<F>(F);

    impl<F> fmt::Debug for Reads<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Reads")
        }
    }

    impl<F: Fn(&mut [u8], u64) -> io::Result<usize> + Send + Sync + 'static> VfsFile for Reads<F> {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            (self.0)(buffer, offset)
        }

        fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn allocate(&self, _length: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn length(&self) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn a_read_goes_on_after_a_signal_and_ends_with_any_other_error() {
        let read = |answers: Vec<io::Result<u8>>| {
            let mut bytes = [0; 2];
            // These, then the end of the file.
            let answers = Mutex::new(answers.into_iter());
            let file = Reads(move |buffer: &mut [u8], _| match answers.lock().unwrap().next() {
                None => Ok(0),
                Some(Ok(byte)) => {
                    buffer[0] = byte;
                    Ok(1)
                }
                Some(Err(error)) => Err(error),
            });
            read_exact_at(&file, &mut bytes, 0).map(|()| bytes).map_err(|error| error.kind())
        };
        let failed = |kind: io::ErrorKind| Err(io::Error::from(kind));
        assert_eq!(read(vec![Ok(1), failed(io::ErrorKind::Interrupted), Ok(2)]), Ok([1, 2]));
        assert_eq!(read(vec![Ok(1), failed(io::ErrorKind::Other), Ok(2)]), Err(io::ErrorKind::Other));
        assert_eq!(read(vec![Ok(1)]), Err(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn short_reads_follow_each_other() {
        let mut buffer = [0; 5];
        let one_at_a_time = Reads(|buffer: &mut [u8], offset| {
            buffer[0] = u8::try_from(offset).unwrap();
            Ok(1)
        });
        read_exact_at(&one_at_a_time, &mut buffer, 7).unwrap();
        assert_eq!(buffer, [7, 8, 9, 10, 11]);
    }
}
