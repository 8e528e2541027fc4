//! Reads entries from their segments, each one verified.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use raft_core::{Entry, LogIndex};

use crate::{
    error::{CorruptionKind, WalError},
    log::{SegmentFile, Span},
    maps::Maps,
    record::{self, Header},
    segment::index::Slot,
    vfs::{aligned, read_exact_at},
};

/// Entries that lie close together are read at once, up to this many bytes.
const CHUNK_BYTES: u64 = 1 << 20;
/// A gap this large between two entries is not read.
const GAP_BYTES: u64 = 64 << 10;

/// What is read at once is taken from a map, if there is one, from this many bytes on.
const MAP_BYTES: u64 = 16 << 10;

/// Reads everything a lookup located; without `maps` from the file in any case.
pub(crate) fn read(spans: &[Span], maps: Option<&Maps>) -> Result<Vec<Entry>, WalError> {
    let mut entries = Vec::with_capacity(spans.iter().map(|span| span.slots.len()).sum());
    for span in spans {
        let mut rest = &span.slots[..];
        while let Some(first) = rest.first() {
            let together = 1 + rest.windows(2).take_while(|pair| belongs(first, pair)).count();
            let (chunk, behind) = rest.split_at(together);
            read_chunk(
                &span.file,
                chunk,
                span.first.plus((span.slots.len() - rest.len()) as u64),
                maps,
                &mut entries,
            )?;
            rest = behind;
        }
    }
    Ok(entries)
}

/// Reads a single entry, without the lists that many need.
pub(crate) fn read_one(file: &SegmentFile, slot: Slot, index: LogIndex) -> Result<Entry, WalError> {
    let base = u64::from(slot.offset);
    if base + u64::from(slot.bytes) > file.bytes {
        return Err(WalError::corrupt(&file.path, base, CorruptionKind::Footer));
    }
    let mut buffer = vec![0; slot.bytes as usize];
    read_exact_at(&*file.file, &mut buffer, base).map_err(|error| WalError::io("read", &file.path, error))?;
    let mut buffer = Bytes::from(buffer);
    let (entry, payload) = decode(file, &buffer, base, &slot, index)?;
    // The payload is the end of what was read: nobody else holds it, so it needs no count of who does.
    let header_bytes = buffer.len() - payload.len();
    buffer.advance(header_bytes);
    Ok(Entry { payload: buffer, ..entry })
}

fn belongs(first: &Slot, pair: &[Slot]) -> bool {
    let gap = u64::from(pair[1].offset).checked_sub(u64::from(pair[0].offset) + u64::from(pair[0].bytes));
    let end = u64::from(pair[1].offset) + u64::from(pair[1].bytes);
    gap.is_some_and(|gap| gap <= GAP_BYTES) && end - u64::from(first.offset) <= CHUNK_BYTES
}

fn read_chunk(
    file: &Arc<SegmentFile>,
    slots: &[Slot],
    first: LogIndex,
    maps: Option<&Maps>,
    entries: &mut Vec<Entry>,
) -> Result<(), WalError> {
    let (Some(start), Some(end)) = (slots.first(), slots.last()) else { return Ok(()) };
    let base = u64::from(start.offset);
    let end = u64::from(end.offset) + u64::from(end.bytes);
    if end > file.bytes {
        return Err(WalError::corrupt(&file.path, base, CorruptionKind::Footer));
    }
    let length = usize::try_from(end - base)
        .map_err(|_| WalError::corrupt(&file.path, base, CorruptionKind::Footer))?;
    let mapped = if end - base < MAP_BYTES { None } else { maps.and_then(|maps| maps.of(file)) };
    let (buffer, base) = match mapped {
        Some(map) => (map, 0),
        None => {
            let mut buffer = aligned(length);
            read_exact_at(&*file.file, &mut buffer, base)
                .map_err(|error| WalError::io("read", &file.path, error))?;
            (buffer.freeze(), base)
        }
    };
    for (slot, n) in slots.iter().zip(0..) {
        let (entry, payload) = decode(file, &buffer, base, slot, first.plus(n))?;
        entries.push(Entry { payload: buffer.slice_ref(payload), ..entry });
    }
    Ok(())
}

