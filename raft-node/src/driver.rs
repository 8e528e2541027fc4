//! The loop around the [`Replica`]: the only place that sees clocks, channels and the transport at once. It moves
//! inputs in and effects out and holds no policy.
//!
//! Each turn takes everything that waits, then carries out everything that follows. Batching falls out of that:
//! whatever came in while the last sync ran becomes one write and one append per peer.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use raft_core::{
    Body, ClusterId, ConfState, Entry, Epoch, Event, Fetch, FetchId, Input, LogId, LogIndex, Message, NodeId,
    Now, Proposal, RoleKind, SnapshotMeta, Timestamp, WriteId,
};
use raft_net::{
    Forward, ForwardOrigin, ForwardOutcome, ForwardReply, Founding, JoinAnswer, NetEvent, NetEvents,
    PeerInfo, Sent, SnapshotError, SnapshotRefusal, Transport,
};
use raft_wal::{Wal, WalError, snapshot_file::SnapshotSource};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{debug, error, info, warn};

use crate::{
    applier::ReadFn,
    arrivals::Arrivals,
    budget::{Budget, Permit},
    counts::{Counts, add},
    error::{ClientError, NodeError},
    inspection::{Inspection, Published},
    replica::{self, Effects, Job, Replica},
    snapshot_store::SnapshotStore,
    snapshot_transfer::{self, Blame},
};

/// Whoever waits for a command's reply. Dropping it unanswered tells a local client that the outcome is unknown.
pub(crate) enum Waiter {
    /// A client of this node.
    Local {
        /// Its end.
        reply: oneshot::Sender<Result<Bytes, ClientError>>,
        /// Gives its bytes back to the budget.
        permit: Permit,
        /// What replies may hold until their clients take them.
        replies: Arc<Budget>,
    },
    /// Another node, on behalf of a client of its own.
    Peer {
        /// That run of that node.
        origin: ForwardOrigin,
        /// Its number of the command.
        request: u64,
        /// Where to answer.
        transport: Transport,
        /// The longest reply that can be carried.
        reply_bytes_max: usize,
    },
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waiter::Local { .. } => f.write_str("Local"),
            Waiter::Peer { origin, request, .. } => write!(f, "Peer({origin:?}, {request})"),
        }
    }
}

impl Waiter {
    /// Ends the wait.
    pub(crate) fn answer(self, result: Result<Bytes, ClientError>) {
        match self {
            Waiter::Local { reply, permit, replies } => {
                drop(permit);
                // The client may have gone.
                let _ = reply.send(result.and_then(|bytes| replies.lend(bytes)));
            }
            Waiter::Peer { origin, request, transport, reply_bytes_max } => {
                // It is lost, and the other side need not wait to find out.
                let result = match result {
                    Ok(reply) if reply.len() > reply_bytes_max => Err(ClientError::OutcomeUnknown),
                    result => result,
                };
                let outcome = encode_outcome(replica::ForwardOutcome::of(result));
                // If the queue is full the other side's deadline ends its wait.
                let _: Sent = transport.send_forward_reply(origin, ForwardReply { request, outcome });
            }
        }
    }
}

/// On the wire.
fn encode_outcome(outcome: replica::ForwardOutcome) -> ForwardOutcome {
    match outcome {
        replica::ForwardOutcome::Reply(reply) => ForwardOutcome::Ok(reply),
        replica::ForwardOutcome::NotLeader => ForwardOutcome::NotLeader { leader: None },
        replica::ForwardOutcome::Failed(ClientError::Busy) => ForwardOutcome::Busy,
        replica::ForwardOutcome::Failed(ClientError::TooLarge { limit, .. }) => {
            ForwardOutcome::TooLarge { limit: limit as u64 }
        }
        replica::ForwardOutcome::Failed(ClientError::OutOfMemory) => {
            ForwardOutcome::Refused(OUT_OF_MEMORY.to_owned())
        }
        replica::ForwardOutcome::Failed(ClientError::DiskFull) => {
            ForwardOutcome::Refused(DISK_FULL.to_owned())
        }
        // Whatever else it may be called, this claims least.
        replica::ForwardOutcome::Failed(
            ClientError::OutcomeUnknown
            | ClientError::NotLeader
            | ClientError::NoLeader
            | ClientError::ShuttingDown,
        ) => ForwardOutcome::Unknown,
    }
}

