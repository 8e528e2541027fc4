//! Any bytes as a snapshot file: `cargo fuzz run snapshot_file`. Whatever is read of it without an error is what the file
//! says it holds.
#![no_main]

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{Read as _, Write as _},
    path::Path,
    sync::{Arc, OnceLock},
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use raft_core::{ClusterId, LogId, SnapshotMeta, Timestamp};
use raft_wal::{
    layout,
    model::{DIR, conf},
    snapshot_file::{self, SnapshotReader, SnapshotReceiver, SnapshotWriter},
    vfs::{Vfs as _, sim::SimVfs},
};

const CLUSTER: ClusterId = ClusterId(0xc1);

#[derive(Debug, Arbitrary)]
struct Plan {
    /// The file as a whole; empty: a good one, then changed.
    whole: Vec<u8>,
    changes: Vec<(u16, u64)>,
    shorten: Option<u16>,
    refit: bool,
    received_in_pieces_of: u16,
}

fuzz_target!(|plan: Plan| run(&plan));

fn last() -> LogId {
    LogId::new(3, 70)
}

fn run(plan: &Plan) {
    let mut bytes = if plan.whole.is_empty() { good().clone() } else { plan.whole.clone() };
    for (at, value) in plan.changes.iter().take(16) {
        let at = usize::from(*at) % bytes.len();
        for (place, byte) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
            *place = byte;
        }
    }
    if let Some(length) = plan.shorten {
        bytes.truncate(usize::from(length));
    }
    if plan.refit {
        support::refit_snapshot(&mut bytes);
    }
    let vfs = Arc::new(SimVfs::new());
    let dir = Path::new(DIR);
    vfs.create_dir_all(dir).expect("an empty disk takes a directory");
    let file = vfs.create(&dir.join(layout::snapshot(last()))).expect("the name is free");
    file.write_at(&bytes, 0).expect("there is room");

    let read = SnapshotReader::open(&*vfs, dir, CLUSTER, last()).and_then(|mut reader| {
        let meta = reader.meta().clone();
        assert_eq!(meta.last, last(), "the header names another snapshot than the file");
        let mut content = Vec::new();
        let read = reader.read_to_end(&mut content);
        assert!(content.len() <= bytes.len(), "more came out than is in the file");
        Ok(read.is_ok().then_some((meta, content)))
    });
    let verified = snapshot_file::verify(&*vfs, dir, CLUSTER, last());
    match (&read, &verified) {
        (Ok(Some((meta, content))), Ok(info)) => {
            assert_eq!((meta, content.len() as u64), (&info.meta, info.content_bytes));
            assert_eq!(info.file_bytes, bytes.len() as u64);
        }
        (Ok(None) | Err(_), Err(_)) => {}
        (read, verified) => panic!("read: {read:?}, verified: {verified:?}"),
    }
    if !plan.refit && verified.is_ok() {
        assert_eq!(&bytes, good(), "a changed file passed for a good one");
    }

    // The same bytes, received from a peer: accepted exactly if the file is good.
    let Ok(mut receiver) = SnapshotReceiver::create(&*vfs, dir, CLUSTER, last()) else { return };
    for piece in bytes.chunks(usize::from(plan.received_in_pieces_of).max(64)) {
        let at = receiver.next_offset();
        if receiver.write(at, piece).is_err() {
            return;
        }
    }
    assert_eq!(receiver.finish().is_ok(), verified.is_ok(), "received and read are not the same");
}

fn good() -> &'static Vec<u8> {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let vfs = Arc::new(SimVfs::new());
        let dir = Path::new(DIR);
        vfs.create_dir_all(dir).expect("an empty disk takes a directory");
        let meta = SnapshotMeta { last: last(), time: Timestamp(9), conf: conf(), conf_id: LogId::ZERO };
        let mut writer =
            SnapshotWriter::create(Arc::clone(&vfs) as Arc<_>, dir, CLUSTER, &meta).expect("there is room");
        writer.write_all(&[7; 600]).expect("there is room");
        writer.finish().expect("there is room");
        vfs.bytes(&dir.join(layout::snapshot(last()))).expect("the file is there")
    })
}
