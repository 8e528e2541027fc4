//! Each rule is shown a history that breaks it and must name it. A rule that accepts everything proves nothing.

mod membership;

use bytes::Bytes;

use super::{plain::*, *};
use crate::{
    AppendOutcome, Apply, Body, ConfState, Entries, EntryKind, Event, Message, Ready, Round, SnapshotMark,
    SnapshotMeta, Timestamp, Write, WriteId, sim::disk::Disk,
};

/// Three nodes, of which the first was elected in term 2.
struct World {
    ghost: Ghost,
    disks: Vec<Disk>,
    coverage: Coverage,
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        id: LogId::new(term, index),
        time: Timestamp(index),
        session: None,
        kind: EntryKind::Command,
        checksum: 7,
        payload: Bytes::new(),
    }
}

fn write(term: u64, vote: Option<u64>, truncate_after: Option<u64>, entries: Vec<Entry>) -> Write {
    Write {
        id: WriteId(1),
        hard_state: HardState { term: Term(term), vote: vote.map(NodeId), commit: LogIndex::ZERO },
        truncate_after: truncate_after.map(LogIndex),
        snapshot: None,
        entries: Entries::from(entries),
    }
}

fn written(write: Write) -> Ready {
    Ready { write: Some(write), ..Ready::default() }
}

fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { from: NodeId(from), to: NodeId(to), term: Term(term), body }
}

fn heartbeat(prev: LogId) -> Message {
    message(1, 2, 2, Body::Heartbeat { epoch: Epoch(1), round: Round(1), prev, commit: LogIndex::ZERO })
}

fn append(prev: LogId, entries: Vec<Entry>) -> Message {
    let entries = Entries::from(entries);
    let body =
        Body::AppendEntries { epoch: Epoch(1), round: Round(1), prev, commit: LogIndex::ZERO, entries };
    message(1, 2, 2, body)
}

fn matched(from: u64, epoch: u64, index: u64) -> Message {
    let outcome = AppendOutcome::Matched(LogIndex(index));
    message(from, 1, 2, Body::AppendReply { epoch: Epoch(epoch), round: Round(1), outcome })
}

fn granted(from: u64, to: u64, term: u64) -> Message {
    message(from, to, term, Body::RequestVoteReply { campaign: CampaignId(1), granted: true })
}

fn three() -> ConfState {
    let member = |id| crate::Member { incarnation: Incarnation(id), address: String::new() };
    ConfState::of_voters((1..=3).map(|id| (NodeId(id), member(id))))
}

fn view(term: u64, role: RoleKind, leader: Option<u64>, commit: u64) -> View {
    View {
        term: Term(term),
        role,
        leader: leader.map(NodeId),
        commit: LogIndex(commit),
        now: Instant(0),
        conf: (LogId::ZERO, Arc::new(three())),
        transfer: None,
    }
}

const FOLLOWER: RoleKind = RoleKind::Follower;
const LEADER: RoleKind = RoleKind::Leader;

#[track_caller]
fn names(rule: &str, checked: Checked) {
    let violation = checked.expect_err("the history breaks a rule");
    assert_eq!(violation.rule, rule, "{violation}");
}

impl World {
    /// Nobody has done anything.
    fn fresh() -> World {
        let disks: Vec<Disk> = (1..=3).map(|id| Disk::founded(three(), Incarnation(id))).collect();
        let mut ghost = Ghost::new(3, (100, 200), three());
        for (node, disk) in disks.iter().enumerate() {
            ghost.starts(node, &disk.durable, disk.incarnation);
        }
        World { ghost, disks, coverage: Coverage::default() }
    }

