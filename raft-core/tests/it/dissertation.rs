//! One test for each rule, quoting the sentence of the dissertation ("Consensus: Bridging Theory and Practice",
//! Ongaro 2014) or of the project's own rules that it holds to.

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Body, CampaignId, Entries, Entry, EntryKind, Epoch, HaltReason, Input, LogId, LogIndex,
    Message, NodeId, ProposeError, RoleKind, Round, SnapshotMeta, StartNumber, StepError, Term, Timestamp,
    TransferError,
};

use crate::cluster::{Cluster, conf};

fn entry(term: u64, index: u64) -> Entry {
    let payload = Bytes::from(format!("{term}/{index}"));
    let (id, checksum) = (LogId::new(term, index), Entry::checksum_of(&payload));
    Entry { id, time: Timestamp(index), session: None, kind: EntryKind::Command, checksum, payload }
}

fn append(prev: LogId, commit: u64, entries: &[Entry]) -> Body {
    let entries = Entries::from(entries.to_vec());
    Body::AppendEntries { epoch: Epoch(1), round: Round(1), prev, commit: LogIndex(commit), entries }
}

fn heartbeat(prev: LogId, commit: u64) -> Body {
    Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev, commit: LogIndex(commit) }
}

fn request_vote(last: LogId) -> Body {
    Body::RequestVote { campaign: CampaignId(7), last, transfer: false }
}

/// A follower of three that the test plays both peers of.
fn follower() -> Cluster {
    Cluster::of(&[1], conf(&[1, 2, 3]), |_| {})
}

/// What the follower has sent since the last call.
fn sent(cluster: &mut Cluster) -> Vec<Message> {
    while cluster.carry_out(1) {}
    cluster.network.drain(..).collect()
}

/// Lets time pass until the follower asks the others for something.
fn next_question(cluster: &mut Cluster) -> Vec<Message> {
    for _ in 0..1000 {
        cluster.now_ms += 1;
        cluster.handle(1, Input::Tick).unwrap();
        let asked = sent(cluster);
        if !asked.is_empty() {
            return asked;
        }
    }
    panic!("it never looks for a leader")
}

fn outcome(messages: &[Message]) -> Option<AppendOutcome> {
    messages.iter().rev().find_map(|message| match &message.body {
        Body::AppendReply { outcome, .. } => Some(*outcome),
        _ => None,
    })
}

fn granted(messages: &[Message]) -> Option<bool> {
    messages.iter().rev().find_map(|message| match &message.body {
        Body::RequestVoteReply { granted, .. } | Body::PreVoteReply { granted, .. } => Some(*granted),
        _ => None,
    })
}

/// Three nodes of which 1 leads.
fn led_by_one() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.pass(20);
    cluster
}

// 3.3 "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state."
#[test]
fn a_leader_of_an_old_term_steps_down() {
    let mut cluster = led_by_one();
    let term = cluster.raft(1).term().0;
    cluster.inject(2, 1, term + 1, append(LogId::ZERO, 0, &[])).unwrap();
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term().0), (RoleKind::Follower, term + 1));
    assert_eq!(cluster.raft(1).leader(), Some(NodeId(2)));
}

// 3.3 "Current terms are exchanged whenever servers communicate; if one server's current term is smaller than the other's,
// then it updates its current term to the larger value." An answer tells it as well as a question.
#[test]
fn the_larger_term_is_adopted_from_questions_and_from_answers() {
    let mut cluster = follower();
    cluster.inject(2, 1, 4, heartbeat(LogId::ZERO, 0)).unwrap();
    assert_eq!(cluster.raft(1).term(), Term(4));
    let reply = Body::RequestVoteReply { campaign: CampaignId(1), granted: false };
    cluster.inject(3, 1, 6, reply).unwrap();
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).leader()), (Term(6), None));
    sent(&mut cluster);
    assert_eq!(cluster.node(1).disk.hard_state.term, Term(6), "also on disk");
}

// E12, E13: no message is of term 0, and no term is the largest there is or 2^32 above the own.
#[test]
fn a_term_that_cannot_be_is_refused_and_changes_nothing() {
    let mut cluster = follower();
    cluster.inject(2, 1, 4, heartbeat(LogId::ZERO, 0)).unwrap();
    for term in [0, 4 + (1 << 32) + 1, u64::MAX] {
        let refused = cluster.inject(3, 1, term, request_vote(LogId::ZERO));
        assert_eq!(refused, Err(StepError::BadTerm { term: Term(term) }));
    }
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).leader()), (Term(4), Some(NodeId(2))));
}

