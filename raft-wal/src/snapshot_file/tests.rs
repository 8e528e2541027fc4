use std::io::{Read as _, Write as _};

use raft_core::{ConfState, Incarnation, Member, NodeId, Timestamp};

use super::{
    format::{CHUNK_BYTES, Trailer},
    *,
};
use crate::vfs::{
    OsVfs,
    sim::{Call, Fault, SimVfs},
};

const CLUSTER: ClusterId = ClusterId(77);

fn meta(index: u64) -> SnapshotMeta {
    let member = Member { incarnation: Incarnation(7), address: "host:7402".to_owned() };
    let conf = ConfState {
        voters: [NodeId(3)].into(),
        members: [(NodeId(3), member)].into(),
        ..ConfState::default()
    };
    SnapshotMeta { last: LogId::new(2, index), time: Timestamp(9), conf, conf_id: LogId::new(1, 1) }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

fn write(dir: &Path, index: u64, content: &[u8]) -> SnapshotInfo {
    let mut writer = SnapshotWriter::create(Arc::new(OsVfs), dir, CLUSTER, &meta(index)).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn read_all(dir: &Path, index: u64) -> Vec<u8> {
    let mut reader = SnapshotReader::open(&OsVfs, dir, CLUSTER, LogId::new(2, index)).unwrap();
    assert_eq!(*reader.meta(), meta(index));
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    out
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        OsVfs.list(dir).unwrap().iter().map(|entry| entry.name.display().to_string()).collect();
    names.sort();
    names
}

/// The error of whoever reads these bytes as the snapshot up to 5, if there is one.
fn refused(dir: &Path, bytes: &[u8]) -> Option<SnapshotFileError> {
    let path = dir.join(layout::snapshot(LogId::new(2, 5)));
    let _ = OsVfs.remove(&path);
    OsVfs.create(&path).unwrap().write_at(bytes, 0).unwrap();
    verify(&OsVfs, dir, CLUSTER, LogId::new(2, 5)).err()
}

fn file_bytes(dir: &Path, index: u64) -> Vec<u8> {
    let source = SnapshotSource::open(&OsVfs, dir, CLUSTER, LogId::new(2, index)).unwrap();
    source.read_at(0, usize::MAX).unwrap().to_vec()
}

#[test]
fn content_of_any_size_survives() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17] {
        let info = write(dir.path(), 5, &content(size));
        assert_eq!(info.content_bytes, size as u64);
        assert_eq!(read_all(dir.path(), 5), content(size), "{size} bytes");
        assert_eq!(verify(&OsVfs, dir.path(), CLUSTER, LogId::new(2, 5)).unwrap(), info);
    }
    assert_eq!(names(dir.path()), [layout::snapshot(LogId::new(2, 5))]);
}

/// The errors of a snapshot written once with this fault at each change of the disk.
fn failures(fault: Fault) -> Vec<SnapshotFileError> {
    let dir = Path::new("/data");
    let mut errors = Vec::new();
    loop {
        let vfs = SimVfs::new();
        vfs.create_dir_all(dir).unwrap();
        vfs.fail_change(errors.len() as u64 + 1, fault);
        let written =
            SnapshotWriter::create(Arc::new(vfs.clone()), dir, CLUSTER, &meta(5)).and_then(|mut writer| {
                let told = writer.write_all(&content(CHUNK_BYTES + 9));
                told.map_err(|error| SnapshotFileError::from_io(&error).unwrap().clone())?;
                writer.finish()
            });
        match written {
            Ok(_) => return errors,
            Err(error) => errors.push(error),
        }
    }
}

/// A sync of the directory that fails may take with it the name of a segment made meanwhile.
#[test]
fn a_disk_that_fails_is_told_apart_from_a_full_one() {
    let final_ones =
        |fault| failures(fault).iter().map(SnapshotFileError::is_disk_failure).collect::<Vec<_>>();
    // Remove what was left over, create; header, two chunks, trailer, sync, rename, sync the names.
    let (soft, hard) = (false, true);
    assert_eq!(final_ones(Fault::Error), [soft, soft, hard, hard, hard, hard, hard, hard, hard]);
    assert_eq!(final_ones(Fault::NoSpace), [soft, soft, soft, soft, soft, soft, soft, soft, hard]);
}

