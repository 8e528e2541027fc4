//! The table, row by row, on segments built by hand.

use bytes::Bytes;
use raft_core::{Entry, EntryKind, HardState, Term, Timestamp};

use super::*;
use crate::{record::Encoder, segment::header::tests::header};

/// A segment of 64 KiB in the making.
struct Built {
    header: SegmentHeader,
    bytes: Vec<u8>,
    chain: u64,
    state: State,
    /// Where each batch begins.
    starts: Vec<usize>,
}

fn entry(index: u64) -> Entry {
    let payload = Bytes::from(vec![u8::try_from(index).unwrap(); 600]);
    Entry {
        id: LogId::new(1, index),
        time: Timestamp(index),
        session: None,
        kind: EntryKind::Command,
        checksum: Entry::checksum_of(&payload),
        payload,
    }
}

impl Built {
    /// Batches of one entry each; batch n holds entry n.
    fn with(batches: u64) -> Built {
        let header = header();
        let bytes = header.encode();
        let mut built = Built { header, bytes, chain: 0, state: header.state, starts: Vec::new() };
        for index in 1..=batches {
            built.starts.push(built.bytes.len());
            built.batch(|encoder, state| {
                encoder.entry(&entry(index));
                state.last = LogId::new(1, index);
            });
        }
        built
    }

    fn encoder(&mut self) -> Encoder<'_> {
        let stamp = self.header.stamp();
        Encoder { buffer: &mut self.bytes, base: 0, stamp, chain: &mut self.chain }
    }

    fn batch(&mut self, records: impl FnOnce(&mut Encoder<'_>, &mut State)) {
        let mut state = self.state;
        records(&mut self.encoder(), &mut state);
        state.batch += 1;
        state.hard_state = HardState { term: Term(state.batch), ..HardState::default() };
        let watermark = self.state.batch;
        self.state = self.encoder().commit(watermark, state);
    }

    fn seal(&mut self) {
        let state = self.state;
        self.encoder().seal(4, 77, state);
    }

    fn scan(&self) -> Scan {
        self.scan_with(None)
    }

    fn scan_with(&self, next: Option<&State>) -> Scan {
        let mut bytes = self.bytes.clone();
        bytes.resize(64 << 10, 0);
        scan(&bytes, &self.header, next)
    }

    fn last_of(scan: &Scan) -> u64 {
        scan.index.last().0
    }
}

fn hole(scan: &Scan) -> Hole {
    match scan.ending {
        Ending::Damaged(hole) => hole,
        Ending::Sealed { .. } | Ending::Clean | Ending::Torn { .. } => panic!("{:?}", scan.ending),
    }
}

#[test]
fn a_seal_ends_a_segment() {
    let mut built = Built::with(3);
    built.seal();
    let scan = built.scan();
    assert!(matches!(scan.ending, Ending::Sealed { next_number: 4, next_salt: 77, .. }));
    assert_eq!((Built::last_of(&scan), scan.end), (3, built.bytes.len() as u64));
}

#[test]
fn nothing_behind_the_last_batch_is_clean() {
    let built = Built::with(3);
    let scan = built.scan();
    assert_eq!(scan.ending, Ending::Clean);
    assert_eq!(scan.state, built.state);
    assert_eq!(scan.rewrite_from, built.starts[2] as u64, "nothing witnesses the last batch");
    assert_eq!(Built::with(0).scan().ending, Ending::Clean);
}

/// Bytes made to fit every checksum of their own: what contradicts the batches before is not believed all the same.
#[test]
fn a_commit_record_that_continues_the_chain_or_the_count_alone_closes_no_batch() {
    for (chain, back) in [(1, 0), (0, 1)] {
        let mut built = Built::with(3);
        let end = built.bytes.len();
        built.encoder().entry(&entry(4));
        let mut state = State { last: LogId::new(1, 4), ..built.state };
        state.batch += 1 - back;
        built.chain ^= chain;
        built.encoder().commit(3, state);
        let scan = built.scan();
        assert_eq!((scan.closed, Built::last_of(&scan), scan.end), (3, 3, end as u64), "{chain} {back}");
        assert!(matches!(scan.ending, Ending::Torn { .. }), "{chain} {back}: {:?}", scan.ending);
    }
}