    fn elected() -> World {
        let mut world = World::fresh();
        world.hands_out(0, &written(write(2, Some(1), None, vec![]))).expect("a vote for itself");
        world.persist(0, write(2, Some(1), None, vec![]));
        let ask = Body::RequestVote { campaign: CampaignId(1), last: LogId::ZERO, transfer: false };
        world.sends(&message(1, 2, 2, ask)).expect("it is on disk");
        world.receives(0, &granted(2, 1, 2));
        world.took(0, view(2, LEADER, Some(1), 0)).expect("elected");
        world
    }

    /// The leader and its log of these entries, on the disks of those nodes and proven by the followers among them.
    fn with_log(entries: Vec<Entry>, holders: &[usize]) -> World {
        let mut world = World::elected();
        let last = entries.last().map_or(LogId::ZERO, |entry| entry.id);
        let write = write(2, None, None, entries);
        let of_leader =
            Write { hard_state: HardState { vote: Some(NodeId(1)), ..write.hard_state }, ..write.clone() };
        world.hands_out(0, &written(of_leader.clone())).expect("the leader appends");
        for peer in [2, 3] {
            let probe = Message { to: NodeId(peer), ..append(LogId::ZERO, vec![]) };
            world.sends(&probe).expect("a probe");
        }
        for holder in holders.iter().copied() {
            if holder == 0 {
                world.persist(0, of_leader.clone());
            } else {
                world.hands_out(holder, &written(write.clone())).expect("a follower appends");
                world.persist(holder, write.clone());
                world.receives(0, &matched(holder as u64 + 1, 1, last.index.0));
            }
        }
        world
    }

    fn persist(&mut self, node: usize, write: Write) {
        self.disks[node].write(Stored { write, snapshot: None });
        self.disks[node].begin_sync(usize::MAX);
        self.disks[node].end_sync();
    }

    fn took(&mut self, node: usize, view: View) -> Checked {
        self.ghost.took(node, view, &self.disks, &mut self.coverage)
    }

    fn receives(&mut self, node: usize, message: &Message) {
        self.ghost.receives(node, message, Instant(10), &mut self.coverage);
    }

    fn sends(&mut self, message: &Message) -> Checked {
        self.ghost.sends(message, &self.disks, &mut self.coverage)
    }

    fn hands_out(&mut self, node: usize, ready: &Ready) -> Checked {
        self.ghost.hands_out(node, ready, None, &self.disks[node].durable, &mut self.coverage)
    }

    fn notes_snapshot(&mut self, node: usize, last: LogId, resets_log: bool, hash: Option<u64>) -> Checked {
        let meta = SnapshotMeta { last, conf: three(), ..SnapshotMeta::default() };
        self.notes(node, meta, true, resets_log, hash)
    }

    fn notes(
        &mut self,
        node: usize,
        meta: SnapshotMeta,
        received: bool,
        resets_log: bool,
        hash: Option<u64>,
    ) -> Checked {
        let snapshot = Some(SnapshotMark { meta, received, resets_log });
        let write = Write { snapshot: snapshot.map(Box::new), ..write(2, None, None, vec![]) };
        self.ghost.hands_out(node, &written(write), hash, &self.disks[node].durable, &mut self.coverage)
    }
}

#[test]
fn e1_names_a_second_leader_of_a_term() {
    let mut world = World::elected();
    world.ghost.members[1].campaign = Campaign { term: Term(2), number: CampaignId(1), granted: 0b110 };
    names("E1", world.took(1, view(2, LEADER, Some(2), 0)));
}

#[test]
fn e2_names_a_second_vote_even_after_a_restart() {
    let mut world = World::fresh();
    world.persist(2, write(5, Some(1), None, vec![]));
    world.sends(&granted(3, 1, 5)).expect("the first vote");
    world.ghost.starts(2, &world.disks[2].durable, Incarnation(3));
    world.persist(2, write(5, Some(2), None, vec![]));
    names("E2", world.sends(&granted(3, 2, 5)));
}

