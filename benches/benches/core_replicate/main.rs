//! Entries committed and applied by three nodes in one process: raft-core beside raft-rs and openraft.
//!
//! The same work for all: `batch` commands of 128 bytes are handed to the leader and driven until they are committed,
//! then the next batch; at the end all three nodes have applied everything. No disk and no network, so that what is
//! measured is the algorithm's own work. The contenders take turns and each figure is a median over the rounds: a
//! machine that is shared slows all of them alike. Allocations are counted in rounds of their own.
//!
//! `cargo bench -p raft-benches --bench core_replicate`, with `-- --rounds N` for more rounds, `--batch N` for one size
//! and `--only NAME` for one contender, as a profile wants it.

mod openraft_peer;
mod ours;
mod raft_rs;

use std::{io::Write, time::Instant};

use allocation_counter::AllocationInfo;
use bytes::Bytes;

/// Nodes of each cluster.
const NODE_COUNT: usize = 3;
/// Their ids count up to this.
const NODES: u64 = NODE_COUNT as u64;
/// Bytes of one command.
const PAYLOAD_BYTES: usize = 128;
/// Entries each node keeps in memory.
const MEMORY_ENTRIES: usize = 16_384;
/// Commands of one round of one contender.
const ROUND_ENTRIES: usize = 65_536;

/// A cluster that is ready to take commands.
trait Cluster {
    /// Commits `batches` times `batch` commands and returns once all nodes have applied them.
    fn replicate(&mut self, payload: &Bytes, batch: usize, batches: usize);
}

struct Contender {
    name: &'static str,
    cluster: Box<dyn Cluster>,
    /// It gets this part of the work, since it would hold up the rest.
    share: usize,
    rates: Vec<f64>,
}

impl Contender {
    fn new(name: &'static str, share: usize, cluster: impl Cluster + 'static) -> Contender {
        Contender { name, cluster: Box::new(cluster), share, rates: Vec::new() }
    }

    fn round(&mut self, payload: &Bytes, batch: usize) {
        let batches = ROUND_ENTRIES / self.share / batch;
        let start = Instant::now();
        self.cluster.replicate(payload, batch, batches);
        self.rates.push((batches * batch) as f64 / start.elapsed().as_secs_f64());
    }

    fn allocations(&mut self, payload: &Bytes, batch: usize) -> (f64, f64) {
        let batches = (ROUND_ENTRIES / self.share / batch).min(1024);
        let work = || self.cluster.replicate(payload, batch, batches);
        let AllocationInfo { count_total, bytes_total, .. } = allocation_counter::measure(work);
        let entries = (batches * batch) as f64;
        (count_total as f64 / entries, bytes_total as f64 / entries)
    }
}

/// The median, the least and the largest of some rates.
fn spread(rates: &mut [f64]) -> (f64, f64, f64) {
    rates.sort_by(f64::total_cmp);
    (rates[rates.len() / 2], rates[0], rates[rates.len() - 1])
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let option = |name| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name| option(name).and_then(|value| value.parse::<usize>().ok());
    let rounds = number("--rounds").unwrap_or(15);
    let batches = number("--batch").map_or_else(|| vec![1, 16, 256], |batch| vec![batch]);
    let payload = Bytes::from(vec![0x5A; PAYLOAD_BYTES]);
    let mut out = std::io::stdout().lock();
    for batch in batches {
        let mut contenders = vec![
            Contender::new("raft-core", 1, ours::Ours::new()),
            Contender::new("raft-rs, tuned", 1, raft_rs::RaftRs::new(raft_rs::Mode::Best)),
            Contender::new("raft-rs, as it comes", 4, raft_rs::RaftRs::new(raft_rs::Mode::Untuned)),
            Contender::new("openraft", 16, openraft_peer::Openraft::new()),
        ];
        if let Some(only) = option("--only") {
            contenders.retain(|contender| contender.name == only);
        }
        // The first round only warms up.
        for round in 0..=rounds {
            for contender in &mut contenders {
                contender.round(&payload, batch);
                if round == 0 {
                    contender.rates.clear();
                }
            }
        }
        writeln!(
            out,
            "batches of {batch}: entries/s (least to most of {rounds} rounds), allocations and bytes an entry"
        )?;
        let mut base = None;
        for contender in &mut contenders {
            let (median, least, most) = spread(&mut contender.rates);
            let (count, bytes) = contender.allocations(&payload, batch);
            let ours = *base.get_or_insert(median);
            writeln!(
                out,
                "  {:<22}{median:>12.0}  ({least:.0} to {most:.0})  raft-core {:.2}x  {count:>7.2} allocations {bytes:>7.0} B",
                contender.name,
                ours / median,
            )?;
        }
    }
    Ok(())
}
