//! The log as the core sees it: terms of everything, entries of the recent part, configurations, newest snapshot.

use crate::{
    ConfState, Entries, Entry, EntryKind, Lease, LogId, LogIndex, Recovered, SnapshotMeta, StartError, Term,
    Timestamp, membership::Membership, tail::Tail, term_runs::TermRuns,
};

/// Entries and what stands for those that are gone.
///
/// Invariants:
/// - the log starts at or before the newest snapshot's last entry and ends at or behind it (SAFETY L9);
/// - terms never fall along it (SAFETY L4);
/// - the tail, if not empty, ends where the log ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    snapshot: SnapshotMeta,
    runs: TermRuns,
    tail: Tail,
    membership: Membership,
    /// Not less than the time of the last entry.
    time: Timestamp,
}

impl Log {
    /// Takes over what the disk remembered.
    pub(crate) fn recover(recovered: Recovered) -> Result<Log, StartError> {
        let Recovered { snapshot, log_start, last, term_runs, confs, tail: entries, .. } = recovered;
        snapshot.conf.validate().map_err(StartError::Conf)?;
        let runs = TermRuns::recover(log_start, &term_runs, last)
            .ok_or(StartError::Inconsistent("the terms do not cover the log"))?;
        if runs.term_at(snapshot.last.index) != Some(snapshot.last.term) {
            return Err(StartError::Inconsistent("the log does not hold the snapshot's last entry"));
        }
        let mut membership = Membership::new(snapshot.conf_id, snapshot.conf.clone());
        for (id, conf) in confs.into_iter().filter(|(id, _)| id.index > snapshot.last.index) {
            conf.validate().map_err(StartError::Conf)?;
            if id.index <= membership.effective_id().index || runs.term_at(id.index) != Some(id.term) {
                return Err(StartError::Inconsistent("a configuration is not in the log"));
            }
            membership.push(id, conf);
        }
        if entries.is_empty() && last > snapshot.last.index {
            return Err(StartError::Inconsistent("the log's last entry is not in the tail"));
        }
        let mut log = Log { time: snapshot.time, snapshot, runs, tail: Tail::default(), membership };
        let first = last.minus(entries.len() as u64).next();
        for (index, entry) in (first.0..).zip(&entries) {
            let id = LogId { term: entry.id.term, index: LogIndex(index) };
            if entry.id != id || log.runs.term_at(id.index) != Some(id.term) {
                return Err(StartError::Inconsistent("an entry of the tail is not in the log"));
            }
            log.time = log.time.max(entry.time);
        }
        let kept = entries.into_iter().filter(|entry| entry.id.index > log_start.index);
        kept.for_each(|entry| log.tail.push(entry));
        log.tail.seal(RECOVERED_RUN_BYTES);
        Ok(log)
    }

    /// Appends the entry that follows. The caller has checked it; an unreadable configuration is refused on receipt.
    pub(crate) fn append(&mut self, entry: Entry) {
        self.note(&entry);
        self.tail.push(entry);
    }

    /// Appends entries that were received together, as [`append`](Self::append) does one.
    pub(crate) fn append_run(&mut self, entries: Entries) {
        entries.iter().for_each(|entry| self.note(entry));
        self.tail.push_run(entries);
    }

    /// Ends the run of what was appended one by one: only then can it be sliced.
    pub(crate) fn seal(&mut self, bytes_max: usize) {
        self.tail.seal(bytes_max);
    }

    fn note(&mut self, entry: &Entry) {
        debug_assert!(entry.id.term >= self.last().term, "terms never fall along the log (SAFETY L4)");
        self.runs.push(entry.id);
        self.time = self.time.max(entry.time);
        if entry.kind == EntryKind::ConfChange
            && let Ok(conf) = ConfState::decode(&entry.payload)
        {
            self.membership.push(entry.id, conf);
        }
    }

    /// Drops every entry behind `index`, configurations included (SAFETY M2).
    pub(crate) fn truncate_after(&mut self, index: LogIndex) {
        self.runs.truncate_after(index);
        self.tail.truncate_after(index);
        self.membership.truncate_after(index);
    }

