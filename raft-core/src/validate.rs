//! What is refused before it is looked at: no message from the network may reach the rules in an impossible shape.

use crate::{
    AppendOutcome, Body, ConfState, Entry, EntryKind, LogId, LogIndex, Message, NodeId, SnapshotMeta,
    StepError, Term,
};

/// A single message never moves the term further than this: more means a broken peer (SAFETY E13).
pub(crate) const TERM_JUMP_MAX: u64 = 1 << 32;
/// No log reaches this far: an index behind it means a broken peer, and leaves room for arithmetic.
pub(crate) const INDEX_MAX: LogIndex = LogIndex(u64::MAX >> 1);

/// Checks a message on its own, for the node `own` in term `term`.
pub(crate) fn message(message: &Message, own: NodeId, term: Term) -> Result<(), StepError> {
    if message.to != own {
        return Err(StepError::WrongReceiver { to: message.to });
    }
    if message.from == NodeId(0) || message.from == own {
        return Err(StepError::BadSender { from: message.from });
    }
    // A node that never heard of any election is in term 0 and may ask about the next.
    let zero_allowed = matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { .. });
    check_term(message.term, term, zero_allowed)?;
    match &message.body {
        Body::PreVote { next_term, last, .. } => {
            if *next_term != message.term.next() || *next_term == Term::MAX {
                return Err(StepError::BadTerm { term: *next_term });
            }
            check_id(*last, message.term)
        }
        Body::RequestVote { last, .. } => {
            check_id(*last, message.term)?;
            if last.term >= message.term {
                return Err(StepError::BadMessage("a candidate's log is from its own term"));
            }
            Ok(())
        }
        Body::AppendEntries { prev, entries, .. } => {
            check_id(*prev, message.term)?;
            check_entries(*prev, entries, message.term)
        }
        Body::Heartbeat { prev, commit, .. } => {
            check_id(*prev, message.term)?;
            if *commit > prev.index {
                return Err(StepError::BadMessage("a heartbeat commits more than it verifies"));
            }
            Ok(())
        }
        Body::AppendReply { outcome: AppendOutcome::Rejected { prev, hint }, .. } => {
            if hint.index > *prev {
                return Err(StepError::BadMessage("the hint lies behind the refused entry"));
            }
            check_id(*hint, message.term)
        }
        Body::InstallSnapshot { meta, .. } => check_snapshot(meta, message.term),
        Body::Removed { conf_id } => check_id(*conf_id, message.term),
        Body::Refill { after, promised, .. } => {
            check_id(*after, message.term)?;
            check_id(*promised, message.term)?;
            if promised <= after {
                return Err(StepError::BadMessage("nothing of what it promised is missing"));
            }
            Ok(())
        }
        // A leader without a snapshot has none to send in its place.
        Body::SnapshotNeeded { at_least: LogIndex::ZERO, .. } => {
            Err(StepError::BadMessage("the snapshot that is lost covered nothing"))
        }
        Body::SnapshotNeeded { .. }
        | Body::AppendReply { outcome: AppendOutcome::Matched(_), .. }
        | Body::PreVoteReply { .. }
        | Body::RequestVoteReply { .. }
        | Body::HeartbeatReply { .. }
        | Body::TimeoutNow
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => Ok(()),
    }
}

/// Checks what a snapshot claims to stand for, as of `term`.
pub(crate) fn check_snapshot(meta: &SnapshotMeta, term: Term) -> Result<(), StepError> {
    check_id(meta.last, term)?;
    check_id(meta.conf_id, meta.last.term)?;
    if meta.last == LogId::ZERO || meta.conf_id.index > meta.last.index {
        return Err(StepError::BadMessage("the snapshot covers nothing, or not its configuration"));
    }
    meta.conf.validate().map_err(StepError::BadConf)
}

fn check_term(claimed: Term, own: Term, zero_allowed: bool) -> Result<(), StepError> {
    let zero = claimed == Term::ZERO && !zero_allowed;
    if planted!(AbsurdTermAdopted) && !zero {
        return Ok(());
    }
    if zero || claimed == Term::MAX || claimed.0.saturating_sub(own.0) > TERM_JUMP_MAX {
        return Err(StepError::BadTerm { term: claimed });
    }
    Ok(())
}

/// Index 0 has term 0 and nothing else has; no entry is of a later term than the message that speaks of it.
fn check_id(id: LogId, term: Term) -> Result<(), StepError> {
    if (id.index == LogIndex::ZERO) != (id.term == Term::ZERO) || id.term > term || id.index > INDEX_MAX {
        return Err(StepError::BadEntries { at: id.index });
    }
    Ok(())
}