#[test]
fn a_seal_that_does_not_continue_the_last_batch_seals_nothing() {
    let harms: [fn(&mut Built); 3] = [
        |built| built.chain ^= 1,
        |built| {
            built.encoder().entry(&entry(4));
        },
        |built| built.state.batch -= 1,
    ];
    for (which, harm) in harms.into_iter().enumerate() {
        let mut built = Built::with(3);
        let end = built.bytes.len();
        harm(&mut built);
        built.seal();
        let scan = built.scan();
        assert_eq!((scan.closed, scan.end), (3, end as u64), "{which}");
        assert!(matches!(scan.ending, Ending::Torn { .. }), "{which}: {:?}", scan.ending);
    }
}

#[test]
fn a_former_life_of_the_file_is_clean() {
    let mut former = Built::with(5);
    let built = Built::with(2);
    former.header.salt += 1;
    // The same records under another salt, behind the end of the new ones.
    let mut other = Built { bytes: former.header.encode(), starts: Vec::new(), chain: 0, ..former };
    for index in 1..=5 {
        other.batch(|encoder, state| {
            encoder.entry(&entry(index));
            state.last = LogId::new(1, index);
        });
    }
    let end = built.bytes.len();
    let mut bytes = other.bytes.clone();
    bytes[..end].copy_from_slice(&built.bytes);
    bytes.resize(64 << 10, 0);
    let scan = scan(&bytes, &built.header, None);
    assert_eq!((scan.ending, Built::last_of(&scan)), (Ending::Clean, 2));
}

#[test]
fn a_batch_without_its_commit_record_is_torn() {
    for cut in 1..40 {
        let mut built = Built::with(3);
        let end = built.bytes.len() - cut * 8;
        built.bytes.truncate(end);
        let scan = built.scan();
        assert!(matches!(scan.ending, Ending::Torn { .. }), "{cut}");
        assert_eq!((Built::last_of(&scan), scan.end), (2, built.starts[2] as u64));
    }
}

#[test]
fn what_the_next_tag_would_revive_is_torn() {
    for sealed in [true, false] {
        let mut built = Built::with(2);
        let (end, batch) = (built.bytes.len(), built.state.batch);
        if sealed {
            built.seal();
        } else {
            built.batch(|_, _| ());
        }
        let whole = built.bytes.len();
        built.bytes[end..end + 8].fill(0);
        let scan = built.scan();
        assert_eq!(scan.ending, Ending::Torn { to: whole as u64 }, "sealed: {sealed}");
        assert_eq!((scan.end, scan.state.batch), (end as u64, batch));
        // Without the next eight bytes, its checksum among them, no tag can bring it back.
        built.bytes[end + 8..end + 16].fill(0);
        assert_eq!(built.scan().ending, Ending::Clean);
    }
}

#[test]
fn a_batch_that_lost_a_sector_is_torn_and_traces_behind_it_are_found() {
    let mut built = Built::with(2);
    let start = built.bytes.len();
    built.batch(|encoder, state| {
        for index in 3..=6 {
            encoder.entry(&entry(index));
            state.last = LogId::new(1, index);
        }
    });
    for sector in start.div_ceil(512)..built.bytes.len() / 512 {
        let mut built = Built { bytes: built.bytes.clone(), starts: Vec::new(), ..built };
        built.bytes[sector * 512..][..512].fill(0);
        let scan = built.scan();
        let Ending::Torn { to } = scan.ending else { panic!("{sector}: {:?}", scan.ending) };
        assert_eq!((Built::last_of(&scan), scan.end), (2, start as u64));
        assert!(to > start as u64 && to <= built.bytes.len() as u64);
    }
}

#[test]
fn a_bad_header_in_a_witnessed_batch_is_damage() {
    let mut built = Built::with(4);
    let at = built.starts[1] + 20;
    built.bytes[at] ^= 4;
    let scan = built.scan();
    assert_eq!(hole(&scan).kind, CorruptionKind::RecordHeader);
    assert_eq!(Built::last_of(&scan), 1);
    assert_eq!(scan.state, built.state, "term, vote and promise come from the newest commit record");
}

