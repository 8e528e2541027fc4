//! The connections that peers, and strangers, dial to us.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use raft_core::Body;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    ConnectionKind, ForwardOrigin, FrameError, HandshakeError, Hello, IncomingSnapshot, JoinAnswer,
    JoinRequest, NetEvent, Packet, SnapshotError,
    books::Direction,
    codec::FrameReader,
    handshake::{self, Standing},
    outbound::Connection,
    transport::Shared,
};

/// Accepts connections until the transport stops.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let lobby = Arc::new(Lobby::default());
    loop {
        let accepted = tokio::select! {
            () = shared.stop_accepting.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (seat, evicted) = Lobby::enter(
                    &lobby,
                    from.ip(),
                    shared.options.unauthenticated_max,
                    shared.options.unauthenticated_per_ip_max,
                );
                if evicted {
                    shared.stats.evicted.fetch_add(1, Ordering::Relaxed);
                }
                let task = welcome(Arc::clone(&shared), stream, seat);
                shared.tasks.spawn(task);
            }
            Err(error) => {
                // Out of file descriptors, most likely: they come back when connections end.
                warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Where connections wait until they have introduced themselves. When it is full the one that has waited longest goes:
/// an honest handshake takes a round trip, a stranger sits.
#[derive(Debug, Default)]
struct Lobby(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: VecDeque<(u64, IpAddr, CancellationToken)>,
}

/// A place in the lobby; dropping it frees it.
#[derive(Debug)]
struct Seat {
    lobby: Arc<Lobby>,
    id: u64,
    from: IpAddr,
    evicted: CancellationToken,
}

impl Lobby {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, and says whether somebody had to go for it.
    fn enter(lobby: &Arc<Lobby>, from: IpAddr, total_max: usize, per_ip_max: usize) -> (Seat, bool) {
        let mut seats = lobby.seats();
        let of_ip = seats.taken.iter().filter(|(_, ip, _)| *ip == from).count();
        let leaves = if of_ip >= per_ip_max {
            seats.taken.iter().position(|(_, ip, _)| *ip == from)
        } else {
            (seats.taken.len() >= total_max).then_some(0)
        };
        let evicted = leaves.and_then(|at| seats.taken.remove(at));
        if let Some((_, _, token)) = &evicted {
            token.cancel();
        }
        let id = seats.next;
        seats.next += 1;
        let token = CancellationToken::new();
        seats.taken.push_back((id, from, token.clone()));
        (Seat { lobby: Arc::clone(lobby), id, from, evicted: token }, evicted.is_some())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.seats().taken.retain(|(id, _, _)| *id != self.id);
    }
}

/// Shakes hands with whoever came, then serves it.
async fn welcome(shared: Arc<Shared>, stream: TcpStream, seat: Seat) {
    let from = seat.from;
    let shaken = tokio::select! {
        biased;
        () = seat.evicted.cancelled() => return debug!(%from, "closed to make room for other connections"),
        () = shared.stop.cancelled() => return,
        shaken = timeout(shared.options.handshake_timeout, shake(&shared, stream)) => shaken,
    };
    drop(seat);
    let connection = match shaken.unwrap_or(Err((HandshakeError::Timeout, None))) {
        Ok(connection) => connection,
        Err((error, hello)) => {
            shared.stats.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            match (&error, hello) {
                (HandshakeError::Refused(refusal), Some(hello)) => shared.refused(hello.id, false, refusal),
                (HandshakeError::RefusedByPeer(refusal), Some(hello)) => {
                    shared.refused(hello.id, true, refusal);
                }
                _ => debug!(%from, %error, "handshake failed"),
            }
            return;
        }
    };
    let peer = connection.hello.id;
    let kind = connection.hello.kind;
    let close = connection.ticket.close.clone();
    let served = async {
        match kind {
            ConnectionKind::Control | ConnectionKind::Bulk => serve(&shared, connection).await,
            ConnectionKind::Snapshot => offer(&shared, connection).await,
            ConnectionKind::Join => join(&shared, connection).await,
        }
    };
    let ended = tokio::select! {
        biased;
        () = close.cancelled() => return debug!(%peer, %kind, "connection closed: replaced or no longer wanted"),
        ended = served => ended,
    };
    match ended {
        Ok(()) => debug!(%peer, %kind, "connection ended"),
        Err(Ended::Idle) => info!(%peer, %kind, "connection closed: silent for too long"),
        Err(Ended::Frame(FrameError::Io(error))) => debug!(%peer, %kind, %error, "connection lost"),
        Err(Ended::Frame(FrameError::Truncated)) => debug!(%peer, %kind, "connection lost within a frame"),
        Err(Ended::Frame(error)) => {
            shared.stats.malformed.fetch_add(1, Ordering::Relaxed);
            warn!(%peer, %kind, %from, %error, "connection closed: the peer broke the protocol");
        }
    }
}

/// The handshake; on failure with what the other side said of itself, if it got that far.
async fn shake(
    shared: &Shared,
    stream: TcpStream,
) -> Result<Connection, (HandshakeError, Option<Box<Hello>>)> {
    if let Err(error) = stream.set_nodelay(true) {
        return Err((error.into(), None));
    }
    let (read, mut writer) = stream.into_split();
    let mut reader = FrameReader::opening(read);
    let mut ticket = None;
    let mut met = None;
    let said = OnceLock::new();
    let frame_bytes_max = shared.options.frame_bytes_max();
    let shaken = handshake::accept(
        &mut reader,
        &mut writer,
        |theirs| {
            let mine = shared.books.hello(shared.nonce, theirs.kind, theirs.id, frame_bytes_max);
            said.get_or_init(|| mine.cluster);
            mine
        },
        |hello, ready| {
            if ready {
                let entered = shared.books.enter(
                    hello,
                    said.get().copied().flatten(),
                    hello.kind,
                    Direction::Inbound,
                    &shared.stop,
                )?;
                ticket = Some(entered);
                Ok(())
            } else {
                met = Some(Box::new(hello.clone()));
                shared.books.judge(hello)
            }
        },
    )
    .await;
    match (shaken, ticket) {
        (Ok(hello), Some(ticket)) => Ok(Connection { reader, writer, hello, ticket }),
        (Ok(_), None) => Err((HandshakeError::Unexpected("ready"), met)),
        (Err(error), _) => Err((error, met)),
    }
}

enum Ended {
    Idle,
    Frame(FrameError),
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Ended {
        Ended::Frame(error)
    }
}

/// Reads a control or bulk connection to its end.
async fn serve(shared: &Shared, connection: Connection) -> Result<(), Ended> {
    let Connection { mut reader, writer, hello, ticket } = connection;
    let mut pulse = Pulse::new(writer)?;
    let kind = hello.kind;
    let bulk = kind == ConnectionKind::Bulk;
    reader
        .establish(shared.options.frame_bytes_max(), if bulk { BULK_READ_BYTES } else { CONTROL_READ_BYTES });
    shared.met(&hello);
    if ticket.standing == Standing::Member {
        shared.dialled(&hello);
    }
    let idle_timeout = shared.options.idle_timeout;
    let mut heard = Instant::now();
    let idle = sleep(idle_timeout);
    tokio::pin!(idle);
    loop {
        let packet = tokio::select! {
            biased;
            packet = reader.next() => packet?,
            () = &mut idle => {
                if heard.elapsed() >= idle_timeout {
                    return Err(Ended::Idle);
                }
                idle.as_mut().reset(heard + idle_timeout);
                continue;
            }
        };
        let Some(packet) = packet else { return Ok(()) };
        heard = Instant::now();
        pulse.beat(heard)?;
        shared.stats.frames_received.fetch_add(1, Ordering::Relaxed);
        shared.stats.bytes_received.fetch_add(reader.take_received(), Ordering::Relaxed);
        let weight = packet.weight();
        if let Some(event) = admit(shared, &hello, ticket.standing, packet)? {
            shared.events.deliver(bulk, event, weight).await;
        }
    }
}

/// The sign of life that answers what comes in, now and then: the dialler of a connection learns from it that the peer
/// is there. Never waits.
struct Pulse {
    writer: OwnedWriteHalf,
    frame: Vec<u8>,
    /// Bytes of `frame` that are written; all of them between two beats.
    written: usize,
    last: Option<Instant>,
}

impl Pulse {
    fn new(writer: OwnedWriteHalf) -> Result<Pulse, FrameError> {
        let mut frame = Vec::new();
        Packet::KeepAlive.encode_head(&mut frame)?;
        Ok(Pulse { writer, written: frame.len(), frame, last: None })
    }

    fn beat(&mut self, now: Instant) -> Result<(), FrameError> {
        if self.written == self.frame.len() {
            if self.last.is_some_and(|last| now.duration_since(last) < BEATS_APART) {
                return Ok(());
            }
            self.last = Some(now);
            self.written = 0;
        }
        match self.writer.try_write(&self.frame[self.written..]) {
            Ok(count) => self.written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Whether this sender may say this on this connection, and what it means to the runtime.
fn admit(
    shared: &Shared,
    hello: &Hello,
    standing: Standing,
    packet: Packet,
) -> Result<Option<NetEvent>, FrameError> {
    let misplaced =
        |packet: &Packet| FrameError::Misplaced { frame: packet.kind().name(), connection: hello.kind };
    match packet {
        Packet::KeepAlive => Ok(None),
        Packet::Founding(message) => {
            Ok(Some(NetEvent::Founding { from: hello.id, incarnation: hello.incarnation, message: *message }))
        }
        other if standing == Standing::Founder => Err(misplaced(&other)),
        Packet::Message(message) => {
            if message.from != hello.id {
                return Err(FrameError::WrongSender { bound: hello.id, claimed: message.from });
            }
            if message.to != shared.id {
                return Err(FrameError::WrongReceiver(message.to));
            }
            if matches!(message.body, Body::InstallSnapshot { .. }) {
                return Err(misplaced(&Packet::Message(message)));
            }
            Ok(standing.may_say(&message.body).then_some(NetEvent::Message(message)))
        }
        // It does not know that it is not known here: no reason to hang up.
        _ if standing != Standing::Member => Ok(None),
        Packet::Forward(forward) => {
            let origin = ForwardOrigin { node: hello.id, start: hello.start };
            Ok(Some(NetEvent::Forward { origin, forward }))
        }
        // Of an earlier run of this node: nobody waits for it, and its number may have been used again.
        Packet::ForwardReply { start, .. } if start != shared.start => Ok(None),
        Packet::ForwardReply { reply, .. } => Ok(Some(NetEvent::ForwardReply { from: hello.id, reply })),
        other => Err(misplaced(&other)),
    }
}

/// Takes a snapshot's offer and hands the connection to the runtime.
async fn offer(shared: &Shared, connection: Connection) -> Result<(), Ended> {
    let Connection { mut reader, writer, hello, ticket } = connection;
    reader.establish(shared.options.frame_bytes_max(), BULK_READ_BYTES);
    let first = timeout(shared.options.handshake_timeout, reader.next()).await.map_err(|_| Ended::Idle)??;
    let offer = match first {
        Some(Packet::SnapshotOffer(offer)) => *offer,
        Some(other) => {
            let frame = other.kind().name();
            return Err(FrameError::Misplaced { frame, connection: hello.kind }.into());
        }
        None => return Ok(()),
    };
    if offer.from != hello.id {
        return Err(FrameError::WrongSender { bound: hello.id, claimed: offer.from }.into());
    }
    if offer.to != shared.id {
        return Err(FrameError::WrongReceiver(offer.to).into());
    }
    let incoming = IncomingSnapshot::new(offer, reader, writer, ticket, shared.options.snapshot_timeout);
    shared.events.deliver(false, NetEvent::SnapshotIncoming(Box::new(incoming)), OFFER_WEIGHT_BYTES).await;
    Ok(())
}

/// Hands a stranger's wish to the runtime and its answer back.
async fn join(shared: &Shared, connection: Connection) -> Result<(), Ended> {
    let Connection { mut reader, mut writer, hello, ticket: _ticket } = connection;
    let (answer, answered) = oneshot::channel();
    let request = JoinRequest { hello: *hello, answer: Some(answer) };
    shared.events.deliver(false, NetEvent::Join(request), OFFER_WEIGHT_BYTES).await;
    let answer = tokio::select! {
        answer = timeout(JOIN_TIMEOUT, answered) => answer,
        // It has nothing to say while it waits: whatever comes, the end included, ends it.
        received = reader.next() => return received.map(|_| ()).map_err(Ended::from),
    };
    let answer = answer.ok().and_then(Result::ok).unwrap_or(JoinAnswer::Busy);
    drop(tell(&mut writer, &Packet::JoinAnswer(Box::new(answer))).await);
    Ok(())
}

/// Writes one small packet.
pub(crate) async fn tell(writer: &mut OwnedWriteHalf, packet: &Packet) -> Result<(), SnapshotError> {
    let mut bytes = Vec::new();
    packet.encode_head(&mut bytes)?;
    writer.write_all(&bytes).await?;
    Ok(())
}

/// Signs of life are sent at most this often. Well below half of any silence timeout.
const BEATS_APART: Duration = Duration::from_millis(200);
const CONTROL_READ_BYTES: usize = 16 << 10;
const BULK_READ_BYTES: usize = 128 << 10;
/// What an offer or a wish to join counts for among the events that wait.
const OFFER_WEIGHT_BYTES: usize = 64 << 10;
/// A wish to join that the runtime has not answered by then is answered as busy.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