fn check_entries(prev: LogId, entries: &[Entry], term: Term) -> Result<(), StepError> {
    let mut before = prev;
    for entry in entries {
        let id = entry.id;
        if id.index != before.index.next() || id.term < before.term || id.term == Term::ZERO {
            return Err(StepError::BadEntries { at: id.index });
        }
        check_id(id, term)?;
        if entry.kind == EntryKind::ConfChange {
            ConfState::decode(&entry.payload).map_err(StepError::BadConf)?;
        }
        before = id;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CampaignId, Entries, Epoch, Round, StartNumber, test_util::entry};

    fn check(term: u64, body: Body) -> Result<(), StepError> {
        message(&Message { from: NodeId(2), to: NodeId(1), term: Term(term), body }, NodeId(1), Term(3))
    }

    fn append(prev: LogId, entries: Vec<Entry>) -> Body {
        let (epoch, round, commit) = (Epoch(1), Round(1), LogIndex(0));
        Body::AppendEntries { epoch, round, prev, commit, entries: Entries::from(entries) }
    }

    #[test]
    fn terms_that_cannot_be_are_refused() {
        assert_eq!(check(3, Body::TimeoutNow), Ok(()));
        assert_eq!(check(3 + TERM_JUMP_MAX, Body::TimeoutNow), Ok(()));
        for term in [0, 4 + TERM_JUMP_MAX, u64::MAX] {
            assert_eq!(check(term, Body::TimeoutNow), Err(StepError::BadTerm { term: Term(term) }));
        }
    }

    #[test]
    fn senders_and_receivers_that_cannot_be_are_refused() {
        let to =
            |from, to| Message { from: NodeId(from), to: NodeId(to), term: Term(3), body: Body::TimeoutNow };
        assert!(message(&to(2, 1), NodeId(1), Term(3)).is_ok());
        assert!(message(&to(2, 3), NodeId(1), Term(3)).is_err());
        assert!(message(&to(0, 1), NodeId(1), Term(3)).is_err());
        assert!(message(&to(1, 1), NodeId(1), Term(3)).is_err());
    }

    #[test]
    fn entries_must_form_a_log() {
        let good = [entry(2, 5), entry(3, 6)];
        assert_eq!(check(3, append(LogId::new(2, 4), good.to_vec())), Ok(()));
        let refused = |prev, entries: &[Entry]| {
            assert!(matches!(check(3, append(prev, entries.to_vec())), Err(StepError::BadEntries { .. })));
        };
        refused(LogId::new(2, 3), &good);
        refused(LogId::new(3, 4), &good);
        refused(LogId::new(2, 4), &[entry(2, 5), entry(2, 7)]);
        refused(LogId::new(2, 4), &[entry(4, 5)]);
        refused(LogId::new(0, 4), &good);
        refused(LogId::new(1, 0), &[]);
        refused(LogId::new(2, u64::MAX), &[]);
    }

    #[test]
    fn messages_that_contradict_themselves_are_refused() {
        let (epoch, round, campaign) = (Epoch(1), Round(1), CampaignId(1));
        let prev = LogId::new(1, 4);
        assert!(check(3, Body::Heartbeat { epoch, round, prev, commit: LogIndex(5) }).is_err());
        let outcome = AppendOutcome::Rejected { prev: LogIndex(4), hint: LogId::new(1, 5) };
        assert!(check(3, Body::AppendReply { epoch, round, outcome }).is_err());
        let (next_term, last) = (Term(9), prev);
        assert!(check(3, Body::PreVote { campaign, next_term, last }).is_err());
        let needs = |at_least| Body::SnapshotNeeded { start: StartNumber(1), at_least: LogIndex(at_least) };
        assert!(check(3, needs(0)).is_err() && check(3, needs(1)).is_ok());
        let meta = Box::new(SnapshotMeta { last: prev, ..SnapshotMeta::default() });
        assert!(matches!(check(3, Body::InstallSnapshot { epoch, round, meta }), Err(StepError::BadConf(_))));
    }

    #[test]
    fn snapshots_that_stand_for_nothing_are_refused() {
        let conf = crate::ConfState::of_voters([(NodeId(1), crate::Member::default())]);
        let of = |last, conf_id| {
            let meta = SnapshotMeta { last, conf_id, conf: conf.clone(), ..SnapshotMeta::default() };
            check_snapshot(&meta, Term(3))
        };
        assert_eq!(of(LogId::new(2, 5), LogId::new(1, 5)), Ok(()));
        assert!(matches!(of(LogId::ZERO, LogId::ZERO), Err(StepError::BadMessage(_))));
        assert!(matches!(of(LogId::new(2, 5), LogId::new(1, 6)), Err(StepError::BadMessage(_))));
        assert_eq!(check_id(LogId { term: Term(3), index: INDEX_MAX }, Term(3)), Ok(()));
        assert!(check_id(LogId { term: Term(3), index: INDEX_MAX.next() }, Term(3)).is_err());
    }
}
