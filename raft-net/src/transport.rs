//! The node's end of the wire: peers go in, messages go out, events come back.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use raft_core::{ADDRESS_BYTES_MAX, Body, ClusterId, Incarnation, LogIndex, Message, NodeId, StartNumber};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Addresses, ConnectionKind, Forward, ForwardOrigin, ForwardOutcome, ForwardReply, FoundingMessage,
    FrameError, HandshakeError, Hello, JoinAnswer, LocalIdentity, NetEvent, NetEvents, NetOptions, Packet,
    Refusal, SnapshotError, SnapshotOffer, SnapshotSource,
    books::Books,
    codec::FrameReader,
    events::{self, EventSender},
    handshake, inbound,
    outbound::{self, Peer},
    snapshot_stream,
};

/// Where a peer is, and which directory it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// `host:port`; resolved anew at each attempt to connect.
    pub address: String,
    /// The directory it was admitted with; [`Incarnation::UNKNOWN`] accepts any.
    pub incarnation: Incarnation,
}

/// What became of something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It waits for its turn on the connection. It may still be lost.
    Queued,
    /// The peer is not known, or its queue is full. Raft repairs it; a forward has to be answered as busy.
    Dropped,
}

/// The state of the link to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where it is dialled.
    pub address: String,
    /// Whether the control connection is open.
    pub control_connected: bool,
    /// Whether the bulk connection is open.
    pub bulk_connected: bool,
    /// Bytes waiting on the control connection.
    pub control_queue_bytes: usize,
    /// Bytes waiting on the bulk connection.
    pub bulk_queue_bytes: usize,
    /// Messages dropped since the start, on both.
    pub dropped: u64,
    /// What it last told of itself, its addresses among it.
    pub hello: Option<Hello>,
    /// Why the last attempt to connect failed, while it is not connected.
    pub last_error: Option<String>,
}

/// Counts of the whole transport since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStats {
    /// Frames written.
    pub frames_sent: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// `writev` calls that wrote them.
    pub writes: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Frames dropped before they were written.
    pub dropped: u64,
    /// Connections closed for a malformed frame.
    pub malformed: u64,
    /// Handshakes that failed or were refused here.
    pub handshakes_failed: u64,
    /// Connections closed unauthenticated to make room for others.
    pub evicted: u64,
}

/// The wire of one node. Cloning it gives another handle; dropping the last one shuts it down.
#[derive(Clone, Debug)]
pub struct Transport {
    handle: Arc<Handle>,
}

/// Stops everything when the last [`Transport`] is dropped; the tasks hold only what is inside.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop_accepting.cancel();
        self.shared.stop.cancel();
    }
}

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: NetOptions,
    pub(crate) id: NodeId,
    pub(crate) start: StartNumber,
    /// Of this process.
    pub(crate) nonce: u64,
    pub(crate) books: Arc<Books>,
    pub(crate) events: EventSender,
    pub(crate) stats: Stats,
    pub(crate) stop: CancellationToken,
    pub(crate) stop_accepting: CancellationToken,
    /// Every task has ended.
    ended: CancellationToken,
    pub(crate) tasks: Tasks,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// The last refusal told, per peer, so that a retry every second is not an event every second.
    refusals: Mutex<BTreeMap<NodeId, (bool, Refusal, Instant)>>,
    /// Which process of a member dialled us last, by its nonce; for bulk connections and for control ones.
    dialled: Mutex<BTreeMap<(NodeId, bool), u64>>,
    /// Outgoing snapshots, with a number each.
    snapshots: Mutex<BTreeMap<NodeId, (u64, CancellationToken)>>,
    next_snapshot: AtomicU64,
}

impl Shared {
    fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// A connection was refused: said once, until something else happens.
    pub(crate) fn refused(&self, peer: NodeId, by_peer: bool, reason: &Refusal) {
        let mut refusals = lock(&self.refusals);
        // Whoever reaches the port may claim any id and vary the reason: what is remembered and told is bounded.
        let known = match refusals.get(&peer) {
            Some((by, told, when)) => (*by == by_peer && told == reason) || when.elapsed() < REFUSALS_APART,
            None => refusals.len() >= REFUSALS_MAX,
        };
        if known {
            return;
        }
        refusals.insert(peer, (by_peer, reason.clone(), Instant::now()));
        drop(refusals);
        if *reason == Refusal::NoCluster {
            // Founders see each other like this for a moment: one of them is through already.
            info!(%peer, by_peer, %reason, "not connected yet");
        } else if by_peer {
            warn!(%peer, %reason, "the peer refused the connection");
        } else {
            warn!(%peer, %reason, "connection refused");
        }
        self.events.tell(NetEvent::PeerRefused { peer, by_peer, reason: reason.clone() });
    }