#[test]
fn an_unfinished_snapshot_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(Arc::new(OsVfs), dir.path(), CLUSTER, &meta(5)).unwrap();
    writer.write_all(b"half").unwrap();
    drop(writer);
    assert!(names(dir.path()).is_empty());
    let missing = SnapshotReader::open(&OsVfs, dir.path(), CLUSTER, LogId::new(2, 5)).unwrap_err();
    assert!(matches!(missing, SnapshotFileError::NotFound { .. }));
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &content(300));
    let bytes = file_bytes(dir.path(), 5);
    assert!(refused(dir.path(), &bytes).is_none());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(dir.path(), &damaged).is_some(), "bit {bit} went unnoticed");
    }
}

// Whole chunks that are missing or changed places leave every other checksum as it is.
#[test]
fn a_file_that_lost_a_chunk_is_refused_whatever_its_end_says() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &content(2 * CHUNK_BYTES));
    let whole = file_bytes(dir.path(), 5);
    let chunk = CHUNK_BYTES + format::CHUNK_HEADER_BYTES;
    let end = whole.len() - format::TRAILER_BYTES;
    let header = whole.len() - 2 * chunk - format::TRAILER_BYTES;
    let header_checksum = u32::from_le_bytes(*whole[..header].last_chunk().unwrap());
    let trailer = format::decode_trailer(header_checksum, whole[end..].first_chunk().unwrap()).unwrap();
    let with = |kept: &[u8], trailer: &format::Trailer| {
        [kept, &format::encode_trailer(header_checksum, trailer)[..]].concat()
    };
    let of_kind = |bytes: &[u8], kind: SnapshotDamage| {
        let error = refused(dir.path(), bytes).unwrap();
        assert!(
            matches!(&error, SnapshotFileError::Damaged { kind: found, .. } if *found == kind),
            "{error:?}"
        );
    };
    assert!(refused(dir.path(), &with(&whole[..end], &trailer)).is_none());
    let file_bytes = (whole.len() - chunk) as u64;
    let shorter = format::Trailer { file_bytes, ..trailer };
    of_kind(&with(&whole[..end - chunk], &shorter), SnapshotDamage::Trailer);
    let forged = format::Trailer { content_bytes: CHUNK_BYTES as u64, ..shorter };
    of_kind(&with(&whole[..end - chunk], &forged), SnapshotDamage::File);
}

#[test]
fn every_prefix_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &content(300));
    let bytes = file_bytes(dir.path(), 5);
    for end in 0..bytes.len() {
        assert!(refused(dir.path(), &bytes[..end]).is_some(), "a prefix of {end} bytes was taken");
    }
    assert!(refused(dir.path(), &[bytes, vec![0]].concat()).is_some());
}

#[test]
fn swapped_chunks_are_found() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &content(2 * CHUNK_BYTES));
    let mut bytes = file_bytes(dir.path(), 5);
    let chunk = CHUNK_BYTES + format::CHUNK_HEADER_BYTES;
    let start = bytes.len() - format::TRAILER_BYTES - 2 * chunk;
    bytes[start..start + 2 * chunk].rotate_left(chunk);
    let error = refused(dir.path(), &bytes).unwrap();
    let SnapshotFileError::Damaged { offset, kind: SnapshotDamage::Chunk, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(offset, start as u64);
}

#[test]
fn a_reader_tells_damage_through_io_and_hands_out_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &content(2 * CHUNK_BYTES));
    let mut bytes = file_bytes(dir.path(), 5);
    let end = bytes.len() - format::TRAILER_BYTES - 1;
    bytes[end] ^= 1;
    refused(dir.path(), &bytes);
    let mut reader = SnapshotReader::open(&OsVfs, dir.path(), CLUSTER, LogId::new(2, 5)).unwrap();
    let mut out = Vec::new();
    let error = reader.read_to_end(&mut out).unwrap_err();
    assert_eq!(out.len(), CHUNK_BYTES);
    assert!(matches!(SnapshotFileError::from_io(&error), Some(SnapshotFileError::Damaged { .. })));
    assert!(reader.read(&mut [0; 8]).is_err(), "a second read went on");
}

