//! Every crash of a few generated workloads. The example `crash_states` tries more of them, faster.

use std::time::{Duration, Instant};

use raft_wal::model::{Plan, explore};

/// How long the exploration goes on at most.
const SECONDS: u64 = 20;

#[test]
fn every_crash_state_shows_what_was_acknowledged() {
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let plan = Plan { first_seed: 1, workloads: 4, states: 20_000, until, threads: 2 };
    let tally = explore(&plan).unwrap();
    eprintln!("{tally:?}");
    assert!(tally.torn > 0, "no unfinished write was ever cut off");
    assert!(tally.unacknowledged > 0, "no write ever survived unacknowledged");
    assert!(tally.in_recovery > 0, "no recovery was ever interrupted");
    assert!(tally.continued > 0, "no recovered log was ever written to");
}
