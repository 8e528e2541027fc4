//! The rules that need memory: what was true once anywhere must stay true everywhere.

use super::{Checked, Committed, Ghost, check};
use crate::{
    Apply, ConfState, EntryKind, LogId, LogIndex, Message, NodeId, RoleKind, Term,
    sim::{
        confs::has_majorities,
        coverage::{Coverage, Mark},
        disk::{Disk, chain, count},
        network::{id, place},
    },
};

impl Ghost {
    /// E1: one leader per term, over the whole history.
    pub(super) fn e1_one_leader_per_term(&mut self, term: Term, node: NodeId) -> Checked {
        let before = self.leaders.insert(term, node);
        check(before.is_none(), "E1", || format!("{node} was elected in term {term}, as was {before:?}"))
    }

    /// E2: a voter grants one candidate per term, over all its runs.
    pub(super) fn e2_one_vote_per_term(&mut self, term: Term, voter: NodeId, candidate: NodeId) -> Checked {
        let incarnation = self.members[place(voter)].incarnation;
        let first = *self.granted.entry((term, voter, incarnation)).or_insert(candidate);
        check(first == candidate, "E2", || {
            format!("{voter} voted for {first} and {candidate} in term {term}")
        })
    }

    /// E11: within a term a node follows one leader, and one that was elected.
    pub(super) fn e11_leader_set_once(&mut self, node: usize, term: Term, leader: NodeId) -> Checked {
        let elected = self.leaders.get(&term).copied();
        check(elected == Some(leader), "E11", || {
            format!("{} follows {leader} in term {term}, elected was {elected:?}", id(node))
        })?;
        let before = self.members[node].leader.replace((term, leader));
        check(before.is_none_or(|before| before.0 != term || before.1 == leader), "E11", || {
            format!("{} follows {leader} in term {term} after {before:?}", id(node))
        })
    }

    /// L1: the same index and term anywhere means the same history up to there.
    pub(super) fn l1_log_matching(&mut self, node: NodeId, at: LogId, hash: u64) -> Checked {
        let known = self.prefixes.note(at, hash);
        check(known == hash, "L1", || {
            format!("{node} has {at} with a history that differs from the one known")
        })
    }

    /// C3: what is committed at an index never changes, and every node's log agrees up to its commit index.
    pub(super) fn c3_state_machine_safety(&self, node: usize, index: LogIndex, hash: Option<u64>) -> Checked {
        let committed = self.committed.get(count(index.0).wrapping_sub(1)).map(|committed| committed.hash);
        check(hash.is_none() || committed.is_none() || hash == committed, "C3", || {
            format!("{} holds another history than what was committed up to {index}", id(node))
        })
    }

    /// C4: a new leader holds everything that was committed in earlier terms. Late votes may elect a leader of a term
    /// behind which a later one has committed more: that does not count.
    pub(super) fn c4_leader_completeness(&self, node: usize) -> Checked {
        let member = &self.members[node];
        let Some(before) = self.committed.iter().rposition(|committed| committed.term < member.term) else {
            return Ok(());
        };
        let (index, log) = (LogIndex(before as u64 + 1), &member.log);
        let held = index < log.start().index || log.hash(index) == Some(self.committed[before].hash);
        check(held, "C4", || {
            format!("{} was elected with a log that ends at {} and lacks {index}", id(node), log.last())
        })
    }

    /// L8 and L9: a follower's commit index lies within its log and within what some leader has committed.
    pub(super) fn l8_follower_commit(&mut self, node: usize) -> Checked {
        let member = &self.members[node];
        let commit = member.commit;
        if commit == member.checked_commit {
            return Ok(());
        }
        check(commit <= member.log.last().index, "L9", || {
            format!("{} has commit {commit}, its log ends at {}", id(node), member.log.last())
        })?;
        check(commit <= self.commit(), "L8", || {
            format!("{} has commit {commit}, the leaders have {}", id(node), self.commit())
        })?;
        self.c3_state_machine_safety(node, commit, member.log.hash(commit))?;
        self.members[node].checked_commit = commit;
        Ok(())
    }

    /// P4: a leader believes of a peer only what replies of this term and epoch told.
    pub(super) fn p4_believes_only_current_replies(&self, message: &Message, prev: LogId) -> Checked {
        let member = &self.members[place(message.from)];
        if member.role != RoleKind::Leader || member.term != message.term {
            return Ok(());
        }
        let known = member.peers[place(message.to)];
        let proven = if known.term == message.term { known.proven } else { LogIndex::ZERO };
        check(prev.index <= proven, "P4", || {
            format!("{} believes {} to have {prev}, proven is {proven}", message.from, message.to)
        })
    }

