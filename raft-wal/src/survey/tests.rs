use bytes::Bytes;
use raft_core::{ConfState, Entry, EntryKind, HardState, LogIndex, Member, Term, Timestamp, Write, WriteId};

use super::*;
use crate::{Engine, Options, SEGMENT_BYTES_MIN, segment::footer, vfs::sim::SimVfs};

const DIR: &str = "/";

fn entry(index: u64) -> Entry {
    let payload = Bytes::from(vec![u8::try_from(index).unwrap(); 9000]);
    let checksum = Entry::checksum_of(&payload);
    let (id, time) = (LogId::new(1, index), Timestamp(index));
    Entry { id, time, session: None, kind: EntryKind::Command, checksum, payload }
}

fn options() -> Options {
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    Options::new(ClusterId(7), NodeId(1), founding).with_segment_bytes(SEGMENT_BYTES_MIN)
}

/// A log of 20 entries in four segments.
fn log() -> SimVfs {
    let vfs = SimVfs::new();
    let (mut engine, _) = Engine::open(Arc::new(vfs.clone()), Path::new(DIR), options()).unwrap();
    for index in 1..=20 {
        let hard_state = HardState { term: Term(1), vote: Some(NodeId(1)), commit: LogIndex::ZERO };
        let entries = vec![entry(index)].into();
        let write = Write { id: WriteId(index), hard_state, truncate_after: None, snapshot: None, entries };
        engine.append(&write).unwrap();
        engine.flush().unwrap();
    }
    engine.close().unwrap();
    vfs
}

fn reader(vfs: &SimVfs) -> Reader<'_> {
    let dir = Path::new(DIR);
    let names = Names::list(vfs, dir).unwrap();
    let (headers, notes, lost_headers) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut reader = Reader { vfs, dir, write: false, names, headers, notes, lost_headers, entries: 0 };
    reader.read_headers(None).unwrap();
    reader
}

fn header(reader: &Reader<'_>, number: u64) -> SegmentHeader {
    match reader.headers.get(&number) {
        Some(Found::Live { header, .. }) => *header,
        other => panic!("{other:?}"),
    }
}

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(layout::segment(number))
}

/// Ways in which a header is not that of the segment behind another.
const OTHERS: [fn(&mut SegmentHeader); 4] = [
    |header| header.number += 1,
    |header| header.salt ^= 1,
    |header| header.previous_length += 8,
    |header| header.state.batch += 1,
];

#[test]
fn a_footer_counts_only_if_the_next_header_continues_its_seal() {
    let vfs = log();
    let reader = reader(&vfs);
    let file = vfs.open(&path(2), false).unwrap();
    let by_footer = |next: &SegmentHeader| {
        reader.by_footer(2, &*file, &path(2), SEGMENT_BYTES_MIN, next).unwrap().is_some()
    };
    let next = header(&reader, 3);
    assert!(by_footer(&next));
    for change in OTHERS {
        let mut other = next;
        change(&mut other);
        assert!(!by_footer(&other), "{other:?}");
    }
    assert!(!by_footer(&SegmentHeader { repair: true, ..next }));
}

#[test]
fn a_footer_of_another_segment_is_none() {
    let vfs = log();
    let mut reader = reader(&vfs);
    let file = vfs.open(&path(2), false).unwrap();
    let sealed = |reader: &Reader<'_>, number| {
        reader.sealed(number, &*file, &path(2), SEGMENT_BYTES_MIN).unwrap().is_some()
    };
    assert!(sealed(&reader, 2));
    let own = header(&reader, 2);
    reader.headers.insert(2, Found::Live { header: SegmentHeader { salt: 1, ..own }, unfit: None });
    assert!(!sealed(&reader, 2), "the header has another salt");
    reader.headers.clear();
    assert!(sealed(&reader, 2) && !sealed(&reader, 3), "the number is another");
}

/// Whether segment 2, read record by record, has a hole, and where its note stands.
fn by_records(change: fn(&mut SegmentHeader)) -> (bool, Option<u64>) {
    let vfs = log();
    let mut reader = reader(&vfs);
    let own = header(&reader, 2);
    let mut next = header(&reader, 3);
    let last = next.state.last.index;
    change(&mut next);
    let file = vfs.open(&path(2), false).unwrap();
    let file = SegmentFile::new(2, path(2), file, own.stamp(), SEGMENT_BYTES_MIN);
    let loaded = reader.by_records(file, own, &next).unwrap();
    assert_eq!(loaded.segment.index.last(), last);
    (loaded.hole.is_some(), reader.notes.first().map(|note| note.offset))
}

