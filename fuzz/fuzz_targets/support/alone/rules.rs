//! What a node owes whatever it is told, as it shows after each input. The names are those of docs/RULES.md.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    Body, ChangeError, ConfState, HaltReason, Input, Instant, LogId, LogIndex, Message, NodeId, Raft,
    RoleKind, StepError, Term,
};

use super::{OWN, disk::Disk, forge::TERM_JUMP_MAX};

/// What a core shows.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub term: Term,
    pub vote: Option<NodeId>,
    pub role: RoleKind,
    pub leader: Option<NodeId>,
    pub commit: LogIndex,
    pub applied: LogIndex,
    pub last: LogId,
    pub conf_id: LogId,
    pub conf: ConfState,
    pub transfer: Option<NodeId>,
    pub halted: Option<HaltReason>,
    /// Whether the append that it is told next follows what it has.
    pub fits: bool,
    pub deadline: Option<Instant>,
}

impl View {
    pub fn of(raft: &Raft) -> View {
        View {
            term: raft.term(),
            vote: raft.vote(),
            role: raft.role(),
            leader: raft.leader(),
            commit: raft.commit(),
            applied: raft.applied(),
            last: raft.last(),
            conf_id: raft.conf_id(),
            conf: raft.conf().clone(),
            transfer: raft.transfer_target(),
            halted: raft.halted(),
            fits: false,
            deadline: raft.next_deadline(),
        }
    }
}

/// What has been true of the core, and what it was told.
#[derive(Debug)]
pub struct Witness {
    /// When its work was taken last.
    pub taken: View,
    /// To whom it said that it voted, over all its runs.
    pub voted: BTreeMap<Term, NodeId>,
    /// Who asked for its vote, and whether its log was good enough then.
    pub asks: Vec<(Message, bool)>,
    /// Who granted it what in which term.
    grants: BTreeSet<(Term, NodeId)>,
    /// The most that each peer acknowledged in a term.
    pub acked: BTreeMap<(Term, NodeId), LogIndex>,
    /// Up to where each leader told in its term what the log is.
    pub verified: BTreeMap<(Term, NodeId), LogIndex>,
    /// The last entry that the state machine was given.
    pub handed: LogIndex,
    /// It has no state to go on from.
    pub bereft: bool,
}

impl Witness {
    pub fn new(raft: &Raft) -> Witness {
        Witness {
            taken: View::of(raft),
            voted: BTreeMap::new(),
            asks: Vec::new(),
            grants: BTreeSet::new(),
            acked: BTreeMap::new(),
            verified: BTreeMap::new(),
            handed: LogIndex::ZERO,
            bereft: false,
        }
    }

    /// The core has started again from its disk.
    pub fn restarts(&mut self, raft: &Raft, disk: &Disk) {
        let voted = std::mem::take(&mut self.voted);
        let bereft = disk.durable.snapshot_lost;
        let handed = if bereft { LogIndex::ZERO } else { disk.durable.snapshot.last.index };
        *self = Witness { voted, bereft, handed, ..Witness::new(raft) };
        let told = self.voted.last_key_value().map_or(Term::ZERO, |(term, _)| *term);
        assert!(raft.term() >= told, "E3: it voted in term {told} and woke up in {}", raft.term());
    }

