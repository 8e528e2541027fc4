use bytes::Bytes;
use raft_core::{
    Body, ConfState, Config, Epoch, Incarnation, LogId, Member, Message, RoleKind, Round, Term, Timestamp,
};

use super::*;

type TestReplica = Replica<&'static str, &'static str>;

fn at(millis: u64) -> Now {
    Now { instant: Instant(1 + millis * 1000), wall: Timestamp(1_000_000 + millis) }
}

fn replica(nodes: u64) -> TestReplica {
    let member = |id| (NodeId(id), Member { incarnation: Incarnation(id), address: format!("n{id}:1") });
    let conf = ConfState::of_voters((1..=nodes).map(member));
    let raft = Raft::new(Config::new(NodeId(1), 7), raft_core::Recovered::fresh(conf), at(0)).unwrap();
    Replica::new(raft, Limits::default(), LogIndex::ZERO, 0)
}

/// Carries out everything that needs no other node, and returns what is left.
fn settle(replica: &mut TestReplica, now: Now) -> Effects<&'static str, &'static str> {
    let mut all = Effects::default();
    while let Some(effects) = replica.take_effects(now) {
        for write in &effects.writes {
            replica.handle(now, Input::Persisted(write.id)).unwrap();
        }
        for job in &effects.jobs {
            if let Job::Apply { entries, .. } = job {
                replica.handle(now, Input::Applied(entries.last().unwrap().id.index)).unwrap();
            }
        }
        all.writes.extend(effects.writes);
        all.messages.extend(effects.messages);
        all.jobs.extend(effects.jobs);
        all.forwards.extend(effects.forwards);
        all.failed.extend(effects.failed);
        all.failed_reads.extend(effects.failed_reads);
        all.replies.extend(effects.replies);
        all.events.extend(effects.events);
    }
    all
}

fn lone_leader() -> TestReplica {
    let mut replica = replica(1);
    replica.tick(at(2000)).unwrap();
    let _ = settle(&mut replica, at(2000));
    assert_eq!(replica.raft().role(), RoleKind::Leader);
    replica
}

fn follower_of(leader: u64, term: u64, replica: &mut TestReplica, now: Now) {
    let body =
        Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev: LogId::ZERO, commit: LogIndex::ZERO };
    let message = Message { from: NodeId(leader), to: NodeId(1), term: Term(term), body };
    replica.handle(now, Input::Message(message)).unwrap();
    let _ = replica.take_effects(now);
    assert_eq!(replica.raft().leader(), Some(NodeId(leader)));
}

fn command(text: &'static str) -> Proposal {
    Proposal::new(Bytes::from_static(text.as_bytes()))
}

#[test]
fn a_lone_leader_hands_each_command_to_its_own_waiter() {
    let mut replica = lone_leader();
    replica.propose(at(2001), command("a"), "first");
    replica.propose(at(2001), command("b"), "second");
    let effects = settle(&mut replica, at(2001));
    let mut served = Vec::new();
    for job in effects.jobs {
        if let Job::Apply { entries, waiters } = job {
            served.extend(waiters.into_iter().map(|(at, who)| (entries[at].payload.clone(), who)));
        }
    }
    assert_eq!(served, [(Bytes::from_static(b"a"), "first"), (Bytes::from_static(b"b"), "second")]);
    assert!(effects.failed.is_empty());
}

#[test]
fn a_read_comes_behind_the_entries_it_must_see() {
    let mut replica = lone_leader();
    replica.propose(at(2001), command("a"), "write");
    let before = settle(&mut replica, at(2001));
    assert!(before.jobs.iter().any(|job| matches!(job, Job::Apply { .. })));
    replica.read(at(2002), "read");
    let effects = settle(&mut replica, at(2002));
    assert!(matches!(effects.jobs.as_slice(), [Job::Reads(reads)] if reads == &["read"]));
}

#[test]
fn without_a_leader_requests_wait_and_then_fail_for_certain() {
    let mut replica = replica(3);
    replica.propose(at(10), command("a"), "write");
    replica.read(at(10), "read");
    let effects = settle(&mut replica, at(10));
    assert!(effects.failed.is_empty() && effects.failed_reads.is_empty());
    replica.tick(at(2010)).unwrap();
    let effects = settle(&mut replica, at(2010));
    assert_eq!(effects.failed, [("write", ClientError::NoLeader)]);
    assert_eq!(effects.failed_reads, [("read", ClientError::NoLeader)]);
}

