//! See `crate::model`.

use super::{Candidate, PRE_VOTE_REPEATS_MAX, VOTE_REPEATS_MAX};
use crate::{
    CampaignId,
    model::{BASE, Names},
};

impl Candidate {
    pub(crate) fn normalise(&mut self, number: CampaignId) {
        self.campaign = number;
        // An election follows the question about it, which was asked in the term before.
        self.before = self.before.map(|_| CampaignId(number.0.saturating_sub(1)));
        self.asked.sort_unstable();
        // A question that is asked again is the same message; the next deadline begins anew.
        self.repeats = VOTE_REPEATS_MAX.max(PRE_VOTE_REPEATS_MAX);
        self.repeat_at = None;
        // Whom it asks first is only a matter of pace: where pre-votes are no messages, everybody answers.
        self.spared.clear();
        (self.known, self.lost) = (0, None);
        self.retry_at = BASE.plus_millis(1);
    }

    pub(crate) fn rename(&mut self, names: Names<'_>) {
        self.votes = self.votes.iter().map(|(id, granted)| (names(*id), *granted)).collect();
        self.asked = self.asked.iter().map(|id| names(*id)).collect();
        self.asked.sort_unstable();
    }
}
