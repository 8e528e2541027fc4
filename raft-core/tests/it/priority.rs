//! Election priority: a wish, never a condition.

use raft_core::{Body, Config, ConfigError, NodeId, PRIORITY_MAX, RoleKind};

use crate::cluster::Cluster;

fn cluster(seed: u64) -> Cluster {
    // 3 is wanted most, 1 least.
    Cluster::with(3, |config| {
        config.priority = u8::try_from(config.id.0).unwrap();
        config.seed += 10 * seed;
    })
}

#[test]
fn the_node_of_the_highest_priority_is_elected_and_the_next_one_after_it() {
    for seed in 0..10 {
        let mut cluster = cluster(seed);
        assert_eq!(cluster.wait_for_leader(), 3);
        cluster.commit("a");
        cluster.pass(200);
        cluster.crash(3);
        cluster.pass(1000);
        assert_eq!(cluster.wait_for_leader(), 2);
    }
}

#[test]
fn the_least_wanted_node_leads_where_the_log_demands_it() {
    let mut cluster = cluster(1);
    assert_eq!(cluster.wait_for_leader(), 3);
    cluster.commit("a");
    cluster.isolate(2);
    cluster.commit("only 1 and 3 have it");
    cluster.crash(3);
    cluster.heal();
    // 2 is wanted more, asks earlier and again and again, and must not win.
    assert_eq!(cluster.wait_for_leader(), 1);
    cluster.commit("b");
    assert_eq!(cluster.commands(2), ["a", "only 1 and 3 have it", "b"]);
}

#[test]
fn a_target_of_a_transfer_does_not_wait() {
    let mut cluster = cluster(1);
    assert_eq!(cluster.wait_for_leader(), 3);
    cluster.commit("a");
    cluster.pass(200);
    let now = cluster.now();
    cluster.node_mut(3).raft.transfer_leadership(now, NodeId(1)).unwrap();
    cluster.pass(50);
    assert_eq!(cluster.leader(), Some(1));
    assert!(cluster.sent.iter().any(|message| matches!(message.body, Body::TimeoutNow)));
    assert_eq!(cluster.raft(3).role(), RoleKind::Follower);
}

#[test]
fn a_priority_above_the_highest_is_refused() {
    let config = Config { priority: PRIORITY_MAX + 1, ..Config::new(NodeId(1), 1) };
    assert_eq!(config.validate(), Err(ConfigError::PriorityTooHigh));
}
