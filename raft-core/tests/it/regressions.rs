//! What the simulation and the fuzz targets found, told in a few lines each: the seed is of no use once the random streams
//! change.

use raft_core::{
    AppendOutcome, Body, CampaignId, ConfChange, Entry, EntryKind, Epoch, Event, Input, LogId, LogIndex,
    NodeId, Round, SnapshotMeta, Term, Timestamp,
};

use crate::cluster::{Cluster, conf};

// N2, seed 34 of three nodes: the mark of the own snapshot became durable while a received one had already moved the
// log's start in memory but not on disk. The log was to drop what no snapshot on disk covered.
#[test]
fn the_mark_of_an_own_snapshot_drops_nothing_behind_it_though_a_received_one_is_under_way() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.be_led_by_one();
    let last = cluster.node(3).applied.last().unwrap().id;
    let (conf_id, members) = cluster.raft(3).conf_at(last.index);
    let own = SnapshotMeta { last, time: Timestamp(0), conf: members.clone(), conf_id };
    cluster.isolate(3);
    cluster.node_mut(3).disk_stuck = true;
    cluster.handle(3, Input::SnapshotTaken(Box::new(own))).unwrap();
    cluster.carry_out(3);
    let (leader, term) = (1, cluster.raft(3).term());
    let received = SnapshotMeta {
        last: LogId { term, index: LogIndex(last.index.0 + 20) },
        conf: conf(&[1, 2, 3]),
        ..SnapshotMeta::default()
    };
    let install = Body::InstallSnapshot { epoch: Epoch(1), round: Round(1), meta: Box::new(received) };
    cluster.inject(leader, 3, term.0, install).unwrap();
    cluster.carry_out(3);
    let node = cluster.node_mut(3);
    let marks: Vec<LogIndex> =
        node.writes.iter().map(|w| w.snapshot.as_ref().unwrap().meta.last.index).collect();
    assert_eq!(marks, [last.index, LogIndex(last.index.0 + 20)], "two marks are on their way");
    let first = node.writes[0].id;
    cluster.handle(3, Input::Persisted(first)).unwrap();
    let ready = cluster.node_mut(3).raft.take_ready().unwrap();
    assert_eq!(ready.compact, Some(last.index));
}