#[test]
fn other_clusters_names_and_versions_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, b"x");
    let last = LogId::new(2, 5);
    let foreign = SnapshotReader::open(&OsVfs, dir.path(), ClusterId(1), last).unwrap_err();
    assert!(matches!(foreign, SnapshotFileError::Foreign { found: CLUSTER, .. }));

    let other = LogId::new(2, 6);
    OsVfs
        .rename(&dir.path().join(layout::snapshot(last)), &dir.path().join(layout::snapshot(other)))
        .unwrap();
    let renamed = SnapshotReader::open(&OsVfs, dir.path(), CLUSTER, other).unwrap_err();
    assert!(matches!(renamed, SnapshotFileError::Damaged { kind: SnapshotDamage::WrongSnapshot { .. }, .. }));

    write(dir.path(), 5, b"x");
    let mut bytes = file_bytes(dir.path(), 5);
    bytes[8] = 2;
    let newer = refused(dir.path(), &bytes).unwrap();
    assert!(matches!(newer, SnapshotFileError::NewerFormat { version: 2, known: 1, .. }));
}

#[test]
fn a_snapshot_travels_and_resumes() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let info = write(here.path(), 5, &content(600));
    let source = SnapshotSource::open(&OsVfs, here.path(), CLUSTER, LogId::new(2, 5)).unwrap();
    let resume = || SnapshotReceiver::resume(&OsVfs, there.path(), CLUSTER, LogId::new(2, 5)).unwrap();

    let mut receiver = resume();
    receiver.write(0, &source.read_at(0, 100).unwrap()).unwrap();
    let skipped = receiver.write(200, &source.read_at(200, 100).unwrap()).unwrap_err();
    assert!(matches!(skipped, SnapshotFileError::WrongOffset { offset: 200, expected: 100 }));

    receiver = resume();
    while receiver.next_offset() < source.info().file_bytes {
        let piece = source.read_at(receiver.next_offset(), 128).unwrap();
        receiver.write(receiver.next_offset(), &piece).unwrap();
    }
    assert_eq!(receiver.finish().unwrap(), info);
    assert_eq!(names(there.path()), [layout::snapshot_received(LogId::new(2, 5))]);
}

#[test]
fn a_received_snapshot_with_a_piece_damaged_or_missing_is_refused() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(here.path(), 5, &content(600));
    let bytes = file_bytes(here.path(), 5);
    let receive = |bytes: &[u8]| {
        let mut receiver = SnapshotReceiver::create(&OsVfs, there.path(), CLUSTER, LogId::new(2, 5)).unwrap();
        receiver.write(0, bytes).unwrap();
        receiver.finish()
    };
    assert!(receive(&bytes).is_ok());
    assert!(receive(&bytes[..bytes.len() - 1]).is_err());
    let mut damaged = bytes;
    damaged[400] ^= 4;
    assert!(receive(&damaged).is_err());
}

#[test]
fn only_older_snapshots_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    for index in [3, 5, 9] {
        write(dir.path(), index, b"x");
    }
    assert_eq!(remove_older(&OsVfs, dir.path(), LogId::new(2, 5)).unwrap(), 1);
    assert_eq!(list(&OsVfs, dir.path()).unwrap(), [LogId::new(2, 5), LogId::new(2, 9)]);
    assert_eq!(remove_older(&OsVfs, dir.path(), LogId::new(2, 5)).unwrap(), 0);
}

#[test]
fn a_removal_is_durable_and_one_of_nothing_costs_no_sync() {
    let (vfs, dir) = (SimVfs::new(), Path::new("/data"));
    vfs.create_dir_all(dir).unwrap();
    for index in [3, 5] {
        SnapshotWriter::create(Arc::new(vfs.clone()), dir, CLUSTER, &meta(index)).unwrap().finish().unwrap();
    }
    for (removed, syncs) in [(1, 1), (0, 0)] {
        let before = vfs.calls(Call::SyncDir);
        assert_eq!(remove_older(&vfs, dir, LogId::new(2, 5)).unwrap(), removed);
        assert_eq!(vfs.calls(Call::SyncDir) - before, syncs);
    }
}

#[test]
fn a_configuration_that_is_not_valid_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let meta = SnapshotMeta::default();
    let error = SnapshotWriter::create(Arc::new(OsVfs), dir.path(), CLUSTER, &meta).unwrap_err();
    assert!(matches!(error, SnapshotFileError::BadConfiguration(_)));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_header_is_as_long_as_its_configuration_makes_it_and_says_so() {
    let header = format::encode_header(CLUSTER, &meta(5));
    let conf = meta(5).conf.encode().len();
    assert_eq!(header.len(), (format::HEADER_FIXED_BYTES + conf).next_multiple_of(8) + 8);
    let fits = |length: usize| {
        let mut start = header[..format::HEADER_FIXED_BYTES].to_vec();
        start[12..16].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        format::header_length(Path::new("x"), &start).is_ok()
    };
    let (least, most) = (format::HEADER_FIXED_BYTES + 8, format::HEADER_BYTES_MAX / 8 * 8);
    assert!(fits(header.len()) && fits(least) && fits(most));
    assert!(!fits(least - 8) && !fits(most + 8) && !fits(least + 1) && !fits(least + 4));
}

