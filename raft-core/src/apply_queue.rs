//! What the state machine gets, exactly once and in order, in pages bounded by bytes (SAFETY N4).

use std::collections::VecDeque;

use crate::{
    Apply, Config, Entries, Entry, Fetch, FetchId, Instant, LogIndex, SnapshotMeta, fetching::Fetching,
    log::Log,
};

/// How far the state machine was fed and how far it got.
///
/// Invariant: `applied <= handed <= commit`; while a restore is missing or waits for its mark nothing else is handed
/// out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ApplyQueue {
    handed: LogIndex,
    applied: LogIndex,
    /// Pages handed out and not yet reported applied: their last index and bytes.
    pages: VecDeque<(LogIndex, usize)>,
    pages_bytes: usize,
    restore: Option<Box<Restore>>,
    /// There is no state to go on from before a restore.
    bereft: bool,
    fetching: Fetching,
    /// Entries that were fetched, from `handed + 1` on.
    fetched: Entries,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Restore {
    meta: SnapshotMeta,
    /// The snapshot's mark is durable.
    marked: bool,
}

impl ApplyQueue {
    /// The state machine starts with everything up to `applied`.
    pub(crate) fn new(applied: LogIndex) -> ApplyQueue {
        ApplyQueue {
            handed: applied,
            applied,
            pages: VecDeque::new(),
            pages_bytes: 0,
            restore: None,
            bereft: false,
            fetching: Fetching::default(),
            fetched: Entries::EMPTY,
        }
    }

    /// The state machine is empty and lacks the snapshot it would start from.
    pub(crate) fn bereft() -> ApplyQueue {
        ApplyQueue { bereft: true, ..ApplyQueue::new(LogIndex::ZERO) }
    }

    pub(crate) fn handed(&self) -> LogIndex {
        self.handed
    }

    pub(crate) fn applied(&self) -> LogIndex {
        self.applied
    }

    /// A received snapshot replaces the state machine once its mark is durable. What was not handed out yet is
    /// covered by it.
    pub(crate) fn restore(&mut self, meta: SnapshotMeta) {
        self.restore = Some(Box::new(Restore { meta, marked: false }));
        self.fetching.done();
        self.fetched = Entries::EMPTY;
    }

    /// Whether a received snapshot waits for its mark, or for being handed out.
    pub(crate) fn has_restore(&self) -> bool {
        self.restore.is_some()
    }

    /// The mark of a received snapshot up to `last` is durable.
    pub(crate) fn marked(&mut self, last: LogIndex) {
        if let Some(restore) = self.restore.as_mut().filter(|restore| restore.meta.last.index <= last) {
            restore.marked = true;
        }
    }

    /// The state machine got up to here; `false` if it was never asked to.
    pub(crate) fn applied_to(&mut self, index: LogIndex) -> bool {
        if index > self.handed {
            return false;
        }
        self.applied = self.applied.max(index);
        while let Some((_, bytes)) = self.pages.pop_front_if(|(last, _)| *last <= index) {
            self.pages_bytes = self.pages_bytes.saturating_sub(bytes);
        }
        true
    }

    /// Takes fetched entries; `false` if `id` is not this queue's request.
    pub(crate) fn take_fetched(&mut self, id: FetchId, entries: Vec<Entry>, log: &Log, now: Instant) -> bool {
        let Some(fetch) = self.fetching.asked(id) else { return false };
        if let Some(entries) = fetch.useful(entries, log) {
            self.fetching.done();
            self.fetched = entries.into();
        } else {
            self.fetching.failed(now);
        }
        true
    }

    /// Notes that a fetch failed; `false` if `id` is not this queue's request.
    pub(crate) fn fetch_failed(&mut self, id: FetchId, now: Instant) -> bool {
        let ours = self.fetching.asked(id).is_some();
        if ours {
            self.fetching.failed(now);
        }
        ours
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.fetching.tick(now);
    }

    /// Since when the entries to be applied next could not be read back.
    pub(crate) fn unreadable_since(&self) -> Option<Instant> {
        self.fetching.failing_since()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.fetching.deadline()
    }

