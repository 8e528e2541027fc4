//! What a leader knows of one peer (SAFETY P1 to P7).

#[cfg(feature = "model")]
#[path = "model/progress.rs"]
mod model;

use std::collections::VecDeque;

use crate::{
    Config, Epoch, Incarnation, Instant, LogIndex, Round, StartNumber, catch_up::CatchUp, fetching::Fetching,
    lease::Promise,
};

/// A peer as its leader sees it.
///
/// Invariant: `matched < next`; `matched` never decreases within an epoch (SAFETY P1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    /// The peer's log equals ours up to here, durably.
    matched: LogIndex,
    /// The next entry to send.
    next: LogIndex,
    state: ProgressState,
    /// The data directory it was admitted with.
    pub(crate) incarnation: Incarnation,
    /// How fast it follows, for the day it gets a vote.
    pub(crate) rounds: CatchUp,
    /// Answers of another epoch are dropped (SAFETY P4).
    pub(crate) epoch: Epoch,
    /// The last valid answer.
    pub(crate) heard_at: Instant,
    /// The last append or heartbeat.
    pub(crate) sent_at: Instant,
    /// The first append or heartbeat since the last valid answer.
    asked_at: Option<Instant>,
    /// The last append.
    appended_at: Instant,
    /// Appends since the last valid answer.
    unheard: u32,
    /// When to ask once more, early, for an answer that should be here by then.
    follow_up_at: Option<Instant>,
    /// Unless something else is sent to it before, it is not told of the new leader until then.
    pub(crate) greet_at: Option<Instant>,
    /// It has not been seen since the election: only heartbeats look for it.
    absent: bool,
    /// What is in flight is late: an empty append behind it tells whether it arrived.
    verify: bool,
    /// The latest round it answered.
    pub(crate) acked_round: Round,
    /// Since when it keeps from voting, where leases are on (SAFETY R3).
    pub(crate) promise: Promise,
    /// The highest commit index it was told in a message that let it use it.
    pub(crate) commit_told: LogIndex,
    /// An acknowledgement came: one append may go out although others are in flight.
    pub(crate) released: bool,
    /// It proved that it lost what it had acknowledged: nothing more is sent to this epoch (SAFETY P5).
    pub(crate) regressed: bool,
    /// The run of the peer that told of damage to its log; zero if none did (SAFETY D1).
    pub(crate) refilled: StartNumber,
    /// A snapshot in the place of a damaged one of the peer's.
    pub(crate) replacing: Option<Replacing>,
    /// The last entry of the furthest snapshot that left for it. Whoever replaces a log by that speaks of less than it had
    /// until the snapshot's mark is on its disk.
    pub(crate) offered: LogIndex,
    /// When it last had let a word to take over pass.
    pub(crate) declined_at: Option<Instant>,
    /// The round of the latest heartbeat, and `matched` when it left.
    pub(crate) checked: (Round, LogIndex),
    /// Its wall clock minus ours, in milliseconds, when it last answered a heartbeat.
    pub(crate) clock_offset_ms: i64,
    /// Entries that are no longer in memory are on their way from the log.
    pub(crate) fetching: Fetching,
    /// What is in flight counts as lost if nothing of it is acknowledged until then.
    retry_at: Option<Instant>,
    /// Since when it owes an acknowledgement of entries.
    owes_since: Option<Instant>,
    /// Losses in a row.
    losses: u32,
}

/// A snapshot that a peer asked for because its own is damaged. Entries are sent beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Replacing {
    /// The run of the peer that asked.
    pub(crate) run: StartNumber,
    /// Until when it is being seen to.
    pub(crate) until: Instant,
    /// Of the snapshot that left; `None` while a new one is taken.
    pub(crate) attempt: Option<Epoch>,
}