#[test]
fn e3_names_a_vote_that_is_not_on_disk() {
    let mut world = World::fresh();
    names("E3", world.sends(&granted(3, 1, 5)));
    world.persist(2, write(5, None, None, vec![]));
    names("E3", world.sends(&granted(3, 1, 5)));
    let ask = Body::RequestVote { campaign: CampaignId(1), last: LogId::ZERO, transfer: false };
    names("E3", world.sends(&message(3, 1, 5, ask)));
}

#[test]
fn e4_names_a_changed_or_forgotten_vote() {
    let old = HardState { term: Term(3), vote: Some(NodeId(1)), commit: LogIndex::ZERO };
    names("E4", e4_vote_kept_within_term(NodeId(2), old, HardState { vote: None, ..old }));
    names("E4", e4_vote_kept_within_term(NodeId(2), old, HardState { vote: Some(NodeId(3)), ..old }));
    names("E4", e4_vote_kept_within_term(NodeId(2), old, HardState { term: Term(2), vote: None, ..old }));
    let mut world = World::elected();
    names("E4", world.took(0, view(1, FOLLOWER, None, 0)));
}

#[test]
fn e5_names_a_vote_for_a_shorter_log_or_unasked() {
    let mut world = World::with_log(vec![entry(2, 1), entry(2, 2)], &[0, 1]);
    let ask = Body::RequestVote { campaign: CampaignId(1), last: LogId::new(2, 1), transfer: false };
    names("E5", world.hands_out(1, &written(write(3, Some(3), None, vec![]))));
    world.receives(1, &message(3, 2, 3, ask));
    names("E5", world.hands_out(1, &written(write(3, Some(3), None, vec![]))));
}

#[test]
fn e5_names_a_pre_vote_by_the_same_test() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    let ask = Body::PreVote { campaign: CampaignId(1), next_term: Term(3), last: LogId::ZERO };
    world.receives(1, &message(3, 2, 2, ask));
    let reply = Body::PreVoteReply { campaign: CampaignId(1), granted: true };
    names("E5", world.hands_out(1, &Ready { messages: vec![message(2, 3, 2, reply)], ..Ready::default() }));
}

#[test]
fn e6_names_a_pre_vote_that_changes_the_term() {
    names("E6", e6_pre_vote_changes_nothing(NodeId(1), &(Term(1), FOLLOWER), &(Term(2), FOLLOWER)));
}

#[test]
fn e7_names_a_leader_with_votes_of_two_campaigns() {
    let mut world = World::fresh();
    world.persist(0, write(2, Some(1), None, vec![]));
    let ask = |number| Body::RequestVote { campaign: CampaignId(number), last: LogId::ZERO, transfer: false };
    world.sends(&message(1, 2, 2, ask(1))).expect("it is on disk");
    world.sends(&message(1, 2, 2, ask(2))).expect("it is on disk");
    world.receives(0, &granted(2, 1, 2));
    names("E7", world.took(0, view(2, LEADER, Some(1), 0)));
}

#[test]
fn e8_names_a_vote_under_a_live_leader() {
    let mut world = World::elected();
    world.receives(1, &heartbeat(LogId::ZERO));
    let ask = Body::RequestVote { campaign: CampaignId(1), last: LogId::ZERO, transfer: false };
    world.receives(1, &message(3, 2, 3, ask));
    names("E8", world.hands_out(1, &written(write(3, Some(3), None, vec![]))));
}

#[test]
fn e8_protects_no_leader_from_itself() {
    let mut world = World::elected();
    world.receives(1, &heartbeat(LogId::ZERO));
    let ask = Body::RequestVote { campaign: CampaignId(1), last: LogId::ZERO, transfer: false };
    world.receives(1, &message(1, 2, 3, ask));
    world
        .hands_out(1, &written(write(3, Some(1), None, vec![])))
        .expect("its leader stood down to stand again");
}

