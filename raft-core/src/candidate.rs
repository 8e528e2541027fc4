//! Standing for election, or asking first whether it would be won (dissertation 3.4, 9.6).

#[cfg(feature = "model")]
#[path = "model/candidate.rs"]
mod model;

use std::collections::BTreeMap;

use crate::{
    Body, CampaignId, Instant, NodeId,
    quorum::{self, Tally},
    shared::{Next, Shared},
};

/// One campaign: a pre-vote or an election.
///
/// Invariant: only answers to this very campaign are counted (SAFETY E7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    campaign: CampaignId,
    votes: BTreeMap<NodeId, bool>,
    /// Who was asked.
    asked: Vec<NodeId>,
    /// Who was not asked, as the others are enough. Ends with the leader that fell silent.
    spared: Vec<NodeId>,
    /// How many answers there were when it was asked last.
    known: usize,
    /// The leader that fell silent.
    lost: Option<NodeId>,
    /// Of an election: the campaign whose late supporters are still asked for theirs.
    before: Option<CampaignId>,
    /// Of an election: the leader asked for it.
    transfer: bool,
    /// How often the question was asked again.
    repeats: u32,
    /// When those are asked whose answer should be here by now, or who were spared.
    repeat_at: Option<Instant>,
    /// When to try anew.
    retry_at: Instant,
}

impl Candidate {
    /// Asks as many of those who have a vote as it takes whether they would give it. Nothing changes, here or there.
    pub(crate) fn ask(shared: &mut Shared) -> Candidate {
        let mut candidate = Candidate::new(shared);
        candidate.votes.insert(shared.id(), true);
        candidate.ask_enough(shared);
        candidate
    }

    /// Asks once more as many as it takes of those who have not agreed, a few times under the same number, so that late
    /// answers count as well. More patiently than the first time: who hears so few is cut off. `false` once the answers
    /// are too old.
    pub(crate) fn ask_again(&mut self, shared: &mut Shared) -> bool {
        if self.repeats >= PRE_VOTE_REPEATS_MAX {
            return false;
        }
        self.repeats = self.repeats.saturating_add(1);
        let patience_ms = shared.election_timeout_ms().saturating_mul(3) / 2;
        self.retry_at = shared.now.instant.plus_millis(patience_ms);
        self.votes.retain(|_, granted| *granted);
        self.ask_enough(shared);
        true
    }

    /// The first question goes to a quorum, in any order, the silent leader last: with everybody there they are enough,
    /// and a node that is cut off asks half as often in vain.
    fn ask_enough(&mut self, shared: &mut Shared) {
        let mut silent = voters(shared);
        silent.retain(|voter| !self.votes.contains_key(voter));
        // In turn: who was asked last, if anybody, comes last.
        let count = silent.len().max(1);
        let turn = usize::try_from(shared.rng.between(0, count as u64)).unwrap_or_default();
        let turn = self.asked.last().map_or(turn, |last| silent.partition_point(|voter| voter <= last));
        silent.rotate_left(turn % count);
        if self.repeats == 0
            && let Some(lost) = self.lost
        {
            silent.sort_by_key(|voter| *voter == lost);
        }
        let mut hoped = self.votes.clone();
        let enough = silent.iter().position(|voter| {
            hoped.insert(*voter, true);
            quorum::tally(shared.log.conf(), &hoped) == Tally::Won
        });
        let enough = enough.map_or(silent.len(), |last| last.saturating_add(1));
        self.spared = silent.split_off(enough);
        self.known = self.votes.len();
        self.repeat_at = Some(shared.now.instant.plus_millis(shared.config.heartbeat_ms / 4));
        self.asked = silent;
        for voter in self.asked.clone() {
            self.ask_whether(shared, voter);
        }
    }

    /// Somebody with a shorter log is there and looks for a leader as well: it is asked at once.
    pub(crate) fn ask_back(&mut self, shared: &mut Shared, voter: NodeId) {
        if self.votes.get(&voter) != Some(&true) && shared.log.conf().is_voter(voter) {
            self.ask_whether(shared, voter);
        }
    }

    fn ask_whether(&self, shared: &mut Shared, voter: NodeId) {
        let (campaign, next_term, last) = (self.campaign, shared.term.next(), shared.log.last());
        shared.send(voter, Body::PreVote { campaign, next_term, last });
    }

    /// A pre-vote goes on. Those who were spared are asked as well, if somebody answered, or if they could be a quorum
    /// without those who did not. `PreCampaign` if the time is up.
    pub(crate) fn tick_asking(&mut self, shared: &mut Shared) -> Next {
        let now = shared.now.instant;
        if self.retry_at <= now {
            return if shared.may_campaign() { Next::PreCampaign } else { Next::Follow };
        }
        if self.repeat_at.take_if(|at| *at <= now).is_some() {
            let mut hoped = self.votes.clone();
            let hopeful = self.spared.iter().filter(|voter| self.lost != Some(**voter));
            hoped.extend(hopeful.map(|voter| (*voter, true)));
            let answered = self.votes.len() > self.known;
            if answered || (self.repeats == 0 && quorum::tally(shared.log.conf(), &hoped) == Tally::Won) {
                for voter in std::mem::take(&mut self.spared) {
                    self.ask_whether(shared, voter);
                    self.asked.push(voter);
                }
            }
        }
        Next::Stay
    }

