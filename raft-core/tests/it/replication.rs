//! What a leader sends to whom and when, told by what arrives.

use raft_core::{
    AppendOutcome, Body, Epoch, Input, LogIndex, NodeId, ProposeError, Round, StepError, Timestamp,
};

use crate::cluster::Cluster;

/// Three nodes led by 1, that have heard of each other lately.
fn led_by_one() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    cluster
}

fn matched(cluster: &Cluster, id: u64) -> LogIndex {
    cluster.raft(1).peers().into_iter().find(|(peer, _)| peer.0 == id).unwrap().1.matched
}

// P6: what was in flight on a connection that is gone may be lost with it.
#[test]
fn a_new_connection_has_what_was_in_flight_sent_again_at_once() {
    let mut cluster = led_by_one();
    cluster.cut.insert((1, 3));
    let lost = cluster.propose(1, "b").unwrap().index;
    cluster.settle();
    assert_eq!(matched(&cluster, 3), lost.prev());
    cluster.heal();
    cluster.settle();
    assert_eq!(matched(&cluster, 3), lost.prev(), "nobody has told it yet");
    cluster.handle(1, Input::PeerConnected(NodeId(3))).unwrap();
    cluster.settle();
    assert_eq!(matched(&cluster, 3), lost);
}

// P1: neither a round that has not begun nor an entry that is not there can have been answered.
#[test]
fn an_answer_to_what_was_never_sent_is_refused() {
    let mut cluster = led_by_one();
    let (term, last) = (cluster.raft(1).term().0, cluster.raft(1).last().index);
    let heartbeat = cluster.sent.iter().rev().find_map(|message| match message.body {
        Body::Heartbeat { epoch, round, .. } if message.to == NodeId(3) => Some((epoch, round)),
        _ => None,
    });
    let (epoch, round): (Epoch, Round) = heartbeat.unwrap();
    let later = Round(round.0 + 100);
    let clock = Timestamp(0);
    for (round, index, fits) in [(round, last, true), (later, last, false), (round, last.next(), false)] {
        let beat = Body::HeartbeatReply { epoch, round, matched: index, clock };
        let append = Body::AppendReply { epoch, round, outcome: AppendOutcome::Matched(index) };
        for answer in [beat, append] {
            let outcome = cluster.inject(3, 1, term, answer);
            let refused = matches!(outcome, Err(StepError::BadMessage(_)));
            assert_eq!((outcome.is_ok(), refused), (fits, !fits), "{round:?} {index}");
        }
    }
}

// SAFETY F1: a bound that one proposal may pass, or the largest could never be written.
#[test]
fn what_is_not_committed_has_a_bound_to_the_byte() {
    let mut cluster = Cluster::with(3, |config| {
        config.uncommitted_bytes_max = raft_core::ENTRY_OVERHEAD_BYTES + 10;
    });
    cluster.be_led_by_one();
    cluster.isolate(1);
    for half in ["12345", "67890"] {
        cluster.propose(1, half).unwrap();
    }
    assert_eq!(cluster.propose(1, "1"), Err(ProposeError::Busy));
    cluster.heal();
    cluster.pass(5000);
    let leader = cluster.wait_for_leader();
    assert!(cluster.propose(leader, &"larger".repeat(100)).is_ok(), "nothing waits");
    assert_eq!(cluster.propose(leader, "1"), Err(ProposeError::Busy));
}

// Time in the log is what the leader's clock shows since its election, in milliseconds.
#[test]
fn replicated_time_goes_on_as_the_leaders_clock_does() {
    let mut cluster = led_by_one();
    let time = |cluster: &Cluster| cluster.node(2).applied.last().unwrap().time.0;
    cluster.commit("b");
    let before = time(&cluster);
    cluster.pass(5000);
    cluster.commit("c");
    let passed = time(&cluster) - before;
    assert!((5000..5100).contains(&passed), "{passed}");
}

// SAFETY P3: a rejection that was under way for long says nothing of the probe that waits.
#[test]
fn only_the_probe_that_waits_can_be_refused() {
    let mut cluster = led_by_one();
    for command in ["b", "c", "d"] {
        cluster.commit(command);
    }
    cluster.crash(1);
    cluster.restart(1);
    cluster.lose = |message| message.to == NodeId(3) && matches!(message.body, Body::AppendEntries { .. });
    let mark = cluster.sent.len();
    cluster.elect(1);
    let next =
        |cluster: &Cluster| cluster.raft(1).peers().iter().find(|(id, _)| *id == NodeId(3)).unwrap().1.next;
    let probe = cluster.sent_since(mark, 1, 3).into_iter().rev().find_map(|message| match message.body {
        Body::AppendEntries { epoch, round, prev, .. } => Some((epoch, round, prev)),
        _ => None,
    });
    let (epoch, round, prev) = probe.unwrap();
    let (term, before) = (cluster.raft(1).term().0, next(&cluster));
    assert_eq!(before, prev.index.next());
    let hint = cluster.node(2).applied[0].id;
    for (refused, expected) in [(prev.index.prev(), before), (prev.index, hint.index.next())] {
        let outcome = AppendOutcome::Rejected { prev: refused, hint };
        cluster.inject(3, 1, term, Body::AppendReply { epoch, round, outcome }).unwrap();
        assert_eq!(next(&cluster), expected);
    }
}