// P4 and R1, seed 6: a node that led again in a later term took the answers to its messages of the earlier term for its
// own, and an old round confirmed a new read.
#[test]
fn an_answer_to_an_earlier_term_echoes_neither_epoch_nor_round() {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    let old = cluster.raft(1).term();
    cluster.elect(2);
    cluster.pass(200);
    let (epoch, round, prev, commit) = (Epoch(3), Round(9), LogId::new(1, 1), LogIndex(1));
    let meta = Box::new(SnapshotMeta { last: prev, conf: conf(&[1, 2, 3]), ..SnapshotMeta::default() });
    let entries = raft_core::Entries::EMPTY;
    for body in [
        Body::Heartbeat { epoch, round, prev, commit },
        Body::AppendEntries { epoch, round, prev, commit, entries },
        Body::InstallSnapshot { epoch, round, meta },
    ] {
        let mark = cluster.sent.len();
        cluster.inject(1, 3, old.0, body).unwrap();
        cluster.carry_out(3);
        let answers = cluster.sent_since(mark, 3, 1);
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        assert!(answer.term > old);
        let echoed = match &answer.body {
            Body::HeartbeatReply { epoch, round, .. } | Body::AppendReply { epoch, round, .. } => {
                (*epoch, *round)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(echoed, (Epoch(0), Round(0)));
    }
}

// Seed 185: entries for a peer could not be read, and before the pause was over nobody wanted them any more. The
// deadline stayed in the past, and the caller came back for ever.
#[test]
fn a_failed_fetch_that_nobody_wants_any_more_leaves_no_deadline_in_the_past() {
    let mut cluster = Cluster::with(3, |config| {
        config.tail_bytes_max = 200;
        config.append_bytes_max = 200;
    });
    cluster.be_led_by_one();
    cluster.isolate(3);
    for command in 0..20 {
        cluster.commit(&format!("command {command}"));
    }
    cluster.node_mut(1).reader_stuck = true;
    cluster.heal();
    for _ in 0..100 {
        cluster.pass(10);
    }
    let fetch = cluster.node_mut(1).fetches.pop_front().expect("3 is far behind");
    cluster.isolate(3);
    cluster.handle(1, Input::FetchFailed { id: fetch.id }).unwrap();
    // The peer shows that it lost what it had: it gets nothing more.
    let heartbeat = |m: &&raft_core::Message| m.to == NodeId(3) && matches!(m.body, Body::Heartbeat { .. });
    let sent = cluster.sent.iter().rev().find(heartbeat).unwrap().clone();
    let Body::Heartbeat { epoch, round, prev, .. } = sent.body else { unreachable!() };
    let matched = LogIndex(prev.index.0 - 1);
    let Term(term) = sent.term;
    cluster.inject(3, 1, term, Body::HeartbeatReply { epoch, round, matched, clock: Timestamp(0) }).unwrap();
    cluster.carry_out(1);
    let regressed = |event: &Event| matches!(event, Event::PeerRegressed { .. });
    assert!(cluster.node(1).events.iter().any(regressed));
    cluster.now_ms += 20;
    cluster.handle(1, Input::Tick).unwrap();
    cluster.carry_out(1);
    assert!(cluster.raft(1).next_deadline() > Some(cluster.now().instant));
}

// X1 and M5, seed 5 of three nodes: a leader on its way out whose disk hung as well began a transfer in the moment its
// patience was over. It ended at once, was begun again, and the leader never came to remove itself.
#[test]
fn a_leader_whose_patience_to_depart_is_over_begins_no_transfer_though_its_disk_hangs() {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    cluster.lose = |message| matches!(message.body, Body::TimeoutNow);
    cluster.node_mut(1).disk_stuck = true;
    let to = ConfChange { voters: [NodeId(2), NodeId(3)].into(), ..ConfChange::default() };
    cluster.change(1, &to).unwrap();
    cluster.pass(2100);
    assert!(!cluster.raft(1).conf().is_joint(), "two seconds without a successor are enough");
}

// E12, fuzzing: a stranger that asked a node of term 0 was told that it had left, in a message of term 0 that it would refuse.
#[test]
fn a_stranger_is_not_told_that_it_left_before_anybody_could() {
    let mut cluster = Cluster::new(3);
    let last = LogId::ZERO;
    let ask = |term: u64| Body::PreVote { campaign: CampaignId(1), next_term: Term(term + 1), last };
    cluster.inject(9, 1, 0, ask(0)).unwrap();
    let ready = cluster.node_mut(1).raft.take_ready().unwrap();
    let [reply] = &ready.messages[..] else { panic!("{:?}", ready.messages) };
    assert!(matches!(reply.body, Body::PreVoteReply { .. }), "{reply:?}");
}

// N7, fuzzing: a leader that had no snapshot sent one of nothing to a peer that said it had lost one of nothing.
#[test]
fn a_snapshot_of_nothing_is_neither_asked_for_nor_sent() {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    let (term, start) = (cluster.raft(1).term(), raft_core::StartNumber(7));
    let needs = Body::SnapshotNeeded { start, at_least: LogIndex(0) };
    assert!(cluster.inject(3, 1, term.0, needs).is_err());
    cluster.settle();
    assert!(!cluster.sent.iter().any(|message| matches!(message.body, Body::InstallSnapshot { .. })));
}

// Fuzzing: a node that had halted still had its log dropped and old entries loaded.
#[test]
fn a_halted_node_hands_out_no_work() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.be_led_by_one();
    let last = cluster.node(3).applied.last().unwrap().id;
    let (conf_id, members) = cluster.raft(3).conf_at(last.index);
    let meta = SnapshotMeta { last, time: Timestamp(0), conf: members.clone(), conf_id };
    cluster.isolate(3);
    cluster.node_mut(3).disk_stuck = true;
    cluster.handle(3, Input::SnapshotTaken(Box::new(meta))).unwrap();
    cluster.carry_out(3);
    let mark = cluster.node(3).writes[0].id;
    cluster.handle(3, Input::Persisted(mark)).unwrap();
    let (term, entries) = (cluster.raft(3).term().next(), raft_core::Entries::EMPTY);
    let (prev, commit) = (LogId { term, ..last }, LogIndex(0));
    let contradiction = Body::AppendEntries { epoch: Epoch(1), round: Round(1), prev, commit, entries };
    cluster.inject(2, 3, term.0, contradiction).unwrap();
    assert!(cluster.raft(3).halted().is_some());
    let ready = cluster.node_mut(3).raft.take_ready().unwrap();
    assert_eq!((ready.compact, ready.fetches.len(), ready.messages.len()), (None, 0, 0));
}

// L7, fuzzing: a leader sent a snapshot that contradicts what it had sent in the same term. The log ended with the snapshot then,
// and what had been durable behind it still counted.
#[test]
fn what_a_snapshot_contradicts_does_not_count_as_durable() {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    cluster.isolate(3);
    let (term, prev) = (cluster.raft(3).term(), cluster.raft(3).last());
    let payload = bytes::Bytes::from_static(b"b");
    let entry = |by: u64| Entry {
        id: LogId { term, index: prev.index.plus(by) },
        time: Timestamp(0),
        session: None,
        kind: EntryKind::Command,
        checksum: Entry::checksum_of(&payload),
        payload: payload.clone(),
    };
    let entries = (1..=3).map(entry).collect();
    let (epoch, round) = (Epoch(1), Round(1));
    let append = Body::AppendEntries { epoch, round, prev, commit: prev.index, entries };
    cluster.inject(1, 3, term.0, append).unwrap();
    cluster.carry_out(3);
    assert_eq!(cluster.raft(3).durable(), prev.index.plus(3));
    let last = LogId { term: Term(term.0 - 1), index: prev.index.plus(1) };
    let meta = Box::new(SnapshotMeta { last, conf: conf(&[1, 2, 3]), ..SnapshotMeta::default() });
    cluster.node_mut(3).disk_stuck = true;
    cluster.inject(1, 3, term.0, Body::InstallSnapshot { epoch, round, meta }).unwrap();
    assert_eq!(cluster.raft(3).last(), last);
    assert_eq!(cluster.raft(3).durable(), prev.index, "not even the snapshot is");
    assert_eq!(cluster.raft(3).check(), Ok(()));
}

// The snapshot arrived, the acknowledgement did not, and the connection held: the next heartbeat's answer says the same, so that
// nobody waits for a snapshot's patience.
#[test]
fn a_lost_acknowledgement_of_a_snapshot_costs_a_heartbeat() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.be_led_by_one();
    cluster.isolate(3);
    for command in ["a", "b", "c"] {
        cluster.commit(command);
    }
    cluster.snapshot(1).unwrap();
    cluster.settle();
    cluster.heal();
    cluster.lose = |message| {
        let matched = matches!(message.body, Body::AppendReply { outcome: AppendOutcome::Matched(_), .. });
        matched && message.from == NodeId(3)
    };
    cluster.pass(300);
    assert_eq!(cluster.node(3).restored.len(), 1);
    let last = cluster.raft(1).last().index;
    let (_, peer) = cluster.raft(1).peers().into_iter().find(|(id, _)| *id == NodeId(3)).unwrap();
    assert_eq!(peer.matched, last);
}
