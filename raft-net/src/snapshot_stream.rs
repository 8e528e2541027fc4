//! Snapshots travel on a connection of their own: offered, accepted from an offset on, sent in checked chunks, and
//! acknowledged once the receiver has the whole file on disk.

use std::{io, time::Duration};

use bytes::Bytes;
use raft_core::{Body, Epoch, Message, NodeId, Round, SnapshotMeta, Term};
use serde::{Deserialize, Serialize};
use tokio::{
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    FrameError, NetOptions, Packet, SNAPSHOT_CHUNK_BYTES_MAX,
    books::Ticket,
    codec::FrameReader,
    inbound::tell,
    outbound::{Batch, Connection},
    transport::Stats,
};

/// What a leader offers. The first frame of a snapshot connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The leader, as the handshake proved it.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The leader's term.
    pub term: Term,
    /// As in [`Body::InstallSnapshot`].
    pub epoch: Epoch,
    /// As in [`Body::InstallSnapshot`].
    pub round: Round,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// Names the file's content at the sender: a resumed transfer continues only the same id.
    pub snapshot_id: u64,
    /// Length of the file in bytes.
    pub length: u64,
}

impl SnapshotOffer {
    /// The offer for an [`InstallSnapshot`](Body::InstallSnapshot) message; `None` for any other.
    #[must_use]
    pub fn from_message(message: &Message, snapshot_id: u64, length: u64) -> Option<SnapshotOffer> {
        let Body::InstallSnapshot { epoch, round, meta } = &message.body else { return None };
        Some(SnapshotOffer {
            from: message.from,
            to: message.to,
            term: message.term,
            epoch: *epoch,
            round: *round,
            meta: SnapshotMeta::clone(meta),
            snapshot_id,
            length,
        })
    }

    /// The message to hand to the core once the whole file is verified and synced under a temporary name.
    #[must_use]
    pub fn to_message(&self) -> Message {
        Message {
            from: self.from,
            to: self.to,
            term: self.term,
            body: Body::InstallSnapshot {
                epoch: self.epoch,
                round: self.round,
                meta: Box::new(self.meta.clone()),
            },
        }
    }
}

/// Where the bytes of an outgoing snapshot come from. Called on a blocking thread, one call at a time.
pub trait SnapshotSource: Send + 'static {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If they cannot be read; the transfer ends with [`SnapshotError::Source`].
    fn read_exact_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

#[cfg(unix)]
impl SnapshotSource for std::fs::File {
    fn read_exact_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, offset)
    }
}

