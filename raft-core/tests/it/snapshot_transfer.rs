//! A peer that is behind the leader's log gets a snapshot, whatever else goes on (SAFETY P7).

use raft_core::{Body, Epoch, Event, Input, LogIndex, Message, NodeId, Round};

use crate::cluster::Cluster;

/// Three nodes led by 1; what 3 lacks is in the leader's snapshot only.
fn left_behind() -> Cluster {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    leave_3_behind(&mut cluster);
    cluster
}

/// 1 leads and takes a snapshot of what 3 has not heard of.
fn leave_3_behind(cluster: &mut Cluster) {
    cluster.be_led_by_one();
    cluster.isolate(3);
    for command in ["b", "c", "d"] {
        cluster.commit(command);
    }
    cluster.snapshot(1).unwrap();
    cluster.settle();
}

// Each flush that opened a round of reads asked the peer something before it looked whether the peer had answered
// everything: under steady reads it never had.
#[test]
fn a_read_in_each_flush_does_not_keep_a_peer_from_its_snapshot() {
    let mut cluster = left_behind();
    cluster.heal();
    // Its answer is what ends each round.
    cluster.isolate(2);
    let mut token = 0;
    for _ in 0..500 {
        cluster.tick();
        for id in 1..=3 {
            cluster.carry_out(id);
        }
        // Each message finds a read that waits.
        for message in std::mem::take(&mut cluster.network) {
            let Message { to, .. } = message;
            token += 1;
            cluster.read(1, token);
            cluster.deliver(message);
            cluster.carry_out(to.0);
        }
        token += 1;
        cluster.read(1, token);
    }
    let sent = cluster.sent_since(0, 1, 3);
    assert!(sent.iter().any(|message| matches!(message.body, Body::InstallSnapshot { .. })));
    assert_eq!(cluster.node(3).restored.len(), 1);
    assert_eq!(cluster.raft(3).applied(), cluster.raft(1).applied());
    assert!(
        cluster.node(1).reads.len() > 100 && cluster.node(1).reads.iter().all(|read| read.index.is_some())
    );
}

/// The epochs of the snapshots that 1 sent to 3 since `mark`.
fn attempts(cluster: &Cluster, mark: usize) -> Vec<Epoch> {
    let sent = cluster.sent_since(mark, 1, 3).into_iter();
    let epoch = |message: Message| match message.body {
        Body::InstallSnapshot { epoch, .. } => Some(epoch),
        _ => None,
    };
    sent.filter_map(epoch).collect()
}

/// Node 3 is sent a snapshot that does not arrive by itself. Tells which attempt that was.
fn sending() -> (Cluster, Epoch) {
    let mut cluster = left_behind();
    cluster.heal();
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    cluster.pass(300);
    let attempts = attempts(&cluster, 0);
    assert_eq!(attempts.len(), 1);
    (cluster, attempts[0])
}

fn tell_failure(cluster: &mut Cluster, epoch: Epoch) {
    cluster.handle(1, Input::SnapshotFailed { to: NodeId(3), epoch }).unwrap();
}

// A transfer had a minute in all, and began again from its beginning: one that takes longer never ended.
#[test]
fn a_transfer_that_moves_is_not_given_up_and_one_that_stands_is() {
    let (mut cluster, epoch) = sending();
    for _ in 0..10 {
        cluster.pass(50_000);
        cluster.handle(1, Input::SnapshotProgress { to: NodeId(3), epoch }).unwrap();
    }
    assert_eq!(attempts(&cluster, 0), [epoch]);
    // Nobody else's progress counts.
    cluster.pass(50_000);
    cluster.handle(1, Input::SnapshotProgress { to: NodeId(3), epoch: Epoch(epoch.0 - 1) }).unwrap();
    cluster.handle(1, Input::SnapshotProgress { to: NodeId(2), epoch }).unwrap();
    cluster.pass(11_000);
    assert_eq!(attempts(&cluster, 0).len(), 2);
}

// A failure that was told late paused the attempt after it, whose replacement then broke that one off, and so on.
#[test]
fn the_failure_of_an_attempt_that_was_given_up_does_not_end_the_next() {
    let (mut cluster, first) = sending();
    cluster.pass(61_000);
    let [_, second] = attempts(&cluster, 0)[..] else { panic!("not two attempts") };
    assert_ne!(first, second);
    tell_failure(&mut cluster, first);
    cluster.pass(5000);
    assert_eq!(attempts(&cluster, 0), [first, second], "that was the other one");
    tell_failure(&mut cluster, second);
    cluster.pass(5000);
    assert_eq!(attempts(&cluster, 0).len(), 3);
}