#[test]
fn records_that_the_next_header_continues_lack_their_footer_and_others_their_seal() {
    let vfs = log();
    let end = header(&reader(&vfs), 3).previous_length;
    let trailer = SEGMENT_BYTES_MIN - TRAILER_BYTES as u64;
    assert_eq!(by_records(|_| ()), (false, Some(trailer)));
    assert_eq!(by_records(|next| next.number += 1), (false, Some(end)));
    assert_eq!(by_records(|next| next.previous_length += 8), (false, Some(end)));
    assert_eq!(by_records(|next| next.repair = true), (false, None), "a repair may have cut the seal");
}

#[test]
fn a_header_that_follows_from_the_seal_before_is_no_repairs() {
    let vfs = log();
    let reader = reader(&vfs);
    let next = header(&reader, 3);
    let like = SegmentHeader { repair: true, segment_bytes: 7, ..next };
    let made = reader.header_by_seal_before(3, SEGMENT_BYTES_MIN, &like).unwrap();
    assert_eq!(made, Some(next));
    assert_eq!(reader.header_by_seal_before(1, SEGMENT_BYTES_MIN, &like).unwrap(), None);
}

#[test]
fn a_segment_whose_header_only_its_footer_tells_has_the_length_of_its_file() {
    let vfs = log();
    let mut reader = reader(&vfs);
    reader.headers.remove(&1);
    let next = SegmentHeader { segment_bytes: 4 * SEGMENT_BYTES_MIN, ..header(&reader, 2) };
    let loaded = reader.load(1, &next).unwrap().unwrap();
    assert_eq!((loaded.header.number, loaded.header.segment_bytes), (1, SEGMENT_BYTES_MIN));
    assert_eq!(loaded.taken_to, None, "there is nothing to check its first record with");
}

/// Has the footer of `number` tell one entry longer than it is, all checksums made to fit.
fn let_footer_lie(vfs: &SimVfs, number: u64) {
    let reader = reader(vfs);
    let file = vfs.open(&path(number), false).unwrap();
    let sealed = reader.sealed(number, &*file, &path(number), SEGMENT_BYTES_MIN).unwrap().unwrap();
    let mut index = sealed.index;
    index.slots[0].bytes += 8;
    let bytes = footer::encode(&index, number, sealed.salt, sealed.seal_offset, SEGMENT_BYTES_MIN);
    vfs.overwrite(&path(number), SEGMENT_BYTES_MIN - bytes.len() as u64, &bytes);
}

fn destroy(vfs: &SimVfs, number: u64) {
    vfs.overwrite(&path(number), 0, &[0xAA; HEADER_BYTES]);
    vfs.overwrite(&path(number), SEGMENT_BYTES_MIN - TRAILER_BYTES as u64, &[0xAA; TRAILER_BYTES]);
}

fn surveyed(vfs: &SimVfs) -> Survey {
    let dir = Path::new(DIR);
    survey(vfs, dir, Names::list(vfs, dir).unwrap(), None, true, false).unwrap().unwrap()
}

#[test]
fn a_footer_that_lies_costs_nothing_but_a_note() {
    let vfs = log();
    let_footer_lie(&vfs, 2);
    let survey = surveyed(&vfs);
    assert!(survey.damage.is_none());
    let trailer = SEGMENT_BYTES_MIN - TRAILER_BYTES as u64;
    let notes: Vec<_> = survey.notes.iter().map(|note| (note.path.clone(), note.offset)).collect();
    assert_eq!(notes, [(path(2), trailer)]);
}

#[test]
fn a_segment_that_cannot_be_read_at_all_is_to_blame_for_what_is_lost_and_no_other() {
    let vfs = log();
    let first = header(&reader(&vfs), 3).state.last.index.next();
    destroy(&vfs, 3);
    // With a seal before it, its header would be made again from that.
    vfs.overwrite(&path(2), SEGMENT_BYTES_MIN - TRAILER_BYTES as u64, &[0xAA; TRAILER_BYTES]);
    let damage = surveyed(&vfs).damage.unwrap();
    assert_eq!((damage.first, damage.corruption.path), (first, path(3)));
}

#[test]
fn a_log_that_begins_behind_its_last_segment_is_refused() {
    let vfs = log();
    let mut reader = reader(&vfs);
    let (mut tail, file) = reader.tail(4, header(&reader, 4)).unwrap();
    tail.scan.state.first_segment = 5;
    assert!(matches!(reader.assemble(tail, file, false), Err(WalError::Corrupt(_))));
}

#[test]
fn zeroes_are_nothing_else() {
    for length in [0, 1, 4095, 4096, 4097, 9000] {
        let mut bytes = vec![0; length];
        assert!(is_zero(&bytes), "{length}");
        if let Some(last) = bytes.last_mut() {
            *last = 1;
            assert!(!is_zero(&bytes), "{length}");
        }
    }
}

#[test]
fn a_file_system_that_says_nothing_of_it_reads_alone_and_maps_nothing() {
    let vfs = log();
    assert_eq!(vfs.readers(), 1);
    assert!(vfs.open(&path(1), false).unwrap().map().unwrap().is_none());
}
