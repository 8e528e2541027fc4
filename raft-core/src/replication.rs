//! What a leader sends to each peer and when: appends, heartbeats, commit notices, snapshots.

use crate::{
    Body, Entries, Entry, Epoch, Event, Fetch, FetchId, Instant, LogId, LogIndex, Message, NodeId, Round,
    leader::Leader,
    progress::{Progress, ProgressState},
    shared::Shared,
};

/// Runs of entries that were cut out of the log in one flush, by their first index: peers at the same place share them.
type Cuts = Vec<(LogIndex, Entries)>;

/// A round and when it began.
type Began = (Round, Instant);

/// What the sends of one flush share.
struct Flush<'a> {
    round: Began,
    cuts: Cuts,
    epochs: &'a mut u64,
}

impl Leader {
    /// Follows the configuration: a peer that is new to it is located first, one that left it is forgotten. The same id
    /// with another data directory is another peer: nothing that was known of it holds (SAFETY D2, P4).
    pub(crate) fn sync_peers(&mut self, shared: &Shared) {
        let members = &shared.log.conf().members;
        self.peers.retain(|id, peer| {
            members.get(id).is_some_and(|member| !peer.incarnation.is_other(member.incarnation))
        });
        let (next, now, own) = (shared.log.last().index.next(), shared.now.instant, shared.id());
        for (id, member) in members.iter().filter(|(id, _)| **id != own) {
            if !self.peers.contains_key(id) {
                let epoch = self.next_epoch();
                self.peers.insert(*id, Progress::new(next, epoch, now));
            }
            if let Some(peer) = self.peers.get_mut(id) {
                peer.incarnation = member.incarnation;
            }
        }
    }

    /// Sends each peer the appends it may get now.
    pub(crate) fn replicate(&mut self, shared: &mut Shared) {
        let round = (self.round, self.round_began);
        let mut flush = Flush { round, cuts: Cuts::new(), epochs: &mut self.epochs };
        for (id, peer) in &mut self.peers {
            while send_next(shared, *id, peer, &mut flush) {}
        }
    }