const OUT_OF_MEMORY: &str = "memory limit reached";
const DISK_FULL: &str = "no space left for the log";

fn decode_outcome(outcome: ForwardOutcome) -> replica::ForwardOutcome {
    match outcome {
        ForwardOutcome::Ok(reply) => replica::ForwardOutcome::Reply(reply),
        ForwardOutcome::NotLeader { .. } => replica::ForwardOutcome::NotLeader,
        ForwardOutcome::Busy => replica::ForwardOutcome::Failed(ClientError::Busy),
        ForwardOutcome::Unknown => replica::ForwardOutcome::Failed(ClientError::OutcomeUnknown),
        ForwardOutcome::TooLarge { limit } => replica::ForwardOutcome::Failed(ClientError::TooLarge {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }),
        ForwardOutcome::Refused(why) if why == DISK_FULL => {
            replica::ForwardOutcome::Failed(ClientError::DiskFull)
        }
        ForwardOutcome::Refused(_) => replica::ForwardOutcome::Failed(ClientError::OutOfMemory),
    }
}

/// What reaches the driver from this process. Bounded by what it was asked for: by the budget of clients' bytes, by
/// the reads and writes under way.
pub(crate) enum DriverInput<S> {
    /// A client's command.
    Propose(Proposal, Waiter),
    /// A linearizable read.
    Read(ReadFn<S>),
    /// A read of what is applied here.
    ReadStale(ReadFn<S>),
    /// The log's writer finished a batch, or died.
    Persisted(Result<WriteId, WalError>),
    /// The applier got this far.
    Applied(LogIndex),
    /// A log reader is done.
    Fetched(FetchId, Result<Vec<Entry>, WalError>),
    /// A local snapshot is in place.
    SnapshotTaken { meta: SnapshotMeta, bytes: u64, took: Duration },
    /// A local snapshot could not be written; the disk itself is well.
    SnapshotFailed(io::Error),
    /// A leader's snapshot has arrived, verified and synced under its temporary name.
    SnapshotReceived(Message),
    /// A leader's snapshot broke off, or its file is removed again.
    SnapshotGone,
    /// The snapshot this message names is open, to be sent.
    SnapshotOpened(Message, Box<SnapshotSource>),
    /// A snapshot did not reach this peer.
    SnapshotNotSent { to: NodeId, epoch: Epoch, blame: Blame },
    /// Take a snapshot now.
    RequestSnapshot,
    /// The node cannot go on.
    Failed(NodeError),
    /// Hand over leadership and tell when somebody else leads, or nobody wants to. The node goes on.
    HandOver(oneshot::Sender<()>),
    /// Stop now.
    Shutdown(oneshot::Sender<()>),
}

/// See the module.
pub(crate) struct Driver<S> {
    pub(crate) replica: Replica<Waiter, ReadFn<S>>,
    pub(crate) inputs: mpsc::UnboundedReceiver<DriverInput<S>>,
    pub(crate) inputs_tx: mpsc::UnboundedSender<DriverInput<S>>,
    pub(crate) net: NetEvents,
    pub(crate) transport: Transport,
    /// The longest payload of a frame.
    pub(crate) entry_bytes_max: usize,
    pub(crate) jobs: mpsc::UnboundedSender<Job<Waiter, ReadFn<S>>>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    /// Of the snapshots sent.
    pub(crate) arrivals: Arrivals,
    pub(crate) cluster: ClusterId,
    pub(crate) published: Published,
    pub(crate) counts: Arc<Counts>,
    pub(crate) clock: Clock,
}

/// The process's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            // One so that no moment of this run is the default value.
            instant: raft_core::Instant(micros + 1),
            wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn at(&self, instant: raft_core::Instant) -> Instant {
        self.started + Duration::from_micros(instant.0)
    }
}

