//! One test for each bug another Raft had, named after it; the first line tells what went wrong there.

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Body, CampaignId, ConfChange, ConfState, Entries, Entry, EntryKind, Epoch, Event, Input,
    LogId, LogIndex, NodeId, ProposeError, RoleKind, Round, SnapshotMeta, StartNumber, Term, Timestamp,
    TransferError, TransferOutcome, WriteId,
};

use crate::cluster::{Cluster, Disk, conf};

fn led_by_one(count: u64) -> Cluster {
    let mut cluster = Cluster::new(count);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.commit("a");
    cluster.pass(200);
    cluster
}

fn snapshot(cluster: &mut Cluster, id: u64) -> SnapshotMeta {
    let meta = cluster.snapshot(id).unwrap();
    cluster.settle();
    meta
}

fn command(term: u64, index: u64) -> Entry {
    let payload = Bytes::from(format!("{term}/{index}"));
    let (id, checksum) = (LogId::new(term, index), Entry::checksum_of(&payload));
    Entry { id, time: Timestamp(index), session: None, kind: EntryKind::Command, checksum, payload }
}

fn append(prev: LogId, commit: u64, entries: &[Entry]) -> Body {
    let entries = Entries::from(entries.to_vec());
    Body::AppendEntries { epoch: Epoch(1), round: Round(1), prev, commit: LogIndex(commit), entries }
}

fn install(last: LogId) -> Body {
    let meta = SnapshotMeta { last, conf: conf(&[1, 2, 3]), ..SnapshotMeta::default() };
    Body::InstallSnapshot { epoch: Epoch(1), round: Round(1), meta: Box::new(meta) }
}

fn pre_vote(term: u64, last: LogId) -> Body {
    Body::PreVote { campaign: CampaignId(9), next_term: Term(term + 1), last }
}

fn peer(cluster: &Cluster, leader: u64, id: u64) -> raft_core::PeerStatus {
    cluster.raft(leader).peers().into_iter().find(|(peer, _)| peer.0 == id).unwrap().1
}

/// Whether the last answer of 1 to a vote or pre-vote granted it.
fn granted(cluster: &mut Cluster) -> Option<bool> {
    while cluster.carry_out(1) {}
    let sent: Vec<_> = cluster.network.drain(..).collect();
    sent.iter().rev().find_map(|message| match message.body {
        Body::RequestVoteReply { granted, .. } | Body::PreVoteReply { granted, .. } => Some(granted),
        _ => None,
    })
}

/// A leader panicked when a follower came back with an empty disk (qdrant #1235, openraft #898).
#[test]
fn wiped_follower_never_panics_leader() {
    let mut cluster = led_by_one(3);
    let commit = cluster.raft(1).commit();
    cluster.crash(3);
    let founding = cluster.node(3).disk.snapshot.clone();
    cluster.node_mut(3).disk = Disk { snapshot: founding, ..Disk::default() };
    cluster.restart(3);
    cluster.pass(500);
    cluster.commit("b");
    assert_eq!((cluster.leader(), cluster.commands(1).len()), (Some(1), 2));
    assert_eq!(peer(&cluster, 1, 3).state, "regressed");
    let regressed = Event::PeerRegressed { peer: NodeId(3), matched: commit, now: LogIndex(0) };
    assert_eq!(cluster.node(1).events.iter().filter(|event| **event == regressed).count(), 1);
    assert!(cluster.raft(1).commit() > commit, "the commit index is not lowered");
    assert!(cluster.commands(3).is_empty(), "it gets nothing until it rejoins as somebody else");
}

/// A vote was granted although writing it had failed (jraft #1243).
#[test]
fn vote_write_fails_no_grant() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    cluster.node_mut(1).disk_stuck = true;
    let body = Body::RequestVote { campaign: CampaignId(9), last: LogId::ZERO, transfer: false };
    cluster.inject(2, 1, 1, body.clone()).unwrap();
    assert_eq!(granted(&mut cluster), None);
    cluster.now_ms += 10_000;
    cluster.inject(2, 1, 1, body).unwrap();
    assert_eq!(granted(&mut cluster), None, "neither later nor when asked again");
}