    /// The connection to a peer is new: what was in flight may be lost with the old one (SAFETY P4, P6).
    pub(crate) fn peer_connected(&mut self, id: NodeId) {
        let epoch = self.next_epoch();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.regressed) else { return };
        let next = match peer.state() {
            ProgressState::Probe { .. } => peer.next(),
            ProgressState::Replicate { in_flight } if in_flight.is_empty() => return,
            ProgressState::Replicate { .. } => peer.matched().next(),
            // A transfer is resumed or reported as failed by its own stream.
            ProgressState::Snapshot { .. } => return,
        };
        peer.epoch = epoch;
        peer.probe(next);
    }

    /// A snapshot's transfer moves: however long it takes, it is not given up.
    pub(crate) fn snapshot_moves(&mut self, shared: &Shared, to: NodeId, epoch: Epoch) {
        let until = shared.now.instant.plus_millis(shared.config.snapshot_timeout_ms);
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.snapshot_moves(epoch, until);
        }
    }

    /// A snapshot's transfer broke off: try again after a while (SAFETY P7).
    pub(crate) fn snapshot_failed(&mut self, shared: &Shared, to: NodeId, epoch: Epoch) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let soon = shared.now.instant.plus_millis(shared.config.election_timeout_max_ms);
        if let Some(replacing) = peer.replacing.as_mut().filter(|was| was.attempt == Some(epoch)) {
            replacing.until = replacing.until.min(soon);
        }
        if peer.epoch == epoch
            && let ProgressState::Snapshot { .. } = peer.state()
        {
            peer.pause(&shared.config, shared.now.instant);
        }
    }

    /// Entries for a peer that is far behind arrived from the log; gives them back if they are not for a peer.
    pub(crate) fn fetched(
        &mut self,
        shared: &mut Shared,
        fetch: FetchId,
        entries: Vec<Entry>,
    ) -> Option<Vec<Entry>> {
        let asked =
            self.peers.iter().find_map(|(id, peer)| peer.fetching.asked(fetch).map(|fetch| (*id, fetch)));
        let Some((id, fetch)) = asked else { return Some(entries) };
        let peer = self.peers.get_mut(&id)?;
        let Some(entries) = fetch.useful(entries, &shared.log) else {
            read_failed(shared, id, peer);
            return None;
        };
        peer.fetching.done();
        let first = fetch.first;
        let room = peer.may_send(u64::MAX, &shared.config, shared.now.instant) && peer.next() == first;
        if let Some(term) = shared.log.term_at(first.prev()).filter(|_| room) {
            let prev = LogId { term, index: first.prev() };
            send_append(shared, id, peer, (self.round, self.round_began), prev, entries.into());
        }
        None
    }

    /// Entries could not be read; `false` if they were not for a peer.
    pub(crate) fn fetch_failed(&mut self, shared: &mut Shared, fetch: FetchId) -> bool {
        let asked = self.peers.iter_mut().find(|(_, peer)| peer.fetching.asked(fetch).is_some());
        let Some((id, peer)) = asked else { return false };
        read_failed(shared, *id, peer);
        true
    }

    /// How much of the log the peers still need: nothing behind it is to be compacted. A peer without an answer for
    /// an election timeout is not waited for, and no more than [`HELD_FACTOR`] times the trailing entries are kept
    /// (SAFETY N5).
    pub(crate) fn compaction_floor(&self, shared: &Shared, wanted: LogIndex) -> LogIndex {
        let needed = self.peers.values().filter_map(|peer| match peer.state() {
            ProgressState::Snapshot { pending, .. } => Some(*pending),
            ProgressState::Probe { .. } | ProgressState::Replicate { .. } => {
                (is_alive(shared, peer) && peer.matched() >= shared.log.start().index).then(|| peer.matched())
            }
        });
        let most = shared.config.trailing_entries.saturating_mul(HELD_FACTOR);
        needed.min().map_or(wanted, |needed| wanted.min(needed.max(wanted.minus(most))))
    }

    /// A message of a peer shows that it is there: it gets what it missed, if it did not answer in the election. One
    /// that looks for a leader hears of this one at once, and gets the rest when it answers: the question itself changes
    /// nothing (SAFETY E6).
    pub(crate) fn sees(&mut self, shared: &mut Shared, message: &Message) {
        let Some(peer) = self.peers.get_mut(&message.from) else { return };
        if !matches!(message.body, Body::PreVote { .. }) {
            peer.seen(matches!(message.body, Body::RequestVoteReply { granted: true, .. }));
            return;
        }
        // It is sent what waits for it, if that is still in the log.
        let (next, last) = (peer.next(), shared.log.last().index);
        let waits = peer.appears() && next <= last && shared.log.term_at(next.prev()).is_some();
        if !waits && !peer.is_attentive() {
            let (_, body) = heartbeat(shared, peer, self.round);
            shared.send(message.from, body);
        }
    }

    /// Heartbeats that are due, commit notices, snapshots given up.
    pub(crate) fn tick_peers(&mut self, shared: &mut Shared) {
        let now = shared.now.instant;
        for peer in self.peers.values_mut() {
            peer.fetching.tick(now);
            if let ProgressState::Snapshot { deadline, .. } = peer.state()
                && *deadline <= now
                && !planted!(SnapshotWaitsForever)
            {
                peer.pause(&shared.config, now);
            }
        }
        // Peers whose turn is close are served along, so that one wake-up is enough for all.
        let soon = now.plus_millis(shared.config.heartbeat_ms / 4);
        let due_by = |limit: Instant, peers: &Leader| -> Vec<NodeId> {
            let due = |peer: &Progress| heartbeat_at(shared, peer) <= limit;
            peers.peers.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect()
        };
        if !due_by(now, self).is_empty() {
            self.next_round(now);
            for id in due_by(soon, self) {
                self.send_heartbeat(shared, id);
            }
        }
        let log = &shared.log;
        let late = |(id, peer): (&NodeId, &mut Progress)| {
            let due = peer.follow_up_at().is_some_and(|at| at <= now);
            let held = log.term_at(peer.matched()).is_some();
            // Where the log was cut meanwhile no append can ask.
            (due && (peer.follow_up(held) || log.term_at(peer.next().prev()).is_none())).then_some(*id)
        };
        let late: Vec<NodeId> = self.peers.iter_mut().filter_map(late).collect();
        for id in late {
            self.send_heartbeat(shared, id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.followed_up();
            }
        }
        if self.notice_at.take_if(|at| *at <= now).is_some() {
            let ids: Vec<NodeId> =
                self.peers.iter().filter(|(_, peer)| needs_notice(shared, peer)).map(|(id, _)| *id).collect();
            for id in ids {
                self.send_heartbeat(shared, id);
            }
        }
    }

    /// The peers' earliest deadline.
    pub(crate) fn peers_deadline(&self, shared: &Shared) -> Option<Instant> {
        let of_peer = |peer: &Progress| {
            let snapshot = match peer.state() {
                ProgressState::Snapshot { deadline, .. } => Some(*deadline),
                ProgressState::Probe { .. } | ProgressState::Replicate { .. } => None,
            };
            let heartbeat = Some(heartbeat_at(shared, peer));
            [heartbeat, peer.follow_up_at(), snapshot, peer.fetching.deadline()].into_iter().flatten().min()
        };
        self.peers.values().filter_map(of_peer).min()
    }

    /// Plans a notice if a peer could use a newer commit index than it was told.
    pub(crate) fn arm_notice(&mut self, shared: &Shared) {
        if self.notice_at.is_none() && self.peers.values().any(|peer| needs_notice(shared, peer)) {
            self.notice_at = Some(shared.now.instant.plus_millis(shared.config.commit_notice_delay_ms));
        }
    }

    /// A heartbeat names the last entry the peer is known to have, and no commit index beyond it: it is right at
    /// whatever time it arrives.
    pub(crate) fn send_heartbeat(&mut self, shared: &mut Shared, to: NodeId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let (prev, body) = heartbeat(shared, peer, self.round);
        peer.asked(&shared.config, shared.now.instant);
        peer.commit_told = peer.commit_told.max(shared.commit.min(prev.index));
        if shared.log.conf().lease.is_some() {
            peer.promise.asked(self.round, self.round_began);
        }
        shared.send(to, body);
    }

    pub(crate) fn next_epoch(&mut self) -> Epoch {
        next_epoch(&mut self.epochs)
    }
}

