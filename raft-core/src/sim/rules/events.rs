//! What happens to a node, in the order in which it does, and which rules look at it.

use super::{
    ASKS_MAX, Ask, Checked, Ghost, Member, Peer, View, check,
    plain::{
        c5_commit_never_falls, d1_asks_for_what_is_missing, d1_damaged_never_campaigns,
        e3_durable_before_sent, e4_vote_kept_within_term, e5_e8_grant, e7_majority_of_one_campaign,
        e12_no_term_zero, l2_leader_append_only, l3_real_conflict, l4_terms_rise, l5_no_hole,
        l6_acknowledged_is_durable, n1_only_newer_snapshots, n2_compacted_behind_snapshot,
        n2_suffix_kept_if_it_fits, p1_match_is_true,
    },
};
use crate::{
    AppendOutcome, Body, EntryKind, Event, HaltReason, Incarnation, Instant, LogId, Message, NodeId, Ready,
    RoleKind, Write,
    sim::{
        coverage::{Coverage, Mark},
        disk::{Disk, Image},
        network::{id, place},
    },
};

impl Ghost {
    /// A node starts from what its disk holds.
    pub(in crate::sim) fn starts(&mut self, node: usize, image: &Image, incarnation: Incarnation) {
        let nodes = self.members.len();
        self.members[node] = Member {
            term: image.hard_state.term,
            log: image.log.clone(),
            hard_state: image.hard_state,
            promised: image.promised(),
            was_damaged: image.lost.is_some() || self.members[node].was_damaged,
            offered: self.members[node].offered,
            compacted: image.log.start().index,
            handed: image.snapshot.meta.last.index,
            handed_hash: image.snapshot.hash,
            peers: vec![Peer::default(); nodes],
            incarnation,
            ..Member::default()
        };
    }