    /// Asks for votes in the current term. The own vote counts, and the requests leave, once it is durable (SAFETY
    /// E3). Who was asked `before` whether it would vote so is asked for its vote once it has agreed: those who are
    /// down are not asked in vain.
    pub(crate) fn stand(shared: &mut Shared, before: Option<Candidate>, transfer: bool) -> Candidate {
        let mut candidate = Candidate::new(shared);
        if planted!(VoteRequestBeforeDisk) {
            let (campaign, last) = (candidate.campaign, shared.log.last());
            let body = Body::RequestVote { campaign, last, transfer };
            let (from, term) = (shared.id(), shared.term);
            let ids = shared.log.conf().all().into_iter().filter(|id| *id != from);
            shared.out.messages.extend(ids.map(|to| crate::Message { from, to, term, body: body.clone() }));
            return candidate;
        }
        candidate.asked = voters(shared);
        if let Some(before) = &before {
            candidate.asked.retain(|voter| before.votes.get(voter) == Some(&true));
            candidate.spared = before.spared.clone();
            candidate.lost = before.lost;
        }
        candidate.before = before.map(|before| before.campaign);
        candidate.transfer = transfer;
        candidate.repeat_at = Some(shared.now.instant.plus_millis(shared.config.heartbeat_ms / 4));
        for voter in candidate.asked.clone() {
            candidate.ask_for_vote(shared, voter);
        }
        candidate
    }

    /// The answer to the question before this election: a late supporter is asked for its vote.
    pub(crate) fn agreed(&mut self, shared: &mut Shared, voter: NodeId, campaign: CampaignId) {
        if self.before == Some(campaign) && !self.asked.contains(&voter) {
            self.asked.push(voter);
            self.ask_for_vote(shared, voter);
        }
    }

    /// What is known of a voter when the election is won.
    pub(crate) fn presence(&self, voter: NodeId) -> Presence {
        let spared = self.spared.contains(&voter) && self.lost != Some(voter);
        match self.votes.get(&voter) {
            Some(true) => Presence::Agreed,
            None if !spared => Presence::Silent,
            Some(false) | None => Presence::Unknown,
        }
    }

    /// An election goes on. A request or its answer may be lost, so each is asked again soon, and once more when the
    /// time is up; only then the election has failed.
    pub(crate) fn tick(&mut self, shared: &mut Shared) -> Next {
        let now = shared.now.instant;
        let soon = self.repeat_at.take_if(|at| *at <= now).is_some();
        let late = self.retry_at <= now;
        if late {
            if self.repeats >= VOTE_REPEATS_MAX {
                return if shared.may_campaign() { Next::PreCampaign } else { Next::Follow };
            }
            self.repeats = self.repeats.saturating_add(1);
            self.retry_at = now.plus_millis(shared.election_timeout_ms());
        }
        if soon || late {
            self.asked.append(&mut self.spared);
            for voter in self.asked.clone().into_iter().filter(|voter| !self.votes.contains_key(voter)) {
                self.ask_for_vote(shared, voter);
            }
        }
        Next::Stay
    }

    fn ask_for_vote(&self, shared: &mut Shared, voter: NodeId) {
        let (campaign, last, transfer) = (self.campaign, shared.log.last(), self.transfer);
        shared.send(voter, Body::RequestVote { campaign, last, transfer });
    }

    /// Counts an answer, if it is to this campaign.
    pub(crate) fn count(
        &mut self,
        shared: &Shared,
        voter: NodeId,
        campaign: CampaignId,
        granted: bool,
    ) -> Tally {
        if campaign == self.campaign || planted!(VotesOfEarlierCampaign) {
            // Who was asked again may have changed its mind, if its leader fell silent meanwhile; a late refusal takes
            // nothing back.
            *self.votes.entry(voter).or_default() |= granted;
        }
        self.tally(shared)
    }

    /// Counts the own vote, which is durable now.
    pub(crate) fn count_own(&mut self, shared: &Shared) -> Tally {
        self.votes.insert(shared.id(), true);
        self.tally(shared)
    }

    pub(crate) fn tally(&self, shared: &Shared) -> Tally {
        quorum::tally(shared.log.conf(), &self.votes)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.repeat_at.map_or(self.retry_at, |at| at.min(self.retry_at))
    }

    fn new(shared: &mut Shared) -> Candidate {
        let timeout_ms = shared.election_timeout_ms();
        Candidate {
            campaign: shared.next_campaign(),
            votes: BTreeMap::new(),
            asked: Vec::new(),
            spared: Vec::new(),
            known: 0,
            lost: shared.term_leader,
            before: None,
            transfer: false,
            repeats: 0,
            repeat_at: None,
            retry_at: shared.now.instant.plus_millis(timeout_ms),
        }
    }
}

/// What an election told its winner of another voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It voted for the winner: it will not look for a leader soon.
    Agreed,
    /// It was asked and did not answer: it may be down.
    Silent,
    /// It voted for another or was not asked.
    Unknown,
}

/// Everybody else who has a vote.
fn voters(shared: &Shared) -> Vec<NodeId> {
    let own = shared.id();
    let conf = shared.log.conf();
    conf.all().into_iter().filter(|id| *id != own && conf.is_voter(*id)).collect()
}

/// How often the same question is asked again before what was answered to it is too old.
const PRE_VOTE_REPEATS_MAX: u32 = 3;
/// How often votes are asked for again when the time is up: a split vote must not last.
const VOTE_REPEATS_MAX: u32 = 1;