// 3.3 "If a server receives a request with a stale term number, it rejects the request." And E14: with its own term.
#[test]
fn a_stale_append_is_answered_with_the_own_term() {
    let mut cluster = follower();
    cluster.inject(2, 1, 5, heartbeat(LogId::ZERO, 0)).unwrap();
    sent(&mut cluster);
    cluster.inject(3, 1, 4, append(LogId::ZERO, 0, &[entry(4, 1)])).unwrap();
    let answers = sent(&mut cluster);
    assert_eq!((answers[0].to, answers[0].term), (NodeId(3), Term(5)));
    assert_eq!(cluster.raft(1).last(), LogId::ZERO);
    cluster.inject(3, 1, 4, heartbeat(LogId::ZERO, 0)).unwrap();
    assert_eq!(sent(&mut cluster)[0].term, Term(5));
    assert_eq!(cluster.raft(1).leader(), Some(NodeId(2)));
}

// 3.4 "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis."
#[test]
fn a_vote_is_given_once_per_term() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, request_vote(LogId::ZERO)).unwrap();
    assert_eq!(granted(&sent(&mut cluster)), Some(true));
    cluster.inject(3, 1, 1, request_vote(LogId::ZERO)).unwrap();
    assert_eq!(granted(&sent(&mut cluster)), Some(false));
    cluster.inject(2, 1, 1, request_vote(LogId::ZERO)).unwrap();
    assert_eq!(granted(&sent(&mut cluster)), Some(true), "the same answer when asked again");
}

// 3.8 "Each server persists its current term and vote before responding" - so that it never votes twice.
#[test]
fn a_vote_leaves_only_once_it_is_durable_and_survives_a_restart() {
    let mut cluster = follower();
    cluster.node_mut(1).disk_stuck = true;
    cluster.inject(2, 1, 1, request_vote(LogId::ZERO)).unwrap();
    assert_eq!(granted(&sent(&mut cluster)), None, "not durable");
    cluster.node_mut(1).disk_stuck = false;
    cluster.work_disk(1);
    assert_eq!(granted(&sent(&mut cluster)), Some(true));
    cluster.crash(1);
    cluster.restart(1);
    cluster.inject(3, 1, 1, request_vote(LogId::ZERO)).unwrap();
    assert_eq!(granted(&sent(&mut cluster)), Some(false));
}

// 3.4 "To begin an election, a follower increments its current term [...] votes for itself and issues RequestVote." The
// first of all at once: no leader has an earlier term that a pre-vote would protect.
#[test]
fn the_first_election_is_stood_for_at_once() {
    let mut cluster = follower();
    let stands = next_question(&mut cluster);
    assert!(matches!(stands[0].body, Body::RequestVote { .. }) && stands[0].term == Term(1));
    assert_eq!(stands.len(), 2, "both others are asked");
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).vote()), (RoleKind::Candidate, Some(NodeId(1))));
}

// 9.6 "In the Pre-Vote algorithm, a candidate only increments its term if it first learns from a majority of the cluster
// that they would be willing to grant the candidate their votes."
#[test]
fn any_later_election_asks_before_it_stands() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    sent(&mut cluster);
    let asked = next_question(&mut cluster);
    let Body::PreVote { campaign, next_term, .. } = asked[0].body else { panic!("{asked:?}") };
    assert_eq!((cluster.raft(1).term(), next_term), (Term(1), Term(2)), "a pre-vote changes no term");
    cluster.inject(3, 1, 1, Body::PreVoteReply { campaign, granted: true }).unwrap();
    let stands = sent(&mut cluster);
    assert!(matches!(stands[0].body, Body::RequestVote { .. }) && stands[0].term == Term(2));
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).vote()), (RoleKind::Candidate, Some(NodeId(1))));
}

// 3.4 "A candidate wins an election if it receives votes from a majority of the servers in the full cluster."
#[test]
fn answers_to_another_campaign_are_not_counted() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    sent(&mut cluster);
    let Body::PreVote { campaign, .. } = next_question(&mut cluster)[0].body else { panic!() };
    let old = CampaignId(campaign.0 - 1);
    cluster.inject(3, 1, 1, Body::PreVoteReply { campaign: old, granted: true }).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::PreCandidate);
    cluster.inject(3, 1, 1, Body::PreVoteReply { campaign, granted: true }).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.inject(3, 1, 2, Body::RequestVoteReply { campaign, granted: true }).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate, "the pre-vote's number is not the election's");
}

// 3.4 "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the
// leader as legitimate and returns to follower state."
#[test]
fn a_candidate_yields_to_the_leader_of_its_term_and_keeps_its_vote() {
    let mut cluster = follower();
    next_question(&mut cluster);
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.inject(3, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).leader()), (RoleKind::Follower, Some(NodeId(3))));
    assert_eq!(cluster.raft(1).vote(), Some(NodeId(1)), "E4: a vote ends with its term only");
}