#[test]
fn e8_lets_a_handover_pass() {
    let mut world = World::elected();
    world.receives(1, &heartbeat(LogId::ZERO));
    let ask = Body::RequestVote { campaign: CampaignId(1), last: LogId::ZERO, transfer: true };
    world.receives(1, &message(3, 2, 3, ask));
    world.hands_out(1, &written(write(3, Some(3), None, vec![]))).expect("the leader asked for it");
}

#[test]
fn e11_names_a_leader_nobody_elected() {
    let mut world = World::elected();
    names("E11", world.took(1, view(2, FOLLOWER, Some(3), 0)));
}

#[test]
fn e12_names_a_term_of_zero() {
    names("E12", World::fresh().sends(&message(1, 2, 0, Body::TimeoutNow)));
    names("E12", World::elected().sends(&append(LogId::ZERO, vec![entry(0, 1)])));
}

#[test]
fn e13_names_an_impossible_term_that_was_taken() {
    names("E13", e13_absurd_term_refused(NodeId(1), false, Term(1), Term(1)));
    names("E13", e13_absurd_term_refused(NodeId(1), true, Term(1), Term::MAX));
}

#[test]
fn e14_names_an_append_of_a_lower_term_without_answer() {
    let old = [message(2, 1, 2, Body::TimeoutNow)];
    names("E14", answered("E14", NodeId(2), NodeId(1), Term(3), &old));
}

#[test]
fn l1_names_two_histories_of_one_entry() {
    let mut world = World::with_log(vec![entry(1, 1), entry(2, 2)], &[0]);
    names("L1", world.hands_out(1, &written(write(2, None, None, vec![entry(2, 1), entry(2, 2)]))));
}

#[test]
fn l2_names_a_leader_that_cuts_its_log() {
    let mut world = World::with_log(vec![entry(2, 1), entry(2, 2)], &[0]);
    names("L2", world.hands_out(0, &written(write(2, Some(1), Some(1), vec![]))));
}

#[test]
fn l3_names_a_cut_without_conflict() {
    let entries = vec![entry(2, 1), entry(2, 2)];
    let mut world = World::with_log(entries.clone(), &[0, 1]);
    names("L3", world.hands_out(1, &written(write(2, None, Some(0), vec![entry(2, 1)]))));
    let mut world = World::with_log(entries, &[0, 1]);
    names("L3", world.hands_out(1, &written(write(2, None, Some(1), vec![]))));
}

#[test]
fn l3_names_a_cut_below_the_commit_index() {
    let mut world = World::with_log(vec![entry(2, 1), entry(2, 2)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 2)).expect("a quorum has it");
    world.took(1, view(2, FOLLOWER, Some(1), 2)).expect("the leader has it");
    world.hands_out(1, &Ready::default()).expect("within the log");
    names("L3", world.hands_out(1, &written(write(3, None, Some(1), vec![entry(3, 2)]))));
}

#[test]
fn l4_names_falling_terms_and_times() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    names("L4", world.hands_out(0, &written(write(2, Some(1), None, vec![entry(1, 2)]))));
    let mut world = World::elected();
    names("L4", world.hands_out(0, &written(write(2, Some(1), None, vec![entry(3, 1)]))));
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    let early = Entry { time: Timestamp(0), ..entry(2, 2) };
    names("L4", world.hands_out(0, &written(write(2, Some(1), None, vec![early]))));
}

#[test]
fn l5_names_a_hole() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    names("L5", world.hands_out(1, &written(write(2, None, None, vec![entry(2, 2)]))));
    names("L5", world.sends(&append(LogId::ZERO, vec![entry(2, 2)])));
}

#[test]
fn l6_names_an_acknowledgement_before_the_disk() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    world.hands_out(1, &written(write(2, None, None, vec![entry(2, 1)]))).expect("appends");
    world.persist(1, write(2, None, None, vec![]));
    names("L6", world.sends(&matched(2, 1, 1)));
    let reply =
        Body::HeartbeatReply { epoch: Epoch(1), round: Round(1), matched: LogIndex(1), clock: Timestamp(0) };
    names("L6", world.sends(&message(2, 1, 2, reply)));
}

