//! Any bytes as a data directory: `cargo fuzz run wal_open`. An error must be typed and leave the files alone; a log that
//! opens must be readable and take a write.
#![no_main]

#[path = "support/judge.rs"]
mod judge;
#[path = "support/mod.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use raft_core::LogId;
use raft_wal::{
    layout,
    model::{DIR, Driver, Model, Step, segments, workload},
    vfs::{Vfs as _, sim::SimVfs},
};

#[derive(Debug, Arbitrary)]
struct Plan {
    base: u8,
    changes: Vec<Change>,
    refit: bool,
    verify_on_open: bool,
}

#[derive(Debug, Arbitrary)]
enum Change {
    /// Bytes of a segment.
    Edit {
        segment: u8,
        offset: u16,
        bytes: Vec<u8>,
    },
    /// A word of a record or header, by its place in words.
    Word {
        segment: u8,
        at: u16,
        value: u64,
    },
    /// A bit.
    Flip {
        segment: u8,
        offset: u16,
        bit: u8,
    },
    Shorten {
        segment: u8,
        length: u16,
    },
    Remove {
        segment: u8,
    },
    /// A segment under another number.
    Rename {
        segment: u8,
        number: u8,
    },
    /// Any bytes under a name of ours.
    File {
        name: Kind,
        number: u8,
        bytes: Vec<u8>,
        zeros: bool,
    },
}

#[derive(Debug, Arbitrary)]
enum Kind {
    Segment,
    Spare,
    Torn,
    Snapshot,
    Temporary,
    Other,
}

fuzz_target!(|plan: Plan| run(&plan));

fn run(plan: &Plan) {
    let vfs = base(plan.base);
    for change in plan.changes.iter().take(16) {
        apply(&vfs, change);
    }
    if plan.refit {
        let mut chain = None;
        for path in segments(&vfs) {
            let mut bytes = vfs.bytes(&path).unwrap_or_default();
            chain = support::refit_segment(&mut bytes, chain);
            vfs.overwrite(&path, 0, &bytes);
        }
    }
    judge::judge(&vfs, plan.verify_on_open, !plan.refit);
}

/// An empty directory, or a log with a history.
fn base(number: u8) -> SimVfs {
    static BASES: OnceLock<Vec<SimVfs>> = OnceLock::new();
    let bases = BASES.get_or_init(|| {
        let empty = SimVfs::new();
        empty.create_dir_all(Path::new(DIR)).expect("an empty disk takes a directory");
        let logs = [(1, 4), (2, 40), (3, 90), (4, 150)].map(|(seed, count)| {
            let mut driver = Driver::open(SimVfs::new(), Model::default(), seed).expect("a log is founded");
            for step in workload(seed, count).into_iter().chain([Step::Flush, Step::Witness]) {
                driver.step(step).expect("nothing fails");
            }
            driver.vfs.crash_process()
        });
        [empty].into_iter().chain(logs).collect()
    });
    bases[usize::from(number) % bases.len()].fork()
}

fn apply(vfs: &SimVfs, change: &Change) {
    let paths = segments(vfs);
    let pick =
        |segment: u8| paths.get(usize::from(segment) % paths.len().max(1)).cloned().unwrap_or_default();
    match change {
        Change::Edit { segment, offset, bytes } => vfs.overwrite(&pick(*segment), u64::from(*offset), bytes),
        Change::Word { segment, at, value } => {
            vfs.overwrite(&pick(*segment), u64::from(at % 8192) * 8, &value.to_le_bytes());
        }
        Change::Flip { segment, offset, bit } => {
            vfs.flip_bits(&pick(*segment), u64::from(*offset), 1 << (bit % 8));
        }
        Change::Shorten { segment, length } => vfs.shorten(&pick(*segment), u64::from(*length)),
        Change::Remove { segment } => {
            let _ = vfs.remove(&pick(*segment));
        }
        Change::Rename { segment, number } => {
            let _ = vfs.rename(&pick(*segment), &path(layout::segment(u64::from(*number))));
        }
        Change::File { name, number, bytes, zeros } => {
            let number = u64::from(*number);
            let path = path(match name {
                Kind::Segment => layout::segment(number),
                Kind::Spare => layout::spare(number),
                Kind::Torn => layout::torn(number, 4096),
                Kind::Snapshot => layout::snapshot(LogId::new(1, number)),
                Kind::Temporary => format!("{}{}", layout::segment(number), layout::TEMPORARY_SUFFIX),
                Kind::Other => format!("wal-{number}.log"),
            });
            let Ok(file) = vfs.create(&path) else { return };
            let _ = file.write_at(bytes, 0);
            if *zeros {
                let _ = file.allocate(64 << 10);
            }
        }
    }
    let _ = vfs.sync_dir(Path::new(DIR));
}

fn path(name: String) -> PathBuf {
    Path::new(DIR).join(name)
}
