//! How many bytes a message or a persisted state takes. The core knows no encoding; this is a plain one, with numbers
//! in groups of seven bits and nothing written twice: an entry's index follows from the one before it.

use super::store::Snap;
use crate::{AppendOutcome, Body, Entry, LogId, Message, SnapshotMeta};

/// The bytes of a message on the wire.
pub(super) fn message(message: &Message, snap: Option<&Snap>) -> u64 {
    let head = 1 + number(message.from.0) + number(message.to.0) + number(message.term.0);
    head + match &message.body {
        Body::PreVote { campaign, next_term, last } => {
            number(campaign.0) + number(next_term.0) + log_id(*last)
        }
        Body::PreVoteReply { campaign, .. } | Body::RequestVoteReply { campaign, .. } => {
            number(campaign.0) + 1
        }
        Body::RequestVote { campaign, last, .. } => number(campaign.0) + log_id(*last) + 1,
        Body::AppendEntries { epoch, round, prev, commit, entries } => {
            let ids = number(epoch.0) + number(round.0) + log_id(*prev) + number(commit.0);
            ids + number(entries.len() as u64) + run(entries.iter())
        }
        Body::AppendReply { epoch, round, outcome } => {
            let outcome = match outcome {
                AppendOutcome::Matched(index) => number(index.0),
                AppendOutcome::Rejected { prev, hint } => number(prev.0) + log_id(*hint),
            };
            number(epoch.0) + number(round.0) + 1 + outcome
        }
        Body::Heartbeat { epoch, round, prev, commit } => {
            number(epoch.0) + number(round.0) + log_id(*prev) + number(commit.0)
        }
        Body::HeartbeatReply { epoch, round, matched, clock } => {
            number(epoch.0) + number(round.0) + number(matched.0) + number(clock.0)
        }
        Body::InstallSnapshot { epoch, round, meta: about } => {
            number(epoch.0) + number(round.0) + meta(about) + snap.map_or(0, Snap::bytes)
        }
        Body::TimeoutNow => 0,
        Body::Removed { conf_id } => log_id(*conf_id),
        Body::Refill { start, after, promised } => number(start.0) + log_id(*after) + log_id(*promised),
        Body::SnapshotNeeded { start, at_least } => number(start.0) + number(at_least.0),
        Body::ReadIndex { start, request } => number(start.0) + number(*request),
        Body::ReadIndexReply { start, request, index } => {
            number(start.0) + number(*request) + 1 + index.map_or(0, |index| number(index.0))
        }
    }
}

/// The bytes of consecutive entries: kind, term, time since the one before, session, checksum, length, payload.
pub(super) fn run<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    let mut time = 0;
    let entry = |entry: &Entry| {
        let passed = entry.time.0.saturating_sub(time);
        time = entry.time.0;
        let session = 1 + entry.session.map_or(0, |session| number(session.session) + number(session.seq));
        let payload = entry.payload.len() as u64;
        1 + number(entry.id.term.0) + number(passed) + session + 4 + number(payload) + payload
    };
    entries.map(entry).sum()
}

/// The bytes of an unsigned number.
pub(super) fn number(value: u64) -> u64 {
    u64::from((64 - value.leading_zeros()).max(1).div_ceil(7))
}

pub(super) fn log_id(id: LogId) -> u64 {
    number(id.term.0) + number(id.index.0)
}

fn meta(meta: &SnapshotMeta) -> u64 {
    log_id(meta.last) + number(meta.time.0) + log_id(meta.conf_id) + meta.conf.encode().len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_a_byte_for_each_seven_bits() {
        let sizes = [0, 127, 128, 16_383, 16_384, u64::MAX].map(number);
        assert_eq!(sizes, [1, 1, 2, 2, 3, 10]);
    }
}
