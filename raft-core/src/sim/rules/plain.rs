//! The rules that need no memory: one look at what a node sends, writes or shows.

use std::fmt;

use super::{Ask, Checked, Member, check};
use crate::{
    Body, ConfState, Entry, HardState, Instant, LogId, LogIndex, Message, NodeId, RoleKind, Term,
    sim::{
        confs::has_majorities,
        disk::{Disk, Image, Log},
        network::place,
    },
};

/// E3: what a message claims about its sender's term and vote is on the sender's disk.
pub(super) fn e3_durable_before_sent(message: &Message, disk: &Disk) -> Checked {
    let durable = disk.durable.hard_state.term;
    check(durable >= message.term, "E3", || {
        format!(
            "{} sent {} in term {}, on disk is {durable}",
            message.from,
            message.body.name(),
            message.term
        )
    })?;
    let vote = match message.body {
        Body::RequestVoteReply { granted: true, .. } => message.to,
        Body::RequestVote { .. } => message.from,
        _ => return Ok(()),
    };
    check(disk.votes.iter().rev().any(|cast| *cast == (message.term, vote)), "E3", || {
        format!("{} told of its vote for {vote} in term {}, which is not on disk", message.from, message.term)
    })
}

/// E4: the term never goes back, and a vote stands as long as its term.
pub(super) fn e4_vote_kept_within_term(node: NodeId, old: HardState, new: HardState) -> Checked {
    check(new.term >= old.term, "E4", || format!("{node} went back from term {} to {}", old.term, new.term))?;
    check(new.term > old.term || old.vote.is_none() || new.vote == old.vote, "E4", || {
        format!("{node} changed its vote in term {} from {:?} to {:?}", old.term, old.vote, new.vote)
    })
}

/// E5 and E8: a vote goes to a candidate that asked, whose log is not behind, and not while a leader is heard.
pub(super) fn e5_e8_grant(voter: NodeId, last: LogId, candidate: NodeId, asks: &[Ask]) -> Checked {
    check(!asks.is_empty(), "E5", || format!("{voter} granted {candidate} what it never asked for"))?;
    check(asks.iter().any(|ask| ask.last >= last), "E5", || {
        format!("{voter} whose log ends at {last} granted {candidate}: {asks:?}")
    })?;
    check(asks.iter().any(|ask| ask.last >= last && !ask.sticky), "E8", || {
        format!("{voter} granted {candidate} although it had just heard its leader")
    })
}

/// E6: being asked for a pre-vote changes nothing.
pub(in crate::sim) fn e6_pre_vote_changes_nothing<T: PartialEq + fmt::Debug>(
    node: NodeId,
    before: &T,
    after: &T,
) -> Checked {
    check(before == after, "E6", || format!("a pre-vote changed {node} from {before:?} to {after:?}"))
}

/// E7: who takes a role by vote has every majority of one campaign.
pub(super) fn e7_majority_of_one_campaign(
    node: NodeId,
    role: RoleKind,
    granted: u32,
    conf: &ConfState,
) -> Checked {
    check(has_majorities(conf, |voter| granted >> place(voter) & 1 == 1), "E7", || {
        format!("{node} became {role:?} with the votes {granted:#b} in {conf:?}")
    })
}

/// E12: nothing has term 0, except that a node that was just founded asks for and answers pre-votes from there.
pub(super) fn e12_no_term_zero(message: &Message) -> Checked {
    let entries = match &message.body {
        Body::AppendEntries { entries, .. } => &entries[..],
        _ => &[],
    };
    let asks_first = match message.body {
        Body::PreVote { next_term, .. } => next_term > Term::ZERO,
        Body::PreVoteReply { .. } => true,
        _ => false,
    };
    check(
        (message.term > Term::ZERO || asks_first) && entries.iter().all(|entry| entry.id.term > Term::ZERO),
        "E12",
        || format!("{} sent {} with a term of 0", message.from, message.body.name()),
    )
}

/// E13: an impossible term is refused and changes nothing.
pub(in crate::sim) fn e13_absurd_term_refused(
    node: NodeId,
    refused: bool,
    before: Term,
    after: Term,
) -> Checked {
    check(refused && before == after, "E13", || {
        format!("{node} took an impossible term: {before} to {after}")
    })
}

/// E14, E6 and E7: this message is answered at once, with the receiver's own term.
pub(in crate::sim) fn answered(
    rule: &'static str,
    node: NodeId,
    asker: NodeId,
    term: Term,
    messages: &[Message],
) -> Checked {
    check(messages.iter().any(|message| message.to == asker && message.term == term), rule, || {
        format!("{node} in term {term} left {asker} without an answer")
    })
}

/// L2: a leader never cuts its own log.
pub(super) fn l2_leader_append_only(node: NodeId, role: RoleKind, cut: bool) -> Checked {
    check(role != RoleKind::Leader || !cut, "L2", || format!("the leader {node} cut its own log"))
}

/// L3: a log is cut only where a leader's entry contradicts it, and never below the commit index.
pub(super) fn l3_real_conflict(
    node: NodeId,
    log: &Log,
    after: LogIndex,
    commit: LogIndex,
    new: Option<LogId>,
) -> Checked {
    check(after >= commit, "L3", || format!("{node} cut its log after {after}, committed is {commit}"))?;
    let real = new.is_some_and(|new| new.index == after.next() && log.term(new.index) != Some(new.term));
    check(real, "L3", || {
        format!("{node} cut its log after {after} without a conflict: {:?} gives way to {new:?}", log.last())
    })
}

