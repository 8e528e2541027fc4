//! Clusters of honest cores in the simulation of `raft-core/src/sim`: `cargo fuzz run core_cluster`. What would be chance
//! there, the network, disks, crashes, changes, clients, is the input's choice, and callers may be confused. Every rule that
//! the simulation checks must hold after each step; that all comes right in the end is left to its own long runs.
#![no_main]

#[path = "support/mistakes.rs"]
mod mistakes;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use raft_core::sim::{Confusion, Faults, Options, Sim};

fuzz_target!(init: mistakes::plant(), |plan: Plan| run(&plan));

#[derive(Debug, Arbitrary)]
struct Plan {
    five: bool,
    calm: bool,
    seed: u8,
    confused: Vec<Confused>,
    tape: Tape,
}

#[derive(Debug, Arbitrary)]
struct Confused {
    /// Steps before it.
    after: u8,
    place: u8,
    what: What,
}

#[derive(Debug, Arbitrary)]
enum What {
    PersistedBefore(u8),
    PersistedUnknown(u64),
    AppliedBefore(u8),
    AppliedUnknown(u64),
    FetchedElsewhere(i8),
    FetchedTooMuch,
    FetchedBefore(u8),
    FetchFailed(u8),
    SnapshotTaken(i8),
    SnapshotFailed(u8, u8),
    SnapshotProgress(u8, u8),
    ClockBack(u16),
}

/// The rest of the input: one choice in each byte.
#[derive(Debug)]
struct Tape(Vec<u8>);

impl<'a> Arbitrary<'a> for Tape {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Tape> {
        let rest = input.len();
        Ok(Tape(input.bytes(rest)?.to_vec()))
    }
}

const STEPS_MAX: u64 = 2000;

fn run(plan: &Plan) {
    if let Err(broken) = play(plan, None) {
        let mut story = Vec::new();
        let _ = play(plan, Some(&mut story));
        let told = story.len().saturating_sub(200);
        panic!("{}\n{broken}", story[told..].join("\n"));
    }
}

/// Plays the plan, and tells what happened if somebody wants to know.
fn play(plan: &Plan, story: Option<&mut Vec<String>>) -> Result<(), String> {
    let faults = if plan.calm { Faults::Episodes } else { Faults::Storms };
    let options = Options { nodes: if plan.five { 5 } else { 3 }, seed: u64::from(plan.seed), faults };
    let mut sim = Sim::steered(options, plan.tape.0.clone());
    if story.is_some() {
        sim.enable_trace();
    }
    let outcome = steps(plan, &mut sim);
    if let Some(story) = story {
        *story = sim.take_trace();
    }
    outcome
}

fn steps(plan: &Plan, sim: &mut Sim) -> Result<(), String> {
    let mut confused = plan.confused.iter();
    let mut next = confused.next();
    let mut wait = next.map_or(0, |next| next.after % 32);
    while sim.is_steered() && sim.steps() < STEPS_MAX {
        sim.step().map_err(|broken| broken.to_string())?;
        wait = wait.saturating_sub(1);
        if wait == 0
            && let Some(due) = next
        {
            let told = sim.confuse(usize::from(due.place), due.what.confusion());
            told.map_err(|broken| broken.to_string())?;
            next = confused.next();
            wait = next.map_or(0, |next| next.after % 32);
        }
    }
    Ok(())
}

impl What {
    fn confusion(&self) -> Confusion {
        match *self {
            What::PersistedBefore(back) => Confusion::PersistedBefore(back),
            What::PersistedUnknown(ahead) => Confusion::PersistedUnknown(ahead),
            What::AppliedBefore(back) => Confusion::AppliedBefore(back),
            What::AppliedUnknown(ahead) => Confusion::AppliedUnknown(ahead),
            What::FetchedElsewhere(by) => Confusion::FetchedElsewhere(by),
            What::FetchedTooMuch => Confusion::FetchedTooMuch,
            What::FetchedBefore(fetch) => Confusion::FetchedBefore(fetch),
            What::FetchFailed(fetch) => Confusion::FetchFailed(fetch),
            What::SnapshotTaken(by) => Confusion::SnapshotTaken(by),
            What::SnapshotFailed(to, epoch) => Confusion::SnapshotFailed(to, epoch),
            What::SnapshotProgress(to, epoch) => Confusion::SnapshotProgress(to, epoch),
            What::ClockBack(ms) => Confusion::ClockBack(ms),
        }
    }
}
