//! From one configuration to the next: what may be asked for, and the steps that lead there (dissertation 4.3).
//! Values in, values out; when a step may be taken is the leader's to decide, in `reconfigure`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ChangeError, ConfError, ConfState, Incarnation, Member, NodeId};

/// Who shall vote and who shall learn: the whole target, reached in one call from whatever holds now.
///
/// A voter has to be a learner first, and one that has caught up (dissertation 4.2.1). A voter whose disk is lost
/// comes back as a learner: same id, another incarnation (SAFETY D2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChange {
    /// They shall vote.
    pub voters: Vec<NodeId>,
    /// They shall receive the log without a vote.
    pub learners: Vec<NodeId>,
    /// What is known of those that are new, or new about the others; who is not named keeps what was agreed on.
    pub members: Vec<(NodeId, Member)>,
    /// Make voters of learners that have not caught up. Commits may have to wait for them.
    pub force: bool,
}

impl ConfChange {
    /// The target that equals `conf` once a joint one is left: to be changed and asked for.
    #[must_use]
    pub fn of(conf: &ConfState) -> ConfChange {
        let settled = leave(conf);
        ConfChange {
            voters: settled.voters.into_iter().collect(),
            learners: settled.learners.into_iter().collect(),
            ..ConfChange::default()
        }
    }
}

/// The next configuration on the way from `current`, which is not joint, to what `change` asks for.
///
/// One voter more or less is one step: any two majorities of the two overlap. Everything else goes through a joint
/// configuration. So does the removal of the leader itself, so that whoever leads next knows about it (SAFETY M3, M5).
///
/// # Errors
/// The target can never be (SAFETY M8), or is no change.
pub(crate) fn next(
    current: &ConfState,
    change: &ConfChange,
    leader: NodeId,
) -> Result<ConfState, ChangeError> {
    let target = target(current, change)?;
    if target == *current {
        return Err(ChangeError::Unchanged);
    }
    let replaced = replaced(current, &target);
    if let Some(id) = replaced.iter().copied().find(|id| target.voters.contains(id)) {
        return Err(ChangeError::NotALearner { id });
    }
    let moved = current.voters.symmetric_difference(&target.voters).count();
    let leader_stays = target.voters.contains(&leader) || !current.voters.contains(&leader);
    if moved <= 1 && leader_stays {
        return Ok(target);
    }
    // A joint configuration has one record for each id: it cannot name the lost directory and the new one.
    if let Some(id) = replaced.into_iter().find(|id| current.voters.contains(id)) {
        return Err(ChangeError::ReplaceAlone { id });
    }
    let joint = enter(current, target);
    joint.validate().map_err(ChangeError::Conf)?;
    Ok(joint)
}

/// What holds once the joint configuration is left.
pub(crate) fn leave(joint: &ConfState) -> ConfState {
    let mut conf = joint.clone();
    let outgoing = std::mem::take(&mut conf.outgoing);
    conf.learners.append(&mut conf.learners_next);
    conf.auto_leave = false;
    conf.members
        .retain(|id, _| !outgoing.contains(id) || conf.voters.contains(id) || conf.learners.contains(id));
    conf
}

/// Who gets a vote by going from one configuration to the other.
pub(crate) fn promoted(current: &ConfState, next: &ConfState) -> impl Iterator<Item = NodeId> {
    next.voters.iter().copied().filter(|id| !current.is_voter(*id))
}

fn target(current: &ConfState, change: &ConfChange) -> Result<ConfState, ChangeError> {
    let mut ids = BTreeSet::new();
    if let Some(id) = change.voters.iter().chain(&change.learners).find(|id| !ids.insert(**id)) {
        return Err(ChangeError::Duplicate { id: *id });
    }
    let mut named: BTreeMap<NodeId, &Member> = BTreeMap::new();
    for (id, member) in &change.members {
        if !ids.contains(id) {
            return Err(ChangeError::Conf(ConfError::MemberMismatch));
        }
        if named.insert(*id, member).is_some() {
            return Err(ChangeError::Duplicate { id: *id });
        }
    }
    let mut members = BTreeMap::new();
    for id in ids {
        let member = named.get(&id).copied().or_else(|| current.members.get(&id));
        members.insert(id, member.ok_or(ChangeError::Unknown { id })?.clone());
    }
    let target = ConfState {
        voters: change.voters.iter().copied().collect(),
        learners: change.learners.iter().copied().collect(),
        members,
        lease: current.lease,
        ..ConfState::default()
    };
    target.validate().map_err(ChangeError::Conf)?;
    Ok(target)
}

/// Members of both whose data directory is another one.
fn replaced(current: &ConfState, target: &ConfState) -> Vec<NodeId> {
    let is_other = |id: &NodeId, before: &Member| {
        before.incarnation != Incarnation::UNKNOWN
            && target.members.get(id).is_some_and(|after| after.incarnation != before.incarnation)
    };
    current.members.iter().filter(|(id, before)| is_other(id, before)).map(|(id, _)| *id).collect()
}

