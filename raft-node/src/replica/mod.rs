//! What the node decides, as a plain struct: what becomes of each [`Ready`], who waits for which entry, whom to
//! forward to, when to give up, when to take a snapshot.
//!
//! No I/O, no clock, no task: the driver feeds it and carries out its [`Effects`]. That is what lets whole nodes run
//! in one thread on a virtual clock. `W` is whoever waits for a command's reply and `R` a read to be served; the
//! replica only carries them about (the runtime uses channels, a simulation uses numbers).
//!
//! Invariant: every `W` and every `R` handed in comes out exactly once, with an answer, a failure or a job.

mod effects;
mod forwards;
mod incoming;
mod pending;
mod reads;
mod snapshots;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    Apply, Epoch, Event, Input, Instant, LogIndex, Message, NodeId, Now, Proposal, ProposeError, Raft,
    ReadError, Ready, SnapshotMeta, StepError,
};

pub use self::effects::{Effects, Forward, ForwardOutcome, Job};
use self::{
    forwards::Forwards,
    incoming::Incoming,
    pending::Pending,
    reads::Reads,
    snapshots::SnapshotPolicy,
    waiting::{Command, Waiting},
};
use crate::error::ClientError;

/// How long after a refusal the same leader is asked again.
const RETRY_MS: u64 = 20;

/// How long a former leader may still answer for commands that were sent to it: if it handed over it does so at once,
/// and if it was cut off or paused its answer is worth nothing to a client that waits.
const FORMER_LEADER_MS: u64 = 250;

/// Limits of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a request waits for a leader: covers an election.
    pub leader_wait_ms: u64,
    /// A voter that was heard no later than this ago may take over from a leader that leaves: three heartbeats and a
    /// little.
    pub successor_heard_ms: u64,
    /// After this long without an outcome a command's outcome is unknown.
    pub request_timeout_ms: u64,
    /// Requests that may wait for a leader.
    pub waiting_max: usize,
    /// Commands that may be under way to another node.
    pub forwards_max: usize,
    /// Reads that may wait at once.
    pub reads_max: usize,
    /// A snapshot is taken once this many bytes of log lie behind the last one, and no less than twice its size.
    pub snapshot_log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            leader_wait_ms: 2000,
            successor_heard_ms: 350,
            request_timeout_ms: 10_000,
            waiting_max: 65_536,
            forwards_max: 65_536,
            reads_max: 1 << 20,
            snapshot_log_bytes: 64 << 20,
        }
    }
}

/// One node's decisions.
#[derive(Debug)]
pub struct Replica<W, R> {
    raft: Raft,
    limits: Limits,
    /// Commands in this node's log, by the id they got.
    pending: Pending<W>,
    /// Commands and reads that wait for a leader.
    waiting: Waiting<W, R>,
    /// When to try those again even if no new leader shows up: the one known may not have known it yet.
    retry_at: Option<Instant>,
    /// Commands sent to a leader.
    forwards: Forwards<W>,
    /// Nodes one of whose forwarded commands was refused, and that have not begun anew since.
    refused: BTreeSet<NodeId>,
    /// Commands that came in so far.
    commands: u64,
    /// Commands wait although a leader is known: older ones are still under way to a former one.
    held: bool,
    /// When to give up on commands that were sent to somebody who does not lead any more.
    abandon_at: Option<Instant>,
    /// When to give up on all that were sent, if nothing is heard of a leader until then.
    lost_at: Option<Instant>,
    reads: Reads<R>,
    /// Everything up to here is in the applier's queue.
    handed_out: LogIndex,
    snapshots: SnapshotPolicy,
    /// Snapshots whose file is to blame that they did not arrive: to whom they were sent, as which attempt.
    unsent: BTreeMap<NodeId, Epoch>,
    /// The snapshot on its way from a leader.
    incoming: Incoming,
    /// The applier is to restore this snapshot and has not done so yet.
    restoring: Option<LogIndex>,
    /// What the log may forget once it has: older snapshots go with it, and one of them may be the one it still needs.
    compact_then: Option<LogIndex>,
    /// The state machine is empty, for its snapshot was lost, and no other is in the applier's queue yet.
    bereft: bool,
    out: Effects<W, R>,
}