#[test]
fn an_attempt_of_an_earlier_term_is_not_taken_for_one_of_this() {
    let (mut cluster, first) = sending();
    cluster.snapshot(2).unwrap();
    cluster.elect(2);
    let mark = cluster.sent.len();
    cluster.elect(1);
    cluster.pass(2000);
    let second = attempts(&cluster, mark);
    assert_eq!(second.len(), 1);
    assert_ne!(first, second[0]);
    tell_failure(&mut cluster, first);
    cluster.pass(5000);
    assert_eq!(attempts(&cluster, mark), second);
}

#[test]
fn an_acknowledgement_of_an_attempt_that_was_given_up_comes_with_the_next_heartbeat() {
    let (mut cluster, first) = sending();
    let meta = Box::new(cluster.raft(1).snapshot().clone());
    let term = cluster.raft(1).term().0;
    cluster.pass(61_000);
    assert_eq!(attempts(&cluster, 0).len(), 2);
    cluster.inject(1, 3, term, Body::InstallSnapshot { epoch: first, round: Round(1), meta }).unwrap();
    cluster.pass(200);
    let (_, peer) = cluster.raft(1).peers().into_iter().find(|(id, _)| *id == NodeId(3)).unwrap();
    assert_eq!((peer.state, peer.matched), ("replicate", cluster.raft(1).last().index));
}

// Damage in the middle of a leader's log, where its snapshot covers it: a follower behind it was never caught up.
#[test]
fn who_needs_entries_that_cannot_be_read_back_is_sent_the_snapshot_that_covers_them() {
    let mut cluster = Cluster::new(3);
    leave_3_behind(&mut cluster);
    cluster.commit("e");
    cluster.crash(1);
    cluster.restart_unreadable(1);
    cluster.elect(1);
    assert!(cluster.raft(1).log_start().index < cluster.raft(3).last().index, "the log goes back so far");
    cluster.heal();
    cluster.pass(3000);
    assert_eq!(cluster.node(3).restored.len(), 1);
    assert_eq!(cluster.commands(3), ["e"]);
    assert_eq!(attempts(&cluster, 0).len(), 1);
}

// That the log could not be read was remembered for the rest of the leadership: all that could be read again later cost a
// whole snapshot each time, and nothing at all came if no snapshot got through.
#[test]
fn once_the_log_can_be_read_again_entries_come_from_it() {
    let mut cluster = Cluster::new(3);
    leave_3_behind(&mut cluster);
    cluster.commit("e");
    cluster.crash(1);
    cluster.restart_unreadable(1);
    cluster.elect(1);
    cluster.heal();
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    cluster.pass(3000);
    let [attempt] = attempts(&cluster, 0)[..] else { panic!("not one attempt") };
    cluster.node_mut(1).unreadable = false;
    tell_failure(&mut cluster, attempt);
    cluster.pass(3000);
    assert_eq!(cluster.commands(3), ["a", "b", "c", "d", "e"]);
    assert_eq!(attempts(&cluster, 0), [attempt]);
}

// Damage behind the newest snapshot: the peer waited until the log had grown enough for the next, in an idle cluster for ever.
#[test]
fn a_snapshot_is_wanted_that_covers_what_cannot_be_read_back() {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    cluster.isolate(3);
    for command in ["b", "c", "d"] {
        cluster.commit(command);
    }
    cluster.crash(1);
    cluster.restart_unreadable(1);
    cluster.node_mut(1).unreadable = false;
    cluster.elect(1);
    assert_eq!(cluster.commands(1), ["a", "b", "c", "d"]);
    cluster.node_mut(1).unreadable = true;
    let wanted = |event: &Event| *event == Event::SnapshotWanted { peer: NodeId(3) };
    assert!(!cluster.node(1).events.iter().any(wanted));
    cluster.heal();
    cluster.pass(1000);
    assert!(cluster.node(1).events.iter().any(wanted));
    cluster.snapshot(1).unwrap();
    cluster.pass(3000);
    assert_eq!(cluster.raft(3).applied(), cluster.raft(1).applied());
    assert_eq!(attempts(&cluster, 0).len(), 1);
}