// 3.5 "If the follower does not find an entry in its log with the same index and term, then it refuses the entries."
#[test]
fn an_append_that_does_not_fit_is_refused_with_a_hint() {
    let mut cluster = follower();
    cluster.inject(2, 1, 3, append(LogId::ZERO, 0, &[entry(1, 1), entry(1, 2), entry(3, 3)])).unwrap();
    sent(&mut cluster);
    cluster.inject(2, 1, 5, append(LogId::new(4, 9), 0, &[])).unwrap();
    let refused = |prev, term, index| {
        Some(AppendOutcome::Rejected { prev: LogIndex(prev), hint: LogId::new(term, index) })
    };
    assert_eq!(outcome(&sent(&mut cluster)), refused(9, 3, 3));
    cluster.inject(2, 1, 5, append(LogId::new(2, 3), 0, &[])).unwrap();
    assert_eq!(outcome(&sent(&mut cluster)), refused(3, 1, 2), "a whole term is skipped");
}

// 3.5 "Conflicting entries in follower logs will be overwritten with entries from the leader's log."
#[test]
fn a_conflicting_suffix_is_replaced() {
    let mut cluster = follower();
    cluster.inject(2, 1, 2, append(LogId::ZERO, 0, &[entry(1, 1), entry(2, 2), entry(2, 3)])).unwrap();
    sent(&mut cluster);
    cluster.inject(3, 1, 3, append(LogId::new(1, 1), 0, &[entry(3, 2)])).unwrap();
    assert_eq!(outcome(&sent(&mut cluster)), Some(AppendOutcome::Matched(LogIndex(2))));
    assert_eq!(cluster.raft(1).last(), LogId::new(3, 2));
    assert_eq!(cluster.node(1).disk.last(), LogIndex(2), "also on disk");
}

// 3.5, L3: "Raft RPCs have the same effect if repeated": an old or shorter append truncates nothing.
#[test]
fn an_old_append_cuts_nothing_off() {
    let mut cluster = follower();
    let entries = [entry(1, 1), entry(1, 2), entry(1, 3)];
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &entries)).unwrap();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &entries[..1])).unwrap();
    assert_eq!(outcome(&sent(&mut cluster)), Some(AppendOutcome::Matched(LogIndex(1))));
    assert_eq!(cluster.raft(1).last(), LogId::new(1, 3));
}

// 3.5 "A leader never overwrites or deletes entries in its own log" (Leader Append-Only). L2: not even if somebody claims to
// lead its term: that cannot be, and it halts.
#[test]
fn a_leader_cuts_nothing_off_its_own_log() {
    let mut cluster = led_by_one();
    let (last, term) = (cluster.commit("a"), cluster.raft(1).term().0);
    cluster.inject(2, 1, term, append(LogId::ZERO, 0, &[])).unwrap();
    assert_eq!(cluster.raft(1).halted(), Some(HaltReason::TwoLeaders { term: Term(term), other: NodeId(2) }));
    assert_eq!((cluster.raft(1).last(), cluster.node(1).disk.last()), (last, last.index));
}

// 3.5 "After a rejection, the leader decrements the follower's nextIndex and retries the AppendEntries RPC." P3: an old
// rejection, doubled or late, takes nothing back.
#[test]
fn a_late_rejection_is_not_believed() {
    let mut cluster = led_by_one();
    for command in ["a", "b", "c"] {
        cluster.commit(command);
    }
    cluster.pass(200);
    let known = |cluster: &Cluster| cluster.raft(1).peers()[0].1;
    let (before, term, mark) = (known(&cluster), cluster.raft(1).term().0, cluster.sent.len());
    assert_eq!(before.matched, LogIndex(3));
    let accepted = cluster.sent_since(0, 1, 2).into_iter().rev().find_map(|message| match message.body {
        Body::AppendEntries { epoch, round, .. } => Some((epoch, round)),
        _ => None,
    });
    let (epoch, round) = accepted.unwrap();
    let outcome = AppendOutcome::Rejected { prev: LogIndex(2), hint: LogId::ZERO };
    cluster.inject(2, 1, term, Body::AppendReply { epoch, round, outcome }).unwrap();
    while cluster.carry_out(1) {}
    assert_eq!((known(&cluster).matched, known(&cluster).next), (before.matched, before.next));
    assert!(cluster.sent_since(mark, 1, 2).is_empty(), "nothing is sent again");
}

