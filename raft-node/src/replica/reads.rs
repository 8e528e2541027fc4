//! Linearizable reads on their way: gathered, asked about, confirmed.

use std::collections::BTreeMap;

use raft_core::{Instant, LogIndex, ReadToken};

/// Reads that have not reached the applier. Those gathered between two calls of `take_effects` share one token.
#[derive(Debug)]
pub(super) struct Reads<R> {
    gathered: Vec<(R, Instant)>,
    /// Their index is being asked for.
    asked: BTreeMap<ReadToken, Vec<(R, Instant)>>,
    /// Their index is known, and what leads there is not handed to the applier yet.
    confirmed: BTreeMap<LogIndex, Vec<(R, Instant)>>,
    count: usize,
    tokens: u64,
}

impl<R> Default for Reads<R> {
    fn default() -> Reads<R> {
        Reads {
            gathered: Vec::new(),
            asked: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            count: 0,
            tokens: 0,
        }
    }
}

impl<R> Reads<R> {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn gather(&mut self, read: R, since: Instant) {
        self.count += 1;
        self.gathered.push((read, since));
    }

    /// A token for what is gathered; `None` if there is nothing.
    pub(super) fn next_token(&self) -> Option<ReadToken> {
        (!self.gathered.is_empty()).then_some(ReadToken(self.tokens + 1))
    }

    /// The core took the token.
    pub(super) fn asked(&mut self) {
        self.tokens += 1;
        let gathered = std::mem::take(&mut self.gathered);
        self.asked.insert(ReadToken(self.tokens), gathered);
    }

    pub(super) fn take_gathered(&mut self) -> Vec<(R, Instant)> {
        self.count -= self.gathered.len();
        std::mem::take(&mut self.gathered)
    }

    /// The core answered; returns the reads that could not be confirmed.
    pub(super) fn answered(&mut self, token: ReadToken, index: Option<LogIndex>) -> Vec<(R, Instant)> {
        let Some(reads) = self.asked.remove(&token) else { return Vec::new() };
        if let Some(index) = index {
            self.confirmed.entry(index).or_default().extend(reads);
            return Vec::new();
        }
        self.count -= reads.len();
        reads
    }

    /// Takes out, in order of their indexes, the reads for which everything up to `handed_out` is enough.
    pub(super) fn take_confirmed(&mut self, handed_out: LogIndex) -> impl Iterator<Item = Vec<R>> {
        std::iter::from_fn(move || {
            let entry = self.confirmed.first_entry().filter(|entry| *entry.key() <= handed_out)?;
            let reads: Vec<R> = entry.remove().into_iter().map(|(read, _)| read).collect();
            self.count -= reads.len();
            Some(reads)
        })
    }

    /// Since when the reads of the lowest confirmed index have been waiting: a higher index was confirmed later.
    pub(super) fn oldest_confirmed(&self) -> Option<Instant> {
        self.confirmed.values().next().and_then(|reads| reads.first()).map(|(_, since)| *since)
    }

    /// Takes out confirmed reads that have waited too long.
    pub(super) fn expire_confirmed(&mut self, too_long: impl Fn(Instant) -> bool) -> Vec<R> {
        let mut expired = Vec::new();
        while self.oldest_confirmed().is_some_and(&too_long)
            && let Some((_, reads)) = self.confirmed.pop_first()
        {
            self.count -= reads.len();
            expired.extend(reads.into_iter().map(|(read, _)| read));
        }
        expired
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<R> {
        self.count = 0;
        let asked = std::mem::take(&mut self.asked).into_values().flatten();
        let confirmed = std::mem::take(&mut self.confirmed).into_values().flatten();
        let all = std::mem::take(&mut self.gathered).into_iter().chain(asked).chain(confirmed);
        all.map(|(read, _)| read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(reads: &[(u64, &'static str)]) -> Reads<&'static str> {
        let mut all = Reads::default();
        for &(index, read) in reads {
            all.gather(read, Instant(index));
            let token = all.next_token().unwrap();
            all.asked();
            assert!(all.answered(token, Some(LogIndex(index))).is_empty());
        }
        all
    }

    #[test]
    fn reads_count_until_the_applier_has_them() {
        let mut reads = confirmed(&[(4, "a"), (4, "b"), (6, "c")]);
        assert_eq!(reads.count(), 3);
        assert_eq!(reads.take_confirmed(LogIndex(5)).collect::<Vec<_>>(), [["a", "b"]]);
        assert_eq!(reads.count(), 1);
        assert_eq!(reads.drain(), ["c"]);
    }

    #[test]
    fn what_cannot_be_confirmed_comes_back_with_its_age() {
        let mut reads = Reads::default();
        reads.gather("a", Instant(3));
        let token = reads.next_token().unwrap();
        reads.asked();
        assert_eq!(reads.answered(token, None), [("a", Instant(3))]);
        assert_eq!(reads.count(), 0);
        assert!(reads.answered(token, Some(LogIndex(1))).is_empty(), "answered twice");
    }

    #[test]
    fn a_confirmed_read_does_not_wait_for_ever() {
        let mut reads = confirmed(&[(4, "a"), (9, "b")]);
        assert!(reads.expire_confirmed(|since| since < Instant(4)).is_empty());
        assert_eq!(reads.expire_confirmed(|since| since < Instant(9)), ["a"]);
        assert_eq!(reads.oldest_confirmed(), Some(Instant(9)));
    }
}
