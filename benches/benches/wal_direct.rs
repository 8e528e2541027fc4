//! Whether `O_DIRECT` would help the log: batches appended to a file of zeroes by pwrite and fdatasync, against the same past
//! the page cache, where the last block of 4 KiB is kept in memory and written again with what follows it. The zeroes are
//! written in pieces of 256 KiB, as the log does, and of 1 MiB: what the kernel keeps together for a piece is what it
//! looks through for each later write.
//!
//! `cargo bench -p raft-benches --bench wal_direct [-- --data DIR]`: by turns, medians of 9 rounds. What came out, and why
//! the log has no such option, is told in `docs/WAL_GOALS.md`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::{Buf as _, BytesMut};
use raft_benches::noise;

const FILE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;
const ROUNDS: usize = 9;
const APPENDS: usize = 800;

struct Direct {
    direct: File,
    plain: File,
    offset: usize,
    /// Blocks, and in the first one what stands before `offset`.
    blocks: BytesMut,
}

impl Direct {
    fn create(path: &Path) -> Direct {
        let plain = zeroes(path, 1 << 20);
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path);
        let mut blocks = BytesMut::zeroed((128 << 10) + BLOCK);
        blocks.advance(blocks.as_ptr().align_offset(BLOCK));
        Direct { direct: direct.expect("the file system takes O_DIRECT"), plain, offset: 0, blocks }
    }

    fn append(&mut self, bytes: &[u8]) {
        let (at, skip) = (self.offset / BLOCK * BLOCK, self.offset % BLOCK);
        let end = skip + bytes.len();
        let (last, all) = (end / BLOCK * BLOCK, end.next_multiple_of(BLOCK));
        self.blocks[skip..end].copy_from_slice(bytes);
        self.blocks[end..all].fill(0);
        self.direct.write_all_at(&self.blocks[..all], at as u64).expect("the disk works");
        self.plain.sync_data().expect("the disk works");
        self.blocks.copy_within(last..last + BLOCK, 0);
        self.offset = if (at + 2 * all + BLOCK) as u64 > FILE_BYTES { 0 } else { self.offset + bytes.len() };
    }
}

/// A file of zeroes, written in such pieces.
fn zeroes(path: &Path, piece: usize) -> File {
    let file =
        OpenOptions::new().write(true).create_new(true).open(path).expect("the directory takes a file");
    let zeros = vec![0; piece];
    for at in (0..FILE_BYTES).step_by(piece) {
        file.write_all_at(&zeros, at).expect("there is room");
    }
    file.sync_all().expect("the disk works");
    file
}

/// Through the page cache.
struct Plain {
    file: File,
    offset: u64,
}

impl Plain {
    fn create(path: &Path, piece: usize) -> Plain {
        Plain { file: zeroes(path, piece), offset: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        self.file.write_all_at(bytes, self.offset).expect("the disk works");
        self.file.sync_data().expect("the disk works");
        self.offset = if self.offset + 2 * length > FILE_BYTES { 0 } else { self.offset + length };
    }
}

fn micros(append: impl FnOnce()) -> f64 {
    let start = Instant::now();
    append();
    start.elapsed().as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let data = args.iter().position(|arg| arg == "--data").and_then(|at| args.get(at + 1));
    let data = data.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| batch | zeroes of 1 MiB, us | of 256 KiB, us | O_DIRECT, us | rate of O_DIRECT over 1 MiB | over 256 KiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for bytes in [328, 1 << 10, 4 << 10, (4 << 10) + 72, 16 << 10, 64 << 10] {
        let place = tempfile::tempdir_in(&data)?;
        let mut large = Plain::create(&place.path().join("large"), 1 << 20);
        let mut small = Plain::create(&place.path().join("small"), 256 << 10);
        let mut direct = Direct::create(&place.path().join("direct"));
        let batch = noise(bytes);
        let mut rounds = Vec::new();
        for _ in 0..=ROUNDS {
            let mut took = [const { Vec::new() }; 3];
            for turn in 0..APPENDS {
                for step in 0..3 {
                    let at = (turn + step) % 3;
                    took[at].push(match at {
                        0 => micros(|| large.append(&batch)),
                        1 => micros(|| small.append(&batch)),
                        _ => micros(|| direct.append(&batch)),
                    });
                }
            }
            rounds.push(took);
        }
        // The first round only warms up.
        rounds.remove(0);
        let [large, small, direct] =
            [0, 1, 2].map(|at| median(rounds.iter().map(|round| median(round[at].clone())).collect()));
        let [over_large, over_small] = [0, 1].map(|other| {
            let sum = |took: &[f64]| took.iter().sum::<f64>();
            let mut ratios: Vec<f64> =
                rounds.iter().map(|round| sum(&round[other]) / sum(&round[2])).collect();
            ratios.sort_by(f64::total_cmp);
            format!("{:.2} ({:.2} to {:.2})", ratios[ROUNDS / 2], ratios[0], ratios[ROUNDS - 1])
        });
        writeln!(out, "| {bytes} B | {large:.0} | {small:.0} | {direct:.0} | {over_large} | {over_small} |")?;
    }
    Ok(())
}
