//! What cores do, told in one line an effect.

use raft_core::{
    AppendOutcome, Apply, Body, ConfState, Entry, EntryKind, Event, Message, NodeId, ReadOutcome, Ready,
    RoleKind, TransferOutcome, Write,
};

/// The lines so far, if somebody wants them.
#[derive(Default)]
pub(crate) struct Journal {
    lines: Option<Vec<String>>,
}

impl Journal {
    pub(crate) fn begin(&mut self) {
        self.lines = Some(Vec::new());
    }

    pub(crate) fn line(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// The lines since the last call.
    pub(crate) fn take(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What a core asks for: first what has become of it, then what it does. What a working disk does is told when it is
    /// done.
    pub(crate) fn ready(&mut self, id: u64, ready: &Ready, disk_stuck: bool) {
        if self.lines.is_none() {
            return;
        }
        let events = ready.events.iter().map(|event| format!("n{id} {}", self::event(id, event)));
        let messages = ready.messages.iter().map(message);
        let waits = ready.write.iter().filter(|_| disk_stuck);
        let waits = waits.map(|write| format!("n{id} waits for its disk: {}", self::write(write)));
        let applied = ready.apply.iter().flat_map(|work| match work {
            Apply::Entries(entries) => {
                entries.iter().map(|entry| format!("n{id} applies {}", self::entry(entry))).collect()
            }
            Apply::Restore(meta) => vec![format!("n{id} restores the snapshot {}", meta.last)],
        });
        let reads = ready.reads.iter().map(|outcome| format!("n{id} {}", read(outcome)));
        let fetches = ready.fetches.iter().map(|f| format!("n{id} loads {}..={}", f.first, f.last));
        let compact = ready.compact.iter().map(|index| format!("n{id} drops its log up to {index}"));
        let all =
            events.chain(messages).chain(waits).chain(applied).chain(reads).chain(fetches).chain(compact);
        let all: Vec<String> = all.collect();
        self.lines.get_or_insert_default().extend(all);
    }
}

/// One message.
pub(crate) fn message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let told = match body {
        Body::PreVote { next_term, last, .. } => format!("next={next_term} last={last}"),
        Body::RequestVote { last, transfer, .. } => {
            format!("last={last}{}", if *transfer { " transfer" } else { "" })
        }
        Body::PreVoteReply { granted, .. } | Body::RequestVoteReply { granted, .. } => {
            if *granted {
                "granted".to_owned()
            } else {
                "refused".to_owned()
            }
        }
        Body::AppendEntries { round, prev, commit, entries, .. } => {
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("round={} prev={prev} commit={commit} [{}]", round.0, entries.join(", "))
        }
        Body::AppendReply { round, outcome, .. } => match outcome {
            AppendOutcome::Matched(index) => format!("round={} matched={index}", round.0),
            AppendOutcome::Rejected { prev, hint } => {
                format!("round={} rejected={prev} hint={hint}", round.0)
            }
        },
        Body::Heartbeat { round, prev, commit, .. } => {
            format!("round={} prev={prev} commit={commit}", round.0)
        }
        Body::HeartbeatReply { round, matched, .. } => format!("round={} matched={matched}", round.0),
        Body::InstallSnapshot { round, meta, .. } => format!("round={} last={}", round.0, meta.last),
        Body::ReadIndex { request, .. } => format!("request={request}"),
        Body::ReadIndexReply { request, index: Some(index), .. } => {
            format!("request={request} index={index}")
        }
        Body::ReadIndexReply { request, index: None, .. } => format!("request={request} refused"),
        Body::TimeoutNow => String::new(),
        Body::Removed { conf_id } => format!("conf={conf_id}"),
        Body::Refill { after, promised, .. } => format!("after={after} promised={promised}"),
        Body::SnapshotNeeded { at_least, .. } => format!("at_least={at_least}"),
    };
    format!("{from} -> {to} {} term={term} {told}", body.name()).trim_end().to_owned()
}

/// One write.
pub(crate) fn write(write: &Write) -> String {
    let mut told = vec![format!("term={}", write.hard_state.term)];
    told.extend(write.hard_state.vote.map(|vote| format!("vote={vote}")));
    told.extend(write.truncate_after.map(|index| format!("cut after {index}")));
    told.extend(write.snapshot.as_ref().map(|mark| format!("mark of the snapshot {}", mark.meta.last)));
    let entries: Vec<String> = write.entries.iter().map(entry).collect();
    if !entries.is_empty() {
        told.push(format!("[{}]", entries.join(", ")));
    }
    told.join(" ")
}

/// One entry.
pub(crate) fn entry(entry: &Entry) -> String {
    let what = match entry.kind {
        EntryKind::Noop => "noop".to_owned(),
        EntryKind::Command => String::from_utf8_lossy(&entry.payload).into_owned(),
        EntryKind::ConfChange => {
            ConfState::decode(&entry.payload).map_or_else(|error| error.to_string(), |conf| self::conf(&conf))
        }
    };
    format!("{} {what}", entry.id)
}

/// One configuration.
pub(crate) fn conf(conf: &ConfState) -> String {
    let ids = |ids: &std::collections::BTreeSet<NodeId>| {
        ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",")
    };
    let mut told = vec![format!("voters={}", ids(&conf.voters))];
    for (name, set) in
        [("outgoing", &conf.outgoing), ("learners", &conf.learners), ("learners_next", &conf.learners_next)]
    {
        if !set.is_empty() {
            told.push(format!("{name}={}", ids(set)));
        }
    }
    told.extend(conf.lease.map(|lease| format!("lease={}ms", lease.timeout_ms)));
    told.join(" ")
}