#[test]
fn what_waited_goes_to_the_leader_in_the_order_it_came() {
    let mut replica = replica(3);
    replica.propose(at(10), command("a"), "first");
    replica.propose(at(11), command("b"), "second");
    let body =
        Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev: LogId::ZERO, commit: LogIndex::ZERO };
    let message = Message { from: NodeId(2), to: NodeId(1), term: Term(1), body };
    replica.handle(at(50), Input::Message(message)).unwrap();
    let effects = settle(&mut replica, at(50));
    let sent: Vec<_> = effects.forwards.iter().map(|f| (f.to, f.proposal.payload.clone())).collect();
    assert_eq!(sent, [(NodeId(2), Bytes::from_static(b"a")), (NodeId(2), Bytes::from_static(b"b"))]);
}

#[test]
fn a_forwarded_command_that_was_not_taken_is_offered_again() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let request = settle(&mut replica, at(20)).forwards[0].request;
    replica.forward_answered(at(30), NodeId(2), request, ForwardOutcome::NotLeader);
    assert!(settle(&mut replica, at(30)).forwards.is_empty(), "asked again at once");
    replica.tick(at(30 + RETRY_MS)).unwrap();
    let again = settle(&mut replica, at(30 + RETRY_MS)).forwards;
    assert_eq!(again.len(), 1);
    replica.forward_answered(
        at(60),
        NodeId(2),
        again[0].request,
        ForwardOutcome::Reply(Bytes::from_static(b"ok")),
    );
    assert_eq!(settle(&mut replica, at(60)).replies, [("write", Bytes::from_static(b"ok"))]);
}

#[test]
fn a_broken_connection_leaves_the_outcome_unknown_and_never_retries() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let request = settle(&mut replica, at(20)).forwards[0].request;
    replica.connection_lost(NodeId(3));
    assert!(settle(&mut replica, at(21)).failed.is_empty());
    replica.connection_lost(NodeId(2));
    let effects = settle(&mut replica, at(22));
    assert_eq!(effects.failed, [("write", ClientError::OutcomeUnknown)]);
    // A late answer finds nobody.
    replica.forward_answered(at(23), NodeId(2), request, ForwardOutcome::NotLeader);
    replica.tick(at(100)).unwrap();
    let effects = settle(&mut replica, at(100));
    assert!(effects.forwards.is_empty() && effects.replies.is_empty());
}

#[test]
fn an_answer_from_a_node_that_was_not_asked_is_ignored() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let request = settle(&mut replica, at(20)).forwards[0].request;
    replica.forward_answered(at(21), NodeId(3), request, ForwardOutcome::Reply(Bytes::new()));
    assert!(settle(&mut replica, at(21)).replies.is_empty());
}

#[test]
fn a_forward_without_an_answer_ends_as_unknown() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let _ = settle(&mut replica, at(20));
    let limit = Limits::default().request_timeout_ms;
    replica.tick(at(20 + limit)).unwrap();
    assert_eq!(settle(&mut replica, at(20 + limit)).failed, [("write", ClientError::OutcomeUnknown)]);
}

#[test]
fn a_forwarded_command_is_not_forwarded_again() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose_forwarded(at(20), NodeId(3), true, command("a"), "peer");
    let effects = settle(&mut replica, at(20));
    assert!(effects.forwards.is_empty());
    assert_eq!(effects.failed, [("peer", ClientError::NotLeader)]);
}

#[test]
fn on_the_way_out_everybody_is_told() {
    let mut replica = replica(3);
    replica.propose(at(10), command("a"), "waiting");
    replica.read(at(10), "read");
    let _ = settle(&mut replica, at(10));
    replica.abandon();
    let effects = settle(&mut replica, at(11));
    assert_eq!(effects.failed, [("waiting", ClientError::ShuttingDown)]);
    assert_eq!(effects.failed_reads, [("read", ClientError::ShuttingDown)]);
}

