//! The connections we dial, two per peer, and the queues before them.

use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use raft_core::NodeId;
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    ConnectionKind, FrameError, HandshakeError, Hello, NetEvent, NetOptions, Packet, PeerInfo, PeerStatus,
    Refusal, Sent,
    books::{Direction, Ticket},
    codec::FrameReader,
    handshake::{self, Standing},
    transport::{Shared, Stats, random},
};

/// One peer: where it is, and the two connections to it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) info: PeerInfo,
    pub(crate) control: Link,
    pub(crate) bulk: Link,
    /// Ends both links.
    pub(crate) stop: CancellationToken,
    /// A connection was open since its death was last reported.
    alive: AtomicBool,
    hello: Mutex<Option<Hello>>,
}

impl Peer {
    pub(crate) fn new(id: NodeId, info: PeerInfo, options: &NetOptions, stop: CancellationToken) -> Peer {
        let frames = options.queue_frames_max;
        Peer {
            id,
            info,
            control: Link::new(ConnectionKind::Control, options.control_queue_bytes_max, frames),
            bulk: Link::new(ConnectionKind::Bulk, options.bulk_queue_bytes_max, frames),
            stop,
            alive: AtomicBool::new(false),
            hello: Mutex::new(None),
        }
    }

    /// What it told of itself.
    pub(crate) fn introduce(&self, hello: &Hello) {
        *lock(&self.hello) = Some(hello.clone());
    }

    /// It was heard of: no reason to wait longer before the next attempt.
    pub(crate) fn poke(&self) {
        for link in [&self.control, &self.bulk] {
            if !link.connected.load(Ordering::Relaxed) {
                link.poke.notify_one();
            }
        }
    }

    pub(crate) fn status(&self) -> PeerStatus {
        PeerStatus {
            address: self.info.address.clone(),
            control_connected: self.control.connected.load(Ordering::Relaxed),
            bulk_connected: self.bulk.connected.load(Ordering::Relaxed),
            control_queue_bytes: lock(&self.control.queue).bytes,
            bulk_queue_bytes: lock(&self.bulk.queue).bytes,
            dropped: self.control.dropped.load(Ordering::Relaxed) + self.bulk.dropped.load(Ordering::Relaxed),
            hello: lock(&self.hello).clone(),
            last_error: lock(&self.control.last_error)
                .clone()
                .or_else(|| lock(&self.bulk.last_error).clone()),
        }
    }
}

