//! A node whose newest snapshot cannot be read (SAFETY D1).

use raft_core::{
    Body, Config, Event, Input, LogId, LogIndex, NodeId, Raft, RoleKind, SnapshotMeta, StartError,
    StartNumber,
};

use crate::cluster::Cluster;

/// Three nodes led by 1 with ten commands; 3 has a snapshot of all of them and no log before it.
fn cluster() -> (Cluster, LogId) {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.wait_for_leader();
    cluster.elect(1);
    for command in 0..10 {
        cluster.commit(&command.to_string());
    }
    cluster.pass(200);
    let last = take_snapshot(&mut cluster, 3);
    assert_eq!(cluster.raft(3).log_start(), last);
    (cluster, last)
}

/// Node `id` takes a snapshot of everything it has applied.
fn take_snapshot(cluster: &mut Cluster, id: u64) -> LogId {
    let last = cluster.node(id).applied.last().unwrap().id;
    let meta = SnapshotMeta { last, ..cluster.raft(id).snapshot().clone() };
    cluster.handle(id, Input::SnapshotTaken(Box::new(meta))).unwrap();
    cluster.settle();
    last
}

/// Node 3 starts again, and its snapshot's file is gone.
fn lose_snapshot(cluster: &mut Cluster) {
    cluster.crash(3);
    cluster.node_mut(3).disk.snapshot_lost = true;
    cluster.restart(3);
}

fn requests(cluster: &Cluster, mark: usize) -> usize {
    let asked = cluster.sent_since(mark, 3, 1);
    asked.iter().filter(|message| matches!(message.body, Body::SnapshotNeeded { .. })).count()
}

fn installs(cluster: &Cluster, mark: usize) -> usize {
    let sent = cluster.sent_since(mark, 1, 3);
    sent.iter().filter(|message| matches!(message.body, Body::InstallSnapshot { .. })).count()
}

#[test]
fn it_gets_the_leaders_applies_its_own_log_behind_it_and_rejoins() {
    let (mut cluster, last) = cluster();
    assert_eq!(take_snapshot(&mut cluster, 1), last, "the leader's reaches exactly as far");
    let behind = cluster.commit("behind");
    cluster.pass(200);
    let mark = cluster.sent.len();
    lose_snapshot(&mut cluster);
    assert_eq!(cluster.raft(3).snapshot_lost(), Some(last.index));
    assert_eq!(cluster.raft(3).applied(), LogIndex::ZERO, "there is nothing to go on from");
    cluster.pass(300);
    assert_eq!(cluster.raft(3).snapshot_lost(), None);
    assert_eq!(cluster.node(3).restored.last().unwrap().last, last);
    assert_eq!(cluster.commands(3), ["behind"]);
    assert_eq!(cluster.raft(3).log_start(), last, "its log was kept");
    assert_eq!(installs(&cluster, mark), 1);
    let appended = cluster.sent_since(mark, 1, 3).into_iter().any(
        |message| matches!(&message.body, Body::AppendEntries { entries, .. } if entries.iter().any(|entry| entry.id == behind)),
    );
    assert!(!appended, "what its log holds is not sent again");
    let told = |event: &Event| *event == Event::SnapshotReplaced { last };
    assert!(cluster.node(3).events.iter().any(told));
    // It is a voter like any other: it can lead.
    cluster.elect(3);
    cluster.commit("of 3");
    assert_eq!(cluster.commands(2).last().unwrap(), "of 3");
}

#[test]
fn a_leader_whose_snapshot_is_older_is_told_to_take_one_and_sends_that() {
    let (mut cluster, last) = cluster();
    lose_snapshot(&mut cluster);
    let mark = cluster.sent.len();
    cluster.pass(350);
    let wanted = |event: &Event| *event == Event::SnapshotWanted { peer: NodeId(3) };
    assert!(cluster.node(1).events.iter().any(wanted));
    assert_eq!((installs(&cluster, mark), cluster.raft(3).snapshot_lost()), (0, Some(last.index)));
    take_snapshot(&mut cluster, 1);
    cluster.pass(300);
    assert_eq!((installs(&cluster, mark), cluster.raft(3).snapshot_lost()), (1, None));
    assert_eq!(cluster.node(3).restored.len(), 1);
}

