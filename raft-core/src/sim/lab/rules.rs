//! The rules of SAFETY section 1 that are cheap to check at each step, on what the servers persist, send and commit.

use std::collections::BTreeMap;

use super::{net::place, store::Store};
use crate::{AppendOutcome, Body, HardState, LogId, LogIndex, Message, NodeId, Raft, RoleKind, Term, Write};

/// What was seen of a run: never forgotten, whoever crashes.
#[derive(Debug, Default)]
pub(super) struct Rules {
    leaders: BTreeMap<Term, NodeId>,
    granted: BTreeMap<(Term, NodeId), NodeId>,
    /// The hash of the log up to each entry that was ever persisted.
    histories: BTreeMap<LogId, u64>,
    /// The hash of the log up to each committed index, from index 1 on.
    committed: Vec<u64>,
}

/// What a server must not go back behind while it runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    term: Term,
    commit: LogIndex,
    applied: LogIndex,
}

impl Rules {
    /// Before a write is carried out: `store` is still as it was.
    pub(super) fn writes(
        &self,
        core: &Raft,
        seen: &Seen,
        store: &Store,
        write: &Write,
    ) -> Result<(), String> {
        let id = core.id();
        let (before, after) = (store.hard_state, write.hard_state);
        hold(after.term >= before.term, || format!("L4: the term of {id} goes back to {}", after.term))?;
        let kept = after.term > before.term || before.vote.is_none() || before.vote == after.vote;
        hold(kept, || format!("E4: {id} changes its vote in term {}", after.term))?;
        if let Some(index) = write.truncate_after {
            hold(index >= seen.commit, || format!("L3: {id} cuts committed entries behind {index}"))?;
            hold(core.role() != RoleKind::Leader, || format!("L2: {id} cuts its log while it leads"))?;
        }
        Ok(())
    }

    /// After a write was carried out.
    pub(super) fn wrote(&mut self, id: NodeId, store: &Store, write: &Write) -> Result<(), String> {
        let hard_state = store.hard_state;
        if let Some(vote) = hard_state.vote {
            let first = *self.granted.entry((hard_state.term, id)).or_insert(vote);
            hold(first == vote, || format!("E2: {id} votes for {first} and {vote} in {}", hard_state.term))?;
        }
        for entry in &write.entries {
            let hash = store.log.hash(entry.id.index).unwrap_or_default();
            let first = *self.histories.entry(entry.id).or_insert(hash);
            hold(first == hash, || format!("L1: two logs differ before {}", entry.id))?;
        }
        Ok(())
    }

    /// A message leaves.
    pub(super) fn sends(&self, store: &Store, message: &Message) -> Result<(), String> {
        let Message { from, to, term, body } = message;
        let HardState { term: durable, vote, .. } = store.hard_state;
        hold(*term <= durable, || format!("E3: {from} speaks in term {term}, which it may forget"))?;
        if let Body::RequestVoteReply { granted: true, .. } = body {
            hold(vote == Some(*to), || format!("E3: {from} gives {to} a vote it may forget"))?;
        }
        if let Body::AppendReply { outcome: AppendOutcome::Matched(index), .. } = body {
            let last = store.log.last().index.max(store.snap.meta.last.index);
            hold(*index <= last, || format!("L6: {from} acknowledges {index} but has {last}"))?;
        }
        Ok(())
    }

    /// A server takes office.
    pub(super) fn leads(&mut self, core: &Raft, store: &Store) -> Result<(), String> {
        let (id, term) = (core.id(), core.term());
        let first = *self.leaders.entry(term).or_insert(id);
        hold(first == id, || format!("E1: {first} and {id} both lead term {term}"))?;
        let Some(hash) = self.committed.last() else { return Ok(()) };
        let index = LogIndex(self.committed.len() as u64);
        let complete = store.log.hash(index) == Some(*hash);
        hold(complete, || format!("C4: {id} leads term {term} without the committed entry {index}"))
    }

    /// After a write, before any of it is applied or compacted: what does the server take for committed?
    pub(super) fn commits(&mut self, core: &Raft, stores: &[&Store]) -> Result<(), String> {
        let (id, commit) = (core.id(), core.commit());
        let Some(store) = stores.get(place(id)) else { return Ok(()) };
        while (self.committed.len() as u64) < commit.0 {
            let index = LogIndex(self.committed.len() as u64 + 1);
            let Some(hash) = store.log.hash(index) else {
                return Err(format!("C3: {id} commits {index}, which it does not have"));
            };
            let copies = stores.iter().filter(|store| store.log.hash(index) == Some(hash)).count();
            hold(copies > stores.len() / 2, || format!("C6: {copies} servers have the committed {index}"))?;
            self.committed.push(hash);
        }
        let known =
            usize::try_from(commit.0).ok().and_then(|count| self.committed.get(count.checked_sub(1)?));
        let same = match (known, store.log.hash(commit)) {
            (Some(known), Some(ours)) => *known == ours,
            (None, _) | (_, None) => true,
        };
        hold(same, || format!("C3: {id} commits another history at {commit}"))
    }

    /// After everything a server wanted was carried out.
    pub(super) fn settles(&self, core: &Raft, seen: &mut Seen) -> Result<(), String> {
        let id = core.id();
        let now = Seen { term: core.term(), commit: core.commit(), applied: core.applied() };
        let forward = now.term >= seen.term && now.commit >= seen.commit && now.applied >= seen.applied;
        hold(forward, || format!("C5: {id} goes back from {seen:?} to {now:?}"))?;
        *seen = now;
        let (snapshot, last) = (core.snapshot().last.index, core.last().index);
        let ordered = snapshot <= now.applied && now.applied <= now.commit && now.commit <= last;
        hold(ordered, || format!("L9: {id} has snapshot {snapshot}, {now:?}, last {last}"))
    }
}

fn hold(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