/// A candidate asked for votes before its own term and vote were on disk (jraft #1245).
#[test]
fn request_vote_waits_for_disk() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).disk_stuck = true;
    for id in [2, 3] {
        cluster.lose =
            |m| matches!(m.body, Body::PreVote { .. } | Body::RequestVote { .. }) && m.from != NodeId(1);
        cluster.node_mut(id).disk_stuck = false;
    }
    cluster.pass(2000);
    let requests = |m: &raft_core::Message| matches!(m.body, Body::RequestVote { .. });
    assert!(cluster.raft(1).term() > Term(0), "it stood for election");
    assert!(!cluster.sent_since(0, 1, 2).iter().any(requests));
    cluster.node_mut(1).disk_stuck = false;
    cluster.work_disk(1);
    cluster.pass(1500);
    assert!(cluster.sent_since(0, 1, 2).iter().any(requests));
}

/// A leader that stepped down within its term forgot its vote and could vote again (CCF #8094).
#[test]
fn same_term_step_down_keeps_vote() {
    let mut cluster = led_by_one(3);
    let term = cluster.raft(1).term();
    cluster.isolate(1);
    cluster.pass(1100);
    cluster.network.clear();
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader);
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).vote()), (term, Some(NodeId(1))));
    let body = Body::RequestVote { campaign: CampaignId(9), last: LogId::new(99, 99), transfer: false };
    assert!(cluster.inject(2, 1, term.0, body).is_err(), "a log of the future is refused");
    let last = LogId { term: Term(term.0 - 1), index: LogIndex(99) };
    let body = Body::RequestVote { campaign: CampaignId(9), last, transfer: false };
    cluster.inject(2, 1, term.0, body).unwrap();
    assert_eq!(granted(&mut cluster), Some(false));
}

/// A node at a lower term asked for pre-votes for ever, since nobody told it the term (etcd #8243).
#[test]
fn prevote_lower_term_converges() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    cluster.inject(2, 1, 7, append(LogId::ZERO, 0, &[])).unwrap();
    while cluster.carry_out(1) {}
    cluster.network.clear();
    cluster.inject(3, 1, 2, pre_vote(2, LogId::ZERO)).unwrap();
    while cluster.carry_out(1) {}
    assert_eq!(cluster.network[0].term, Term(7));
    // And the other way round: the asker adopts it.
    let mut asker = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    asker.inject(2, 1, 1, append(LogId::ZERO, 0, &[])).unwrap();
    asker.pass(1100);
    let Some(Body::PreVote { campaign, .. }) = asker.sent.last().map(|m| m.body.clone()) else { panic!() };
    asker.inject(2, 1, 7, Body::PreVoteReply { campaign, granted: false }).unwrap();
    assert_eq!((asker.raft(1).term(), asker.raft(1).role()), (Term(7), RoleKind::Follower));
}

/// A candidate and a pre-candidate refused each other for ever (ra #442).
#[test]
fn prevote_mixed_candidate_no_deadlock() {
    let mut cluster = Cluster::new(2);
    // 1 becomes a candidate of a higher term, then all its requests get lost.
    cluster.lose = |m| matches!(m.body, Body::RequestVote { .. });
    cluster.pass(1500);
    assert!(cluster.raft(1).term().max(cluster.raft(2).term()) > Term(0));
    cluster.heal();
    cluster.wait_for_leader();
}

/// A pre-vote was granted without looking at the log, so a node that could not win deposed a leader (NuRaft #134).
#[test]
fn prevote_uses_log_test() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[command(1, 1), command(1, 2)])).unwrap();
    cluster.now_ms += 5000;
    cluster.inject(3, 1, 1, pre_vote(1, LogId::new(1, 1))).unwrap();
    assert_eq!(granted(&mut cluster), Some(false));
    cluster.inject(3, 1, 1, pre_vote(1, LogId::new(1, 2))).unwrap();
    assert_eq!(granted(&mut cluster), Some(true));
}

/// Five nodes, of which one reaches only a single other that the leader reaches as well: elections without end (Howard).
#[test]
fn partial_partition_5_stable() {
    let mut cluster = led_by_one(5);
    let term = cluster.raft(1).term();
    // 5 reaches only 4; 4 reaches everybody.
    for id in 1..=3 {
        cluster.cut.insert((id, 5));
        cluster.cut.insert((5, id));
    }
    for _ in 0..20 {
        cluster.pass(500);
        cluster.propose(1, "x").unwrap();
    }
    cluster.pass(100);
    assert_eq!((cluster.leader(), cluster.raft(1).term(), cluster.commands(1).len()), (Some(1), term, 21));
}

