//! The rules about members and handovers, each shown a history that breaks it.

use super::*;
use crate::{TransferOutcome, sim::rules::membership::*};

fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let mut conf = ConfState { voters: ids(voters), outgoing: ids(outgoing), ..ConfState::default() };
    conf.auto_leave = conf.is_joint();
    conf.members = conf.all().into_iter().map(|id| (id, member(id.0))).collect();
    conf
}

fn member(incarnation: u64) -> crate::Member {
    crate::Member { incarnation: Incarnation(incarnation), address: String::new() }
}

fn change(term: u64, index: u64, conf: &ConfState) -> Entry {
    let payload = Bytes::from(conf.encode());
    Entry { kind: EntryKind::ConfChange, payload, ..entry(term, index) }
}

fn appends(entries: Vec<Entry>) -> Ready {
    written(write(2, Some(1), None, entries))
}

/// The leader has committed an entry of its term.
fn settled() -> World {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.took(0, view(2, LEADER, Some(1), 1)).expect("a quorum has it");
    world
}

#[test]
fn m1_names_a_change_before_anything_of_the_term_or_before_the_last_change() {
    let one = change(2, 2, &conf(&[1, 2], &[]));
    names("M1", World::with_log(vec![entry(2, 1)], &[0]).hands_out(0, &appends(vec![one.clone()])));
    let mut world = settled();
    world.hands_out(0, &appends(vec![one])).expect("one change");
    names("M1", world.hands_out(0, &appends(vec![change(2, 3, &conf(&[1], &[]))])));
}

#[test]
fn m2_names_a_configuration_that_is_not_the_logs() {
    let shown = (LogId::ZERO, Arc::new(three()));
    m2_conf_in_force(NodeId(1), &shown, &shown).expect("the same");
    let log = (LogId::new(2, 1), Arc::new(three()));
    names("M2", m2_conf_in_force(NodeId(1), &shown, &log));
    let log = (LogId::ZERO, Arc::new(conf(&[1, 2], &[])));
    names("M2", m2_conf_in_force(NodeId(1), &shown, &log));
}

#[test]
fn m3_names_steps_whose_majorities_may_not_overlap() {
    let steps = [
        (conf(&[1, 2, 3], &[]), conf(&[1], &[])),
        (conf(&[1, 2, 3], &[]), conf(&[1, 4, 5], &[1, 2])),
        (conf(&[1, 4, 5], &[1, 2, 3]), conf(&[1, 4], &[])),
        (conf(&[1, 4, 5], &[1, 2, 3]), conf(&[1, 4, 6], &[1, 4, 5])),
    ];
    for (before, after) in steps {
        names("M3", m3_legal_step(NodeId(1), &before, &after));
    }
    names("M3", settled().hands_out(0, &appends(vec![change(2, 2, &conf(&[1], &[]))])));
    settled().hands_out(0, &appends(vec![change(2, 2, &conf(&[1], &[1, 2, 3]))])).expect("joint");
}

#[test]
fn m5_names_a_leader_that_removes_itself_at_once_or_leads_on() {
    let joint = conf(&[2, 3], &[1, 2, 3]);
    let mut world = settled();
    world.hands_out(0, &appends(vec![change(2, 2, &joint)])).expect("joint");
    world.persist(0, write(2, Some(1), None, vec![change(2, 2, &joint)]));
    for follower in [1, 2] {
        let entries = if follower == 1 { vec![] } else { vec![entry(2, 1)] };
        let entries = [entries, vec![change(2, 2, &joint)]].concat();
        world.hands_out(follower, &written(write(2, None, None, entries.clone()))).expect("it follows");
        world.persist(follower, write(2, None, None, entries));
        world.receives(0, &matched(follower as u64 + 1, 1, 2));
    }
    let in_joint = |at, commit| View {
        now: Instant(at),
        conf: (LogId::new(2, 2), Arc::new(joint.clone())),
        ..view(2, LEADER, Some(1), commit)
    };
    world.took(0, in_joint(1000, 2)).expect("committed");
    let mut early = world.ghost.clone();
    let left = appends(vec![change(2, 3, &conf(&[2, 3], &[]))]);
    names("M5", early.hands_out(0, &left, None, &world.disks[0].durable, &mut world.coverage));
    world.took(0, in_joint(401_000, 2)).expect("it waits");
    world.hands_out(0, &left).expect("nobody took over");
    let gone = View { conf: (LogId::new(2, 2), Arc::new(conf(&[2, 3], &[]))), ..view(2, LEADER, Some(1), 2) };
    names("M5", world.took(0, gone));
}

