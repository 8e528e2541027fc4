//! Plants each known mistake in turn and tells whether, by which rule and how fast the simulation finds it.
//!
//! ```text
//! RUSTFLAGS="--cfg raft_planted" cargo run --release -p raft-core --features sim --example planted
//! RUSTFLAGS="--cfg raft_planted" cargo run --release -p raft-core --features sim --example planted -- StaleCompletion
//! ```
//! It fails if one is not found within [`LIMIT_SECONDS`]. Built without the cfg it has nothing to plant.
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]

use std::process::ExitCode;

#[cfg(not(raft_planted))]
fn main() -> ExitCode {
    println!("no mistakes in this build: set RUSTFLAGS=\"--cfg raft_planted\"");
    ExitCode::from(2)
}

#[cfg(raft_planted)]
fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = names.as_slice()
        && flag == "--plant"
    {
        return planted::search(name);
    }
    planted::all(&names)
}

#[cfg(raft_planted)]
#[expect(clippy::disallowed_types, reason = "it measures how fast mistakes are found")]
mod planted {
    use std::{
        process::{Command, ExitCode, Stdio},
        time::{Duration, Instant},
    };

    use raft_core::{
        Mistake, plant,
        sim::{Faults, Options, Sim},
        unplant,
    };

    /// A mistake that is not found by then counts as missed.
    const LIMIT_SECONDS: u64 = 60;
    const STEPS: u64 = 4_000;
    /// The control: no mistake, and more seeds than any mistake should need.
    const NOTHING: &str = "nothing";
    const CONTROL_SEEDS: u64 = 200;

    /// Plants the named mistakes, or all, each in a process of its own: a mistake may end in a panic.
    pub(super) fn all(names: &[String]) -> ExitCode {
        let (mut planted, mut missed) = (0_u32, Vec::new());
        println!("| mistake | found by | seeds | seconds | what it is |\n|---|---|---|---|---|");
        for (mistake, text) in Mistake::ALL {
            let name = format!("{mistake:?}");
            if !names.is_empty() && !names.contains(&name) {
                continue;
            }
            planted += 1;
            let begin = Instant::now();
            let found = in_child(&name);
            let seconds = begin.elapsed().as_secs_f64();
            let (rule, seeds) = found.clone().unwrap_or(("**missed**".to_owned(), String::new()));
            println!("| {name} | {rule} | {seeds} | {seconds:.1} | {} |", text.trim());
            if found.is_none() {
                missed.push(name);
            }
        }
        // The same clusters without a mistake: whatever is found there was no finding above.
        let control = in_child(NOTHING);
        let found = if control.is_none() { "-" } else { "**something**" };
        println!("| none | {found} | {CONTROL_SEEDS} | | the control |");
        println!(
            "\n{} of {planted} found; missed: {missed:?}",
            planted - u32::try_from(missed.len()).unwrap_or(planted)
        );
        if planted > 0 && missed.is_empty() && control.is_none() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// The rule that found it and after how many seeds; `None` if nothing did.
    fn in_child(name: &str) -> Option<(String, String)> {
        let program = std::env::current_exe().ok()?;
        let output = Command::new(program).args(["--plant", name]).stderr(Stdio::piped()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.lines().last().unwrap_or_default().split(' ');
        match (words.next(), words.next(), output.status.code()) {
            (Some("found"), Some(rule), Some(0)) => Some((rule.to_owned(), words.next()?.to_owned())),
            // No exit code: it was ended by a signal, as a panic does in a release build.
            (_, _, None | Some(101)) => Some(("panic".to_owned(), String::new())),
            _ => None,
        }
    }

    fn sim_options(nodes: usize, seed: u64) -> Options {
        Options { nodes, seed, faults: Faults::Storms }
    }

    /// Simulates clusters of three and five with one mistake until a rule names it.
    pub(super) fn search(name: &str) -> ExitCode {
        let chosen = Mistake::ALL.iter().find(|(mistake, _)| format!("{mistake:?}") == name);
        let seeds = match chosen {
            Some((mistake, _)) => {
                plant(*mistake);
                u64::MAX
            }
            None if name == NOTHING => CONTROL_SEEDS,
            None => {
                println!("there is no mistake {name}");
                return ExitCode::from(2);
            }
        };
        let begin = Instant::now();
        for seed in 0..seeds {
            if chosen.is_some() && begin.elapsed() > Duration::from_secs(LIMIT_SECONDS) {
                break;
            }
            let nodes = if seed % 2 == 0 { 3 } else { 5 };
            let mut sim = Sim::new(sim_options(nodes, seed));
            if let Err(failure) = sim.run(STEPS) {
                // What breaks without the mistake as well is no finding: the rule or the core is wrong.
                unplant();
                if let Err(failure) = Sim::new(sim_options(nodes, seed)).run(STEPS) {
                    println!("{failure}");
                    println!("broken {} without the mistake", failure.violation.rule);
                    return ExitCode::FAILURE;
                }
                println!("{failure}");
                println!("found {} {}", failure.violation.rule, seed + 1);
                return ExitCode::SUCCESS;
            }
        }
        ExitCode::FAILURE
    }
}