// 10.2.2, pipelining: the leader does not wait for an answer before it sends what follows. P6: up to a window.
#[test]
fn entries_are_pipelined_up_to_a_window() {
    let mut cluster = Cluster::with(3, |config| {
        config.inflight_messages_max = 3;
        // Each entry is an append of its own.
        config.append_bytes_max = 1;
    });
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.commit("a");
    cluster.lose = |message| message.from == NodeId(2);
    let mark = cluster.sent.len();
    for command in ["b", "c", "d", "e", "f"] {
        cluster.propose(1, command).unwrap();
        cluster.settle();
    }
    let entries =
        |m: &&Message| matches!(&m.body, Body::AppendEntries { entries, .. } if !entries.is_empty());
    assert_eq!(cluster.sent_since(mark, 1, 2).iter().filter(entries).count(), 3);
    assert_eq!(cluster.sent_since(mark, 1, 3).iter().filter(entries).count(), 5, "it answers");
    cluster.heal();
    cluster.pass(300);
    assert_eq!(cluster.commands(2), ["a", "b", "c", "d", "e", "f"]);
}

// Figure 3.1 "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)". L8: not
// the end of the log, behind which a former leader's entries may lie.
#[test]
fn commit_follows_only_what_the_message_verified() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[entry(1, 1), entry(1, 2), entry(1, 3)])).unwrap();
    cluster.inject(3, 1, 2, append(LogId::new(1, 1), 3, &[])).unwrap();
    assert_eq!(cluster.raft(1).commit(), LogIndex(1));
    cluster.inject(3, 1, 2, heartbeat(LogId::new(1, 2), 2)).unwrap();
    assert_eq!(cluster.raft(1).commit(), LogIndex(2));
}

// 3.6.1 "The voter denies its vote if its own log is more up-to-date than that of the candidate."
#[test]
fn a_vote_needs_a_log_that_is_complete_enough() {
    for (last, expected) in [
        (LogId::new(1, 9), false),
        (LogId::new(2, 1), false),
        (LogId::new(2, 2), true),
        (LogId::new(3, 1), true),
    ] {
        let mut cluster = follower();
        cluster.inject(2, 1, 2, append(LogId::ZERO, 0, &[entry(1, 1), entry(2, 2)])).unwrap();
        sent(&mut cluster);
        cluster.pass(600);
        let term = cluster.raft(1).term().0.max(4);
        let next_term = Term(term + 1);
        cluster.network.clear();
        cluster.inject(3, 1, term, Body::PreVote { campaign: CampaignId(9), next_term, last }).unwrap();
        assert_eq!(
            granted(&sent(&mut cluster)),
            Some(expected),
            "the pre-vote makes the same test (E5): {last}"
        );
        cluster.inject(3, 1, term + 1, request_vote(last)).unwrap();
        assert_eq!(granted(&sent(&mut cluster)), Some(expected), "{last}");
    }
}

// 3.6.2 "Raft never commits log entries from previous terms by counting replicas." (Figure 3.7)
#[test]
fn an_entry_of_an_earlier_term_is_committed_only_through_one_of_this_term() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[entry(1, 1)])).unwrap();
    sent(&mut cluster);
    cluster.inject(2, 1, 1, Body::TimeoutNow).unwrap();
    let campaign = sent(&mut cluster).iter().find_map(|message| match message.body {
        Body::RequestVote { campaign, .. } => Some(campaign),
        _ => None,
    });
    cluster.inject(2, 1, 2, Body::RequestVoteReply { campaign: campaign.unwrap(), granted: true }).unwrap();
    sent(&mut cluster);
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).last()), (RoleKind::Leader, LogId::new(2, 2)));
    let mut acknowledge = |index| {
        let outcome = AppendOutcome::Matched(LogIndex(index));
        let body = Body::AppendReply { epoch: Epoch(1), round: Round(1), outcome };
        cluster.inject(2, 1, 2, body).unwrap();
        cluster.raft(1).commit()
    };
    assert_eq!(acknowledge(1), LogIndex(0), "on a majority, but of an earlier term");
    assert_eq!(acknowledge(2), LogIndex(2));
}

// 6.4 "it needs to commit an entry from its term": only to find out what is committed. R1: if its log holds nothing that is
// not committed, a leader knows that without, and appends no no-op.
#[test]
fn a_leader_with_nothing_uncommitted_appends_no_noop() {
    let mut cluster = led_by_one();
    cluster.commit("a");
    cluster.pass(200);
    let last = cluster.raft(2).last();
    cluster.elect(2);
    assert_eq!(cluster.raft(2).last(), last);
    cluster.read(2, 1);
    cluster.settle();
    assert_eq!(cluster.node(2).reads[0].index, Some(last.index), "and yet it can serve reads");
}