/// After a snapshot the configuration was looked up by index alone and an old one stayed in force (openraft #1808).
#[test]
fn stale_effective_config_after_snapshot() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    let four = conf(&[1, 2, 3, 4]);
    let payload = Bytes::from(four.encode());
    let change = Entry {
        kind: EntryKind::ConfChange,
        checksum: Entry::checksum_of(&payload),
        payload,
        ..command(1, 2)
    };
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[command(1, 1), change])).unwrap();
    assert_eq!(cluster.raft(1).conf(), &four, "in force when appended");
    let five: ConfState = conf(&[1, 2, 3, 5]);
    let (last, conf_id) = (LogId::new(2, 6), LogId::new(2, 2));
    let meta = SnapshotMeta { last, conf: five.clone(), conf_id, ..SnapshotMeta::default() };
    let body = Body::InstallSnapshot { epoch: Epoch(1), round: Round(1), meta: Box::new(meta) };
    cluster.inject(3, 1, 3, body).unwrap();
    assert_eq!((cluster.raft(1).conf(), cluster.raft(1).conf_id()), (&five, conf_id));
    while cluster.carry_out(1) {}
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!((cluster.raft(1).conf(), cluster.raft(1).conf_id()), (&five, conf_id));
}

/// A truncated configuration stayed in force; also openraft #1808.
#[test]
fn a_truncated_configuration_is_rolled_back() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    let payload = Bytes::from(conf(&[1, 2, 3, 4]).encode());
    let checksum = Entry::checksum_of(&payload);
    let change = Entry { kind: EntryKind::ConfChange, checksum, payload, ..command(1, 1) };
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[change])).unwrap();
    cluster.inject(3, 1, 2, append(LogId::ZERO, 0, &[command(2, 1)])).unwrap();
    assert_eq!((cluster.raft(1).conf(), cluster.raft(1).conf_id()), (&conf(&[1, 2, 3]), LogId::ZERO));
}

/// A learner that did not know yet that it had been promoted refused to vote, and the cluster stood still (etcd #10998).
#[test]
fn learner_votes_when_promoted_unknowingly() {
    let mut with_learner = conf(&[1, 2, 3]);
    with_learner.voters.remove(&NodeId(1));
    with_learner.learners.insert(NodeId(1));
    let mut cluster = Cluster::of(&[1], with_learner, |_| {});
    cluster.inject(2, 1, 1, pre_vote(1, LogId::ZERO)).unwrap();
    assert_eq!(granted(&mut cluster), Some(true));
    let body = Body::RequestVote { campaign: CampaignId(9), last: LogId::ZERO, transfer: false };
    cluster.inject(2, 1, 2, body).unwrap();
    assert_eq!(granted(&mut cluster), Some(true));
}

/// A leader appended the configuration that removed it, crashed, and no one could be elected: the others lacked the entry
/// and it would not campaign (openraft #2091, etcd #10563).
#[test]
fn removed_leader_crashes_before_final_config() {
    let mut cluster = led_by_one(2);
    cluster.lose = |m| matches!(m.body, Body::TimeoutNow);
    cluster.change(1, &ConfChange { voters: vec![NodeId(2)], ..ConfChange::default() }).unwrap();
    cluster.pass(1900);
    assert!(cluster.raft(1).conf().is_joint());
    cluster.isolate(1);
    cluster.pass(150);
    assert_eq!(cluster.raft(1).conf(), &conf(&[2]), "only its own log has it");
    cluster.crash(1);
    cluster.heal();
    cluster.restart(1);
    cluster.pass(3000);
    let led = |event: &Event| matches!(event, Event::RoleChanged { role: RoleKind::Leader, .. });
    assert!(cluster.node(1).events.iter().any(led), "it leads once more, to end what it began");
    assert_eq!(cluster.leader(), Some(2));
    assert_eq!((cluster.raft(2).conf(), cluster.raft(2).conf().is_joint()), (&conf(&[2]), false));
    cluster.commit("b");
}