/// How entries are sent to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProgressState {
    /// One append at a time, until the follower's log is located.
    Probe {
        /// One is on its way.
        waiting: bool,
    },
    /// Appends are pipelined; each is kept until acknowledged.
    Replicate {
        /// Last index and bytes of each, oldest first.
        in_flight: VecDeque<(LogIndex, usize)>,
    },
    /// A snapshot is on its way; appends wait (SAFETY P7).
    Snapshot {
        /// Its last entry.
        pending: LogIndex,
        /// When to give up.
        deadline: Instant,
        /// An acknowledgement must reach this far: the entry there cannot be read back.
        past: LogIndex,
    },
}

impl Progress {
    /// A peer of which nothing is known but that it may be as far as we are.
    pub(crate) fn new(next: LogIndex, epoch: Epoch, now: Instant) -> Progress {
        Progress {
            matched: LogIndex::ZERO,
            next: next.max(LogIndex(1)),
            state: ProgressState::Probe { waiting: false },
            incarnation: Incarnation::UNKNOWN,
            rounds: CatchUp::new(next.prev(), now),
            epoch,
            // A new leader gives everybody one election timeout to answer.
            heard_at: now,
            sent_at: Instant(0),
            asked_at: None,
            appended_at: Instant(0),
            unheard: 0,
            follow_up_at: None,
            greet_at: None,
            absent: false,
            verify: false,
            acked_round: Round(0),
            promise: Promise::default(),
            commit_told: LogIndex::ZERO,
            released: false,
            regressed: false,
            refilled: StartNumber(0),
            replacing: None,
            offered: LogIndex::ZERO,
            declined_at: None,
            checked: (Round(0), LogIndex::ZERO),
            clock_offset_ms: 0,
            fetching: Fetching::default(),
            retry_at: None,
            owes_since: None,
            losses: 0,
        }
    }

    pub(crate) fn owes_since(&self) -> Option<Instant> {
        self.owes_since
    }

    pub(crate) fn matched(&self) -> LogIndex {
        self.matched
    }

    pub(crate) fn next(&self) -> LogIndex {
        self.next
    }

    pub(crate) fn state(&self) -> &ProgressState {
        &self.state
    }

    /// It did not answer in the election: only heartbeats look for it, until it is seen.
    pub(crate) fn is_absent(&mut self, now: Instant) {
        self.absent = true;
        self.sent_at = now;
    }

    /// It voted for this leader: it need not hear of it at once.
    pub(crate) fn greet_after(&mut self, config: &Config, now: Instant) {
        self.greet_at = (config.greeting_delay_ms > 0).then(|| now.plus_millis(config.greeting_delay_ms));
    }

    /// A heartbeat leaves.
    pub(crate) fn asked(&mut self, config: &Config, now: Instant) {
        self.greet_at = None;
        self.sent_at = now;
        self.asked_at.get_or_insert(now);
        if !self.is_silent(config, now) {
            self.follow_up_at = Some(now.plus_millis(config.heartbeat_ms / 4));
        }
    }

    pub(crate) fn follow_up_at(&self) -> Option<Instant> {
        self.follow_up_at
    }

    /// An answer is late enough to ask for it once more, before the next heartbeat would. Whether a heartbeat does
    /// it; an append is followed by another. The one that follows a probe begins where the logs surely agree, if that is
    /// still `held`: instead of the lost question it brings what no answer is needed for.
    pub(crate) fn follow_up(&mut self, held: bool) -> bool {
        self.follow_up_at = None;
        let append = self.retry_at.is_some() && self.unheard < UNHEARD_MAX;
        let guess =
            self.next > self.matched.next() && self.matched > LogIndex::ZERO && !self.is_replicating();
        if append && guess && held {
            self.probe(self.matched.next());
        } else {
            self.verify = append;
        }
        !append
    }

    /// What was sent last is a follow-up itself.
    pub(crate) fn followed_up(&mut self) {
        self.follow_up_at = None;
    }