/// Node 3 has restarted and knows nothing of its log but what was committed one entry before its end. What it had
/// acknowledged is lost to nobody; the snapshot that 1 had sent it, which ends in this term or in a later one, arrives late and
/// replaces that log, and its disk takes its time with it. Tells what it had.
fn replaced_late(later_term: bool) -> (Cluster, LogIndex) {
    let mut cluster = Cluster::new(3);
    cluster.be_led_by_one();
    cluster.isolate(3);
    if later_term {
        cluster.crash(1);
        cluster.restart(1);
        cluster.elect(1);
    }
    for command in ["b", "c", "d"] {
        cluster.commit(command);
    }
    cluster.snapshot(1).unwrap();
    cluster.settle();
    cluster.commit("e");
    cluster.crash(1);
    cluster.restart_unreadable(1);
    cluster.elect(1);
    cluster.heal();
    cluster.lose = |message| matches!(message.body, Body::InstallSnapshot { .. });
    cluster.pass(3000);
    let [attempt] = attempts(&cluster, 0)[..] else { panic!("not one attempt") };
    let sent = cluster.sent_since(0, 1, 3).into_iter();
    let install = sent.rev().find(|message| matches!(message.body, Body::InstallSnapshot { .. })).unwrap();
    let had = cluster.raft(3).last().index;
    cluster.crash(3);
    cluster.node_mut(3).disk.hard_state.commit = had.prev();
    cluster.restart(3);
    cluster.node_mut(3).disk_stuck = true;
    cluster.handle(3, Input::Message(install)).unwrap();
    tell_failure(&mut cluster, attempt);
    (cluster, had)
}

// SAFETY P5. Until the mark is on its disk the peer speaks of less than it had acknowledged. That was taken for a disk that
// forgets, and the peer was sent nothing more. Found by fuzzing.
#[test]
fn a_peer_whose_log_a_snapshot_replaces_has_not_lost_it() {
    let (mut cluster, had) = replaced_late(true);
    cluster.pass(1000);
    let asked = cluster.sent_since(0, 1, 3).into_iter().rev();
    let prev = asked.filter_map(|message| match message.body {
        Body::Heartbeat { prev, .. } => Some(prev.index),
        _ => None,
    });
    assert_eq!(prev.take(3).collect::<Vec<_>>(), [had; 3], "it was asked for what it had");
    let regressed = |event: &Event| matches!(event, Event::PeerRegressed { .. });
    assert!(!cluster.node(1).events.iter().any(regressed));
    cluster.node_mut(3).disk_stuck = false;
    cluster.node_mut(1).unreadable = false;
    cluster.pass(3000);
    assert_eq!(cluster.raft(3).applied(), cluster.raft(1).applied());
}

// What one leader wrote in one term is one log: a snapshot that ends in the term of the own last entry holds that entry.
#[test]
fn what_a_snapshot_of_the_same_term_replaces_still_counts() {
    for (later_term, less) in [(false, 0), (true, 1)] {
        let (mut cluster, had) = replaced_late(later_term);
        cluster.settle();
        let mark = cluster.sent.len();
        cluster.pass(200);
        let told = cluster.sent_since(mark, 3, 1).into_iter().find_map(|message| match message.body {
            Body::HeartbeatReply { matched, .. } => Some(matched),
            _ => None,
        });
        assert_eq!(told, Some(had.minus(less)));
    }
}

// While it travelled the leader took the next and dropped its log behind the first. The peer that acknowledged that one got
// nothing more until the transfer's time was over.
#[test]
fn a_snapshot_that_the_log_outran_is_followed_by_the_next() {
    let (mut cluster, _) = sending();
    let sent = cluster.sent_since(0, 1, 3).into_iter();
    let install = sent.rev().find(|message| matches!(message.body, Body::InstallSnapshot { .. })).unwrap();
    for command in 0..40 {
        cluster.commit(&command.to_string());
    }
    let newest = cluster.snapshot(1).unwrap().last;
    cluster.settle();
    cluster.heal();
    cluster.handle(3, Input::Message(install)).unwrap();
    cluster.pass(1000);
    assert!(cluster.raft(3).applied() >= newest.index, "{} of {newest}", cluster.raft(3).applied());
}