/// The entry, verified, and its payload, which is for the caller to take.
fn decode<'a>(
    file: &SegmentFile,
    buffer: &'a [u8],
    base: u64,
    slot: &Slot,
    expected: LogIndex,
) -> Result<(Entry, &'a [u8]), WalError> {
    let offset = u64::from(slot.offset);
    let corrupt = |kind| WalError::corrupt(&file.path, offset, kind);
    let position = usize::try_from(offset - base).map_err(|_| corrupt(CorruptionKind::Footer))?;
    let record = record::parse(buffer, base, position, &file.stamp)
        .map_err(|_| corrupt(CorruptionKind::RecordHeader))?;
    let Header::Entry { id, time, session, kind } = record.header else {
        return Err(corrupt(CorruptionKind::Record));
    };
    if record.bytes as u64 != u64::from(slot.bytes) {
        return Err(corrupt(CorruptionKind::Footer));
    }
    if id.index != expected {
        return Err(corrupt(CorruptionKind::WrongEntry { expected, found: id }));
    }
    if !record.payload_is_intact() {
        return Err(corrupt(CorruptionKind::Payload(id)));
    }
    let checksum = record.payload_checksum;
    Ok((Entry { id, time, session, kind, checksum, payload: Bytes::new() }, record.payload))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use raft_core::EntryKind;

    use super::*;
    use crate::{
        record::{Encoder, Stamp},
        vfs::{Vfs as _, sim::SimVfs},
    };

    /// A footer may say anything; what is handed out is what its record says.
    #[test]
    fn an_entry_whose_footer_tells_another_length_is_refused() {
        let payload = Bytes::from_static(b"sixteen bytes...");
        let checksum = Entry::checksum_of(&payload);
        let (id, time) = (raft_core::LogId::new(1, 1), raft_core::Timestamp(5));
        let entry = Entry { id, time, session: None, kind: EntryKind::Command, checksum, payload };
        let (stamp, mut buffer, mut chain) = (Stamp::new(1, 2), Vec::new(), 0);
        let (_, bytes) = Encoder { buffer: &mut buffer, base: 0, stamp, chain: &mut chain }.entry(&entry);
        let (vfs, path) = (SimVfs::new(), PathBuf::from("/segment"));
        vfs.create_dir_all(Path::new("/")).unwrap();
        let file = vfs.create(&path).unwrap();
        file.write_at(&buffer, 0).unwrap();
        file.write_at(&[7; 64], buffer.len() as u64).unwrap();
        let file = SegmentFile::new(1, path, file, stamp, 4096);
        let bytes = u32::try_from(bytes).unwrap();
        let read = |bytes| read_one(&file, Slot { offset: 0, bytes }, LogIndex(1));
        assert_eq!(read(bytes).unwrap(), entry);
        for other in [bytes + 8, bytes + 1] {
            match read(other) {
                Err(WalError::Corrupt(corruption)) => assert_eq!(corruption.kind, CorruptionKind::Footer),
                other => panic!("{other:?}"),
            }
        }
    }

    /// An index whose checksum fits may still point anywhere.
    #[test]
    fn an_entry_beyond_its_file_is_refused_as_the_footers_mistake() {
        let (vfs, path) = (SimVfs::new(), PathBuf::from("/segment"));
        vfs.create_dir_all(Path::new("/")).unwrap();
        let file = vfs.create(&path).unwrap();
        file.write_at(&[0; 4096], 0).unwrap();
        let file = SegmentFile::new(1, path, file, Stamp::new(1, 2), 4096);
        let kind = |error| {
            let WalError::Corrupt(corruption) = error else { panic!("{error:?}") };
            corruption.kind
        };
        for offset in [4089, 4096, 5000] {
            let slot = Slot { offset, bytes: 8 };
            assert_eq!(kind(read_one(&file, slot, LogIndex(1)).unwrap_err()), CorruptionKind::Footer);
            let read = read_chunk(&file, &[slot], LogIndex(1), None, &mut Vec::new());
            assert_eq!(kind(read.unwrap_err()), CorruptionKind::Footer);
        }
        // Up to its very end it is read, and is no record.
        let slot = Slot { offset: 4088, bytes: 8 };
        assert_ne!(kind(read_one(&file, slot, LogIndex(1)).unwrap_err()), CorruptionKind::Footer);
        let read = read_chunk(&file, &[slot], LogIndex(1), None, &mut Vec::new());
        assert_ne!(kind(read.unwrap_err()), CorruptionKind::Footer);
    }
}
