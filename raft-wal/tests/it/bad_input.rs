//! Files that are not what they should be: each is refused, or its damage reported, with the file's name; nothing is
//! deleted or overwritten.

#![expect(clippy::disallowed_methods, reason = "the tests play whoever put the files there")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use raft_core::{ClusterId, LogId, NodeId};
use raft_wal::{CorruptionKind, Options, Verdict, WalError, dump, layout, verify, vfs::OsVfs};
use tempfile::{TempDir, tempdir};

use crate::support::*;

/// A log of four segments, the last one in use, with a marked snapshot and all the next open needs.
fn log() -> TempDir {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    let mut writes = Writes::default();
    for n in 1..=66 {
        write(&mut engine, &writes.append(1, n, 1, 3000));
    }
    snapshot_file(std::sync::Arc::new(OsVfs), dir.path(), LogId::new(1, 5));
    write(&mut engine, &writes.mark(1, LogId::new(1, 5), false, false));
    engine.close().unwrap();
    assert!(segment(dir.path(), 4).exists(), "the log is too short for these tests");
    dir
}

/// Everything in `dir` but the lock: name, what it is, bytes.
fn content(dir: &Path) -> BTreeMap<PathBuf, (bool, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let is_file = entry.file_type().unwrap().is_file();
        if entry.file_name() != layout::LOCK_FILE {
            let bytes = if is_file { fs::read(entry.path()).unwrap() } else { Vec::new() };
            all.insert(entry.path(), (is_file, bytes));
        }
    }
    all
}

/// Opens after `harm`: refused or damaged, and untouched. Returns the sentence, which must name a file of `dir`.
fn refused(harm: impl FnOnce(&Path)) -> (TempDir, WalError) {
    refused_with(options(), harm)
}

fn refused_with(options: Options, harm: impl FnOnce(&Path)) -> (TempDir, WalError) {
    let dir = log();
    harm(dir.path());
    let before = content(dir.path());
    let error = match raft_wal::Engine::open(std::sync::Arc::new(OsVfs), dir.path(), options) {
        Ok((_, report)) => {
            let damage = report.damaged.expect("it opened as if nothing were wrong");
            WalError::Damaged(Box::new(damage))
        }
        Err(error) => error,
    };
    assert_eq!(content(dir.path()), before, "something was changed: {error}");
    let name = error.to_string();
    assert!(name.contains(&*dir.path().to_string_lossy()), "{name} names no file");
    if let Ok(report) = verify(&OsVfs, dir.path())
        && !matches!(error, WalError::Foreign { .. })
    {
        let damaged = matches!(report.verdict, Verdict::Damaged(_) | Verdict::Corrupt(_));
        assert!(damaged, "the open says {error}, the check {:?}", report.verdict);
    }
    // It ends, whatever it shows.
    let shown = dump(&OsVfs, dir.path()).map_or(0, Iterator::count);
    assert!(shown < 1000);
    assert_eq!(content(dir.path()), before, "looking changed something");
    (dir, error)
}

fn kind_of(error: &WalError) -> CorruptionKind {
    if let WalError::Damaged(damage) = error {
        return damage.corruption.kind;
    }
    let WalError::Corrupt(corruption) = error else { panic!("no damage: {error}") };
    corruption.kind
}

#[test]
fn an_empty_segment() {
    for number in 1..=4 {
        refused(|dir| fs::write(segment(dir, number), b"").unwrap());
    }
}

#[test]
fn a_truncated_segment() {
    for number in 1..=4 {
        for length in [1, 511, 4096, 5000, 40_000] {
            refused(|dir| truncate(&segment(dir, number), length));
        }
    }
    // The last bytes of a sealed one are its footer: that costs no entry, and is told.
    (1..=3).for_each(|number| rebuilt(|dir| truncate(&segment(dir, number), SEGMENT - 1)));
    refused(|dir| truncate(&segment(dir, 4), SEGMENT - 1));
}

