//! What an election and a new leader cost: nobody is asked or told in vain, and who is there is found at once.

use raft_core::{
    Body, CampaignId, Epoch, Input, LogId, LogIndex, Message, NodeId, RoleKind, Round, SnapshotMeta, Term,
    Timestamp,
};

use crate::cluster::{Cluster, conf};

/// The default shortest election timeout.
const MIN_MS: u64 = 500;

/// A follower of five in term 1 whose leader, 2, has just fallen silent.
fn abandoned(count: u64) -> Cluster {
    let ids: Vec<u64> = (1..=count).collect();
    let mut cluster = Cluster::of(&[1], conf(&ids), |_| {});
    let heartbeat =
        Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev: LogId::ZERO, commit: LogIndex(0) };
    cluster.inject(2, 1, 1, heartbeat).unwrap();
    cluster.settle();
    cluster
}

fn pre_vote(next_term: u64, last: LogId) -> Body {
    Body::PreVote { campaign: CampaignId(7), next_term: Term(next_term), last }
}

/// Whom node 1 has sent pre-votes since `mark`, and under which number.
fn asked_since(cluster: &Cluster, mark: usize) -> (Vec<u64>, Option<CampaignId>) {
    let mut number = None;
    let mut asked = Vec::new();
    for message in &cluster.sent[mark..] {
        if let Body::PreVote { campaign, .. } = message.body {
            number = Some(campaign);
            asked.push(message.to.0);
        }
    }
    asked.sort_unstable();
    (asked, number)
}

fn pass_until_asked(cluster: &mut Cluster, mark: usize) -> (Vec<u64>, CampaignId) {
    for _ in 0..3000 {
        cluster.pass(1);
        if let (asked, Some(campaign)) = asked_since(cluster, mark) {
            return (asked, campaign);
        }
    }
    panic!("nobody is asked")
}

fn grants(cluster: &Cluster, mark: usize) -> Vec<bool> {
    let answer = |message: &Message| match message.body {
        Body::PreVoteReply { granted, .. } | Body::RequestVoteReply { granted, .. } => Some(granted),
        _ => None,
    };
    cluster.sent[mark..].iter().filter_map(answer).collect()
}

#[test]
fn a_quorum_is_asked_first_without_the_silent_leader_and_the_rest_once_somebody_answers() {
    let mut cluster = abandoned(5);
    let mark = cluster.sent.len();
    let (first, campaign) = pass_until_asked(&mut cluster, mark);
    assert_eq!(first.len(), 2, "with its own vote that is a majority of five");
    assert!(!first.contains(&2), "the leader has just fallen silent");
    let mark = cluster.sent.len();
    cluster.inject(first[0], 1, 1, Body::PreVoteReply { campaign, granted: false }).unwrap();
    cluster.pass(25);
    let (rest, _) = asked_since(&cluster, mark);
    assert_eq!(rest.len(), 2, "somebody is there, so the others may be as well");
    assert!(rest.contains(&2) && rest.iter().all(|id| !first.contains(id)));
}

#[test]
fn who_hears_nobody_asks_a_quorum_only_and_in_turn() {
    let mut cluster = abandoned(3);
    let mark = cluster.sent.len();
    assert_eq!(pass_until_asked(&mut cluster, mark).0, [3], "not the leader that has just fallen silent");
    cluster.pass(40);
    assert_eq!(asked_since(&cluster, mark).0, [3], "nobody answered: the rest is no quorum");
    let mark = cluster.sent.len();
    assert_eq!(pass_until_asked(&mut cluster, mark).0, [2], "by now the leader may be back");
    let mark = cluster.sent.len();
    assert_eq!(pass_until_asked(&mut cluster, mark).0, [3]);
}

