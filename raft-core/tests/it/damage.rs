//! A node whose disk lost part of what it had acknowledged (SAFETY D1).

use raft_core::{
    Body, CampaignId, Config, Event, Input, LEASE_TIMEOUT_MS_MAX, LogId, LogIndex, NodeId, Raft, RoleKind,
    StartError, Term,
};

use crate::cluster::Cluster;

/// Three nodes led by 1, `commands` commands on all of them.
fn cluster(commands: u64) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.wait_for_leader();
    cluster.elect(1);
    for command in 0..commands {
        cluster.commit(&command.to_string());
    }
    cluster.pass(200);
    cluster
}

/// Node `id` loses every entry behind `index` while it is down.
fn damage(cluster: &mut Cluster, id: u64, index: u64) -> LogId {
    cluster.crash(id);
    cluster.node_mut(id).disk.damage(index);
    cluster.node(id).disk.promised.unwrap()
}

fn matched(cluster: &Cluster, leader: u64, id: u64) -> LogIndex {
    cluster.raft(leader).peers().into_iter().find(|(peer, _)| peer.0 == id).unwrap().1.matched
}

#[test]
fn a_damaged_log_is_refilled_by_the_leader_and_its_node_rejoins() {
    let mut cluster = cluster(10);
    let promised = damage(&mut cluster, 3, 4);
    let commit = cluster.raft(1).commit();
    cluster.restart(3);
    assert_eq!(cluster.raft(3).promised(), Some(promised));
    cluster.pass(300);
    assert_eq!(cluster.raft(3).promised(), None);
    assert!(cluster.raft(1).commit() >= commit);
    assert_eq!(cluster.node(3).disk.entries, cluster.node(1).disk.entries);
    assert_eq!(cluster.commands(3), cluster.commands(1));
    let told = |event: &Event| matches!(event, Event::Refilled { last } if *last >= promised);
    assert!(cluster.node(3).events.iter().any(told));
    // It is a voter like any other: it can lead.
    cluster.elect(3);
    cluster.commit("of 3");
    assert_eq!(cluster.commands(2).last().unwrap(), "of 3");
}

#[test]
fn the_leader_forgets_what_the_damaged_node_had_acknowledged_and_commits_without_it() {
    let mut cluster = cluster(6);
    damage(&mut cluster, 3, 2);
    let (end, commit) = (cluster.raft(1).last().index, cluster.raft(1).commit());
    assert_eq!(matched(&cluster, 1, 3), end);
    cluster.restart(3);
    // The request arrives, the refill does not.
    cluster.lose = |message| matches!(&message.body, Body::AppendEntries { entries, .. } if !entries.is_empty() && message.to == NodeId(3));
    cluster.pass(250);
    assert_eq!(matched(&cluster, 1, 3), LogIndex(2));
    assert_eq!(cluster.raft(1).commit(), commit, "what is committed stays");
    // Its old acknowledgement does not count for the new entry, nor for the ones it lost.
    cluster.cut.extend([(1, 2), (2, 1)]);
    cluster.propose(1, "x").unwrap();
    cluster.pass(50);
    assert_eq!(cluster.raft(1).commit(), commit);
}

#[test]
fn a_damaged_node_votes_by_what_it_had_promised() {
    let mut cluster = cluster(5);
    cluster.isolate(2);
    let last = cluster.commit("only 1 and 3 have it");
    assert_eq!(cluster.raft(1).commit(), last.index);
    assert_eq!(damage(&mut cluster, 3, 2), last);
    cluster.crash(1);
    cluster.restart(3);
    cluster.heal();
    // 2 and 3 are a majority, but only 1 has what was committed.
    cluster.pass(5000);
    assert_eq!(cluster.leader(), None);
    assert_eq!(cluster.raft(3).role(), RoleKind::Follower);
    cluster.restart(1);
    assert_eq!(cluster.wait_for_leader(), 1);
    cluster.commit("y");
    cluster.pass(300);
    assert!(cluster.commands(2).contains(&"only 1 and 3 have it".to_owned()));
    assert_eq!(cluster.raft(3).promised(), None);
}