/// Opens after `harm`: nothing is lost, and the damage is told all the same.
fn rebuilt(harm: impl FnOnce(&Path)) {
    let dir = log();
    harm(dir.path());
    let (engine, report) = open(dir.path());
    assert!(report.damaged.is_none() && !report.rebuilt.is_empty(), "{report:?}");
    assert_eq!(contents(&engine), expect(|_| 1, 1..=66, 3000));
}

fn truncate(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Not the last one: that would look prepared and unused, as FORMAT.md, section 7, says.
#[test]
fn a_zeroed_segment() {
    for number in 1..=3 {
        refused(|dir| fs::write(segment(dir, number), vec![0; SEGMENT as usize]).unwrap());
    }
    let (dir, error) =
        refused(|dir| (1..=4).for_each(|n| fs::write(segment(dir, n), vec![0; SEGMENT as usize]).unwrap()));
    assert_eq!(kind_of(&error), CorruptionKind::SegmentHeader, "not a file that is missing: {error}");
    assert!(error.to_string().contains(&*segment(dir.path(), 1).to_string_lossy()), "{error}");
}

#[test]
fn a_segment_with_a_tail_too_many() {
    let lengthen = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize(bytes.len() + 4096, 7);
        fs::write(path, bytes).unwrap();
    };
    (1..=3).for_each(|number| rebuilt(|dir| lengthen(segment(dir, number))));
    refused(|dir| lengthen(segment(dir, 4)));
}

#[test]
fn something_else_under_a_segments_name() {
    for number in 1..=4 {
        refused(|dir| fs::write(segment(dir, number), b"#!/bin/sh\necho hello\n".repeat(4000)).unwrap());
    }
    // Also where no segment is yet.
    let (_, error) = refused(|dir| fs::write(segment(dir, 0x30), b"hello").unwrap());
    assert_eq!(kind_of(&error), CorruptionKind::SegmentHeader);
}

/// As before, when the last segment in use is sealed: it was removed once, and the name came back with the next crash.
#[test]
fn something_else_behind_a_sealed_segment() {
    let (_, error) = refused(|dir| {
        fs::write(segment(dir, 4), vec![0; SEGMENT as usize]).unwrap();
        let _ = fs::remove_file(segment(dir, 5));
        fs::write(segment(dir, 0x30), b"hello").unwrap();
    });
    assert_eq!(kind_of(&error), CorruptionKind::SegmentHeader);
}

#[test]
fn a_newer_format() {
    for number in 1..=4 {
        let (_, error) = refused(|dir| patch_header(&segment(dir, number), 8, &2_u32.to_le_bytes()));
        assert!(matches!(error, WalError::NewerFormat { version: 2, .. }), "{error}");
    }
}

#[test]
fn unknown_features() {
    let (_, error) = refused(|dir| patch_header(&segment(dir, 4), 16, &(1_u64 << 40).to_le_bytes()));
    assert!(matches!(error, WalError::UnknownFeatures { bits, .. } if bits == 1 << 40), "{error}");
}

/// A header whose checksums fit and whose numbers nobody can have counted to is none; the seal before it tells the same.
#[test]
fn numbers_beyond_all_counting() {
    // Its number, and of its state: the batch, the last entry, the log's start, the first segment, the mark, the promise,
    // the cuts.
    for at in [48, 104, 104 + 48, 104 + 64, 104 + 72, 104 + 88, 104 + 104, 104 + 112] {
        rebuilt(|dir| patch_header(&segment(dir, 4), at, &u64::MAX.to_le_bytes()));
    }
}

