//! Runs the simulation over many seeds, or plays one again.
//!
//! ```text
//! cargo run --release -p raft-core --features sim --example simulate -- --nodes 3 --seeds 1000
//! cargo run --release -p raft-core --features sim --example simulate -- --nodes 5 --seed 17 --steps 5000 --trace
//! cargo run --release -p raft-core --features sim --example simulate -- --idle
//! ```
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]
#![expect(clippy::disallowed_types, reason = "it measures how fast the simulation runs")]

use std::{process::ExitCode, time::Instant};

use raft_core::sim::{Coverage, Failure, Faults, Mark, Options, Sim};

struct Arguments {
    nodes: usize,
    first: u64,
    seeds: u64,
    steps: u64,
    /// Stop starting new seeds after this many steps in all.
    total_steps: u64,
    trace: bool,
    idle: bool,
}

const USAGE: &str = "simulate [--nodes N] [--seed N] [--first N] [--seeds N] [--steps N] [--total-steps N] \
                     [--trace] [--idle]";

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        nodes: 3,
        first: 1,
        seeds: 100,
        steps: 10_000,
        total_steps: u64::MAX,
        trace: false,
        idle: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value.replace('_', "").parse().map_err(|_| format!("{value} is no number"))
        };
        match word.as_str() {
            "--nodes" => arguments.nodes = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--seed" => (arguments.first, arguments.seeds) = (number()?, 1),
            "--first" => arguments.first = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--steps" => arguments.steps = number()?,
            "--total-steps" => arguments.total_steps = number()?,
            "--trace" => arguments.trace = true,
            "--idle" => arguments.idle = true,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    if !(2..=9).contains(&arguments.nodes) {
        return Err("--nodes must be 2 to 9".to_owned());
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let begin = Instant::now();
    let mut coverage = Coverage::default();
    let (mut runs, mut steps, mut micros, mut committed) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if steps >= arguments.total_steps {
            break;
        }
        let faults = if arguments.idle { Faults::None } else { Faults::Storms };
        let mut sim = Sim::new(Options { nodes: arguments.nodes, seed, faults });
        if let Err(failure) = run(&mut sim, &arguments) {
            println!("{failure}");
            return ExitCode::FAILURE;
        }
        runs += 1;
        steps += sim.steps();
        micros += sim.elapsed_micros();
        committed += sim.committed();
        coverage.merge(sim.coverage());
    }
    report(begin.elapsed().as_secs_f64(), runs, steps, micros, committed);
    if !arguments.idle {
        for mark in Mark::ALL {
            println!("{:>12}  {mark:?}", coverage.count(*mark));
        }
        let missing = coverage.missing();
        if !missing.is_empty() {
            println!("never occurred: {missing:?}");
        }
    }
    ExitCode::SUCCESS
}

/// One seed.
fn run(sim: &mut Sim, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.trace {
        sim.enable_trace();
    }
    let done = sim.run(arguments.steps);
    for line in sim.take_trace() {
        println!("{line}");
    }
    done
}

#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn report(seconds: f64, runs: u64, steps: u64, micros: u64, committed: u64) {
    let simulated = micros as f64 / 1e6;
    println!("{runs} runs, {steps} steps, {committed} entries committed, no rule broken");
    println!("{:.2} M steps a minute", steps as f64 / seconds * 60.0 / 1e6);
    println!("{:.0} simulated seconds in {seconds:.1} s: {:.0} a second", simulated, simulated / seconds);
}