    /// A valid answer came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked_at = None;
        self.unheard = 0;
        self.follow_up_at.take_if(|_| self.retry_at.is_none());
    }

    /// It is there after all. Whether that was unknown.
    pub(crate) fn appears(&mut self) -> bool {
        std::mem::take(&mut self.absent)
    }

    /// A message came from it. One that voted for this leader still need not hear of it at once.
    pub(crate) fn seen(&mut self, voted: bool) {
        self.absent = false;
        self.greet_at.take_if(|_| !voted);
    }

    /// Whether it left a heartbeat without an answer.
    pub(crate) fn is_silent(&self, config: &Config, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| at.plus_millis(config.heartbeat_ms) <= now)
    }

    /// Whether it has answered everything that was sent to it, and knows of this leader.
    pub(crate) fn is_attentive(&self) -> bool {
        self.asked_at.is_none() && !self.absent && self.greet_at.is_none()
    }

    /// Whether what is in flight takes longer than it should.
    pub(crate) fn is_slow(&self, config: &Config, now: Instant) -> bool {
        let waited_ms = self.retry_ms(config).saturating_sub(config.heartbeat_ms / 2);
        self.retry_at.is_some_and(|at| at <= now.plus_millis(waited_ms))
    }

    /// Asks for an empty append behind what is in flight: it is refused if that was lost. No entry is sent twice.
    pub(crate) fn verify(&mut self) {
        self.verify = true;
    }

    /// Whether such an append is to leave now.
    pub(crate) fn take_verify(&mut self) -> bool {
        let wanted = std::mem::take(&mut self.verify) && !planted!(LossNotRepeated);
        wanted && !self.regressed && self.retry_at.is_some()
    }

    /// Whether an append may go out, given that `waiting_bytes` wait to be sent: at once if nothing is in flight;
    /// otherwise the batch grows until it is worth a message or an acknowledgement comes.
    pub(crate) fn may_send(&self, waiting_bytes: u64, config: &Config, now: Instant) -> bool {
        match &self.state {
            _ if self.regressed || self.absent => false,
            ProgressState::Probe { waiting } => !waiting,
            ProgressState::Snapshot { .. } => false,
            ProgressState::Replicate { in_flight } => {
                let bytes: usize = in_flight.iter().map(|(_, bytes)| bytes).sum();
                let full =
                    in_flight.len() >= config.inflight_messages_max || bytes >= config.inflight_bytes_max;
                let worth = waiting_bytes >= config.append_bytes_max as u64;
                // An acknowledgement that takes its time may be lost: it does not hold up everything behind it.
                let slow = self.appended_at.plus_millis(config.heartbeat_ms / 4) <= now
                    && self.unheard < UNHEARD_MAX;
                let may = in_flight.is_empty() || self.released || worth || slow;
                waiting_bytes > 0 && !full && may
            }
        }
    }

    /// Whether entries are sent to it one append after the other.
    pub(crate) fn is_replicating(&self) -> bool {
        matches!(self.state, ProgressState::Replicate { .. })
    }

    /// An append of `bytes` up to `last` left, or an empty one if `last` is before `next`.
    pub(crate) fn sent(&mut self, last: LogIndex, bytes: usize, config: &Config, now: Instant) {
        self.asked(config, now);
        self.appended_at = now;
        self.unheard = self.unheard.saturating_add(1);
        self.released = false;
        if last > self.matched {
            self.owes_since.get_or_insert(now);
        }
        match &mut self.state {
            ProgressState::Probe { waiting } => *waiting = true,
            ProgressState::Replicate { in_flight } => {
                if last >= self.next {
                    in_flight.push_back((last, bytes));
                    self.next = last.next();
                }
            }
            ProgressState::Snapshot { .. } => {}
        }
        if self.retry_at.is_none() {
            self.retry_at = Some(now.plus_millis(self.retry_ms(config)));
        }
    }

    /// The peer has everything up to `index`. Acknowledgements count in any order (SAFETY P2). Returns whether this
    /// was news.
    pub(crate) fn advance(&mut self, index: LogIndex, config: &Config, now: Instant) -> bool {
        if index <= self.matched && !planted!(LateSuccessLowersMatch) {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.losses = 0;
        let retry_ms = self.retry_ms(config);
        // A probe that waits keeps its own deadline: it is not answered by this.
        if let ProgressState::Replicate { in_flight } = &mut self.state {
            while in_flight.pop_front_if(|(last, _)| *last <= index).is_some() {
                self.released = true;
            }
            self.retry_at = (!in_flight.is_empty()).then(|| now.plus_millis(retry_ms));
            self.follow_up_at.take_if(|_| in_flight.is_empty());
        }
        // What it just acknowledged shows that its disk works.
        self.owes_since = self.retry_at.map(|_| now);
        true
    }

    /// The peer's log is located: from now on appends are pipelined.
    pub(crate) fn replicate(&mut self) {
        self.next = self.matched.next();
        self.state = ProgressState::Replicate { in_flight: VecDeque::new() };
        self.retry_at = None;
        self.owes_since = None;
        self.follow_up_at = None;
        self.fetching.cancel();
    }

    /// Looks for the peer's end anew from `next` on; what was in flight no longer counts (SAFETY P3, P6).
    pub(crate) fn probe(&mut self, next: LogIndex) {
        if planted!(RejectionLowersMatch) {
            self.matched = self.matched.min(next.prev());
        }
        self.next = next.max(self.matched.next());
        self.state = ProgressState::Probe { waiting: false };
        self.retry_at = None;
        self.released = false;
        self.fetching.cancel();
    }

    /// A snapshot up to `pending` left. Each attempt is an epoch of its own: it cannot be taken for another.
    pub(crate) fn snapshot(&mut self, pending: LogIndex, deadline: Instant, attempt: Epoch) {
        let past = if self.fetching.keeps_failing() { self.next } else { LogIndex::ZERO };
        self.epoch = attempt;
        self.offered = self.offered.max(pending);
        self.state = ProgressState::Snapshot { pending, deadline, past };
        self.retry_at = None;
        // What the snapshot does not bring may be readable by then: the log is asked first each time.
        self.fetching.done();
    }

    /// The snapshot of this attempt moves: there is time until then again.
    pub(crate) fn snapshot_moves(&mut self, attempt: Epoch, until: Instant) {
        if let ProgressState::Snapshot { deadline, .. } = &mut self.state
            && self.epoch == attempt
        {
            *deadline = until;
        } else if let Some(replacing) = &mut self.replacing
            && replacing.attempt == Some(attempt)
        {
            replacing.until = until;
        }
    }

    /// Whether what is in flight has to be taken for lost, now that the peer was heard and acknowledged none of it.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now) && !planted!(LossNotRepeated)
    }

    /// Sends what was lost again, each time more patiently (SAFETY V7).
    pub(crate) fn lost(&mut self) {
        let next = match self.state {
            // A lost probe is repeated where it was.
            ProgressState::Probe { .. } => self.next,
            ProgressState::Replicate { .. } | ProgressState::Snapshot { .. } => self.matched.next(),
        };
        self.losses = self.losses.saturating_add(1);
        self.probe(next);
    }

    /// Forgets what the peer acknowledged: its run `start` lost some of it (SAFETY D1). It still follows.
    pub(crate) fn reopen(&mut self, start: StartNumber, next: LogIndex, epoch: Epoch) {
        let fresh = Progress::new(next, epoch, self.heard_at);
        let Progress { incarnation, sent_at, acked_round, clock_offset_ms, offered, .. } = *self;
        *self = Progress {
            incarnation,
            sent_at,
            acked_round,
            clock_offset_ms,
            offered,
            refilled: start,
            ..fresh
        };
    }

    /// Pauses after a failed snapshot: nothing is sent before `retry_ms` is over.
    pub(crate) fn pause(&mut self, config: &Config, now: Instant) {
        self.losses = self.losses.saturating_add(1);
        self.probe(self.matched.next());
        self.state = ProgressState::Probe { waiting: true };
        self.retry_at = Some(now.plus_millis(self.retry_ms(config)));
    }

    fn retry_ms(&self, config: &Config) -> u64 {
        config.heartbeat_ms.saturating_mul(2) << self.losses.min(LOSS_DOUBLINGS_MAX)
    }
}

