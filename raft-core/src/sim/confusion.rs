//! A caller that mixes up what it tells its core: again, late, or about nothing. No rule may depend on it. What is
//! impossible is refused and changes nothing, everything else changes nothing either, or costs time.
//!
//! It never claims what is not so: a caller that reports a write as durable that is not, or hands back other entries under
//! the ids that were asked for, is believed.

use super::{
    Sim,
    network::id,
    rules::{Checked, Violation, check},
};
use crate::{Epoch, Fetch, FetchId, Input, LogIndex, NodeId, Raft, RoleKind, SnapshotMeta, WriteId};

/// What a confused caller tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confusion {
    /// The completion of a write that was reported before, so many back.
    PersistedBefore(u8),
    /// The completion of a write that was never handed out, so many ahead.
    PersistedUnknown(u64),
    /// What was reported applied before, so many back.
    AppliedBefore(u8),
    /// More than the state machine was ever given.
    AppliedUnknown(u64),
    /// Entries of another place, in answer to the fetch that waits.
    FetchedElsewhere(i8),
    /// More entries than the fetch that waits asked for.
    FetchedTooMuch,
    /// Entries that were fetched before, or never.
    FetchedBefore(u8),
    /// A fetch fails that may be answered or unknown.
    FetchFailed(u8),
    /// A snapshot that was taken before, or of what was never applied.
    SnapshotTaken(i8),
    /// A transfer of a snapshot that may never have begun.
    SnapshotFailed(u8, u8),
    /// The same of one that moves.
    SnapshotProgress(u8, u8),
    /// The clock goes back, by so many milliseconds.
    ClockBack(u16),
}

impl Sim {
    /// The runtime of the node at this place tells its core something beside what is so.
    ///
    /// # Errors
    /// The rule that this broke.
    pub fn confuse(&mut self, place: usize, confusion: Confusion) -> Result<(), Violation> {
        let n = place % self.nodes.len();
        let mut now = self.nodes[n].clock.now(self.agenda.now());
        let node = &self.nodes[n];
        if node.core.is_none() || node.paused_until > self.agenda.now() {
            return Ok(());
        }
        let reported = node.writes.front().map_or(node.issued.0, |(waiting, _)| waiting.0 - 1);
        let applied = node.machine.last.index;
        let waiting = node.fetches.first().map(|(fetch, _)| *fetch);
        let fetched = |fetch: Fetch| Input::Fetched { id: fetch.id, entries: self.read_log(n, &fetch) };
        let (input, refused) = match confusion {
            Confusion::PersistedBefore(back) => {
                (Input::Persisted(WriteId(reported.saturating_sub(u64::from(back)))), Some(false))
            }
            Confusion::PersistedUnknown(ahead) => {
                (Input::Persisted(WriteId(node.issued.0.saturating_add(ahead.max(1)))), Some(true))
            }
            Confusion::AppliedBefore(back) => (Input::Applied(applied.minus(u64::from(back))), Some(false)),
            Confusion::AppliedUnknown(ahead) => {
                let log = self.ghost.members[n].log.last().index;
                (Input::Applied(log.plus(ahead.max(1))), Some(true))
            }
            Confusion::FetchedElsewhere(by) => {
                let Some(fetch) = waiting else { return Ok(()) };
                let first = LogIndex(fetch.first.0.saturating_add_signed(i64::from(by)));
                (fetched(Fetch { first, ..fetch }), Some(false))
            }
            Confusion::FetchedTooMuch => {
                let Some(fetch) = waiting else { return Ok(()) };
                (fetched(Fetch { last: LogIndex(u64::MAX), bytes_max: usize::MAX, ..fetch }), Some(false))
            }
            Confusion::FetchedBefore(fetch) => {
                let (first, last, bytes_max) = (applied.next(), applied.plus(4), usize::MAX);
                (fetched(Fetch { id: FetchId(u64::from(fetch)), first, last, bytes_max }), None)
            }
            Confusion::FetchFailed(fetch) => (Input::FetchFailed { id: FetchId(u64::from(fetch)) }, None),
            Confusion::SnapshotTaken(by) => {
                let index = LogIndex(applied.0.saturating_add_signed(i64::from(by)));
                let Some(term) = self.ghost.members[n].log.term(index) else { return Ok(()) };
                let snapshot = &self.disks[n].durable.snapshot.meta;
                // One between the two would be a new one, whose file is missing.
                if index > snapshot.last.index && index <= applied {
                    return Ok(());
                }
                let last = crate::LogId { term, index };
                let meta = SnapshotMeta { last, ..snapshot.clone() };
                (Input::SnapshotTaken(Box::new(meta)), Some(index > applied))
            }
            Confusion::SnapshotFailed(to, epoch) => {
                let (to, epoch) = (NodeId(u64::from(to)), Epoch(u64::from(epoch)));
                (Input::SnapshotFailed { to, epoch }, Some(false))
            }
            Confusion::SnapshotProgress(to, epoch) => {
                let (to, epoch) = (NodeId(u64::from(to)), Epoch(u64::from(epoch)));
                (Input::SnapshotProgress { to, epoch }, Some(false))
            }
            Confusion::ClockBack(ms) => {
                now.instant.0 = now.instant.0.saturating_sub(u64::from(ms) * 1000);
                (Input::Tick, Some(false))
            }
        };
        self.trace.line(self.agenda.now(), || format!("*** {} {confusion:?}", id(n)));
        let Some(core) = &mut self.nodes[n].core else { return Ok(()) };
        let before = shown(core);
        let outcome = core.handle(now, input);
        let after = shown(core);
        check(refused.is_none_or(|refused| refused == outcome.is_err()), "STEP", || {
            format!("{}: {confusion:?} came to {outcome:?}", id(n))
        })?;
        check(outcome.is_ok() || before == after, "STEP", || {
            format!("{}: {confusion:?} was refused and changed {before:?} to {after:?}", id(n))
        })?;
        self.after_confusion(n, outcome.is_ok())
    }