#[test]
fn a_leader_that_stands_itself_is_not_protected() {
    let mut cluster = abandoned(3);
    let mark = cluster.sent.len();
    cluster.inject(3, 1, 1, pre_vote(2, LogId::ZERO)).unwrap();
    cluster.settle();
    cluster.inject(2, 1, 1, pre_vote(2, LogId::ZERO)).unwrap();
    cluster.settle();
    assert_eq!(grants(&cluster, mark), [false, true], "only its leader itself proves that it leads no more");
    let stands = Body::RequestVote { campaign: CampaignId(8), last: LogId::ZERO, transfer: false };
    cluster.inject(2, 1, 2, stands).unwrap();
    cluster.settle();
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).vote()), (Term(2), Some(NodeId(2))));
}

#[test]
fn who_refuses_a_shorter_log_while_it_looks_for_votes_asks_back() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.commit("a");
    for id in [1, 3] {
        cluster.crash(id);
    }
    while cluster.raft(2).role() != RoleKind::PreCandidate {
        cluster.pass(1);
    }
    cluster.pass(30);
    let (mark, term) = (cluster.sent.len(), cluster.raft(2).term());
    cluster.inject(3, 2, term.0, pre_vote(term.0 + 1, LogId::ZERO)).unwrap();
    cluster.settle();
    let back = cluster.sent_since(mark, 2, 3);
    assert!(back.iter().any(|m| matches!(m.body, Body::PreVoteReply { granted: false, .. })), "{back:?}");
    assert!(back.iter().any(|m| matches!(m.body, Body::PreVote { .. })), "{back:?}");
}

#[test]
fn a_leader_that_is_asked_for_a_vote_by_a_silent_member_tells_it_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.pass(300);
    cluster.heal();
    let (mark, term) = (cluster.sent.len(), cluster.raft(1).term());
    cluster.inject(3, 1, term.0, pre_vote(term.0 + 1, LogId::ZERO)).unwrap();
    cluster.settle();
    let told = cluster.sent_since(mark, 1, 3);
    assert!(told.iter().any(|m| matches!(m.body, Body::Heartbeat { .. })), "{told:?}");
    let mark = cluster.sent.len();
    cluster.inject(3, 1, term.0, pre_vote(term.0 + 1, LogId::ZERO)).unwrap();
    cluster.settle();
    let told = cluster.sent_since(mark, 1, 3);
    assert!(!told.iter().any(|m| matches!(m.body, Body::Heartbeat { .. })), "it knows by now: {told:?}");
}

#[test]
fn a_late_answer_is_asked_for_although_the_log_was_cut_meanwhile() {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.elect(1);
    cluster.commit("a");
    cluster.pass(30);
    cluster.isolate(3);
    cluster.commit("b");
    cluster.commit("c");
    let last = cluster.node(1).applied.last().unwrap().id;
    let (conf_id, conf) = cluster.raft(1).conf_at(last.index);
    let meta = SnapshotMeta { last, time: Timestamp(0), conf: conf.clone(), conf_id };
    cluster.handle(1, Input::SnapshotTaken(Box::new(meta))).unwrap();
    cluster.heal();
    let mark = cluster.sent.len();
    cluster.pass(27);
    let sent = cluster.sent_since(mark, 1, 3);
    assert!(sent.iter().any(|m| matches!(m.body, Body::InstallSnapshot { .. })), "{sent:?}");
}

