//! See `crate::model`.

use super::Leader;
use crate::{
    Instant, Now, Round, Timestamp,
    model::{BASE, Names},
};

impl Leader {
    pub(crate) fn normalise(&mut self, one_epoch: bool) {
        // Rounds serve reads, which are not part of the model.
        self.round = Round(1);
        // A notice is a heartbeat, which may leave at any time.
        self.notice_at = None;
        self.departs_at = self.departs_at.map(|_| BASE.plus_millis(2_000));
        if let Some(transfer) = &mut self.transfer {
            transfer.normalise();
        }
        // No replicated time passes.
        self.elected = Now { instant: Instant(u64::MAX), wall: Timestamp(0) };
        for peer in self.peers.values_mut() {
            peer.normalise(one_epoch);
        }
        if one_epoch {
            self.epochs = 1;
        }
    }

    pub(crate) fn rename(&mut self, names: Names<'_>) {
        self.peers =
            std::mem::take(&mut self.peers).into_iter().map(|(id, peer)| (names(id), peer)).collect();
        if let Some(transfer) = &mut self.transfer {
            transfer.rename(names);
        }
    }
}
