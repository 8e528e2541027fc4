//! Read-only maps of sealed files, the one place in this crate for `unsafe`; and room for a whole segment.

#![expect(unsafe_code, reason = "a memory map cannot be made without it; everything else in the crate can")]

use std::{
    fs::File,
    io,
    ops::{Deref, DerefMut},
};

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapMut, MmapOptions};

/// Maps the first `length` bytes of `file`, read-only. The map is released with the last clone of the `Bytes`.
///
/// A map bypasses `read`: a medium error under it, or another process that shortens the file, ends this process with
/// SIGBUS instead of an error (told in FORMAT.md). So only sealed segments are mapped, after they were verified by
/// `read`, and only for catch-up reads.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file is shorter: pages behind its end cannot be read.
/// [`io::ErrorKind::InvalidInput`] if `length` is zero, or what the operating system says.
pub(crate) fn map_read_only(file: &File, length: u64) -> io::Result<Bytes> {
    if file.metadata()?.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    if length == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the map is private to this `Bytes` and never written through. Its bytes may only be taken for immutable
    // while nobody writes or shortens the file. In this process nobody does: a sealed segment is never written again,
    // and it is recycled only once no map of it lives. Other processes are kept out by the directory's lock and by
    // its mode, 0700. The length was checked above, so that no page lies behind the end of the file.
    let map: Mmap = unsafe { MmapOptions::new().len(length).map(file)? };
    // Catch-up reads go from front to back. Only a hint, so a refusal changes nothing.
    let _ = map.advise(Advice::Sequential);
    Ok(Bytes::from_owner(map))
}

/// Zeroed memory, of which only what is touched is taken from the system.
///
/// Where there is much of it, in huge pages if the system has them: filling a segment's worth page by page takes as long
/// as reading it.
#[derive(Debug)]
pub(crate) enum Room {
    Few(Vec<u8>),
    Many(MmapMut),
}

impl Room {
    pub(crate) fn zeroed(length: usize) -> Room {
        if length < MANY_BYTES {
            return Room::Few(vec![0; length]);
        }
        let Ok(map) = MmapMut::map_anon(length) else { return Room::Few(vec![0; length]) };
        // Only a hint.
        #[cfg(target_os = "linux")]
        let _ = map.advise(Advice::HugePage);
        Room::Many(map)
    }
}

impl Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Room::Few(bytes) => bytes,
            Room::Many(map) => map,
        }
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Room::Few(bytes) => bytes,
            Room::Many(map) => map,
        }
    }
}

/// Two huge pages.
const MANY_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_map_shows_the_file_and_never_more() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"sealed").unwrap();
        let map = map_read_only(&file, 6).unwrap();
        assert_eq!(&map[..], b"sealed");
        drop(file);
        assert_eq!(&map.slice(2..)[..], b"aled", "the map outlives the handle");
    }

    #[test]
    fn room_is_zeroed_and_as_long_as_asked_for() {
        for length in [0, 1, MANY_BYTES - 1, MANY_BYTES, MANY_BYTES + 1] {
            let mut room = Room::zeroed(length);
            assert_eq!((room.len(), room.iter().any(|byte| *byte != 0)), (length, false));
            if let Some(last) = room.last_mut() {
                *last = 7;
                assert_eq!(room[length - 1], 7);
            }
        }
    }

    #[test]
    fn a_file_shorter_than_told_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(map_read_only(&file, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(map_read_only(&file, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