#[test]
fn meanwhile_its_log_goes_on_and_counts_and_nothing_is_applied() {
    let (mut cluster, _) = cluster();
    take_snapshot(&mut cluster, 1);
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    lose_snapshot(&mut cluster);
    cluster.pass(300);
    cluster.isolate(2);
    let id = cluster.commit("with 3 alone");
    assert!(cluster.raft(1).commit() >= id.index, "its disk counts");
    cluster.pass(200);
    assert!(cluster.raft(3).commit() >= id.index);
    assert!(cluster.node(3).applied.is_empty() && cluster.node(3).restored.is_empty());
    // The lost one is given up after a while.
    cluster.lose = |_| false;
    cluster.pass(61_000);
    assert_eq!(cluster.raft(3).snapshot_lost(), None);
    assert_eq!(cluster.commands(3), ["with 3 alone"]);
}

#[test]
fn a_transfer_that_failed_is_tried_again_soon_and_one_under_way_is_not_repeated() {
    let (mut cluster, _) = cluster();
    take_snapshot(&mut cluster, 1);
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    let mark = cluster.sent.len();
    lose_snapshot(&mut cluster);
    cluster.pass(5000);
    assert!(requests(&cluster, mark) > 10, "with each heartbeat");
    assert_eq!(installs(&cluster, mark), 1);
    let sent = cluster.sent_since(mark, 1, 3).into_iter().find_map(|message| match message.body {
        Body::InstallSnapshot { epoch, .. } => Some(epoch),
        _ => None,
    });
    cluster.lose = |_| false;
    cluster.handle(1, Input::SnapshotFailed { to: NodeId(3), epoch: sent.unwrap() }).unwrap();
    cluster.pass(2000);
    assert_eq!((installs(&cluster, mark), cluster.raft(3).snapshot_lost()), (2, None));
}

#[test]
fn a_new_run_of_the_node_is_sent_the_snapshot_at_once() {
    let (mut cluster, _) = cluster();
    take_snapshot(&mut cluster, 1);
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    lose_snapshot(&mut cluster);
    cluster.pass(500);
    cluster.lose = |_| false;
    lose_snapshot(&mut cluster);
    cluster.pass(500);
    assert_eq!(cluster.raft(3).snapshot_lost(), None);
    // What is left of the run before asks for nothing any more.
    let mark = cluster.sent.len();
    let (term, old) = (cluster.raft(1).term().0, StartNumber(2));
    cluster.inject(3, 1, term, Body::SnapshotNeeded { start: old, at_least: LogIndex(1) }).unwrap();
    cluster.settle();
    assert_eq!(installs(&cluster, mark), 0);
}

#[test]
fn a_snapshot_that_reaches_beyond_its_log_replaces_that_too() {
    let (mut cluster, _) = cluster();
    cluster.crash(3);
    for command in 0..5 {
        cluster.commit(&format!("without 3: {command}"));
    }
    cluster.pass(200);
    let newer = take_snapshot(&mut cluster, 1);
    assert!(newer > cluster.raft(3).last() && cluster.raft(1).log_start() == newer);
    lose_snapshot(&mut cluster);
    cluster.pass(500);
    assert_eq!(cluster.raft(3).snapshot_lost(), None);
    assert_eq!(cluster.node(3).restored.last().unwrap().last, newer);
    cluster.elect(3);
    cluster.commit("of 3");
}

#[test]
fn it_does_not_campaign_and_votes_by_its_log() {
    let (mut cluster, _) = cluster();
    cluster.isolate(2);
    cluster.commit("only 1 and 3 have it");
    cluster.pass(100);
    cluster.crash(1);
    lose_snapshot(&mut cluster);
    cluster.heal();
    // 2 and 3 are a majority, but 2 lacks what was committed and 3 has no state.
    cluster.pass(5000);
    assert_eq!((cluster.leader(), cluster.raft(3).role()), (None, RoleKind::Follower));
    cluster.restart(1);
    assert_eq!(cluster.wait_for_leader(), 1);
}

#[test]
fn a_lone_node_does_not_start() {
    let mut cluster = Cluster::new(1);
    cluster.wait_for_leader();
    cluster.commit("a");
    let last = take_snapshot(&mut cluster, 1);
    cluster.crash(1);
    cluster.node_mut(1).disk.snapshot_lost = true;
    let recovered = cluster.node(1).disk.recover(usize::MAX);
    let refused = Raft::new(Config::new(NodeId(1), 1), recovered, cluster.now());
    assert_eq!(refused.err(), Some(StartError::SnapshotLostAlone { last }));
}