const LOSS_DOUBLINGS_MAX: u32 = 4;
/// Appends to a peer that answers none of them; then only heartbeats look for it.
const UNHEARD_MAX: u32 = 2;

/// What a leader knows of one peer, for status pages and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerStatus {
    /// The peer's log equals the leader's up to here, durably.
    pub matched: LogIndex,
    /// The next entry it will be sent.
    pub next: LogIndex,
    /// `"probe"`, `"replicate"`, `"snapshot"` or `"regressed"`.
    pub state: &'static str,
    /// When it last answered.
    pub heard_at: Instant,
    /// Its wall clock minus the leader's, in milliseconds, when it last answered a heartbeat.
    pub clock_offset_ms: i64,
}

impl Progress {
    pub(crate) fn status(&self) -> PeerStatus {
        let state = match &self.state {
            _ if self.regressed => "regressed",
            ProgressState::Probe { .. } => "probe",
            ProgressState::Replicate { .. } => "replicate",
            ProgressState::Snapshot { .. } => "snapshot",
        };
        PeerStatus {
            matched: self.matched,
            next: self.next,
            state,
            heard_at: self.heard_at,
            clock_offset_ms: self.clock_offset_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn config() -> Config {
        Config { append_bytes_max: 100, inflight_messages_max: 3, ..Config::new(NodeId(1), 1) }
    }

    fn replicating() -> Progress {
        let mut peer = Progress::new(LogIndex(5), Epoch(1), Instant(0));
        assert!(peer.advance(LogIndex(4), &config(), Instant(0)));
        peer.replicate();
        peer
    }

    #[test]
    fn idle_sends_at_once_and_busy_lets_the_batch_grow() {
        let (config, mut peer) = (config(), replicating());
        assert!(peer.may_send(1, &config, Instant(0)) && !peer.may_send(0, &config, Instant(0)));
        peer.sent(LogIndex(5), 10, &config, Instant(0));
        assert!(!peer.may_send(99, &config, Instant(0)), "not yet worth a message");
        assert!(peer.may_send(100, &config, Instant(0)));
        peer.sent(LogIndex(8), 100, &config, Instant(0));
        assert!(peer.advance(LogIndex(5), &config, Instant(0)));
        assert!(peer.may_send(1, &config, Instant(0)), "an acknowledgement lets the batch go");
    }

    #[test]
    fn the_window_closes_and_an_acknowledgement_in_any_order_frees_it() {
        let (config, mut peer) = (config(), replicating());
        for last in 5..8 {
            peer.sent(LogIndex(last), 100, &config, Instant(0));
        }
        assert!(!peer.may_send(1000, &config, Instant(0)));
        assert!(peer.advance(LogIndex(7), &config, Instant(0)), "the later one first");
        assert!(!peer.advance(LogIndex(5), &config, Instant(0)), "the earlier one is no news");
        assert_eq!(peer.matched(), LogIndex(7));
        assert!(peer.may_send(1, &config, Instant(0)));
    }

    #[test]
    fn what_is_lost_is_sent_again_ever_more_patiently() {
        let (config, mut peer) = (config(), replicating());
        let mut now = Instant(0);
        let mut waits = Vec::new();
        for _ in 0..3 {
            peer.sent(LogIndex(9), 10, &config, now);
            let sent = now;
            while !peer.is_overdue(now) {
                now = now.plus_millis(1);
            }
            waits.push(now.micros_since(sent) / 1000);
            peer.lost();
            assert_eq!(peer.next(), LogIndex(5));
        }
        assert_eq!(waits, [200, 400, 800]);
    }

    #[test]
    fn a_lost_probe_is_found_out_though_the_match_advanced_meanwhile() {
        let (config, mut peer) = (config(), Progress::new(LogIndex(9), Epoch(1), Instant(0)));
        peer.sent(LogIndex(8), 0, &config, Instant(0));
        assert!(peer.advance(LogIndex(3), &config, Instant(0)), "learnt from a heartbeat");
        assert!(peer.is_overdue(Instant(0).plus_millis(200)));
    }

    #[test]
    fn a_late_answer_is_asked_for_once_before_the_next_heartbeat() {
        let (config, mut peer) = (config(), replicating());
        peer.sent(LogIndex(9), 10, &config, Instant(0));
        let at = peer.follow_up_at().unwrap();
        assert_eq!(at, Instant(0).plus_millis(config.heartbeat_ms / 4));
        assert!(
            !peer.follow_up(true) && peer.take_verify(),
            "an empty append tells whether the entries arrived"
        );
        assert!(!peer.take_verify() && peer.follow_up_at().is_none());
        peer.advance(LogIndex(9), &config, at);
        peer.heard(at);
        peer.asked(&config, at);
        assert!(peer.follow_up(true) && !peer.take_verify(), "with nothing in flight a heartbeat does");
        peer.asked(&config, at);
        peer.heard(at);
        assert_eq!(peer.follow_up_at(), None, "all is answered");
    }

    #[test]
    fn an_answer_is_slow_after_half_a_heartbeat() {
        let (config, mut peer) = (config(), replicating());
        peer.sent(LogIndex(5), 10, &config, Instant(0));
        let after = |ms| Instant(0).plus_millis(ms);
        assert!(!peer.is_slow(&config, after(config.heartbeat_ms / 2 - 1)));
        assert!(peer.is_slow(&config, after(config.heartbeat_ms / 2)));
    }

    #[test]
    fn a_peer_owes_an_acknowledgement_from_the_first_entry_or_the_last_sign_of_its_disk() {
        let (config, mut peer) = (config(), replicating());
        let at = |ms| Instant(0).plus_millis(ms);
        assert_eq!(peer.owes_since(), None);
        peer.sent(LogIndex(5), 10, &config, at(1));
        peer.sent(LogIndex(6), 10, &config, at(2));
        assert_eq!(peer.owes_since(), Some(at(1)), "since the oldest");
        peer.advance(LogIndex(5), &config, at(3));
        assert_eq!(peer.owes_since(), Some(at(3)), "its disk worked then");
        peer.advance(LogIndex(6), &config, at(4));
        assert_eq!(peer.owes_since(), None);
    }

    // The answer to a probe left the debt of the probe itself: two seconds later no idle peer was a target any more.
    #[test]
    fn a_peer_whose_log_was_just_located_owes_nothing() {
        let (config, at) = (config(), |ms| Instant(0).plus_millis(ms));
        let mut peer = Progress::new(LogIndex(5), Epoch(1), at(0));
        peer.sent(LogIndex(4), 0, &config, at(1));
        assert_eq!(peer.owes_since(), Some(at(1)));
        peer.advance(LogIndex(4), &config, at(3));
        peer.replicate();
        assert_eq!(peer.owes_since(), None);
    }

    #[test]
    fn only_a_peer_whose_log_is_located_is_replicated_to() {
        assert!(replicating().is_replicating());
        assert!(!Progress::new(LogIndex(5), Epoch(1), Instant(0)).is_replicating());
    }

    #[test]
    fn a_probe_whose_answer_is_late_is_followed_by_what_surely_fits() {
        let config = config();
        let probing = |matched| {
            let mut peer = Progress::new(LogIndex(9), Epoch(1), Instant(0));
            peer.advance(LogIndex(matched), &config, Instant(0));
            peer.sent(LogIndex(8), 0, &config, Instant(0));
            peer
        };
        let mut peer = probing(3);
        assert!(!peer.follow_up(true) && !peer.take_verify(), "the same question is not asked again");
        assert_eq!(peer.next(), LogIndex(4));
        assert!(peer.may_send(1, &config, Instant(0)));
        for (matched, held, why) in [(0, true, "nothing is known"), (3, false, "it was compacted")] {
            let mut peer = probing(matched);
            assert!(!peer.follow_up(held) && peer.take_verify(), "{why}: the probe is repeated");
            assert_eq!(peer.next(), LogIndex(9));
        }
    }

    #[test]
    fn a_slow_acknowledgement_does_not_hold_up_the_next_append_and_silence_ends_both() {
        let (config, mut peer) = (config(), replicating());
        peer.sent(LogIndex(5), 10, &config, Instant(0));
        let later = Instant(0).plus_millis(config.heartbeat_ms / 4);
        assert!(!peer.may_send(1, &config, Instant(0)) && peer.may_send(1, &config, later));
        peer.sent(LogIndex(6), 10, &config, later);
        let long_after = later.plus_millis(config.heartbeat_ms);
        assert!(!peer.may_send(1, &config, long_after), "only heartbeats look for a silent peer");
        peer.heard(long_after);
        assert!(peer.may_send(1, &config, long_after));
    }

    #[test]
    fn who_did_not_answer_in_the_election_gets_entries_once_it_is_seen() {
        let (config, mut peer) = (config(), Progress::new(LogIndex(9), Epoch(1), Instant(0)));
        peer.is_absent(Instant(7));
        assert!(!peer.may_send(1, &config, Instant(7)));
        assert_eq!(peer.sent_at, Instant(7), "its heartbeat comes when it is time");
        peer.seen(false);
        assert!(peer.may_send(1, &config, Instant(7)));
    }

    #[test]
    fn a_probe_never_goes_below_what_is_matched() {
        let mut peer = replicating();
        peer.probe(LogIndex(2));
        assert_eq!(peer.next(), LogIndex(5));
        peer.snapshot(LogIndex(9), Instant(7), Epoch(2));
        assert!(!peer.may_send(1000, &config(), Instant(0)));
    }

    #[test]
    fn who_was_there_all_the_time_does_not_appear() {
        let mut peer = replicating();
        assert!(!peer.appears());
        peer.is_absent(Instant(7));
        assert!(peer.appears() && !peer.appears());
    }

    // What it acknowledged is forgotten, not that it answered: a read waits for nobody twice.
    #[test]
    fn a_peer_that_lost_entries_has_answered_all_the_same() {
        let mut peer = replicating();
        (peer.acked_round, peer.incarnation) = (Round(5), Incarnation(6));
        peer.reopen(StartNumber(3), LogIndex(2), Epoch(4));
        assert_eq!((peer.acked_round, peer.incarnation), (Round(5), Incarnation(6)));
        assert_eq!((peer.refilled, peer.epoch), (StartNumber(3), Epoch(4)));
        assert_eq!((peer.matched(), peer.next()), (LogIndex(0), LogIndex(2)));
    }

    #[test]
    fn only_the_attempt_that_replaces_a_snapshot_gives_it_more_time() {
        let mut peer = replicating();
        let (run, until) = (StartNumber(1), Instant(10));
        peer.replacing = Some(Replacing { run, until, attempt: Some(Epoch(7)) });
        peer.snapshot_moves(Epoch(6), Instant(50));
        assert_eq!(peer.replacing.unwrap().until, until);
        peer.snapshot_moves(Epoch(7), Instant(60));
        assert_eq!(peer.replacing.unwrap().until, Instant(60));
    }
}
