//! What is on disk, what is on its way there, and which messages wait for it.

#[cfg(feature = "model")]
#[path = "model/durability.rs"]
mod model;

use std::collections::VecDeque;

use crate::{Entries, HardState, Instant, LogId, LogIndex, Message, SnapshotMark, Write, WriteId, log::Log};

/// The queue of writes as the core sees it.
///
/// Invariants:
/// - write numbers are consecutive, and writes become durable in their order;
/// - `durable` never covers an entry that was cut off since its write was handed out (SAFETY L7);
/// - a held message leaves only after the write it needs (SAFETY E3, L6), or never; never if what it acknowledges was cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Durability {
    staged: Staged,
    /// Handed out and not yet reported durable, oldest first.
    pending: VecDeque<Pending>,
    issued: WriteId,
    persisted: WriteId,
    /// Everything up to here is on disk as the log has it now.
    durable: LogIndex,
    held: Vec<Held>,
}

/// What the next write will contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Staged {
    hard_state: bool,
    truncate_after: Option<LogIndex>,
    snapshot: Option<Box<SnapshotMark>>,
    /// Entries from here to the end of the log.
    first: Option<LogIndex>,
}

impl Staged {
    fn is_empty(&self) -> bool {
        let Staged { hard_state, truncate_after, snapshot, first } = self;
        !hard_state && truncate_after.is_none() && snapshot.is_none() && first.is_none()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    id: WriteId,
    /// When it was handed out.
    since: Instant,
    hard_state: bool,
    /// The last entry it makes durable; lowered when entries are cut off.
    last: LogIndex,
    mark: Option<Marked>,
}

/// A snapshot mark that became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Marked {
    pub(crate) last: LogId,
    pub(crate) received: bool,
    pub(crate) resets_log: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    needs: WriteId,
    /// What it acknowledges.
    entries: LogIndex,
    message: Message,
}

impl Durability {
    /// Starts with a log that is on disk up to `durable`.
    pub(crate) fn new(durable: LogIndex) -> Durability {
        Durability {
            staged: Staged::default(),
            pending: VecDeque::new(),
            issued: WriteId(0),
            persisted: WriteId(0),
            durable,
            held: Vec::new(),
        }
    }