/// Changes both copies of a header, their checksums too.
fn patch_header(path: &Path, at: usize, bytes: &[u8]) {
    let mut segment = fs::read(path).unwrap();
    for copy in [0, 2048] {
        segment[copy + at..copy + at + bytes.len()].copy_from_slice(bytes);
        let checksum =
            crc32fast::hash(&[&segment[copy..copy + 12], &segment[copy + 16..copy + 232]].concat());
        segment[copy + 12..copy + 16].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(path, segment).unwrap();
}

#[test]
fn of_another_node_or_cluster() {
    for (cluster, node) in [(7, 2), (8, 1)] {
        let options = Options { cluster: ClusterId(cluster), node: NodeId(node), ..options() };
        let (_, error) = refused_with(options, |_| {});
        assert!(matches!(error, WalError::Foreign { .. }), "{error}");
    }
    // One segment alone.
    let other = tempdir().unwrap();
    let options = Options { node: NodeId(2), ..options() };
    raft_wal::Engine::open(std::sync::Arc::new(OsVfs), other.path(), options).unwrap().0.close().unwrap();
    for number in 1..=5 {
        let stranger = segment(other.path(), 1);
        let (_, error) = refused(|dir| {
            fs::copy(&stranger, segment(dir, number)).unwrap();
        });
        assert!(matches!(error, WalError::Foreign { .. }), "{error}");
    }
}

#[test]
fn swapped() {
    for (one, other) in [(1, 2), (2, 3), (1, 4), (3, 4)] {
        refused(|dir| {
            let aside = dir.join("aside");
            fs::rename(segment(dir, one), &aside).unwrap();
            fs::rename(segment(dir, other), segment(dir, one)).unwrap();
            fs::rename(&aside, segment(dir, other)).unwrap();
        });
    }
}

#[test]
fn duplicated() {
    for (from, to) in [(1, 2), (2, 1), (3, 2), (4, 1), (1, 9), (4, 9)] {
        refused(|dir| {
            fs::copy(segment(dir, from), segment(dir, to)).unwrap();
        });
    }
}

// A batch that drops segments takes them away, and is not there: what else it said, a vote perhaps, nobody knows.
#[test]
fn with_holes_in_their_numbers() {
    for gone in [&[1][..], &[2], &[3], &[1, 2], &[2, 3], &[1, 2, 3]] {
        let (dir, error) =
            refused(|dir| gone.iter().for_each(|n| fs::remove_file(segment(dir, *n)).unwrap()));
        let WalError::Corrupt(corruption) = error else { panic!("{gone:?}: {error}") };
        assert_eq!(corruption.kind, CorruptionKind::Missing, "{gone:?}");
        assert!(gone.iter().any(|n| corruption.path == segment(dir.path(), *n)), "{corruption}");
    }
}

// Nobody made it, and reading it would take its length in memory.
#[test]
fn a_segment_longer_than_any() {
    let dir = tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    write(&mut engine, &Writes::default().append(1, 1, 9, 100));
    drop(engine);
    let file = fs::OpenOptions::new().write(true).open(segment(dir.path(), 1)).unwrap();
    file.set_len(raft_wal::SEGMENT_BYTES_MAX + 4096).unwrap();
    let errors: Vec<_> = dump(&OsVfs, dir.path()).unwrap().filter_map(Result::err).collect();
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert!(matches!(kind_of(error), CorruptionKind::Length { .. }), "{error}");
    let expected = raft_wal::SEGMENT_BYTES_MAX;
    let kind = CorruptionKind::Length { found: expected + 4096, expected };
    assert_eq!(kind_of(&open_error(dir.path(), options())), kind, "it is not read");
}

#[test]
fn directories_and_links_in_place_of_files() {
    let names = [
        layout::segment(1),
        layout::segment(4),
        layout::segment(5),
        layout::segment(9),
        layout::snapshot(LogId::new(1, 5)),
        layout::spare(3),
        format!("{}{}", layout::segment(9), layout::TEMPORARY_SUFFIX),
    ];
    for name in names {
        for is_link in [false, true] {
            let elsewhere = tempdir().unwrap();
            let target = elsewhere.path().join("target");
            fs::write(&target, b"not ours").unwrap();
            let (_, error) = refused(|dir| {
                let path = dir.join(&name);
                let _ = fs::remove_file(&path);
                if is_link { symlink(&target, path).unwrap() } else { fs::create_dir(path).unwrap() }
            });
            assert_eq!(kind_of(&error), CorruptionKind::NotAFile, "{name}: {error}");
            assert_eq!(fs::read(&target).unwrap(), b"not ours");
        }
    }
}

/// The only segment there is: not a new directory, either.
#[test]
fn a_directory_or_a_link_where_the_log_would_be_founded() {
    for is_link in [false, true] {
        let dir = tempdir().unwrap();
        let path = segment(dir.path(), 1);
        if is_link {
            symlink("/nowhere", &path).unwrap()
        } else {
            fs::create_dir(&path).unwrap()
        }
        let error = open_error(dir.path(), options());
        assert_eq!(kind_of(&error), CorruptionKind::NotAFile, "{error}");
    }
}

/// Not by the mode of the file, for whoever may read everything would see nothing of it.
#[test]
fn with_permissions_refused() {
    let dir = log();
    let before = content(dir.path());
    for number in 1..=4 {
        let plan = std::sync::Arc::new(Plan::default());
        *plan.denied.lock().unwrap() = Some(segment(dir.path(), number));
        let vfs = std::sync::Arc::new(FailingVfs { plan });
        let error =
            raft_wal::Engine::open(std::sync::Arc::clone(&vfs) as _, dir.path(), options()).unwrap_err();
        let WalError::Io { operation: "open", path, source } = &error else { panic!("{error}") };
        assert_eq!(
            (path, source.kind()),
            (&segment(dir.path(), number), std::io::ErrorKind::PermissionDenied)
        );
        assert!(matches!(verify(&*vfs, dir.path()), Err(WalError::Io { .. })), "nothing can be concluded");
        assert_eq!(content(dir.path()), before, "something was changed: {error}");
    }
    assert_eq!(contents(&open(dir.path()).0).len(), 66);
}

#[test]
fn a_link_in_place_of_the_lock() {
    let dir = log();
    let target = dir.path().join("elsewhere");
    fs::remove_file(dir.path().join(layout::LOCK_FILE)).unwrap();
    symlink(&target, dir.path().join(layout::LOCK_FILE)).unwrap();
    let error = open_error(dir.path(), options());
    assert!(matches!(error, WalError::Io { operation: "lock", .. }), "{error}");
    assert!(!target.exists());
}

/// Not even a lock file is made where nothing is ours.
#[test]
fn a_strange_directory_is_left_as_it_is() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("photos")).unwrap();
    assert!(matches!(verify(&OsVfs, dir.path()), Err(WalError::NotADataDirectory { .. })));
    assert!(matches!(dump(&OsVfs, dir.path()), Err(WalError::NotADataDirectory { .. })));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["photos"]);
}

/// The very first write of a founding may have landed but for its header. Anything more proves that the log lived.
#[test]
fn a_first_segment_without_its_header_is_founded_anew_only_if_it_holds_nothing_else() {
    let founded = || {
        let dir = tempdir().unwrap();
        drop(open(dir.path()));
        dir
    };
    let lose_header = |dir: &Path| patch(&segment(dir, 1), |bytes| bytes[..4096].fill(0));
    let dir = founded();
    lose_header(dir.path());
    assert!(open(dir.path()).1.founded);

    let dir = founded();
    let (mut engine, _) = open(dir.path());
    write(&mut engine, &Writes::default().append(1, 1, 1, 10));
    drop(engine);
    lose_header(dir.path());
    assert_eq!(kind_of(&open_error(dir.path(), options())), CorruptionKind::SegmentHeader);

    // Of a log that began with another segment than the first, something was acknowledged.
    let dir = founded();
    lose_header(dir.path());
    fs::rename(segment(dir.path(), 1), segment(dir.path(), 2)).unwrap();
    assert_eq!(kind_of(&open_error(dir.path(), options())), CorruptionKind::SegmentHeader);
}
