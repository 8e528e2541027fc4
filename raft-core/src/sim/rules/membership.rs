//! The rules about who is a member, who may lead, and how leadership is handed over (M1 to M8, E9, E10, D2, X1).

use super::{Checked, Ghost, Member, View, check};
use crate::{
    ConfState, Entry, Event, LogId, LogIndex, Message, NodeId, RoleKind, SnapshotMeta, Term, TransferOutcome,
    sim::{
        confs::{InForce, always_overlap, has_majorities},
        coverage::{Coverage, Mark},
        disk::Disk,
        network::{id, place},
    },
};

/// M1: a leader changes the membership only once the change before and an entry of its own term are committed.
pub(super) fn m1_one_change_at_a_time(
    node: NodeId,
    before: LogId,
    commit: LogIndex,
    committed: Option<Term>,
    term: Term,
) -> Checked {
    check(before.index <= commit, "M1", || {
        format!("{node} changed the membership while {before} is not committed, but {commit}")
    })?;
    check(committed == Some(term), "M1", || {
        format!("{node} changed the membership in term {term}, committed is {commit} of term {committed:?}")
    })
}

/// M3: from one configuration to the next any two majorities overlap, and joint ones are entered and left as a whole.
pub(super) fn m3_legal_step(node: NodeId, before: &ConfState, after: &ConfState) -> Checked {
    let shape = match (before.is_joint(), after.is_joint()) {
        (false, true) => after.outgoing == before.voters,
        (true, false) => after.voters == before.voters,
        (false, false) => before.voters.symmetric_difference(&after.voters).count() <= 1,
        (true, true) => false,
    };
    check(shape && always_overlap(before, after), "M3", || {
        format!("{node} went from {before:?} to {after:?}")
    })
}

/// M2: the configuration in force is the last one in the log, else the snapshot's, by term and index.
pub(in crate::sim) fn m2_conf_in_force(node: NodeId, shown: &InForce, log: &InForce) -> Checked {
    check(shown.0 == log.0 && shown.1 == log.1, "M2", || {
        format!("{node} goes by {shown:?}, its log says {log:?}")
    })
}

/// E9 and D2: who stands for election, or asks about it, votes in its own configuration or the last committed one, with
/// the directory that is named there.
fn e9_may_campaign(node: NodeId, member: &Member, disk: &Disk) -> Checked {
    let in_force = &member.log.conf().1;
    let committed = &member.log.conf_at(member.commit).1;
    check(in_force.is_voter(node) || committed.is_voter(node), "E9", || {
        format!("{node} campaigns, a voter neither in {in_force:?} nor in {committed:?}")
    })?;
    d2_votes_with_its_own_directory(node, in_force, disk)
}

/// D2: a node that came back with another directory has no vote until the configuration names it.
fn d2_votes_with_its_own_directory(node: NodeId, conf: &ConfState, disk: &Disk) -> Checked {
    let named = conf.members.get(&node).map(|member| member.incarnation);
    check(named.is_none_or(|named| !named.is_other(disk.incarnation)), "D2", || {
        format!("{node} took part in an election as {}, named is {named:?}", disk.incarnation)
    })
}

/// X1: a leader's word to campaign goes to who has everything.
fn x1_target_has_everything(message: &Message, proven: LogIndex, last: LogIndex) -> Checked {
    check(proven >= last, "X1", || {
        format!("{} told {} to campaign, which proved {proven} of {last}", message.from, message.to)
    })
}