fn read(outcome: &ReadOutcome) -> String {
    let token = outcome.token.0;
    outcome.index.map_or_else(
        || format!("fails read {token}: nobody confirmed it"),
        |index| format!("serves read {token} once {index} is applied"),
    )
}

fn event(id: u64, event: &Event) -> String {
    match event {
        Event::RoleChanged { role: RoleKind::Follower, term, leader: Some(leader) } => {
            format!("follows {leader} in term {term}")
        }
        Event::RoleChanged { role: RoleKind::Follower, term, leader: None } => {
            format!("follows nobody in term {term}")
        }
        Event::RoleChanged { role: RoleKind::PreCandidate, term, .. } => {
            format!("asks in term {term} whether it would be elected")
        }
        Event::RoleChanged { role: RoleKind::Candidate, term, .. } => {
            format!("stands for election in term {term}")
        }
        Event::RoleChanged { role: RoleKind::Leader, term, .. } => format!("leads term {term}"),
        Event::ConfChanged { id, conf } => format!("goes by {id}: {}", self::conf(conf)),
        Event::ConfCommitted { id, conf } => format!("knows as committed {id}: {}", self::conf(conf)),
        Event::Removed { conf_id } => format!("is told that {conf_id} does without n{id}"),
        Event::TransferEnded { to, outcome } => {
            let how = match outcome {
                TransferOutcome::Done => "done".to_owned(),
                TransferOutcome::TimedOut => "timed out".to_owned(),
                TransferOutcome::TargetDemoted => "the target lost its vote".to_owned(),
                TransferOutcome::Unknown => "it is not known how it ended".to_owned(),
                TransferOutcome::Overtaken { leader } => format!("{leader} leads instead"),
            };
            format!("ends its transfer to {to}: {how}")
        }
        Event::PeerRegressed { peer, matched, now } => {
            format!("reports that {peer} lost what it had: {now} of {matched}")
        }
        Event::Refilled { last } => format!("is whole again up to {last}"),
        Event::SnapshotWanted { peer } => format!("is to take a snapshot for {peer}"),
        Event::SnapshotReplaced { last } => format!("has another snapshot, up to {last}"),
        Event::Halted(reason) => format!("halts: {reason}"),
    }
}
