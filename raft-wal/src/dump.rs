//! The records of a log as they stand in its files, in order, for people to look at. Takes the lock, never writes.
//!
//! Nothing is put together here: entries that a later record cuts away come too, and so does everything around a damaged
//! place. [`verify`](crate::verify) says what counts.

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use raft_core::{Entry, HardState, LogId, LogIndex, SnapshotMeta};

use crate::{
    error::{Corruption, CorruptionKind, WalError},
    record::{self, ALIGN, Header, NoRecord, Record},
    segment::header::{Found, HEADER_BYTES, SegmentHeader},
    survey::{Names, corruption},
    verify::lock_existing,
    vfs::{Vfs, read_exact_at},
};

/// One record, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct DumpedRecord {
    /// The number of the segment.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
    /// What it says.
    pub content: Dumped,
}

/// What a record says. FORMAT.md explains each.
#[derive(Clone, Debug, PartialEq)]
pub enum Dumped {
    /// The header of a segment.
    Segment {
        /// Whether the log was cut back here, to the entry of `last`, because damage was accepted.
        repair: bool,
        /// The last entry before it.
        last: LogId,
    },
    /// An entry.
    Entry(Entry),
    /// Every entry behind this one is forgotten.
    Cut {
        /// The last entry kept.
        after: LogIndex,
    },
    /// A snapshot counts from here on.
    Mark {
        /// What the snapshot stands for.
        meta: SnapshotMeta,
        /// Whether the log starts anew behind it.
        resets_log: bool,
        /// Whether it only repeats an earlier mark.
        restated: bool,
    },
    /// The batch is complete.
    Commit {
        /// Its number.
        batch: u64,
        /// The last batch that was durable when it was written.
        watermark: u64,
        /// Term, vote and commit hint.
        hard_state: HardState,
        /// The last entry.
        last: LogId,
    },
    /// The segment is complete.
    Seal {
        /// The number of the next one.
        next: u64,
    },
}

/// The records of the log in `dir`.
///
/// # Errors
/// [`WalError::NotADataDirectory`], [`WalError::InUse`] and [`WalError::Io`]. What is wrong with the bytes comes with the
/// records: as an error in the place of what cannot be read, and more records may follow.
pub fn dump<'a>(vfs: &'a dyn Vfs, dir: &Path) -> Result<Dump<'a>, WalError> {
    let lock = lock_existing(vfs, dir)?;
    let names = Names::list(vfs, dir)?;
    if names.segments.is_empty() {
        return Err(WalError::NotADataDirectory { path: dir.to_owned() });
    }
    let paths = names.segments.keys().map(|number| (*number, dir.join(crate::layout::segment(*number))));
    Ok(Dump { _lock: lock, vfs, segments: paths.collect(), current: None })
}

/// The records of a log that nobody has open. Made by [`dump`].
#[derive(Debug)]
pub struct Dump<'a> {
    _lock: Box<dyn fmt::Debug + Send + Sync>,
    vfs: &'a dyn Vfs,
    segments: VecDeque<(u64, PathBuf)>,
    current: Option<Walk>,
}

/// One segment, read as a whole.
#[derive(Debug)]
struct Walk {
    path: PathBuf,
    header: SegmentHeader,
    bytes: Vec<u8>,
    position: usize,
}

impl Iterator for Dump<'_> {
    type Item = Result<DumpedRecord, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.current.as_mut().and_then(Walk::next) {
                return Some(record.map_err(WalError::Corrupt));
            }
            self.current = None;
            let (number, path) = self.segments.pop_front()?;
            match self.begin(number, path) {
                Ok(Some(first)) => return Some(Ok(first)),
                Ok(None) => {} // Prepared and not yet in use.
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Dump<'_> {
    fn begin(&mut self, number: u64, path: PathBuf) -> Result<Option<DumpedRecord>, WalError> {
        let io = |error| WalError::io("read", &path, error);
        let file = self.vfs.open(&path, false).map_err(io)?;
        let length = file.length().map_err(io)?;
        if length > crate::SEGMENT_BYTES_MAX {
            let kind = CorruptionKind::Length { found: length, expected: crate::SEGMENT_BYTES_MAX };
            return Err(WalError::corrupt(&path, 0, kind));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        read_exact_at(&*file, &mut bytes, 0).map_err(io)?;
        let header = match SegmentHeader::find(&path, &bytes[..bytes.len().min(HEADER_BYTES)])? {
            Found::Live { header, .. } if header.number == number => header,
            Found::Live { .. } | Found::Unreadable => {
                return Err(WalError::corrupt(&path, 0, CorruptionKind::SegmentHeader));
            }
            Found::Blank => return Ok(None),
        };
        let content = Dumped::Segment { repair: header.repair, last: header.state.last };
        self.current = Some(Walk { path, header, bytes, position: HEADER_BYTES });
        Ok(Some(DumpedRecord { segment: number, offset: 0, content }))
    }
}

impl Walk {
    fn next(&mut self) -> Option<Result<DumpedRecord, Corruption>> {
        let stamp = self.header.stamp();
        loop {
            let position = self.position;
            let at = position as u64;
            match record::parse(&self.bytes, 0, position, &stamp) {
                Ok(record) => {
                    let shown = show(&record);
                    self.position = position + record.padded_bytes();
                    match shown {
                        Ok(Some(content)) => {
                            let segment = self.header.number;
                            return Some(Ok(DumpedRecord { segment, offset: at, content }));
                        }
                        Ok(None) => {} // A pad.
                        Err(kind) => return Some(Err(corruption(&self.path, at, kind))),
                    }
                }
                Err(NoRecord::Damaged) => {
                    self.resume(position + ALIGN);
                    return Some(Err(corruption(&self.path, at, CorruptionKind::RecordHeader)));
                }
                Err(NoRecord::Untagged) => {
                    if !self.resume(position) {
                        return None;
                    }
                    return Some(Err(corruption(&self.path, at, CorruptionKind::RecordHeader)));
                }
            }
        }
    }

    /// Goes on at the next place from `position` on where a record of this segment begins; `false` if there is none.
    fn resume(&mut self, position: usize) -> bool {
        let stamp = self.header.stamp();
        let mut places = (position..self.bytes.len()).step_by(ALIGN);
        let next = places.find(|place| record::parse(&self.bytes, 0, *place, &stamp).is_ok());
        self.position = next.unwrap_or(self.bytes.len());
        next.is_some()
    }
}

fn show(record: &Record<'_>) -> Result<Option<Dumped>, CorruptionKind> {
    Ok(Some(match record.header {
        Header::Entry { id, .. } if !record.payload_is_intact() => return Err(CorruptionKind::Payload(id)),
        Header::Entry { id, time, session, kind } => {
            let payload = Bytes::copy_from_slice(record.payload);
            Dumped::Entry(Entry { id, time, session, kind, checksum: record.payload_checksum, payload })
        }
        Header::Cut { after } => Dumped::Cut { after },
        Header::Mark { last, resets_log, restated } => {
            let meta = Some(record.payload).filter(|_| record.payload_is_intact());
            let meta = meta.and_then(|payload| record::decode_meta(last, payload));
            Dumped::Mark { meta: meta.ok_or(CorruptionKind::SnapshotMark(last))?, resets_log, restated }
        }
        Header::Commit { watermark, state } => {
            Dumped::Commit { batch: state.batch, watermark, hard_state: state.hard_state, last: state.last }
        }
        Header::Seal { next_number, .. } => Dumped::Seal { next: next_number },
        Header::Pad => return Ok(None),
    }))
}