fn enter(current: &ConfState, target: ConfState) -> ConfState {
    let mut joint = target;
    joint.outgoing = current.voters.clone();
    joint.learners_next = joint.learners.intersection(&joint.outgoing).copied().collect();
    joint.learners.retain(|id| !current.voters.contains(id));
    for (id, member) in &current.members {
        if joint.outgoing.contains(id) {
            joint.members.entry(*id).or_insert_with(|| member.clone());
        }
    }
    joint.auto_leave = true;
    joint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let members = voters.iter().chain(learners).map(|id| (NodeId(*id), member(*id))).collect();
        ConfState { voters: set(voters), learners: set(learners), members, ..ConfState::default() }
    }

    fn member(incarnation: u64) -> Member {
        Member { incarnation: Incarnation(incarnation), ..Member::default() }
    }

    fn to(voters: &[u64], learners: &[u64]) -> ConfChange {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        ConfChange { voters: ids(voters), learners: ids(learners), ..ConfChange::default() }
    }

    fn after(current: &ConfState, change: &ConfChange) -> Result<ConfState, ChangeError> {
        next(current, change, NodeId(1))
    }

    #[test]
    fn one_voter_more_or_less_is_one_step() {
        let current = conf(&[1, 2, 3], &[4]);
        assert_eq!(after(&current, &to(&[1, 2, 3, 4], &[])), Ok(conf(&[1, 2, 3, 4], &[])));
        assert_eq!(after(&current, &to(&[1, 2], &[3, 4])), Ok(conf(&[1, 2], &[3, 4])));
        assert_eq!(after(&current, &to(&[1, 2, 3], &[])), Ok(conf(&[1, 2, 3], &[])));
    }

    #[test]
    fn everything_else_goes_through_a_joint_configuration_and_out_of_it() {
        let current = conf(&[1, 2, 3], &[4, 5]);
        let joint = after(&current, &to(&[1, 4, 5], &[2])).unwrap();
        assert_eq!((&joint.outgoing, &joint.voters), (&current.voters, &conf(&[1, 4, 5], &[]).voters));
        assert_eq!(joint.learners_next, [NodeId(2)].into());
        assert!(joint.learners.is_empty() && joint.auto_leave);
        assert_eq!(joint.validate(), Ok(()));
        assert_eq!(leave(&joint), conf(&[1, 4, 5], &[2]));
        assert_eq!(ConfChange::of(&joint), to(&[1, 4, 5], &[2]));
    }

    #[test]
    fn the_leader_goes_through_a_joint_configuration() {
        let joint = after(&conf(&[1, 2, 3], &[]), &to(&[2, 3], &[])).unwrap();
        assert!(joint.is_joint());
        assert_eq!(leave(&joint), conf(&[2, 3], &[]));
        let lone = next(&conf(&[1], &[2]), &to(&[2], &[1]), NodeId(1)).unwrap();
        assert_eq!(leave(&lone), conf(&[2], &[1]));
    }

    // SAFETY M8.
    #[test]
    fn what_can_never_be_is_refused() {
        let current = conf(&[1, 2, 3], &[4]);
        let refused = |change: &ConfChange| after(&current, change).unwrap_err();
        assert_eq!(refused(&to(&[], &[1])), ChangeError::Conf(ConfError::NoVoters));
        assert_eq!(refused(&to(&[1, 2, 2], &[])), ChangeError::Duplicate { id: NodeId(2) });
        assert_eq!(refused(&to(&[1, 2], &[2])), ChangeError::Duplicate { id: NodeId(2) });
        assert_eq!(refused(&to(&[1, 2, 3], &[9])), ChangeError::Unknown { id: NodeId(9) });
        assert_eq!(refused(&to(&[1, 2, 3], &[4])), ChangeError::Unchanged);
        let zero = ConfChange { members: vec![(NodeId(0), member(0))], ..to(&[0, 1], &[]) };
        assert_eq!(refused(&zero), ChangeError::Conf(ConfError::ZeroId));
        let stranger = ConfChange { members: vec![(NodeId(9), member(9))], ..to(&[1, 2], &[]) };
        assert_eq!(refused(&stranger), ChangeError::Conf(ConfError::MemberMismatch));
        let many: Vec<u64> = (1..=10).collect();
        let members = many.iter().map(|id| (NodeId(*id), member(*id))).collect();
        let large = ConfChange { members, ..to(&many, &[]) };
        assert_eq!(refused(&large), ChangeError::Conf(ConfError::TooLarge));
    }

    // SAFETY D2.
    #[test]
    fn a_lost_voter_comes_back_as_a_learner_and_alone() {
        let current = conf(&[1, 2, 3], &[4]);
        let again = |change| ConfChange { members: vec![(NodeId(3), member(33))], ..change };
        assert_eq!(
            after(&current, &again(to(&[1, 2, 3], &[4]))),
            Err(ChangeError::NotALearner { id: NodeId(3) })
        );
        let replaced = after(&current, &again(to(&[1, 2], &[3, 4]))).unwrap();
        assert_eq!(replaced.members[&NodeId(3)], member(33));
        assert!(!replaced.is_joint() && replaced.is_learner(NodeId(3)));
        assert_eq!(
            after(&current, &again(to(&[1, 2, 4], &[3]))),
            Err(ChangeError::ReplaceAlone { id: NodeId(3) })
        );
        let mut stranger = current.clone();
        stranger.members.insert(NodeId(3), Member::default());
        assert!(after(&stranger, &again(to(&[1, 2, 3], &[4]))).is_ok(), "it only introduced itself");
    }
}