fn next_epoch(epochs: &mut u64) -> Epoch {
    *epochs = epochs.saturating_add(1);
    Epoch(*epochs)
}

/// What a heartbeat to this peer says, and the entry it names.
fn heartbeat(shared: &Shared, peer: &mut Progress, round: Round) -> (LogId, Body) {
    let known = shared.log.term_at(peer.matched());
    let prev = known.map_or(LogId::ZERO, |term| LogId { term, index: peer.matched() });
    // Of several heartbeats of one round the one that asks for least counts: which is answered cannot be told.
    let asked_before = (peer.checked.0 == round).then_some(peer.checked.1);
    peer.checked = (round, asked_before.map_or(prev.index, |before| before.min(prev.index)));
    let commit = shared.commit.min(prev.index);
    (prev, Body::Heartbeat { epoch: peer.epoch, round, prev, commit })
}

/// Sends the next append, snapshot or fetch to one peer. Whether another may follow.
fn send_next(shared: &mut Shared, id: NodeId, peer: &mut Progress, flush: &mut Flush<'_>) -> bool {
    let round = flush.round;
    if peer.take_verify() {
        let last = peer.next().prev();
        match shared.log.term_at(last) {
            Some(term) => {
                send_append(shared, id, peer, round, LogId { term, index: last }, Entries::EMPTY);
                peer.followed_up();
            }
            // The log was cut behind it: only a snapshot helps.
            None => peer.lost(),
        }
    }
    let (next, last) = (peer.next(), shared.log.last().index);
    // What it owes an answer to may locate it as well as an empty append would.
    let idle = peer.is_replicating() || !peer.is_attentive();
    if next > last && idle {
        return false;
    }
    let cold = next <= last && !shared.log.in_memory(next);
    // What is not in memory is much: worth a message of its own.
    let waiting_bytes = if cold { u64::MAX } else { shared.log.bytes_from(next) };
    let waiting_bytes = if next > last { 0 } else { waiting_bytes };
    if !peer.may_send(waiting_bytes, &shared.config, shared.now.instant) {
        return false;
    }
    let prev = next.prev();
    let Some(term) = shared.log.term_at(prev) else {
        // A peer that does not answer would only waste a whole transfer: it is sent once the peer has answered.
        if peer.is_attentive() && !planted!(NoSnapshotForLaggard) {
            send_snapshot(shared, id, peer, flush);
        }
        return false;
    };
    if cold {
        // What cannot be read back is in the snapshot, if that reaches so far.
        if peer.fetching.keeps_failing() && next <= shared.log.snapshot().last.index {
            if peer.is_attentive() {
                send_snapshot(shared, id, peer, flush);
            }
            return false;
        }
        if peer.fetching.is_ready(shared.now.instant) {
            let fetch = Fetch {
                id: shared.next_fetch(),
                first: next,
                last: last.min(shared.log.first_in_memory().prev()),
                bytes_max: shared.config.append_bytes_max,
            };
            peer.fetching.begin(fetch);
            shared.out.fetches.push(fetch);
        }
        return false;
    }
    let entries = cut(shared, next, last, &mut flush.cuts);
    send_append(shared, id, peer, round, LogId { term, index: prev }, entries);
    true
}

