//! A readable account of a run, written only when asked for.

use crate::{AppendOutcome, Body, Message, Write, sim::clock::Time};

/// Collects lines. Off, it costs one comparison per line.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    pub(super) on: bool,
    lines: Vec<String>,
}

impl Trace {
    pub(super) fn line(&mut self, time: Time, text: impl FnOnce() -> String) {
        if self.on {
            self.lines.push(format!("{:>11.3} ms  {}", milliseconds(time), text()));
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}

#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn milliseconds(time: Time) -> f64 {
    time as f64 / 1000.0
}

/// One message in one line.
pub(super) fn message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let text = match body {
        Body::PreVote { campaign, next_term, last } => {
            format!("campaign={} next_term={next_term} last={last}", campaign.0)
        }
        Body::PreVoteReply { campaign, granted } | Body::RequestVoteReply { campaign, granted } => {
            format!("campaign={} granted={granted}", campaign.0)
        }
        Body::RequestVote { campaign, last, transfer } => {
            format!("campaign={} last={last} transfer={transfer}", campaign.0)
        }
        Body::AppendEntries { epoch, round, prev, commit, entries } => {
            let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
            format!("epoch={} round={} prev={prev} commit={commit} [{}]", epoch.0, round.0, ids.join(" "))
        }
        Body::AppendReply { epoch, round, outcome } => match outcome {
            AppendOutcome::Matched(index) => {
                format!("epoch={} round={} matched={index}", epoch.0, round.0)
            }
            AppendOutcome::Rejected { prev, hint } => {
                format!("epoch={} round={} rejected={prev} hint={hint}", epoch.0, round.0)
            }
        },
        Body::Heartbeat { epoch, round, prev, commit } => {
            format!("epoch={} round={} prev={prev} commit={commit}", epoch.0, round.0)
        }
        Body::HeartbeatReply { epoch, round, matched, .. } => {
            format!("epoch={} round={} matched={matched}", epoch.0, round.0)
        }
        Body::InstallSnapshot { epoch, round, meta } => {
            format!("epoch={} round={} last={}", epoch.0, round.0, meta.last)
        }
        Body::TimeoutNow => String::new(),
        Body::Removed { conf_id } => format!("conf={conf_id}"),
        Body::ReadIndex { start, request } => format!("start={start} request={request}"),
        Body::ReadIndexReply { start, request, index } => {
            format!("start={start} request={request} index={index:?}")
        }
        Body::Refill { start, after, promised } => {
            format!("start={start} after={after} promised={promised}")
        }
        Body::SnapshotNeeded { start, at_least } => format!("start={start} at_least={at_least}"),
    };
    format!("{from}>{to} t{term} {} {text}", body.name())
}

/// One write in one line.
pub(super) fn write(write: &Write) -> String {
    let hard_state = &write.hard_state;
    let mut text = format!(
        "write {} term={} vote={:?} commit={}",
        write.id.0,
        hard_state.term,
        hard_state.vote.map(|id| id.0),
        hard_state.commit
    );
    if let Some(index) = write.truncate_after {
        text += &format!(" truncate_after={index}");
    }
    if let Some(mark) = &write.snapshot {
        text += &format!(
            " snapshot={} received={} resets_log={}",
            mark.meta.last, mark.received, mark.resets_log
        );
    }
    if let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) {
        text += &format!(" entries {}..={}", first.id, last.id);
    }
    text
}
