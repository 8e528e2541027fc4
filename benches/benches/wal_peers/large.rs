//! G6, G7, G8: a log of 1 GiB in entries of 1 KiB is opened, checked, read, and loses its older part.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use raft_benches::{
    noise, payloads,
    physlog::Physlog,
    wal_log::{self, WalLog},
};
use raft_core::LogIndex;
use raft_wal::Options;

use crate::{
    Effort,
    contenders::{Eraftpb, Keeper, Log, Okaywal, RaftEngine, Threaded},
    measure::{Figures, Samples, anonymous_bytes, cool},
    report::{Report, Table},
};

const ENTRIES: u64 = 1 << 20;
const ENTRY_BYTES: usize = 1 << 10;
/// Each flush writes so many.
const BATCH: u64 = 64;
const GIB: u64 = 1 << 30;
/// For okaywal and physlog, which have one file for all of it.
const ONE_FILE_BYTES: u64 = GIB + (GIB >> 2);

/// The logs as they were filled.
struct Large {
    place: tempfile::TempDir,
    physlog: Physlog,
    /// It lets its entries go when it is opened or closed, so this is the one that wrote them.
    okaywal: (Okaywal, Vec<okaywal::LogPosition>),
}

impl Large {
    fn fill(dir: &Path) -> Large {
        let place = tempfile::tempdir_in(dir).expect("a temporary directory");
        let payloads = payloads(usize::try_from(BATCH).expect("a small number"), ENTRY_BYTES);
        let mut ours = WalLog::open(&place.path().join("raft-wal"), wal_log::options());
        let mut engine = RaftEngine::open(&place.path().join("raft-engine"));
        fs::create_dir(place.path().join("physlog")).expect("a new directory");
        let mut physlog = Physlog::create(&place.path().join("physlog/log"), ONE_FILE_BYTES);
        for _ in 0..ENTRIES / BATCH {
            ours.append(&payloads);
            physlog.append(&payloads);
            Log::append(&mut engine, &payloads);
        }
        let mut positions = Vec::new();
        let okaywal = Okaywal::open(&place.path().join("okaywal"), ONE_FILE_BYTES);
        for _ in 0..ENTRIES / BATCH {
            let mut writer = okaywal.0.begin_entry().expect("the disk works");
            for payload in &payloads {
                positions.push(writer.write_chunk(payload).expect("the disk works").position);
            }
            writer.commit().expect("the disk works");
        }
        ours.engine.close().expect("the disk works");
        Large { place, physlog, okaywal: (okaywal, positions) }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }
}

pub(crate) fn run(dir: &Path, effort: &Effort, report: &mut Report) {
    let large = Large::fill(dir);
    reading(&large, effort, report);
    opening(&large, effort, report);
    dropping(&large, effort, report);
}

/// What a fresh process does: opens the log there, tells how long that took and what memory it holds then.
pub(crate) fn child(what: &str, dir: &Path) -> (f64, u64) {
    let before = anonymous_bytes();
    let start = Instant::now();
    let done = |millis: f64| (millis, anonymous_bytes().saturating_sub(before));
    let millis = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    match what {
        "raft-wal" | "raft-wal, all verified" => {
            let verify_on_open = what != "raft-wal";
            let log = WalLog::open(dir, Options { verify_on_open, ..wal_log::options() });
            let took = millis(start);
            assert_eq!(log.writes.last, LogIndex(ENTRIES), "everything is there");
            done(took)
        }
        "raft-engine" => {
            let log = RaftEngine::open(dir);
            let took = millis(start);
            assert_eq!(log.last, ENTRIES, "everything is there");
            done(took)
        }
        _ => {
            let configuration = okaywal::Configuration::default_for(dir)
                .preallocate_bytes(u32::try_from(ONE_FILE_BYTES).expect("less than 4 GiB"))
                .buffer_bytes(256 << 10);
            let _log = configuration.open(Keeper).expect("a directory of this benchmark");
            done(millis(start))
        }
    }
}