/// The leader crashed between the joint configuration and the next, and its successor stayed in it (etcd #12136).
#[test]
fn joint_left_by_new_leader() {
    let mut cluster = led_by_one(4);
    cluster.change(1, &ConfChange { voters: vec![NodeId(1), NodeId(2)], ..ConfChange::default() }).unwrap();
    cluster.isolate(1);
    for _ in 0..4 {
        while cluster.carry_out(1) {}
        let network: Vec<_> = cluster.network.drain(..).collect();
        for message in network {
            cluster.cut.clear();
            cluster.deliver(message);
        }
        for id in 2..=4 {
            while cluster.carry_out(id) {}
        }
        if cluster.raft(2).conf().is_joint() {
            break;
        }
    }
    cluster.network.clear();
    cluster.crash(1);
    assert!((2..=4).all(|id| cluster.raft(id).conf().is_joint()));
    cluster.pass(5000);
    assert_eq!(cluster.leader(), None, "without 1 the new configuration has no majority");
    cluster.restart(1);
    cluster.wait_for_leader();
    cluster.pass(500);
    assert_eq!((cluster.raft(2).conf(), cluster.raft(1).conf()), (&conf(&[1, 2]), &conf(&[1, 2])));
}

/// A transfer whose target had died never ended, and writes stayed refused (openraft #1747).
#[test]
fn transfer_times_out_and_writes_resume() {
    let mut cluster = led_by_one(3);
    let now = cluster.now();
    cluster.crash(2);
    cluster.node_mut(1).raft.transfer_leadership(now, NodeId(2)).unwrap();
    assert_eq!(cluster.propose(1, "b"), Err(ProposeError::Transferring { to: NodeId(2) }));
    cluster.pass(999);
    assert_eq!(cluster.propose(1, "b"), Err(ProposeError::Transferring { to: NodeId(2) }));
    cluster.pass(1);
    assert_eq!(cluster.raft(1).transfer_target(), None);
    cluster.commit("b");
    assert_eq!(cluster.commands(3), ["a", "b"]);
}

/// Under load the target never had the whole log, so the transfer never happened (redpanda #2606).
#[test]
fn transfer_under_load() {
    let mut cluster = led_by_one(3);
    for command in 0..200 {
        cluster.propose(1, &format!("{command}")).unwrap();
    }
    cluster.carry_out(1);
    let now = cluster.now();
    cluster.node_mut(1).raft.transfer_leadership(now, NodeId(2)).unwrap();
    let refused = Err(ProposeError::Transferring { to: NodeId(2) });
    for _ in 0..50 {
        assert!(cluster.leader() != Some(1) || cluster.propose(1, "more") == refused);
        cluster.pass(1);
    }
    assert_eq!((cluster.leader(), cluster.commands(2).len()), (Some(2), 201));
}

/// The target lost its vote while leadership was being handed to it, and the transfer hung (etcd #11326).
#[test]
fn transfer_aborts_on_demotion() {
    let mut cluster = led_by_one(3);
    cluster.lose = |m| matches!(m.body, Body::TimeoutNow);
    let now = cluster.now();
    cluster.node_mut(1).raft.transfer_leadership(now, NodeId(2)).unwrap();
    cluster.pass(20);
    let (voters, learners) = (vec![NodeId(1), NodeId(3)], vec![NodeId(2)]);
    cluster.change(1, &ConfChange { voters, learners, ..ConfChange::default() }).unwrap();
    assert_eq!(cluster.raft(1).transfer_target(), None);
    cluster.commit("b");
    let outcome = TransferOutcome::TargetDemoted;
    let ended = Event::TransferEnded { to: NodeId(2), outcome };
    assert_eq!(cluster.node(1).events.iter().filter(|event| **event == ended).count(), 1);
    assert_eq!((cluster.leader(), cluster.commands(2)), (Some(1), vec!["a".to_string(), "b".to_string()]));
}

/// Leadership went to a node that was far behind, and the cluster stood still meanwhile (redpanda #2592).
#[test]
fn transfer_refused_for_laggard() {
    let mut cluster = Cluster::with(3, |config| config.inflight_bytes_max = 1000);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.node_mut(2).disk_stuck = true;
    for _ in 0..50 {
        cluster.commit("x");
    }
    let now = cluster.now();
    let mut transfer = |to| cluster.node_mut(1).raft.transfer_leadership(now, NodeId(to));
    assert_eq!(transfer(2), Err(TransferError::TooFarBehind));
    assert_eq!(transfer(1), Err(TransferError::NotAVoter));
    assert_eq!(transfer(9), Err(TransferError::NotAVoter));
    assert_eq!(transfer(3), Ok(()));
    assert_eq!(transfer(3), Err(TransferError::InProgress));
}