    /// The core took or refused an input.
    pub fn told(
        &mut self,
        raft: &Raft,
        disk: &Disk,
        before: &View,
        input: &Input,
        outcome: &Result<(), StepError>,
    ) {
        let after = View::of(raft);
        assert_eq!(raft.check(), Ok(()), "by {input:?}");
        if let Err(error) = outcome {
            let same = View { deadline: before.deadline, fits: before.fits, ..after.clone() };
            assert_eq!(same, *before, "refused with {error}, and yet changed by {input:?}");
            assert_eq!(*error == StepError::Halted, after.halted.is_some(), "{error}");
            return;
        }
        assert!(before.halted.is_none(), "a halted core took {input:?}");
        if let Input::Message(message) = input {
            self.heard(raft, before, message);
        }
        e4_terms_and_votes_stand(before, &after);
        assert!(after.commit >= before.commit, "C5: commit fell from {} to {}", before.commit, after.commit);
        match input {
            Input::Message(message) => {
                e13_believable(message, before);
                if matches!(message.body, Body::PreVote { .. }) {
                    assert_eq!(after, *before, "E6: a pre-vote changed it");
                }
                if before.role != RoleKind::Leader {
                    l8_commit_is_verified(message, before, &after);
                }
            }
            Input::Persisted(id) => {
                assert!(*id <= disk.issued, "it took the completion of a write unknown to it")
            }
            Input::Applied(index) => assert!(*index <= self.handed, "N4: it took what was never handed out"),
            _ => assert!(
                after.commit == before.commit || before.role == RoleKind::Leader,
                "L8: commit moved by {input:?}"
            ),
        }
        if before.role == RoleKind::Leader && after.term == before.term {
            self.c1_commit_of_own_term(raft, disk, before, &after);
        }
        if after.role == RoleKind::Leader && (before.role != RoleKind::Leader || after.term > before.term) {
            let granted = |id| id == OWN || self.grants.contains(&(after.term, id));
            let won = has_majorities(&after.conf, granted) || has_majorities(&before.conf, granted);
            assert!(won, "E7: it leads term {} by the votes of {:?}", after.term, self.grants);
            assert_eq!(after.vote, Some(OWN), "E11: a leader that voted for another");
        }
        if raft.promised().is_some() || raft.snapshot_lost().is_some() {
            assert_eq!(after.role, RoleKind::Follower, "D1: it campaigns although its disk lost something");
        }
        if after.conf_id != before.conf_id
            && before.role == RoleKind::Leader
            && after.role == RoleKind::Leader
        {
            m1_m3_next_conf(before, &after);
        }
    }

    fn heard(&mut self, raft: &Raft, before: &View, message: &Message) {
        let Message { from, term, body, .. } = message;
        let told = |most: &mut BTreeMap<(Term, NodeId), LogIndex>, index: LogIndex| {
            let known = most.entry((*term, *from)).or_default();
            *known = index.max(*known);
        };
        match body {
            Body::RequestVote { last, .. } | Body::PreVote { last, .. } => {
                let bound = before.last.max(raft.promised().unwrap_or_default());
                self.asks.push((message.clone(), *last >= bound));
            }
            Body::RequestVoteReply { granted: true, .. } => {
                self.grants.insert((*term, *from));
            }
            Body::AppendReply { outcome: raft_core::AppendOutcome::Matched(index), .. } => {
                told(&mut self.acked, *index);
            }
            Body::HeartbeatReply { matched, .. } => told(&mut self.acked, *matched),
            Body::AppendEntries { prev, entries, .. } if before.fits => {
                told(&mut self.verified, prev.index.plus(entries.len() as u64))
            }
            Body::AppendEntries { .. } => assert_eq!(raft.last(), before.last, "L5: {message:?} was taken"),
            Body::Heartbeat { prev, .. } => told(&mut self.verified, prev.index),
            Body::InstallSnapshot { meta, .. } => told(&mut self.verified, meta.last.index),
            _ => {}
        }
    }

    /// C1 and C2: a leader commits entries of its own term, which majorities acknowledged; its own copy counts as far as
    /// its disk has it.
    fn c1_commit_of_own_term(&self, raft: &Raft, disk: &Disk, before: &View, after: &View) {
        let commit = after.commit;
        if commit == before.commit {
            return;
        }
        let term = raft.term_at(commit);
        assert!(
            term == Some(after.term),
            "C1: it leads term {} and committed {commit} of {term:?}",
            after.term
        );
        let durable = disk.durable.last().index;
        let has = |id| {
            let acked = self.acked.get(&(after.term, id)).copied().unwrap_or_default();
            (if id == OWN { durable } else { acked }) >= commit
        };
        let counted = has_majorities(&after.conf, has) || has_majorities(&before.conf, has);
        assert!(
            counted,
            "C1, C2: it committed {commit}; acknowledged {:?}, on its disk {durable}",
            self.acked
        );
    }
}

