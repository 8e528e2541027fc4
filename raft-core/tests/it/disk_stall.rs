//! Disks that hang (SAFETY V5).

use raft_core::{Body, Input, NodeId, ProposeError, RoleKind, TransferError};

use crate::cluster::Cluster;

/// The default settings: a write is late after 2 s, an election timeout is at most 1 s.
const LATE_MS: u64 = 2000;
const ELECTION_MS: u64 = 1000;

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    cluster
}

/// The leader's disk takes a write and does not come back.
fn hang(cluster: &mut Cluster, id: u64) {
    cluster.node_mut(id).disk_stuck = true;
    cluster.commit("b");
}

// The leader's disk hangs and its heartbeats go on: nobody else could ever be elected (hashicorp #503, etcd #15247).
#[test]
fn leader_disk_hang_steps_down() {
    let mut cluster = cluster();
    let term = cluster.raft(1).term();
    hang(&mut cluster, 1);
    assert_eq!(cluster.commands(2), ["a", "b"], "a quorum of others commits without it");
    cluster.pass(LATE_MS - 100);
    assert!(cluster.propose(1, "c").is_ok(), "not late yet");
    cluster.pass(80);
    assert_eq!((cluster.leader(), cluster.raft(1).role()), (Some(1), RoleKind::Leader));
    cluster.pass(200);
    let next = cluster.leader().unwrap();
    assert_ne!(next, 1, "handed over at once to a follower that has everything");
    assert_eq!(cluster.raft(next).term(), term.next());
    cluster.commit("d");
    assert_eq!(cluster.commands(next), ["a", "b", "c", "d"]);
    cluster.node_mut(1).disk_stuck = false;
    cluster.pass(1000);
    assert_eq!(cluster.commands(1), ["a", "b", "c", "d"]);
    assert_eq!(cluster.leader(), Some(next));
}

#[test]
fn a_leader_whose_disk_hangs_takes_no_proposals_and_steps_down_though_nobody_hears_of_the_handover() {
    let mut cluster = cluster();
    cluster.lose = |message| matches!(message.body, Body::TimeoutNow);
    hang(&mut cluster, 1);
    cluster.pass(LATE_MS);
    assert_eq!(cluster.leader(), Some(1));
    assert!(matches!(cluster.propose(1, "c"), Err(ProposeError::Busy | ProposeError::Transferring { .. })));
    cluster.pass(2 * ELECTION_MS);
    let next = cluster.leader().unwrap();
    assert_ne!(next, 1);
    cluster.commit("d");
    assert_eq!(cluster.commands(next), ["a", "b", "d"]);
}

#[test]
fn a_lone_leader_whose_disk_hangs_answers_busy_and_goes_on_with_its_disk() {
    let mut cluster = Cluster::new(1);
    cluster.wait_for_leader();
    cluster.commit("a");
    hang(&mut cluster, 1);
    cluster.pass(LATE_MS + 3 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.propose(1, "c"), Err(ProposeError::Busy));
    cluster.node_mut(1).disk_stuck = false;
    cluster.pass(10);
    cluster.commit("c");
    assert_eq!(cluster.commands(1), ["a", "b", "c"]);
}

#[test]
fn a_follower_whose_disk_hangs_is_no_target_and_catches_up_under_the_same_leader() {
    let mut cluster = cluster();
    let term = cluster.raft(1).term();
    cluster.node_mut(3).disk_stuck = true;
    for command in ["b", "c", "d"] {
        cluster.commit(command);
        cluster.pass(1000);
    }
    let now = cluster.now();
    let target = cluster.node_mut(1).raft.transfer_leadership(now, NodeId(3));
    assert_eq!(target, Err(TransferError::TooFarBehind), "no target while its acknowledgement is late");
    cluster.node_mut(3).disk_stuck = false;
    cluster.pass(500);
    assert_eq!(cluster.commands(3), ["a", "b", "c", "d"]);
    assert_eq!((cluster.leader(), cluster.raft(1).term()), (Some(1), term));
    cluster.elect(3);
}

#[test]
fn a_follower_whose_disk_hangs_does_not_campaign_and_does_once_it_works() {
    let mut cluster = cluster();
    let term = cluster.raft(1).term();
    cluster.node_mut(3).disk_stuck = true;
    cluster.commit("b");
    cluster.pass(LATE_MS);
    cluster.inject(1, 3, term.0, Body::TimeoutNow).unwrap();
    assert_eq!(cluster.raft(3).role(), RoleKind::Follower, "not even when it is told to");
    cluster.isolate(3);
    cluster.pass(3 * ELECTION_MS);
    assert_eq!((cluster.raft(3).role(), cluster.raft(3).term()), (RoleKind::Follower, term));
    cluster.node_mut(3).disk_stuck = false;
    cluster.pass(10);
    cluster.handle(3, Input::Tick).unwrap();
    cluster.pass(10);
    assert_eq!(cluster.raft(3).role(), RoleKind::PreCandidate);
}

/// Node 1 leads, and cannot read back what it has to apply. Everybody has everything else.
fn unreadable(cluster: &mut Cluster) {
    for command in ["b", "c", "d"] {
        cluster.commit(command);
    }
    cluster.pass(200);
    cluster.crash(1);
    cluster.restart_unreadable(1);
    cluster.elect(1);
    assert!(cluster.commands(1).is_empty());
}