fn in_child(what: &str, dir: &Path) -> (f64, u64) {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg("--child").arg(what).arg(dir).output().expect("it starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace();
    let millis = numbers.next().and_then(|number| number.parse().ok());
    let memory = numbers.next().and_then(|number| number.parse().ok());
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    (millis.expect("a child tells"), memory.expect("a child tells"))
}

#[derive(Default)]
struct Opened {
    cold: Figures,
    warm: Figures,
    memory: Figures,
}

fn opening(large: &Large, effort: &Effort, report: &mut Report) {
    let mut table = Table {
        title: "Opening a log of 1 GiB, 1 KiB an entry",
        note: "In a fresh process each time, milliseconds. *cold*: its files were dropped from the page cache before. Memory: \
               what no file backs, more than before the open, for each entry; the report of the open, with the newest 8 MiB \
               of entries, is let go. physlog: reads it all and checks every payload, in pieces of 1 MiB. okaywal once, for it lets its entries \
               go when it is opened; it hands over all of them."
            .to_owned(),
        head: vec!["log", "cold", "warm", "memory, bytes an entry"],
        rows: Vec::new(),
    };
    let names = ["raft-wal", "raft-wal, all verified", "raft-engine"];
    let mut opened: [Opened; 3] = Default::default();
    let mut scan = Opened::default();
    for _ in 0..effort.opens {
        for (name, figures) in names.iter().zip(&mut opened) {
            let dir = large.dir(name.split(',').next().unwrap_or(name));
            cool(&dir);
            figures.cold.0.push(in_child(name, &dir).0);
            let (millis, memory) = in_child(name, &dir);
            figures.warm.0.push(millis);
            figures.memory.0.push(memory as f64 / ENTRIES as f64);
        }
        cool(&large.dir("physlog"));
        for figures in [&mut scan.cold, &mut scan.warm] {
            let start = Instant::now();
            assert_eq!(large.physlog.scan(drop), ENTRIES, "everything is there");
            figures.0.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (name, Opened { cold, warm, memory }) in names.iter().zip(&opened) {
        table.rows.push(vec![
            (*name).to_owned(),
            cold.spread(0),
            warm.spread(0),
            format!("{:.1}", memory.median()),
        ]);
    }
    table.rows.push(vec![
        "physlog, all verified".to_owned(),
        scan.cold.spread(0),
        scan.warm.spread(0),
        String::new(),
    ]);
    let dir = large.dir("okaywal");
    cool(&dir);
    let (millis, _) = in_child("okaywal", &dir);
    table.rows.push(vec!["okaywal".to_owned(), format!("{millis:.0}"), String::new(), String::new()]);
    report.tables.push(table);

    let cold = opened[0].cold.median();
    report.goal("G6", "open of 1 GiB, cold: <= 100 ms", format!("{cold:.0} ms"), cold <= 100.0);
    let cold = opened[1].cold.over(&scan.cold).median();
    let warm = opened[1].warm.over(&scan.warm).median();
    report.goal(
        "G6",
        "full verification: <= 1.1 of a plain checksum scan",
        format!("{cold:.2} cold, {warm:.2} warm"),
        cold <= 1.1 && warm <= 1.1,
    );
    let memory = opened[0].memory.median();
    report.goal("G6", "memory an entry: <= 12 B", format!("{memory:.1} B"), memory <= 12.0);
}

fn reading(large: &Large, effort: &Effort, report: &mut Report) {
    let mut table = Table {
        title: "Reading entries of 1 KiB that were written 64 a flush",
        note: "Random: microseconds for one entry, from the page cache. Sequential: all of them from front to back, each checked \
               and handed out as `Bytes`, up to 1 MiB a call. *pread* is the bare system call for the payload, without a check. \
               *mapped*: the sealed segments are mapped once the scrub has read them."
            .to_owned(),
        head: vec!["log", "random, p50", "random, p99", "sequential, entries/s"],
        rows: Vec::new(),
    };
    let ours = Threaded::open(&large.dir("raft-wal"), wal_log::options());
    let engine = RaftEngine::open(&large.dir("raft-engine"));
    let (okaywal, positions) = &large.okaywal;
    while !ours.wal.scrub_report().is_complete {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut random: [Samples; 4] = Default::default();
    let mut sequential: [Figures; 5] = Default::default();
    let physlog = &large.physlog;
    let mut state = 1_u64;
    for round in 0..=effort.opens {
        if round == 1 {
            // The first one brought everything into the page cache.
            random = Default::default();
            sequential = Default::default();
        }
        for _ in 0..4000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 33) % ENTRIES;
            let index = LogIndex(number + 1);
            random[0].time(|| physlog.pread(number, ENTRY_BYTES));
            random[1].time(|| ours.wal.read(index, index, usize::MAX).expect("it is there"));
            random[2].time(|| engine.engine.get_entry::<Eraftpb>(1, number + 1).expect("it is there"));
            let position = positions[usize::try_from(number).expect("a 64-bit machine")];
            random[3].time(|| {
                let mut reader = okaywal.0.read_at(position).expect("it is there");
                let mut payload = Vec::with_capacity(ENTRY_BYTES);
                reader.read_to_end(&mut payload).expect("it is there");
                assert!(reader.crc_is_valid().expect("it is there"), "the disk works");
                payload
            });
        }
        sequential[0].0.push(scan_physlog(physlog));
        sequential[1].0.push(scan(|next, bytes| {
            ours.wal.read(next, LogIndex(ENTRIES), bytes).expect("it is there").len()
        }));
        sequential[2].0.push(scan(|next, bytes| {
            let mut entries = Vec::new();
            let engine = &engine.engine;
            let fetched =
                engine.fetch_entries_to::<Eraftpb>(1, next.0, ENTRIES + 1, Some(bytes), &mut entries);
            fetched.expect("it is there")
        }));
    }
    ours.wal.close().expect("the disk works");
    // As plain calls the log scrubs nothing by itself, so nothing is mapped.
    let plain = WalLog::open(&large.dir("raft-wal"), wal_log::options());
    for _ in 0..effort.opens {
        sequential[3].0.push(scan_physlog(physlog));
        sequential[4].0.push(scan(|next, bytes| {
            plain.engine.read(next, LogIndex(ENTRIES), bytes).expect("it is there").len()
        }));
    }
    let [baseline, mapped, theirs, baseline_again, plain] = &sequential;
    let rates = [baseline.spread(0), plain.spread(0), theirs.spread(0), String::new()];
    let names = ["pread / physlog", "raft-wal", "raft-engine", "okaywal"];
    for ((name, samples), rate) in names.iter().zip(&mut random).zip(rates) {
        let (p50, p99) = (samples.quantile(0.5), samples.quantile(0.99));
        table.rows.push(vec![(*name).to_owned(), format!("{p50:.2}"), format!("{p99:.2}"), rate]);
    }
    table.rows.push(vec!["raft-wal, mapped".to_owned(), String::new(), String::new(), mapped.spread(0)]);
    report.tables.push(table);

    let to_pread = random[1].quantile(0.5) / random[0].quantile(0.5);
    report.goal("G7", "random read: <= 1.5 of a pread", format!("{to_pread:.2}"), to_pread <= 1.5);
    let (plain, mapped) = (plain.over(baseline_again).median(), mapped.over(baseline).median());
    report.goal(
        "G7",
        "sequential read: >= 0.9 of physlog",
        format!("{mapped:.2} mapped, {plain:.2} before the scrub has been there"),
        mapped >= 0.9 && plain >= 0.9,
    );
}

/// Entries a second from front to back, up to 1 MiB a call; `read` returns how many it got.
fn scan(mut read: impl FnMut(LogIndex, usize) -> usize) -> f64 {
    let start = Instant::now();
    let mut next = LogIndex(1);
    while next.0 <= ENTRIES {
        next = next.plus(read(next, 1 << 20) as u64);
    }
    ENTRIES as f64 / start.elapsed().as_secs_f64()
}

fn scan_physlog(physlog: &Physlog) -> f64 {
    let start = Instant::now();
    let mut entries: Vec<Bytes> = Vec::new();
    let count = physlog.scan(|payload| {
        entries.push(payload);
        if entries.len() == 1 << 10 {
            entries.clear();
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}

/// How a drop went.
#[derive(Default)]
struct Dropped {
    millis: Figures,
    before: Samples,
    meanwhile: Samples,
}

fn dropping(large: &Large, effort: &Effort, report: &mut Report) {
    let mut table = Table {
        title: "Dropping 0.9 GiB of prefix while one caller appends 1 KiB after the other",
        note: "*drop*: milliseconds from the call until the files are gone or set aside. The appends of the 200 ms from the call \
               on against those before it, microseconds."
            .to_owned(),
        head: vec!["log", "drop", "p50 before", "p50 meanwhile", "p99 before", "p99 meanwhile"],
        rows: Vec::new(),
    };
    let (mut ours, mut engine) = (Dropped::default(), Dropped::default());
    let mut wal = Threaded::open(&large.dir("raft-wal"), wal_log::options());
    let mut raft_engine = RaftEngine::open(&large.dir("raft-engine"));
    let payloads = payloads(usize::try_from(BATCH).expect("a small number"), ENTRY_BYTES);
    for round in 0..effort.drops {
        if round > 0 {
            for _ in 0..ENTRIES * 9 / 10 / BATCH {
                wal.append(&payloads);
                raft_engine.append(&payloads);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        drop_ours(&mut wal, &large.dir("raft-wal"), &mut ours);
        drop_raft_engine(&mut raft_engine, &mut engine);
    }
    for (name, Dropped { millis, before, meanwhile }) in
        [("raft-wal", &mut ours), ("raft-engine", &mut engine)]
    {
        let mut row = vec![name.to_owned(), millis.spread(1)];
        for part in [0.5, 0.99] {
            row.push(format!("{:.0}", before.quantile(part)));
            row.push(format!("{:.0}", meanwhile.quantile(part)));
        }
        table.rows.push(row);
    }
    report.tables.push(table);
    let millis = ours.millis.median();
    let p99 = ours.meanwhile.quantile(0.99) / ours.before.quantile(0.99);
    report.goal(
        "G8",
        "dropping 0.9 GiB: <= 30 ms; appends meanwhile <= 1.1 at p99",
        format!("{millis:.1} ms; p99 {p99:.2} over {} appends", ours.meanwhile.len()),
        millis <= 30.0 && p99 <= 1.1,
    );
}

/// Appends go on for so long before the drop, and after its begin.
const QUIET: Duration = Duration::from_millis(600);
const MEANWHILE: Duration = Duration::from_millis(200);

/// One caller appends all the while; `act` drops the prefix and returns when it is gone.
fn appending(log: &mut (impl Log + Send), act: impl FnOnce(), dropped: &mut Dropped) {
    let payload = [noise(ENTRY_BYTES)];
    let stop = AtomicBool::new(false);
    let (calls, began) = std::thread::scope(|scope| {
        let appender = scope.spawn(|| {
            let mut calls = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                log.append(&payload);
                calls.push((start, start.elapsed()));
            }
            calls
        });
        std::thread::sleep(QUIET);
        let began = Instant::now();
        act();
        dropped.millis.0.push(began.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep((began + MEANWHILE).saturating_duration_since(Instant::now()));
        stop.store(true, Ordering::Relaxed);
        (appender.join().expect("no thread panics"), began)
    });
    for (start, took) in calls {
        if start + took < began {
            dropped.before.push(took);
        } else {
            dropped.meanwhile.push(took);
        }
    }
}

fn drop_ours(log: &mut Threaded, dir: &Path, dropped: &mut Dropped) {
    let up_to = LogIndex(log.writes.last.0 - ENTRIES / 10);
    log.mark(up_to);
    let Threaded { wal, writes } = log;
    let wal = &*wal;
    let mut appender = Appender { wal, writes };
    let gone = || {
        let first = wal.stats().log_start;
        let kept = wal.stats().segments;
        let files = fs::read_dir(dir).expect("it is there").flatten();
        let names = files.filter(|file| file.file_name().to_string_lossy().starts_with("wal-"));
        // The one that is prepared, and a segment that may have begun meanwhile.
        first.index.0 + 70_000 > up_to.0 && names.count() as u64 <= kept + 2
    };
    appending(
        &mut appender,
        || {
            wal.compact(up_to);
            while !gone() {
                std::thread::sleep(Duration::from_micros(200));
            }
        },
        dropped,
    );
}

/// Appends through a log that somebody else holds as well.
struct Appender<'a> {
    wal: &'a raft_wal::Wal,
    writes: &'a mut wal_log::Writes,
}

impl Log for Appender<'_> {
    fn append(&mut self, payloads: &[Bytes]) {
        self.wal.submit(self.writes.append(payloads)).wait().expect("the disk works");
    }
}

fn drop_raft_engine(log: &mut RaftEngine, dropped: &mut Dropped) {
    let engine = std::sync::Arc::clone(&log.engine);
    let up_to = log.last - ENTRIES / 10;
    let act = || {
        engine.compact_to(1, up_to);
        engine.purge_expired_files().expect("the disk works");
    };
    appending(log, act, dropped);
}
