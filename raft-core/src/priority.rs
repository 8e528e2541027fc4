//! Who should lead if there is a choice, as NuRaft and sofa-jraft have it: a wish that costs time, never liveness.
//!
//! A node of a lower priority waits longer before it looks for a new leader, so that the others find one first. With each
//! wait that passes without a leader the difference is halved: where all the others are gone, the least wanted node leads.
//! It is all in the waiting. Votes are given as ever, so whom the log demands is never refused (dissertation 3.4), and a
//! target of a transfer does not wait at all.

use crate::{Config, PRIORITY_MAX, shared::Shared};

/// How often a node has waited without hearing of a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Decay(u32);

impl Decay {
    /// What a node waits beyond its election timeout.
    pub(crate) fn handicap_ms(self, config: &Config) -> u64 {
        let below = u64::from(PRIORITY_MAX.saturating_sub(config.priority));
        below.saturating_mul(config.election_timeout_max_ms) >> self.0.min(u64::BITS - 1)
    }

    fn halved(self) -> Decay {
        Decay(self.0.saturating_add(1))
    }
}

impl Shared {
    /// How long to wait for a leader from now on.
    pub(crate) fn patience_ms(&mut self) -> u64 {
        let handicap_ms = self.handicap_ms();
        self.election_timeout_ms().saturating_add(handicap_ms)
    }

    /// What this node waits longer than others would.
    pub(crate) fn handicap_ms(&self) -> u64 {
        self.decay.handicap_ms(&self.config).saturating_add(self.stuck_handicap_ms())
    }

    /// A leader was heard: the next wait begins in full.
    pub(crate) fn leader_heard(&mut self) {
        self.decay = Decay::default();
    }

    /// A wait passed without a leader.
    pub(crate) fn leader_missed(&mut self) {
        self.decay = self.decay.halved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn the_handicap_grows_with_the_distance_and_decays_to_nothing() {
        let of = |priority| Config { priority, ..Config::new(NodeId(1), 1) };
        let config = of(PRIORITY_MAX);
        assert_eq!(Decay::default().handicap_ms(&config), 0);
        let config = of(PRIORITY_MAX - 2);
        let mut decay = Decay::default();
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(decay.handicap_ms(&config));
            decay = decay.halved();
        }
        assert_eq!(waits, [2000, 1000, 500, 250]);
        assert_eq!(Decay(u32::MAX).handicap_ms(&of(0)), 0);
    }
}
