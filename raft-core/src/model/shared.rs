//! See `crate::model`.

use super::Shared;

impl Shared {
    /// Campaigns get their numbers from their terms, see `Candidate::normalise`. Epochs matter within a term only: they
    /// are counted on for the sake of snapshots, which are not part of the model.
    pub(crate) fn number_from_zero(&mut self) {
        (self.campaigns, self.epochs) = (0, 0);
    }
}
