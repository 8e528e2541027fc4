use std::collections::BTreeSet;

use super::*;

const DIR: &str = "/data";

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn disk() -> SimVfs {
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs
}

/// A file of these bytes, durable with its name.
fn durable(vfs: &SimVfs, name: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = vfs.create(&path(name)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(Path::new(DIR)).unwrap();
    file
}

#[test]
fn unsynced_bytes_are_lost_and_synced_ones_stay() {
    let vfs = disk();
    let file = durable(&vfs, "f", b"old");
    file.write_at(b"new", 0).unwrap();
    assert_eq!(vfs.crash_process().bytes(&path("f")).unwrap(), b"new");
    assert_eq!(vfs.fork().crash_machine(Survivors::All).bytes(&path("f")).unwrap(), b"new");
    assert_eq!(vfs.fork().crash_machine(Survivors::None).bytes(&path("f")).unwrap(), b"old");
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let vfs = disk();
    let file = vfs.create(&path("f")).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(vfs.fork().crash_machine(Survivors::None).bytes(&path("f")), None);
    vfs.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(vfs.crash_machine(Survivors::None).bytes(&path("f")).unwrap(), b"x");
}

#[test]
fn a_rename_is_old_or_new() {
    let vfs = disk();
    durable(&vfs, "a", b"new");
    durable(&vfs, "b", b"old");
    vfs.record();
    vfs.rename(&path("a"), &path("b")).unwrap();
    for moment in vfs.take_moments() {
        for survivors in moment.survivors() {
            let after = moment.crash(survivors);
            match after.bytes(&path("a")) {
                Some(_) => assert_eq!(after.bytes(&path("b")).unwrap(), b"old"),
                None => assert_eq!(after.bytes(&path("b")).unwrap(), b"new"),
            }
        }
    }
}

#[test]
fn a_write_is_torn_at_every_sector_and_a_grown_file_shows_zeros() {
    let vfs = disk();
    let file = durable(&vfs, "f", &[]);
    vfs.record();
    file.write_at(&[7; 3 * SECTOR_BYTES], 0).unwrap();
    let mut seen = BTreeSet::new();
    for moment in vfs.take_moments() {
        for survivors in moment.survivors() {
            let bytes = moment.crash(survivors).bytes(&path("f")).unwrap();
            let sectors: Vec<u8> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
            assert!(bytes.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            seen.insert(sectors);
        }
    }
    for expected in [&[][..], &[7, 7, 7], &[0, 7, 7], &[7, 0, 7], &[7, 7, 0], &[0, 0, 7], &[0, 0, 0]] {
        assert!(seen.contains(expected), "{expected:?} was never tried: {seen:?}");
    }
}

#[test]
fn a_failed_sync_leaves_bytes_that_no_later_sync_saves() {
    let vfs = disk();
    let file = durable(&vfs, "f", b"old");
    vfs.fail_call(Call::SyncData, 1, Fault::Error);
    file.write_at(b"new", 0).unwrap();
    assert!(file.sync_data().is_err());
    let next = vfs.crash_process();
    assert_eq!(next.bytes(&path("f")).unwrap(), b"new", "the cache was lost");
    let file = next.open(&path("f"), true).unwrap();
    file.sync_data().unwrap();
    assert_eq!(next.fork().crash_machine(Survivors::None).bytes(&path("f")).unwrap(), b"old");
    file.write_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(next.crash_machine(Survivors::None).bytes(&path("f")).unwrap(), b"new");
}

#[test]
fn locks_hold_until_dropped_or_crashed() {
    let vfs = disk();
    let lock = vfs.lock(Path::new(DIR)).unwrap();
    assert_eq!(vfs.lock(Path::new(DIR)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let next = vfs.crash_process();
    let second = next.lock(Path::new(DIR)).unwrap();
    drop(lock);
    assert!(next.lock(Path::new(DIR)).is_err(), "a dead process let go of a living one's lock");
    drop(second);
    assert!(next.lock(Path::new(DIR)).is_ok());
    assert!(vfs.lock(Path::new(DIR)).is_err(), "a dead process took a lock");
}

#[test]
fn faults_come_when_asked_for() {
    let vfs = disk();
    let file = durable(&vfs, "f", &[0; 2048]);
    vfs.fail_call(Call::Write, 2, Fault::Short(2));
    vfs.fail_call(Call::Write, 3, Fault::Misdirected(1024));
    file.write_at(b"one", 0).unwrap();
    assert!(file.write_at(b"two", 0).is_err());
    file.write_at(b"three", 0).unwrap();
    let bytes = vfs.bytes(&path("f")).unwrap();
    assert_eq!((&bytes[..3], &bytes[1024..1029]), (&b"twe"[..], &b"three"[..]));

    vfs.set_capacity(Some(2050));
    let error = file.write_at(b"four", 2048).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(vfs.bytes(&path("f")).unwrap().len(), 2050);
    assert_eq!(file.allocate(4096).unwrap_err().kind(), io::ErrorKind::StorageFull);

    vfs.make_unreadable(&path("f"), 1);
    assert!(file.read_at(&mut [0; 4], 600).is_err());
    assert!(file.read_at(&mut [0; 4], 0).is_ok());

    vfs.halt_at_change(2);
    vfs.sync_dir(Path::new(DIR)).unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_err());
}

#[test]
fn copies_do_not_see_each_other() {
    let vfs = disk();
    let file = durable(&vfs, "f", &[1; 8192]);
    let fork = vfs.fork();
    file.write_at(&[2], 4096).unwrap();
    fork.flip_bits(&path("f"), 0, 0x80);
    assert_eq!(vfs.bytes(&path("f")).unwrap()[0], 1);
    assert_eq!(fork.bytes(&path("f")).unwrap()[0], 0x81);
    assert_eq!(fork.bytes(&path("f")).unwrap()[4096], 1);
    fork.shorten(&path("f"), 10);
    assert_eq!(fork.bytes(&path("f")).unwrap().len(), 10);
}