/// What a peer needs could not be read. If that lasts, and the newest snapshot does not reach so far, a newer one is due.
fn read_failed(shared: &mut Shared, id: NodeId, peer: &mut Progress) {
    peer.fetching.failed(shared.now.instant);
    let next = peer.next();
    let helps = shared.log.snapshot().last.index < next && next <= shared.apply.applied();
    if peer.fetching.keeps_failing() && helps {
        shared.out.events.push(Event::SnapshotWanted { peer: id });
    }
}

fn send_append(
    shared: &mut Shared,
    to: NodeId,
    peer: &mut Progress,
    round: Began,
    prev: LogId,
    entries: Entries,
) {
    let last = entries.last().map_or(prev.index, |entry| entry.id.index);
    let bytes = entries.iter().map(Entry::size_bytes).sum();
    peer.sent(last, bytes, &shared.config, shared.now.instant);
    peer.commit_told = peer.commit_told.max(shared.commit.min(last));
    if shared.log.conf().lease.is_some() {
        peer.promise.asked(round.0, round.1);
    }
    let (epoch, round, commit) = (peer.epoch, round.0, shared.commit);
    shared.send(to, Body::AppendEntries { epoch, round, prev, commit, entries });
}

fn send_snapshot(shared: &mut Shared, to: NodeId, peer: &mut Progress, flush: &mut Flush<'_>) {
    let (meta, epoch, round) = (shared.log.snapshot().clone(), next_epoch(flush.epochs), flush.round.0);
    let deadline = shared.now.instant.plus_millis(shared.config.snapshot_timeout_ms);
    peer.snapshot(meta.last.index, deadline, epoch);
    shared.send(to, Body::InstallSnapshot { epoch, round, meta: Box::new(meta) });
}

/// The entries from `first` on that fit into one append, shared with other peers at the same place.
fn cut(shared: &Shared, first: LogIndex, last: LogIndex, cuts: &mut Cuts) -> Entries {
    if first > last {
        return Entries::EMPTY;
    }
    if let Some((_, entries)) = cuts.iter().find(|(begin, _)| *begin == first) {
        return entries.clone();
    }
    let entries = shared.log.slice(first, last, shared.config.append_bytes_max).unwrap_or_default();
    cuts.push((first, entries.clone()));
    entries
}

/// When the peer must hear from us again. One that has fallen silent gets every second heartbeat only: enough to
/// find it again, half the waste.
fn heartbeat_at(shared: &Shared, peer: &Progress) -> Instant {
    if let Some(at) = peer.greet_at {
        return at;
    }
    let heartbeat_ms = shared.config.heartbeat_ms;
    let silent_at = peer.heard_at.plus_millis(shared.config.election_timeout_max_ms);
    let silent = peer.sent_at >= silent_at;
    peer.sent_at.plus_millis(if silent { heartbeat_ms.saturating_mul(2) } else { heartbeat_ms })
}

/// Whether the peer could commit more than it was told it may. A silent one learns it from the heartbeats.
fn needs_notice(shared: &Shared, peer: &Progress) -> bool {
    is_alive(shared, peer) && !peer.regressed && peer.commit_told < shared.commit.min(peer.matched())
}

/// Whether the peer answered within an election timeout.
fn is_alive(shared: &Shared, peer: &Progress) -> bool {
    shared.now.instant < peer.heard_at.plus_millis(shared.config.election_timeout_max_ms)
}

/// How many times the trailing entries are kept at most for peers that still need them.
const HELD_FACTOR: u64 = 16;