#[test]
fn l6_names_an_acknowledgement_of_another_history() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    world.persist(1, write(2, None, None, vec![entry(1, 1)]));
    names("L6", world.sends(&matched(2, 1, 1)));
}

#[test]
fn l8_names_a_follower_ahead_of_every_leader() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.took(1, view(2, FOLLOWER, Some(1), 1)).expect("seen when it hands out");
    names("L8", world.hands_out(1, &Ready::default()));
}

#[test]
fn l9_names_a_commit_beyond_the_log() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 1)).expect("a quorum has it");
    world.took(2, view(2, FOLLOWER, Some(1), 1)).expect("seen when it hands out");
    names("L9", world.hands_out(2, &Ready::default()));
}

#[test]
fn p1_names_a_match_the_peer_does_not_have() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    names("P1", world.sends(&heartbeat(LogId::new(2, 1))));
}

#[test]
fn p2_names_a_forgotten_success() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.hands_out(0, &Ready::default()).expect("nothing");
    world.hands_out(0, &Ready::default()).expect("nothing");
    names("P2", world.sends(&heartbeat(LogId::ZERO)));
    world.sends(&heartbeat(LogId::new(2, 1))).expect("the match is known");
}

#[test]
fn p3_names_a_step_back_below_the_match() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.hands_out(0, &Ready::default()).expect("nothing");
    world.hands_out(0, &Ready::default()).expect("nothing");
    names("P3", world.sends(&append(LogId::ZERO, vec![entry(2, 1)])));
}

#[test]
fn p4_names_belief_in_a_reply_of_another_epoch() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    world.persist(1, write(2, None, None, vec![entry(2, 1)]));
    world.receives(0, &matched(2, 9, 1));
    names("P4", world.sends(&heartbeat(LogId::new(2, 1))));
}

#[test]
fn p5_names_a_regression_where_no_disk_was_wiped() {
    let event = Event::PeerRegressed { peer: NodeId(2), matched: LogIndex(2), now: LogIndex(1) };
    names("P5", World::elected().hands_out(0, &Ready { events: vec![event], ..Ready::default() }));
}

#[test]
fn c1_names_a_commit_of_an_earlier_term_by_counting() {
    let mut world = World::with_log(vec![entry(1, 1)], &[0, 1, 2]);
    names("C1", world.took(0, view(2, LEADER, Some(1), 1)));
}

#[test]
fn c1_names_a_commit_without_a_majority() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    names("C1", world.took(0, view(2, LEADER, Some(1), 1)));
}

#[test]
fn c2_names_a_leader_that_counts_itself_too_early() {
    let mut world = World::with_log(vec![entry(2, 1)], &[1]);
    names("C2", world.took(0, view(2, LEADER, Some(1), 1)));
    let mut world = World::with_log(vec![entry(2, 1)], &[1, 2]);
    world.took(0, view(2, LEADER, Some(1), 1)).expect("the others are a majority");
}

#[test]
fn c3_names_a_log_that_differs_below_the_commit_index() {
    let mut world = World::with_log(vec![entry(1, 1), entry(2, 2)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 2)).expect("a quorum has it");
    world.hands_out(2, &written(write(2, None, None, vec![entry(2, 1)]))).expect("not committed there");
    world.took(2, view(2, FOLLOWER, Some(1), 1)).expect("seen when it hands out");
    names("C3", world.hands_out(2, &Ready::default()));
}

#[test]
fn c4_names_a_leader_that_lacks_what_was_committed() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 1)).expect("a quorum has it");
    world.ghost.members[2].campaign = Campaign { term: Term(3), number: CampaignId(1), granted: 0b110 };
    names("C4", world.took(2, view(3, LEADER, Some(3), 0)));
}

