//! Each of the 28 scenarios of the lab with one seed and both years' ways of restarting servers.

use raft_core::sim::lab::{Restart, SCENARIOS};

fn all_pass(restart: Restart) {
    for scenario in &SCENARIOS {
        let outcome = scenario.run(SEED, restart, false);
        assert_eq!(outcome.failure, None, "{} with seed {SEED}", scenario.name);
        assert!(outcome.rpcs > 0 && outcome.bytes > outcome.rpcs, "{} counts nothing", scenario.name);
        let commands = !scenario.name.ends_with("3A");
        assert_eq!(outcome.commands > 0, commands, "{} commits {}", scenario.name, outcome.commands);
    }
}

#[test]
fn every_scenario_passes_where_a_restart_heals_all_links() {
    all_pass(Restart::HealsAll);
}

#[test]
fn every_scenario_passes_where_a_restart_heals_its_own_links() {
    all_pass(Restart::OnlyItself);
}

#[test]
fn a_seed_determines_a_run() {
    let churn = SCENARIOS.iter().find(|scenario| scenario.name == "UnreliableChurn3C").expect("it is a row");
    let run = || churn.run(SEED, Restart::OnlyItself, true);
    let (first, second) = (run(), run());
    assert_eq!(first.micros, second.micros);
    assert!(first.trace == second.trace, "the same seed gave two different runs");
}

const SEED: u64 = 7;