    /// Adds the work that may be handed out now; asks through `fetch` for what is not in memory.
    pub(crate) fn take(
        &mut self,
        commit: LogIndex,
        log: &Log,
        config: &Config,
        now: Instant,
        fetch: &mut impl FnMut(LogIndex, LogIndex, usize) -> Fetch,
        work: &mut Vec<Apply>,
    ) -> Option<Fetch> {
        if let Some(restore) = self.restore.take_if(|restore| restore.marked) {
            if !planted!(RestoreForgotten) {
                self.handed = restore.meta.last.index;
            }
            self.bereft = false;
            self.pages.push_back((self.handed, 0));
            work.push(Apply::Restore(Box::new(restore.meta)));
        }
        if self.restore.is_some() || self.bereft || self.handed >= commit {
            return None;
        }
        while self.handed < commit && (self.pages_bytes < config.unapplied_bytes_max || self.pages.is_empty())
        {
            let first = self.handed.next();
            let page = if self.fetched.is_empty() {
                log.slice_of_run(first, commit, config.apply_bytes_max)
            } else {
                Some(std::mem::take(&mut self.fetched))
            };
            let Some(page) = page else {
                if !self.fetching.is_ready(now) {
                    break;
                }
                let last = commit.min(log.first_in_memory().prev());
                let request = fetch(first, last, config.apply_bytes_max);
                self.fetching.begin(request);
                return Some(request);
            };
            let Some(last) = page.last().map(|entry| entry.id.index) else { break };
            let bytes = page.iter().map(Entry::size_bytes).sum();
            self.handed = last;
            self.pages.push_back((last, bytes));
            self.pages_bytes = self.pages_bytes.saturating_add(bytes);
            work.push(Apply::Entries(page));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfState, LogId, Member, NodeId, Recovered, test_util::entry};

    fn log(entries: u64) -> Log {
        let conf = ConfState::of_voters([(NodeId(1), Member::default())]);
        let mut log = Log::recover(Recovered::fresh(conf)).unwrap();
        for index in 1..=entries {
            log.append(entry(1, index));
        }
        log.seal(usize::MAX);
        log
    }

    fn config(page: usize, unapplied: usize) -> Config {
        Config { apply_bytes_max: page, unapplied_bytes_max: unapplied, ..Config::new(NodeId(1), 1) }
    }

    fn request(first: LogIndex, last: LogIndex, bytes_max: usize) -> Fetch {
        Fetch { id: FetchId(first.0), first, last, bytes_max }
    }

    /// What may be handed out now, and what has to be fetched first.
    fn take(
        queue: &mut ApplyQueue,
        commit: u64,
        log: &Log,
        config: &Config,
        now: Instant,
    ) -> (Vec<Apply>, Option<Fetch>) {
        let mut work = Vec::new();
        let fetch = queue.take(LogIndex(commit), log, config, now, &mut request, &mut work);
        (work, fetch)
    }

    fn indexes(work: &[Apply]) -> Vec<Vec<u64>> {
        let page = |apply: &Apply| match apply {
            Apply::Entries(page) => page.iter().map(|entry| entry.id.index.0).collect(),
            Apply::Restore(meta) => vec![0, meta.last.index.0],
        };
        work.iter().map(page).collect()
    }

    #[test]
    fn pages_keep_to_their_bytes_and_stop_at_a_slow_state_machine() {
        let (log, config) = (log(6), config(130, 200));
        let mut queue = ApplyQueue::new(LogIndex::ZERO);
        let take = |queue: &mut ApplyQueue| take(queue, 6, &log, &config, Instant(0));
        assert_eq!(indexes(&take(&mut queue).0), [vec![1, 2], vec![3, 4]]);
        assert!(take(&mut queue).0.is_empty(), "too much is not applied yet");
        assert!(queue.applied_to(LogIndex(2)));
        assert_eq!(indexes(&take(&mut queue).0), [vec![5, 6]]);
        assert!(!queue.applied_to(LogIndex(7)), "never handed out");
    }

    #[test]
    fn what_is_not_in_memory_is_fetched_once() {
        let mut log = log(4);
        log.trim_tail(LogIndex(2), 0);
        let config = config(1000, 1000);
        let mut queue = ApplyQueue::new(LogIndex::ZERO);
        let (work, fetch) = take(&mut queue, 4, &log, &config, Instant(0));
        let fetch = fetch.unwrap();
        assert_eq!((work.len(), fetch.first, fetch.last), (0, LogIndex(1), LogIndex(2)));
        assert!(take(&mut queue, 4, &log, &config, Instant(0)).1.is_none());
        assert!(!queue.take_fetched(FetchId(9), vec![entry(1, 1)], &log, Instant(0)));
        assert!(queue.take_fetched(fetch.id, vec![entry(1, 1), entry(1, 2)], &log, Instant(0)));
        let (work, _) = take(&mut queue, 4, &log, &config, Instant(0));
        assert_eq!(indexes(&work), [vec![1, 2], vec![3, 4]]);
    }

    #[test]
    fn more_than_was_asked_for_is_not_handed_out() {
        let mut log = log(4);
        log.trim_tail(LogIndex(4), 0);
        let config = config(1000, 1000);
        let mut queue = ApplyQueue::new(LogIndex::ZERO);
        let fetch = take(&mut queue, 2, &log, &config, Instant(0)).1.unwrap();
        let all = (1..=4).map(|index| entry(1, index)).collect();
        assert!(queue.take_fetched(fetch.id, all, &log, Instant(0)));
        assert_eq!(indexes(&take(&mut queue, 2, &log, &config, Instant(0)).0), [vec![1, 2]]);
        assert_eq!(queue.handed(), LogIndex(2), "the others are not committed");
    }

    #[test]
    fn a_wrong_answer_is_a_failure_and_asked_again_later() {
        let mut log = log(4);
        log.trim_tail(LogIndex(4), 0);
        let config = config(1000, 1000);
        let mut queue = ApplyQueue::new(LogIndex::ZERO);
        let fetch = take(&mut queue, 4, &log, &config, Instant(0)).1.unwrap();
        assert!(queue.take_fetched(fetch.id, vec![entry(2, 1)], &log, Instant(0)));
        assert!(take(&mut queue, 4, &log, &config, Instant(0)).1.is_none());
        let later = queue.deadline().unwrap();
        assert!(take(&mut queue, 4, &log, &config, later).1.is_some());
    }

    #[test]
    fn a_restore_waits_for_its_mark_and_entries_wait_for_it() {
        let mut queue = ApplyQueue::new(LogIndex(3));
        let mut log = log(0);
        let meta = SnapshotMeta { last: LogId::new(1, 9), ..log.snapshot().clone() };
        log.reset(meta.clone());
        log.append(entry(1, 10));
        log.seal(usize::MAX);
        queue.restore(meta);
        let config = config(1000, 1000);
        let nothing = take(&mut queue, 10, &log, &config, Instant(0));
        assert_eq!((nothing.0.len(), nothing.1), (0, None), "not even a fetch of what the snapshot covers");
        queue.marked(LogIndex(9));
        let (work, _) = take(&mut queue, 10, &log, &config, Instant(0));
        assert_eq!(indexes(&work), [vec![0, 9], vec![10]]);
    }

    #[test]
    fn a_machine_without_its_snapshot_is_handed_nothing_before_it() {
        let (log, config) = (log(5), config(1000, 1000));
        let mut queue = ApplyQueue::bereft();
        assert!(take(&mut queue, 5, &log, &config, Instant(0)).0.is_empty());
        let meta = SnapshotMeta { last: LogId::new(1, 3), ..SnapshotMeta::default() };
        queue.restore(meta);
        assert!(queue.has_restore());
        queue.marked(LogIndex(3));
        let (work, _) = take(&mut queue, 5, &log, &config, Instant(0));
        assert_eq!(indexes(&work), [vec![0, 3], vec![4, 5]]);
        assert!(!queue.has_restore());
    }

    #[test]
    fn a_pause_after_a_failed_read_ends() {
        let mut log = log(5);
        log.trim_tail(LogIndex(5), 0);
        let (config, mut queue) = (config(1000, 1000), ApplyQueue::new(LogIndex::ZERO));
        let (_, fetch) = take(&mut queue, 5, &log, &config, Instant(0));
        assert!(queue.fetch_failed(fetch.unwrap().id, Instant(0)));
        let until = queue.deadline().unwrap();
        queue.tick(until);
        assert_eq!(queue.deadline(), None, "a deadline in the past would call the caller back for ever");
        assert!(take(&mut queue, 5, &log, &config, until).1.is_some());
    }

    #[test]
    fn no_page_is_added_to_what_reaches_the_bound() {
        let (log, bytes) = (log(5), entry(1, 1).size_bytes());
        let mut queue = ApplyQueue::new(LogIndex::ZERO);
        let (work, _) = take(&mut queue, 5, &log, &config(bytes, 2 * bytes), Instant(0));
        assert_eq!(indexes(&work), [[1], [2]]);
    }
}
