use bytes::Bytes;
use raft_core::{
    ConfState, Entry, EntryKind, HardState, LogIndex, Member, SnapshotMark, Term, Timestamp, Write, WriteId,
};

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

fn append(engine: &mut Engine, index: u64, marked: Option<u64>) {
    let hard_state = HardState { term: Term(1), vote: Some(NodeId(1)), commit: LogIndex::ZERO };
    let entries = vec![entry(index)].into();
    let snapshot = marked.map(|marked| {
        let (last, conf) = (LogId::new(1, marked), options().founding);
        let meta = SnapshotMeta { last, conf, ..SnapshotMeta::default() };
        Box::new(SnapshotMark { meta, received: false, resets_log: false })
    });
    let write = Write { id: WriteId(index), hard_state, truncate_after: None, snapshot, entries };
    engine.append(&write).unwrap();
    engine.flush().unwrap();
}

fn open_with(vfs: &SimVfs, options: Options) -> Engine {
    Engine::open(Arc::new(vfs.clone()), Path::new(DIR), options).unwrap().0
}

/// A log of 20 entries in four segments.
fn log() -> SimVfs {
    let vfs = SimVfs::new();
    let mut engine = open_with(&vfs, options());
    (1..=20).for_each(|index| append(&mut engine, index, None));
    engine.close().unwrap();
    vfs
}

/// A log whose fifth segment, twice as long as the others, holds so many entries and no witness of the last.
fn with_fifth(entries: u64) -> SimVfs {
    let vfs = log();
    let mut engine = open_with(&vfs, options().with_segment_bytes(2 * SEGMENT_BYTES_MIN));
    let mut index = 21;
    while engine.stats().segments < 5 {
        append(&mut engine, index, None);
        index += 1;
    }
    (1..entries).for_each(|more| append(&mut engine, index - 1 + more, None));
    vfs
}

/// What is the tail, in which the header of the fifth segment is lost.
fn tail_without_header(vfs: &SimVfs) -> (Tail, u64, Vec<PathBuf>) {
    vfs.overwrite(&path(5), 0, &[0xAA; HEADER_BYTES]);
    let mut reader = reader(vfs);
    let (tail, _) = reader.tail(4, header(&reader, 4)).unwrap();
    (tail, reader.entries, reader.notes.into_iter().map(|note| note.path).collect())
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
    let other_batch: fn(&mut SegmentHeader) = |next| (next.previous_length, next.state.batch) = (7, 1);
    let other_end: fn(&mut SegmentHeader) =
        |next| (next.previous_length, next.state.last.index) = (7, LogIndex(1));
    assert_eq!([other_batch, other_end].map(by_records), [(true, None); 2], "more than the seal is missing");
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

#[test]
fn a_lost_header_of_the_last_segment_is_told_only_if_its_first_batch_counts() {
    for (entries, told) in [(1, vec![]), (2, vec![path(5)])] {
        let (tail, read, notes) = tail_without_header(&with_fifth(entries));
        assert!(tail.header_lost);
        assert_eq!((tail.header.number, tail.header.segment_bytes), (5, 2 * SEGMENT_BYTES_MIN));
        assert_eq!((read, notes), (entries, told));
    }
}

#[test]
fn a_first_batch_that_never_was_finished_leaves_the_segment_before_it_the_last() {
    let vfs = with_fifth(1);
    vfs.overwrite(&path(5), (HEADER_BYTES + ALIGN) as u64, &[0; 20_000]);
    let (tail, read, notes) = tail_without_header(&vfs);
    assert!(!tail.header_lost && matches!(tail.scan.ending, Ending::Sealed { next_number: 5, .. }));
    assert_eq!((tail.header.number, read, notes), (4, tail.scan.entries, vec![]));
    assert!(read > 0);
}

#[test]
fn half_a_header_before_a_first_batch_that_nothing_proves_is_no_damage() {
    let vfs = SimVfs::new();
    drop(open_with(&vfs, options()));
    let mut reader = reader(&vfs);
    reader.notes =
        [1, 2].map(|number| corruption(&path(number), 0, CorruptionKind::SegmentHeaderCopy)).into();
    reader.tail(1, header(&reader, 1)).unwrap();
    assert_eq!(reader.notes.iter().map(|note| note.path.clone()).collect::<Vec<_>>(), [path(2)]);
}

#[test]
fn a_footer_whose_seal_would_reach_behind_the_end_is_none() {
    let vfs = log();
    let reader = reader(&vfs);
    let file = vfs.open(&path(2), false).unwrap();
    let sealed = || reader.sealed(2, &*file, &path(2), SEGMENT_BYTES_MIN).unwrap();
    let Sealed { index, salt, .. } = sealed().unwrap();
    let seal_offset = SEGMENT_BYTES_MIN - TRAILER_BYTES as u64 - 8;
    let bytes = footer::encode(&index, 2, salt, seal_offset, SEGMENT_BYTES_MIN);
    vfs.overwrite(&path(2), SEGMENT_BYTES_MIN - bytes.len() as u64, &bytes);
    assert!(sealed().is_none());
}

#[test]
fn a_log_of_more_segments_than_any_has_is_refused() {
    let vfs = log();
    for (more, kind) in [(0, CorruptionKind::Missing), (1, CorruptionKind::Record)] {
        let mut reader = reader(&vfs);
        let (mut tail, file) = reader.tail(4, header(&reader, 4)).unwrap();
        tail.header.number = tail.scan.state.first_segment + u64::from(u32::MAX) + more;
        match reader.assemble(tail, file, false) {
            Err(WalError::Corrupt(corruption)) => assert_eq!(corruption.kind, kind),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_newest_mark_counts_whatever_else_was_read() {
    let vfs = SimVfs::new();
    let mut engine = open_with(&vfs, options());
    for index in 1..=20 {
        append(&mut engine, index, Some(index - 1).filter(|marked| [5, 15].contains(marked)));
    }
    engine.close().unwrap();
    for number in 1..=3 {
        vfs.overwrite(&path(number), SEGMENT_BYTES_MIN - TRAILER_BYTES as u64, &[0xAA; TRAILER_BYTES]);
    }
    let survey = surveyed(&vfs);
    assert!(survey.damage.is_none());
    assert_eq!(survey.mark.unwrap().last, LogId::new(1, 15));
}

#[test]
fn a_mark_that_would_stand_behind_the_end_of_its_segment_is_none() {
    let vfs = log();
    for at in [0, SEGMENT_BYTES_MIN - 8, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN + 8, u64::MAX] {
        let mut reader = reader(&vfs);
        let next = header(&reader, 3);
        let mut loaded = reader.load(2, &next).unwrap().unwrap();
        loaded.segment.index.mark_offset = at;
        let state = State { mark: LogId::new(1, 3), ..next.state };
        let joined = Joined::join(Path::new(DIR), &state, [(2, Some(loaded))].into());
        assert!(matches!(reader.find_mark(&state, &joined), Err(WalError::Corrupt(_))), "{at}");
    }
}