#[test]
fn a_new_leader_with_nothing_to_send_may_wait_for_something_before_it_tells_its_voters() {
    let requests = |cluster: &Cluster, mark: usize| {
        cluster.sent[mark..].iter().filter(|m| m.body.is_request()).cloned().collect::<Vec<_>>()
    };
    let new_leader = || {
        let mut cluster = Cluster::with(3, |config| config.greeting_delay_ms = 60);
        let mark = cluster.sent.len();
        while cluster.leader().is_none() {
            cluster.pass(1);
        }
        cluster.settle();
        assert!(requests(&cluster, mark).iter().all(|m| matches!(m.body, Body::RequestVote { .. })));
        cluster
    };
    let mut busy = new_leader();
    let (mark, leader) = (busy.sent.len(), busy.leader().unwrap());
    busy.propose(leader, "a").unwrap();
    busy.settle();
    assert_eq!(busy.raft(leader).commit(), LogIndex(1), "the first entries tell it");
    assert_eq!(requests(&busy, mark).len(), 2);
    let mut idle = new_leader();
    let mark = idle.sent.len();
    idle.pass(58);
    assert!(requests(&idle, mark).is_empty());
    idle.pass(2);
    assert_eq!(requests(&idle, mark).len(), 2, "then it tells them all the same");
    assert!((1..=3).all(|id| idle.raft(id).leader() == idle.leader().map(NodeId)));
}

#[test]
fn a_leader_that_is_cut_off_stops_before_anybody_else_is_elected() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(300);
    cluster.isolate(1);
    for _ in 0..2000 {
        cluster.pass(1);
        assert!([2, 3].iter().all(|id| cluster.raft(*id).role() != RoleKind::Leader));
        if cluster.raft(1).role() != RoleKind::Leader {
            return;
        }
    }
    panic!("it leads nobody and goes on");
}

// SAFETY E10: a leader nobody answers lets strangers speak before it gives up.
#[test]
fn a_leader_has_its_quorum_for_the_shortest_timeout_after_the_last_answer() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(300);
    assert!(cluster.raft(1).has_quorum());
    let heard = |cluster: &Cluster| cluster.raft(1).peers().iter().map(|(_, peer)| peer.heard_at).max();
    let last = heard(&cluster).unwrap();
    cluster.isolate(1);
    cluster.now_ms = last.plus_millis(MIN_MS).micros_since(raft_core::Instant(0)) / 1000 - 1;
    cluster.read(1, 7);
    assert!(cluster.raft(1).has_quorum());
    cluster.now_ms += 1;
    cluster.read(1, 8);
    assert!(!cluster.raft(1).has_quorum());
}

/// Asks node 3 for its vote in a later term, with a log as good as its own or with none.
fn ask_3_for_its_vote(cluster: &mut Cluster, empty: bool) {
    let last = if empty { LogId::ZERO } else { cluster.raft(3).last() };
    let (term, campaign) = (cluster.raft(3).term().0 + 1, CampaignId(1 << 40));
    cluster.inject(2, 3, term, Body::RequestVote { campaign, last, transfer: false }).unwrap();
}

/// Node 3 heard its leader last; the clock stands so many milliseconds later.
fn left_alone_for(ms: u64) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.commit("a");
    cluster.pass(1000);
    let mark = cluster.sent.len();
    while cluster.sent_since(mark, 3, 1).is_empty() {
        cluster.pass(1);
    }
    cluster.isolate(3);
    cluster.now_ms += ms;
    cluster
}

// SAFETY E8.
#[test]
fn loyalty_ends_with_the_shortest_timeout() {
    for (ms, vote) in [(MIN_MS - 1, None), (MIN_MS, Some(NodeId(2)))] {
        let mut cluster = left_alone_for(ms);
        let before = cluster.raft(3).term();
        ask_3_for_its_vote(&mut cluster, false);
        assert_eq!(cluster.raft(3).vote().filter(|_| cluster.raft(3).term() > before), vote, "after {ms} ms");
    }
}

// Who cannot win must not keep those who could from trying.
#[test]
fn a_candidate_without_a_log_does_not_renew_anybodys_patience() {
    let mut cluster = left_alone_for(MIN_MS);
    let (before, deadline) = (cluster.raft(3).term(), cluster.raft(3).next_deadline());
    ask_3_for_its_vote(&mut cluster, true);
    assert!(cluster.raft(3).term() > before);
    assert_eq!((cluster.raft(3).vote(), cluster.raft(3).role()), (None, RoleKind::Follower));
    assert_eq!(cluster.raft(3).next_deadline(), deadline);
}