    /// A connection we dialled was made.
    pub(crate) fn accepted(&self, peer: NodeId) {
        lock(&self.refusals).remove(&peer);
    }

    /// A member dialled us. If the same process had done so before, what it sent then may be lost.
    pub(crate) fn dialled(&self, hello: &Hello) {
        let before = lock(&self.dialled).insert((hello.id, hello.kind == ConnectionKind::Bulk), hello.nonce);
        if before == Some(hello.nonce) {
            self.events.tell(NetEvent::PeerRedialled { peer: hello.id, kind: hello.kind });
        }
    }

    /// A peer dialled us: it is up, so there is no reason to wait longer before we dial it.
    pub(crate) fn met(&self, hello: &Hello) {
        if let Some(peer) = self.peer(hello.id) {
            peer.introduce(hello);
            peer.poke();
        }
    }
}

impl Transport {
    /// Starts accepting on `listener`. Nothing is dialled until [`set_peers`](Self::set_peers).
    ///
    /// Must be called within a tokio runtime of either flavour with I/O and time enabled.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if one of the identity's addresses is longer than
    /// [`ADDRESS_BYTES_MAX`](raft_core::ADDRESS_BYTES_MAX).
    ///
    /// # Panics
    /// If the identity's id is zero, or outside a tokio runtime.
    pub fn start(
        options: NetOptions,
        identity: LocalIdentity,
        listener: TcpListener,
    ) -> io::Result<(Transport, NetEvents)> {
        assert!(identity.id != NodeId(0), "node id 0 is not valid");
        let Addresses { resp, http, peer } = &identity.addresses;
        if [resp, http, peer].iter().any(|address| address.len() > ADDRESS_BYTES_MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an advertised address is too long"));
        }
        let ended = CancellationToken::new();
        let (control_bytes, bulk_bytes) = (options.control_inbound_bytes_max, options.bulk_inbound_bytes_max);
        let (events, receiver) = events::channel(control_bytes, bulk_bytes, ended.clone());
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            id: identity.id,
            start: identity.start,
            nonce: random(),
            books: Arc::new(Books::new(identity, options.inbound_max)),
            options,
            events,
            stats: Stats::default(),
            stop_accepting: stop.child_token(),
            stop,
            ended,
            tasks: Tasks::default(),
            peers: RwLock::default(),
            refusals: Mutex::default(),
            dialled: Mutex::default(),
            snapshots: Mutex::default(),
            next_snapshot: AtomicU64::new(1),
        });
        shared.tasks.spawn(inbound::listen(Arc::clone(&shared), listener));
        Ok((Transport { handle: Arc::new(Handle { shared }) }, receiver))
    }

    /// The peers to hold connections with; ourselves is ignored. Peers that are gone are no longer dialled, those
    /// with another address dialled anew, and connections of another incarnation than the one named closed. What a
    /// removed peer dials to us stays open: it may not know yet, or we may be the one that is behind. Must be called
    /// within the tokio runtime.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, PeerInfo>) {
        let shared = &self.handle.shared;
        shared.books.set_peers(&peers);
        let mut current = shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        current.retain(|id, peer| {
            let stays = peers.get(id).is_some_and(|info| info.address == peer.info.address);
            if !stays {
                peer.stop.cancel();
            }
            stays
        });
        for (id, info) in peers {
            if id == shared.id || shared.stop.is_cancelled() {
                continue;
            }
            current.entry(id).or_insert_with(|| {
                let peer = Arc::new(Peer::new(id, info, &shared.options, shared.stop.child_token()));
                for kind in [ConnectionKind::Control, ConnectionKind::Bulk] {
                    shared.tasks.spawn(outbound::keep(Arc::clone(shared), Arc::clone(&peer), kind));
                }
                peer
            });
        }
    }

    /// The configuration behind [`set_peers`](Self::set_peers) stands here in the log; call it before, whenever
    /// another one takes effect.
    ///
    /// Nodes tell it each other. When two disagree about a member's directory the one with the earlier configuration
    /// is behind, and lets the other lead it all the same (see [`Standing`](crate::Standing)). A node that never says
    /// it refuses every directory but the one it knows.
    pub fn set_conf_index(&self, index: LogIndex) {
        self.handle.shared.books.set_conf_index(index);
    }

    /// Founding or joining is over: from now on only this cluster is spoken to. Connections made without a cluster
    /// are made again.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let shared = &self.handle.shared;
        shared.books.set_cluster(cluster);
        for peer in shared.peers.read().unwrap_or_else(PoisonError::into_inner).values() {
            peer.poke();
        }
    }

    /// Queues a message for its receiver; never blocks. Appends take the bulk connection, everything else the control
    /// connection. [`InstallSnapshot`](raft_core::Body::InstallSnapshot) is not for this: see
    /// [`send_snapshot`](Self::send_snapshot); it is dropped here.
    pub fn send(&self, message: &Message) -> Sent {
        let bulk = match &message.body {
            Body::InstallSnapshot { .. } => return Sent::Dropped,
            // Empty ones probe and carry the commit index: they stay behind the appends they follow.
            Body::AppendEntries { .. } => true,
            _ => false,
        };
        self.push(message.to, bulk, Packet::Message(message.clone()))
    }

    /// Queues a command for the leader; never blocks. Forwards to one node arrive in the order they were queued, if
    /// they arrive.
    ///
    /// [`Sent::Dropped`] also while there is no connection: a command must not wait unseen for one that may never come.
    /// What was queued and is then lost with its connection is followed by [`NetEvent::PeerDied`] or
    /// [`NetEvent::PeerConnected`]; an answer that is, by [`NetEvent::PeerRedialled`].
    pub fn send_forward(&self, to: NodeId, forward: Forward) -> Sent {
        if !self.is_bulk_connected(to) {
            return Sent::Dropped;
        }
        self.push(to, true, Packet::Forward(forward))
    }

    fn is_bulk_connected(&self, to: NodeId) -> bool {
        let peers = self.handle.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&to).is_some_and(|peer| peer.bulk.is_connected())
    }

    /// Queues the answer to a forward; never blocks. Answers may arrive in any order.
    pub fn send_forward_reply(&self, to: ForwardOrigin, reply: ForwardReply) -> Sent {
        let bulk = matches!(&reply.outcome, ForwardOutcome::Ok(data) if data.len() > CONTROL_REPLY_BYTES_MAX);
        self.push(to.node, bulk, Packet::ForwardReply { start: to.start, reply })
    }

    /// Queues a founding message; never blocks.
    pub fn send_founding(&self, to: NodeId, message: &FoundingMessage) -> Sent {
        self.push(to, false, Packet::Founding(Box::new(message.clone())))
    }

    fn push(&self, to: NodeId, bulk: bool, packet: Packet) -> Sent {
        let shared = &self.handle.shared;
        let peers = shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peers.get(&to) else {
            shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
            return Sent::Dropped;
        };
        let link = if bulk { &peer.bulk } else { &peer.control };
        link.push(packet, &shared.stats)
    }

    /// Streams a snapshot to `offer.to` on a connection of its own; never blocks. [`NetEvent::SnapshotProgress`] tells that
    /// it moves. Ends in exactly one [`NetEvent::SnapshotSent`] or [`NetEvent::SnapshotFailed`] with the offer's epoch, by
    /// which it should be told from every other. A transfer to the same peer
    /// that is still under way fails as cancelled. Must be called within the tokio runtime.
    pub fn send_snapshot(&self, offer: SnapshotOffer, source: impl SnapshotSource) {
        let shared = Arc::clone(&self.handle.shared);
        let (to, epoch) = (offer.to, offer.epoch);
        let number = shared.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let cancel = shared.stop.child_token();
        if let Some((_, before)) = lock(&shared.snapshots).insert(to, (number, cancel.clone())) {
            before.cancel();
        }
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let transfer = async {
                let peer = shared.peer(to).ok_or(SnapshotError::Connect(format!("{to} is no peer")))?;
                let connection =
                    outbound::connect(&shared, to, &peer.info.address, ConnectionKind::Snapshot, &cancel)
                        .await
                        .map_err(|error| SnapshotError::Connect(error.to_string()))?;
                let moves = || shared.events.tell(NetEvent::SnapshotProgress { to, epoch });
                snapshot_stream::send(connection, offer, source, &shared.options, &shared.stats, moves).await
            };
            let outcome = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(SnapshotError::Cancelled),
                outcome = transfer => outcome,
            };
            let mut snapshots = lock(&shared.snapshots);
            if snapshots.get(&to).is_some_and(|(current, _)| *current == number) {
                snapshots.remove(&to);
            }
            drop(snapshots);
            shared.events.tell(match outcome {
                Ok(()) => NetEvent::SnapshotSent { to, epoch },
                Err(error) => NetEvent::SnapshotFailed { to, epoch, error },
            });
        });
    }

    /// Breaks off the transfer to this peer, if there is one.
    pub fn cancel_snapshot(&self, to: NodeId) {
        if let Some((_, cancel)) = lock(&self.handle.shared.snapshots).get(&to) {
            cancel.cancel();
        }
    }

    /// Breaks off every transfer: who does not lead any more has none to make.
    pub fn cancel_snapshots(&self) {
        for (_, cancel) in lock(&self.handle.shared.snapshots).values() {
            cancel.cancel();
        }
    }

    /// The state of every link.
    #[must_use]
    pub fn peers_status(&self) -> BTreeMap<NodeId, PeerStatus> {
        let peers = self.handle.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(id, peer)| (*id, peer.status())).collect()
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        self.handle.shared.stats.read()
    }

    /// Stops accepting, writes what is queued for at most `drain`, closes everything. The events end once those that
    /// wait were taken. Cancelling it leaves the transport running or half closed; call it again, or drop it.
    pub async fn shutdown(&self, drain: Duration) {
        let shared = &self.handle.shared;
        shared.stop_accepting.cancel();
        let drained = async {
            loop {
                let peers = shared.peers.read().unwrap_or_else(PoisonError::into_inner).clone();
                if peers.values().all(|peer| peer.control.is_idle() && peer.bulk.is_idle()) {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        drop(timeout(drain, drained).await);
        shared.stop.cancel();
        shared.tasks.wait().await;
        shared.ended.cancel();
    }
}

/// Asks the node at `address` to let this one into its cluster.
///
/// `identity` must have no cluster yet. Waits for the answer at most `patience`; a membership change takes a commit.
/// Cancel-safe: the cluster may have admitted the node all the same, asking again then says so.
///
/// # Errors
/// If the node cannot be reached, refuses the connection or does not answer.
pub async fn join(
    address: &str,
    identity: &LocalIdentity,
    options: &NetOptions,
    patience: Duration,
) -> Result<JoinAnswer, HandshakeError> {
    let opening = options.dial_timeout + options.handshake_timeout;
    let work = async {
        let mut stream =
            timeout(opening, TcpStream::connect(address)).await.map_err(|_| HandshakeError::Timeout)??;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.split();
        let mut reader = FrameReader::opening(read);
        let mine =
            identity.hello(random(), ConnectionKind::Join, None, options.frame_bytes_max(), LogIndex::ZERO);
        let shake = handshake::dial(&mut reader, &mut write, mine, |hello| {
            if hello.id == identity.id { Err(Refusal::OwnId(hello.id)) } else { Ok(()) }
        });
        timeout(opening, shake).await.map_err(|_| HandshakeError::Timeout)??;
        reader.establish(options.frame_bytes_max(), 4 << 10);
        match reader.next().await?.ok_or(FrameError::Truncated)? {
            Packet::JoinAnswer(answer) => Ok(*answer),
            Packet::Refusal(refusal) => Err(HandshakeError::RefusedByPeer(*refusal)),
            other => Err(HandshakeError::Unexpected(other.kind().name())),
        }
    };
    timeout(patience, work).await.map_err(|_| HandshakeError::Timeout)?
}

/// The counters behind [`NetStats`].
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) evicted: AtomicU64,
}

