//! What happened on the way, counted over all steps that were explored: a space in which a fault never had an effect
//! would prove nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use raft_core::{AppendOutcome, Body, Message};

use crate::node::{Event, Node};

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// Something that a step did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mark {
            $($(#[doc = $doc])* $name),*
        }

        impl Mark {
            pub(crate) const ALL: &[(Mark, &str)] = &[$((Mark::$name, concat!($($doc),*))),*];
        }
    };
}

marks! {
    /// a vote was granted to another node
    Granted,
    /// a vote was refused
    Refused,
    /// a crash lost a vote that was not durable
    VoteLost,
    /// a node crashed that had voted for another in its term
    CrashAfterVote,
    /// a crash lost entries that were not durable
    EntriesLost,
    /// a conflict cut the log
    Cut,
    /// an append did not fit
    Misfit,
    /// an append of an earlier term was answered with the own term
    Outdated,
    /// a leader that heard nobody stepped down
    SteppedDown,
    /// a configuration was rolled back by a conflict
    RolledBack,
    /// a joint configuration came into force
    JointEntered,
    /// a joint configuration was left
    JointLeft,
    /// a node was told to campaign at once
    HandedOver,
}

/// How often each mark was seen.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    counts: [AtomicU64; Mark::ALL.len()],
}

impl Marks {
    pub(crate) fn add(&self, marks: &[Mark]) {
        for mark in marks {
            self.counts[*mark as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, mark: Mark) -> u64 {
        self.counts[mark as usize].load(Ordering::Relaxed)
    }
}

impl Mark {
    /// What this step did.
    pub(crate) fn of(before: &Node, event: &Event<'_>, after: &Node, sent: &[Message]) -> Vec<Mark> {
        let crashed = matches!(event, Event::Crash(_));
        let (old, new) = (&before.core, &after.core);
        let granted = |granted: bool| {
            sent.iter().any(|m| matches!(m.body, Body::RequestVoteReply { granted: g, .. } if g == granted))
        };
        let voted = old.vote().is_some_and(|vote| vote != old.id());
        let rejects =
            |m: &Message| matches!(m.body, Body::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. });
        let rejected = sent.iter().any(rejects);
        let older = matches!(event, Event::Deliver(m, _) if m.term < old.term());
        let told = |body: &Body| matches!(event, Event::Deliver(m, _) if m.body == *body);
        let fell = new.conf_id().index < old.conf_id().index;
        let tests = [
            (Mark::Granted, granted(true)),
            (Mark::Refused, granted(false)),
            (Mark::VoteLost, crashed && old.vote().is_some() && new.vote() != old.vote()),
            (Mark::CrashAfterVote, crashed && voted && new.vote() == old.vote()),
            (Mark::EntriesLost, crashed && new.last() < old.last()),
            (Mark::Cut, !crashed && new.term_at(old.last().index) != Some(old.last().term)),
            (Mark::Misfit, rejected && !older),
            (Mark::Outdated, rejected && older),
            (Mark::SteppedDown, matches!(event, Event::Timeout) && before.leads()),
            (Mark::RolledBack, !crashed && fell),
            (Mark::JointEntered, !old.conf().is_joint() && new.conf().is_joint()),
            (Mark::JointLeft, !crashed && !fell && old.conf().is_joint() && !new.conf().is_joint()),
            (Mark::HandedOver, told(&Body::TimeoutNow) && new.term() > old.term()),
        ];
        tests.into_iter().filter_map(|(mark, seen)| seen.then_some(mark)).collect()
    }
}