// 10.2.1 "The leader may even commit an entry before it has been written to its own disk, if a majority of followers
// have written it to their disks."
#[test]
fn a_quorum_of_others_may_commit_before_the_own_disk() {
    let mut cluster = led_by_one();
    cluster.node_mut(1).disk_stuck = true;
    cluster.propose(1, "a").unwrap();
    cluster.pass(5);
    assert_eq!(cluster.commands(1), ["a"]);
    cluster.node_mut(2).disk_stuck = true;
    cluster.propose(1, "b").unwrap();
    cluster.pass(5);
    assert_eq!(cluster.commands(1), ["a"], "C2: the own copy counts only once it is durable");
    cluster.node_mut(1).disk_stuck = false;
    cluster.work_disk(1);
    cluster.pass(5);
    assert_eq!(cluster.commands(1), ["a", "b"]);
}

// 3.8, L6: "each server must persist new log entries before they are counted towards the entries' commitment".
#[test]
fn an_acknowledgement_waits_for_the_disk() {
    let mut cluster = follower();
    cluster.node_mut(1).disk_stuck = true;
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[entry(1, 1)])).unwrap();
    assert_eq!(outcome(&sent(&mut cluster)), None);
    cluster.node_mut(1).disk_stuck = false;
    cluster.work_disk(1);
    assert_eq!(outcome(&sent(&mut cluster)), Some(AppendOutcome::Matched(LogIndex(1))));
}

// 3.4 "Leaders send periodic heartbeats [...] to all followers in order to maintain their authority": the answer waits for no
// disk, and tells how far the log is verified and durable (L6).
#[test]
fn a_heartbeat_is_answered_while_the_disk_is_stuck() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[entry(1, 1)])).unwrap();
    sent(&mut cluster);
    cluster.node_mut(1).disk_stuck = true;
    cluster.inject(2, 1, 1, append(LogId::new(1, 1), 0, &[entry(1, 2)])).unwrap();
    cluster.inject(2, 1, 1, heartbeat(LogId::new(1, 1), 1)).unwrap();
    let answers = sent(&mut cluster);
    let matched = |m: &Message| matches!(m.body, Body::HeartbeatReply { matched: LogIndex(1), .. });
    assert!(answers.len() == 1 && matched(&answers[0]), "{answers:?}");
}

// 6.2 "A leader steps down if an election timeout elapses without a successful round of heartbeats to a majority."
#[test]
fn a_leader_without_a_quorum_steps_down_and_falls_silent() {
    let mut cluster = led_by_one();
    cluster.isolate(1);
    cluster.pass(1100);
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader);
    let mark = cluster.sent.len();
    cluster.pass(1000);
    let beats = |m: &Message| matches!(m.body, Body::Heartbeat { .. } | Body::AppendEntries { .. });
    assert!(!cluster.sent_since(mark, 1, 2).iter().any(beats));
    assert!(cluster.propose(1, "x").is_err());
}

// 4.2.3 "If a server receives a RequestVote request within the minimum election timeout of hearing from a current
// leader, it does not update its term or grant its vote."
#[test]
fn a_follower_that_hears_its_leader_grants_nothing() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    sent(&mut cluster);
    cluster.now_ms += 499;
    cluster.inject(3, 1, 2, request_vote(LogId::ZERO)).unwrap();
    assert_eq!((granted(&sent(&mut cluster)), cluster.raft(1).term()), (None, Term(1)));
    let pre_vote = Body::PreVote { campaign: CampaignId(7), next_term: Term(2), last: LogId::ZERO };
    cluster.inject(3, 1, 1, pre_vote).unwrap();
    assert_eq!(granted(&sent(&mut cluster)), Some(false));
    cluster.now_ms += 1;
    cluster.inject(3, 1, 2, request_vote(LogId::ZERO)).unwrap();
    assert_eq!((granted(&sent(&mut cluster)), cluster.raft(1).term()), (Some(true), Term(2)));
}

// E8: "bypassed by the transfer flag", but only in the term that follows the leader's own.
#[test]
fn a_transfer_passes_the_loyalty_of_the_followers() {
    let transfer = |term| {
        let mut cluster = follower();
        cluster.inject(2, 1, 4, heartbeat(LogId::ZERO, 0)).unwrap();
        sent(&mut cluster);
        let body = Body::RequestVote { campaign: CampaignId(7), last: LogId::ZERO, transfer: true };
        cluster.inject(3, 1, term, body).unwrap();
        granted(&sent(&mut cluster))
    };
    assert_eq!(transfer(5), Some(true));
    assert_eq!(transfer(6), None);
}

