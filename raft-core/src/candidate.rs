//! Standing for election, or asking first whether it would be won (dissertation 3.4, 9.6).

use std::collections::BTreeMap;

use crate::{
    Body, CampaignId, Instant, NodeId,
    quorum::{self, Tally},
    shared::Shared,
};

/// One campaign: a pre-vote or an election.
///
/// Invariant: only answers to this very campaign are counted (SAFETY E7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    campaign: CampaignId,
    votes: BTreeMap<NodeId, bool>,
    /// When to try anew.
    retry_at: Instant,
}

impl Candidate {
    /// Asks everybody who has a vote whether they would give it. Nothing changes, here or there.
    pub(crate) fn ask(shared: &mut Shared) -> Candidate {
        let mut candidate = Candidate::new(shared);
        candidate.votes.insert(shared.id(), true);
        let (campaign, next_term, last) = (candidate.campaign, shared.term.next(), shared.log.last());
        candidate.send_all(shared, || Body::PreVote { campaign, next_term, last });
        candidate
    }

    /// Asks for votes in the current term. The own vote counts, and the requests leave, once it is durable (SAFETY
    /// E3).
    pub(crate) fn stand(shared: &mut Shared, transfer: bool) -> Candidate {
        let candidate = Candidate::new(shared);
        let (campaign, last) = (candidate.campaign, shared.log.last());
        if planted!(VoteRequestBeforeDisk) {
            let body = Body::RequestVote { campaign, last, transfer };
            let (from, term) = (shared.id(), shared.term);
            let ids = shared.log.conf().all().into_iter().filter(|id| *id != from);
            shared.out.messages.extend(ids.map(|to| crate::Message { from, to, term, body: body.clone() }));
            return candidate;
        }
        candidate.send_all(shared, || Body::RequestVote { campaign, last, transfer });
        candidate
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
        self.retry_at
    }

    fn new(shared: &mut Shared) -> Candidate {
        let timeout_ms = shared.election_timeout_ms();
        Candidate {
            campaign: shared.next_campaign(),
            votes: BTreeMap::new(),
            retry_at: shared.now.instant.plus_millis(timeout_ms),
        }
    }

    fn send_all(&self, shared: &mut Shared, body: impl Fn() -> Body) {
        let own = shared.id();
        let conf = shared.log.conf();
        let voters: Vec<NodeId> =
            conf.all().into_iter().filter(|id| *id != own && conf.is_voter(*id)).collect();
        for voter in voters {
            shared.send(voter, body());
        }
    }
}
