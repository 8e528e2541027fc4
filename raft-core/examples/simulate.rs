//! Runs the simulation over many seeds, or plays one again.
//!
//! ```text
//! cargo run --release -p raft-core --features sim --example simulate -- --nodes 3 --seeds 1000
//! cargo run --release -p raft-core --features sim --example simulate -- --nodes 5 --seed 17 --steps 5000 --trace
//! cargo run --release -p raft-core --features sim --example simulate -- --schedule calm --seeds 100
//! ```
//!
//! Schedules: `storm` (the default, to find mistakes), `calm` (episodes of trouble, minutes of quiet between them) and
//! `idle` (nothing goes wrong).
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]
#![expect(clippy::disallowed_types, reason = "it measures how fast the simulation runs")]

use std::{process::ExitCode, time::Instant};

use raft_core::sim::{Coverage, Failure, Faults, Mark, Options, Sim};

struct Arguments {
    nodes: usize,
    first: u64,
    seeds: u64,
    /// `None`: what the schedule deserves.
    steps: Option<u64>,
    /// Stop starting new seeds after this many steps in all.
    total_steps: u64,
    trace: bool,
    schedule: Faults,
    /// Fail if something never occurred.
    every_mark: bool,
}

const USAGE: &str = "simulate [--nodes N] [--seed N] [--first N] [--seeds N] [--steps N] [--total-steps N] \
                     [--schedule storm|calm|idle] [--every-mark] [--trace]";

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        nodes: 3,
        first: 1,
        seeds: 100,
        steps: None,
        total_steps: u64::MAX,
        trace: false,
        schedule: Faults::Storms,
        every_mark: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value.replace('_', "").parse().map_err(|_| format!("{value} is no number"))
        };
        match word.as_str() {
            "--schedule" => {
                let name = words.next().unwrap_or_default();
                let known = [Faults::Storms, Faults::Episodes, Faults::None];
                arguments.schedule = known
                    .into_iter()
                    .find(|schedule| schedule.to_string() == name)
                    .ok_or(format!("there is no schedule {name:?}"))?;
            }
            "--nodes" => arguments.nodes = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--seed" => (arguments.first, arguments.seeds) = (number()?, 1),
            "--first" => arguments.first = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--steps" => arguments.steps = Some(number()?),
            "--total-steps" => arguments.total_steps = number()?,
            "--every-mark" => arguments.every_mark = true,
            "--trace" => arguments.trace = true,
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
    let (begin, begin_cpu) = (Instant::now(), cpu_seconds());
    let mut coverage = Coverage::default();
    let (mut runs, mut steps, mut micros, mut committed) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if steps >= arguments.total_steps {
            break;
        }
        let mut sim = Sim::new(Options { nodes: arguments.nodes, seed, faults: arguments.schedule });
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
    println!("{runs} runs, {steps} steps, {committed} entries committed, no rule broken");
    report("", begin.elapsed().as_secs_f64(), steps, micros);
    if let Some((begin, end)) = begin_cpu.zip(cpu_seconds()) {
        report(" of CPU time", end - begin, steps, micros);
    }
    if arguments.schedule != Faults::None {
        for mark in Mark::ALL {
            println!("{:>12}  {mark:?}", coverage.count(*mark));
        }
        let missing = coverage.missing();
        if !missing.is_empty() {
            println!("never occurred: {missing:?}");
            if arguments.every_mark {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// One seed.
fn run(sim: &mut Sim, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.trace {
        sim.enable_trace();
    }
    let steps = arguments.steps.unwrap_or(match arguments.schedule {
        Faults::Storms => 10_000,
        Faults::Episodes | Faults::None => 100_000,
    });
    let done = sim.run(steps);
    for line in sim.take_trace() {
        println!("{line}");
    }
    done
}

#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn report(of_what: &str, seconds: f64, steps: u64, micros: u64) {
    let simulated = micros as f64 / 1e6;
    println!(
        "{simulated:.0} simulated seconds in {seconds:.1} s{of_what}: {:.0} a second, {:.2} M steps a minute",
        simulated / seconds,
        steps as f64 / seconds * 60.0 / 1e6
    );
}

/// How long this thread has had a processor, where the system tells (Linux: the first number is nanoseconds).
#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanos: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanos as f64 / 1e9)
}