impl<W, R> Replica<W, R> {
    /// A replica around a core whose state machine stands at `restored`, the snapshot it was restored from.
    pub fn new(raft: Raft, limits: Limits, restored: LogIndex, snapshot_bytes: u64) -> Replica<W, R> {
        Replica {
            bereft: raft.snapshot_lost().is_some(),
            raft,
            limits,
            pending: Pending::default(),
            waiting: Waiting::default(),
            retry_at: None,
            forwards: Forwards::default(),
            refused: BTreeSet::new(),
            commands: 0,
            held: false,
            abandon_at: None,
            lost_at: None,
            reads: Reads::default(),
            handed_out: restored,
            snapshots: SnapshotPolicy::new(limits.snapshot_log_bytes, snapshot_bytes),
            unsent: BTreeMap::new(),
            incoming: Incoming::Nothing,
            restoring: None,
            compact_then: None,
            out: Effects::default(),
        }
    }

    /// The core, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Hands the leadership to `to`, if this node leads.
    pub fn transfer_leadership(&mut self, now: Now, to: NodeId) -> bool {
        self.raft.transfer_leadership(now, to).is_ok()
    }

    /// Who should lead if this node leaves: of the voters that answered lately, the one whose log is the furthest. Right
    /// after the death of one, its log is as far as any.
    pub fn successor(&self, now: Now) -> Option<NodeId> {
        let voters = &self.raft.conf().voters;
        let peers =
            self.raft.peers().into_iter().filter(|(id, _)| voters.contains(id) && *id != self.raft.id());
        let answered_lately =
            |heard_at: Instant| now.instant <= heard_at.plus_millis(self.limits.successor_heard_ms);
        let rank =
            |peer: &raft_core::PeerStatus| (answered_lately(peer.heard_at), peer.matched, peer.heard_at);
        peers.max_by_key(|(_, peer)| rank(peer)).map(|(id, _)| id)
    }

    /// Takes a command of a client of this node: into the log if this node leads, on to the leader if another does,
    /// otherwise it waits for one.
    ///
    /// Commands keep their order, also when the leader changes: one that finds others waiting queues up behind them, and
    /// while one is still under way to a former leader, which may send it back, none goes to the next. Where one was sent
    /// back, the others under way behind it are waited for.
    pub fn propose(&mut self, now: Now, proposal: Proposal, waiter: W) {
        self.commands += 1;
        let command = Command { proposal, waiter, since: now.instant, order: self.commands };
        if self.forwards.any_elsewhere(self.raft.leader()) {
            self.held = true;
            self.wait(now, command);
        } else if self.forwards.are_coming_back() || self.waiting.has_commands() {
            self.wait(now, command);
        } else {
            self.offer(now, command);
        }
    }

    /// Takes a command that `from` forwarded. It is not forwarded again: two nodes that each take the other for the
    /// leader would pass it back and forth.
    ///
    /// Once one is sent back, so are those behind it, up to one that is [`first`](Forward::first): this node may lead
    /// again before they arrive.
    pub fn propose_forwarded(&mut self, now: Now, from: NodeId, first: bool, proposal: Proposal, waiter: W) {
        if first {
            self.refused.remove(&from);
        } else if self.refused.contains(&from) {
            self.out.failed.push((waiter, ClientError::NotLeader));
            return;
        }
        match self.raft.propose(now, proposal) {
            Ok(id) => self.enqueue(now, id, waiter),
            // It may wait at the node it came from, where its place among others is known.
            Err(ProposeError::NotLeader { .. } | ProposeError::Transferring { .. }) => {
                self.refused.insert(from);
                self.out.failed.push((waiter, ClientError::NotLeader));
            }
            Err(error) => self.out.failed.push((waiter, refusal(error))),
        }
    }

