//! G4: many who append one entry each and wait for it, again and again.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use raft_benches::{noise, wal_log::WalLog};
use raft_wal::Wal;

use crate::{
    Effort,
    contenders::{FILE_BYTES, Log, Okaywal, RaftEngine, Threaded, recycling},
    measure::{Figures, Samples},
    report::{Group, Report, Table},
};

/// What all appenders did in one round.
struct Round {
    rate: f64,
    latencies: Vec<Duration>,
}

/// One way of appending, and what it reached.
#[derive(Default)]
struct Tally {
    rates: Figures,
    samples: Samples,
}

impl Tally {
    fn add(&mut self, round: &Round) {
        self.rates.0.push(round.rate);
        self.samples.extend(&round.latencies);
    }
}

const BATCH: usize = 64;

pub(crate) fn run(dir: &Path, effort: &Effort, report: &mut Report) {
    let mut table = Table {
        title: "Many who wait for one entry each",
        note: "raft-wal: futures on one thread, and its writer's. The peers: a thread for each. *one caller, 64 a flush*: what \
               one caller of raft-wal reaches who has 64 entries at once. Latencies in microseconds."
            .to_owned(),
        head: vec!["entry", "log", "appenders", "entries/s", "p50", "p99"],
        rows: Vec::new(),
    };
    for (name, bytes) in [("256 B", 256), ("1 KiB", 1 << 10)] {
        let place = tempfile::tempdir_in(dir).expect("a temporary directory");
        let payload = noise(bytes);
        let mut ours = Ours::open(&place.path().join("raft-wal"));
        let mut batches = WalLog::open(&place.path().join("batches"), recycling());
        let mut engine = RaftEngine::recycling(&place.path().join("raft-engine"));
        let okaywal = Okaywal::open(&place.path().join("okaywal"), FILE_BYTES);
        let mut tallies: Vec<Tally> = std::iter::repeat_with(Tally::default).take(7).collect();
        for round in 0..=effort.rounds {
            let done = [
                batch_rate(&mut batches, &payload, effort.slice),
                ours.round(64, &payload, effort.slice),
                ours.round(256, &payload, effort.slice),
                raft_engine(&mut engine, 64, &payload, effort.slice),
                raft_engine(&mut engine, 256, &payload, effort.slice),
                in_threads(64, effort.slice, |_| (okaywal.clone(), payload.clone())),
                in_threads(256, effort.slice, |_| (okaywal.clone(), payload.clone())),
            ];
            if round > 0 {
                tallies.iter_mut().zip(&done).for_each(|(tally, round)| tally.add(round));
            }
        }
        tell(name, &mut tallies, &mut table, report);
    }
    report.tables.push(table);
}

fn tell(name: &str, tallies: &mut [Tally], table: &mut Table, report: &mut Report) {
    let labels = [
        ("raft-wal", "one caller, 64 a flush"),
        ("raft-wal", "64"),
        ("raft-wal", "256"),
        ("raft-engine", "64"),
        ("raft-engine", "256"),
        ("okaywal", "64"),
        ("okaywal", "256"),
    ];
    let quantiles: Vec<(f64, f64)> =
        tallies.iter_mut().map(|tally| (tally.samples.quantile(0.5), tally.samples.quantile(0.99))).collect();
    for ((tally, (log, appenders)), (p50, p99)) in tallies.iter().zip(labels).zip(&quantiles) {
        table.rows.push(vec![
            name.to_owned(),
            log.to_owned(),
            appenders.to_owned(),
            tally.rates.spread(0),
            format!("{p50:.0}"),
            format!("{p99:.0}"),
        ]);
    }
    let [batch, ours, ours_256, engine, engine_256, okaywal, okaywal_256] = tallies else { return };
    let best = Figures(engine.rates.0.iter().zip(&engine_256.rates.0).map(|(a, b)| a.max(*b)).collect());
    let to_engine = ours.rates.over(&best).median();
    let to_batch = ours.rates.over(&batch.rates).median();
    let to_64 = ours_256.rates.over(&ours.rates).median();
    let tail = |place: usize| quantiles[place].1 / quantiles[place].0;
    report.goal(
        "G4",
        format!("64 appenders of {name}: >= 2 of raft-engine's best"),
        format!("{to_engine:.2}"),
        to_engine >= 2.0,
    );
    report.goal(
        "G4",
        format!("64 appenders of {name}: >= 0.6 of the rate of 64-entry batches"),
        format!("{to_batch:.2}"),
        to_batch >= 0.6,
    );
    report.goal(
        "G4",
        format!("256 appenders of {name}: no lower than 64; p99 <= 5 times p50"),
        format!("{to_64:.2}; p99 {:.1} times p50 with 64, {:.1} with 256", tail(1), tail(2)),
        to_64 >= 1.0 && tail(1) <= 5.0 && tail(2) <= 5.0,
    );
    let to_batch = |tally: &Tally| tally.rates.over(&batch.rates).median();
    for (appenders, [ours, engine, okaywal]) in
        [("64", [ours, engine, okaywal]), ("256", [ours_256, engine_256, okaywal_256])]
    {
        report.groups.push(Group {
            name: format!("{appenders} appenders, {name} (*)"),
            bars: vec![
                ("raft-wal, its thread", to_batch(ours)),
                ("raft-engine", to_batch(engine)),
                ("okaywal", to_batch(okaywal)),
            ],
        });
    }
}