#[test]
fn a_bad_payload_in_a_witnessed_batch_is_damage_of_that_entry() {
    let mut built = Built::with(4);
    let at = built.starts[1] + 100;
    built.bytes[at] ^= 4;
    let scan = built.scan();
    assert_eq!(hole(&scan).kind, CorruptionKind::Payload(LogId::new(1, 2)));
    assert_eq!(hole(&scan).last, Some(LogIndex(2)));
    assert_eq!(Built::last_of(&scan), 1);
}

#[test]
fn a_bad_payload_in_the_last_batch_is_torn_as_long_as_nothing_witnesses_it() {
    let mut built = Built::with(4);
    let at = built.starts[3] + 100;
    built.bytes[at] ^= 4;
    let scan = built.scan();
    assert!(matches!(scan.ending, Ending::Torn { .. }));
    assert_eq!((Built::last_of(&scan), scan.end), (3, built.starts[3] as u64));
    // With a witness in the next block it is damage.
    built.batch(|encoder, _| encoder.pad_to(4096));
    assert_eq!(hole(&built.scan()).kind, CorruptionKind::Payload(LogId::new(1, 4)));
}

#[test]
fn the_seal_and_the_next_segment_witness_everything() {
    let mut built = Built::with(3);
    let at = built.starts[2] + 20;
    let state = built.state;
    built.bytes[at] ^= 1;
    assert!(matches!(built.scan().ending, Ending::Torn { .. }));
    assert_eq!(hole(&built.scan_with(Some(&state))).kind, CorruptionKind::RecordHeader);
    built.seal();
    assert_eq!(Built::last_of(&built.scan()), 2);
    hole(&built.scan());
}

#[test]
fn a_zeroed_stretch_before_a_witness_is_damage_even_without_a_tag() {
    let mut built = Built::with(4);
    let (from, to) = (built.starts[1], built.starts[2]);
    built.bytes[from..to].fill(0);
    let scan = built.scan();
    hole(&scan);
    assert_eq!((Built::last_of(&scan), scan.state.last), (1, LogId::new(1, 4)));
}

#[test]
fn a_cut_among_what_is_lost_limits_what_is_believed() {
    let mut built = Built::with(5);
    let start = built.bytes.len();
    built.batch(|encoder, state| {
        encoder.cut(LogIndex(2));
        (state.cuts, state.cut_min) = (1, LogIndex(2));
        state.last = LogId::new(1, 2);
    });
    built.batch(|_, _| {});
    built.bytes[start + 16] ^= 1;
    let scan = built.scan();
    hole(&scan);
    assert_eq!(Built::last_of(&scan), 2);
}

#[test]
fn a_damaged_entry_that_was_cut_later_is_no_damage() {
    let mut built = Built::with(5);
    let at = built.starts[3] + 100;
    built.bytes[at] ^= 1;
    built.batch(|encoder, state| {
        encoder.cut(LogIndex(3));
        (state.cuts, state.cut_min) = (1, LogIndex(3));
        state.last = LogId::new(1, 3);
    });
    built.batch(|_, _| {});
    let scan = built.scan();
    assert_eq!((scan.ending, Built::last_of(&scan)), (Ending::Clean, 3));
}

#[test]
fn no_prefix_and_no_garbage_makes_the_scan_panic() {
    let mut built = Built::with(3);
    built.seal();
    for end in HEADER_BYTES..built.bytes.len() {
        let _ = scan(&built.bytes[..end], &built.header, None);
    }
    let mut random = 1_u64;
    for _ in 0..2000 {
        let mut bytes = built.bytes.clone();
        for _ in 0..4 {
            random = record::mix(random.wrapping_add(0x9e37));
            let at = HEADER_BYTES + usize::try_from(random % 3000).unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.to_le_bytes()[7];
            }
        }
        let _ = scan(&bytes, &built.header, None);
    }
}

#[test]
fn a_batch_whose_entries_are_not_those_its_state_counts_is_damage() {
    // One entry more than there is, and one that is missing in front of one more.
    for (index, last) in [(4, 5), (5, 3)] {
        let mut built = Built::with(3);
        let start = built.bytes.len() as u64;
        built.batch(|encoder, state| {
            encoder.entry(&entry(index));
            state.last = LogId::new(1, last);
        });
        let scan = built.scan();
        assert_eq!((hole(&scan).offset, hole(&scan).kind), (start, CorruptionKind::Record), "{index} {last}");
        assert_eq!(scan.closed, 4);
    }
}