    fn after_confusion(&mut self, n: usize, taken: bool) -> Checked {
        if taken { self.after_input(n) } else { Ok(()) }
    }
}

fn shown(core: &Raft) -> (crate::Term, Option<NodeId>, RoleKind, LogIndex, crate::LogId) {
    (core.term(), core.vote(), core.role(), core.commit(), core.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Faults, Options, random::Random};

    fn drawn(random: &mut Random) -> Confusion {
        let small = |random: &mut Random| u8::try_from(random.below(6)).unwrap();
        let signed = |random: &mut Random| i8::try_from(random.below(9)).unwrap() - 4;
        match random.below(12) {
            0 => Confusion::PersistedBefore(small(random)),
            1 => Confusion::PersistedUnknown(random.below(3)),
            2 => Confusion::AppliedBefore(small(random)),
            3 => Confusion::AppliedUnknown(random.below(3)),
            4 => Confusion::FetchedElsewhere(signed(random)),
            5 => Confusion::FetchedTooMuch,
            6 => Confusion::FetchedBefore(small(random)),
            7 => Confusion::FetchFailed(small(random)),
            8 => Confusion::SnapshotTaken(signed(random)),
            9 => Confusion::SnapshotFailed(small(random), small(random)),
            10 => Confusion::SnapshotProgress(small(random), small(random)),
            _ => Confusion::ClockBack(100),
        }
    }

    #[test]
    fn a_confused_caller_breaks_no_rule() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut sim = Sim::new(Options { nodes: 3, seed, faults: Faults::Storms });
            for _ in 0..1500 {
                sim.step().unwrap();
                if random.chance(100) {
                    let place = random.index(3);
                    sim.confuse(place, drawn(&mut random)).unwrap();
                }
            }
            sim.run(0).unwrap();
        }
    }
}
