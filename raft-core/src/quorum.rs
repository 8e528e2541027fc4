//! What a majority agrees on. Functions from values to values; joint configurations need both halves (dissertation 4.3).

use std::collections::{BTreeMap, BTreeSet};

use crate::{ConfState, NodeId, VOTERS_MAX};

/// The largest value that every majority of `conf` has reached: more than half of each half shows at least it.
///
/// A half without members would say nothing and is left out; a configuration without any voter reaches `None`.
pub(crate) fn reached<T: Ord + Copy>(conf: &ConfState, of: impl Fn(NodeId) -> T) -> Option<T> {
    // Asked after every acknowledgement: no memory is allocated for it.
    let half = |ids: &BTreeSet<NodeId>| {
        let mut values = [None; VOTERS_MAX];
        for (count, id) in ids.iter().enumerate().take(VOTERS_MAX) {
            // Sorted as they come, the largest first: they are few.
            let value = Some(of(*id));
            let mut place = count;
            while place > 0 && values[place - 1] < value {
                values[place] = values[place - 1];
                place -= 1;
            }
            values[place] = value;
        }
        values.get(ids.len() / 2).copied().flatten()
    };
    match (half(&conf.voters), half(&conf.outgoing)) {
        (Some(incoming), Some(outgoing)) => Some(incoming.min(outgoing)),
        (one, other) => one.or(other),
    }
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// Every majority granted.
    Won,
    /// Some majority can no longer be reached.
    Lost,
    /// Votes are missing.
    Open,
}

/// Counts votes. Only those of voters of `conf` matter.
pub(crate) fn tally(conf: &ConfState, votes: &BTreeMap<NodeId, bool>) -> Tally {
    let half = |ids: &BTreeSet<NodeId>| {
        if ids.is_empty() {
            return Tally::Won;
        }
        let granted = ids.iter().filter(|id| votes.get(id) == Some(&true)).count();
        let refused = ids.iter().filter(|id| votes.get(id) == Some(&false)).count();
        let needed = if planted!(MinorityElects) { 1 } else { ids.len() / 2 + 1 };
        if granted >= needed {
            Tally::Won
        } else if refused > ids.len() - needed {
            Tally::Lost
        } else {
            Tally::Open
        }
    };
    match (half(&conf.voters), half(&conf.outgoing)) {
        (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
        (Tally::Won, Tally::Won) => Tally::Won,
        (Tally::Open, Tally::Open | Tally::Won) | (Tally::Won, Tally::Open) => Tally::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        ConfState { voters: set(voters), outgoing: set(outgoing), ..ConfState::default() }
    }

    #[test]
    fn a_majority_decides_in_even_and_odd_clusters() {
        assert_eq!(reached(&conf(&[1, 2, 3], &[]), |id| id.0 * 10), Some(20));
        assert_eq!(reached(&conf(&[1, 2, 3, 4], &[]), |id| id.0 * 10), Some(20));
        assert_eq!(reached(&conf(&[1], &[]), |id| id.0 * 10), Some(10));
        assert_eq!(reached(&conf(&[], &[]), |id| id.0), None);
    }

    #[test]
    fn a_joint_configuration_needs_both_halves() {
        let joint = conf(&[4, 5, 6], &[1, 2, 3]);
        assert_eq!(reached(&joint, |id| id.0), Some(2));
        let votes = |ids: &[u64]| ids.iter().map(|id| (NodeId(*id), true)).collect::<BTreeMap<_, _>>();
        assert_eq!(tally(&joint, &votes(&[4, 5, 6])), Tally::Open);
        assert_eq!(tally(&joint, &votes(&[4, 5, 1, 2])), Tally::Won);
    }

    #[test]
    fn an_election_is_lost_once_a_majority_is_out_of_reach() {
        let votes = [(NodeId(2), false), (NodeId(3), false)].into();
        assert_eq!(tally(&conf(&[1, 2, 3], &[]), &votes), Tally::Lost);
        assert_eq!(tally(&conf(&[1, 2, 3, 4], &[]), &votes), Tally::Lost);
        assert_eq!(tally(&conf(&[1, 2, 3, 4, 5], &[]), &votes), Tally::Open);
        let strangers = [(NodeId(7), true), (NodeId(8), true)].into();
        assert_eq!(tally(&conf(&[1, 2, 3], &[]), &strangers), Tally::Open, "only voters count");
    }
}
