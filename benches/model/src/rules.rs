//! The rules of docs/RULES.md that a state can be judged by, and what a run has to see to mean anything.

use raft_core::{Body, ConfState, EntryKind, LogIndex, NodeId};
use stateright::Property;

use crate::{
    marks::Mark,
    node::Node,
    store::{NodeRef, place},
    world::{Bounds, State, TERMS_MAX, TWO, World},
};

/// What the rules need of one node.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) term: u64,
    pub(crate) commit: usize,
    /// The terms of the log in memory, and on disk.
    pub(crate) log: Vec<u64>,
    pub(crate) disk: Vec<u64>,
    pub(crate) disk_term: u64,
    /// What a leader believes each node to have.
    matched: [usize; 3],
    /// Every configuration in the log, the founding one first.
    confs: Vec<ConfState>,
    conf_is_joint: bool,
    left_joint: bool,
    has_command: Vec<bool>,
    /// Rules of one node alone that do not hold.
    broken: Vec<&'static str>,
}

impl Facts {
    pub(crate) fn of(node: &Node, founding: &ConfState) -> Facts {
        let core = &node.core;
        let terms = |last: LogIndex| (1..=last.0).map(|i| core.term_at(LogIndex(i)).map_or(0, |t| t.0));
        let log: Vec<u64> = terms(core.last().index).collect();
        let to_be = node.disk_to_be();
        let of_disk = |entries: &[raft_core::Entry]| entries.iter().map(|e| e.id.term.0).collect::<Vec<_>>();
        let mut matched = [0; 3];
        for (id, peer) in core.peers() {
            matched[place(id)] = usize::try_from(peer.matched.0).unwrap_or(usize::MAX);
        }
        let confs = to_be.confs(founding);
        let in_force = confs.last().is_some_and(|(id, conf)| *id == core.conf_id() && conf == core.conf());
        let commit = usize::try_from(core.commit().0).unwrap_or(usize::MAX);
        let tests = [
            ("A core's own invariants", core.check().is_ok()),
            ("No core halts", core.halted().is_none()),
            ("No true input is refused", node.wrong.is_none()),
            ("L4", log.is_sorted() && log.last().is_none_or(|last| *last <= core.term().0)),
            ("L6", of_disk(&to_be.entries) == log),
            ("M2", in_force),
            ("M3", confs.windows(2).all(|pair| is_legal_step(&pair[0].1, &pair[1].1))),
        ];
        Facts {
            term: core.term().0,
            commit,
            disk: of_disk(&node.disk.entries),
            disk_term: node.disk.hard_state.term.0,
            matched,
            conf_is_joint: core.conf().is_joint(),
            left_joint: confs.iter().any(|(_, conf)| conf.is_joint())
                && core.conf_at(core.commit()).0.index.0 > 0
                && !core.conf_at(core.commit()).1.is_joint(),
            has_command: to_be.entries.iter().map(|entry| entry.kind == EntryKind::Command).collect(),
            confs: confs.into_iter().map(|(_, conf)| conf).collect(),
            broken: tests.into_iter().filter_map(|(rule, holds)| (!holds).then_some(rule)).collect(),
            log,
        }
    }
}

/// From one configuration to the next any two majorities overlap.
fn is_legal_step(before: &ConfState, after: &ConfState) -> bool {
    match (before.is_joint(), after.is_joint()) {
        (false, true) => after.outgoing == before.voters,
        (true, false) => after.voters == before.voters,
        (false, false) => before.voters.symmetric_difference(&after.voters).count() <= 1,
        (true, true) => false,
    }
}

/// Whether `has` is true of a majority of each voter set.
fn has_majorities(conf: &ConfState, has: impl Fn(NodeId) -> bool) -> bool {
    [&conf.voters, &conf.outgoing]
        .into_iter()
        .filter(|voters| !voters.is_empty())
        .all(|voters| voters.iter().filter(|id| has(**id)).count() * 2 > voters.len())
}