impl SnapshotSource for Bytes {
    fn read_exact_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why the receiver does not want a snapshot, or did not keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SnapshotRefusal {
    /// It has all this already.
    #[error("it has everything this snapshot covers")]
    NotNeeded,
    /// The offer is of an older term than its own.
    #[error("the offer is of an older term")]
    StaleTerm,
    /// It is receiving another one.
    #[error("it is busy with another snapshot")]
    Busy,
    /// Larger than it takes.
    #[error("the snapshot is too large for it")]
    TooLarge,
    /// The file's own checks failed.
    #[error("the file arrived damaged")]
    Damaged,
    /// Its disk failed or is full.
    #[error("its disk failed: {0}")]
    Disk(String),
}

/// Why a snapshot transfer ended early.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The receiver said no.
    #[error("the receiver refused the snapshot: {0}")]
    Refused(#[from] SnapshotRefusal),
    /// The peer could not be reached, or the handshake failed.
    #[error("no connection for the snapshot: {0}")]
    Connect(String),
    /// The connection broke.
    #[error("the snapshot's connection broke: {0}")]
    Io(#[from] io::Error),
    /// The other side broke the protocol.
    #[error("the snapshot's stream is malformed: {0}")]
    Frame(#[from] crate::FrameError),
    /// The other side broke the order of the stream.
    #[error("the snapshot's stream is out of order: {0}")]
    Protocol(&'static str),
    /// No progress within [`NetOptions::snapshot_timeout`](crate::NetOptions::snapshot_timeout).
    #[error("the snapshot made no progress in time")]
    Stalled,
    /// The file could not be read here.
    #[error("the snapshot could not be read: {0}")]
    Source(#[source] io::Error),
    /// Cancelled, replaced by a newer transfer, or the transport shut down.
    #[error("the snapshot was cancelled")]
    Cancelled,
}

/// An offered snapshot that waits for our decision. Dropping it closes the connection; the sender sees a failure.
#[derive(Debug)]
pub struct IncomingSnapshot {
    offer: SnapshotOffer,
    stream: Stream,
}

/// The connection of one snapshot, at either end.
#[derive(Debug)]
struct Stream {
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    ticket: Ticket,
    patience: Duration,
}

impl Stream {
    /// The next packet. Cancel-safe.
    async fn next(&mut self) -> Result<Packet, SnapshotError> {
        let received = tokio::select! {
            biased;
            () = self.ticket.close.cancelled() => return Err(SnapshotError::Cancelled),
            received = timeout(self.patience, self.reader.next()) => received,
        };
        Ok(received.map_err(|_| SnapshotError::Stalled)??.ok_or(FrameError::Truncated)?)
    }

    /// Says no, and waits a moment for the other side to hang up: closing with bytes unread would reset the
    /// connection, and the reason could be lost with it.
    async fn say_no(&mut self, reason: SnapshotRefusal) -> Result<(), SnapshotError> {
        self.tell(&Packet::SnapshotRefuse(reason)).await?;
        let hung_up = async { while let Ok(Some(_)) = self.reader.next().await {} };
        drop(timeout(HANG_UP_TIMEOUT, hung_up).await);
        Ok(())
    }

    async fn tell(&mut self, packet: &Packet) -> Result<(), SnapshotError> {
        timeout(self.patience, tell(&mut self.writer, packet)).await.map_err(|_| SnapshotError::Stalled)?
    }
}

impl IncomingSnapshot {
    pub(crate) fn new(
        offer: SnapshotOffer,
        reader: FrameReader<OwnedReadHalf>,
        writer: OwnedWriteHalf,
        ticket: Ticket,
        patience: Duration,
    ) -> IncomingSnapshot {
        IncomingSnapshot { offer, stream: Stream { reader, writer, ticket, patience } }
    }

    /// What is offered.
    #[must_use]
    pub fn offer(&self) -> &SnapshotOffer {
        &self.offer
    }

    /// Says no and closes. That the sender could not be told makes no difference.
    pub async fn refuse(mut self, reason: SnapshotRefusal) {
        drop(self.stream.say_no(reason).await);
    }

    /// Takes the snapshot from `offset` on: zero, or as many bytes as an earlier, broken transfer of the same
    /// `snapshot_id` from the same sender left behind.
    ///
    /// # Errors
    /// If `offset` exceeds the length or the connection breaks.
    pub async fn accept(mut self, offset: u64) -> Result<SnapshotReceiver, SnapshotError> {
        if offset > self.offer.length {
            return Err(SnapshotError::Protocol("the offset to resume from lies behind the end"));
        }
        self.stream.tell(&Packet::SnapshotAccept { offset }).await?;
        Ok(SnapshotReceiver { offer: self.offer, stream: self.stream, next: offset, done: false })
    }
}

/// A snapshot on its way in. Little is read ahead of [`next_chunk`](Self::next_chunk), so a slow disk slows the
/// sender. Dropping it closes the connection; what was written may be resumed.
#[derive(Debug)]
pub struct SnapshotReceiver {
    offer: SnapshotOffer,
    stream: Stream,
    /// Where the next chunk has to begin (SAFETY N6).
    next: u64,
    done: bool,
}

impl SnapshotReceiver {
    /// What is being received.
    #[must_use]
    pub fn offer(&self) -> &SnapshotOffer {
        &self.offer
    }

    /// The next bytes and where they belong; each chunk begins where the one before ended. `None` once the sender has
    /// sent all: now verify and sync the file, then call [`finish`](Self::finish).
    ///
    /// Each chunk's checksum has been verified; that the whole is what the snapshot's maker wrote is for the file's
    /// own checksum to say. Cancel-safe.
    ///
    /// # Errors
    /// If the connection breaks or stalls, or a chunk is damaged or out of place. What was returned so far is good.
    pub async fn next_chunk(&mut self) -> Result<Option<(u64, Bytes)>, SnapshotError> {
        loop {
            if self.done {
                return Ok(None);
            }
            match self.stream.next().await? {
                Packet::SnapshotChunk { offset, data } => {
                    let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.offer.length);
                    let Some(end) = end.filter(|_| offset == self.next) else {
                        return Err(SnapshotError::Protocol("a chunk is not the next one"));
                    };
                    self.next = end;
                    return Ok(Some((offset, data)));
                }
                Packet::SnapshotDone if self.next == self.offer.length => self.done = true,
                Packet::SnapshotDone => return Err(SnapshotError::Protocol("it ended before its length")),
                Packet::KeepAlive => {}
                _ => return Err(SnapshotError::Protocol("a frame that is no chunk")),
            }
        }
    }

    /// Tells the sender how it ended: `Ok` once the whole file is verified and durable under its temporary name.
    ///
    /// # Errors
    /// If not all of it has come, or the answer could not be sent; the sender will then try again.
    pub async fn finish(mut self, outcome: Result<(), SnapshotRefusal>) -> Result<(), SnapshotError> {
        match outcome {
            Ok(()) if !self.done => Err(SnapshotError::Protocol("it is not complete")),
            Ok(()) => self.stream.tell(&Packet::SnapshotAck).await,
            Err(reason) => self.stream.say_no(reason).await,
        }
    }
}

/// How long a receiver that said no waits for the sender to notice.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Progress is told at most this often.
const PROGRESS_APART: Duration = Duration::from_secs(1);

/// What a frame needs beside the bytes of its chunk, and more.
const CHUNK_ROOM_BYTES: usize = 1 << 10;

/// Sends one snapshot over a connection made for it, and calls `moves` now and then while it does.
///
/// # Errors
/// Whatever ended it before the receiver's acknowledgement.
pub(crate) async fn send(
    connection: Connection,
    offer: SnapshotOffer,
    source: impl SnapshotSource,
    options: &NetOptions,
    stats: &Stats,
    moves: impl Fn(),
) -> Result<(), SnapshotError> {
    let Connection { reader, writer, ticket, hello, .. } = connection;
    // A receiver with a small limit on entries takes small frames only.
    let room = usize::try_from(hello.frame_bytes_max).unwrap_or(usize::MAX).saturating_sub(CHUNK_ROOM_BYTES);
    let chunk_bytes = room.clamp(1, SNAPSHOT_CHUNK_BYTES_MAX);
    let mut stream = Stream { reader, writer, ticket, patience: options.snapshot_timeout };
    let length = offer.length;
    stream.tell(&Packet::SnapshotOffer(Box::new(offer))).await?;
    let from = match stream.next().await? {
        Packet::SnapshotAccept { offset } if offset <= length => offset,
        Packet::SnapshotRefuse(reason) => return Err(reason.into()),
        _ => return Err(SnapshotError::Protocol("an offer was answered by something else")),
    };

    moves();
    let began = Instant::now();
    let mut told = began;
    let mut batch = Batch::default();
    let mut at = from;
    let mut reading = (at < length).then(|| read(source, at, length, chunk_bytes));
    while let Some(read_now) = reading.take() {
        let (source, data) = read_now.await.map_err(|_| SnapshotError::Cancelled)?;
        let data = data.map_err(SnapshotError::Source)?;
        let next = at + data.len() as u64;
        // The next chunk is read while this one is written.
        reading = (next < length).then(|| read(source, next, length, chunk_bytes));
        if let Some(rate) = options.snapshot_bytes_per_second.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64((at - from) as f64 / rate as f64);
            sleep_until(began + due).await;
        }
        batch.fill(std::iter::once(Packet::SnapshotChunk { offset: at, data }), usize::MAX);
        let written = tokio::select! {
            biased;
            () = stream.ticket.close.cancelled() => return Err(SnapshotError::Cancelled),
            // Anything the receiver says now is a no.
            said = stream.reader.next() => return Err(refused(
                said.and_then(|said| said.ok_or(FrameError::Truncated)).map_err(SnapshotError::from)
            )),
            written = batch.write(&stream.writer, stream.patience, stats) => written?,
        };
        if !written {
            return Err(SnapshotError::Stalled);
        }
        at = next;
        if told.elapsed() >= PROGRESS_APART {
            told = Instant::now();
            moves();
        }
    }
    moves();
    stream.tell(&Packet::SnapshotDone).await?;
    match stream.next().await? {
        Packet::SnapshotAck => Ok(()),
        other => Err(refused(Ok(other))),
    }
}

fn refused(said: Result<Packet, SnapshotError>) -> SnapshotError {
    match said {
        Ok(Packet::SnapshotRefuse(reason)) => reason.into(),
        Ok(_) => SnapshotError::Protocol("the receiver spoke out of turn"),
        Err(error) => error,
    }
}

/// Reads the chunk at `at` on a blocking thread, and gives the source back with it.
fn read<S: SnapshotSource>(
    mut source: S,
    at: u64,
    length: u64,
    bytes_max: usize,
) -> JoinHandle<(S, io::Result<Bytes>)> {
    tokio::task::spawn_blocking(move || {
        let size = usize::try_from(length - at).unwrap_or(usize::MAX).min(bytes_max);
        let mut data = vec![0; size];
        let outcome = source.read_exact_at(at, &mut data);
        (source, outcome.map(|()| Bytes::from(data)))
    })
}
