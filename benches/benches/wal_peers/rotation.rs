//! G9: what the change of segments costs the slowest appends.

use std::path::Path;

use raft_benches::{noise, wal_log};
use raft_wal::{Options, SEGMENT_BYTES_MAX};

use crate::{
    Effort,
    contenders::{FILE_BYTES, Log, Threaded, recycling},
    measure::Samples,
    report::{Report, Table},
};

const ENTRY_BYTES: usize = 16 << 10;
/// Appends at a stretch: a quarter of a segment.
const STRETCH: usize = 1000;

pub(crate) fn run(dir: &Path, effort: &Effort, report: &mut Report) {
    let mut table = Table {
        title: "Change of segments, 16 KiB an append through the writer's thread",
        note: "Segments of 64 MiB against one of 1 GiB that never changes, by turns of 1000 appends. *recycled*: the prefix is \
               dropped now and then, so that a former segment is used again; *new*: each segment is filled with zeroes in \
               the background. Microseconds."
            .to_owned(),
        head: vec!["log", "changes", "p50", "p99", "p99.9", "slowest"],
        rows: Vec::new(),
    };
    let place = tempfile::tempdir_in(dir).expect("a temporary directory");
    let open = |name: &str, options| Threaded::open(&place.path().join(name), options);
    let once = Options { segment_bytes: SEGMENT_BYTES_MAX, ..wal_log::options() };
    let mut logs = [
        ("one segment", open("once", once), Samples::default()),
        ("recycled", open("recycled", recycling()), Samples::default()),
        ("new", open("new", wal_log::options()), Samples::default()),
    ];
    let payload = [noise(ENTRY_BYTES)];
    let stretches = effort.rotations * usize::try_from(FILE_BYTES).expect("a 64-bit machine")
        / (ENTRY_BYTES * STRETCH)
        + 1;
    // A first segment for the recycled log to use again.
    for _ in 0..6 * STRETCH {
        logs[1].1.append(&payload);
    }
    logs[1].1.recycle();
    for _ in 0..stretches {
        for (name, log, samples) in &mut logs {
            for _ in 0..STRETCH {
                samples.time(|| log.append(&payload));
            }
            if *name == "recycled" {
                log.recycle();
            }
        }
    }
    for (name, log, samples) in &mut logs {
        let changes = samples.len() * ENTRY_BYTES / usize::try_from(FILE_BYTES).expect("a 64-bit machine");
        let changes = if *name == "one segment" { 0 } else { changes };
        let mut row = vec![(*name).to_owned(), changes.to_string()];
        row.extend([0.5, 0.99, 0.999, 1.0].map(|part| format!("{:.0}", samples.quantile(part))));
        table.rows.push(row);
        log.wal.close().expect("the disk works");
    }
    report.tables.push(table);
    let p99 = logs[0].2.quantile(0.99);
    let without = logs[0].2.quantile(0.999) / p99;
    let (recycled, new) = (logs[1].2.quantile(0.999) / p99, logs[2].2.quantile(0.999) / p99);
    report.goal(
        "G9",
        "p99.9 over the changes of segments: <= 2 of p99 without",
        format!("{recycled:.2} recycled, {new:.2} new; {without:.2} without any change"),
        recycled <= 2.0 && new <= 2.0,
    );
}
