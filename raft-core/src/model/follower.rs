//! See `crate::model`.

use super::Follower;
use crate::model::BASE;

impl Follower {
    pub(crate) fn normalise(&mut self) {
        self.heard_at = self.heard_at.map(|_| BASE);
        self.election_at = BASE.plus_millis(1);
    }
}