/// Rules must never be broken; events must be seen.
pub(crate) fn properties() -> Vec<Property<World>> {
    vec![
        Property::always("E1", |_, s: &State| s.ghost.leaders.iter().all(|leader| *leader != TWO)),
        Property::always("E2", e2_one_vote),
        Property::always("C3", c3_committed_once),
        Property::always("C4", c4_leaders_are_complete),
        Property::always("C6", c6_committed_is_durable),
        Property::always("L1", l1_logs_match),
        Property::always("P1", p1_match_is_durable),
        Property::always("L4", |_, s: &State| local(s, "L4")),
        Property::always("L6", |_, s: &State| local(s, "L6")),
        Property::always("M2", |_, s: &State| local(s, "M2")),
        Property::always("M3", |_, s: &State| local(s, "M3")),
        Property::always("A core's own invariants", |_, s: &State| local(s, "A core's own invariants")),
        Property::always("No core halts", |_, s: &State| local(s, "No core halts")),
        Property::always("No true input is refused", |_, s: &State| local(s, "No true input is refused")),
    ]
}

/// What a run has to see within these bounds.
pub(crate) fn sights(bounds: &Bounds) -> Vec<Property<World>> {
    let membership = !bounds.changes.is_empty();
    let (two_terms, commands) = (bounds.terms > 1, bounds.proposals > 0);
    let sights = [
        (true, Property::sometimes("a leader is elected", |_, s: &State| leaders(s) > 0)),
        (two_terms, Property::sometimes("leaders in two terms at once", |_, s: &State| leaders(s) > 1)),
        (commands, Property::sometimes("a command is committed", command_committed)),
        (
            two_terms && (commands || membership),
            Property::sometimes("an entry of an earlier term is committed", |_, s: &State| {
                s.ghost.committed().iter().any(|(term, during)| term < during)
            }),
        ),
        (
            two_terms && commands && !membership,
            Property::sometimes("an entry of an earlier term is on a majority, not committed", figure_8),
        ),
        (
            membership && bounds.joint,
            Property::sometimes("a joint configuration is in force", |_, s: &State| {
                s.nodes.iter().any(|n| n.value.facts.conf_is_joint)
            }),
        ),
        (
            membership && bounds.joint,
            Property::sometimes("a joint configuration is left for good", |_, s: &State| {
                s.nodes.iter().any(|n| n.value.facts.left_joint)
            }),
        ),
        (
            two_terms && has_two_histories(bounds),
            Property::sometimes(
                "a change is in no log any more, another entry committed in its place",
                rolled_back,
            ),
        ),
    ];
    sights.into_iter().filter_map(|(possible, sight)| possible.then_some(sight)).collect()
}

/// Marks that a run has to leave within these bounds.
pub(crate) fn marks(bounds: &Bounds) -> Vec<Mark> {
    let membership = !bounds.changes.is_empty();
    let (two_terms, commands, crashes) = (bounds.terms > 1, bounds.proposals > 0, bounds.crashes > 0);
    let marks = [
        (true, Mark::Granted),
        (true, Mark::Refused),
        (bounds.timeouts > 1, Mark::SteppedDown),
        (crashes, Mark::VoteLost),
        (crashes, Mark::CrashAfterVote),
        (crashes && commands, Mark::EntriesLost),
        (two_terms && (bounds.proposals > 1 || has_two_histories(bounds)), Mark::Cut),
        (two_terms && (commands || membership), Mark::Misfit),
        (two_terms, Mark::Outdated),
        (two_terms && has_two_histories(bounds), Mark::RolledBack),
        (membership && bounds.joint, Mark::JointEntered),
        (membership && bounds.joint, Mark::JointLeft),
    ];
    marks.into_iter().filter_map(|(possible, mark)| possible.then_some(mark)).collect()
}

/// A change and something else in its place: a command, or the no-op of a leader that does not know of the change.
fn has_two_histories(bounds: &Bounds) -> bool {
    !bounds.changes.is_empty() && (bounds.proposals > 0 || !bounds.joint)
}

fn rolled_back(_: &World, state: &State) -> bool {
    let gone = |n: &NodeRef| n.value.facts.confs.len() == 1;
    state.ghost.has_changed() && state.nodes.iter().all(gone) && state.ghost.committed().len() > 1
}

fn command_committed(_: &World, state: &State) -> bool {
    state.nodes.iter().any(|n| {
        let facts = &n.value.facts;
        facts.has_command.iter().take(facts.commit).any(|is_command| *is_command)
    })
}

