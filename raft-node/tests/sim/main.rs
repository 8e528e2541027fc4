//! Whole nodes in a simulation: the product's replica, log, snapshots, store, data directory and founding, in one
//! thread, on virtual time, simulated disks and a simulated network. Every answer a client got is checked.
//!
//! `RAFT_NODE_SEEDS=N` sets how many seeds each size of cluster runs, `RAFT_NODE_FIRST_SEED` where they begin.

#![cfg(test)]
#![allow(clippy::print_stdout, reason = "traces and what was covered")]

#[path = "../history/mod.rs"]
mod history;

mod bad_histories;
mod clients;
mod coverage;
mod faults;
mod ghost;
mod network;
mod node;
mod random;
mod storage;
mod world;

use coverage::Coverage;
use world::{Options, World};

/// Seeds that `cargo test` runs for each size of cluster.
const SEEDS: u64 = 60;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(options: Options) -> Coverage {
    let mut world = World::new(options);
    // A panic somewhere in the product must name its seed as well.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let failure = match outcome {
        Ok(Ok(())) => return world.coverage,
        Ok(Err(failure)) => failure,
        Err(_) => "panicked".to_owned(),
    };
    for line in world.take_trace() {
        println!("{line}");
    }
    panic!(
        "{failure}\nat {} ms, step {}, of seed {} with {} nodes; replay it, with a trace, by\n\
         RAFT_NODE_SEED={} RAFT_NODE_NODES={} cargo test -p raft-node --test sim one_seed_again -- --ignored --nocapture",
        world.now / 1000,
        world.steps,
        options.seed,
        options.nodes,
        options.seed,
        options.nodes,
    );
}

fn runs(nodes: usize, first: u64, seeds: u64) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in first..first + seeds {
        coverage.merge(&run(Options { nodes, seed, trace: false }));
    }
    println!("{nodes} nodes, {seeds} seeds: {coverage:?}");
    coverage
}

#[test]
fn three_and_five_nodes_in_storms_stay_linearizable() {
    let first = setting("RAFT_NODE_FIRST_SEED").unwrap_or(0);
    let seeds = setting("RAFT_NODE_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    std::thread::scope(|scope| {
        let sizes = [3, 5].map(|nodes| scope.spawn(move || runs(nodes, first, seeds)));
        for size in sizes {
            coverage.merge(&size.join().unwrap());
        }
    });
    if seeds >= SEEDS {
        assert_eq!(coverage.missing(), [], "these never occurred, so nothing was tested by them");
    }
}

#[test]
fn a_seed_determines_everything() {
    let trace = || {
        let mut world = World::new(Options { nodes: 3, seed: 3, trace: true });
        world.run().unwrap();
        world.take_trace()
    };
    assert!(trace() == trace(), "the same seed gave two different runs");
}

#[test]
#[ignore = "plays one seed again: RAFT_NODE_SEED, RAFT_NODE_NODES"]
fn one_seed_again() {
    let nodes = usize::try_from(setting("RAFT_NODE_NODES").unwrap_or(3)).unwrap();
    let seed = setting("RAFT_NODE_SEED").expect("RAFT_NODE_SEED says which");
    run(Options { nodes, seed, trace: true });
}