/// One connection that we dial, and the queue before it.
#[derive(Debug)]
pub(crate) struct Link {
    kind: ConnectionKind,
    queue: Mutex<Queue>,
    bytes_max: usize,
    frames_max: usize,
    /// The queue is no longer empty.
    wake: Notify,
    /// Try to connect now.
    poke: Notify,
    connected: AtomicBool,
    dropped: AtomicU64,
    last_error: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Queue {
    packets: Vec<Packet>,
    bytes: usize,
    /// Taken by the writer and not on the wire yet.
    writing: bool,
}

impl Link {
    fn new(kind: ConnectionKind, bytes_max: usize, frames_max: usize) -> Link {
        Link {
            kind,
            queue: Mutex::default(),
            bytes_max,
            frames_max,
            wake: Notify::new(),
            poke: Notify::new(),
            connected: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// Queues a packet, or drops it if the queue is full. Never blocks.
    pub(crate) fn push(&self, packet: Packet, stats: &Stats) -> Sent {
        let weight = packet.weight();
        let mut queue = lock(&self.queue);
        let full = queue.packets.len() >= self.frames_max
            || (queue.bytes.saturating_add(weight) > self.bytes_max && !queue.packets.is_empty());
        if full {
            drop(queue);
            self.lost(1, stats);
            return Sent::Dropped;
        }
        let first = queue.packets.is_empty();
        queue.bytes += weight;
        queue.packets.push(packet);
        drop(queue);
        if first {
            self.wake.notify_one();
        }
        Sent::Queued
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether nothing waits and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = lock(&self.queue);
        (queue.packets.is_empty() && !queue.writing) || !self.connected.load(Ordering::Relaxed)
    }

    /// Exchanges the whole queue for `empty`; false if there is nothing.
    fn take(&self, empty: &mut Vec<Packet>) -> bool {
        let mut queue = lock(&self.queue);
        std::mem::swap(&mut queue.packets, empty);
        queue.bytes = 0;
        queue.writing = !empty.is_empty();
        queue.writing
    }

    /// What waited for a connection that could not be made is too old to be worth sending.
    fn clear(&self, stats: &Stats) {
        let mut old = Vec::new();
        self.take(&mut old);
        lock(&self.queue).writing = false;
        self.lost(old.len(), stats);
    }

    fn lost(&self, count: usize, stats: &Stats) {
        let count = count as u64;
        self.dropped.fetch_add(count, Ordering::Relaxed);
        stats.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: FrameReader<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
    pub(crate) hello: Box<Hello>,
    pub(crate) ticket: Ticket,
}

/// Dials a peer and shakes hands.
pub(crate) async fn connect(
    shared: &Shared,
    id: NodeId,
    address: &str,
    kind: ConnectionKind,
    stop: &CancellationToken,
) -> Result<Connection, HandshakeError> {
    let options = &shared.options;
    let stream = timeout(options.dial_timeout, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the dial timed out"))??;
    stream.set_nodelay(true)?;
    let (read, mut writer) = stream.into_split();
    let mut reader = FrameReader::opening(read);
    let mine = shared.books.hello(shared.nonce, kind, id, options.frame_bytes_max());
    let said = mine.cluster;
    let mut ticket = None;
    let hello = timeout(
        options.handshake_timeout,
        handshake::dial(&mut reader, &mut writer, mine, |hello| {
            ticket = Some(shared.books.enter(hello, said, kind, Direction::Outbound, stop)?);
            Ok(())
        }),
    )
    .await
    .map_err(|_| HandshakeError::Timeout)??;
    reader.establish(options.frame_bytes_max(), READ_BYTES);
    let ticket = ticket.ok_or(HandshakeError::Unexpected("hello"))?;
    Ok(Connection { reader, writer, hello, ticket })
}

/// Keeps one connection to a peer, for as long as the peer is one.
pub(crate) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>, kind: ConnectionKind) {
    let link = if kind == ConnectionKind::Bulk { &peer.bulk } else { &peer.control };
    let stop = peer.stop.clone();
    let work = async {
        let mut attempt = 0_u32;
        loop {
            // Founding needs the control connection alone.
            while kind == ConnectionKind::Bulk && shared.books.cluster().is_none() {
                link.poke.notified().await;
            }
            match connect(&shared, peer.id, &peer.info.address, kind, &peer.stop).await {
                Ok(connection) => {
                    let opened = Instant::now();
                    let why = serve(&shared, &peer, link, connection).await;
                    link.connected.store(false, Ordering::Relaxed);
                    lock(&link.queue).writing = false;
                    info!(peer = %peer.id, %kind, %why, "connection lost");
                    if kind == ConnectionKind::Control && matches!(why, End::Silent | End::Stalled) {
                        shared.books.give_up(peer.id);
                    }
                    if let End::Refused(refusal) = &why {
                        shared.refused(peer.id, true, refusal);
                    }
                    *lock(&link.last_error) = Some(why.to_string());
                    // The first retry is immediate: a process that died refuses it, and is suspected at once.
                    attempt = if opened.elapsed() >= STABLE { 0 } else { attempt + 1 };
                }
                Err(error) => {
                    link.clear(&shared.stats);
                    failed(&shared, &peer, kind, &error);
                    *lock(&link.last_error) = Some(error.to_string());
                    // A dial that timed out has waited already.
                    let timed_out =
                        matches!(&error, HandshakeError::Io(io) if io.kind() == io::ErrorKind::TimedOut);
                    attempt = if timed_out { 0 } else { attempt.saturating_add(1) };
                }
            }
            if attempt > 0 {
                let wait = backoff(attempt, &shared.options, random());
                drop(timeout(wait, link.poke.notified()).await);
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
    link.connected.store(false, Ordering::Relaxed);
    link.clear(&shared.stats);
}

/// How long to wait before the attempt with this number, which is at least 1: doubling from the minimum to the
/// maximum, and of that a random half to all.
fn backoff(attempt: u32, options: &NetOptions, random: u64) -> Duration {
    let doubled = options.backoff_min.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
    let most = doubled.min(options.backoff_max);
    let share = u32::try_from(random % 512).unwrap_or(0) + 512;
    most * share / 1024
}

fn failed(shared: &Shared, peer: &Peer, kind: ConnectionKind, error: &HandshakeError) {
    match error {
        HandshakeError::Refused(refusal) => return shared.refused(peer.id, false, refusal),
        HandshakeError::RefusedByPeer(refusal) => return shared.refused(peer.id, true, refusal),
        _ => {}
    }
    let refused = matches!(error, HandshakeError::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused);
    // A connection was open, and now nobody listens: the process is gone (SAFETY E8).
    if refused && peer.alive.swap(false, Ordering::Relaxed) {
        info!(peer = %peer.id, "the peer's process is gone");
        shared.events.tell(NetEvent::PeerDied(peer.id));
    }
    debug!(peer = %peer.id, %kind, address = %peer.info.address, %error, "no connection");
}

/// Why an open connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the other side")]
    Closed,
    #[error("closed by this side")]
    Cancelled,
    #[error("closed by the other side: {0}")]
    Refused(Refusal),
    #[error("no progress in writing")]
    Stalled,
    #[error("no sign of life")]
    Silent,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes what is queued until the connection ends.
async fn serve(shared: &Shared, peer: &Peer, link: &Link, connection: Connection) -> End {
    let Connection { mut reader, writer, hello, ticket } = connection;
    peer.introduce(&hello);
    peer.alive.store(true, Ordering::Relaxed);
    link.connected.store(true, Ordering::Relaxed);
    *lock(&link.last_error) = None;
    shared.accepted(peer.id);
    info!(peer = %peer.id, kind = %link.kind, address = %peer.info.address, start = %hello.start, "connected");
    let frame_bytes_max = usize::try_from(hello.frame_bytes_max).unwrap_or(usize::MAX);
    shared.events.tell(NetEvent::PeerConnected { peer: peer.id, kind: link.kind, hello });

    let options = &shared.options;
    let mut packets = Vec::new();
    let mut batch = Batch::default();
    let control = link.kind == ConnectionKind::Control;
    let stall = if control { options.silence_timeout } else { options.write_stall_timeout };
    let mut last_write = Instant::now();
    // When the first write was made that nothing has answered yet.
    let mut unanswered: Option<Instant> = None;
    let period = options.keepalive.min(options.silence_timeout / 2) / 2;
    let tick = sleep(period);
    tokio::pin!(tick);
    let close = ticket.close.clone();
    loop {
        if link.take(&mut packets) {
            if ticket.standing != Standing::Member {
                let queued = packets.len();
                packets.retain(|packet| match packet {
                    Packet::KeepAlive | Packet::Founding(_) => true,
                    Packet::Message(message) => ticket.standing.may_hear(&message.body),
                    _ => false,
                });
                link.lost(queued - packets.len(), &shared.stats);
            }
            let refused = batch.fill(packets.drain(..), frame_bytes_max);
            if refused > 0 {
                link.lost(refused, &shared.stats);
                warn!(peer = %peer.id, refused, frame_bytes_max, "frames longer than the peer takes were dropped");
            }
            let written = tokio::select! {
                biased;
                () = close.cancelled() => return End::Cancelled,
                written = batch.write(&writer, stall, &shared.stats) => written,
            };
            match written {
                Ok(true) => {}
                Ok(false) => return End::Stalled,
                Err(error) => return error.into(),
            }
            last_write = Instant::now();
            unanswered = unanswered.or(Some(last_write));
            continue;
        }
        tokio::select! {
            biased;
            () = close.cancelled() => return End::Cancelled,
            () = link.wake.notified() => {}
            received = reader.next() => match received {
                Ok(Some(Packet::KeepAlive)) => unanswered = None,
                Ok(Some(Packet::Refusal(refusal))) => return End::Refused(*refusal),
                Ok(Some(other)) => {
                    return FrameError::Misplaced { frame: other.kind().name(), connection: link.kind }.into();
                }
                Ok(None) => return End::Closed,
                Err(error) => return error.into(),
            },
            () = &mut tick => {
                let silent = unanswered.map_or(Duration::ZERO, |since| since.elapsed());
                if control && silent >= options.silence_timeout {
                    return End::Silent;
                }
                if last_write.elapsed() >= options.keepalive || silent >= options.silence_timeout / 2 {
                    // A full queue needs no keep-alive.
                    let _ = link.push(Packet::KeepAlive, &shared.stats);
                }
                tick.as_mut().reset(Instant::now() + period);
            }
        }
    }
}

/// Many frames on their way out in as few system calls as possible.
///
/// Headers and small payloads are copied behind one another into one buffer, which a write takes in one piece; larger
/// payloads are written from where they lie. (A small payload costs the kernel more as a piece of its own than the
/// copy costs us.)
#[derive(Debug, Default)]
pub(crate) struct Batch {
    heads: Vec<u8>,
    parts: Vec<Part>,
    frames: u64,
}

#[derive(Debug)]
enum Part {
    /// Of `heads`.
    Head(Range<usize>),
    Payload(Bytes),
}

impl Batch {
    /// Takes these packets in, and returns how many were longer than `frame_bytes_max` and left out.
    pub(crate) fn fill(&mut self, packets: impl Iterator<Item = Packet>, frame_bytes_max: usize) -> usize {
        self.heads.clear();
        self.parts.clear();
        self.frames = 0;
        let mut refused = 0;
        let mut from = 0;
        for packet in packets {
            let at = self.heads.len();
            match packet.encode_head(&mut self.heads) {
                Ok(total) if total <= frame_bytes_max => {}
                _ => {
                    self.heads.truncate(at);
                    refused += 1;
                    continue;
                }
            }
            self.frames += 1;
            for payload in packet.payloads() {
                if payload.len() <= INLINE_PAYLOAD_BYTES_MAX {
                    self.heads.extend_from_slice(payload);
                } else {
                    self.parts.push(Part::Head(from..self.heads.len()));
                    from = self.heads.len();
                    self.parts.push(Part::Payload(payload.clone()));
                }
            }
        }
        if from < self.heads.len() {
            self.parts.push(Part::Head(from..self.heads.len()));
        }
        refused
    }

    /// Writes everything; `Ok(false)` if the other side took nothing for `stall`.
    pub(crate) async fn write(
        &mut self,
        writer: &OwnedWriteHalf,
        stall: Duration,
        stats: &Stats,
    ) -> io::Result<bool> {
        let mut next = 0;
        let mut offset = 0;
        let mut unyielded = 0;
        while next < self.parts.len() {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slice, part) in slices.iter_mut().zip(&self.parts[next..]) {
                    let bytes = self.bytes(part);
                    *slice = IoSlice::new(if count == 0 { &bytes[offset..] } else { bytes });
                    count += 1;
                }
                writer.try_write_vectored(&slices[..count])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(mut written) => {
                    stats.writes.fetch_add(1, Ordering::Relaxed);
                    stats.bytes_sent.fetch_add(written as u64, Ordering::Relaxed);
                    unyielded += written;
                    while next < self.parts.len() {
                        let left = self.bytes(&self.parts[next]).len() - offset;
                        if written < left {
                            offset += written;
                            break;
                        }
                        written -= left;
                        offset = 0;
                        next += 1;
                    }
                    if unyielded >= YIELD_BYTES {
                        // A fast receiver must not keep this thread from the heartbeats.
                        unyielded = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match timeout(stall, writer.writable()).await {
                        Ok(ready) => ready?,
                        Err(_) => return Ok(false),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        stats.frames_sent.fetch_add(self.frames, Ordering::Relaxed);
        self.parts.clear();
        if self.heads.capacity() > HEADS_KEPT_BYTES {
            self.heads = Vec::new();
        }
        Ok(true)
    }

    fn bytes<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Head(range) => &self.heads[range.clone()],
            Part::Payload(payload) => payload,
        }
    }
}

/// A connection that lasted this long was a good one: the next attempt begins without a wait.
const STABLE: Duration = Duration::from_secs(1);
/// Little is read on connections we dialled.
const READ_BYTES: usize = 1 << 10;
/// Payloads up to this length are copied behind their header.
const INLINE_PAYLOAD_BYTES_MAX: usize = 512;
/// Pieces of one write.
const SLICES_MAX: usize = 128;
/// Bytes written before other tasks get their turn.
const YIELD_BYTES: usize = 1 << 20;
/// A larger header buffer is not kept for the next batch.
const HEADS_KEPT_BYTES: usize = 1 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_are_never_shorter_than_half() {
        let options = NetOptions::default();
        for (attempt, most_ms) in
            [(1, 20), (2, 40), (3, 80), (6, 640), (7, 1000), (40, 1000), (u32::MAX, 1000)]
        {
            let most = Duration::from_millis(most_ms);
            for random in [0, 1, 511, 12_345, u64::MAX] {
                let wait = backoff(attempt, &options, random);
                assert!(wait >= most / 2 && wait <= most, "attempt {attempt}: {wait:?}");
            }
        }
    }

    #[test]
    fn a_batch_merges_small_payloads_and_leaves_large_ones_where_they_are() {
        let forward = |length| {
            let payload = Bytes::from(vec![1; length]);
            let checksum = crc32fast::hash(&payload);
            Packet::Forward(crate::Forward { request: 1, kind: 1, session: None, checksum, payload })
        };
        let mut batch = Batch::default();
        let small = INLINE_PAYLOAD_BYTES_MAX;
        let refused = batch.fill([small, 1, small + 1, 1, 9000].map(forward).into_iter(), 5000);
        assert_eq!(refused, 1);
        let shape: Vec<bool> = batch.parts.iter().map(|part| matches!(part, Part::Head(_))).collect();
        assert_eq!(shape, [true, false, true]);
        let written: usize = batch.parts.iter().map(|part| batch.bytes(part).len()).sum();
        let mut expected = Vec::new();
        for length in [small, 1, small + 1, 1] {
            forward(length).encode_head(&mut expected).unwrap();
            expected.resize(expected.len() + length, 1);
        }
        assert_eq!(written, expected.len());
        let bytes: Vec<u8> = batch.parts.iter().flat_map(|part| batch.bytes(part).to_vec()).collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_full_queue_drops_and_an_empty_one_takes_anything() {
        let link = Link::new(ConnectionKind::Bulk, 1000, 3);
        let stats = Stats::default();
        let chunk = |length| Packet::SnapshotChunk { offset: 0, data: Bytes::from(vec![0; length]) };
        assert_eq!(link.push(chunk(5000), &stats), Sent::Queued);
        assert_eq!(link.push(Packet::KeepAlive, &stats), Sent::Dropped);
        let mut taken = Vec::new();
        assert!(link.take(&mut taken));
        assert_eq!(taken.len(), 1);
        for sent in [Sent::Queued, Sent::Queued, Sent::Queued, Sent::Dropped] {
            assert_eq!(link.push(Packet::KeepAlive, &stats), sent);
        }
        link.clear(&stats);
        assert_eq!(stats.dropped.load(Ordering::Relaxed), 5);
        assert_eq!(lock(&link.queue).bytes, 0);
    }
}
