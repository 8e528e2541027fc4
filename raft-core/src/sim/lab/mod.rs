//! The 28 scenarios of the MIT 6.5840 Raft suite (labs 3A to 3D) on a virtual clock.
//!
//! The tester's steps and asserts are the suite's ([`elections`], [`agreement`], [`persistence`], [`snapshots`], made
//! of the steps in [`tester`]), its network and counting rules too ([`net`]). Beyond the suite, the cheap rules of
//! SAFETY section 1 are checked at each step ([`rules`]), and a term that changes though nothing failed is an error.
//!
//! A run follows from a row, a seed and the year's way of restarting servers: whatever it shows can be played again
//! with a trace. `cargo run --release -p raft-core --example lab` runs all rows; `docs/LAB.md` has the table.

mod agreement;
mod elections;
mod exec;
mod net;
mod persistence;
mod rows;
mod rules;
mod service;
mod size;
mod snapshots;
mod store;
mod tester;
mod turn;
mod world;

use std::{fmt, future::Future, pin::Pin};

pub use self::rows::{Figures, SCENARIOS};
pub use self::store::settings;
use self::{
    tester::{Tester, share},
    world::World,
};

/// A row of the suite's table.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The suite's name for it, without the prefix.
    pub name: &'static str,
    /// How many servers.
    pub peers: usize,
    /// What the seed's report shows.
    pub seed: Figures,
    /// What is aimed at.
    pub goal: Figures,
    reliable: bool,
    snapshots: bool,
    script: fn(Tester) -> Script,
}

/// A scenario on its way.
type Script = Pin<Box<dyn Future<Output = Step>>>;

/// What a step of the tester comes to.
type Step<T = ()> = Result<T, Failure>;

/// Which links the suite enables when one server is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// All of the group, as in 2025: every disconnection is healed.
    HealsAll,
    /// Its own, as in 2026.
    OnlyItself,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long it took on the virtual clock.
    pub micros: u64,
    /// How much of that the scenario itself slept.
    pub slept_micros: u64,
    /// What it would have taken with every random sleep of the scenario as long as it is on average.
    pub even_micros: u64,
    /// Requests sent.
    pub rpcs: u64,
    /// Bytes of requests sent and of answers delivered.
    pub bytes: u64,
    /// Commands committed.
    pub commands: u64,
    /// Why it did not pass, if so.
    pub failure: Option<Failure>,
    /// What happened, if a trace was asked for.
    pub trace: Vec<String>,
}

/// An assert of the suite that does not hold, or a rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl Scenario {
    /// Runs it once.
    #[must_use]
    pub fn run(&self, seed: u64, restart: Restart, trace: bool) -> Outcome {
        let mut world = World::new(self.peers, seed, restart, self.reliable, self.snapshots);
        world.trace.on = trace;
        let world = share(world);
        let tester = Tester { world: world.clone(), n: self.peers };
        let started = (0..self.peers).try_for_each(|server| world.borrow_mut().start(server));
        let done = started.and_then(|()| exec::run(&world, (self.script)(tester)));
        let mut world = world.borrow_mut();
        Outcome {
            micros: world.now(),
            slept_micros: world.slept,
            even_micros: world.now().saturating_add_signed(world.bad_luck.saturating_neg()),
            rpcs: world.net.rpcs,
            bytes: world.net.bytes,
            commands: world.agreed.count(),
            failure: done.err(),
            trace: world.trace.take(),
        }
    }
}
