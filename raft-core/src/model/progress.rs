//! See `crate::model`.

use super::{Progress, ProgressState};
use crate::{Epoch, LogIndex, Round, catch_up::CatchUp, model::BASE};

impl Progress {
    pub(crate) fn normalise(&mut self, one_epoch: bool) {
        if one_epoch {
            self.epoch = Epoch(1);
        }
        if let ProgressState::Snapshot { deadline, .. } = &mut self.state {
            *deadline = BASE.plus_millis(60_000);
        }
        // Whoever is given a vote is given it by force: the pace of catching up is not part of the model.
        self.rounds = CatchUp::new(LogIndex::ZERO, BASE);
        (self.heard_at, self.sent_at, self.appended_at) = (BASE, BASE, BASE);
        (self.asked_at, self.follow_up_at, self.owes_since) = (None, None, None);
        // It only orders whom a leader asks whose disk hangs.
        self.declined_at = None;
        (self.unheard, self.losses, self.clock_offset_ms) = (0, 0, 0);
        self.retry_at = self.retry_at.map(|_| BASE.plus_millis(200));
        // No disk forgets what it acknowledged (checked as P1), so no answer is ever below what was asked about.
        (self.acked_round, self.checked) = (Round(0), (Round(0), LogIndex::ZERO));
        // What a peer was told only decides whether a notice is due.
        self.commit_told = LogIndex(u64::MAX);
    }
}