    /// A message is about to be handed to a node.
    pub(in crate::sim) fn receives(
        &mut self,
        node: usize,
        message: &Message,
        now: Instant,
        coverage: &mut Coverage,
    ) {
        let min = self.election_timeout_min;
        let member = &mut self.members[node];
        member.now = now;
        // A leader that stands itself leads no more: only in the next term, so nobody is loyal to it any longer.
        let heard = member
            .contact
            .is_some_and(|(leader, contact)| now.micros_since(contact) < min && leader != message.from);
        let sticky = member.role == RoleKind::Follower && heard;
        let from = place(message.from);
        let own = member.bound();
        let ask = match message.body {
            Body::PreVote { campaign, next_term, last } => {
                if message.term < member.term {
                    coverage.hit(Mark::LowerTermPreVote);
                }
                Some(Ask { pre: true, term: next_term, candidate: message.from, campaign, last, own, sticky })
            }
            Body::RequestVote { campaign, last, transfer } => {
                let sticky = sticky && !transfer;
                Some(Ask {
                    pre: false,
                    term: message.term,
                    candidate: message.from,
                    campaign,
                    last,
                    own,
                    sticky,
                })
            }
            _ => None,
        };
        if let Some(ask) = ask {
            if ask.sticky {
                coverage.hit(Mark::StickyVoteRequest);
            }
            if ask.last < member.log.last() {
                coverage.hit(Mark::StaleCandidate);
            } else if Some(ask.last) < member.promised {
                coverage.hit(Mark::PromiseKept);
            }
            if member.asks.len() >= ASKS_MAX {
                member.asks.remove(0);
            }
            member.asks.push(ask);
        }
        match &message.body {
            Body::AppendEntries { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. } => {
                if message.term >= member.term {
                    member.contact = Some((message.from, now));
                } else {
                    coverage.hit(Mark::LowerTermAppend);
                }
                match &message.body {
                    Body::AppendEntries { entries, .. }
                        if entries
                            .last()
                            .is_some_and(|last| member.log.term(last.id.index) == Some(last.id.term)) =>
                    {
                        coverage.hit(Mark::DuplicateAppend);
                    }
                    Body::InstallSnapshot { meta, .. } if meta.last.index <= member.commit => {
                        coverage.hit(Mark::StaleSnapshot);
                    }
                    _ => {}
                }
            }
            Body::RequestVoteReply { campaign, granted } => {
                if *granted {
                    member.campaign.count(message.term, *campaign, from);
                } else {
                    coverage.hit(Mark::VoteRefused);
                }
            }
            Body::PreVoteReply { campaign, granted } => {
                if *granted {
                    let term = member.pre_campaign.term;
                    member.pre_campaign.count(term, *campaign, from);
                } else {
                    coverage.hit(Mark::PreVoteRefused);
                }
            }
            Body::AppendReply { epoch, outcome, .. } => match outcome {
                AppendOutcome::Matched(index) => {
                    member.success(from, message.term, *epoch, *index, coverage);
                    member.note_old_term_on_quorum(node, coverage);
                }
                AppendOutcome::Rejected { .. } => {
                    coverage.hit(Mark::AppendRejected);
                    let known = &mut member.peers[from];
                    if known.term == message.term && known.epoch == *epoch {
                        known.heard = Some(now);
                    }
                }
            },
            Body::HeartbeatReply { epoch, matched, .. } => {
                member.success(from, message.term, *epoch, *matched, coverage);
            }
            Body::Refill { .. } => {
                if member.role == RoleKind::Leader && member.term == message.term {
                    coverage.hit(Mark::RefillAsked);
                }
            }
            Body::PreVote { .. }
            | Body::RequestVote { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Removed { .. }
            | Body::SnapshotNeeded { .. } => {}
        }
    }

    /// A node was told that its leader's process is gone: stickiness ends (E8).
    pub(in crate::sim) fn leader_died(&mut self, node: usize, peer: NodeId) {
        let member = &mut self.members[node];
        if member.leader.is_some_and(|(_, leader)| leader == peer) {
            member.contact = None;
        }
    }

    /// A node has taken an input: compares what it shows with what it showed.
    pub(in crate::sim) fn took(
        &mut self,
        node: usize,
        view: View,
        disks: &[Disk],
        coverage: &mut Coverage,
    ) -> Checked {
        self.took_as_member(node, &view, coverage)?;
        let member = &mut self.members[node];
        member.inputs += 1;
        let before = (member.term, member.role, member.commit);
        if (view.term, view.role, view.commit) == before
            && view.leader == member.leader.filter(|(term, _)| *term == view.term).map(|(_, leader)| leader)
        {
            return Ok(());
        }
        let (old_term, old_role, old_commit) = before;
        check(view.term >= old_term, "E4", || {
            format!("{} went back from term {old_term} to {}", id(node), view.term)
        })?;
        d1_damaged_never_campaigns(id(node), view.role, disks[node].durable.promised())?;
        c5_commit_never_falls(id(node), old_commit, view.commit)?;
        member.term = view.term;
        member.role = view.role;
        member.commit = view.commit;
        if view.term > old_term && view.leader.is_none() {
            member.contact = None;
        }
        if view.role == RoleKind::Candidate && old_role == RoleKind::PreCandidate {
            let granted = member.pre_campaign.granted | 1 << node;
            e7_majority_of_one_campaign(id(node), view.role, granted, &view.conf.1)?;
        }
        if view.role == RoleKind::Leader && (old_role != RoleKind::Leader || view.term != old_term) {
            let campaign = member.campaign;
            let granted = if campaign.term == view.term { campaign.granted } else { 1 << node };
            e7_majority_of_one_campaign(id(node), view.role, granted, &view.conf.1)?;
            let deposed = self.members.iter().enumerate().any(|(other, known)| {
                other != node && known.role == RoleKind::Leader && known.term < view.term
            });
            coverage.hit(Mark::LeaderElected);
            if deposed {
                coverage.hit(Mark::TwoLeadersOfDifferentTerms);
            }
            self.e1_one_leader_per_term(view.term, id(node))?;
            self.e2_one_vote_per_term(view.term, id(node), id(node))?;
            self.c4_leader_completeness(node)?;
        }
        if let Some(leader) = view.leader {
            self.e11_leader_set_once(node, view.term, leader)?;
        }
        // A leader that is removed commits that and steps down at once.
        if old_role == RoleKind::Leader && view.term == old_term && view.commit > old_commit {
            self.c1_commit(node, view.commit, &view.conf.1, disks, coverage)?;
        }
        Ok(())
    }

    /// A node hands out its work.
    pub(in crate::sim) fn hands_out(
        &mut self,
        node: usize,
        ready: &Ready,
        snapshot: Option<u64>,
        durable: &Image,
        coverage: &mut Coverage,
    ) -> Checked {
        for event in &ready.events {
            self.no_alarm(node, event)?;
            if let Event::Refilled { .. } = event {
                coverage.hit(Mark::LogRefilled);
            }
            self.transfer_ended(node, event, coverage)?;
        }
        self.members[node].promised = durable.promised();
        for message in &ready.messages {
            if let Body::PreVoteReply { campaign, granted: true } = message.body {
                let member = &self.members[node];
                let asks: Vec<Ask> =
                    member.asked(|ask| ask.pre && ask.candidate == message.to && ask.campaign == campaign);
                let cuts = ready.write.as_ref().is_some_and(|write| write.truncate_after.is_some());
                let last = if cuts { member.promised.unwrap_or_default() } else { member.bound() };
                let asked = asks.iter().map(|ask| ask.own).min().unwrap_or_default();
                e5_e8_grant(id(node), last.min(asked), message.to, &asks)?;
            }
        }
        if let Some(write) = &ready.write {
            let ended = ready.events.iter().any(|event| matches!(event, Event::TransferEnded { .. }));
            self.x1_proposals_are_frozen(node, !write.entries.is_empty(), ended)?;
            self.writes(node, write, snapshot, coverage)?;
        }
        if let Some(index) = ready.compact {
            n2_compacted_behind_snapshot(id(node), index, durable)?;
            let member = &mut self.members[node];
            member.compacted = member.compacted.max(index);
            member.log.compact(index);
        }
        self.l8_follower_commit(node)?;
        for apply in &ready.apply {
            self.n4_apply_in_order(node, apply)?;
        }
        if !ready.apply.is_empty() && self.members[node].handed > durable.log.last().index {
            coverage.hit(Mark::AppliedAheadOfDisk);
        }
        let member = &mut self.members[node];
        member.inputs = 0;
        member.transfer_at_drain = member.transfer;
        if member.role == RoleKind::Leader {
            for peer in &mut member.peers {
                peer.acked_before_drain = peer.acked_at_drain;
                peer.acked_at_drain = peer.acked;
            }
        }
        Ok(())
    }

    /// A message leaves.
    pub(in crate::sim) fn sends(
        &mut self,
        message: &Message,
        disks: &[Disk],
        coverage: &mut Coverage,
    ) -> Checked {
        let node = place(message.from);
        let to = place(message.to);
        e12_no_term_zero(message)?;
        e3_durable_before_sent(message, &disks[node])?;
        self.sends_as_member(message, &disks[node], coverage)?;
        match &message.body {
            Body::RequestVoteReply { granted: true, .. } => {
                coverage.hit(Mark::VoteGranted);
                self.e2_one_vote_per_term(message.term, message.from, message.to)?;
            }
            Body::RequestVote { campaign, .. } => {
                self.e2_one_vote_per_term(message.term, message.from, message.from)?;
                self.members[node].campaign.ask(message.term, *campaign, node);
            }
            Body::PreVote { campaign, next_term, .. } => {
                self.members[node].pre_campaign.ask(*next_term, *campaign, node);
            }
            Body::AppendReply { outcome: AppendOutcome::Matched(matched), .. }
            | Body::HeartbeatReply { matched, .. } => {
                l6_acknowledged_is_durable(message, *matched, &disks[node].durable, &self.members[to])?;
            }
            Body::Heartbeat { epoch, prev, .. } => {
                p1_match_is_true(message, *prev, &disks[to].durable)?;
                self.p4_believes_only_current_replies(message, *prev)?;
                if let Some(acked) = self.members[node].address(to, message.term, *epoch) {
                    check(prev.index >= acked, "P2", || {
                        format!("{} has forgotten that {} proved {acked}: {prev}", message.from, message.to)
                    })?;
                }
            }
            Body::AppendEntries { epoch, prev, entries, .. } => {
                let first = entries.first().map_or(prev.index.next(), |entry| entry.id.index);
                check(first == prev.index.next(), "L5", || {
                    format!("{} sent an append of {first} behind {prev}", message.from)
                })?;
                if let Some(acked) = self.members[node].address(to, message.term, *epoch) {
                    check(prev.index >= acked, "P3", || {
                        format!("{} sent {} what follows {prev}, proven is {acked}", message.from, message.to)
                    })?;
                }
            }
            Body::Refill { after, promised, .. } => {
                d1_asks_for_what_is_missing(message.from, *after, *promised, &disks[node].durable)?;
            }
            Body::InstallSnapshot { epoch, .. } => {
                self.members[node].address(to, message.term, *epoch);
            }
            Body::RequestVoteReply { granted: false, .. }
            | Body::PreVoteReply { .. }
            | Body::AppendReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Removed { .. }
            | Body::SnapshotNeeded { .. } => {}
        }
        Ok(())
    }

    /// What a core reports that cannot happen where no disk was wiped and no peer lies.
    pub(super) fn no_alarm(&self, node: usize, event: &Event) -> Checked {
        match event {
            Event::Halted(reason) => {
                let rule = match reason {
                    HaltReason::SnapshotConflictsWithCommitted { .. } => "N3",
                    HaltReason::AppendConflictsWithCommitted { .. } | HaltReason::BadConfiguration(_) => "C3",
                    HaltReason::TwoLeaders { .. } => "E1",
                };
                check(false, rule, || format!("{} halted: {reason}", id(node)))
            }
            // The damage was no secret: the peer tells of it itself.
            Event::PeerRegressed { peer, .. } if self.members[place(*peer)].was_damaged => Ok(()),
            // A leader that had sent the snapshot would know why the peer speaks of less.
            Event::PeerRegressed { peer, matched, .. } if *matched < self.members[place(*peer)].offered => {
                Ok(())
            }
            Event::PeerRegressed { peer, matched, now } => check(false, "P5", || {
                format!("{} reports that {peer} went back from {matched} to {now}", id(node))
            }),
            Event::RoleChanged { .. }
            | Event::ConfChanged { .. }
            | Event::ConfCommitted { .. }
            | Event::Removed { .. }
            | Event::TransferEnded { .. }
            | Event::Refilled { .. }
            | Event::SnapshotWanted { .. }
            | Event::SnapshotReplaced { .. } => Ok(()),
        }
    }

    pub(super) fn writes(
        &mut self,
        node: usize,
        write: &Write,
        snapshot: Option<u64>,
        coverage: &mut Coverage,
    ) -> Checked {
        let member = &self.members[node];
        let old = member.hard_state;
        let new = write.hard_state;
        e4_vote_kept_within_term(id(node), old, new)?;
        let vote = new.vote.filter(|vote| *vote != id(node) && (new.term > old.term || old.vote.is_none()));
        if let Some(candidate) = vote {
            // With several inputs since, the log at the moment of the vote lies between before and after.
            let asks: Vec<Ask> =
                member.asked(|ask| !ask.pre && ask.candidate == candidate && ask.term == new.term);
            let last = if write.truncate_after.is_some() { LogId::ZERO } else { member.log.last() };
            let last = last.max(member.promised.unwrap_or_default());
            e5_e8_grant(id(node), last, candidate, &asks)?;
        }
        if let Some(after) = write.truncate_after {
            let cut = after < member.log.last().index;
            l2_leader_append_only(id(node), member.role, cut)?;
            let first = write.entries.first().map(|entry| entry.id);
            if cut && member.inputs <= 1 && write.snapshot.is_none() {
                coverage.hit(Mark::Truncated);
                l3_real_conflict(id(node), &member.log, after, member.checked_commit, first)?;
            }
            check(after >= member.checked_commit, "L3", || {
                format!("{} cut its log after {after}, committed is {}", id(node), member.checked_commit)
            })?;
        }
        let member = &mut self.members[node];
        member.hard_state = new;
        if let Some(after) = write.truncate_after {
            if member.log.conf().0.index > after {
                coverage.hit(Mark::ConfRolledBack);
            }
            member.log.truncate_after(after);
        }
        if let Some(mark) = &write.snapshot {
            let last = mark.meta.last;
            let fits = member.log.start().index > last.index;
            if !fits || mark.resets_log {
                n2_suffix_kept_if_it_fits(id(node), &member.log, last, mark.resets_log)?;
            }
            if mark.received {
                n1_only_newer_snapshots(id(node), member.checked_commit, last)?;
            }
            if mark.resets_log {
                coverage.hit(Mark::SnapshotReplacedLog);
                member.log.reset(&mark.meta, snapshot.unwrap_or_default());
            }
            check(snapshot.is_some(), "N2", || {
                format!("{} noted snapshot {last} without its file", id(node))
            })?;
            self.c3_state_machine_safety(node, last.index, snapshot)?;
            self.m7_snapshot_conf(id(node), &mark.meta, coverage)?;
        }
        for entry in &write.entries {
            let member = &mut self.members[node];
            l5_no_hole(id(node), member.log.last(), entry.id)?;
            l4_terms_rise(id(node), &member.log, entry, new.term)?;
            if entry.kind == EntryKind::ConfChange {
                self.changes(node, entry, new.term, coverage)?;
            }
            let member = &mut self.members[node];
            let hash = member.log.push(entry.clone());
            self.l1_log_matching(id(node), entry.id, hash)?;
        }
        let last = self.members[node].log.last().index;
        check(new.commit <= last, "C5", || {
            format!("{} wrote the commit hint {}, its log ends at {last}", id(node), new.commit)
        })
    }
}
