//! Reads without asking anybody, by the clock (dissertation 6.4.1; SAFETY R3). Never the default: whoever switches leases
//! on vouches for every member's clock.
//!
//! They are switched on for the whole cluster by an entry of the log, as part of the configuration, so that whoever
//! counts on a promise and whoever gives it agree on it:
//! - **Everybody** who knows of leases gives no vote, and seeks none, until [`Lease::timeout_ms`] has passed since it
//!   last heard a leader. A later term does not end this promise, nor does the death of the leader's process. A node
//!   that restarts does not know when it last heard one: it waits as long from its start. One whose log lost what it had
//!   acknowledged may not even know of the promise: it waits for the longest there can be, [`LEASE_TIMEOUT_MS_MAX`],
//!   or its own election timeout, should a cluster have been founded with a longer promise than can be made later.
//! - **The leader** holds a lease while a majority answered what it *sent* less than that long ago, less what two clocks
//!   may differ by meanwhile. Only who has the configuration in force on disk counts: nobody else knows of the promise.
//! - **A handover** asks for votes in spite of the promise. So the leader gives its lease up before it says the word, and
//!   for the rest of its term: that word may arrive at any time.
//!
//! No vote depends on it that a leader asks what timeouts its peers have: they keep what the entry says, whatever their
//! own settings.

use serde::{Deserialize, Serialize};

use crate::{Instant, LogIndex, leader::Leader, progress::Progress, quorum, shared::Shared};

/// What all members agreed to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// How long nobody votes after having heard a leader, in milliseconds. At most the smallest
    /// [`Config::election_timeout_min_ms`](crate::Config::election_timeout_min_ms) of all voters, or elections wait for it,
    /// and at most [`LEASE_TIMEOUT_MS_MAX`].
    pub timeout_ms: u32,
    /// By how many parts in a million each member's monotonic clock may run fast or slow.
    pub drift_ppm: u32,
}

/// The longest promise there is. A node whose damaged log may have lost the entry that told of leases keeps from voting for
/// so long: it cannot know what it had promised, and its own settings say nothing of it.
pub const LEASE_TIMEOUT_MS_MAX: u32 = 2000;

/// A clock that is off by more than a tenth is broken.
pub const DRIFT_PPM_MAX: u32 = 100_000;

impl Lease {
    /// Whether it can be kept at all.
    pub(crate) fn is_valid(self) -> bool {
        self.timeout_ms > 0 && self.drift_ppm <= DRIFT_PPM_MAX
    }

    /// How long a leader may count on a promise, by its own clock, which may run slow while the voter's runs fast.
    pub(crate) fn length_micros(self) -> u64 {
        let promised = u64::from(self.timeout_ms).saturating_mul(1000);
        if planted!(LeaseIgnoresDrift) {
            return promised;
        }
        let (million, drift) = (1_000_000_u64, u64::from(self.drift_ppm));
        let kept = promised.saturating_mul(million.saturating_sub(drift)) / million.saturating_add(drift);
        // Both clocks show whole microseconds.
        kept.saturating_sub(2)
    }
}

impl Shared {
    /// How long this node keeps from voting after it heard a leader: the longest of what is in force here or may be
    /// elsewhere, for what is not committed may be cut off again.
    pub(crate) fn lease_timeout_ms(&self) -> Option<u64> {
        self.log.leases_since(self.commit).map(|lease| u64::from(lease.timeout_ms)).max()
    }

    /// Until when this node has promised to elect nobody.
    pub(crate) fn bound_until(&self) -> Option<Instant> {
        if planted!(LeasePromiseBroken) {
            return self.unsure_until;
        }
        let promised = self.lease_timeout_ms().zip(self.followed_at);
        let promised = promised.map(|(timeout_ms, at)| at.plus_millis(timeout_ms));
        promised.max(self.unsure_until)
    }

    /// Whether this node has promised to elect nobody now.
    pub(crate) fn is_bound(&self) -> bool {
        self.bound_until().is_some_and(|until| self.now.instant < until)
    }