impl Stats {
    fn read(&self) -> NetStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetStats {
            frames_sent: of(&self.frames_sent),
            bytes_sent: of(&self.bytes_sent),
            writes: of(&self.writes),
            frames_received: of(&self.frames_received),
            bytes_received: of(&self.bytes_received),
            dropped: of(&self.dropped),
            malformed: of(&self.malformed),
            handshakes_failed: of(&self.handshakes_failed),
            evicted: of(&self.evicted),
        }
    }
}

/// The tasks of a transport, counted, so that a shutdown can wait for them.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(watch::Sender<usize>);

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks(watch::Sender::new(0))
    }
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        struct Running(watch::Sender<usize>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.send_modify(|count| *count -= 1);
            }
        }
        self.0.send_modify(|count| *count += 1);
        let running = Running(self.0.clone());
        tokio::spawn(async move {
            let _running = running;
            task.await;
        });
    }

    async fn wait(&self) {
        // It fails only if the sender is gone, which `self` holds.
        drop(self.0.subscribe().wait_for(|count| *count == 0).await);
    }
}

/// A random number: the standard library seeds its hash maps from the operating system.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Larger replies take the bulk connection.
const CONTROL_REPLY_BYTES_MAX: usize = 16 << 10;
/// Refusals remembered, over all ids ever claimed.
const REFUSALS_MAX: usize = 1024;
/// Different refusals of one peer are told at most this often; what is skipped comes again with the next attempt.
const REFUSALS_APART: Duration = Duration::from_millis(500);