/// Inputs taken in one turn: enough to batch, few enough that heartbeats go out in between.
const TURN_INPUTS_MAX: usize = 1024;
/// The state is published at most this often: status is for people and scrapers, not for the hot path.
const PUBLISH_APART: Duration = Duration::from_millis(20);
/// How long a leaving leader waits for its successor.
const HANDOVER: Duration = Duration::from_millis(500);

/// What an input means for the loop.
enum Turn {
    GoOn,
    Fail(NodeError),
    HandOver(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

impl<S: Send + 'static> Driver<S> {
    /// Runs until shutdown or failure.
    pub(crate) async fn run(mut self) -> Result<(), NodeError> {
        let mut inputs = Vec::with_capacity(TURN_INPUTS_MAX);
        let mut handing_over: Option<(Instant, oneshot::Sender<()>)> = None;
        let mut halted = None;
        let mut stale = false;
        let mut published_at = Instant::now();
        loop {
            let now = self.clock.now();
            let acted = self.act(now, &mut halted);
            stale |= acted;
            if stale && published_at.elapsed() >= PUBLISH_APART {
                self.published.publish(Inspection::of(self.replica.raft()));
                (stale, published_at) = (false, Instant::now());
            }
            if let Some(error) = halted {
                self.abandon();
                return Err(error);
            }
            if handing_over.as_ref().is_some_and(|(until, _)| {
                self.replica.raft().role() != RoleKind::Leader || Instant::now() >= *until
            }) && let Some((_, done)) = handing_over.take()
            {
                let _ = done.send(());
            }
            let deadline = self.replica.next_deadline().map(|at| self.clock.at(at));
            let hand_over_until = handing_over.as_ref().map(|(until, _)| *until);
            let publish_at = stale.then(|| published_at + PUBLISH_APART);
            let wake = deadline.into_iter().chain(hand_over_until).chain(publish_at).min();
            let due = tokio::select! {
                biased;
                event = self.net.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.take_net(event);
                    for _ in 0..TURN_INPUTS_MAX {
                        let Some(event) = self.net.try_recv() else { break };
                        self.take_net(event);
                    }
                    false
                }
                _ = self.inputs.recv_many(&mut inputs, TURN_INPUTS_MAX) => false,
                () = sleep_until(wake) => true,
            };
            while inputs.len() < TURN_INPUTS_MAX
                && let Ok(input) = self.inputs.try_recv()
            {
                inputs.push(input);
            }
            let now = self.clock.now();
            let mut stopping = None;
            // Also what has no effect shows: that the last entry is applied, after which a lone node is left in peace.
            stale |= !inputs.is_empty();
            for input in inputs.drain(..) {
                match self.take(now, input) {
                    Turn::GoOn => {}
                    Turn::Fail(error) => halted = Some(error),
                    Turn::HandOver(done) => {
                        self.hand_over(now);
                        handing_over = Some((Instant::now() + HANDOVER, done));
                    }
                    Turn::Stop(done) => stopping = Some(done),
                }
            }
            if (due || deadline.is_some_and(|at| Instant::now() >= at))
                && let Err(error) = self.replica.tick(now)
            {
                debug!(%error, "tick");
            }
            if let Some(done) = stopping {
                self.abandon();
                let _ = done.send(());
                return Ok(());
            }
        }
    }

