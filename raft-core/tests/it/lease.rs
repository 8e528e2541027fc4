//! Leases (SAFETY R3; dissertation 6.4.1): reads by the clock, and what everybody keeps so that they are true.

use raft_core::{
    Body, ChangeError, ConfState, Input, LEASE_TIMEOUT_MS_MAX, Lease, LogIndex, NodeId, ReadOutcome,
    ReadToken, RoleKind,
};

use crate::cluster::{Cluster, conf};

const LEASE: Lease = Lease { timeout_ms: 500, drift_ppm: 1000 };

/// Three nodes where leases are on since they were founded; the first one leads and holds one.
fn leased() -> Cluster {
    let founding = ConfState { lease: Some(LEASE), ..conf(&[1, 2, 3]) };
    let mut cluster = Cluster::of(&[1, 2, 3], founding, |_| {});
    cluster.elect(1);
    if cluster.raft(1).lease_until().is_none() {
        // It was handed over to: the next term begins with a lease.
        cluster.pass(200);
    }
    cluster.commit("a");
    cluster.pass(150);
    cluster
}

fn holds(cluster: &Cluster, id: u64) -> bool {
    cluster.raft(id).lease_until().is_some_and(|until| cluster.now().instant < until)
}

#[test]
fn no_lease_is_longer_than_a_node_that_forgot_it_would_wait() {
    let mut cluster = Cluster::with(3, |config| {
        (config.election_timeout_min_ms, config.election_timeout_max_ms) = (5000, 9000);
    });
    cluster.elect(1);
    cluster.commit("a");
    let now = cluster.now();
    let most_ms = u64::from(LEASE_TIMEOUT_MS_MAX);
    let too_long = Some(Lease { timeout_ms: LEASE_TIMEOUT_MS_MAX + 1, drift_ppm: 0 });
    let refused = cluster.node_mut(1).raft.set_lease(now, too_long);
    assert_eq!(refused, Err(ChangeError::LeaseTooLong { most_ms }));
    let longest = Some(Lease { timeout_ms: LEASE_TIMEOUT_MS_MAX, drift_ppm: 0 });
    assert!(cluster.node_mut(1).raft.set_lease(now, longest).is_ok());
}

/// Whether a read is answered with nobody's help.
fn reads_alone(cluster: &mut Cluster, id: u64, token: u64) -> bool {
    let mark = cluster.sent.len();
    cluster.read(id, token);
    cluster.carry_out(id);
    let asked = cluster.sent[mark..].iter().any(|message| matches!(message.body, Body::Heartbeat { .. }));
    cluster.node(id).reads.iter().any(|read| read.token == ReadToken(token) && read.index.is_some()) && !asked
}

#[test]
fn nobody_reads_by_the_clock_unless_it_was_agreed_on() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.commit("a");
    assert_eq!(cluster.raft(1).lease_until(), None);
    assert!(!reads_alone(&mut cluster, 1, 1));
    let now = cluster.now();
    let too_long = Some(Lease { timeout_ms: 501, drift_ppm: 0 });
    let refused = cluster.node_mut(1).raft.set_lease(now, too_long);
    assert_eq!(refused, Err(ChangeError::LeaseTooLong { most_ms: 500 }));
    let refused = cluster.node_mut(2).raft.set_lease(now, Some(LEASE));
    assert_eq!(refused, Err(ChangeError::NotLeader { leader: Some(NodeId(1)) }));

    // Appended is not agreed on.
    let id = cluster.node_mut(1).raft.set_lease(now, Some(LEASE)).unwrap();
    cluster.carry_out(1);
    assert_eq!(cluster.raft(1).lease_until(), None);
    assert_eq!(cluster.node_mut(1).raft.set_lease(now, None), Err(ChangeError::InProgress));
    cluster.pass(150);
    assert_eq!(cluster.raft(3).conf_id(), id);
    assert!(holds(&cluster, 1));
    assert!(reads_alone(&mut cluster, 1, 2));

    // It stays agreed on when the members change, until it is ended.
    let change = raft_core::ConfChange {
        voters: vec![NodeId(1), NodeId(2)],
        learners: vec![NodeId(3)],
        ..Default::default()
    };
    cluster.change(1, &change).unwrap();
    cluster.pass(150);
    assert!(holds(&cluster, 1));
    let now = cluster.now();
    cluster.node_mut(1).raft.set_lease(now, None).unwrap();
    assert!(!reads_alone(&mut cluster, 1, 3), "from the moment it is appended");
}

#[test]
fn a_follower_reads_with_one_message_to_a_leader_that_holds_a_lease() {
    let mut cluster = leased();
    let mark = cluster.sent.len();
    cluster.read(2, 7);
    cluster.settle();
    let commit = cluster.raft(1).commit();
    assert_eq!(cluster.node(2).reads, [ReadOutcome { token: ReadToken(7), index: Some(commit) }]);
    assert_eq!(cluster.sent[mark..].len(), 2, "the question and the answer");
}