fn leaders(state: &State) -> usize {
    state.nodes.iter().filter(|n| n.value.node.leads()).count()
}

fn local(state: &State, rule: &str) -> bool {
    state.nodes.iter().all(|n| !n.value.facts.broken.contains(&rule))
}

/// E2: messages stay in the network for ever, so that it remembers each vote that was ever heard of.
fn e2_one_vote(_: &World, state: &State) -> bool {
    let mut votes = [[None; 3]; TERMS_MAX + 1];
    state.letters.iter().all(|letter| {
        let message = &letter.value;
        let (voter, candidate) = if matches!(message.body, Body::RequestVote { .. }) {
            (message.from, message.from)
        } else if matches!(message.body, Body::RequestVoteReply { granted: true, .. }) {
            (message.from, message.to)
        } else {
            return true;
        };
        let term = usize::try_from(message.term.0).unwrap_or(usize::MAX);
        *votes[term][place(voter)].get_or_insert(candidate) == candidate
    })
}

/// C3: what is committed anywhere is the same everywhere, for ever.
fn c3_committed_once(_: &World, state: &State) -> bool {
    let committed = state.ghost.committed();
    state.nodes.iter().all(|node| {
        let facts = &node.value.facts;
        facts.commit <= committed.len()
            && facts
                .log
                .iter()
                .take(facts.commit)
                .zip(committed)
                .all(|(ours, (term, _))| *ours == u64::from(*term))
    })
}

/// C4: a leader has everything that was committed in terms before its own.
fn c4_leaders_are_complete(_: &World, state: &State) -> bool {
    let committed = state.ghost.committed();
    state.nodes.iter().filter(|n| n.value.node.leads()).all(|leader| {
        let facts = &leader.value.facts;
        let before = committed.iter().enumerate().filter(|(_, (_, during))| u64::from(*during) < facts.term);
        before.into_iter().all(|(place, (term, _))| facts.log.get(place) == Some(&u64::from(*term)))
    })
}

/// C6: what is committed is on the disks of a majority, in a configuration that some log holds.
fn c6_committed_is_durable(_: &World, state: &State) -> bool {
    state.ghost.committed().iter().enumerate().all(|(at, (term, _))| {
        let has = |id: NodeId| state.nodes[place(id)].value.facts.disk.get(at) == Some(&u64::from(*term));
        state.nodes.iter().any(|n| n.value.facts.confs.iter().any(|conf| has_majorities(conf, has)))
    })
}

/// L1: the same entry in two logs means the same history, in memory and on disk.
fn l1_logs_match(_: &World, state: &State) -> bool {
    let logs: Vec<&[u64]> =
        state.nodes.iter().flat_map(|n| [&n.value.facts.log[..], &n.value.facts.disk[..]]).collect();
    logs.iter().enumerate().all(|(place, one)| {
        logs[place + 1..].iter().all(|other| {
            let shared = one.iter().zip(*other).rposition(|(a, b)| a == b);
            shared.is_none_or(|last| one[..=last] == other[..=last])
        })
    })
}

/// P1: a leader never believes a disk to have more than it has. Once the peer is in a later term, its log may have been
/// cut, and it does not listen to this leader any more.
fn p1_match_is_durable(_: &World, state: &State) -> bool {
    state.nodes.iter().filter(|n| n.value.node.leads()).all(|leader| {
        let facts = &leader.value.facts;
        facts.matched.iter().zip(&state.nodes).all(|(matched, peer)| {
            let peer = &peer.value.facts;
            peer.disk_term > facts.term
                || peer.term > facts.term
                || (0..*matched)
                    .all(|at| peer.disk.get(at).is_some_and(|term| facts.log.get(at) == Some(term)))
        })
    })
}

/// The precondition of Figure 8 (dissertation 3.6.2).
fn figure_8(_: &World, state: &State) -> bool {
    state.nodes.iter().filter(|n| n.value.node.leads()).any(|leader| {
        let facts = &leader.value.facts;
        facts.log.iter().enumerate().skip(state.ghost.committed().len()).any(|(at, term)| {
            *term < facts.term
                && state.nodes.iter().filter(|n| n.value.facts.disk.get(at) == Some(term)).count() >= 2
        })
    })
}