impl Ghost {
    /// What a message says about its sender's part in the cluster.
    pub(super) fn sends_as_member(&self, message: &Message, disk: &Disk, coverage: &mut Coverage) -> Checked {
        let member = &self.members[place(message.from)];
        match message.body {
            crate::Body::PreVote { .. } | crate::Body::RequestVote { .. } => {
                if !member.log.conf().1.is_voter(message.from) {
                    coverage.hit(Mark::CampaignOutsideOwnConf);
                }
                e9_may_campaign(message.from, member, disk)
            }
            crate::Body::PreVoteReply { granted: true, .. }
            | crate::Body::RequestVoteReply { granted: true, .. } => {
                d2_votes_with_its_own_directory(message.from, &member.log.conf().1, disk)
            }
            crate::Body::TimeoutNow => {
                let known = member.peers[place(message.to)];
                let proven = if known.term == message.term { known.proven } else { LogIndex::ZERO };
                x1_target_has_everything(message, proven, member.log.last().index)
            }
            crate::Body::Removed { .. } => {
                coverage.hit(Mark::RemovedTold);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What a node shows of its part in the cluster, after each input.
    pub(super) fn took_as_member(&mut self, node: usize, view: &View, coverage: &mut Coverage) -> Checked {
        let patience = self.election_timeout_max;
        let member = &mut self.members[node];
        member.now = view.now;
        if let Some((to, deadline)) = view.transfer.filter(|_| view.transfer != member.transfer) {
            // X1: a deadline that moved would show as another transfer, and one that never ended.
            member.transfers_begun += 1;
            check(deadline.micros_since(view.now) <= patience, "X1", || {
                format!("{} hands over to {to} until {deadline:?}, now it is {:?}", id(node), view.now)
            })?;
        }
        if view.transfer.is_some() {
            coverage.hit(Mark::TransferUnderWay);
        }
        member.transfer = view.transfer;
        let (conf_id, conf) = &view.conf;
        let settled = conf_id.index <= view.commit;
        let leads = view.role == RoleKind::Leader;
        if leads && settled && conf.is_joint() {
            if member.departs.is_none_or(|(of, _)| of != *conf_id) {
                member.departs = Some((*conf_id, view.now));
            }
        } else if !leads {
            member.departs = None;
        }
        // M5: it led to the end of its own removal, and not further.
        let over = leads && settled && !conf.is_joint() && !conf.is_voter(id(node));
        check(!over, "M5", || format!("{} leads, committed is {conf:?}", id(node)))
    }

    /// A leader appends a configuration.
    pub(super) fn changes(
        &mut self,
        node: usize,
        entry: &Entry,
        term: Term,
        coverage: &mut Coverage,
    ) -> Checked {
        let Ok(after) = ConfState::decode(&entry.payload) else {
            return check(false, "M8", || format!("{} appended {} that cannot be read", id(node), entry.id));
        };
        check(after.validate().is_ok(), "M8", || format!("{} appended {after:?}", id(node)))?;
        let member = &self.members[node];
        if member.role != RoleKind::Leader || entry.id.term != term || member.term != term {
            return Ok(());
        }
        let (before_id, before) = member.log.conf().clone();
        m1_one_change_at_a_time(id(node), before_id, member.commit, member.log.term(member.commit), term)?;
        m3_legal_step(id(node), &before, &after)?;
        if before.is_joint() {
            coverage.hit(Mark::JointLeft);
            if before_id.term < term {
                coverage.hit(Mark::JointLeftByNewLeader);
            }
            if !after.voters.contains(&id(node)) {
                // M5: it removes itself only after it looked for a successor in vain.
                let since = member.departs.filter(|(of, _)| *of == before_id).map(|(_, since)| since);
                let waited = since.map(|since| member.now.micros_since(since));
                check(waited.is_some_and(|waited| waited >= 2 * self.election_timeout_max), "M5", || {
                    format!("{} removed itself after {waited:?} microseconds", id(node))
                })?;
                coverage.hit(Mark::LeaderRemovedItself);
            }
        } else {
            coverage.hit(if after.is_joint() { Mark::JointEntered } else { Mark::SimpleChange });
            if after.voters.iter().any(|id| before.learners.contains(id)) {
                coverage.hit(Mark::LearnerPromoted);
            }
            if after.is_joint() && !after.voters.contains(&id(node)) {
                coverage.hit(Mark::LeaderToGo);
            }
        }
        Ok(())
    }

    /// X1: while leadership is being handed over nothing is appended.
    pub(super) fn x1_proposals_are_frozen(&self, node: usize, appended: bool, ended: bool) -> Checked {
        let member = &self.members[node];
        let frozen = member.role == RoleKind::Leader
            && member.transfer.is_some()
            && member.transfer == member.transfer_at_drain
            && !ended;
        check(!(frozen && appended), "X1", || {
            format!("{} appended while handing over to {:?}", id(node), member.transfer)
        })
    }

    /// X1: each transfer that was begun ends once, and the node says how.
    pub(super) fn transfer_ended(&mut self, node: usize, event: &Event, coverage: &mut Coverage) -> Checked {
        let Event::TransferEnded { to, outcome } = event else { return Ok(()) };
        coverage.hit(match outcome {
            TransferOutcome::Done => Mark::TransferDone,
            TransferOutcome::TimedOut => Mark::TransferTimedOut,
            TransferOutcome::TargetDemoted => Mark::TransferTargetDemoted,
            TransferOutcome::Overtaken { .. } | TransferOutcome::Unknown => Mark::TransferOvertaken,
        });
        let member = &mut self.members[node];
        member.transfers_ended += 1;
        let (begun, ended) = (member.transfers_begun, member.transfers_ended);
        check(ended <= begun, "X1", || {
            format!(
                "{} says for the {ended}. time that a transfer ended, to {to}; {begun} were begun",
                id(node)
            )
        })
    }

    /// X1: no transfer of this node is still without an outcome.
    pub(in crate::sim) fn x1_transfers_are_told(&self, node: usize) -> Checked {
        let member = &self.members[node];
        let (begun, ended) = (member.transfers_begun, member.transfers_ended);
        check(begun == ended, "X1", || format!("{} began {begun} transfers and told of {ended}", id(node)))
    }

    /// M7: a snapshot carries the configuration that was in force at its index, and where it came from.
    pub(super) fn m7_snapshot_conf(
        &self,
        node: NodeId,
        meta: &SnapshotMeta,
        coverage: &mut Coverage,
    ) -> Checked {
        let behind = self.committed_confs.partition_point(|(id, _)| id.index <= meta.last.index);
        let Some((conf_id, conf)) = behind.checked_sub(1).map(|at| &self.committed_confs[at]) else {
            return Ok(());
        };
        if conf.is_joint() {
            coverage.hit(Mark::SnapshotWithJointConf);
        }
        check(meta.conf_id == *conf_id && meta.conf == **conf, "M7", || {
            format!(
                "{node} noted a snapshot up to {} with {}, in force was {conf_id}: {conf:?}",
                meta.last, meta.conf_id
            )
        })
    }

    /// The latest configuration that is known to be committed.
    pub(in crate::sim) fn conf(&self) -> &InForce {
        &self.committed_confs[self.committed_confs.len() - 1]
    }

    /// Whether a majority answered this leader within the shortest election timeout: E10 holds.
    pub(in crate::sim) fn has_quorum(&self, node: usize, now: crate::Instant) -> bool {
        let member = &self.members[node];
        let heard = |peer: NodeId| {
            let known = &member.peers[place(peer)];
            peer == id(node)
                || known.term == member.term
                    && known.heard.is_some_and(|at| now.micros_since(at) < self.election_timeout_min)
        };
        member.role == RoleKind::Leader && has_majorities(&member.log.conf().1, heard)
    }
}

/// E10: a leader whose members follow it is not deposed by a stranger.
pub(in crate::sim) fn e10_not_deposed_by_stranger(
    node: NodeId,
    from: NodeId,
    before: Term,
    after: Term,
) -> Checked {
    check(before == after, "E10", || {
        format!("{node} led term {before} with a quorum, and {from}, no member, took it to term {after}")
    })
}