#[test]
fn a_leader_that_is_cut_off_stops_before_anybody_else_can_be_elected() {
    let mut cluster = leased();
    let until = cluster.raft(1).lease_until().unwrap();
    cluster.isolate(1);
    let mut ended = None;
    for _ in 0..2000 {
        cluster.pass(1);
        let other = [2, 3].into_iter().find(|id| cluster.raft(*id).role() == RoleKind::Leader);
        if other.is_some() {
            break;
        }
        if !holds(&cluster, 1) && ended.is_none() {
            ended = Some(cluster.now().instant);
            cluster.read(1, 9);
        }
    }
    let ended = ended.expect("the lease ended before the election");
    assert!(ended >= until && ended.micros_since(until) < 2000);
    assert!(!cluster.node(1).reads.iter().any(|read| read.token == ReadToken(9) && read.index.is_some()));
}

// A lease is counted from when the question left, not from when the answer came.
#[test]
fn a_late_answer_makes_a_short_lease() {
    let mut cluster = leased();
    cluster.isolate(1);
    cluster.pass(60);
    let left = cluster.now().instant;
    cluster.cut.remove(&(1, 2));
    cluster.cut.remove(&(2, 1));
    // The next heartbeat reaches n2 at once; its answer takes 300 ms.
    let mut held = Vec::new();
    for _ in 0..400 {
        cluster.now_ms += 1;
        let now = cluster.now().instant;
        for id in [1, 2, 3] {
            if cluster.raft(id).next_deadline().is_some_and(|at| at <= now) {
                cluster.handle(id, Input::Tick).unwrap();
            }
            cluster.carry_out(id);
        }
        let network = std::mem::take(&mut cluster.network);
        for message in network {
            match message.body {
                Body::HeartbeatReply { .. } | Body::AppendReply { .. } if message.to == NodeId(1) => {
                    held.push((cluster.now_ms, message))
                }
                _ => cluster.deliver(message),
            }
        }
        if held.first().is_some_and(|(at, _)| cluster.now_ms >= at + 300) {
            break;
        }
    }
    let (at, answer) = held.swap_remove(0);
    assert!(raft_core::Instant(at * 1000) >= left);
    cluster.deliver(answer);
    let until = cluster.raft(1).lease_until().unwrap();
    assert!(until <= raft_core::Instant(at * 1000 + 500_000), "{until:?}, asked at {at} ms at the latest");
}

#[test]
fn a_handover_costs_the_leader_its_lease_for_the_rest_of_its_term() {
    let mut cluster = leased();
    let now = cluster.now();
    cluster.node_mut(1).raft.transfer_leadership(now, NodeId(2)).unwrap();
    assert_eq!(cluster.raft(1).lease_until(), None, "before the word is said");
    // The word is lost, or so it seems.
    cluster.lose = |message| matches!(message.body, Body::TimeoutNow);
    cluster.pass(1500);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(1).transfer_target(), None);
    assert_eq!(cluster.raft(1).lease_until(), None, "it may still arrive");
    let term = cluster.raft(1).term();
    cluster.inject(1, 2, term.0, Body::TimeoutNow).unwrap();
    cluster.pass(20);
    assert_eq!(cluster.leader(), Some(2), "the promise does not hold against the leader's own word");
    cluster.pass(200);
    assert!(holds(&cluster, 2));
}

// TiKV 15035.
#[test]
fn a_node_that_restarts_gives_no_vote_for_as_long_as_a_lease_may_last() {
    let mut cluster = leased();
    cluster.isolate(1);
    for id in [2, 3] {
        cluster.crash(id);
        cluster.restart(id);
    }
    let restarted = cluster.now_ms;
    assert!(holds(&cluster, 1));
    while cluster.raft(2).role() != RoleKind::Leader && cluster.raft(3).role() != RoleKind::Leader {
        cluster.pass(1);
        assert!(cluster.now_ms < restarted + 5000, "nobody is elected");
    }
    assert!(cluster.now_ms >= restarted + 500, "after {} ms", cluster.now_ms - restarted);
    assert!(!holds(&cluster, 1));
}

// SAFETY E8: early suspicion is off where leases are on.
#[test]
fn the_death_of_a_leaders_process_does_not_end_the_promise() {
    let mut cluster = leased();
    cluster.isolate(1);
    for id in [2, 3] {
        cluster.handle(id, Input::PeerDied(NodeId(1))).unwrap();
    }
    while holds(&cluster, 1) {
        cluster.pass(1);
        assert!([2, 3].iter().all(|id| cluster.raft(*id).role() == RoleKind::Follower));
    }
}

#[test]
fn a_later_term_does_not_end_the_promise() {
    let mut cluster = leased();
    let (term, last) = (cluster.raft(1).term().0 + 3, cluster.raft(1).last());
    let campaign = raft_core::CampaignId(1 << 40);
    // Somebody's old answer takes n2 to a later term; there it is asked for its vote.
    cluster.inject(3, 2, term, Body::PreVoteReply { campaign, granted: false }).unwrap();
    assert_eq!(cluster.raft(2).term().0, term);
    cluster.inject(3, 2, term, Body::RequestVote { campaign, last, transfer: false }).unwrap();
    assert_eq!(cluster.raft(2).vote(), None);
    cluster.inject(3, 2, term + 1, Body::RequestVote { campaign, last, transfer: false }).unwrap();
    assert_eq!(cluster.raft(2).vote(), None);
    assert_eq!(cluster.raft(2).term().0, term, "not even its term is listened to");
}