/// L4: terms do not fall along a log, and do not exceed the node's. Replicated time does not fall either.
pub(super) fn l4_terms_rise(node: NodeId, log: &Log, entry: &Entry, term: Term) -> Checked {
    let last = log.last();
    check(entry.id.term >= last.term && entry.id.term <= term && entry.id.term > Term::ZERO, "L4", || {
        format!("{node} in term {term} appended {} behind {last}", entry.id)
    })?;
    let time = log.entry(last.index).map(|entry| entry.time);
    check(time.is_none_or(|time| time <= entry.time), "L4", || {
        format!("{node} appended {} with time {:?} behind {time:?}", entry.id, entry.time)
    })
}

/// L5: an append continues the log without a hole.
pub(super) fn l5_no_hole(node: NodeId, last: LogId, entry: LogId) -> Checked {
    check(entry.index == last.index.next(), "L5", || format!("{node} appended {entry} behind {last}"))
}

/// L6: what a follower acknowledges is on its disk, and is what this leader has.
pub(super) fn l6_acknowledged_is_durable(
    message: &Message,
    matched: LogIndex,
    durable: &Image,
    leader: &Member,
) -> Checked {
    let log = &durable.log;
    let last = log.last().index.max(durable.snapshot.meta.last.index);
    check(last >= matched, "L6", || {
        format!("{} acknowledged {matched} to {}, on disk is {last}", message.from, message.to)
    })?;
    if leader.role != RoleKind::Leader || leader.term != message.term {
        return Ok(());
    }
    check(same_history(log, &leader.log, matched), "L6", || {
        format!("{} acknowledged {matched} to {}, which has another history there", message.from, message.to)
    })
}

/// P1: what a leader believes a peer to have, the peer has on disk.
pub(super) fn p1_match_is_true(message: &Message, prev: LogId, durable: &Image) -> Checked {
    if durable.hard_state.term > message.term {
        return Ok(()); // a later leader may have cut it
    }
    let log = &durable.log;
    // A leader learns of damage from the peer itself (D1).
    let lost = durable.lost.as_ref().is_some_and(|lost| lost.term(prev.index) == Some(prev.term));
    let holds = prev.index < log.start().index || log.term(prev.index) == Some(prev.term) || lost;
    check(holds, "P1", || {
        format!("{} believes {} to have {prev}, on disk it ends at {}", message.from, message.to, log.last())
    })
}

/// C5: the commit index never falls, and is never behind the log's end.
pub(super) fn c5_commit_never_falls(node: NodeId, old: LogIndex, new: LogIndex) -> Checked {
    check(new >= old, "C5", || format!("{node} went back from commit {old} to {new}"))
}

/// N1: a snapshot that holds nothing new is not installed.
pub(super) fn n1_only_newer_snapshots(node: NodeId, commit: LogIndex, snapshot: LogId) -> Checked {
    check(snapshot.index > commit, "N1", || format!("{node} installed {snapshot}, committed is {commit}"))
}

/// N2: the suffix is kept exactly if the log has the snapshot's last entry.
pub(super) fn n2_suffix_kept_if_it_fits(
    node: NodeId,
    log: &Log,
    snapshot: LogId,
    resets_log: bool,
) -> Checked {
    let fits = log.term(snapshot.index) == Some(snapshot.term);
    check(fits != resets_log, "N2", || {
        format!(
            "{node} noted snapshot {snapshot} with resets_log={resets_log}, its log ends at {}",
            log.last()
        )
    })
}

/// N2: the log is cut at its front only up to a snapshot that is on disk.
pub(in crate::sim) fn n2_compacted_behind_snapshot(
    node: NodeId,
    index: LogIndex,
    durable: &Image,
) -> Checked {
    let snapshot = durable.snapshot.meta.last.index;
    check(index <= snapshot, "N2", || {
        format!("{node} may drop its log up to {index}, the snapshot on disk ends at {snapshot}")
    })
}

/// D1: a node whose log is damaged does not stand for election.
pub(super) fn d1_damaged_never_campaigns(node: NodeId, role: RoleKind, promised: Option<LogId>) -> Checked {
    check(promised.is_none() || role == RoleKind::Follower, "D1", || {
        format!("{node} became {role:?} although it lacks what it had acknowledged up to {promised:?}")
    })
}

/// D1: a request for a refill tells what the disk holds and what it had held.
pub(super) fn d1_asks_for_what_is_missing(
    node: NodeId,
    after: LogId,
    promised: LogId,
    durable: &Image,
) -> Checked {
    let told = durable.lost.as_ref().is_none_or(|lost| lost.last() == promised);
    check(durable.log.last().index >= after.index && told, "D1", || {
        format!(
            "{node} asks for what follows {after} up to {promised}, its disk ends at {}",
            durable.log.last()
        )
    })
}

/// R1: a read sees every write that was committed when it was asked.
pub(in crate::sim) fn r1_read_is_current(node: NodeId, index: LogIndex, floor: LogIndex) -> Checked {
    check(index >= floor, "R1", || {
        format!("{node} may serve a read at {index}; {floor} was committed when it was asked")
    })
}

/// R3: whoever holds a lease need not fear a leader of a later term. One of an earlier term may well be elected by votes
/// that come late: it can commit nothing and confirm no read.
pub(in crate::sim) fn r3_lease_is_over(
    elected: NodeId,
    term: Term,
    holder: NodeId,
    holders_term: Term,
    until: Option<Instant>,
    now: Instant,
) -> Checked {
    let over = holders_term >= term || until.is_none_or(|until| until <= now);
    check(over, "R3", || {
        let left = until.map(|until| until.micros_since(now));
        format!(
            "{elected} is elected in term {term}, {holder} holds a lease of term {holders_term} for {left:?} more microseconds"
        )
    })
}

/// Whether two logs agree up to `index`, as far as both still tell.
pub(super) fn same_history(one: &Log, other: &Log, index: LogIndex) -> bool {
    match (one.hash(index), other.hash(index)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}