/// A command that arrived between the leader's death and the election was once queued for the dead leader, and its
/// client waited until the time-out.
#[test]
fn a_forward_that_was_not_sent_goes_to_the_next_leader() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let request = settle(&mut replica, at(20)).forwards[0].request;
    replica.forward_not_sent(at(20), request);
    replica.tick(at(20 + RETRY_MS)).unwrap();
    let again = settle(&mut replica, at(20 + RETRY_MS)).forwards;
    assert_eq!(again.len(), 1, "not tried again");
    replica.forward_not_sent(at(45), again[0].request);
    let body =
        Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev: LogId::ZERO, commit: LogIndex::ZERO };
    let message = Message { from: NodeId(3), to: NodeId(1), term: Term(2), body };
    replica.handle(at(50), Input::Message(message)).unwrap();
    let sent = settle(&mut replica, at(50)).forwards;
    assert_eq!(sent.iter().map(|f| f.to).collect::<Vec<_>>(), [NodeId(3)]);
}

/// A candidate that wins with commands waiting writes twice in one turn; the second write was once lost, and the log
/// refused the third.
#[test]
fn what_waited_for_a_leader_is_written_when_this_node_becomes_it() {
    let mut replica = replica(1);
    replica.propose(at(10), command("a"), "write");
    assert!(settle(&mut replica, at(10)).jobs.is_empty());
    replica.tick(at(2000)).unwrap();
    let first = settle(&mut replica, at(2000));
    replica.propose(at(2001), command("b"), "later");
    let second = settle(&mut replica, at(2001));
    let ids: Vec<u64> = first.writes.iter().chain(&second.writes).map(|write| write.id.0).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "a write is missing");
    let indexes: Vec<u64> = first
        .writes
        .iter()
        .chain(&second.writes)
        .flat_map(|write| write.entries.iter().map(|entry| entry.id.index.0))
        .collect();
    assert_eq!(indexes, (1..=indexes.len() as u64).collect::<Vec<_>>(), "an entry is missing");
}

/// A leader that is paused answers nobody and its connection stays open: clients must not wait for the time-out.
#[test]
fn a_new_leader_ends_the_wait_for_the_old_one() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let _ = settle(&mut replica, at(20));
    let body =
        Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev: LogId::ZERO, commit: LogIndex::ZERO };
    let message = Message { from: NodeId(3), to: NodeId(1), term: Term(2), body };
    replica.handle(at(50), Input::Message(message)).unwrap();
    assert!(settle(&mut replica, at(50)).failed.is_empty(), "the old leader may still answer");
    replica.tick(at(50 + FORMER_LEADER_MS)).unwrap();
    let failed = settle(&mut replica, at(50 + FORMER_LEADER_MS)).failed;
    assert_eq!(failed, [("write", ClientError::OutcomeUnknown)]);
}

fn leads(leader: u64, term: u64) -> Input {
    let body =
        Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev: LogId::ZERO, commit: LogIndex::ZERO };
    Input::Message(Message { from: NodeId(leader), to: NodeId(1), term: Term(term), body })
}

fn sent(effects: &Effects<&'static str, &'static str>) -> Vec<(u64, Bytes)> {
    effects.forwards.iter().map(|f| (f.to.0, f.proposal.payload.clone())).collect()
}

/// A follower of node 2 that has forwarded `a` and `b` to it at 20 ms.
fn two_under_way() -> (TestReplica, Vec<Forward>) {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "first");
    replica.propose(at(20), command("b"), "second");
    let forwards = settle(&mut replica, at(20)).forwards;
    (replica, forwards)
}

fn firsts(forwards: &[Forward]) -> Vec<bool> {
    forwards.iter().map(|forward| forward.first).collect()
}

/// A pipeline through a follower was once executed in another order when the leader changed: what came in behind went to
/// the new leader while the old one still had to send back what came first.
#[test]
fn no_command_overtakes_one_that_a_former_leader_still_has() {
    let (mut replica, old) = two_under_way();
    replica.handle(at(50), leads(3, 2)).unwrap();
    replica.propose(at(51), command("c"), "third");
    assert!(settle(&mut replica, at(51)).forwards.is_empty());
    // The answers may arrive in any order: they travel on two connections.
    replica.forward_answered(at(52), NodeId(2), old[1].request, ForwardOutcome::NotLeader);
    replica.tick(at(52 + RETRY_MS)).unwrap();
    assert!(settle(&mut replica, at(52 + RETRY_MS)).forwards.is_empty());
    replica.forward_answered(at(80), NodeId(2), old[0].request, ForwardOutcome::NotLeader);
    let effects = settle(&mut replica, at(80));
    assert_eq!(sent(&effects), [(3, Bytes::from("a")), (3, Bytes::from("b")), (3, Bytes::from("c"))]);
    assert!(effects.failed.is_empty());
}

