//! raft-wal beside raft-engine, okaywal and `physlog`, on one disk, in one run, by turns.
//!
//! `cargo bench -p raft-benches --bench wal_peers` writes `docs/WAL_BENCH.md` and `docs/wal_bench.svg`. With `-- --quick`,
//! or `--only append,bytes,crowd,large,rotation`, it prints what it finds and writes nothing; `--data DIR` is where the
//! logs go (else below the target directory): it has to be on the disk to be measured. It needs 8 GiB there.

mod append;
mod contenders;
mod crowd;
mod large;
mod measure;
mod report;
mod rotation;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use report::Report;

/// How long to measure.
struct Effort {
    /// Of each comparison; one more comes first and only warms up.
    rounds: usize,
    /// Appends of each log in a round.
    appends: usize,
    /// How long each log has many appenders in a round.
    slice: Duration,
    opens: usize,
    drops: usize,
    /// Changes of segments.
    rotations: usize,
}

const FULL: Effort =
    Effort { rounds: 9, appends: 500, slice: Duration::from_millis(700), opens: 5, drops: 5, rotations: 10 };
const QUICK: Effort =
    Effort { rounds: 3, appends: 200, slice: Duration::from_millis(300), opens: 1, drops: 1, rotations: 3 };

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut out = io::stdout().lock();
    if let [child, what, dir] = &args[..]
        && child == "--child"
    {
        let (millis, memory) = large::child(what, Path::new(dir));
        writeln!(out, "{millis} {memory}")?;
        out.flush()?;
        // Closing is not asked for, and okaywal would let its entries go.
        std::process::exit(0);
    }
    let option = |name| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let quick = args.iter().any(|arg| arg == "--quick");
    let effort = if quick { QUICK } else { FULL };
    let only = option("--only");
    let wanted = |part: &str| only.is_none_or(|only| only.split(',').any(|name| name == part));
    let data = option("--data").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);

    let (before, load_before) = (measure::probe(&data), load());
    let mut report = Report::default();
    if wanted("append") {
        append::run(&data, &effort, &mut report);
    }
    if wanted("bytes") {
        append::bytes(&data, &mut report);
    }
    if wanted("crowd") {
        crowd::run(&data, &effort, &mut report);
    }
    if wanted("large") {
        large::run(&data, &effort, &mut report);
    }
    if wanted("rotation") {
        rotation::run(&data, &effort, &mut report);
    }
    report.goals.sort_by_key(|goal| goal.id);
    let disk = format!("before {before}; after {}", measure::probe(&data));
    let machine = machine(&data, &effort, &disk, &format!("{load_before} before, {} after", load()));
    let text = format!(
        "# raft-wal beside its peers\n\nWritten by `cargo bench -p raft-benches --bench wal_peers`.\n\n\
         ![Durable appends a second](wal_bench.svg)\n\n{machine}\n{}",
        report.markdown()
    );
    if quick || only.is_some() {
        return writeln!(out, "{text}");
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::write(docs.join("WAL_BENCH.md"), text)?;
    fs::write(docs.join("wal_bench.svg"), report.svg())?;
    writeln!(out, "docs/WAL_BENCH.md and docs/wal_bench.svg are written")
}

/// Under what circumstances the figures were taken.
fn machine(data: &Path, effort: &Effort, disk: &str, load: &str) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let rustc =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap_or_default();
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let Effort { rounds, appends, slice, opens, drops, .. } = effort;
    format!(
        "- Machine: {cores} cores,{}, Linux {}, {}\n- Versions: raft-wal {}, raft-engine {}, okaywal {}, {}\n\
         - Disk, a durable write of 4 KiB into zeroes: {disk}\n- Load average, this run's own work in it: {load}\n\
         - {rounds} rounds of {appends} appends a log, {} ms a log with many appenders, {opens} opens, {drops} drops; by turns, \
         medians\n",
        model
            .trim_start_matches([' ', '\t', ':'])
            .to_owned()
            .split_whitespace()
            .fold(String::new(), |all, word| all + " " + word),
        kernel.trim(),
        file_system(data),
        version("raft-wal"),
        version("raft-engine"),
        version("okaywal"),
        String::from_utf8_lossy(&rustc).trim(),
        slice.as_millis(),
    )
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The type of the file system with the longest mount point above `data`.
fn file_system(data: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        data.starts_with(point).then(|| (point.len(), kind.to_owned()))
    });
    above.max().map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}
