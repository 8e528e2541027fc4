//! What might have arrived as well. A release of another day may split its appends elsewhere, or send a snapshot where
//! ours sends entries: a follower must keep the rules with it too. And what was said to an earlier leader may reach it
//! when it leads again.

use super::{Sim, clock::MILLI, coverage::Mark, network::place, schedule::Phase};
use crate::{Body, LogIndex, Message};

impl Sim {
    /// Beside an append or in its place, sends a part of it, or the leader's snapshot. Whether in its place.
    pub(super) fn send_alternative(&mut self, n: usize, message: &Message) -> bool {
        let Body::AppendEntries { epoch, round, prev, commit, entries } = &message.body else { return false };
        if !self.random.chance(self.storm.alternatives) {
            return false;
        }
        let durable = &self.disks[n].durable.snapshot;
        let (epoch, round) = (*epoch, *round);
        let (body, snapshot) = if self.random.chance(300) && durable.meta.last.index > LogIndex::ZERO {
            self.coverage.hit(Mark::SnapshotUnneeded);
            self.ghost.offers(place(message.to), durable.meta.last.index);
            (
                Body::InstallSnapshot { epoch, round, meta: Box::new(durable.meta.clone()) },
                Some(durable.clone()),
            )
        } else {
            self.coverage.hit(Mark::AppendShortened);
            let kept = if self.random.chance(500) { 0 } else { self.random.index(entries.len() + 1) };
            let entries = entries.part(0..kept);
            (Body::AppendEntries { epoch, round, prev: *prev, commit: *commit, entries }, None)
        };
        let Message { from, to, term, .. } = *message;
        let message = Message { from, to, term, body };
        let directories = (self.disks[n].incarnation, self.disks[place(to)].incarnation);
        self.network.send(
            message,
            snapshot,
            directories,
            &mut self.agenda,
            &mut self.random,
            &mut self.coverage,
        );
        matches!(self.phase, Phase::Storm { .. }) && self.random.chance(500)
    }

    /// Keeps some of the answers that a node got, for another time.
    pub(super) fn keep_answer(&mut self, message: &Message) {
        if self.storm.alternatives == 0
            || !matches!(message.body, Body::AppendReply { .. } | Body::HeartbeatReply { .. })
        {
            return;
        }
        let kept = &mut self.nodes[place(message.to)].answers;
        if kept.len() < ANSWERS_MAX {
            kept.push(message.clone());
        } else if self.random.chance(100) {
            let at = self.random.index(kept.len());
            kept[at] = message.clone();
        }
    }

    /// A node leads again: old answers reach it once more.
    pub(super) fn repeat_answers(&mut self, n: usize) {
        if !self.random.chance(2 * self.storm.alternatives) {
            return;
        }
        for message in std::mem::take(&mut self.nodes[n].answers) {
            self.coverage.hit(Mark::AnswerRepeated);
            let delay = self.random.below(200 * MILLI);
            let directories = (self.disks[place(message.from)].incarnation, self.disks[n].incarnation);
            self.network.repeat(message, directories, delay, &mut self.agenda);
        }
    }
}

const ANSWERS_MAX: usize = 24;
