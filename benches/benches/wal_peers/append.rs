//! G1, G2, G3: one caller, one durable batch after the other; and G5: the bytes that this sends to the device.

use std::{path::Path, time::Instant};

use bytes::Bytes;
use raft_benches::{payloads, physlog::Physlog, wal_log::WalLog};

use crate::{
    Effort,
    contenders::{FILE_BYTES, Log, Okaywal, RaftEngine, Threaded, recycling},
    measure::{Device, Figures, Samples},
    report::{Group, Report, Table},
};

struct Contender {
    name: &'static str,
    log: Box<dyn Log>,
    samples: Samples,
    rates: Figures,
}

const OURS: usize = 1;
const THREADED: usize = 2;
const RAFT_ENGINE: usize = 3;
const RAFT_ENGINE_DEFAULT: usize = 4;
const OKAYWAL: usize = 5;
const OKAYWAL_DEFAULT: usize = 6;

fn contenders(dir: &Path) -> Vec<Contender> {
    let contender = |name, log: Box<dyn Log>| Contender {
        name,
        log,
        samples: Samples::default(),
        rates: Figures::default(),
    };
    vec![
        contender("physlog", Box::new(Physlog::create(&dir.join("physlog"), FILE_BYTES))),
        contender("raft-wal", Box::new(WalLog::open(&dir.join("raft-wal"), recycling()))),
        contender("raft-wal, its thread", Box::new(Threaded::open(&dir.join("threaded"), recycling()))),
        contender("raft-engine", Box::new(RaftEngine::recycling(&dir.join("raft-engine")))),
        contender(
            "raft-engine, as it comes",
            Box::new(RaftEngine::as_it_comes(&dir.join("raft-engine-default"))),
        ),
        contender("okaywal", Box::new(Okaywal::open(&dir.join("okaywal"), FILE_BYTES))),
        contender("okaywal, as it comes", Box::new(Okaywal::as_it_comes(&dir.join("okaywal-default")))),
    ]
}

pub(crate) fn run(dir: &Path, effort: &Effort, report: &mut Report) {
    let mut table = Table {
        title: "One caller, one durable batch after the other",
        note: "*raft-wal* is the log as plain calls on the caller's thread (`Engine`), as every other log here works; \
               *its thread* is `Wal`, which hands each batch to its writer and waits for the ticket. *raft-engine* and \
               *okaywal* are in their best modes (files of 64 MiB filled or allocated beforehand, no compression, buffers of \
               256 KiB), *as it comes* with the settings they have by themselves. Latencies in microseconds; ratios are medians over the rounds, with the least and the largest."
            .to_owned(),
        head: vec!["batch", "log", "batches/s", "p50", "p99", "to physlog", "to raft-engine"],
        rows: Vec::new(),
    };
    for (name, count, bytes) in [
        ("256 B", 1, 256),
        ("1 KiB", 1, 1 << 10),
        ("4 KiB", 1, 4 << 10),
        ("16 KiB", 1, 16 << 10),
        ("64 KiB", 1, 64 << 10),
        ("64 x 1 KiB", 64, 1 << 10),
        ("64 x 256 B", 64, 256),
    ] {
        let payloads = payloads(count, bytes);
        let place = tempfile::tempdir_in(dir).expect("a temporary directory");
        let mut logs = contenders(place.path());
        for round in 0..=effort.rounds {
            take_turns(&mut logs, &payloads, effort.appends);
            if round == 0 {
                for log in &mut logs {
                    (log.samples, log.rates) = Default::default();
                }
            }
        }
        tell(name, count, &mut logs, &mut table, report);
    }
    report.tables.push(table);
}

/// One append of each, in another order every time, so that all see the same disk.
fn take_turns(logs: &mut [Contender], payloads: &[Bytes], appends: usize) {
    let mut totals = vec![0.0; logs.len()];
    for turn in 0..appends {
        for step in 0..logs.len() {
            let step = if turn % 2 == 0 { step } else { logs.len() - step };
            let at = (turn + step) % logs.len();
            let log = &mut logs[at];
            let start = Instant::now();
            log.log.append(payloads);
            let took = start.elapsed();
            log.samples.push(took);
            totals[at] += took.as_secs_f64();
        }
    }
    for (log, total) in logs.iter_mut().zip(totals) {
        log.rates.0.push(appends as f64 / total);
        log.log.recycle();
    }
}

