//! Any header before a segment's records, checksums made to fit: `cargo fuzz run segment_header`.
#![no_main]

#[path = "support/judge.rs"]
mod judge;
#[path = "support/mod.rs"]
mod support;

use std::{path::Path, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use raft_wal::{
    model::{DIR, Driver, Model, Step, segments},
    vfs::{Vfs as _, sim::SimVfs},
};

// The first byte says what of the rest counts: both copies alike or each for itself, the checksums made to fit or not,
// records behind or none.
fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else { return };
    let vfs = if how & 1 == 0 { with_records() } else { blank() };
    let Some(path) = segments(&vfs).into_iter().next() else { return };
    let mut segment = vfs.bytes(&path).unwrap_or_default();
    let (first, second) = if how & 2 == 0 { (bytes, bytes) } else { bytes.split_at(bytes.len() / 2) };
    for (at, copy) in [(0, first), (2048, second)] {
        // The fuzzer's bytes change what stands there, so that an empty input is a valid header.
        for (place, byte) in segment[at..].iter_mut().zip(copy.iter().take(2048)) {
            *place ^= byte;
        }
    }
    if how & 4 == 0 {
        support::refit_header(&mut segment);
    }
    if how & 8 != 0 {
        support::refit_segment(&mut segment, None);
    }
    vfs.overwrite(&path, 0, &segment);
    judge::judge(&vfs, how & 16 != 0, how & 12 == 4);
});

fn with_records() -> SimVfs {
    static LOG: OnceLock<SimVfs> = OnceLock::new();
    LOG.get_or_init(|| {
        let mut driver = Driver::open(SimVfs::new(), Model::default(), 1).expect("a log is founded");
        for step in
            [Step::Append { count: 3, bytes: 40, new_term: true }, Step::Vote, Step::Flush, Step::Witness]
        {
            driver.step(step).expect("nothing fails");
        }
        driver.vfs.crash_process()
    })
    .fork()
}

/// A founded log without its records.
fn blank() -> SimVfs {
    let vfs = with_records();
    for (n, path) in segments(&vfs).into_iter().enumerate() {
        if n == 0 {
            vfs.overwrite(&path, 4096, &[0; 60 << 10]);
        } else {
            let _ = vfs.remove(&path);
        }
    }
    let _ = vfs.sync_dir(Path::new(DIR));
    vfs
}