// E8: a node that saw its leader's process die does not wait for the timeout, and does not protect it.
#[test]
fn the_death_of_the_leader_is_acted_on_at_once() {
    let mut cluster = led_by_one();
    cluster.pass(200);
    cluster.crash(1);
    for id in [2, 3] {
        cluster.handle(id, Input::PeerDied(NodeId(1))).unwrap();
    }
    let before = cluster.now_ms;
    while cluster.leader().is_none() {
        cluster.pass(1);
    }
    assert!(cluster.now_ms - before <= 60, "took {} ms", cluster.now_ms - before);
}

// 3.10 "To transfer leadership, the prior leader sends its log entries to the target server, then the target server
// runs an election without waiting for an election timeout."
#[test]
fn leadership_is_handed_over_within_a_round_trip_or_two() {
    let mut cluster = led_by_one();
    cluster.commit("a");
    let now = cluster.now();
    cluster.node_mut(1).raft.transfer_leadership(now, NodeId(3)).unwrap();
    assert_eq!(cluster.propose(1, "b"), Err(ProposeError::Transferring { to: NodeId(3) }));
    cluster.settle();
    assert_eq!((cluster.leader(), cluster.raft(1).role()), (Some(3), RoleKind::Follower));
}

// 9.6: the purpose of Pre-Vote is that a server does not disrupt the cluster when it rejoins.
#[test]
fn a_node_that_was_cut_off_returns_without_a_higher_term() {
    let mut cluster = led_by_one();
    let term = cluster.raft(1).term();
    cluster.isolate(3);
    cluster.pass(5000);
    assert_eq!(cluster.raft(3).term(), term);
    cluster.heal();
    cluster.pass(300);
    assert_eq!((cluster.leader(), cluster.raft(3).leader()), (Some(1), Some(NodeId(1))));
}

// 9.3 "the election timeout is chosen randomly from a range": two followers do not draw the same.
#[test]
fn election_timeouts_are_drawn_anew_from_their_range() {
    let mut cluster = follower();
    let mut drawn = Vec::new();
    for _ in 0..20 {
        cluster.inject(2, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
        let waits = cluster.raft(1).next_deadline().unwrap().micros_since(cluster.now().instant) / 1000;
        assert!((500..1000).contains(&waits), "{waits}");
        drawn.push(waits);
        cluster.now_ms += 10;
    }
    drawn.dedup();
    assert!(drawn.len() > 15, "{drawn:?}");
}

// 6.4 "The leader needs to make sure it has not been superseded by a newer leader of which it is unaware."
#[test]
fn a_read_is_answered_only_after_a_quorum_confirmed_the_leader() {
    let mut cluster = led_by_one();
    cluster.commit("a");
    cluster.isolate(1);
    cluster.read(1, 7);
    cluster.pass(400);
    assert!(cluster.node(1).reads.is_empty());
    cluster.pass(1000);
    let failed = &cluster.node(1).reads;
    assert_eq!((failed.len(), failed[0].index), (1, None), "never silence");
}

// 6.4 "If the leader has not yet marked an entry from its current term committed, it waits until it has done so."
#[test]
fn a_read_waits_until_the_new_leader_knows_what_is_committed() {
    let mut cluster = led_by_one();
    cluster.commit("a");
    // 2 has b, and does not know whether it is committed.
    cluster.cut.extend([(1, 3), (3, 1)]);
    cluster.lose = |message| message.from == NodeId(2) && message.to == NodeId(1);
    cluster.propose(1, "b").unwrap();
    cluster.settle();
    cluster.crash(1);
    // Heartbeats keep it in office. Its entries do not arrive.
    cluster.lose =
        |message| matches!(&message.body, Body::AppendEntries { entries, .. } if !entries.is_empty());
    cluster.elect(2);
    assert!(cluster.raft(2).commit() < cluster.raft(2).last().index);
    cluster.read(2, 1);
    cluster.pass(300);
    assert!(cluster.leader() == Some(2) && cluster.node(2).reads.is_empty(), "{:?}", cluster.node(2).reads);
    cluster.heal();
    cluster.pass(500);
    assert_eq!(cluster.node(2).reads[0].index, Some(cluster.raft(2).last().index));
}

// 6.4 "To support this, followers could [...] issue a request to the leader that would just ask for a current
// readIndex": one message for all reads that came in together.
#[test]
fn a_follower_reads_through_its_leader() {
    let mut cluster = led_by_one();
    let id = cluster.commit("a");
    let mark = cluster.sent.len();
    cluster.read(2, 1);
    cluster.read(2, 2);
    cluster.settle();
    let reads: Vec<_> = cluster.node(2).reads.iter().map(|read| (read.token.0, read.index)).collect();
    assert_eq!(reads, [(1, Some(id.index)), (2, Some(id.index))]);
    let asked = |m: &&Message| matches!(m.body, Body::ReadIndex { .. });
    assert_eq!(cluster.sent_since(mark, 2, 1).iter().filter(asked).count(), 1);
}

// 6.4, R2: an answer counts for the request it names, in the run that asked: a retry has another number.
#[test]
fn an_answer_to_another_request_serves_no_read() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    cluster.read(1, 7);
    let asked = sent(&mut cluster).into_iter().find_map(|message| match message.body {
        Body::ReadIndex { start, request } => Some((start, request)),
        _ => None,
    });
    let (start, request) = asked.unwrap();
    let index = Some(LogIndex(0));
    for (start, request) in [(start, request - 1), (StartNumber(start.0 + 1), request)] {
        cluster.inject(2, 1, 1, Body::ReadIndexReply { start, request, index }).unwrap();
        sent(&mut cluster);
        assert!(cluster.node(1).reads.is_empty());
    }
    cluster.inject(2, 1, 1, Body::ReadIndexReply { start, request, index }).unwrap();
    sent(&mut cluster);
    assert_eq!(cluster.node(1).reads[0].index, index);
}