    /// Takes the answer to a forwarded command. One that nobody waits for any more is ignored.
    pub fn forward_answered(&mut self, now: Now, from: NodeId, request: u64, outcome: ForwardOutcome) {
        // An answer from a node that was not asked is no answer.
        if self.forwards.destination(request) != Some(from) {
            return;
        }
        let Some(command) = self.forwards.remove(request) else { return };
        match outcome {
            ForwardOutcome::Reply(reply) => self.out.replies.push((command.waiter, reply)),
            ForwardOutcome::Failed(error) => self.out.failed.push((command.waiter, error)),
            // It was not taken there, so offering it again cannot apply it twice.
            ForwardOutcome::NotLeader => {
                self.forwards.came_back();
                self.wait(now, command);
            }
        }
    }

    /// The transport did not take the forwarded command: it was not sent, so it may wait for a better moment, or for
    /// another leader.
    pub fn forward_not_sent(&mut self, now: Now, request: u64) {
        if let Some(command) = self.forwards.remove(request) {
            self.wait(now, command);
        }
    }

    /// The connection to `peer` broke: what was forwarded to it may or may not have been done.
    pub fn connection_lost(&mut self, peer: NodeId) {
        self.fail_forwards(|to| to == peer);
    }

    fn fail_forwards(&mut self, lost: impl Fn(NodeId) -> bool) {
        let lost = self.forwards.remove_to(lost).into_iter();
        self.out.failed.extend(lost.map(|command| (command.waiter, ClientError::OutcomeUnknown)));
    }

    /// Takes a linearizable read of a client of this node.
    pub fn read(&mut self, now: Now, read: R) {
        if self.reads.count() + self.waiting.reads() >= self.limits.reads_max {
            self.out.failed_reads.push((read, ClientError::Busy));
        } else {
            self.reads.gather(read, now.instant);
        }
    }

    /// Takes a read of whatever this node has applied. Fails while it waits for a snapshot in the place of a lost one:
    /// its state is not an old one, it is none.
    pub fn read_stale(&mut self, read: R) {
        if self.bereft {
            self.out.failed_reads.push((read, ClientError::NoLeader));
            return;
        }
        match self.out.jobs.last_mut() {
            Some(Job::Reads(reads)) => reads.push(read),
            _ => self.out.jobs.push(Job::Reads(vec![read])),
        }
    }