#[test]
fn a_trailer_of_another_snapshot_or_of_something_else_does_not_fit() {
    let trailer = Trailer { content_bytes: 1, file_bytes: 200, checksum: 3 };
    let bytes = format::encode_trailer(77, &trailer);
    assert!(format::decode_trailer(77, &bytes).is_some());
    assert!(format::decode_trailer(78, &bytes).is_none());
    let mut other = bytes;
    other[0] = 0;
    let checksum = crc32fast::hash(&other[..28]);
    other[28..].copy_from_slice(&checksum.to_le_bytes());
    assert!(format::decode_trailer(77, &other).is_none());
}

/// What is said of a snapshot with these bytes between its header and a trailer that fits.
fn between(dir: &Path, bytes: &[u8]) -> Option<SnapshotDamage> {
    let mut file = format::encode_header(CLUSTER, &meta(5));
    let header_checksum = u32::from_le_bytes(*file.last_chunk().unwrap());
    file.extend_from_slice(bytes);
    let file_bytes = (file.len() + format::TRAILER_BYTES) as u64;
    let trailer = Trailer { content_bytes: 0, file_bytes, checksum: crc32fast::hash(&file) };
    file.extend(format::encode_trailer(header_checksum, &trailer));
    refused(dir, &file).map(|error| {
        let SnapshotFileError::Damaged { kind, .. } = error else { panic!("{error:?}") };
        kind
    })
}

#[test]
fn chunks_end_where_the_trailer_begins() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(between(dir.path(), &[]), None);
    for bytes in [
        &[9; 4][..],
        &[1, 0, 0, 0],
        &[0; 8],
        &[0; 16],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0, 7, 7],
    ] {
        assert_eq!(between(dir.path(), bytes), Some(SnapshotDamage::Length), "{bytes:?}");
    }
    assert_eq!(between(dir.path(), &[2, 0, 0, 0, 0, 0, 0, 0, 7, 7]), Some(SnapshotDamage::Chunk));
}

#[test]
fn a_disk_that_does_not_read_is_not_taken_for_damage() {
    let (vfs, dir) = (SimVfs::new(), Path::new("/"));
    vfs.create_dir_all(dir).unwrap();
    let mut writer = SnapshotWriter::create(Arc::new(vfs.clone()), dir, CLUSTER, &meta(5)).unwrap();
    writer.write_all(&content(3000)).unwrap();
    writer.finish().unwrap();
    let last = LogId::new(2, 5);
    assert!(verify(&vfs, dir, CLUSTER, last).is_ok());
    vfs.make_unreadable(&dir.join(layout::snapshot(last)), 2);
    assert!(matches!(verify(&vfs, dir, CLUSTER, last), Err(SnapshotFileError::Io { .. })));
}

#[test]
fn a_receiver_whose_disk_failed_is_given_up() {
    let (vfs, dir, last) = (SimVfs::new(), Path::new("/"), LogId::new(2, 5));
    vfs.create_dir_all(dir).unwrap();
    let mut receiver = SnapshotReceiver::create(&vfs, dir, CLUSTER, last).unwrap();
    vfs.fail_call(Call::Write, 1, Fault::Error);
    assert!(matches!(receiver.write(0, &[1; 10]), Err(SnapshotFileError::Io { .. })));
    assert!(matches!(receiver.write(0, &[1; 10]), Err(SnapshotFileError::GivenUp { .. })));
    assert!(matches!(receiver.finish(), Err(SnapshotFileError::GivenUp { .. })));
    let received = SnapshotReceiver::create(&vfs, dir, CLUSTER, last);
    received.unwrap().write(0, &[1; 10]).unwrap();
    vfs.fail_call(Call::Open, 1, Fault::Error);
    let resumed = SnapshotReceiver::resume(&vfs, dir, CLUSTER, last);
    assert!(matches!(resumed, Err(SnapshotFileError::Io { .. })), "what is there is not begun anew");
    assert_eq!(SnapshotReceiver::resume(&vfs, dir, CLUSTER, last).unwrap().next_offset(), 10);
}
