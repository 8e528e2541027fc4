//! The newtypes everything else is spelled in. Arithmetic on them lives here and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A member of the cluster. Zero is no valid id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// One of the Raft groups that share a process, its log and its connections. Only [`GroupId::ROOT`] exists today;
/// frames and records carry the field so that sharding needs no new format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The only group of this release.
    pub const ROOT: GroupId = GroupId(0);
}

/// The random id a cluster gets when it is founded. It is never reused, so a straggler of another cluster is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

/// The random id of one data directory. A member whose directory was wiped comes back with another one and is not
/// taken for the voter it was (SAFETY D2, D3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Not known yet: a member added by address that has not introduced itself.
    pub const UNKNOWN: Incarnation = Incarnation(0);

    /// Whether both are known and differ.
    #[must_use]
    pub fn is_other(self, than: Incarnation) -> bool {
        self != Incarnation::UNKNOWN && than != Incarnation::UNKNOWN && self != than
    }
}

/// Counts the opens of one data directory, made durable before anything is sent. Two live processes that show the
/// same number are copies of one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StartNumber(pub u64);

/// A term of office: at most one leader is elected in each (dissertation 3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// Before any election. No leader, vote, message or entry has it, except the empty log's sentinel.
    pub const ZERO: Term = Term(0);
    /// Never reached: a message that claims it is refused, so that `next` cannot overflow (SAFETY E13).
    pub const MAX: Term = Term(u64::MAX);

    /// The term that follows. Saturates at [`Term::MAX`], which no valid message carries.
    #[must_use]
    pub const fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

/// The place of an entry in the log. The first entry has index 1; 0 stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The place before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);

    /// The index that follows. Saturates, so that a hostile index cannot overflow.
    #[must_use]
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0.saturating_add(1))
    }

    /// The index before; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// `count` places further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> LogIndex {
        LogIndex(self.0.saturating_add(count))
    }

    /// `count` places back, at least zero.
    #[must_use]
    pub const fn minus(self, count: u64) -> LogIndex {
        LogIndex(self.0.saturating_sub(count))
    }

    /// How many entries lie in `earlier+1..=self`; zero if there are none.
    #[must_use]
    pub const fn distance(self, earlier: LogIndex) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names one entry of one leader. Ordered by term, then index: the order of the log test (dissertation 3.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The term of the leader that made the entry.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
}

impl LogId {
    /// Before the first entry of any log: always matches (SAFETY E12).
    pub const ZERO: LogId = LogId { term: Term::ZERO, index: LogIndex::ZERO };

    /// Shorthand.
    #[must_use]
    pub const fn new(term: u64, index: u64) -> LogId {
        LogId { term: Term(term), index: LogIndex(index) }
    }
}

/// Replicated time: milliseconds since the Unix epoch as the leader stamped them. Never goes back along the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A moment on the caller's monotonic clock, in microseconds since any fixed point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// `millis` later.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Instant {
        Instant(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// `micros` later.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Instant {
        Instant(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, zero if it lies ahead.
    #[must_use]
    pub const fn micros_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the caller's two clocks show at an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// Monotonic: drives every timeout.
    pub instant: Instant,
    /// Wall clock: only a leader looks at it, to stamp entries. Safety never depends on it.
    pub wall: Timestamp,
}

/// Numbers the writes handed to the log, from 1 in each run, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Numbers a leader's confirmations of its leadership. A reply that echoes round r proves that its sender followed
/// this leader after r began: ReadIndex, check-quorum and leases all rest on it (dissertation 6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Round(pub u64);

/// Tells one campaign of a node from its earlier ones in the same term, so that late votes are not counted (SAFETY E7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CampaignId(pub u64);

/// Tells one life of a leader's knowledge about a peer from the next (SAFETY P4): replies of an older one are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for StartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    /// `index@term`, as the scenario scripts write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_order_by_term_first() {
        assert!(LogId::new(2, 1) > LogId::new(1, 9));
        assert!(LogId::new(2, 2) > LogId::new(2, 1));
    }

    #[test]
    fn ids_print_in_full() {
        assert_eq!(ClusterId(0xAB).to_string(), "000000000000000000000000000000ab");
        assert_eq!(Incarnation(0xAB).to_string(), "00000000000000ab");
        assert_eq!(StartNumber(7).to_string(), "7");
        assert_eq!(LogId::new(3, 17).to_string(), "17@3");
    }

    #[test]
    fn indexes_never_overflow() {
        assert_eq!(LogIndex(u64::MAX).next(), LogIndex(u64::MAX));
        assert_eq!(LogIndex::ZERO.prev(), LogIndex::ZERO);
        assert_eq!(LogIndex(3).distance(LogIndex(7)), 0);
    }

    #[test]
    fn an_incarnation_is_another_only_if_both_are_known() {
        let (unknown, one, two) = (Incarnation::UNKNOWN, Incarnation(1), Incarnation(2));
        assert!(one.is_other(two));
        assert!(!one.is_other(one) && !one.is_other(unknown) && !unknown.is_other(one));
    }
}