/// After a follower's disk had hung, it was never sent anything again until the leader restarted (hashicorp #612).
#[test]
fn follower_disk_stall_recovers_without_leader_restart() {
    let mut cluster = led_by_one(3);
    cluster.node_mut(3).disk_stuck = true;
    for _ in 0..100 {
        cluster.commit("x");
    }
    cluster.pass(10_000);
    assert_eq!(peer(&cluster, 1, 3).matched, LogIndex(1));
    cluster.node_mut(3).disk_stuck = false;
    cluster.work_disk(3);
    cluster.pass(2000);
    assert_eq!((cluster.leader(), cluster.commands(3).len()), (Some(1), 101));
}

/// The completion of a write whose entries had been replaced meanwhile was taken for that of the new ones (etcd/raft).
#[test]
fn append_aba_completion() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    cluster.node_mut(1).disk_stuck = true;
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[command(1, 1), command(1, 2)])).unwrap();
    cluster.carry_out(1);
    cluster.inject(3, 1, 2, append(LogId::new(1, 1), 0, &[command(2, 2)])).unwrap();
    cluster.carry_out(1);
    cluster.network.clear();
    cluster.handle(1, Input::Persisted(WriteId(1))).unwrap();
    cluster.carry_out(1);
    assert!(cluster.network.is_empty(), "2@1 is durable, 2@2 is not");
    assert_eq!(cluster.raft(1).durable(), LogIndex(1));
    cluster.handle(1, Input::Persisted(WriteId(2))).unwrap();
    cluster.carry_out(1);
    let matched = AppendOutcome::Matched(LogIndex(2));
    let acks =
        |m: &raft_core::Message| matches!(m.body, Body::AppendReply { outcome, .. } if outcome == matched);
    assert!(cluster.network.iter().any(|m| acks(m) && m.to == NodeId(3) && m.term == Term(2)));
    assert!(!cluster.network.iter().any(|m| m.to == NodeId(2)));
}

/// A read that was asked twice was confirmed by the answers to the first question (etcd/raft #397).
#[test]
fn duplicate_read_index_not_stale() {
    let mut cluster = led_by_one(3);
    cluster.node_mut(1).reads.clear();
    // The answers to the first round are kept back.
    cluster.read(1, 1);
    cluster.carry_out(1);
    let first: Vec<_> = cluster.network.drain(..).collect();
    cluster.read(1, 1);
    cluster.carry_out(1);
    assert!(cluster.network.is_empty(), "the second read waits for a round of its own");
    for message in first {
        cluster.deliver(message);
    }
    for id in [2, 3] {
        cluster.carry_out(id);
    }
    let answers: Vec<_> = cluster.network.drain(..).collect();
    for message in answers {
        cluster.deliver(message);
    }
    cluster.carry_out(1);
    assert_eq!(cluster.node(1).reads.len(), 1, "one round confirmed one of them");
    cluster.settle();
    assert_eq!(cluster.node(1).reads.len(), 2);
}

/// An answer to a follower's read of an earlier run was taken for the new one's; same issue.
#[test]
fn an_answer_to_an_earlier_run_is_not_taken() {
    let mut cluster = led_by_one(3);
    cluster.crash(2);
    cluster.restart(2);
    cluster.pass(200);
    cluster.lose = |m| matches!(m.body, Body::ReadIndexReply { .. });
    cluster.read(2, 5);
    cluster.settle();
    let term = cluster.raft(1).term().0;
    let reply =
        |start| Body::ReadIndexReply { start: StartNumber(start), request: 1, index: Some(LogIndex(1)) };
    cluster.inject(1, 2, term, reply(1)).unwrap();
    cluster.settle();
    assert!(cluster.node(2).reads.is_empty());
    cluster.inject(1, 2, term, reply(2)).unwrap();
    cluster.settle();
    assert_eq!(cluster.node(2).reads.len(), 1);
}