    /// Carries out whatever follows from the inputs taken so far.
    /// Whether there was anything.
    fn act(&mut self, now: Now, halted: &mut Option<NodeError>) -> bool {
        let mut acted = false;
        while let Some(effects) = self.replica.take_effects(now) {
            let Effects {
                messages,
                writes,
                jobs,
                fetches,
                compact,
                discard,
                forwards,
                failed,
                failed_reads,
                events,
                replies,
            } = effects;
            acted = true;
            // The disk is the slowest: it starts first, and syncs while the rest is sent.
            for write in writes {
                if self.replica.raft().role() == RoleKind::Leader {
                    add(&self.counts.proposals, write.entries.len() as u64);
                }
                // The observer tells when it is durable; nobody waits for this ticket.
                drop(self.wal.submit(write));
            }
            for message in messages {
                self.send(message);
            }
            for job in jobs {
                // The applier ends only after it told us why.
                let _ = self.jobs.send(job);
            }
            for fetch in fetches {
                self.fetch(fetch);
            }
            add(&self.counts.forwards, forwards.len() as u64);
            let mut dropped = false;
            for forward in forwards {
                // Behind one that found no room none is sent: a smaller one might, and would overtake it.
                dropped = dropped || self.forward(&forward) == Sent::Dropped;
                if dropped {
                    self.replica.forward_not_sent(now, forward.request);
                }
            }
            for (waiter, error) in failed {
                waiter.answer(Err(error));
            }
            for (read, error) in failed_reads {
                read(Err(error));
            }
            for (waiter, reply) in replies {
                waiter.answer(Ok(reply));
            }
            if let Some(up_to) = compact {
                // Older snapshots go with it.
                self.wal.compact(up_to);
            }
            if let Some(last) = discard {
                self.discard(last);
            }
            for event in events {
                if let Event::Halted(reason) = event {
                    *halted = Some(NodeError::Halted(reason));
                } else {
                    self.tell(event);
                }
            }
        }
        acted
    }

    fn take(&mut self, now: Now, input: DriverInput<S>) -> Turn {
        let refused = match input {
            DriverInput::Propose(proposal, waiter) => {
                self.replica.propose(now, proposal, waiter);
                Ok(())
            }
            DriverInput::Read(read) => {
                add(&self.counts.reads, 1);
                self.replica.read(now, read);
                Ok(())
            }
            DriverInput::ReadStale(read) => {
                self.replica.read_stale(read);
                Ok(())
            }
            DriverInput::Persisted(Ok(id)) => self.replica.handle(now, Input::Persisted(id)),
            DriverInput::Applied(index) => self.replica.handle(now, Input::Applied(index)),
            DriverInput::Fetched(id, Ok(entries)) => self.replica.handle(now, Input::Fetched { id, entries }),
            DriverInput::Fetched(id, Err(error)) => {
                warn!(%error, "entries could not be read back");
                self.replica.handle(now, Input::FetchFailed { id })
            }
            DriverInput::SnapshotTaken { meta, bytes, took } => {
                info!(index = meta.last.index.0, bytes, took_ms = took.as_millis(), "snapshot taken");
                add(&self.counts.snapshots, 1);
                self.replica.snapshot_taken(now, meta, bytes)
            }
            DriverInput::SnapshotFailed(error) => {
                warn!(%error, "no snapshot could be taken");
                self.replica.snapshot_failed(now)
            }
            DriverInput::SnapshotReceived(message) => {
                add(&self.counts.snapshots_received, 1);
                self.replica.snapshot_received(now, message)
            }
            DriverInput::SnapshotGone => {
                self.replica.snapshot_gone();
                Ok(())
            }
            DriverInput::SnapshotOpened(message, source) => {
                // Whoever leads now has its own to send.
                let raft = self.replica.raft();
                if raft.role() == RoleKind::Leader && raft.term() == message.term {
                    snapshot_transfer::send(&message, *source, &self.transport);
                }
                Ok(())
            }
            DriverInput::SnapshotNotSent { to, epoch, blame: Blame::FileSuspected } => {
                // The newest: it is what would be sent next.
                let last = self.replica.raft().snapshot().last;
                snapshot_transfer::judge(&self.snapshots, last, &self.inputs_tx, to, epoch);
                Ok(())
            }
            DriverInput::SnapshotNotSent { to, epoch, blame } => {
                self.replica.snapshot_not_sent(now, to, epoch, blame == Blame::FileDamaged)
            }
            DriverInput::RequestSnapshot => {
                self.replica.request_snapshot();
                Ok(())
            }
            DriverInput::Failed(error) => return Turn::Fail(error),
            DriverInput::Persisted(Err(error)) => return Turn::Fail(NodeError::Log(error)),
            DriverInput::HandOver(done) => return Turn::HandOver(done),
            DriverInput::Shutdown(done) => return Turn::Stop(done),
        };
        if let Err(error) = refused {
            warn!(%error, "the core refused an input of its own node");
        }
        Turn::GoOn
    }

