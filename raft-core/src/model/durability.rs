//! See `crate::model`.

use super::Durability;
use crate::{
    WriteId,
    model::{BASE, Names, hash_of},
};

impl Durability {
    /// Writes are numbered from the first that is not durable. What waits is a set.
    pub(crate) fn normalise(&mut self, one_epoch: bool) {
        let done = self.persisted.0;
        let shift = |id: WriteId| WriteId(id.0.saturating_sub(done));
        (self.issued, self.persisted) = (shift(self.issued), WriteId(0));
        for pending in &mut self.pending {
            (pending.id, pending.since) = (shift(pending.id), BASE);
        }
        for held in &mut self.held {
            held.needs = shift(held.needs);
            held.message.normalise(one_epoch);
        }
        self.sort_held();
    }

    pub(crate) fn rename(&mut self, names: Names<'_>) {
        for held in &mut self.held {
            held.message = held.message.renamed(names);
        }
        self.sort_held();
    }

    pub(crate) fn drop_held(&mut self) {
        self.held.clear();
    }

    fn sort_held(&mut self) {
        self.held.sort_by_cached_key(|held| (held.needs, hash_of(&held.message)));
        self.held.dedup();
    }
}
