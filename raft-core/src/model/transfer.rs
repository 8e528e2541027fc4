//! See `crate::model`.

use super::Transfer;
use crate::model::{BASE, Names};

impl Transfer {
    pub(crate) fn normalise(&mut self) {
        self.deadline = BASE.plus_millis(1_000);
        // The word to campaign may leave again at any time.
        self.asked_at = None;
    }

    pub(crate) fn rename(&mut self, names: Names<'_>) {
        self.to = names(self.to);
    }
}