/// E4: the term never falls, a vote stands as long as its term, and so does the leader of a term.
fn e4_terms_and_votes_stand(before: &View, after: &View) {
    assert!(after.term >= before.term, "E4: from term {} back to {}", before.term, after.term);
    if after.term > before.term {
        return;
    }
    assert!(
        before.vote.is_none() || after.vote == before.vote,
        "E4: {:?} became {:?}",
        before.vote,
        after.vote
    );
    let other = before.leader.is_some() && after.leader.is_some() && after.leader != before.leader;
    assert!(!other, "E11: {:?} and {:?} lead term {}", before.leader, after.leader, after.term);
    let named = before.conf.members.get(&OWN).map(|member| member.incarnation);
    let voted = after.vote != before.vote;
    assert!(!voted || named.is_none_or(|named| named.0 == OWN.0), "D2: it votes with another directory");
}

/// E13: a term that cannot be moves nothing.
fn e13_believable(message: &Message, before: &View) {
    let asks = matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { .. });
    let believable = message.term.0.saturating_sub(before.term.0) <= TERM_JUMP_MAX
        && message.term < Term::MAX
        && (message.term > Term::ZERO || asks);
    assert!(believable, "E12, E13: it took {message:?} in term {}", before.term);
}

/// L8: a follower commits no further than a message of the leader told and verified.
fn l8_commit_is_verified(message: &Message, before: &View, after: &View) {
    let most = match &message.body {
        Body::AppendEntries { prev, commit, entries, .. } => {
            prev.index.plus(entries.len() as u64).min(*commit)
        }
        Body::Heartbeat { commit, .. } => *commit,
        Body::InstallSnapshot { meta, .. } => meta.last.index,
        _ => before.commit,
    };
    let moved = after.commit > before.commit;
    assert!(!moved || after.commit <= most, "L8: {message:?} moved commit to {}", after.commit);
    assert!(!moved || message.term == after.term, "L8: a message of term {} moved commit", message.term);
}

/// What a change of the membership came to.
pub fn changed(raft: &Raft, before: &View, outcome: Result<LogId, ChangeError>) {
    assert_eq!(raft.check(), Ok(()), "by a change: {outcome:?}");
    let after = View::of(raft);
    match outcome {
        Ok(id) => {
            assert_eq!(
                (id, before.role),
                (after.conf_id, RoleKind::Leader),
                "M1: the change is not in force"
            );
            m1_m3_next_conf(before, &after);
        }
        Err(_) => assert_eq!(after.conf_id, before.conf_id, "refused, and yet in force"),
    }
}

/// M1 and M3: a change waits for the one before it, and any two majorities of the two overlap.
fn m1_m3_next_conf(before: &View, after: &View) {
    assert!(
        before.conf_id.index <= after.commit,
        "M1: {:?} waits, and yet {:?}",
        before.conf_id,
        after.conf_id
    );
    let (old, new) = (&before.conf, &after.conf);
    let moved = old.voters.symmetric_difference(&new.voters).count();
    let joins = new.outgoing == old.voters;
    let leaves = old.is_joint() && !new.is_joint() && new.voters == old.voters;
    let steps = !old.is_joint() && !new.is_joint() && moved <= 1;
    assert!(steps || joins || leaves, "M3: from {old:?} to {new:?}");
}

pub fn has_majorities(conf: &ConfState, has: impl Fn(NodeId) -> bool) -> bool {
    let most = |ids: &BTreeSet<NodeId>| ids.iter().filter(|id| has(**id)).count() > ids.len() / 2;
    most(&conf.voters) && (conf.outgoing.is_empty() || most(&conf.outgoing))
}
