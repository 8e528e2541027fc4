//! A bounded number of simulated runs: enough to meet every fault and every rule's precondition.

use raft_core::sim::{Coverage, Faults, Options, Sim};

fn runs(nodes: usize, seeds: std::ops::Range<u64>, steps: u64) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let mut sim = Sim::new(Options { nodes, seed, faults: Faults::Storms });
        if let Err(failure) = sim.run(steps) {
            panic!("{failure}");
        }
        coverage.merge(sim.coverage());
    }
    coverage
}

#[test]
fn three_nodes_keep_every_rule_in_storms() {
    let coverage = runs(3, 0..SEEDS, STEPS);
    assert_eq!(coverage.missing(), [], "these never occurred, so their rules were not tested");
}

#[test]
fn five_nodes_keep_every_rule_in_storms() {
    let coverage = runs(5, 0..SEEDS, STEPS);
    assert_eq!(coverage.missing(), [], "these never occurred, so their rules were not tested");
}

#[test]
fn a_seed_determines_everything() {
    let run = || {
        let mut sim = Sim::new(Options { nodes: 3, seed: 7, faults: Faults::Storms });
        sim.enable_trace();
        sim.run(2000).expect("no rule is broken");
        sim.take_trace()
    };
    assert!(run() == run(), "the same seed gave two different runs");
}

#[test]
fn a_quiet_cluster_commits_and_keeps_its_leader() {
    let mut sim = Sim::new(Options { nodes: 3, seed: 1, faults: Faults::None });
    sim.run(20_000).expect("no rule is broken");
    assert!(sim.committed() > 100, "only {} entries were committed", sim.committed());
}

const SEEDS: u64 = 300;
const STEPS: u64 = 4_000;