    fn take_net(&mut self, event: NetEvent) {
        let now = self.clock.now();
        match event {
            NetEvent::Message(message) => self.message(now, message),
            NetEvent::Forward { origin, forward } => {
                let waiter = Waiter::Peer {
                    origin,
                    request: forward.request,
                    transport: self.transport.clone(),
                    reply_bytes_max: self.entry_bytes_max,
                };
                let proposal = Proposal {
                    payload: forward.payload,
                    checksum: forward.checksum,
                    session: forward.session,
                };
                let first = forward.kind == FORWARD_FIRST;
                self.replica.propose_forwarded(now, origin.node, first, proposal, waiter);
            }
            NetEvent::ForwardReply { from, reply } => {
                let outcome = decode_outcome(reply.outcome);
                self.replica.forward_answered(now, from, reply.request, outcome);
            }
            NetEvent::PeerConnected { peer, kind, hello } => {
                debug!(%peer, %kind, start = %hello.start, "connected");
                // What was forwarded on the broken one may be lost.
                self.replica.connection_lost(peer);
                if let Some(epoch) = self.arrivals.connected(peer, hello.nonce) {
                    self.input(now, Input::SnapshotFailed { to: peer, epoch });
                }
                self.input(now, Input::PeerConnected(peer));
            }
            NetEvent::PeerRedialled { peer, kind } => {
                debug!(%peer, %kind, "dialled again by it");
                self.replica.connection_lost(peer);
            }
            NetEvent::PeerDied(peer) => {
                info!(%peer, "process is gone");
                self.replica.connection_lost(peer);
                self.input(now, Input::PeerDied(peer));
            }
            NetEvent::PeerRefused { peer, by_peer, reason } => {
                // The transport has said so.
                debug!(%peer, by_peer, %reason, "connection refused");
            }
            NetEvent::SnapshotIncoming(incoming) => {
                if self.replica.accept_snapshot() {
                    let (snapshots, inputs) = (Arc::clone(&self.snapshots), self.inputs_tx.clone());
                    tokio::spawn(snapshot_transfer::receive(*incoming, snapshots, inputs));
                } else {
                    tokio::spawn(incoming.refuse(SnapshotRefusal::Busy));
                }
            }
            NetEvent::SnapshotProgress { to, epoch } => {
                self.input(now, Input::SnapshotProgress { to, epoch });
            }
            NetEvent::SnapshotSent { to, epoch } => {
                info!(%to, "snapshot sent");
                self.input(now, Input::SnapshotProgress { to, epoch });
                if self.arrivals.arrived(to, epoch) {
                    self.input(now, Input::SnapshotFailed { to, epoch });
                }
            }
            NetEvent::SnapshotFailed { to, epoch, error } => {
                // By this node: another attempt has taken its place, it does not lead any more, or the peer fell silent.
                if matches!(error, SnapshotError::Cancelled) {
                    debug!(%to, "the transfer of a snapshot was broken off");
                } else {
                    warn!(%to, %error, "snapshot not sent");
                }
                snapshot_transfer::not_sent(&self.inputs_tx, to, epoch, Blame::of(&error));
            }
            NetEvent::Founding { from, message, .. } => {
                let members = &self.replica.raft().conf().members;
                let answer = Founding::answer_of_member(self.cluster, members, from, &message);
                if let Some(answer) = answer {
                    let _: Sent = self.transport.send_founding(from, &answer);
                }
            }
            NetEvent::Join(request) => {
                request.answer(JoinAnswer::Refused("this release cannot add members yet".to_owned()));
            }
        }
    }

    fn input(&mut self, now: Now, input: Input) {
        if let Err(error) = self.replica.handle(now, input) {
            debug!(%error, "the core refused an input");
        }
    }

    fn message(&mut self, now: Now, message: Message) {
        let (from, name) = (message.from, message.body.name());
        if let Err(error) = self.replica.handle(now, Input::Message(message)) {
            warn!(%from, message = name, %error, "message refused");
        }
    }

    fn send(&mut self, message: Message) {
        if matches!(message.body, Body::InstallSnapshot { .. }) {
            self.arrivals.begins(message.to);
            snapshot_transfer::open(message, &self.snapshots, &self.inputs_tx);
        } else {
            // What is dropped, Raft repairs.
            let _: Sent = self.transport.send(&message);
        }
    }

