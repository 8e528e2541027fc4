//! Read-only maps of sealed files. The one place in this crate for `unsafe`.

#![expect(unsafe_code, reason = "a memory map cannot be made without it; everything else in the crate can")]

use std::{fs::File, io};

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};

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
    fn a_file_shorter_than_told_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(map_read_only(&file, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(map_read_only(&file, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