// 6.2: a server that does not lead rejects the client's request and tells it who does, if it knows.
#[test]
fn who_does_not_lead_takes_no_command_and_names_the_leader() {
    let mut cluster = led_by_one();
    assert_eq!(cluster.propose(2, "a"), Err(ProposeError::NotLeader { leader: Some(NodeId(1)) }));
    cluster.isolate(2);
    cluster.pass(1100);
    assert_eq!(cluster.propose(2, "a"), Err(ProposeError::NotLeader { leader: None }));
}

// 3.8 "The most interesting example is the commit index, which can safely be reinitialized to zero on a restart." C5: what
// the disk says of it is a hint.
#[test]
fn the_commit_index_is_learnt_again_after_a_restart() {
    let mut cluster = led_by_one();
    let last = cluster.commit("a");
    cluster.crash(2);
    cluster.node_mut(2).disk.hard_state.commit = LogIndex(0);
    cluster.restart(2);
    assert_eq!(cluster.raft(2).commit(), LogIndex(0));
    cluster.pass(200);
    assert_eq!((cluster.raft(2).commit(), cluster.commands(2)), (last.index, vec!["a".to_string()]));
    cluster.crash(2);
    cluster.node_mut(2).disk.hard_state.commit = LogIndex(99);
    cluster.restart(2);
    assert_eq!(cluster.raft(2).commit(), last.index, "never behind the end of the log");
}

// 5 "the leader must occasionally send snapshots to followers that lag behind" because it "has already discarded the
// next log entry that it needs to send".
#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_then_entries() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.isolate(3);
    for command in ["a", "b", "c"] {
        cluster.commit(command);
    }
    cluster.pass(1500);
    cluster.snapshot(1).unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(1).log_start(), cluster.raft(1).last(), "everything is compacted");
    let snapshot = cluster.raft(1).last();
    cluster.commit("d");
    cluster.heal();
    cluster.pass(600);
    assert_eq!(cluster.node(3).restored[0].last, snapshot);
    assert_eq!(cluster.commands(3), ["d"], "N4: what the snapshot covers is not applied again");
    assert_eq!(cluster.raft(3).durable(), cluster.raft(1).last().index);
}

// Figure 5.3, step 6 "If existing log entry has same index and term as snapshot's last included entry, retain log
// entries following it and reply." N1: and nothing at all happens if it covers no more than what is committed.
#[test]
fn a_snapshot_that_tells_nothing_new_changes_nothing() {
    let mut cluster = follower();
    let entries = [entry(1, 1), entry(1, 2), entry(1, 3)];
    cluster.inject(2, 1, 1, append(LogId::ZERO, 2, &entries)).unwrap();
    sent(&mut cluster);
    for index in [1, 3] {
        let meta =
            SnapshotMeta { last: LogId::new(1, index), conf: conf(&[1, 2, 3]), ..SnapshotMeta::default() };
        let body = Body::InstallSnapshot { epoch: Epoch(1), round: Round(1), meta: Box::new(meta) };
        cluster.inject(2, 1, 1, body).unwrap();
        assert_eq!(outcome(&sent(&mut cluster)), Some(AppendOutcome::Matched(LogIndex(index.max(2)))));
    }
    assert_eq!((cluster.raft(1).last(), cluster.raft(1).commit()), (LogId::new(1, 3), LogIndex(3)));
    assert!(cluster.node(1).restored.is_empty());
    assert_eq!(cluster.commands(1).len(), 3);
}