    /// A node that has just started does not know when it last heard a leader.
    pub(crate) fn bind_after_restart(&mut self) {
        if self.term == crate::Term::ZERO || planted!(VoteAtOnceAfterRestart) {
            return;
        }
        self.followed_at = Some(self.now.instant);
        // The entry that told of leases may be among what was lost (SAFETY D1).
        if self.recovering.is_some() {
            let longest_ms = u64::from(LEASE_TIMEOUT_MS_MAX).max(self.config.election_timeout_min_ms);
            self.unsure_until = Some(self.now.instant.plus_millis(longest_ms));
        }
    }
}

impl Leader {
    /// Until when nobody else can be elected; `None` if that cannot be told.
    pub(crate) fn lease_until(&self, shared: &Shared) -> Option<Instant> {
        let conf = shared.log.conf();
        let (lease, known) = (conf.lease?, shared.log.conf_id().index);
        let handing_over = (self.transfer.is_some() || self.lease_given_up) && !planted!(LeaseKeptInTransfer);
        // A configuration that is not committed may not be the one by which somebody else is elected.
        if handing_over || known > shared.commit {
            return None;
        }
        let own = shared.id();
        let heard = |id| {
            if id == own { Some(shared.now.instant) } else { self.peers.get(&id)?.promised_at(known) }
        };
        let since = quorum::reached(conf, heard).flatten()?;
        Some(since.plus_micros(lease.length_micros()))
    }

    /// Whether a read needs nobody's word.
    pub(crate) fn holds_lease(&self, shared: &Shared) -> bool {
        self.lease_until(shared).is_some_and(|until| shared.now.instant < until)
    }
}

/// Which of a leader's messages a peer has answered, as far as leases need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Promise {
    /// A round that was sent and not answered yet, and when it began: nothing of it left before.
    asked: Option<(crate::Round, Instant)>,
    /// The beginning of the latest round that is known to be answered.
    at: Option<Instant>,
}

impl Promise {
    /// Something of this round leaves.
    pub(crate) fn asked(&mut self, round: crate::Round, began: Instant) {
        self.asked.get_or_insert((round, began));
    }

    /// Something of this round was answered.
    pub(crate) fn answered(&mut self, round: crate::Round, now: Instant) {
        if let Some((_, began)) = self.asked.take_if(|(asked, _)| *asked <= round) {
            self.at = self.at.max(Some(if planted!(LeaseFromReceipt) { now } else { began }));
        }
    }
}

impl Progress {
    /// Since when the peer keeps from voting, at least; `None` if it may not know that it has to: it lacks the
    /// configuration at `known`.
    pub(crate) fn promised_at(&self, known: LogIndex) -> Option<Instant> {
        self.promise.at.filter(|_| self.matched() >= known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Round;

    #[test]
    fn a_lease_is_shorter_than_the_promise_by_what_two_clocks_may_differ() {
        let length = |timeout_ms, drift_ppm| Lease { timeout_ms, drift_ppm }.length_micros();
        assert_eq!(length(500, 0), 499_998);
        assert_eq!(length(500, 20_000), 480_390);
        // The leader's clock slow, the voter's fast: in true time the lease still ends first.
        let (lease, promise) = (480_390.0 / 0.98, 500_000.0 / 1.02);
        assert!(lease < promise, "{lease} {promise}");
    }

    #[test]
    fn a_promise_counts_from_the_beginning_of_the_round_that_was_answered() {
        let mut promise = Promise::default();
        promise.asked(Round(4), Instant(100));
        promise.asked(Round(5), Instant(200));
        promise.answered(Round(3), Instant(210));
        assert_eq!(promise.at, None, "an answer to what was sent before");
        promise.answered(Round(5), Instant(250));
        assert_eq!(
            promise.at,
            Some(Instant(100)),
            "the first that was asked is known to be answered, no more"
        );
        promise.asked(Round(6), Instant(300));
        promise.answered(Round(6), Instant(390));
        assert_eq!(promise.at, Some(Instant(300)));
        promise.answered(Round(6), Instant(500));
        assert_eq!(promise.at, Some(Instant(300)), "an answer that is doubled says nothing new");
    }

    #[test]
    fn a_lease_of_no_time_or_by_broken_clocks_is_none() {
        let valid = |timeout_ms, drift_ppm| Lease { timeout_ms, drift_ppm }.is_valid();
        assert!(valid(1, DRIFT_PPM_MAX));
        assert!(!valid(0, 0) && !valid(1, DRIFT_PPM_MAX + 1));
    }
}
