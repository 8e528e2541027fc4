//! Runs the 28 scenarios of the MIT 6.5840 Raft suite on a virtual clock and prints their table.
//!
//! ```text
//! cargo run --release -p raft-core --example lab
//! cargo run --release -p raft-core --example lab -- --seeds 100
//! cargo run --release -p raft-core --example lab -- --json
//! cargo run --release -p raft-core --example lab -- Backup3B --seed 17 --suite 2026 --trace
//! ```
//!
//! Each seed runs with both years' ways of restarting servers, and a row passes if all its runs do. The figures are
//! medians over the runs of the suite of 2025, which the seed's report is of, or of the one year asked for.
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]
#![expect(clippy::disallowed_types, reason = "it measures how fast the scenarios run")]

mod arguments;
mod table;

use std::{process::ExitCode, time::Instant};

use raft_core::sim::lab::{Restart, SCENARIOS, Scenario, settings};

use self::{
    arguments::{Arguments, USAGE},
    table::Row,
};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let wanted = |scenario: &&Scenario| scenario.name.contains(arguments.filter.as_str());
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(wanted).collect();
    if scenarios.is_empty() {
        println!("no scenario's name contains {}", arguments.filter);
        return ExitCode::from(2);
    }
    let begin = Instant::now();
    if !arguments.json {
        let config = settings();
        println!(
            "Timers of all rows: heartbeat {} ms, election timeout {} to {} ms, commit notice after {} ms, a \
             new leader's greeting after {} ms.\n",
            config.heartbeat_ms,
            config.election_timeout_min_ms,
            config.election_timeout_max_ms,
            config.commit_notice_delay_ms,
            config.greeting_delay_ms
        );
        println!("{}", table::HEAD);
    }
    let mut rows = Vec::new();
    for scenario in scenarios {
        let row = run(scenario, &arguments);
        println!("{}", if arguments.json { row.json() } else { row.line() });
        for failure in row.failures.iter().take(3) {
            eprint(failure);
        }
        rows.push(row);
    }
    if !arguments.json {
        println!("\n{}", table::summary(&rows));
        println!("{:.1} s", begin.elapsed().as_secs_f64());
    }
    if rows.iter().all(|row| row.failures.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All runs of one row.
fn run(scenario: &Scenario, arguments: &Arguments) -> Row {
    let mut row = Row::new(scenario);
    for seed in arguments.seeds.clone() {
        for (place, restart) in arguments.suites.iter().enumerate() {
            let outcome = scenario.run(seed, *restart, arguments.trace);
            for line in &outcome.trace {
                println!("{line}");
            }
            if let Some(failure) = &outcome.failure {
                let year = if *restart == Restart::HealsAll { 2025 } else { 2026 };
                row.failures.push(format!(
                    "{}: {failure}; replay with\ncargo run --release -p raft-core --example lab -- {} --seed {seed} --suite {year} --trace",
                    scenario.name, scenario.name
                ));
            }
            if place == 0 {
                row.add(&outcome);
            }
        }
    }
    row
}

#[expect(clippy::print_stderr, reason = "what failed is no part of the table")]
fn eprint(line: &str) {
    eprintln!("{line}");
}
