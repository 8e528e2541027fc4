//! A core that is told anything: `cargo fuzz run core_step`. Either one core among peers that lie and with a caller that
//! is confused, held to what a node owes whatever it is told; or whole clusters of honest cores whose network, disks,
//! crashes and confused callers are the input's choice, held to every rule that the simulation checks.
#![no_main]

#[path = "support/alone/mod.rs"]
mod alone;
#[path = "support/together.rs"]
mod together;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Plan {
    Alone(alone::Plan),
    Together(together::Plan),
}

fuzz_target!(init: plant(), |plan: Plan| match &plan {
    Plan::Alone(plan) => alone::run(plan),
    Plan::Together(plan) => together::run(plan),
});

/// With `--cfg raft_planted`, `RAFT_MISTAKE` names the mistake that has to be found.
fn plant() {
    #[cfg(raft_planted)]
    if let Ok(name) = std::env::var("RAFT_MISTAKE") {
        let mistake = raft_core::Mistake::ALL.iter().find(|(mistake, _)| format!("{mistake:?}") == name);
        raft_core::plant(mistake.expect("a mistake of raft-core/src/planted.rs").0);
    }
}