// What clients wrote was committed and never answered, while two others could have.
#[test]
fn a_leader_that_cannot_read_back_what_it_has_to_apply_hands_over_and_lets_others_lead() {
    let mut cluster = cluster();
    unreadable(&mut cluster);
    cluster.pass(LATE_MS + ELECTION_MS);
    let next = cluster.leader().unwrap();
    assert_ne!(next, 1);
    cluster.commit("e");
    assert_eq!(cluster.commands(next), ["a", "b", "c", "d", "e"]);
    // When that one goes the other is first, and node 1 does not even obey its leader.
    let now = cluster.now();
    let _ = cluster.node_mut(next).raft.transfer_leadership(now, NodeId(1));
    cluster.pass(2 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(next));
    cluster.crash(next);
    cluster.pass(3 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(if next == 2 { 3 } else { 2 }));
    cluster.commit("f");
    // Once it can read it is a node like any other.
    cluster.node_mut(1).unreadable = false;
    cluster.pass(2 * ELECTION_MS);
    assert_eq!(cluster.commands(1), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn one_that_cannot_apply_leads_as_long_as_nobody_else_can_and_brings_another_so_far() {
    let mut cluster = cluster();
    unreadable(&mut cluster);
    cluster.isolate(3);
    cluster.commit("only 1 and 2 have it");
    cluster.pass(20);
    cluster.crash(2);
    cluster.pass(LATE_MS + 8 * ELECTION_MS);
    cluster.heal();
    let asked = cluster.sent.len();
    cluster.pass(20 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(3), "node 1 was elected, and handed over what it had");
    assert!(!cluster.sent_since(asked, 1, 3).is_empty());
    assert_eq!(cluster.commands(3).last().unwrap(), "only 1 and 2 have it");
}

#[test]
fn one_that_cannot_apply_steps_down_though_nobody_hears_of_the_handover() {
    let mut cluster = cluster();
    unreadable(&mut cluster);
    cluster.lose = |message| matches!(message.body, Body::TimeoutNow);
    cluster.pass(LATE_MS + 3 * ELECTION_MS);
    assert_ne!(cluster.leader(), Some(1));
}

#[test]
fn one_that_cannot_apply_stays_if_whoever_has_everything_is_silent() {
    let mut cluster = cluster();
    cluster.lose = |message| message.to == NodeId(3) && matches!(message.body, Body::AppendEntries { .. });
    unreadable(&mut cluster);
    cluster.pass(100);
    cluster.crash(2);
    let term = cluster.raft(1).term();
    cluster.pass(LATE_MS + 5 * ELECTION_MS);
    assert_eq!(
        (cluster.leader(), cluster.raft(1).term()),
        (Some(1), term),
        "3 needs it to get what it lacks"
    );
}

#[test]
fn a_follower_that_cannot_apply_leaves_three_timeouts_to_the_others() {
    let mut cluster = cluster();
    unreadable(&mut cluster);
    cluster.pass(LATE_MS + ELECTION_MS);
    assert_ne!(cluster.leader(), Some(1));
    cluster.isolate(1);
    let mark = cluster.sent.len();
    let asks = |cluster: &Cluster| {
        let sent = cluster.sent_since(mark, 1, 2);
        sent.iter().any(|message| matches!(message.body, Body::PreVote { .. }))
    };
    cluster.pass(3 * ELECTION_MS);
    assert!(!asks(&cluster));
    cluster.pass(2 * ELECTION_MS);
    assert!(asks(&cluster), "its log may be the only one that is complete");
}

// It stepped down half a second after each election, for a voter that had everything and could not stand: what it had begun
// to send that voter never arrived.
#[test]
fn one_that_was_elected_though_it_cannot_apply_stays_until_somebody_else_can() {
    let mut cluster = cluster();
    for id in [1, 2] {
        cluster.snapshot(id).unwrap();
    }
    unreadable(&mut cluster);
    cluster.crash(2);
    cluster.node_mut(2).disk.snapshot_lost = true;
    cluster.restart(2);
    cluster.crash(3);
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    cluster.pass(LATE_MS + 10 * ELECTION_MS);
    let term = cluster.raft(1).term();
    cluster.pass(30 * ELECTION_MS);
    assert_eq!((cluster.leader(), cluster.raft(1).term()), (Some(1), term), "nobody else can be elected");
    cluster.heal();
    // The attempt that was lost is given up after a minute.
    cluster.pass(70 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(2));
    assert_eq!(cluster.commands(2), ["b", "c", "d"]);
}

#[test]
fn who_let_the_word_to_take_over_pass_is_asked_last() {
    let mut cluster = cluster();
    unreadable(&mut cluster);
    // Nobody else is elected for as long as that takes.
    cluster.lose = |message| {
        matches!(message.body, Body::TimeoutNow)
            || (message.from != NodeId(1) && matches!(message.body, Body::PreVote { .. }))
    };
    cluster.pass(LATE_MS + 10 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(1));
    cluster.lose = |message| message.to == NodeId(3) && matches!(message.body, Body::TimeoutNow);
    cluster.pass(3 * ELECTION_MS);
    assert_eq!(cluster.leader(), Some(2));
}

#[test]
fn a_lone_node_that_cannot_apply_refuses_commands_and_goes_on_once_it_can() {
    let mut cluster = Cluster::new(1);
    cluster.be_led_by_one();
    unreadable(&mut cluster);
    cluster.pass(LATE_MS + 3 * ELECTION_MS);
    assert_eq!((cluster.leader(), cluster.propose(1, "e")), (Some(1), Err(ProposeError::Busy)));
    cluster.node_mut(1).unreadable = false;
    cluster.pass(2 * ELECTION_MS);
    assert_eq!(cluster.commands(1), ["a", "b", "c", "d"]);
    assert!(cluster.propose(1, "e").is_ok());
}
