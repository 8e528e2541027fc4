//! Whether a sealed segment is what its footer says: every record up to the seal, read in pieces, so that a log of any size
//! is checked in a cache's worth of memory. It only ever confirms; what is wrong with a segment is for `recovery` to say,
//! which reads it as a whole.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use raft_core::LogId;

use crate::{
    record::{self, Header, Record, SEAL_BYTES},
    segment::{
        header::{HEADER_BYTES, SegmentHeader},
        index::{Op, SegmentIndex, Slot},
    },
    vfs::{VfsFile, aligned, read_exact_at},
};

/// Read at once; more if one record is larger.
const PIECE_BYTES: usize = 1 << 20;

/// What a sealed segment is said to hold.
pub(crate) struct Claim<'a> {
    pub(crate) file: &'a dyn VfsFile,
    pub(crate) header: &'a SegmentHeader,
    pub(crate) seal_offset: u64,
    pub(crate) index: &'a SegmentIndex,
}

/// [`Claim::intact_entries`] of each, in their order, by up to `threads` threads: a disk answers several at once, and a
/// checksum keeps a processor as busy as the disk.
pub(crate) fn intact_entries_of_all(claims: &[Claim<'_>], threads: usize) -> Vec<io::Result<Option<u64>>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(claim) = claims.get(place) else { break };
            done.push((place, claim.intact_entries()));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        // Where no thread can be had, this one does it all.
        let helper = |_| thread::Builder::new().name("wal-check".to_owned()).spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (1..threads.min(claims.len())).filter_map(helper).collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, verdict)| verdict).collect()
}

impl Claim<'_> {
    /// How many entries the segment holds, each intact, if from its header to the seal nothing is wrong and the entries are
    /// those of the index. `None`: something does not fit.
    ///
    /// # Errors
    /// What the file system says to a read.
    fn intact_entries(&self) -> io::Result<Option<u64>> {
        let Claim { file, header, seal_offset, index } = *self;
        let stamp = header.stamp();
        let end = seal_offset + SEAL_BYTES as u64;
        let mut check = Check::new(header);
        let mut buffer = aligned(PIECE_BYTES);
        let mut at = HEADER_BYTES as u64;
        let mut wanted = PIECE_BYTES;
        while at < end {
            let rest = usize::try_from(end - at).unwrap_or(usize::MAX);
            let length = wanted.min(rest);
            if buffer.len() < length {
                buffer = aligned(length);
            }
            let piece = &mut buffer[..length];
            read_exact_at(file, piece, at)?;
            let mut position = 0;
            while let Ok(record) = record::parse(piece, at, position, &stamp)
                && position + record.padded_bytes() <= length
            {
                let here = at + position as u64;
                position += record.padded_bytes();
                if let Header::Seal { .. } = record.header {
                    let fits = here == seal_offset && check.seal(&record) && check.index == *index;
                    return Ok(fits.then_some(check.entries));
                }
                if !check.take(&record, here) {
                    return Ok(None);
                }
            }
            if position == 0 {
                // One record that is larger than the piece, or one that is damaged.
                if length == rest {
                    return Ok(None);
                }
                wanted = length * 2;
            } else {
                at += position as u64;
                wanted = PIECE_BYTES;
            }
        }
        Ok(None)
    }
}

/// What was read so far.
struct Check {
    index: SegmentIndex,
    chain: u64,
    batch: u64,
    /// Changes of the batch that is not closed yet.
    ops: Vec<Op>,
    entries: u64,
}

impl Check {
    fn new(header: &SegmentHeader) -> Check {
        let state = &header.state;
        let (index, ops) = (SegmentIndex::new(state.last.index), Vec::new());
        Check { index, chain: state.chain, batch: state.batch, ops, entries: 0 }
    }

    /// Takes a record in; `false` if it does not continue what was there.
    fn take(&mut self, record: &Record<'_>, offset: u64) -> bool {
        let fits = match record.header {
            Header::Entry { id, kind, .. } => self.entry(record, id, kind, offset),
            Header::Cut { after } => {
                self.ops.push(Op::Cut { after });
                true
            }
            Header::Mark { last, resets_log, restated: _ } => {
                self.ops.push(Op::Mark { offset });
                if resets_log {
                    self.ops.push(Op::Reset { to: last });
                }
                record.payload_is_intact() && record::decode_meta(last, record.payload).is_some()
            }
            Header::Pad => true,
            Header::Commit { state, .. } => {
                let fits = state.chain == self.chain
                    && state.batch > self.batch
                    && self.ops.drain(..).all(|op| self.index.apply(op))
                    && self.index.last() == state.last.index;
                self.batch = state.batch;
                fits
            }
            Header::Seal { .. } => false,
        };
        self.chain = record::chain(self.chain, record.header_checksum);
        fits
    }