    /// Everything up to here is on disk.
    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Since when the oldest write is on its way.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.pending.front().map(|pending| pending.since)
    }

    /// Whether term and vote are on disk as they are in memory.
    pub(crate) fn hard_state_is_durable(&self) -> bool {
        self.needs_for_hard_state() <= self.persisted
    }

    /// Term or vote changed. What waited in an older term is dropped: nobody needs it, and an acknowledgement must
    /// not outlive the entries it speaks of (SAFETY L7).
    pub(crate) fn stage_term(&mut self) {
        self.staged.hard_state = true;
        if !planted!(HeldAckSurvivesTerm) {
            self.held.clear();
        }
    }

    /// The vote changed within the term.
    pub(crate) fn stage_vote(&mut self) {
        self.staged.hard_state = true;
    }

    /// Entries from `first` to the end of the log are new.
    pub(crate) fn stage_append(&mut self, first: LogIndex) {
        self.staged.first.get_or_insert(first);
    }

    /// Everything behind `index` was cut off.
    pub(crate) fn stage_truncate(&mut self, index: LogIndex) {
        match self.staged.first {
            // Only entries that no write has seen yet were cut.
            Some(first) if index.next() > first => {}
            Some(first) if index.next() == first => self.staged.first = None,
            Some(_) | None => {
                let cut = self.staged.truncate_after.map_or(index, |earlier| earlier.min(index));
                self.staged.truncate_after = Some(cut).filter(|_| !planted!(CutNotPersisted));
                self.staged.first = None;
            }
        }
        self.clamp(index);
    }

    /// A received snapshot replaces the log. `sure`: how far the old log is known to equal the leader's.
    pub(crate) fn stage_reset(&mut self, mark: SnapshotMark, sure: LogIndex) {
        self.staged = Staged { hard_state: self.staged.hard_state, ..Staged::default() };
        self.staged.snapshot = Some(Box::new(mark));
        self.clamp(sure);
    }

    /// A snapshot of the own state machine is to be noted.
    pub(crate) fn stage_mark(&mut self, mark: SnapshotMark) {
        if self.staged.snapshot.as_ref().is_none_or(|staged| !staged.received) {
            self.staged.snapshot = Some(Box::new(mark));
        }
    }

    /// The write that has to be durable before a message may leave that promises the term it carries, the vote it may
    /// grant, and the log up to `entries`. `None` if it may leave at once.
    pub(crate) fn needed_for(&self, entries: LogIndex) -> Option<WriteId> {
        let needs = self.needs_for_hard_state().max(self.needs_for_entries(entries));
        (needs > self.persisted).then_some(needs)
    }

    /// Holds `message`, which promises the log up to `entries`, until write `needs` is durable.
    pub(crate) fn hold(&mut self, message: Message, needs: WriteId, entries: LogIndex) {
        self.held.push(Held { needs, entries, message });
    }

    /// The next write, if something has to be durable. A changed commit index alone is no reason for one.
    pub(crate) fn take_write(&mut self, hard_state: HardState, log: &Log, now: Instant) -> Option<Write> {
        if self.staged.is_empty() {
            return None;
        }
        let staged = std::mem::take(&mut self.staged);
        let entries = match staged.first {
            // Entries that are not durable stay in memory, so the slice is complete.
            Some(first) => log.slice(first, log.last().index, usize::MAX).unwrap_or_default(),
            None => Entries::EMPTY,
        };
        self.issued = WriteId(self.issued.0.saturating_add(1));
        let reset = staged.snapshot.as_ref().filter(|mark| mark.resets_log).map(|mark| mark.meta.last.index);
        let last = entries.last().map(|entry| entry.id.index).max(reset).unwrap_or_default();
        self.pending.push_back(Pending {
            id: self.issued,
            since: now,
            hard_state: staged.hard_state,
            last,
            mark: staged.snapshot.as_ref().map(|mark| Marked {
                last: mark.meta.last,
                received: mark.received,
                resets_log: mark.resets_log,
            }),
        });
        Some(Write {
            id: self.issued,
            hard_state,
            truncate_after: staged.truncate_after,
            snapshot: staged.snapshot,
            entries,
        })
    }

    /// Whether `id` is a write that was handed out.
    pub(crate) fn was_issued(&self, id: WriteId) -> bool {
        id <= self.issued
    }

    /// Notes that everything up to write `id` is durable. Adds the messages that may leave now to `free`, and tells the
    /// marks that became durable.
    pub(crate) fn persisted(&mut self, id: WriteId, free: &mut Vec<Message>) -> Vec<Marked> {
        let mut marks = Vec::new();
        while let Some(done) = self.pending.pop_front_if(|pending| pending.id <= id) {
            self.durable = self.durable.max(done.last);
            marks.extend(done.mark);
        }
        self.persisted = self.persisted.max(id);
        let may_leave = |held: &mut Held| held.needs <= self.persisted;
        free.extend(self.held.extract_if(.., may_leave).map(|held| held.message));
        marks
    }

    fn clamp(&mut self, index: LogIndex) {
        for pending in &mut self.pending {
            pending.last = if planted!(StaleCompletion) { pending.last } else { pending.last.min(index) };
        }
        self.durable = self.durable.min(index);
        // Within a term only a leader that contradicts itself cuts what it sent (SAFETY L6).
        self.held.retain(|held| held.entries <= index || planted!(HeldAckSurvivesTerm));
    }

    fn next_id(&self) -> WriteId {
        WriteId(self.issued.0.saturating_add(1))
    }

    fn needs_for_hard_state(&self) -> WriteId {
        if planted!(ReplyBeforeHardState) {
            return WriteId(0);
        }
        if self.staged.hard_state {
            return self.next_id();
        }
        self.pending.iter().rev().find(|pending| pending.hard_state).map_or(WriteId(0), |pending| pending.id)
    }

    fn needs_for_entries(&self, index: LogIndex) -> WriteId {
        if index <= self.durable {
            return WriteId(0);
        }
        let pending = self.pending.iter().find(|pending| pending.last >= index);
        pending.map_or(self.next_id(), |pending| pending.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Body, CampaignId, ConfState, Member, NodeId, Recovered, SnapshotMeta, Term, test_util::entry,
    };

    struct Disk {
        log: Log,
        queue: Durability,
    }

    impl Disk {
        fn new() -> Disk {
            let conf = ConfState::of_voters([(NodeId(1), Member::default())]);
            Disk {
                log: Log::recover(Recovered::fresh(conf)).unwrap(),
                queue: Durability::new(LogIndex::ZERO),
            }
        }

        fn append(&mut self, term: u64, index: u64) {
            self.log.append(entry(term, index));
            self.log.seal(usize::MAX);
            self.queue.stage_append(LogIndex(index));
        }

        fn cut(&mut self, index: u64) {
            self.log.truncate_after(LogIndex(index));
            self.queue.stage_truncate(LogIndex(index));
        }

        fn write(&mut self) -> Option<Write> {
            self.queue.take_write(HardState::default(), &self.log, Instant(0))
        }

        fn hold(&mut self, index: u64) -> bool {
            let needs = self.queue.needed_for(LogIndex(index));
            needs.into_iter().for_each(|write| self.queue.hold(message(index), write, LogIndex(index)));
            needs.is_some()
        }

        fn persisted(&mut self, id: u64) -> Vec<u64> {
            let mut free = Vec::new();
            self.queue.persisted(WriteId(id), &mut free);
            free.iter().map(|message| message.term.0).collect()
        }
    }

    /// Told apart by its term.
    fn message(tag: u64) -> Message {
        let body = Body::PreVoteReply { campaign: CampaignId(1), granted: true };
        Message { from: NodeId(1), to: NodeId(2), term: Term(tag), body }
    }

    #[test]
    fn an_acknowledgement_waits_for_the_write_that_covers_it() {
        let mut disk = Disk::new();
        disk.append(1, 1);
        let first = disk.write().unwrap();
        disk.append(1, 2);
        assert!(disk.hold(1) && disk.hold(2), "neither is durable");
        let second = disk.write().unwrap();
        assert_eq!((first.id, second.id), (WriteId(1), WriteId(2)));
        assert_eq!(disk.persisted(1), [1]);
        assert_eq!(disk.queue.durable(), LogIndex(1));
        assert_eq!(disk.persisted(2), [2]);
        assert!(!disk.hold(2), "what is durable leaves at once");
    }

    #[test]
    fn nothing_leaves_before_term_and_vote_are_durable() {
        let mut disk = Disk::new();
        disk.queue.stage_term();
        assert!(disk.hold(0) && !disk.queue.hard_state_is_durable());
        assert!(disk.write().is_some());
        assert!(disk.hold(0));
        assert_eq!(disk.persisted(1), [0, 0]);
        assert!(disk.queue.hard_state_is_durable());
        assert!(disk.write().is_none(), "nothing changed");
    }

    #[test]
    fn the_completion_of_a_cut_suffix_does_not_count() {
        let mut disk = Disk::new();
        for index in 1..=5 {
            disk.append(1, index);
        }
        assert!(disk.write().is_some());
        disk.cut(2);
        disk.append(2, 3);
        let second = disk.write().unwrap();
        assert_eq!((second.truncate_after, second.entries.len()), (Some(LogIndex(2)), 1));
        disk.persisted(1);
        assert_eq!(disk.queue.durable(), LogIndex(2), "3@2 is not on disk yet");
        disk.persisted(2);
        assert_eq!(disk.queue.durable(), LogIndex(3));
    }

    #[test]
    fn an_acknowledgement_of_what_was_cut_never_leaves() {
        let mut disk = Disk::new();
        (1..=5).for_each(|index| disk.append(1, index));
        assert!(disk.write().is_some());
        assert!(disk.hold(5) && disk.hold(2));
        disk.cut(2);
        disk.append(2, 3);
        assert!(disk.write().is_some());
        assert_eq!(disk.persisted(2), [2], "5 are not on disk any more");
    }

    #[test]
    fn entries_cut_before_any_write_saw_them_cost_no_truncation() {
        let mut disk = Disk::new();
        disk.append(1, 1);
        disk.append(1, 2);
        disk.cut(1);
        let write = disk.write().unwrap();
        assert_eq!((write.truncate_after, write.entries.len()), (None, 1));
        disk.append(1, 2);
        disk.cut(1);
        assert!(disk.write().is_none());
        disk.append(2, 2);
        disk.cut(0);
        assert_eq!(disk.write().unwrap().truncate_after, Some(LogIndex(0)));
    }

    #[test]
    fn a_reset_keeps_what_was_sure_and_counts_only_once_durable() {
        let mut disk = Disk::new();
        for index in 1..=5 {
            disk.append(1, index);
        }
        assert!(disk.write().is_some());
        disk.persisted(1);
        let meta = SnapshotMeta { last: LogId::new(2, 9), ..disk.log.snapshot().clone() };
        disk.log.reset(meta.clone());
        disk.queue.stage_reset(SnapshotMark { meta, received: true, resets_log: true }, LogIndex(3));
        assert_eq!(disk.queue.durable(), LogIndex(3));
        assert!(disk.hold(9));
        assert!(disk.write().is_some());
        let mut free = Vec::new();
        let marks = disk.queue.persisted(WriteId(2), &mut free);
        assert_eq!((free.len(), marks.len(), disk.queue.durable()), (1, 1, LogIndex(9)));
    }

    // SAFETY L7.
    #[test]
    fn what_is_held_ends_with_its_term() {
        let mut disk = Disk::new();
        disk.append(1, 1);
        assert!(disk.hold(1));
        disk.queue.stage_term();
        let write = disk.write().unwrap();
        assert!(disk.persisted(write.id.0).is_empty());
    }

    #[test]
    fn a_reset_keeps_the_vote_that_waits_and_a_mark_of_ones_own_does_not_replace_it() {
        let mark = |index, received| SnapshotMark {
            meta: SnapshotMeta { last: LogId::new(1, index), ..SnapshotMeta::default() },
            received,
            resets_log: received,
        };
        let mut disk = Disk::new();
        disk.queue.stage_vote();
        disk.queue.stage_reset(mark(9, true), LogIndex::ZERO);
        assert!(disk.queue.staged.hard_state);
        disk.queue.stage_mark(mark(4, false));
        assert_eq!(disk.queue.staged.snapshot.as_deref(), Some(&mark(9, true)));
    }
}