    fn fetch(&self, fetch: Fetch) {
        let wal = Arc::clone(&self.wal);
        let inputs = self.inputs_tx.clone();
        tokio::task::spawn_blocking(move || {
            let entries = wal.read(fetch.first, fetch.last, fetch.bytes_max);
            let _ = inputs.send(DriverInput::Fetched(fetch.id, entries));
        });
    }

    fn discard(&self, last: LogId) {
        let snapshots = Arc::clone(&self.snapshots);
        let inputs = self.inputs_tx.clone();
        tokio::task::spawn_blocking(move || {
            snapshots.discard(last);
            let _ = inputs.send(DriverInput::SnapshotGone);
        });
    }

    fn forward(&self, forward: &replica::Forward) -> Sent {
        let proposal = &forward.proposal;
        self.transport.send_forward(
            forward.to,
            Forward {
                request: forward.request,
                kind: if forward.first { FORWARD_FIRST } else { FORWARD_COMMAND },
                session: proposal.session,
                checksum: proposal.checksum,
                payload: proposal.payload.clone(),
            },
        )
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::RoleChanged { role, term, leader } => {
                add(&self.counts.elections, u64::from(role == RoleKind::Candidate));
                add(&self.counts.leader_changes, u64::from(leader.is_some()));
                info!(?role, %term, leader = leader.map_or(0, |id| id.0), "role changed");
                if role != RoleKind::Leader {
                    self.transport.cancel_snapshots();
                }
            }
            Event::ConfChanged { id, conf } => {
                info!(%id, voters = ?conf.voters, learners = ?conf.learners, "configuration changed");
                self.transport.set_conf_index(id.index);
                self.transport.set_peers(peer_infos(&conf, self.replica.raft().id()));
            }
            Event::ConfCommitted { id, conf } => {
                info!(%id, voters = ?conf.voters, learners = ?conf.learners, "configuration committed");
            }
            Event::Removed { conf_id } => {
                warn!(%conf_id, "this node is no member of its cluster any more: it can be shut down");
            }
            Event::TransferEnded { to, outcome } => info!(%to, ?outcome, "transfer of leadership ended"),
            Event::PeerRegressed { peer, matched, now } => {
                error!(%peer, %matched, %now, "a peer has lost entries it had acknowledged; it is not counted any more");
            }
            Event::Refilled { last } => {
                info!(%last, "the damaged log is whole again: this node takes part like any other");
            }
            Event::SnapshotWanted { peer } => {
                info!(%peer, "a peer lost its snapshot: a newer one is taken for it");
            }
            Event::SnapshotReplaced { last } => {
                info!(%last, "the damaged snapshot is replaced: this node takes part like any other");
            }
            Event::Halted(_) => {}
        }
    }

    /// Asks the most advanced of the voters that answer to take over.
    fn hand_over(&mut self, now: Now) {
        if self.replica.raft().role() != RoleKind::Leader {
            return;
        }
        if let Some(to) = self.replica.successor(now) {
            info!(%to, "handing over leadership");
            self.replica.transfer_leadership(now, to);
        }
    }

    fn abandon(&mut self) {
        self.replica.abandon();
        let now = self.clock.now();
        if let Some(effects) = self.replica.take_effects(now) {
            for (waiter, error) in effects.failed {
                waiter.answer(Err(error));
            }
            for (read, error) in effects.failed_reads {
                read(Err(error));
            }
        }
    }
}

/// Whom to hold connections with: everybody in the configuration but this node.
pub(crate) fn peer_infos(conf: &ConfState, me: NodeId) -> BTreeMap<NodeId, PeerInfo> {
    conf.members
        .iter()
        .filter(|(id, _)| **id != me)
        .map(|(id, member)| {
            (*id, PeerInfo { address: member.address.clone(), incarnation: member.incarnation })
        })
        .collect()
}

/// A command behind others that are not answered yet.
const FORWARD_COMMAND: u8 = 1;
/// A command behind none: see [`replica::Forward::first`].
const FORWARD_FIRST: u8 = 2;

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