#[test]
fn c5_names_a_commit_that_falls() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 1)).expect("a quorum has it");
    names("C5", world.took(0, view(2, LEADER, Some(1), 0)));
    let hint = HardState { term: Term(2), vote: Some(NodeId(1)), commit: LogIndex(9) };
    let write = Write { hard_state: hint, ..write(2, Some(1), None, vec![]) };
    names("C5", World::elected().hands_out(0, &written(write)));
}

#[test]
fn c6_names_a_commit_that_a_crash_would_lose() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.disks[1] = Disk::founded(three(), Incarnation(2));
    names("C6", world.took(0, view(2, LEADER, Some(1), 1)));
}

#[test]
fn n1_names_a_snapshot_that_goes_back() {
    let mut world = World::with_log(vec![entry(2, 1), entry(2, 2)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 2)).expect("a quorum has it");
    world.took(1, view(2, FOLLOWER, Some(1), 2)).expect("seen when it hands out");
    world.hands_out(1, &Ready::default()).expect("within the log");
    let hash = world.ghost.members[1].log.hash(LogIndex(1));
    names("N1", world.notes_snapshot(1, LogId::new(2, 1), false, hash));
}

#[test]
fn n2_names_a_suffix_lost_or_kept_wrongly_and_a_missing_file() {
    let entries = vec![entry(2, 1), entry(2, 2)];
    let mut world = World::with_log(entries.clone(), &[0, 1]);
    names("N2", world.notes_snapshot(1, LogId::new(2, 1), true, Some(1)));
    let mut world = World::with_log(entries.clone(), &[0, 1]);
    names("N2", world.notes_snapshot(1, LogId::new(3, 2), false, Some(1)));
    let mut world = World::with_log(entries, &[0, 1]);
    names("N2", world.notes_snapshot(1, LogId::new(2, 9), true, None));
}

#[test]
fn n2_names_a_log_cut_before_its_snapshot_is_on_disk() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    names("N2", world.hands_out(0, &Ready { compact: Some(LogIndex(1)), ..Ready::default() }));
}

#[test]
fn n3_names_a_snapshot_of_what_was_never_committed() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 1)).expect("a quorum has it");
    let meta = SnapshotMeta { last: LogId::new(1, 1), conf: ConfState::default(), ..SnapshotMeta::default() };
    names(
        "N3",
        world.hands_out(2, &Ready { apply: vec![Apply::Restore(Box::new(meta))], ..Ready::default() }),
    );
}

#[test]
fn n4_names_entries_out_of_order() {
    let mut world = World::with_log(vec![entry(2, 1), entry(2, 2)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 2)).expect("a quorum has it");
    let late = Ready { apply: vec![Apply::Entries(vec![entry(2, 2)].into())], ..Ready::default() };
    names("N4", world.hands_out(0, &late));
    let both =
        Ready { apply: vec![Apply::Entries(vec![entry(2, 1), entry(2, 2)].into())], ..Ready::default() };
    world.hands_out(0, &both).expect("in order");
    names("N4", world.hands_out(0, &both));
    let meta = SnapshotMeta { last: LogId::new(2, 1), ..SnapshotMeta::default() };
    names(
        "N4",
        world.hands_out(0, &Ready { apply: vec![Apply::Restore(Box::new(meta))], ..Ready::default() }),
    );
}

#[test]
fn r1_names_a_stale_read() {
    names("R1", r1_read_is_current(NodeId(1), LogIndex(3), LogIndex(4)));
}

#[test]
fn r3_names_a_leader_of_a_later_term_beside_a_lease_and_no_other() {
    let judge =
        |term, until, now| r3_lease_is_over(NodeId(2), Term(term), NodeId(1), Term(3), until, Instant(now));
    names("R3", judge(4, Some(Instant(10)), 9));
    judge(4, Some(Instant(10)), 10).expect("it has ended");
    judge(4, None, 9).expect("there was none");
    judge(2, Some(Instant(10)), 9).expect("an earlier leader by late votes");
}
