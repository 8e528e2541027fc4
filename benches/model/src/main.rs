//! Model checking of the real core: every interleaving of three nodes within bounds, explored to the end.
//!
//! ```text
//! cargo run --release -p raft-model -- elections
//! cargo run --release -p raft-model -- membership
//! RUSTFLAGS="--cfg raft_planted" cargo run --release -p raft-model -- planted
//! ```
//! `docs/MODEL.md` tells what is abstracted and why that is sound. It fails if a rule is broken, or if something that a
//! run has to see was never seen.
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]

mod arguments;
mod disk;
mod marks;
mod node;
#[cfg(raft_planted)]
mod planted;
mod rules;
mod run;
mod store;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments::parse() {
        Ok(arguments::Task::Explore(options)) => run::explore(&options).report(),
        Ok(arguments::Task::Planted(name)) => planted(name.as_deref()),
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(raft_planted)]
fn planted(name: Option<&str>) -> ExitCode {
    planted::search(name)
}

#[cfg(not(raft_planted))]
fn planted(_: Option<&str>) -> ExitCode {
    println!("no mistakes in this build: set RUSTFLAGS=\"--cfg raft_planted\"");
    ExitCode::from(2)
}