/// A node that refused a command and leads again would take those that were on their way behind it.
#[test]
fn behind_a_refused_command_none_is_taken_until_its_sender_begins_anew() {
    let mut replica = replica(1);
    replica.propose_forwarded(at(10), NodeId(2), true, command("a"), "a");
    replica.tick(at(2000)).unwrap();
    assert_eq!(settle(&mut replica, at(2000)).failed, [("a", ClientError::NotLeader)]);
    assert_eq!(replica.raft().role(), RoleKind::Leader);
    replica.propose_forwarded(at(2001), NodeId(2), false, command("b"), "b");
    replica.propose_forwarded(at(2001), NodeId(3), false, command("x"), "of another node");
    let effects = settle(&mut replica, at(2001));
    assert_eq!(effects.failed, [("b", ClientError::NotLeader)]);
    replica.propose_forwarded(at(2002), NodeId(2), true, command("a"), "a");
    replica.propose_forwarded(at(2002), NodeId(2), false, command("b"), "b");
    let again = settle(&mut replica, at(2002));
    assert!(again.failed.is_empty());
    let entries = |effects: &Effects<&'static str, &'static str>| -> Vec<Bytes> {
        effects
            .writes
            .iter()
            .flat_map(|write| write.entries.iter().map(|entry| entry.payload.clone()))
            .collect()
    };
    assert_eq!(entries(&effects), [Bytes::from("x")]);
    assert_eq!(entries(&again), [Bytes::from("a"), Bytes::from("b")]);
}

#[test]
fn what_came_back_is_sent_again_once_everything_behind_it_has_come_back_too() {
    let (mut replica, old) = two_under_way();
    assert_eq!(firsts(&old), [true, false]);
    replica.forward_answered(at(30), NodeId(2), old[0].request, ForwardOutcome::NotLeader);
    replica.propose(at(31), command("c"), "third");
    for now in [31, 30 + RETRY_MS, 30 + 2 * RETRY_MS] {
        replica.tick(at(now)).unwrap();
        assert!(settle(&mut replica, at(now)).forwards.is_empty(), "sent while b is under way");
    }
    replica.forward_answered(at(80), NodeId(2), old[1].request, ForwardOutcome::NotLeader);
    replica.tick(at(80 + RETRY_MS)).unwrap();
    let effects = settle(&mut replica, at(80 + RETRY_MS));
    assert_eq!(sent(&effects), [(2, Bytes::from("a")), (2, Bytes::from("b")), (2, Bytes::from("c"))]);
    assert_eq!(firsts(&effects.forwards), [true, false, false]);
}

#[test]
fn commands_wait_for_a_silent_former_leader_no_longer_than_its_answers_are_worth() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "first");
    let _ = settle(&mut replica, at(20));
    replica.handle(at(50), leads(3, 2)).unwrap();
    replica.propose(at(51), command("b"), "second");
    assert!(settle(&mut replica, at(51)).forwards.is_empty());
    replica.tick(at(51 + FORMER_LEADER_MS)).unwrap();
    let effects = settle(&mut replica, at(51 + FORMER_LEADER_MS));
    assert_eq!(effects.failed, [("first", ClientError::OutcomeUnknown)]);
    assert_eq!(sent(&effects), [(3, Bytes::from("b"))]);
}

/// With nobody to follow it, a leader that cannot be reached was once waited for until the request timed out.
#[test]
fn a_lost_leader_is_waited_for_no_longer_than_any_leader() {
    let mut replica = replica(3);
    follower_of(2, 1, &mut replica, at(10));
    replica.propose(at(20), command("a"), "write");
    let _ = settle(&mut replica, at(20));
    // Nothing more is heard of it.
    let mut failed = Vec::new();
    let mut now = 20;
    while failed.is_empty() && now < 10_000 {
        now += 10;
        replica.tick(at(now)).unwrap();
        failed = settle(&mut replica, at(now)).failed;
    }
    assert_eq!(failed, [("write", ClientError::OutcomeUnknown)]);
    assert!(now <= 20 + 1100 + 2000, "after {now} ms");
}

/// A snapshot from n2, which leads term 1.
fn snapshot(index: u64, conf: &ConfState) -> Message {
    let last = LogId::new(1, index);
    let meta = raft_core::SnapshotMeta { last, conf: conf.clone(), ..raft_core::SnapshotMeta::default() };
    let body = Body::InstallSnapshot { epoch: Epoch(1), round: Round(1), meta: Box::new(meta) };
    Message { from: NodeId(2), to: NodeId(1), term: Term(1), body }
}