    /// C1, C2 and C6: a leader commits only entries of its own term, counted by what its peers proved and by its own
    /// disk; a quorum of disks has them. The configuration may have changed with the commit itself.
    pub(super) fn c1_commit(
        &mut self,
        node: usize,
        commit: LogIndex,
        conf: &ConfState,
        disks: &[Disk],
        coverage: &mut Coverage,
    ) -> Checked {
        let member = &self.members[node];
        let term = member.log.term(commit);
        check(term == Some(member.term), "C1", || {
            format!("{} in term {} committed {commit} of term {term:?}", id(node), member.term)
        })?;
        let before = &member.log.conf().1;
        let by_either =
            |has: &dyn Fn(NodeId) -> bool| has_majorities(before, has) || has_majorities(conf, has);
        let proven = |peer: NodeId| {
            let known = &member.peers[place(peer)];
            known.term == member.term && known.proven >= commit
        };
        let own = disks[node].durable.log.last().index >= commit;
        check(by_either(&|peer| place(peer) == node || proven(peer)), "C1", || {
            format!("{} committed {commit}, which no majority of {conf:?} proved", id(node))
        })?;
        check(by_either(&|peer| if place(peer) == node { own } else { proven(peer) }), "C2", || {
            format!("{} counted itself for {commit}, which its disk does not hold yet", id(node))
        })?;
        if !own {
            coverage.hit(Mark::CommitWithoutLeaderDisk);
        }
        let hash = member.log.hash(commit);
        let holds = |peer: NodeId| {
            let disk = &disks[place(peer)];
            // What lay on a disk that was lost counts if it was acknowledged: nobody votes against it any more.
            let lost =
                conf.members.get(&peer).is_some_and(|named| named.incarnation.is_other(disk.incarnation));
            if lost {
                return proven(peer);
            }
            // What damage took after it was acknowledged is bound by the promise (D1).
            let damaged = disk.durable.lost.as_ref().is_some_and(|lost| lost.hash(commit) == hash);
            let log = &disk.durable.log;
            commit < log.start().index || log.hash(commit) == hash || damaged
        };
        check(by_either(&holds), "C6", || {
            format!("{} committed {commit}, which no majority of the disks of {conf:?} holds", id(node))
        })?;
        for index in self.committed.len() as u64 + 1..=commit.0 {
            let log = &self.members[node].log;
            let (Some(entry), Some(hash)) = (log.entry(LogIndex(index)), log.hash(LogIndex(index))) else {
                return check(false, "C4", || format!("{} lacks {index}, which it committed", id(node)));
            };
            let (entry, term) = (entry.clone(), self.members[node].term);
            if entry.kind == EntryKind::ConfChange {
                self.committed_confs.push(log.conf_at(entry.id.index).clone());
            }
            self.committed.push(Committed { hash, term, entry });
        }
        self.members[node].checked_commit = commit;
        self.c3_state_machine_safety(node, commit, hash)
    }

    /// N4 and C3: work for the state machine comes in order, without a gap, each entry once, and is what was
    /// committed.
    pub(super) fn n4_apply_in_order(&mut self, node: usize, apply: &Apply) -> Checked {
        match apply {
            Apply::Entries(entries) => {
                for entry in entries {
                    let member = &mut self.members[node];
                    let expected = member.handed.next();
                    check(entry.id.index == expected, "N4", || {
                        format!("{} was to apply {expected}, got {}", id(node), entry.id)
                    })?;
                    check(entry.id.index <= member.commit, "C3", || {
                        format!("{} was to apply {}, committed is {}", id(node), entry.id, member.commit)
                    })?;
                    member.handed = expected;
                    member.handed_hash = chain(member.handed_hash, entry);
                    let hash = member.handed_hash;
                    self.c3_state_machine_safety(node, expected, Some(hash))?;
                }
            }
            Apply::Restore(meta) => {
                let member = &mut self.members[node];
                check(meta.last.index > member.handed, "N4", || {
                    format!("{} was to go back from {} to snapshot {}", id(node), member.handed, meta.last)
                })?;
                let committed = self.committed.get(count(meta.last.index.0) - 1);
                let hash =
                    committed.filter(|committed| committed.entry.id == meta.last).map(|found| found.hash);
                check(hash.is_some(), "N3", || {
                    format!("{} was to restore {}, which was never committed", id(node), meta.last)
                })?;
                member.handed = meta.last.index;
                member.handed_hash = hash.unwrap_or_default();
            }
        }
        Ok(())
    }
}