/// What one caller with 64 entries a flush reaches.
fn batch_rate(log: &mut WalLog, payload: &Bytes, slice: Duration) -> Round {
    let payloads = vec![payload.clone(); BATCH];
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < slice {
        let began = Instant::now();
        log.append(&payloads);
        latencies.push(began.elapsed());
    }
    let rate = (latencies.len() * BATCH) as f64 / start.elapsed().as_secs_f64();
    log.recycle();
    Round { rate, latencies }
}

/// raft-wal and a runtime of one thread.
struct Ours {
    log: Arc<(Wal, Mutex<raft_benches::wal_log::Writes>)>,
    runtime: tokio::runtime::Runtime,
}

impl Ours {
    fn open(dir: &Path) -> Ours {
        let Threaded { wal, writes } = Threaded::open(dir, recycling());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Ours { log: Arc::new((wal, Mutex::new(writes))), runtime }
    }

    fn round(&mut self, appenders: usize, payload: &Bytes, slice: Duration) -> Round {
        let start = Instant::now();
        let latencies = self.runtime.block_on(async {
            let tasks: Vec<_> = (0..appenders)
                .map(|_| {
                    let (log, payload) = (Arc::clone(&self.log), payload.clone());
                    tokio::spawn(async move {
                        let mut latencies = Vec::new();
                        while start.elapsed() < slice {
                            let began = Instant::now();
                            let ticket = {
                                let mut writes = log.1.lock().unwrap_or_else(PoisonError::into_inner);
                                log.0.submit(writes.append(std::slice::from_ref(&payload)))
                            };
                            ticket.await.expect("the disk works");
                            latencies.push(began.elapsed());
                        }
                        latencies
                    })
                })
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await.expect("no task panics"));
            }
            all
        });
        let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
        let mut writes = self.log.1.lock().unwrap_or_else(PoisonError::into_inner);
        let last = writes.last;
        self.log.0.submit(writes.mark(last)).wait().expect("the disk works");
        self.log.0.compact(last);
        Round { rate, latencies }
    }
}

fn raft_engine(log: &mut RaftEngine, appenders: usize, payload: &Bytes, slice: Duration) -> Round {
    let engine = &log.engine;
    let round = in_threads(appenders, slice, |number| {
        (RaftEngine::of(Arc::clone(engine), 1 + number as u64), payload.clone())
    });
    RaftEngine::purge(engine);
    round
}

/// Every appender is a thread of its own.
fn in_threads<L: Log + Send>(appenders: usize, slice: Duration, make: impl Fn(usize) -> (L, Bytes)) -> Round {
    let logs: Vec<_> = (0..appenders).map(make).collect();
    let start = Instant::now();
    let latencies: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = logs
            .into_iter()
            .map(|(mut log, payload)| {
                scope.spawn(move || {
                    let mut latencies = Vec::new();
                    while start.elapsed() < slice {
                        let began = Instant::now();
                        log.append(std::slice::from_ref(&payload));
                        latencies.push(began.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect()
    });
    Round { rate: latencies.len() as f64 / start.elapsed().as_secs_f64(), latencies }
}
