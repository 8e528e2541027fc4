//! Standing for election, or asking first whether it would be won (dissertation 3.4, 9.6).

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
    /// Of an election: who was asked for a vote.
    asked: Vec<NodeId>,
    /// Of an election: the campaign whose late supporters are still asked for theirs.
    before: Option<CampaignId>,
    /// Of an election: the leader asked for it.
    transfer: bool,
    /// How often the question was asked again.
    repeats: u32,
    /// Of an election: when to ask those again whose answer should be here by now.
    repeat_at: Option<Instant>,
    /// When to try anew.
    retry_at: Instant,
}

impl Candidate {
    /// Asks everybody who has a vote whether they would give it. Nothing changes, here or there.
    pub(crate) fn ask(shared: &mut Shared) -> Candidate {
        let mut candidate = Candidate::new(shared);
        candidate.votes.insert(shared.id(), true);
        candidate.ask_silent(shared);
        candidate
    }

    /// Asks once more whoever has not agreed, a few times under the same number, so that late answers count as well.
    /// More patiently than the first time: who hears so few is cut off. `false` once the answers are too old.
    pub(crate) fn ask_again(&mut self, shared: &mut Shared) -> bool {
        if self.repeats >= PRE_VOTE_REPEATS_MAX {
            return false;
        }
        self.repeats = self.repeats.saturating_add(1);
        let patience_ms = shared.election_timeout_ms().saturating_mul(2);
        self.retry_at = shared.now.instant.plus_millis(patience_ms);
        self.votes.retain(|_, granted| *granted);
        self.ask_silent(shared);
        true
    }

    fn ask_silent(&self, shared: &mut Shared) {
        let (campaign, next_term, last) = (self.campaign, shared.term.next(), shared.log.last());
        for voter in voters(shared).into_iter().filter(|voter| !self.votes.contains_key(voter)) {
            shared.send(voter, Body::PreVote { campaign, next_term, last });
        }
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

    /// Who has answered: they are there.
    pub(crate) fn answered(&self) -> Vec<NodeId> {
        self.votes.keys().copied().collect()
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
            // The first answer stands: a repeated one says the same.
            self.votes.entry(voter).or_insert(granted);
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
            before: None,
            transfer: false,
            repeats: 0,
            repeat_at: None,
            retry_at: shared.now.instant.plus_millis(timeout_ms),
        }
    }
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