#[test]
fn m7_names_a_snapshot_with_another_configuration() {
    let mut world = settled();
    let hash = world.ghost.members[1].log.hash(LogIndex(1));
    let meta = SnapshotMeta { last: LogId::new(2, 1), conf: three(), ..SnapshotMeta::default() };
    world.notes(1, meta.clone(), false, false, hash).expect("the founding one");
    names(
        "M7",
        world.notes(1, SnapshotMeta { conf: conf(&[1, 2], &[]), ..meta.clone() }, false, false, hash),
    );
    names("M7", world.notes(1, SnapshotMeta { conf_id: LogId::new(2, 1), ..meta }, false, false, hash));
}

#[test]
fn m8_names_an_impossible_configuration() {
    let nobody = ConfState { voters: [].into(), ..three() };
    names("M8", settled().hands_out(0, &appends(vec![change(2, 2, &nobody)])));
}

#[test]
fn e9_names_a_campaign_of_who_has_no_vote() {
    let mut world = settled();
    let without = change(2, 2, &conf(&[1, 2], &[]));
    world.hands_out(2, &written(write(2, None, None, vec![entry(2, 1), without]))).expect("it follows");
    world.persist(2, write(2, None, None, vec![]));
    let ask = Body::PreVote { campaign: CampaignId(1), next_term: Term(3), last: LogId::new(2, 2) };
    world.sends(&message(3, 1, 2, ask.clone())).expect("the committed configuration names it");
    world.took(2, view(2, FOLLOWER, Some(1), 2)).expect("seen when it sends");
    names("E9", world.sends(&message(3, 1, 2, ask)));
}

#[test]
fn e10_names_a_leader_deposed_by_a_stranger() {
    names("E10", e10_not_deposed_by_stranger(NodeId(1), NodeId(4), Term(2), Term(3)));
    let world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    assert!(world.ghost.has_quorum(0, Instant(100_009)) && !world.ghost.has_quorum(0, Instant(100_010)));
}

#[test]
fn d2_names_a_vote_with_another_directory() {
    let mut world = World::fresh();
    world.persist(2, write(5, Some(1), None, vec![]));
    world.disks[2].incarnation = Incarnation(33);
    names("D2", world.sends(&granted(3, 1, 5)));
}

#[test]
fn x1_names_a_word_to_campaign_for_who_lacks_something() {
    let mut world = World::with_log(vec![entry(2, 1)], &[0, 1]);
    world.sends(&message(1, 2, 2, Body::TimeoutNow)).expect("it has everything");
    names("X1", world.sends(&message(1, 3, 2, Body::TimeoutNow)));
}

#[test]
fn x1_names_a_handover_that_takes_too_long_appends_or_ends_untold() {
    let handing = |until| View { transfer: Some((NodeId(2), Instant(until))), ..view(2, LEADER, Some(1), 0) };
    names("X1", World::with_log(vec![entry(2, 1)], &[0]).took(0, handing(200_001)));
    let mut world = World::with_log(vec![entry(2, 1)], &[0]);
    world.took(0, handing(200_000)).expect("an election timeout");
    names("X1", world.ghost.x1_transfers_are_told(0));
    world.hands_out(0, &Ready::default()).expect("nothing");
    names("X1", world.hands_out(0, &appends(vec![entry(2, 2)])));
    let ended = Event::TransferEnded { to: NodeId(2), outcome: TransferOutcome::TimedOut };
    let told = Ready { events: vec![ended], ..Ready::default() };
    world.hands_out(0, &told).expect("the first time");
    names("X1", world.hands_out(0, &told));
}
