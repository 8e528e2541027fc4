//! What is to be run.

use std::ops::Range;

use raft_core::sim::lab::Restart;

pub(crate) struct Arguments {
    /// A part of the name of each row wanted.
    pub(crate) filter: String,
    pub(crate) seeds: Range<u64>,
    /// The first gives the figures.
    pub(crate) suites: Vec<Restart>,
    pub(crate) json: bool,
    pub(crate) trace: bool,
}

pub(crate) const USAGE: &str =
    "lab [NAME] [--json] [--seeds N] [--first N] [--seed N] [--suite 2025|2026|both] [--trace]";

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let (mut first, mut count) = (1, 1);
        let mut arguments = Arguments {
            filter: String::new(),
            seeds: 1..2,
            suites: vec![Restart::HealsAll, Restart::OnlyItself],
            json: false,
            trace: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--json" => arguments.json = true,
                "--trace" => arguments.trace = true,
                "--seeds" => count = number(&value()?)?,
                "--first" => first = number(&value()?)?,
                "--seed" => (first, count) = (number(&value()?)?, 1),
                "--suite" => {
                    arguments.suites = match value()?.as_str() {
                        "2025" => vec![Restart::HealsAll],
                        "2026" => vec![Restart::OnlyItself],
                        "both" => vec![Restart::HealsAll, Restart::OnlyItself],
                        other => return Err(format!("{other} is no year of the suite")),
                    }
                }
                name if !name.starts_with('-') => {
                    // The suite's own names are fine as well.
                    arguments.filter = name.trim_start_matches("Test").to_owned();
                }
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        if count == 0 {
            return Err("--seeds must be at least 1".to_owned());
        }
        arguments.seeds = first..first.saturating_add(count);
        Ok(arguments)
    }
}

fn number(value: &str) -> Result<u64, String> {
    value.replace('_', "").parse().map_err(|_| format!("{value} is no number"))
}