/// A leader without any entry left sent nothing at all to a follower that was behind (openraft 2026-07-11).
#[test]
fn fully_purged_leader_sends_snapshot() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.crash(3);
    cluster.commit("a");
    cluster.pass(1200);
    let meta = snapshot(&mut cluster, 1);
    assert_eq!(cluster.raft(1).log_start(), cluster.raft(1).last());
    cluster.restart(3);
    cluster.pass(1500);
    assert_eq!(cluster.node(3).restored, [meta]);
    assert_eq!(cluster.raft(3).last(), cluster.raft(1).last());
}

/// A snapshot older than what was applied set the state machine back (seed #2).
#[test]
fn snapshot_not_newer_than_applied() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    let entries = [command(1, 1), command(1, 2), command(1, 3)];
    cluster.inject(2, 1, 1, append(LogId::ZERO, 3, &entries)).unwrap();
    while cluster.carry_out(1) {}
    cluster.inject(2, 1, 1, install(LogId::new(1, 2))).unwrap();
    while cluster.carry_out(1) {}
    assert!(cluster.node(1).restored.is_empty());
    assert_eq!((cluster.commands(1).len(), cluster.raft(1).applied()), (3, LogIndex(3)));
}

/// Entries behind a snapshot were applied before it, entries it covers after it (seed #3).
#[test]
fn snapshot_apply_order() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    cluster.node_mut(1).disk_stuck = true;
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[command(1, 1), command(1, 2)])).unwrap();
    cluster.carry_out(1);
    cluster.inject(2, 1, 1, install(LogId::new(1, 5))).unwrap();
    cluster.inject(2, 1, 1, append(LogId::new(1, 5), 6, &[command(1, 6)])).unwrap();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 2, &[command(1, 1), command(1, 2)])).unwrap();
    cluster.carry_out(1);
    assert!(cluster.node(1).applied.is_empty(), "nothing before the snapshot is marked");
    cluster.node_mut(1).disk_stuck = false;
    cluster.settle();
    assert_eq!((cluster.node(1).restored.len(), cluster.commands(1)), (1, vec!["1/6".to_owned()]));
}

/// The late acknowledgement of a snapshot set a peer's match back (seed #18).
#[test]
fn late_snapshot_ack_keeps_match() {
    let mut cluster = led_by_one(3);
    cluster.commit("b");
    cluster.commit("c");
    let term = cluster.raft(1).term().0;
    let ack = cluster.sent_since(0, 2, 1).into_iter().rev().find_map(|m| match m.body {
        Body::AppendReply { epoch, round, .. } if m.term == Term(term) => Some((epoch, round)),
        _ => None,
    });
    let (epoch, round) = ack.unwrap();
    let outcome = AppendOutcome::Matched(LogIndex(1));
    cluster.inject(2, 1, term, Body::AppendReply { epoch, round, outcome }).unwrap();
    assert_eq!((peer(&cluster, 1, 2).matched, peer(&cluster, 1, 2).next), (LogIndex(3), LogIndex(4)));
}

/// An old refusal set the next index back, below the match even (seed #15).
#[test]
fn stale_rejection_is_ignored() {
    let mut cluster = led_by_one(3);
    cluster.commit("b");
    cluster.propose(1, "c").unwrap();
    cluster.carry_out(1);
    let term = cluster.raft(1).term().0;
    let sending = |cluster: &Cluster| {
        let status = peer(cluster, 1, 2);
        (status.matched, status.next, status.state)
    };
    let before = sending(&cluster);
    let append = cluster.network.iter().find_map(|m| match m.body {
        Body::AppendEntries { epoch, round, .. } if m.to == NodeId(2) => Some((epoch, round)),
        _ => None,
    });
    let (epoch, round) = append.unwrap();
    for prev in [1, 2] {
        let outcome = AppendOutcome::Rejected { prev: LogIndex(prev), hint: LogId::ZERO };
        cluster.inject(2, 1, term, Body::AppendReply { epoch, round, outcome }).unwrap();
    }
    assert_eq!(sending(&cluster), before);
    // Of another epoch or for an entry never sent: not even looked at, or refused.
    let outcome = AppendOutcome::Rejected { prev: LogIndex(3), hint: LogId::ZERO };
    cluster.inject(2, 1, term, Body::AppendReply { epoch: Epoch(99), round, outcome }).unwrap();
    assert_eq!(sending(&cluster), before);
    let outcome = AppendOutcome::Matched(LogIndex(99));
    assert!(cluster.inject(2, 1, term, Body::AppendReply { epoch, round, outcome }).is_err());
}

