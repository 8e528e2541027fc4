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
    let before = engine.stats().batches;
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
    assert_eq!(stats.batches, before + 5);
    // Right to a quarter.
    let quantiles = [stats.fsync_p50_us, stats.fsync_p99_us];
    assert!(quantiles.iter().all(|quantile| (40..50).contains(quantile)), "{stats:?}");
    assert!(!stats.full);
}

#[test]
fn salts_of_one_seed_differ_and_so_do_their_halves() {
    let mut count = 0;
    let salts: std::collections::BTreeSet<u128> = (0..100).map(|_| salt(7, &mut count)).collect();
    assert_eq!(salts.len(), 100);
    let halves: std::collections::BTreeSet<u128> =
        salts.iter().flat_map(|salt| [salt >> 64, salt & u128::from(u64::MAX)]).collect();
    assert_eq!(halves.len(), 200);
    assert_ne!(salt(7, &mut 0), salt(8, &mut 0));
}
