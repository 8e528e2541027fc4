//! What a node owes whatever it is told, in what it hands out; and what becomes of that. The names are those of
//! docs/RULES.md.

use raft_core::{
    AppendOutcome, Apply, Body, Config, Event, HardState, Input, LogId, LogIndex, Message, Raft, ReadOutcome,
    Ready, Recovered, RoleKind, SnapshotMeta, StepError, Term, Write,
};

use super::{
    OWN, World, forge,
    rules::{View, Witness},
};

/// The core's latest messages are remembered, to be answered.
const SAID_MAX: usize = 24;

impl World {
    /// Takes what the core has to hand out, and looks at all of it.
    pub fn take(&mut self) {
        let Some(ready) = self.raft.take_ready() else { return };
        assert_eq!(self.raft.check(), Ok(()));
        let Ready { messages, write, apply, reads, fetches, compact, events } = ready;
        let halts = events.iter().filter(|event| matches!(event, Event::Halted(_))).count();
        assert!(halts == 0 || self.raft.halted().is_some(), "it says that it halts and goes on");
        if self.raft.halted().is_some() {
            let silent = messages.is_empty() && write.is_none() && apply.is_empty() && fetches.is_empty();
            assert!(
                silent && compact.is_none(),
                "a halted core hands out work: {messages:?} {write:?} {apply:?}"
            );
        }
        if let Some(write) = write {
            self.write(write);
        }
        if self.raft.halted().is_none() {
            assert_eq!(self.disk.told.last(), self.raft.last(), "what it wrote is not what it has");
        }
        for message in messages {
            self.send(message);
        }
        for work in apply {
            self.n4_in_order(&work);
            self.apply.push_back(work);
        }
        for read in reads {
            self.answered(read);
        }
        self.fetches.extend(fetches);
        if let Some(index) = compact {
            let marked = self.disk.durable.snapshot.last.index;
            assert!(
                index <= marked,
                "N2: the log may go up to {index}, the snapshot on disk ends at {marked}"
            );
            self.disk.compact(index);
        }
        self.witness.taken = View::of(&self.raft);
        self.gathered = 0;
    }

    fn write(&mut self, write: Write) {
        assert_eq!(write.id.0, self.disk.issued.0 + 1, "writes are numbered one by one");
        let (old, new) = (self.disk.told.hard_state, write.hard_state);
        assert!(new.term >= old.term, "E4: from term {} back to {}", old.term, new.term);
        let kept = new.term > old.term || old.vote.is_none() || old.vote == new.vote;
        assert!(kept, "E4: the vote of term {} became {:?}, was {:?}", new.term, new.vote, old.vote);
        let (taken, last) = (&self.witness.taken, self.disk.told.last());
        if let Some(after) = write.truncate_after {
            assert!(after >= taken.commit, "L3: cut after {after}, committed is {}", taken.commit);
            let leads = taken.role == RoleKind::Leader && new.term == taken.term;
            assert!(!leads || after >= last.index, "L2: a leader cut its own log after {after}");
        }
        if let Some(mark) = &write.snapshot {
            let at = mark.meta.last;
            assert!(
                !mark.resets_log || at.index > taken.commit,
                "N1: {at} replaces a log committed to {}",
                taken.commit
            );
            // With several inputs since, it is not known what the log was when the snapshot came.
            let holds = self.disk.told.term(at.index) == Some(at.term);
            assert!(
                self.gathered > 1 || mark.resets_log != holds,
                "N2: {mark:?} of a log that ends at {last}"
            );
            self.snapshots.push(mark.meta.clone());
        }
        self.disk.write(write.clone());
        let mut before = write.entries.first().and_then(|first| {
            let index = first.id.index.prev();
            self.disk.told.term(index).map(|term| LogId { term, index })
        });
        for entry in &write.entries {
            let rises = before.is_none_or(|before| before.term <= entry.id.term);
            assert!(
                rises && entry.id.term <= new.term && entry.id.term > Term::ZERO,
                "L4: {} behind {before:?}",
                entry.id
            );
            before = Some(entry.id);
        }
        assert!(new.commit <= self.disk.told.last().index, "C5: a commit hint behind the log's end");
    }

    fn send(&mut self, message: Message) {
        let Message { from, to, term, ref body } = message;
        assert!(from == OWN && to != OWN, "a message from {from} to {to}");
        let asks = matches!(body, Body::PreVote { .. } | Body::PreVoteReply { .. });
        assert!(term > Term::ZERO || asks, "E12: it says {} in term 0", body.name());
        let durable = self.disk.durable.hard_state.term;
        assert!(term <= durable, "E3: it speaks in term {term}, on disk is {durable}");
        match body {
            Body::RequestVote { .. } => self.e2_e3_votes(term, OWN),
            Body::RequestVoteReply { granted: true, .. } => {
                self.e2_e3_votes(term, to);
                e5_good_enough(&self.witness, &message);
            }
            Body::PreVoteReply { granted: true, .. } => e5_good_enough(&self.witness, &message),
            Body::AppendReply { outcome: AppendOutcome::Matched(index), .. }
            | Body::HeartbeatReply { matched: index, .. } => {
                let last = self.disk.durable.last().index.max(self.disk.durable.snapshot.last.index);
                assert!(*index <= last, "L6: it acknowledges {index}, on disk is {last}");
                let told = self.witness.verified.get(&(term, to)).copied().unwrap_or_default();
                let most = told.max(self.raft.commit());
                assert!(*index <= most, "L8: it acknowledges {index}, {to} has told of {most}");
            }
            _ => {}
        }
        if self.raft.role() == RoleKind::Leader && term == self.raft.term() {
            self.leads(&message);
        }
        self.is_acceptable(&message);
        self.heard.entry(to).or_default().note(body);
        self.said.push_back(message);
        if self.said.len() > SAID_MAX {
            self.said.pop_front();
        }
    }