#[test]
fn a_damaged_node_does_not_campaign_not_even_when_it_is_told_to() {
    let mut cluster = cluster(5);
    damage(&mut cluster, 3, 2);
    cluster.isolate(3);
    cluster.restart(3);
    assert_eq!(cluster.raft(3).next_deadline(), None);
    let term = cluster.raft(1).term();
    let heartbeat = Body::Heartbeat {
        epoch: raft_core::Epoch(1),
        round: raft_core::Round(1),
        prev: LogId::ZERO,
        commit: LogIndex(0),
    };
    cluster.inject(1, 3, term.0, heartbeat).unwrap();
    cluster.inject(1, 3, term.0, Body::TimeoutNow).unwrap();
    cluster.handle(3, Input::PeerDied(NodeId(1))).unwrap();
    cluster.pass(5000);
    assert_eq!((cluster.raft(3).role(), cluster.raft(3).term()), (RoleKind::Follower, term));
}

#[test]
fn promises_that_were_never_committed_do_not_bind_for_ever() {
    let mut cluster = cluster(3);
    // 3 alone has entries of the old leader, then loses them.
    cluster.cut.extend([(1, 2), (2, 1)]);
    cluster.propose(1, "a").unwrap();
    cluster.propose(1, "b").unwrap();
    cluster.node_mut(1).disk_stuck = true;
    cluster.pass(20);
    let promised = damage(&mut cluster, 3, 2);
    cluster.crash(1);
    assert!(promised > cluster.raft(2).last());
    cluster.restart(1);
    cluster.heal();
    let leader = cluster.wait_for_leader();
    assert_ne!(leader, 3);
    cluster.restart(3);
    cluster.pass(500);
    assert_eq!(cluster.raft(3).promised(), None, "settled by an entry of the new term");
    assert_eq!(cluster.raft(3).last(), cluster.raft(leader).last());
}

// X1, found by `core_cluster`: the entry that settles a promise was appended though the target of a transfer had already
// been told to campaign, and then lacked it.
#[test]
fn a_promise_is_not_settled_while_leadership_is_handed_over() {
    let mut cluster = cluster(4);
    cluster.isolate(2);
    cluster.lose = |message| matches!(message.body, Body::TimeoutNow);
    let now = cluster.now();
    cluster.node_mut(1).raft.transfer_leadership(now, NodeId(2)).unwrap();
    let (term, last) = (cluster.raft(1).term(), cluster.raft(1).last());
    let start = raft_core::StartNumber(7);
    let promised = LogId { term, index: LogIndex(last.index.0 + 3) };
    let request = Body::Refill { start, after: LogId::new(1, 2), promised };
    cluster.inject(3, 1, term.0, request.clone()).unwrap();
    assert_eq!((cluster.raft(1).transfer_target(), cluster.raft(1).last()), (Some(NodeId(2)), last));
    cluster.pass(1000);
    assert_eq!(cluster.raft(1).transfer_target(), None);
    cluster.inject(3, 1, term.0, request).unwrap();
    assert_eq!(cluster.raft(1).last().index, last.index.next());
}

#[test]
fn a_repeated_request_opens_no_second_epoch() {
    let mut cluster = cluster(4);
    let request = Body::Refill {
        start: raft_core::StartNumber(7),
        after: LogId::new(1, 2),
        promised: LogId::new(1, 4),
    };
    let term = cluster.raft(1).term().0;
    cluster.inject(3, 1, term, request.clone()).unwrap();
    assert_eq!(matched(&cluster, 1, 3), LogIndex(0));
    cluster.pass(200);
    let end = cluster.raft(1).last().index;
    assert_eq!(matched(&cluster, 1, 3), end);
    cluster.inject(3, 1, term, request).unwrap();
    assert_eq!(matched(&cluster, 1, 3), end);
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let mut cluster = cluster(2);
    let term = cluster.raft(1).term().0;
    for (after, promised) in
        [((1, 4), (1, 4)), ((1, 5), (1, 4)), ((9, 1), (9, 4)), ((1, 0), (1, 4)), ((1, 1), (99, 4))]
    {
        let (after, promised) = (LogId::new(after.0, after.1), LogId::new(promised.0, promised.1));
        let body = Body::Refill { start: raft_core::StartNumber(7), after, promised };
        assert!(cluster.inject(3, 1, term, body).is_err(), "{after} {promised}");
    }
}