    /// Tells the core something.
    ///
    /// # Errors
    /// The core refused it; nothing changed.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), StepError> {
        if let Input::Persisted(id) = input {
            self.incoming.persisted(id);
        }
        if let Input::Applied(index) = input
            && self.restoring.is_some_and(|restoring| index >= restoring)
        {
            self.restoring = None;
            self.out.compact = self.out.compact.max(self.compact_then.take());
        }
        let from = if let Input::Message(message) = &input { Some(message.from) } else { None };
        self.raft.handle(now, input)?;
        if from.is_some() && from == self.raft.leader() {
            self.lost_at = None;
        }
        Ok(())
    }

    /// A leader offers a snapshot: whether to receive it. One at a time, until the log has renamed its file or it is
    /// [gone](Self::snapshot_gone): a second one under the same name would put half a file in the place of a whole one.
    pub fn accept_snapshot(&mut self) -> bool {
        self.incoming.accept()
    }

    /// The accepted snapshot has arrived whole, verified and synced under its temporary name.
    ///
    /// # Errors
    /// The core refused it; nothing changed.
    pub fn snapshot_received(&mut self, now: Now, message: Message) -> Result<(), StepError> {
        self.incoming.arrived(&message);
        self.raft.handle(now, Input::Message(message))
    }

    /// The accepted snapshot broke off on its way, or what was received of it is removed.
    pub fn snapshot_gone(&mut self) {
        self.incoming = Incoming::Nothing;
    }

    /// A local snapshot is complete: its file is synced and in place.
    ///
    /// # Errors
    /// The core refused it; nothing changed.
    pub fn snapshot_taken(&mut self, now: Now, meta: SnapshotMeta, file_bytes: u64) -> Result<(), StepError> {
        self.snapshots.taken(file_bytes);
        self.raft.handle(now, Input::SnapshotTaken(Box::new(meta)))?;
        self.tell_unsent(now)
    }

    /// A local snapshot could not be taken; the next one is tried when the log has grown again.
    ///
    /// # Errors
    /// The core refused to hear of it; nothing changed.
    pub fn snapshot_failed(&mut self, now: Now) -> Result<(), StepError> {
        self.snapshots.failed();
        self.tell_unsent(now)
    }

    /// The snapshot that left for `to` did not get there. If its own file is to blame, `damaged`, another is taken first,
    /// of the state as it is by now: the core would send the same file again.
    ///
    /// # Errors
    /// The core refused it; nothing changed.
    pub fn snapshot_not_sent(
        &mut self,
        now: Now,
        to: NodeId,
        epoch: Epoch,
        damaged: bool,
    ) -> Result<(), StepError> {
        if !damaged {
            return self.raft.handle(now, Input::SnapshotFailed { to, epoch });
        }
        self.unsent.insert(to, epoch);
        self.request_snapshot();
        Ok(())
    }

    /// There is another snapshot to send, or there will be none: the core hears which did not arrive.
    fn tell_unsent(&mut self, now: Now) -> Result<(), StepError> {
        for (to, epoch) in std::mem::take(&mut self.unsent) {
            self.raft.handle(now, Input::SnapshotFailed { to, epoch })?;
        }
        Ok(())
    }

    /// Asks for a snapshot regardless of the log's size. No effect while one is being taken.
    pub fn request_snapshot(&mut self) {
        if self.snapshots.start() {
            self.out.jobs.push(Job::TakeSnapshot);
        }
    }

    /// When [`tick`](Self::tick) has to be called if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let request_timeout = self.limits.request_timeout_ms;
        [
            self.raft.next_deadline(),
            self.waiting.oldest().map(|since| since.plus_millis(self.limits.leader_wait_ms)),
            self.pending.oldest().map(|since| since.plus_millis(request_timeout)),
            self.reads.oldest_confirmed().map(|since| since.plus_millis(request_timeout)),
            self.forwards.oldest().map(|since| since.plus_millis(request_timeout)),
            self.retry_at,
            self.abandon_at,
            self.lost_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time passed.
    ///
    /// # Errors
    /// The core has halted.
    pub fn tick(&mut self, now: Now) -> Result<(), StepError> {
        let waited = |since: Instant, millis: u64| now.instant >= since.plus_millis(millis);
        while self.pending.oldest().is_some_and(|since| waited(since, self.limits.request_timeout_ms)) {
            if let Some(waiter) = self.pending.pop_oldest() {
                self.out.failed.push((waiter, ClientError::OutcomeUnknown));
            }
        }
        while self.forwards.oldest().is_some_and(|since| waited(since, self.limits.request_timeout_ms)) {
            if let Some(command) = self.forwards.pop_oldest() {
                self.out.failed.push((command.waiter, ClientError::OutcomeUnknown));
            }
        }
        let (commands, reads) = self.waiting.expire(|since| waited(since, self.limits.leader_wait_ms));
        self.out.failed.extend(commands.into_iter().map(|w| (w, ClientError::NoLeader)));
        self.out.failed_reads.extend(reads.into_iter().map(|r| (r, ClientError::NoLeader)));
        // The leader's index is known and what leads there does not come: this node is cut off, or far behind.
        let behind = self.reads.expire_confirmed(|since| waited(since, self.limits.request_timeout_ms));
        self.out.failed_reads.extend(behind.into_iter().map(|r| (r, ClientError::NoLeader)));
        if self.lost_at.is_some_and(|at| now.instant >= at) {
            self.lost_at = None;
            self.fail_forwards(|_| true);
        }
        if self.abandon_at.is_some_and(|at| now.instant >= at) {
            self.abandon_at = None;
            let leader = self.raft.leader();
            self.fail_forwards(|to| Some(to) != leader);
        }
        if self.retry_at.is_some_and(|at| now.instant >= at) {
            self.retry_waiting(now);
        }
        self.raft.handle(now, Input::Tick)
    }

    /// Everything to be done since the last call; `None` if there is nothing.
    pub fn take_effects(&mut self, now: Now) -> Option<Effects<W, R>> {
        if self.held && !self.forwards.any_elsewhere(self.raft.leader()) {
            self.held = false;
            self.retry_waiting(now);
        }
        self.start_reads(now);
        while let Some(ready) = self.raft.take_ready() {
            self.digest(now, ready);
            self.start_reads(now);
        }
        self.out.discard = self.out.discard.or(self.incoming.settle());
        if self.out.is_empty() { None } else { Some(std::mem::take(&mut self.out)) }
    }

    /// Ends everything that waits, on the way out.
    pub fn abandon(&mut self) {
        for waiter in self.pending.drain() {
            self.out.failed.push((waiter, ClientError::OutcomeUnknown));
        }
        self.fail_forwards(|_| true);
        let (commands, reads) = self.waiting.expire(|_| true);
        self.out.failed.extend(commands.into_iter().map(|w| (w, ClientError::ShuttingDown)));
        let reads = reads.into_iter().chain(self.reads.drain());
        self.out.failed_reads.extend(reads.map(|r| (r, ClientError::ShuttingDown)));
    }

    fn offer(&mut self, now: Now, command: Command<W>) {
        match self.raft.propose(now, command.proposal.clone()) {
            Ok(id) => self.enqueue(now, id, command.waiter),
            Err(ProposeError::NotLeader { leader: Some(to) }) => self.forward(to, command),
            // Nobody to ask, or not yet: once somebody leads it is offered again.
            Err(ProposeError::NotLeader { leader: None } | ProposeError::Transferring { .. }) => {
                self.wait(now, command);
            }
            Err(error) => self.out.failed.push((command.waiter, refusal(error))),
        }
    }

    fn enqueue(&mut self, now: Now, id: raft_core::LogId, waiter: W) {
        // Entries that this one overwrites in our log may still live on elsewhere: their outcome is unknown.
        for waiter in self.pending.push(id, waiter, now.instant) {
            self.out.failed.push((waiter, ClientError::OutcomeUnknown));
        }
    }

    fn forward(&mut self, to: NodeId, command: Command<W>) {
        if self.forwards.len() >= self.limits.forwards_max {
            self.out.failed.push((command.waiter, ClientError::Busy));
            return;
        }
        self.out.forwards.push(self.forwards.add(to, command));
    }

    fn wait(&mut self, now: Now, command: Command<W>) {
        let expired = now.instant >= command.since.plus_millis(self.limits.leader_wait_ms);
        if expired {
            self.out.failed.push((command.waiter, ClientError::NoLeader));
        } else if self.waiting.len() >= self.limits.waiting_max {
            self.out.failed.push((command.waiter, ClientError::Busy));
        } else {
            self.waiting.push_command(command);
            self.retry_soon(now);
        }
    }

    fn retry_soon(&mut self, now: Now) {
        if self.retry_at.is_none() && self.raft.leader().is_some() {
            self.retry_at = Some(now.instant.plus_millis(RETRY_MS));
        }
    }

    /// Asks for one index for all reads gathered so far: they began before the round that confirms it.
    fn start_reads(&mut self, now: Now) {
        let Some(token) = self.reads.next_token() else { return };
        match self.raft.read(now, token) {
            Ok(()) => self.reads.asked(),
            Err(ReadError::NoLeader) => {
                let reads = self.reads.take_gathered();
                self.wait_reads(now, reads);
            }
            Err(ReadError::Busy) => self.fail_gathered(&ClientError::Busy),
            Err(ReadError::Halted) => self.fail_gathered(&ClientError::ShuttingDown),
        }
    }

    fn wait_reads(&mut self, now: Now, reads: Vec<(R, Instant)>) {
        for (read, since) in reads {
            if now.instant >= since.plus_millis(self.limits.leader_wait_ms) {
                self.out.failed_reads.push((read, ClientError::NoLeader));
            } else {
                self.waiting.push_read(read, since);
            }
        }
        self.retry_soon(now);
    }

    fn fail_gathered(&mut self, error: &ClientError) {
        let reads = self.reads.take_gathered();
        self.out.failed_reads.extend(reads.into_iter().map(|(read, _)| (read, error.clone())));
    }

    fn digest(&mut self, now: Now, ready: Ready) {
        self.out.messages.extend(ready.messages);
        if let Some(write) = &ready.write {
            self.incoming.written(write);
        }
        self.out.writes.extend(ready.write);
        self.out.fetches.extend(ready.fetches);
        for apply in ready.apply {
            self.hand_out(apply);
        }
        if self.restoring.is_some() {
            self.compact_then = self.compact_then.max(ready.compact);
        } else {
            self.out.compact = self.out.compact.max(ready.compact);
        }
        for outcome in ready.reads {
            let unconfirmed = self.reads.answered(outcome.token, outcome.index);
            self.wait_reads(now, unconfirmed);
        }
        self.serve_confirmed();
        let new_leader = ready.events.iter().any(|e| matches!(e, Event::RoleChanged { leader: Some(_), .. }));
        let no_leader = ready.events.iter().any(|e| matches!(e, Event::RoleChanged { leader: None, .. }));
        if ready.events.iter().any(|e| matches!(e, Event::SnapshotWanted { .. })) {
            self.request_snapshot();
        }
        let transfer_over = ready.events.iter().any(|e| matches!(e, Event::TransferEnded { .. }));
        self.out.events.extend(ready.events);
        if new_leader && self.abandon_at.is_none() && self.forwards.any_elsewhere(self.raft.leader()) {
            self.abandon_at = Some(now.instant.plus_millis(FORMER_LEADER_MS));
        }
        // It may be back, and has as long as any search for a leader. That this node takes it for its leader again, after
        // an election that nobody answered, is no sign of it.
        if no_leader && self.lost_at.is_none() && self.forwards.len() > 0 {
            self.lost_at = Some(now.instant.plus_millis(self.limits.leader_wait_ms));
        }
        if new_leader || transfer_over {
            self.retry_waiting(now);
        }
    }

    /// A leader is known: whatever waited for one goes on.
    fn retry_waiting(&mut self, now: Now) {
        self.retry_at = None;
        if self.forwards.any_elsewhere(self.raft.leader()) {
            self.held = self.waiting.has_commands();
        } else if self.forwards.are_coming_back() {
            self.retry_soon(now);
        } else {
            for command in self.waiting.take_commands() {
                self.offer(now, command);
            }
        }
        self.waiting.take_reads().into_iter().for_each(|(read, since)| self.reads.gather(read, since));
    }

    fn hand_out(&mut self, apply: Apply) {
        match apply {
            Apply::Entries(entries) => {
                let mut waiters = Vec::new();
                for (position, entry) in entries.iter().enumerate() {
                    self.snapshots.grew(entry);
                    let settled = self.pending.settle(entry.id);
                    waiters.extend(settled.committed.map(|waiter| (position, waiter)));
                    // Another entry is committed in their place: they are lost for certain.
                    self.out.failed.extend(settled.lost.into_iter().map(|w| (w, ClientError::NotLeader)));
                    self.handed_out = entry.id.index;
                }
                self.out.jobs.push(Job::Apply { entries, waiters });
                if self.snapshots.is_due() && self.snapshots.start() {
                    self.out.jobs.push(Job::TakeSnapshot);
                }
            }
            Apply::Restore(meta) => {
                // What the snapshot covers may or may not contain them.
                for waiter in self.pending.skip_to(meta.last.index) {
                    self.out.failed.push((waiter, ClientError::OutcomeUnknown));
                }
                self.handed_out = meta.last.index;
                self.snapshots.restored();
                self.restoring = Some(meta.last.index);
                self.bereft = false;
                self.out.jobs.push(Job::Restore(*meta));
            }
        }
    }

    /// Reads go into the applier's queue behind the entries they must see (SAFETY R2).
    fn serve_confirmed(&mut self) {
        self.out.jobs.extend(self.reads.take_confirmed(self.handed_out).map(Job::Reads));
    }
}

fn refusal(error: ProposeError) -> ClientError {
    match error {
        ProposeError::NotLeader { .. } => ClientError::NotLeader,
        ProposeError::Busy | ProposeError::Transferring { .. } => ClientError::Busy,
        ProposeError::Halted => ClientError::ShuttingDown,
    }
}

#[cfg(test)]
mod tests;