// Who does not know of leases has promised nothing.
#[test]
fn a_peer_counts_once_it_has_the_entry_that_switched_leases_on() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.commit("a");
    // n3's disk hangs: it answers heartbeats and has nothing new.
    cluster.node_mut(3).disk_stuck = true;
    let now = cluster.now();
    let id = cluster.node_mut(1).raft.set_lease(now, Some(LEASE)).unwrap();
    cluster.pass(250);
    assert!(cluster.raft(1).commit() >= id.index);
    assert!(holds(&cluster, 1));
    cluster.cut.extend([(1, 2), (2, 1)]);
    cluster.pass(600);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader, "n3 answers");
    assert!(!holds(&cluster, 1), "but n3 knows nothing of leases");
}

// Appends that go out all the time leave no time for heartbeats.
#[test]
fn a_busy_leader_keeps_its_lease() {
    let mut cluster = leased();
    for n in 0..300 {
        cluster.propose(1, &format!("b{n}")).unwrap();
        cluster.pass(5);
        assert!(holds(&cluster, 1), "at {n}");
    }
    assert!(cluster.raft(1).commit() > LogIndex(300));
}

// SAFETY D1: the entry that told of leases may be among what was lost. It waited for its own election timeout, and what it
// had promised was by the leader's.
#[test]
fn a_node_with_a_damaged_log_waits_for_the_longest_lease_whatever_its_own_timeouts_are() {
    let mut cluster = Cluster::with(3, |config| {
        if config.id == NodeId(3) {
            (config.election_timeout_min_ms, config.election_timeout_max_ms) = (250, 1000);
        }
    });
    cluster.elect(1);
    cluster.commit("a");
    let before = cluster.raft(3).last().index.0;
    let now = cluster.now();
    cluster.node_mut(1).raft.set_lease(now, Some(LEASE)).unwrap();
    cluster.pass(150);
    cluster.crash(3);
    cluster.node_mut(3).disk.damage(before);
    cluster.isolate(1);
    cluster.restart(3);
    assert_eq!(cluster.raft(3).conf().lease, None);
    let (term, last) = (cluster.raft(1).term().0 + 1, cluster.raft(1).last());
    let campaign = raft_core::CampaignId(1 << 40);
    cluster.inject(2, 3, term, Body::RequestVote { campaign, last, transfer: false }).unwrap();
    assert!(cluster.raft(3).term().0 < term, "it does not listen");
    cluster.now_ms += 499;
    cluster.inject(2, 3, term, Body::RequestVote { campaign, last, transfer: false }).unwrap();
    assert!(cluster.raft(3).term().0 < term, "a lease may be in force");
    cluster.now_ms += u64::from(LEASE_TIMEOUT_MS_MAX) - 499;
    cluster.inject(2, 3, term, Body::RequestVote { campaign, last, transfer: false }).unwrap();
    assert_eq!(cluster.raft(3).vote(), Some(NodeId(2)));
}

// Who founds a cluster may agree on a longer promise than can be made later, if its elections take as long.
#[test]
fn a_node_with_a_damaged_log_waits_for_as_long_as_its_elections_take() {
    let mut cluster = Cluster::with(3, |config| {
        (config.election_timeout_min_ms, config.election_timeout_max_ms) = (5000, 10_000);
    });
    cluster.elect(1);
    cluster.commit("a");
    cluster.pass(150);
    let before = cluster.raft(3).last().index.0 - 1;
    cluster.crash(3);
    cluster.node_mut(3).disk.damage(before);
    cluster.isolate(1);
    cluster.restart(3);
    let (term, last) = (cluster.raft(1).term().0 + 1, cluster.raft(1).last());
    let campaign = raft_core::CampaignId(1 << 40);
    for (wait_ms, vote) in [(4999, None), (1, Some(NodeId(2)))] {
        cluster.now_ms += wait_ms;
        cluster.inject(2, 3, term, Body::RequestVote { campaign, last, transfer: false }).unwrap();
        assert_eq!(cluster.raft(3).vote().filter(|_| cluster.raft(3).term().0 == term), vote);
    }
}

#[test]
fn a_node_that_never_voted_has_promised_nothing() {
    let founding = ConfState { lease: Some(LEASE), ..crate::cluster::conf(&[1, 2, 3]) };
    let mut cluster = Cluster::of(&[1, 2, 3], founding, |_| {});
    let (campaign, last) = (raft_core::CampaignId(1 << 40), raft_core::LogId::ZERO);
    cluster.inject(2, 3, 1, Body::RequestVote { campaign, last, transfer: false }).unwrap();
    assert_eq!(cluster.raft(3).vote(), Some(NodeId(2)));
}