/// What is received has one temporary name until the log has renamed it: a second one would put half a file in the
/// place of a whole one.
#[test]
fn a_second_snapshot_is_not_accepted_before_the_first_has_its_mark() {
    let mut replica = replica(3);
    let conf = replica.raft().conf().clone();
    assert!(replica.accept_snapshot() && !replica.accept_snapshot());
    replica.snapshot_received(at(10), snapshot(5, &conf)).unwrap();
    assert!(!replica.accept_snapshot());
    let effects = replica.take_effects(at(10)).unwrap();
    let write = effects.writes.iter().find(|write| write.snapshot.is_some()).unwrap();
    assert!(!replica.accept_snapshot(), "its mark is not durable yet");
    replica.handle(at(11), Input::Persisted(write.id)).unwrap();
    assert!(replica.accept_snapshot());
}

#[test]
fn a_snapshot_that_broke_off_or_is_not_needed_makes_room_for_the_next() {
    let mut replica = replica(3);
    let conf = replica.raft().conf().clone();
    assert!(replica.accept_snapshot());
    replica.snapshot_gone();
    assert!(replica.accept_snapshot());
    replica.snapshot_received(at(10), snapshot(5, &conf)).unwrap();
    let _ = settle(&mut replica, at(10));
    // The same again is of no use: its file is removed before another one may come.
    assert!(replica.accept_snapshot());
    replica.snapshot_received(at(20), snapshot(5, &conf)).unwrap();
    let effects = replica.take_effects(at(20)).unwrap();
    assert_eq!(effects.discard, Some(LogId::new(1, 5)));
    assert!(!replica.accept_snapshot());
    replica.snapshot_gone();
    assert!(replica.accept_snapshot());
}

/// Sent again at once it would be refused again: another snapshot comes first, and the core hears of the failure only then.
#[test]
fn a_snapshot_that_is_damaged_here_is_not_sent_again_before_there_is_another() {
    let mut replica = lone_leader();
    let takes = |effects: &Effects<&'static str, &'static str>| {
        effects.jobs.iter().filter(|job| matches!(job, Job::TakeSnapshot)).count()
    };
    let (to, epoch) = (NodeId(2), Epoch(7));
    replica.snapshot_not_sent(at(2001), to, epoch, false).unwrap();
    assert_eq!(
        takes(&settle(&mut replica, at(2001))),
        0,
        "the connection broke: the file is as good as ever"
    );
    for failing in [false, true] {
        replica.snapshot_not_sent(at(2002), to, epoch, true).unwrap();
        replica.snapshot_not_sent(at(2002), NodeId(3), epoch, true).unwrap();
        assert_eq!(takes(&settle(&mut replica, at(2002))), 1);
        assert_eq!(replica.unsent.len(), 2);
        if failing {
            replica.snapshot_failed(at(2003)).unwrap();
        } else {
            let meta = replica.raft().snapshot().clone();
            replica.snapshot_taken(at(2003), meta, 100).unwrap();
        }
        assert!(replica.unsent.is_empty(), "they are told");
    }
}

/// A compaction takes older snapshots with it, also the one that the applier has been told to restore.
#[test]
fn the_log_forgets_nothing_while_a_snapshot_is_to_be_restored() {
    let mut replica = replica(3);
    let conf = replica.raft().conf().clone();
    for (now, index) in [(10, 5), (20, 9)] {
        replica.snapshot_received(at(now), snapshot(index, &conf)).unwrap();
        let effects = replica.take_effects(at(now)).unwrap();
        assert_eq!(effects.compact, None);
        let write = effects.writes.last().unwrap().id;
        replica.handle(at(now), Input::Persisted(write)).unwrap();
        let effects = replica.take_effects(at(now)).unwrap();
        assert_eq!(effects.compact, None, "the applier has not restored {index} yet");
        assert!(effects.jobs.iter().any(|job| matches!(job, Job::Restore(_))));
    }
    replica.handle(at(30), Input::Applied(LogIndex(5))).unwrap();
    assert!(replica.take_effects(at(30)).is_none_or(|effects| effects.compact.is_none()));
    replica.handle(at(31), Input::Applied(LogIndex(9))).unwrap();
    assert_eq!(replica.take_effects(at(31)).unwrap().compact, Some(LogIndex(9)));
}