#[test]
fn a_damaged_lone_node_does_not_start() {
    let mut cluster = Cluster::new(1);
    cluster.wait_for_leader();
    cluster.commit("a");
    let last = cluster.raft(1).last();
    let recovered = {
        cluster.crash(1);
        let disk = &mut cluster.node_mut(1).disk;
        disk.damage(last.index.0 - 1);
        disk.recover(usize::MAX)
    };
    let refused = Raft::new(Config::new(NodeId(1), 1), recovered, cluster.now());
    assert_eq!(refused.err(), Some(StartError::DamagedAlone { promised: last }));
}

#[test]
fn a_vote_request_behind_the_promise_is_refused_and_one_that_reaches_it_is_granted() {
    let mut cluster = cluster(5);
    let promised = damage(&mut cluster, 3, 2);
    cluster.isolate(3);
    cluster.restart(3);
    // It may have lost the entry that switched leases on: while one may last it answers nobody (SAFETY R3).
    cluster.now_ms += u64::from(LEASE_TIMEOUT_MS_MAX);
    let term = Term(cluster.raft(3).term().0 + 1);
    let mut ask = |last: LogId, campaign| {
        let mark = cluster.sent.len();
        let campaign = CampaignId(campaign);
        cluster.inject(2, 3, term.0, Body::RequestVote { campaign, last, transfer: false }).unwrap();
        cluster.settle();
        let replies = cluster.sent_since(mark, 3, 2);
        matches!(replies.last().unwrap().body, Body::RequestVoteReply { granted: true, .. })
    };
    assert!(!ask(LogId { index: promised.index.prev(), ..promised }, 1));
    assert!(ask(promised, 2));
}

// The log that continued the snapshot is lost with it (`snapshot_lost.rs` has the case where it is not). The node still
// knows its members, its vote and its promise: that is enough to vote by, and to be given the rest.
#[test]
fn a_node_whose_snapshot_is_damaged_votes_by_its_promise_and_is_sent_another() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.wait_for_leader();
    cluster.elect(1);
    for command in ["a", "b", "c"] {
        cluster.commit(command);
    }
    cluster.pass(200);
    for id in [1, 3] {
        cluster.snapshot(id).unwrap();
        cluster.settle();
    }
    let promised = cluster.commit("d");
    cluster.pass(200);
    cluster.crash(3);
    let disk = &mut cluster.node_mut(3).disk;
    disk.damage(0);
    disk.start = LogId::ZERO;
    disk.snapshot.last = LogId::ZERO;
    cluster.cut.extend([(1, 3), (3, 1)]);
    cluster.restart(3);
    assert_eq!((cluster.raft(3).promised(), cluster.raft(3).last()), (Some(promised), LogId::ZERO));
    let term = cluster.raft(3).term();
    cluster.pass(501);
    let last = LogId { index: promised.index.prev(), ..promised };
    let ask = Body::PreVote { campaign: CampaignId(1), next_term: term.next(), last };
    let mark = cluster.sent.len();
    cluster.inject(2, 3, term.0, ask).unwrap();
    while cluster.carry_out(3) {}
    let refused = |m: &raft_core::Message| matches!(m.body, Body::PreVoteReply { granted: false, .. });
    assert!(cluster.sent_since(mark, 3, 2).iter().any(refused));
    cluster.heal();
    cluster.pass(500);
    assert_eq!((cluster.raft(3).promised(), cluster.raft(3).last()), (None, promised));
    assert_eq!(cluster.node(3).restored.len(), 1);
    assert_eq!(cluster.commands(3), ["d"], "what follows the snapshot");
}
