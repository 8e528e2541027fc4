//! Reads what no open looks at: every entry of the sealed segments, so that damage is known before the entry is needed.

use std::sync::{Arc, PoisonError, RwLock};

use raft_core::LogIndex;

use crate::{
    error::WalError,
    log::{Log, SegmentFile, Span},
    segment::reader,
};

/// What the scrub has seen since the open.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ScrubReport {
    /// Sealed segments read to their end.
    pub segments: u64,
    /// Entries found intact.
    pub entries: u64,
    /// Bytes of them, headers included.
    pub bytes: u64,
    /// Entries that are damaged or cannot be read, oldest first; at most [`ScrubReport::ERRORS_MAX`].
    pub errors: Vec<(LogIndex, WalError)>,
    /// Whether all segments that were sealed have been read.
    pub is_complete: bool,
}

impl ScrubReport {
    /// No more are kept: a disk that fails as a whole need not be told entry by entry.
    pub const ERRORS_MAX: usize = 1024;
}

/// Where a pass is. Each [`step`](Self::step) reads one piece, so that the caller decides on the pace.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    at: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    next: LogIndex,
    /// Nothing damaged so far.
    intact: bool,
}

/// Bytes of a piece.
const PIECE_BYTES: usize = 1 << 20;

impl Scrub {
    /// Reads the next piece; `false` if there is none.
    pub(crate) fn step(&mut self, log: &RwLock<Log>, report: &mut ScrubReport) -> bool {
        let Some((file, mut place, spans)) = self.locate(log) else {
            report.is_complete = true;
            return false;
        };
        report.is_complete = false;
        if spans.is_empty() {
            file.set_scrubbed(place.intact);
            report.segments += 1;
            return true;
        }
        for span in &spans {
            place.next = span.first.plus(span.slots.len() as u64);
            let errors_before = report.errors.len();
            match reader::read(std::slice::from_ref(span), None) {
                Ok(_) => {}
                // One entry that cannot be read does not hide the others.
                Err(_) => report.errors.extend(span.singly().filter_map(|one| {
                    let error = reader::read(std::slice::from_ref(&one), None).err()?;
                    Some((one.first, error))
                })),
            }
            let damaged = report.errors.len() - errors_before;
            place.intact &= damaged == 0;
            report.entries += (span.slots.len() - damaged) as u64;
            report.bytes += span.slots.iter().map(|slot| u64::from(slot.bytes)).sum::<u64>();
            report.errors.truncate(ScrubReport::ERRORS_MAX);
        }
        self.at = Some(place);
        true
    }

    /// The oldest sealed segment that was not read to its end, and its next entries.
    fn locate(&mut self, log: &RwLock<Log>) -> Option<(Arc<SegmentFile>, Place, Vec<Span>)> {
        let log = log.read().unwrap_or_else(PoisonError::into_inner);
        let (_, sealed) = log.segments.split_last().expect("a log has a segment");
        let segment = sealed.iter().find(|segment| !segment.file.is_scrubbed())?;
        let number = segment.file.number;
        let start = Place { segment: number, next: segment.index.first, intact: true };
        let mut place = self.at.filter(|place| place.segment == number).unwrap_or(start);
        // What lies before the log's start, or was cut away meanwhile, no longer counts.
        place.next = place.next.max(log.log_start.index.next());
        let last = segment.index.last().min(log.last);
        let spans =
            if place.next > last { Vec::new() } else { log.locate(place.next, last, PIECE_BYTES).ok()? };
        Some((Arc::clone(&segment.file), place, spans))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use raft_core::{
        ClusterId, ConfState, Entry, EntryKind, HardState, LogId, Member, NodeId, Term, Timestamp, Write,
        WriteId,
    };

    use super::*;
    use crate::{Engine, Options, layout, vfs::sim::SimVfs};

    /// A segment is read in pieces. Damage in one of them is damage of the segment, whatever comes behind it.
    #[test]
    fn a_segment_with_one_damaged_piece_is_not_verified() {
        let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
        let options = Options::new(ClusterId(7), NodeId(1), founding).with_segment_bytes(4 << 20);
        let (vfs, dir) = (SimVfs::new(), Path::new("/data"));
        let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), dir, options).unwrap();
        let payload = bytes::Bytes::from(vec![7; 100 << 10]);
        let checksum = Entry::checksum_of(&payload);
        for index in 1..=100 {
            let (id, time, kind) = (LogId::new(1, index), Timestamp(1), EntryKind::Command);
            let entry = Entry { id, time, session: None, kind, checksum, payload: payload.clone() };
            let hard_state = HardState { term: Term(1), ..HardState::default() };
            let (truncate_after, snapshot, entries) = (None, None, vec![entry].into());
            engine
                .append(&Write { id: WriteId(index), hard_state, truncate_after, snapshot, entries })
                .unwrap();
            engine.flush().unwrap();
        }
        vfs.flip_bits(&dir.join(layout::segment(1)), 10_000, 1);
        let report = engine.scrub();
        assert_eq!(report.errors.len(), 1);
        assert!(report.bytes > report.entries * (100 << 10) && report.entries > 60, "{report:?}");
        let log = engine.log.read().unwrap();
        let verified: Vec<bool> = log.segments.iter().map(|segment| segment.file.is_verified()).collect();
        assert_eq!(verified, [false, true, false], "damaged, intact, not sealed");
    }
}