    /// E2 and E3: it tells of one vote in a term, over all its runs, and that one is on disk.
    fn e2_e3_votes(&mut self, term: Term, candidate: raft_core::NodeId) {
        let first = *self.witness.voted.entry(term).or_insert(candidate);
        assert_eq!(first, candidate, "E2: two votes in term {term}");
        let cast = |kept: &HardState| (kept.term, kept.vote) == (term, Some(candidate));
        assert!(self.disk.kept.iter().any(cast), "E3: its vote for {candidate} in {term} was never on disk");
    }

    /// A leader says what is so in its own log, and of its peers what they told.
    fn leads(&self, message: &Message) {
        let (told, commit) = (&self.disk.told, self.raft.commit());
        match &message.body {
            Body::AppendEntries { prev, commit: said, entries, .. } => {
                assert!(told.term(prev.index).is_none_or(|term| term == prev.term), "L1: no entry {prev}");
                assert!(*said <= commit, "C1: it tells of the commit {said}, has {commit}");
                for (index, entry) in (prev.index.next().0..).zip(entries) {
                    assert_eq!(entry.id.index.0, index, "L5: a hole behind {prev}");
                    let own = told.entry(entry.id.index);
                    assert!(own.is_none_or(|own| own == entry), "L1: sent {entry:?}, has {own:?}");
                }
            }
            Body::Heartbeat { prev, commit: said, .. } => {
                assert!(told.term(prev.index).is_none_or(|term| term == prev.term), "L1: no entry {prev}");
                assert!(*said <= commit.min(prev.index), "C1: it tells of the commit {said}, has {commit}");
                let acked = self.witness.acked.get(&(message.term, message.to)).copied().unwrap_or_default();
                assert!(
                    prev.index <= acked,
                    "P4: it believes {} to have {prev}, told was {acked}",
                    message.to
                );
            }
            Body::InstallSnapshot { meta, .. } => {
                assert!(self.snapshots.contains(meta), "N7: it sends a snapshot it does not have: {meta:?}");
                assert!(
                    meta.last.index <= commit,
                    "N1: it sends the snapshot {}, committed is {commit}",
                    meta.last
                );
            }
            _ => {}
        }
    }

    /// What it says makes sense to whoever gets it: no peer refuses it as impossible.
    fn is_acceptable(&self, message: &Message) {
        let conf = forge::conf(0b111111);
        let mut recovered = Recovered::fresh(conf);
        recovered.hard_state.term = message.term.min(Term(u64::MAX - 1));
        let Ok(mut peer) = Raft::new(Config::new(message.to, 1), recovered, self.now) else { return };
        let outcome = peer.handle(self.now, Input::Message(message.clone()));
        // In the last term there is, nobody can be asked about the next.
        let last = message.term.next() == Term::MAX && matches!(message.body, Body::PreVote { .. });
        let odd = matches!(
            outcome,
            Err(StepError::BadTerm { .. }
                | StepError::BadEntries { .. }
                | StepError::BadMessage(_)
                | StepError::BadConf(_))
        );
        assert!(!odd || last, "its peer refuses {message:?}: {outcome:?}");
    }

    /// N4 and C3: the state machine gets what is committed, in order, each entry once.
    fn n4_in_order(&mut self, work: &Apply) {
        let commit = self.raft.commit();
        match work {
            Apply::Entries(entries) => {
                assert!(!self.witness.bereft, "N4: entries without the state that they change");
                for entry in entries {
                    let expected = self.witness.handed.next();
                    assert_eq!(entry.id.index, expected, "N4: not what comes next");
                    assert!(expected <= commit, "C3: it applies {expected}, committed is {commit}");
                    let own = self.disk.told.entry(expected);
                    assert!(own.is_none_or(|own| own == entry), "C3: it applies {entry:?}, has {own:?}");
                    self.witness.handed = expected;
                }
            }
            Apply::Restore(meta) => {
                let SnapshotMeta { last, .. } = **meta;
                assert_eq!(self.disk.durable.snapshot, **meta, "N4: a restore before its mark is on disk");
                assert!(last.index > self.witness.handed, "N4: from {} back to {last}", self.witness.handed);
                (self.witness.handed, self.witness.bereft) = (last.index, false);
            }
        }
    }

    /// R1, as far as one node can be held to it: each read is answered once, not with what was true before it was asked.
    fn answered(&mut self, read: ReadOutcome) {
        let floor = self.reads.remove(&read.token);
        assert!(floor.is_some(), "R2: {read:?} was not asked, or was answered before");
        let fits = read.index.is_none_or(|index| index >= floor.unwrap_or(LogIndex::ZERO));
        assert!(fits, "R1: {read:?}, committed was {floor:?}");
    }
}

/// E5: a vote or pre-vote goes to who asked for it, with a log that is not behind.
fn e5_good_enough(witness: &Witness, grant: &Message) {
    let fits = |(ask, complete): &(Message, bool)| {
        let same = match (&ask.body, &grant.body) {
            (Body::RequestVote { campaign: asked, .. }, Body::RequestVoteReply { campaign, .. }) => {
                asked == campaign && ask.term == grant.term
            }
            (Body::PreVote { campaign: asked, .. }, Body::PreVoteReply { campaign, .. }) => asked == campaign,
            _ => false,
        };
        same && ask.from == grant.to && *complete
    };
    assert!(witness.asks.iter().any(fits), "E5: {grant:?} was not asked for with a log good enough");
}
