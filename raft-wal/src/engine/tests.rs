//! What only shows with a clock.

use std::sync::atomic::{AtomicU64, Ordering};

use raft_core::{ClusterId, ConfState, Entries, HardState, Member, NodeId};

use super::*;
use crate::vfs::sim::SimVfs;

/// Each reading is 40 microseconds later than the last.
fn micros() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(40, Ordering::Relaxed)
}

#[test]
fn the_figures_tell_how_long_the_syncs_took() {
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    let options = Options::new(ClusterId(7), NodeId(1), founding);
    let (mut engine, _) = Engine::open(Arc::new(SimVfs::new()), Path::new("/data"), options).unwrap();
    engine.clock = Some(micros);
    for n in 1..=5 {
        let hard_state = HardState { term: Term(n), ..HardState::default() };
        let write = Write {
            id: WriteId(n),
            hard_state,
            truncate_after: None,
            snapshot: None,
            entries: Entries::EMPTY,
        };
        engine.append(&write).unwrap();
        engine.flush().unwrap();
    }
    let stats = engine.stats();
    assert_eq!(stats.fsync_last_us, 40);
    // Right to a quarter.
    let quantiles = [stats.fsync_p50_us, stats.fsync_p99_us];
    assert!(quantiles.iter().all(|quantile| (40..50).contains(quantile)), "{stats:?}");
    assert!(!stats.full);
}
