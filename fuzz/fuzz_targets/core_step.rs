//! One core among peers that say anything and with a caller that mixes everything up: `cargo fuzz run core_step`. It is held
//! to what a node owes whatever it is told; what only honest peers can expect is the business of `core_cluster`.
#![no_main]

#[path = "support/alone/mod.rs"]
mod alone;
#[path = "support/mistakes.rs"]
mod mistakes;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: mistakes::plant(), |plan: alone::Plan| alone::run(&plan));