// N2, N4: a snapshot takes effect in one durable step, and is acknowledged and handed out only then.
#[test]
fn a_snapshot_is_acknowledged_once_its_mark_is_durable() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 0, &[entry(1, 1)])).unwrap();
    sent(&mut cluster);
    cluster.node_mut(1).disk_stuck = true;
    let meta = SnapshotMeta { last: LogId::new(2, 9), conf: conf(&[1, 2, 3]), ..SnapshotMeta::default() };
    let body = Body::InstallSnapshot { epoch: Epoch(1), round: Round(1), meta: Box::new(meta) };
    cluster.inject(3, 1, 2, body).unwrap();
    cluster.inject(3, 1, 2, append(LogId::new(2, 9), 10, &[entry(2, 10)])).unwrap();
    assert_eq!(outcome(&sent(&mut cluster)), None);
    assert!(cluster.node(1).restored.is_empty() && cluster.node(1).applied.is_empty());
    cluster.node_mut(1).disk_stuck = false;
    cluster.work_disk(1);
    assert_eq!(outcome(&sent(&mut cluster)), Some(AppendOutcome::Matched(LogIndex(10))));
    assert_eq!((cluster.node(1).restored.len(), cluster.commands(1).len()), (1, 1));
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!((cluster.raft(1).log_start(), cluster.raft(1).last()), (LogId::new(2, 9), LogId::new(2, 10)));
}

// 3.6.3 State Machine Safety: what contradicts it stops the node before any damage is done (N3).
#[test]
fn a_contradiction_to_what_is_committed_halts_the_node() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 1, &[entry(1, 1)])).unwrap();
    sent(&mut cluster);
    cluster.inject(3, 1, 2, append(LogId::ZERO, 1, &[entry(2, 1)])).unwrap();
    let (ours, theirs) = (LogId::new(1, 1), LogId::new(2, 1));
    assert_eq!(cluster.raft(1).halted(), Some(HaltReason::AppendConflictsWithCommitted { ours, theirs }));
    assert_eq!(cluster.handle(1, Input::Tick), Err(StepError::Halted));
    assert_eq!(cluster.raft(1).next_deadline(), None);
    // Also where it is what the entries follow, and the last that is committed.
    let mut cluster = follower();
    cluster.inject(2, 1, 1, append(LogId::ZERO, 1, &[entry(1, 1)])).unwrap();
    cluster.inject(3, 1, 2, append(theirs, 1, &[entry(2, 2)])).unwrap();
    assert_eq!(cluster.raft(1).halted(), Some(HaltReason::AppendConflictsWithCommitted { ours, theirs }));
}

// 3.2 Election Safety: "at most one leader can be elected in a given term."
#[test]
fn a_second_leader_in_one_term_halts_the_node() {
    let mut cluster = follower();
    cluster.inject(2, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    cluster.inject(3, 1, 1, heartbeat(LogId::ZERO, 0)).unwrap();
    assert_eq!(cluster.raft(1).halted(), Some(HaltReason::TwoLeaders { term: Term(1), other: NodeId(3) }));
}

// 4.2.1 Learners: "new servers join the cluster as non-voting members [...] not counted towards majorities".
#[test]
fn a_learner_gets_the_log_and_neither_votes_in_majorities_nor_campaigns() {
    let mut with_learner = conf(&[1, 2, 3]);
    with_learner.voters.remove(&NodeId(3));
    with_learner.learners.insert(NodeId(3));
    let mut cluster = Cluster::of(&[1, 2, 3], with_learner, |_| {});
    assert_eq!(cluster.raft(3).next_deadline(), None);
    let leader = cluster.wait_for_leader();
    cluster.commit("a");
    assert_eq!(cluster.commands(3), ["a"]);
    let voter = 3 - leader;
    cluster.isolate(voter);
    cluster.propose(leader, "b").unwrap();
    cluster.pass(50);
    assert_eq!(cluster.commands(leader), ["a"], "the learner's copy does not count");
    let now = cluster.now();
    let refused = cluster.node_mut(leader).raft.transfer_leadership(now, NodeId(3));
    assert_eq!(refused, Err(TransferError::NotAVoter));
}

// 6.3, sessions expire by the time that leaders put into the log. It never goes back along the log, whatever the clocks show.
#[test]
fn the_time_of_entries_never_goes_back() {
    let mut cluster = led_by_one();
    cluster.commit("a");
    let before = cluster.raft(1).time();
    cluster.now_ms += 1;
    let mut now = cluster.now();
    now.wall = Timestamp(5);
    let proposal = raft_core::Proposal::new(Bytes::from_static(b"b"));
    cluster.node_mut(1).raft.propose(now, proposal).unwrap();
    assert!(cluster.raft(1).time() > before, "stamped by the monotonic clock");
    assert!(before > Timestamp(1_700_000_000_000));
}
