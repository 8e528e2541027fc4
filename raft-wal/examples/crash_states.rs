//! Tries crash states of generated workloads on the simulated disk until there were enough of them.
//!
//! ```text
//! cargo run --release -p raft-wal --features sim --example crash_states -- --workloads 200 --states 1000000
//! cargo run --release -p raft-wal --features sim --example crash_states -- --first-seed 17 --workloads 1
//! ```
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use raft_wal::model::{Plan, explore};

const USAGE: &str = "crash_states [--first-seed N] [--workloads N] [--states N] [--seconds N] [--threads N]";

fn plan() -> Result<Plan, String> {
    let mut plan = Plan {
        first_seed: 1,
        workloads: 200,
        states: 0,
        until: Instant::now() + Duration::from_secs(3600),
        threads: 2,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a number"))?;
        let number: u64 = value.replace('_', "").parse().map_err(|_| format!("{value} is no number"))?;
        match word.as_str() {
            "--first-seed" => plan.first_seed = number,
            "--workloads" => plan.workloads = number,
            "--states" => plan.states = number,
            "--seconds" => plan.until = Instant::now() + Duration::from_secs(number),
            "--threads" => plan.threads = usize::try_from(number).map_err(|error| error.to_string())?,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(plan)
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(error) => {
            println!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let tally = match explore(&plan) {
        Ok(tally) => tally,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{tally:#?}\n{:.0} s", started.elapsed().as_secs_f64());
    if tally.states < plan.states || tally.workloads < plan.workloads {
        println!("not enough: {} states and {} workloads were asked for", plan.states, plan.workloads);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
