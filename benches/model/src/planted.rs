//! Plants known mistakes in turn and tells whether, by which rule and how fast the model finds them. A checker that finds
//! none proves nothing.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use raft_core::{Mistake, plant};

use crate::{arguments::Options, run};

/// Each must be found. The others are about what the model leaves out (reads, snapshots, the pace of things), are rules of
/// a step that no state shows, or need more than the ladder reaches.
const EXPECTED: &[Mistake] = &[
    Mistake::VoteNotPersisted,
    Mistake::VoteForgottenByRestart,
    Mistake::ReplyBeforeHardState,
    Mistake::VoteRequestBeforeDisk,
    Mistake::TwoVotesInOneTerm,
    Mistake::StepDownClearsVote,
    Mistake::VoteWithoutLogTest,
    Mistake::MinorityElects,
    Mistake::AckBeforeFsync,
    Mistake::OwnCopyBeforeDisk,
    Mistake::AppendWithoutPrevTest,
    Mistake::LeaderCommitsAlone,
    Mistake::ApplyUncommitted,
    Mistake::AckBeyondVerified,
];

/// Searches for the named mistake, or for all that must be found, each in a process of its own.
pub(crate) fn search(name: Option<&str>) -> ExitCode {
    if let Some(name) = name {
        return search_one(name);
    }
    println!("| mistake | found by | steps | states | seconds | what it is |\n|---|---|---|---|---|---|");
    let (mut found, mut missed) = (0, Vec::new());
    for (mistake, text) in Mistake::ALL.iter().filter(|(mistake, _)| EXPECTED.contains(mistake)) {
        let begin = Instant::now();
        let line = in_child(&format!("{mistake:?}"));
        let seconds = begin.elapsed().as_secs_f64();
        found += u32::from(line.is_some());
        if line.is_none() {
            missed.push(*mistake);
        }
        let line = line.unwrap_or("- | - | -".to_owned());
        println!("| {mistake:?} | {line} | {seconds:.1} | {} |", text.trim());
    }
    println!("\n{found} of {} found; missed: {missed:?}", EXPECTED.len());
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_child(name: &str) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program).args(["planted", name]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(|line| line.strip_prefix("found ").map(str::to_owned))
}

/// From small spaces to larger ones, the shortest way first.
fn search_one(name: &str) -> ExitCode {
    let Some((mistake, _)) = Mistake::ALL.iter().find(|(mistake, _)| format!("{mistake:?}") == name) else {
        println!("there is no mistake {name}");
        return ExitCode::from(2);
    };
    plant(*mistake);
    for options in ladder() {
        let report = run::explore(&options);
        if let Some((rule, steps)) = report.broken {
            println!("found {rule} | {steps} | {}", report.states);
            return ExitCode::SUCCESS;
        }
    }
    ExitCode::FAILURE
}

fn ladder() -> Vec<Options> {
    let elections = |timeouts, proposals, crashes| Options {
        terms: u64::from(timeouts),
        timeouts,
        proposals,
        crashes,
        breadth: true,
        seconds: 10,
        trace: false,
        ..Options::of("elections").unwrap_or_else(|| unreachable!("it is a model"))
    };
    vec![elections(1, 1, 0), elections(2, 0, 1), elections(2, 1, 1), elections(3, 1, 0), elections(3, 2, 0)]
}