    /// Drops everything and starts behind a snapshot (SAFETY N2).
    pub(crate) fn reset(&mut self, meta: SnapshotMeta) {
        self.runs = TermRuns::starting_after(meta.last);
        self.tail = Tail::default();
        self.membership = Membership::new(meta.conf_id, meta.conf.clone());
        self.time = meta.time;
        self.snapshot = meta;
    }

    /// Notes a newer snapshot of the own state machine; the entries stay until [`compact`](Self::compact).
    pub(crate) fn note_snapshot(&mut self, meta: SnapshotMeta) {
        self.membership.compact(meta.last.index);
        self.snapshot = meta;
    }

    /// Drops every entry up to and including `index`, at most up to the snapshot.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        let index = index.min(self.snapshot.last.index);
        self.runs.compact(index);
        self.tail.drop_to(index);
    }

    /// Bytes of the entries in memory.
    pub(crate) fn tail_bytes(&self) -> u64 {
        self.tail.bytes()
    }

    /// Drops entries up to and including `index` from memory, oldest first, while they take more than `bytes_max`.
    pub(crate) fn trim_tail(&mut self, index: LogIndex, bytes_max: u64) {
        self.tail.trim(index, bytes_max);
    }

    /// The last entry; the start if there is none.
    pub(crate) fn last(&self) -> LogId {
        self.runs.last()
    }

    /// The entry before the first one kept.
    pub(crate) fn start(&self) -> LogId {
        self.runs.start()
    }

    pub(crate) fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.runs.term_at(index)
    }

    /// Whether the log has exactly this entry; its start counts (SAFETY L5, E12).
    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.runs.term_at(id.index) == Some(id.term)
    }

    /// See [`TermRuns::latest_not_above`].
    pub(crate) fn latest_not_above(&self, index: LogIndex, term: Term) -> Option<LogId> {
        self.runs.latest_not_above(index, term)
    }

    /// The configuration in force.
    /// Every lease that is in force behind `index`, that of the configuration at `index` included.
    pub(crate) fn leases_since(&self, index: LogIndex) -> impl Iterator<Item = Lease> {
        self.membership.since(index).filter_map(|conf| conf.lease)
    }

    pub(crate) fn conf(&self) -> &ConfState {
        self.membership.effective()
    }

    pub(crate) fn conf_id(&self) -> LogId {
        self.membership.effective_id()
    }

    /// The configuration that was in force at `index`, which lies at or behind the snapshot.
    pub(crate) fn conf_at(&self, index: LogIndex) -> (LogId, &ConfState) {
        self.membership.at(index)
    }

    /// Replicated time at the end of the log, or later.
    pub(crate) fn time(&self) -> Timestamp {
        self.time
    }

    /// Whether the entry is in memory.
    pub(crate) fn in_memory(&self, index: LogIndex) -> bool {
        self.tail.entry(index).is_some()
    }

    /// The first index in memory, or the one behind the end.
    pub(crate) fn first_in_memory(&self) -> LogIndex {
        self.tail.first().unwrap_or_else(|| self.last().index.next())
    }

    /// See [`Tail::slice`].
    pub(crate) fn slice(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Entries> {
        self.tail.slice(first, last, bytes_max)
    }

    /// See [`Tail::slice_of_run`].
    pub(crate) fn slice_of_run(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Entries> {
        self.tail.slice_of_run(first, last, bytes_max)
    }

    /// Bytes of the entries from `first` on, as far as they are in memory.
    pub(crate) fn bytes_from(&self, first: LogIndex) -> u64 {
        self.tail.bytes_from(first)
    }

    /// Whether fetched entries are those asked for: consecutive from `first` on and of the right terms.
    pub(crate) fn holds_all(&self, first: LogIndex, entries: &[Entry]) -> bool {
        (first.0..).zip(entries).all(|(index, entry)| entry.id.index.0 == index && self.holds(entry.id))
    }

    /// Whether the tail ends where the log does.
    pub(crate) fn tail_is_in_place(&self) -> bool {
        self.tail.back().is_none_or(|entry| entry.id == self.last())
            && self.tail.first().is_none_or(|first| first > self.start().index)
    }
}

/// The runs of what was read from disk at the start: small, so that the oldest soon give their memory back.
const RECOVERED_RUN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Member, NodeId, TermRun, test_util::entry};

    fn recovered() -> Recovered {
        let conf = ConfState::of_voters([(NodeId(1), Member::default())]);
        Recovered {
            snapshot: SnapshotMeta { last: LogId::new(1, 4), conf, ..SnapshotMeta::default() },
            log_start: LogId::new(1, 2),
            last: LogIndex(6),
            term_runs: vec![
                TermRun { first: LogIndex(3), term: Term(1) },
                TermRun { first: LogIndex(6), term: Term(3) },
            ],
            tail: vec![entry(1, 5), entry(3, 6)],
            ..Recovered::default()
        }
    }

    #[test]
    fn a_log_that_trails_behind_its_snapshot_is_recovered() {
        let log = Log::recover(recovered()).unwrap();
        assert_eq!((log.start(), log.last()), (LogId::new(1, 2), LogId::new(3, 6)));
        assert!(log.holds(LogId::new(1, 5)) && !log.holds(LogId::new(3, 5)));
        assert!(log.in_memory(LogIndex(5)) && !log.in_memory(LogIndex(4)));
        assert!(log.tail_is_in_place());
    }

    #[test]
    fn contradictions_of_the_disk_are_refused() {
        let refused = |change: fn(&mut Recovered)| {
            let mut changed = recovered();
            change(&mut changed);
            assert!(Log::recover(changed).is_err());
        };
        refused(|r| r.snapshot.last = LogId::new(2, 4));
        refused(|r| r.snapshot.last = LogId::new(3, 7));
        refused(|r| r.last = LogIndex(5));
        refused(|r| r.tail = vec![entry(1, 5)]);
        refused(|r| r.tail = Vec::new());
        refused(|r| r.snapshot.conf = ConfState::default());
        refused(|r| r.confs = vec![(LogId::new(2, 5), r.snapshot.conf.clone())]);
    }

    #[test]
    fn a_tail_out_of_its_place_is_noticed_at_either_end() {
        let mut log = Log::recover(recovered()).unwrap();
        log.tail.push(entry(3, 7));
        assert!(!log.tail_is_in_place(), "it goes on where the log ends");
        let mut log = Log::recover(recovered()).unwrap();
        log.runs.compact(LogIndex(5));
        assert!(!log.tail_is_in_place(), "it begins before the log does");
    }

    #[test]
    fn a_reset_leaves_nothing_of_the_old_log() {
        let mut log = Log::recover(recovered()).unwrap();
        let meta = SnapshotMeta { last: LogId::new(4, 20), ..recovered().snapshot };
        log.reset(meta);
        assert_eq!((log.start(), log.last()), (LogId::new(4, 20), LogId::new(4, 20)));
        assert!(!log.in_memory(LogIndex(6)));
        log.append(entry(4, 21));
        assert_eq!(log.last(), LogId::new(4, 21));
    }

    #[test]
    fn a_tail_that_is_not_of_the_log_is_refused() {
        let with = |tail| Log::recover(Recovered { tail, ..recovered() }).is_ok();
        assert!(with(vec![entry(1, 5), entry(3, 6)]));
        assert!(!with(vec![entry(3, 5), entry(3, 6)]), "of another term than the log says");
        assert!(!with(vec![entry(1, 4), entry(3, 6)]), "with a gap");
    }

    #[test]
    fn what_a_log_begins_behind_is_not_kept_in_memory() {
        let tail = vec![entry(1, 2), entry(1, 3), entry(1, 4), entry(1, 5), entry(3, 6)];
        let log = Log::recover(Recovered { tail, ..recovered() }).unwrap();
        assert!(!log.in_memory(LogIndex(2)) && log.in_memory(LogIndex(3)));
        assert!(log.tail_is_in_place());
        let two = (entry(1, 5).size_bytes() + entry(3, 6).size_bytes()) as u64;
        assert_eq!(log.bytes_from(LogIndex(5)), two);
    }
}
