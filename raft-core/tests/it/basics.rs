//! Electing, replicating, committing, restarting.

use raft_core::{LogIndex, RoleKind, Term};

use crate::cluster::Cluster;

#[test]
fn a_lone_node_leads_at_once_and_commits_what_it_is_given() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(1).next_deadline(), None, "a lone leader has nothing to wake up for");
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    assert_eq!(cluster.commands(1), ["a"]);
    cluster.crash(1);
    cluster.restart(1);
    cluster.pass(1);
    assert_eq!(cluster.commands(1), ["a"], "applied again after the restart");
    assert_eq!(cluster.raft(1).term(), Term(2));
}

#[test]
fn three_nodes_elect_replicate_and_commit() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.wait_for_leader();
    let id = cluster.propose(leader, "a").unwrap();
    assert_eq!(id.index, LogIndex(1), "no no-op in an empty log");
    cluster.settle();
    assert_eq!(cluster.commands(leader), ["a"]);
    cluster.pass(5);
    for node in 1..=3 {
        assert_eq!(cluster.commands(node), ["a"], "the others learn it within a few milliseconds");
        assert_eq!(cluster.raft(node).leader().map(|id| id.0), Some(leader));
    }
}

#[test]
fn everybody_restarts_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3);
    cluster.wait_for_leader();
    for command in ["a", "b", "c"] {
        cluster.commit(command);
    }
    for node in 1..=3 {
        cluster.crash(node);
    }
    for node in 1..=3 {
        cluster.restart(node);
    }
    cluster.wait_for_leader();
    cluster.commit("d");
    for node in 1..=3 {
        assert_eq!(cluster.commands(node), ["a", "b", "c", "d"]);
    }
}

#[test]
fn a_dead_leader_is_replaced_and_catches_up_when_it_returns() {
    let mut cluster = Cluster::new(3);
    let first = cluster.wait_for_leader();
    cluster.commit("a");
    cluster.crash(first);
    let second = cluster.wait_for_leader();
    assert_ne!(first, second);
    cluster.commit("b");
    cluster.restart(first);
    cluster.pass(300);
    assert_eq!(cluster.commands(first), ["a", "b"]);
    assert_eq!(cluster.raft(first).role(), RoleKind::Follower);
    assert_eq!(cluster.leader(), Some(second), "its return disturbs nobody");
}