    fn entry(&mut self, record: &Record<'_>, id: LogId, kind: raft_core::EntryKind, offset: u64) -> bool {
        let (Ok(offset), Ok(bytes)) = (u32::try_from(offset), u32::try_from(record.bytes)) else {
            return false;
        };
        self.entries += 1;
        let is_conf = kind == raft_core::EntryKind::ConfChange;
        self.ops.push(Op::Push { id, slot: Slot { offset, bytes }, is_conf });
        record.payload_is_intact()
    }

    fn seal(&self, record: &Record<'_>) -> bool {
        let Header::Seal { state, .. } = record.header else { return false };
        self.ops.is_empty() && state.chain == self.chain && state.batch == self.batch
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        record::{Encoder, State},
        segment::header::tests::header,
        vfs::{Vfs as _, sim::SimVfs},
    };

    fn record(header: Header) -> Record<'static> {
        Record { header, header_checksum: 5, payload: &[], payload_checksum: 0, bytes: 64 }
    }

    fn entry(index: u64) -> Record<'static> {
        let (id, time) = (LogId::new(1, index), raft_core::Timestamp(1));
        record(Header::Entry { id, time, session: None, kind: raft_core::EntryKind::Command })
    }

    /// A check that has seen the first entry of a new log, and the state that closes its batch.
    fn begun() -> (Check, State) {
        let mut check = Check::new(&header());
        assert!(check.take(&entry(1), 8192));
        let state = State { batch: 1, chain: check.chain, last: LogId::new(1, 1), ..State::NEW };
        (check, state)
    }

    #[test]
    fn a_batch_is_closed_by_a_state_that_continues_what_was_read() {
        let closes = |change: fn(&mut State)| {
            let (mut check, mut state) = begun();
            change(&mut state);
            check.take(&record(Header::Commit { watermark: 0, state }), 8256)
        };
        assert!(closes(|_| ()));
        assert!(!closes(|state| state.chain += 1));
        assert!(!closes(|state| state.batch = 0), "the header's own");
        assert!(!closes(|state| state.last = LogId::new(1, 2)));
        let (mut check, state) = begun();
        assert!(check.take(&entry(3), 8256), "only the end of the batch tells");
        let state = State { chain: check.chain, last: LogId::new(1, 3), ..state };
        assert!(!check.take(&record(Header::Commit { watermark: 0, state }), 8320), "2 is missing");
    }

    #[test]
    fn a_seal_closes_what_was_read_and_nothing_else() {
        let seals = |change: fn(&mut State), behind: &[Record<'_>]| {
            let (mut check, mut state) = begun();
            assert!(check.take(&record(Header::Commit { watermark: 0, state }), 8256));
            behind.iter().for_each(|record| assert!(check.take(record, 8320)));
            state.chain = check.chain;
            change(&mut state);
            check.seal(&record(Header::Seal { next_number: 4, next_salt: 1, state }))
        };
        assert!(seals(|_| (), &[]));
        assert!(!seals(|state| state.chain += 1, &[]));
        assert!(!seals(|state| state.batch += 1, &[]));
        assert!(!seals(|_| (), &[entry(2)]), "its batch is not closed");
        let (check, _) = begun();
        assert!(!check.seal(&record(Header::Pad)));
    }

    #[test]
    fn a_mark_that_cannot_be_decoded_is_none_although_its_checksum_fits() {
        let mark = Header::Mark { last: LogId::new(1, 1), resets_log: false, restated: false };
        assert!(record(mark).payload_is_intact());
        assert!(!begun().0.take(&record(mark), 8256));
    }

    #[test]
    fn a_segment_is_intact_only_with_its_seal_where_the_footer_says_and_of_the_state_before_it() {
        let intact = |moved: u64, wrong: u64| {
            let (header, mut bytes, mut chain) = (header(), header().encode(), 0);
            let stamp = header.stamp();
            let mut encoder = Encoder { buffer: &mut bytes, base: 0, stamp, chain: &mut chain };
            encoder.cut(raft_core::LogIndex::ZERO);
            let state = encoder.commit(0, State { batch: 1, ..header.state });
            encoder.seal(4, 77, State { batch: 1 + wrong, ..state });
            let seal_offset = (bytes.len() - SEAL_BYTES) as u64 + moved;
            bytes.resize(64 << 10, 0);
            let vfs = SimVfs::new();
            vfs.create_dir_all(Path::new("/")).unwrap();
            let file = vfs.create(Path::new("/segment")).unwrap();
            file.write_at(&bytes, 0).unwrap();
            let index = SegmentIndex::new(header.state.last.index);
            Claim { file: &*file, header: &header, seal_offset, index: &index }.intact_entries().unwrap()
        };
        assert_eq!(intact(0, 0), Some(0));
        assert_eq!((intact(8, 0), intact(0, 1)), (None, None));
    }
}
