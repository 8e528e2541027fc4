//! See `crate::model`.

use super::Shared;

impl Shared {
    /// Campaigns get their numbers from their terms, see `Candidate::normalise`.
    pub(crate) fn number_campaigns_from_zero(&mut self) {
        self.campaigns = 0;
    }
}