/// Acknowledgements that overtook each other were thrown away (seed #12).
#[test]
fn reordered_acks_count() {
    let mut cluster = Cluster::with(3, |config| config.append_bytes_max = 1);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.pass(200);
    cluster.isolate(3);
    for command in ["a", "b", "c"] {
        cluster.propose(1, command).unwrap();
    }
    cluster.carry_out(1);
    let appends: Vec<_> = cluster.network.drain(..).collect();
    for message in appends {
        cluster.deliver(message);
    }
    cluster.carry_out(2);
    cluster.carry_out(2);
    let mut acks: Vec<_> = cluster.network.drain(..).filter(|m| m.from == NodeId(2)).collect();
    assert_eq!(acks.len(), 3);
    let latest = acks.pop().unwrap();
    cluster.deliver(latest);
    assert_eq!(cluster.raft(1).commit(), LogIndex(3), "the last one says it all");
    for ack in acks {
        cluster.deliver(ack);
    }
    assert_eq!(peer(&cluster, 1, 2).matched, LogIndex(3));
}

/// Every tick and every command sent the whole backlog again to a peer that was not there (seed #19).
#[test]
fn unreachable_peer_bounded_work() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    let mark = cluster.sent.len();
    for _ in 0..500 {
        cluster.propose(1, "x").unwrap();
        cluster.pass(10);
    }
    let sent = cluster.sent_since(mark, 1, 3);
    let appends = sent.iter().filter(|m| matches!(m.body, Body::AppendEntries { .. })).count();
    assert!(appends <= 2, "{appends} appends");
    assert!(
        (25..=45).contains(&(sent.len() - appends)),
        "{} heartbeats in five seconds",
        sent.len() - appends
    );
    cluster.heal();
    cluster.pass(400);
    assert_eq!(cluster.commands(3).len(), 501);
}

/// The log was compacted under a follower that was just catching up from it, which then needed the next snapshot, and
/// so on (typesense #2859).
#[test]
fn compaction_respects_catching_up_peer() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 2);
    cluster.wait_for_leader();
    cluster.elect(1);
    for _ in 0..5 {
        cluster.commit("x");
    }
    cluster.node_mut(3).disk_stuck = true;
    for _ in 0..20 {
        cluster.commit("x");
    }
    snapshot(&mut cluster, 1);
    assert_eq!(cluster.raft(1).log_start().index, LogIndex(5), "kept for the one that answers");
    for _ in 0..100 {
        cluster.commit("x");
    }
    snapshot(&mut cluster, 1);
    assert_eq!(cluster.raft(1).log_start().index, LogIndex(125 - 2 - 32), "but not without bound");
}

/// After a crash that lost unsynced data a node voted a second time in the same term (etcd #14143).
#[test]
fn unsynced_loss_no_double_vote() {
    let mut cluster = Cluster::of(&[1], conf(&[1, 2, 3]), |_| {});
    cluster.node_mut(1).disk_stuck = true;
    let ask =
        |campaign| Body::RequestVote { campaign: CampaignId(campaign), last: LogId::ZERO, transfer: false };
    cluster.inject(2, 1, 1, ask(1)).unwrap();
    assert_eq!(granted(&mut cluster), None);
    cluster.crash(1);
    cluster.restart(1);
    cluster.inject(3, 1, 1, ask(2)).unwrap();
    assert_eq!(granted(&mut cluster), Some(true), "the first vote was never told to anybody");
    cluster.inject(2, 1, 1, ask(3)).unwrap();
    assert_eq!(granted(&mut cluster), Some(false));
}

/// The first write to a new leader was refused until its no-op was committed (openraft #1899).
#[test]
fn fresh_leader_queues_first_write() {
    let mut cluster = led_by_one(3);
    cluster.lose = |m| matches!(m.body, Body::AppendReply { .. } | Body::HeartbeatReply { .. });
    cluster.propose(1, "b").unwrap();
    cluster.pass(5);
    cluster.crash(1);
    cluster.heal();
    while cluster.leader().is_none() {
        cluster.pass(1);
    }
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, "c").unwrap();
    cluster.read(leader, 1);
    cluster.pass(20);
    assert_eq!(cluster.commands(leader), ["a", "b", "c"]);
    assert!(cluster.node(leader).reads[0].index.is_some());
}