fn tell(name: &str, count: usize, logs: &mut [Contender], table: &mut Table, report: &mut Report) {
    let rates: Vec<Figures> = logs.iter().map(|log| log.rates.clone()).collect();
    let p99s: Vec<f64> = logs.iter_mut().map(|log| log.samples.quantile(0.99)).collect();
    let physlog = &rates[0];
    for (log, rate) in logs.iter_mut().zip(&rates) {
        table.rows.push(vec![
            name.to_owned(),
            log.name.to_owned(),
            format!("{:.0}", rate.median()),
            format!("{:.0}", log.samples.quantile(0.5)),
            format!("{:.0}", log.samples.quantile(0.99)),
            rate.over(physlog).spread(2),
            format!("{:.2}", rate.over(&rates[RAFT_ENGINE]).median()),
        ]);
    }
    let bars = logs.iter().zip(&rates).map(|(log, rate)| (log.name, rate.over(physlog).median()));
    report.groups.push(Group { name: name.to_owned(), bars: bars.collect() });

    let to_physlog = rates[OURS].over(physlog);
    let to_prefilled = rates[OURS].over(&rates[RAFT_ENGINE]).median();
    let to_raft_engine = rates[OURS].over(&rates[RAFT_ENGINE_DEFAULT]).median();
    let to_raft_engine_told =
        format!("{to_raft_engine:.2}, and {to_prefilled:.2} of it with files filled beforehand");
    let threaded = rates[THREADED].over(physlog).median();
    let measured = |rest: String| {
        format!("{} of physlog, through its thread {threaded:.2}; {rest}", to_physlog.spread(2))
    };
    if count == 1 {
        let p99 = p99s[OURS] / p99s[0];
        report.goal(
            "G1",
            format!("one append of {name}: >= 0.95 of physlog, p99 <= 1.1 of its"),
            measured(format!("p99 {p99:.2}")),
            to_physlog.median() >= 0.95 && p99 <= 1.1,
        );
        let wanted = match name {
            "16 KiB" => 1.6,
            "64 KiB" => 1.5,
            _ => 0.95,
        };
        report.goal(
            "G2",
            format!("one append of {name}: >= {wanted} of raft-engine as it comes"),
            to_raft_engine_told,
            to_raft_engine >= wanted,
        );
    } else if name == "64 x 1 KiB" {
        let to_okaywal = rates[OURS].over(&rates[OKAYWAL]).median();
        let to_default = rates[OURS].over(&rates[OKAYWAL_DEFAULT]).median();
        report.goal(
            "G3",
            format!("{name} a flush: >= 0.95 of physlog, >= 1.75 of raft-engine and >= 1.5 of okaywal as they come"),
            measured(format!("raft-engine: {to_raft_engine_told}; okaywal: {to_default:.2} as it comes, {to_okaywal:.2} with larger files and buffers")),
            to_physlog.median() >= 0.95 && to_raft_engine >= 1.75 && to_default >= 1.5,
        );
    }
}

/// Bytes to the device for each byte of payload, no segment being prepared meanwhile.
pub(crate) fn bytes(dir: &Path, report: &mut Report) {
    let mut table = Table {
        title: "Bytes to the device for each byte of payload",
        note: "Sectors that the disk was given, the file system's journal included (`/sys/dev/block`), in 60 windows of 50 \
               appends (20 with batches). Others write to the disk as well, so the figure is the least decile of the windows, \
               with the median behind it. Nothing is prepared meanwhile: a new segment of 64 MiB costs 64 MiB of zeroes once, a \
               recycled one three pages."
            .to_owned(),
        head: vec!["log", "1 KiB", "64 x 1 KiB"],
        rows: Vec::new(),
    };
    let place = tempfile::tempdir_in(dir).expect("a temporary directory");
    let device = Device::of(place.path());
    let mut logs = contenders(place.path());
    // The threaded log's helper prepares its next file at once; that is not to be counted.
    while !place.path().join("threaded/wal-0000000000000002.log").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for log in &mut logs {
        let [single, many] = [(1, 50), (64, 20)].map(|(count, times)| {
            let payloads = payloads(count, 1 << 10);
            let mut windows = Figures::default();
            for _ in 0..60 {
                let before = device.written_bytes();
                for _ in 0..times {
                    log.log.append(&payloads);
                }
                let payload = (count << 10) as f64 * f64::from(times);
                windows.0.push((device.written_bytes() - before) as f64 / payload);
            }
            (windows.least_decile(), windows.median())
        });
        if log.name == "raft-wal" {
            let (single, many) = (single.0, many.0);
            report.goal(
                "G5",
                "bytes for 1 KiB alone: <= 5.3 of the payload",
                format!("{single:.2}"),
                single <= 5.3,
            );
            report.goal(
                "G5",
                "bytes for 64 x 1 KiB: <= 1.10 of the payload",
                format!("{many:.3}"),
                many <= 1.10,
            );
        }
        table.rows.push(vec![
            log.name.to_owned(),
            format!("{:.2} ({:.2})", single.0, single.1),
            format!("{:.3} ({:.3})", many.0, many.1),
        ]);
    }
    report.tables.push(table);
}
