//! What stands in frames: the typed [`Packet`], and the header structs that are its form on the wire.
//!
//! The structs are this module's own, so that a change of raft-core's types cannot silently change the format. None
//! of them is recursive, and no vector has elements without size: a few bytes can never claim to be billions.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use raft_core::{
    AppendOutcome, Body, CONF_STATE_BYTES_MAX, CampaignId, ConfState, Entries, Entry, EntryKind, Epoch,
    LogId, LogIndex, Message, NodeId, Round, SessionSeq, SnapshotMeta, StartNumber, Term, Timestamp,
    VOTERS_MAX,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Forward, ForwardOutcome, ForwardReply, FoundingMessage, FrameError, FrameKind, Hello, JoinAnswer,
    Refusal, SNAPSHOT_CHUNK_BYTES_MAX, SnapshotOffer, SnapshotRefusal, TEXT_BYTES_MAX,
    frame::{PRELUDE_BYTES, Prelude},
};

/// More entries than this are never in one append.
pub const APPEND_ENTRIES_MAX: usize = 65_536;

/// The content of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packet {
    /// A node introduces itself.
    Hello(Box<Hello>),
    /// A connection is refused.
    Refusal(Box<Refusal>),
    /// The dialler accepts the other side's hello.
    Ready,
    /// Nothing to say, still here.
    KeepAlive,
    /// A Raft message.
    Message(Message),
    /// A command for the leader.
    Forward(Forward),
    /// Its answer.
    ForwardReply {
        /// The run of the node that forwarded.
        start: StartNumber,
        /// The answer.
        reply: ForwardReply,
    },
    /// Between founders.
    Founding(Box<FoundingMessage>),
    /// A snapshot is offered.
    SnapshotOffer(Box<SnapshotOffer>),
    /// It is wanted.
    SnapshotAccept {
        /// From here on.
        offset: u64,
    },
    /// It is not wanted, or was not kept.
    SnapshotRefuse(SnapshotRefusal),
    /// Some of its bytes.
    SnapshotChunk {
        /// Their place in the file.
        offset: u64,
        /// At least one, at most [`SNAPSHOT_CHUNK_BYTES_MAX`].
        data: Bytes,
    },
    /// All of them were sent.
    SnapshotDone,
    /// All of them are on the receiver's disk.
    SnapshotAck,
    /// The answer to a node that wants to join.
    JoinAnswer(Box<JoinAnswer>),
}

impl Packet {
    /// The kind of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Packet::Hello(_) => FrameKind::Hello,
            Packet::Refusal(_) => FrameKind::Refusal,
            Packet::Ready => FrameKind::Ready,
            Packet::KeepAlive => FrameKind::KeepAlive,
            Packet::Message(_) => FrameKind::Message,
            Packet::Forward(_) => FrameKind::Forward,
            Packet::ForwardReply { .. } => FrameKind::ForwardReply,
            Packet::Founding(_) => FrameKind::Founding,
            Packet::SnapshotOffer(_) => FrameKind::SnapshotOffer,
            Packet::SnapshotAccept { .. } => FrameKind::SnapshotAccept,
            Packet::SnapshotRefuse(_) => FrameKind::SnapshotRefuse,
            Packet::SnapshotChunk { .. } => FrameKind::SnapshotChunk,
            Packet::SnapshotDone => FrameKind::SnapshotDone,
            Packet::SnapshotAck => FrameKind::SnapshotAck,
            Packet::JoinAnswer(_) => FrameKind::JoinAnswer,
        }
    }

    /// Appends the frame up to its payload to `out` and returns the length of the whole frame: the bytes of
    /// [`payloads`](Self::payloads) follow on the wire.
    ///
    /// # Errors
    /// If it exceeds what a frame can hold; `out` is as it was.
    pub fn encode_head(&self, out: &mut Vec<u8>) -> Result<usize, FrameError> {
        let at = out.len();
        out.resize(at + PRELUDE_BYTES, 0);
        let sealed = self
            .encode_header(out)
            .and_then(|payload_length| Prelude::seal(self.kind(), out, at, payload_length));
        if sealed.is_err() {
            out.truncate(at);
        }
        sealed
    }

    /// The payload, in stretches, in order.
    pub fn payloads(&self) -> impl Iterator<Item = &Bytes> {
        let (entries, one): (&[Entry], Option<&Bytes>) = match self {
            Packet::Message(Message { body: Body::AppendEntries { entries, .. }, .. }) => (entries, None),
            Packet::Forward(forward) => (&[], Some(&forward.payload)),
            Packet::ForwardReply {
                reply: ForwardReply { outcome: ForwardOutcome::Ok(data), .. }, ..
            } => (&[], Some(data)),
            Packet::SnapshotChunk { data, .. } => (&[], Some(data)),
            _ => (&[], None),
        };
        entries.iter().map(|entry| &entry.payload).chain(one)
    }

    /// What the frame will weigh in a queue, in bytes: at least its payload and a flat charge.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Packet::Message(Message { body: Body::AppendEntries { entries, .. }, .. }) => {
                FRAME_CHARGE_BYTES + entries.iter().map(Entry::size_bytes).sum::<usize>()
            }
            _ => FRAME_CHARGE_BYTES + self.payloads().map(Bytes::len).sum::<usize>(),
        }
    }

    /// Writes the header and returns the length of the payload.
    fn encode_header(&self, out: &mut Vec<u8>) -> Result<usize, FrameError> {
        let kind = self.kind();
        match self {
            Packet::Ready | Packet::KeepAlive | Packet::SnapshotDone | Packet::SnapshotAck => Ok(0),
            Packet::Hello(hello) => put(out, kind, &**hello).map(|()| 0),
            Packet::Refusal(refusal) => put(out, kind, &**refusal).map(|()| 0),
            Packet::Founding(message) => put(out, kind, &**message).map(|()| 0),
            Packet::Message(message) => encode_message(message, out),
            Packet::Forward(forward) => {
                let header = ForwardHeader {
                    request: forward.request,
                    kind: forward.kind,
                    session: forward.session.map(|of| (of.session, of.seq)),
                    checksum: forward.checksum,
                };
                put(out, kind, &header).map(|()| forward.payload.len())
            }
            Packet::ForwardReply { start, reply } => {
                let (outcome, length) = match &reply.outcome {
                    ForwardOutcome::Ok(data) => {
                        (OutcomeHeader::Ok { checksum: crc32fast::hash(data) }, data.len())
                    }
                    ForwardOutcome::NotLeader { leader } => {
                        (OutcomeHeader::NotLeader { leader: leader.map(|id| id.0) }, 0)
                    }
                    ForwardOutcome::Busy => (OutcomeHeader::Busy, 0),
                    ForwardOutcome::Unknown => (OutcomeHeader::Unknown, 0),
                    ForwardOutcome::TooLarge { limit } => (OutcomeHeader::TooLarge { limit: *limit }, 0),
                    ForwardOutcome::Refused(text) => (OutcomeHeader::Refused(shortened(text)), 0),
                };
                let header = ForwardReplyHeader { start: start.0, request: reply.request, outcome };
                put(out, kind, &header).map(|()| length)
            }
            Packet::SnapshotOffer(offer) => {
                let header = OfferHeader {
                    from: offer.from.0,
                    to: offer.to.0,
                    term: offer.term.0,
                    epoch: offer.epoch.0,
                    round: offer.round.0,
                    snapshot_id: offer.snapshot_id,
                    length: offer.length,
                    meta: MetaHeader::of(&offer.meta),
                };
                put(out, kind, &header).map(|()| 0)
            }
            Packet::SnapshotAccept { offset } => put(out, kind, offset).map(|()| 0),
            Packet::SnapshotRefuse(reason) => {
                let reason = match reason {
                    SnapshotRefusal::Disk(text) => &SnapshotRefusal::Disk(shortened(text)),
                    other => other,
                };
                put(out, kind, reason).map(|()| 0)
            }
            Packet::SnapshotChunk { offset, data } => {
                let header = ChunkHeader { offset: *offset, checksum: crc32fast::hash(data) };
                put(out, kind, &header).map(|()| data.len())
            }
            Packet::JoinAnswer(answer) => {
                let header = match &**answer {
                    JoinAnswer::Admitted { cluster, conf } => {
                        JoinHeader::Admitted { cluster: cluster.0, conf: conf.encode() }
                    }
                    JoinAnswer::NotLeader { leader } => {
                        JoinHeader::NotLeader { leader: leader.as_deref().map(shortened) }
                    }
                    JoinAnswer::Busy => JoinHeader::Busy,
                    JoinAnswer::Refused(text) => JoinHeader::Refused(shortened(text)),
                };
                put(out, kind, &header).map(|()| 0)
            }
        }
    }

    /// Reads a frame whose prelude and header checksum are good. Every payload is verified.
    pub(crate) fn decode(kind: FrameKind, header: &[u8], payload: Bytes) -> Result<Packet, FrameError> {
        let carries = matches!(
            kind,
            FrameKind::Message | FrameKind::Forward | FrameKind::ForwardReply | FrameKind::SnapshotChunk
        );
        if !carries && !payload.is_empty() {
            return Err(bad(kind, "it cannot carry a payload"));
        }
        match kind {
            FrameKind::Ready => nothing(kind, header, Packet::Ready),
            FrameKind::KeepAlive => nothing(kind, header, Packet::KeepAlive),
            FrameKind::SnapshotDone => nothing(kind, header, Packet::SnapshotDone),
            FrameKind::SnapshotAck => nothing(kind, header, Packet::SnapshotAck),
            FrameKind::Hello => Ok(Packet::Hello(Box::new(take_all(kind, header)?))),
            FrameKind::Refusal => Ok(Packet::Refusal(Box::new(take_all(kind, header)?))),
            FrameKind::Founding => {
                let message: FoundingMessage = take_all(kind, header)?;
                if let FoundingMessage::Propose(pin) = &message {
                    pin.check().map_err(|_| bad(kind, "its founding list is not valid"))?;
                }
                Ok(Packet::Founding(Box::new(message)))
            }
            FrameKind::Message => decode_message(header, &payload).map(Packet::Message),
            FrameKind::Forward => {
                let of: ForwardHeader = take_all(kind, header)?;
                intact(kind, of.checksum, &payload)?;
                Ok(Packet::Forward(Forward {
                    request: of.request,
                    kind: of.kind,
                    session: session(of.session),
                    checksum: of.checksum,
                    payload,
                }))
            }
            FrameKind::ForwardReply => {
                let of: ForwardReplyHeader = take_all(kind, header)?;
                if !matches!(of.outcome, OutcomeHeader::Ok { .. }) && !payload.is_empty() {
                    return Err(bad(kind, "this outcome cannot carry a payload"));
                }
                let outcome = match of.outcome {
                    OutcomeHeader::Ok { checksum } => {
                        intact(kind, checksum, &payload)?;
                        ForwardOutcome::Ok(payload)
                    }
                    OutcomeHeader::NotLeader { leader } => {
                        ForwardOutcome::NotLeader { leader: leader.map(NodeId) }
                    }
                    OutcomeHeader::Busy => ForwardOutcome::Busy,
                    OutcomeHeader::Unknown => ForwardOutcome::Unknown,
                    OutcomeHeader::TooLarge { limit } => ForwardOutcome::TooLarge { limit },
                    OutcomeHeader::Refused(text) => ForwardOutcome::Refused(text),
                };
                let reply = ForwardReply { request: of.request, outcome };
                Ok(Packet::ForwardReply { start: StartNumber(of.start), reply })
            }
            FrameKind::SnapshotOffer => {
                let of: OfferHeader = take_all(kind, header)?;
                Ok(Packet::SnapshotOffer(Box::new(SnapshotOffer {
                    from: NodeId(of.from),
                    to: NodeId(of.to),
                    term: term(kind, of.term)?,
                    epoch: Epoch(of.epoch),
                    round: Round(of.round),
                    meta: of.meta.decode(kind)?,
                    snapshot_id: of.snapshot_id,
                    length: of.length,
                })))
            }
            FrameKind::SnapshotAccept => Ok(Packet::SnapshotAccept { offset: take_all(kind, header)? }),
            FrameKind::SnapshotRefuse => Ok(Packet::SnapshotRefuse(take_all(kind, header)?)),
            FrameKind::SnapshotChunk => {
                let of: ChunkHeader = take_all(kind, header)?;
                if payload.is_empty() || payload.len() > SNAPSHOT_CHUNK_BYTES_MAX {
                    return Err(bad(kind, "a chunk has 1 byte to 256 KiB"));
                }
                intact(kind, of.checksum, &payload)?;
                Ok(Packet::SnapshotChunk { offset: of.offset, data: payload })
            }
            FrameKind::JoinAnswer => {
                let answer = match take_all(kind, header)? {
                    JoinHeader::Admitted { cluster, conf } => JoinAnswer::Admitted {
                        cluster: raft_core::ClusterId(cluster),
                        conf: ConfState::decode(&conf)
                            .map_err(|_| bad(kind, "its configuration is not valid"))?,
                    },
                    JoinHeader::NotLeader { leader } => JoinAnswer::NotLeader { leader },
                    JoinHeader::Busy => JoinAnswer::Busy,
                    JoinHeader::Refused(text) => JoinAnswer::Refused(text),
                };
                Ok(Packet::JoinAnswer(Box::new(answer)))
            }
        }
    }
}

/// What a frame without payload weighs in a queue.
const FRAME_CHARGE_BYTES: usize = 96;

fn encode_message(message: &Message, out: &mut Vec<u8>) -> Result<usize, FrameError> {
    let kind = FrameKind::Message;
    let body = match &message.body {
        Body::PreVote { campaign, next_term, last } => {
            BodyHeader::PreVote { campaign: campaign.0, next_term: next_term.0, last: last.into() }
        }
        Body::PreVoteReply { campaign, granted } => {
            BodyHeader::PreVoteReply { campaign: campaign.0, granted: *granted }
        }
        Body::RequestVote { campaign, last, transfer } => {
            BodyHeader::RequestVote { campaign: campaign.0, last: last.into(), transfer: *transfer }
        }
        Body::RequestVoteReply { campaign, granted } => {
            BodyHeader::RequestVoteReply { campaign: campaign.0, granted: *granted }
        }
        Body::AppendEntries { epoch, round, prev, commit, entries } => {
            if entries.len() > APPEND_ENTRIES_MAX {
                return Err(FrameError::TooLong { length: entries.len(), limit: APPEND_ENTRIES_MAX });
            }
            BodyHeader::AppendEntries {
                epoch: epoch.0,
                round: round.0,
                prev: prev.into(),
                commit: commit.0,
                count: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            }
        }
        Body::AppendReply { epoch, round, outcome } => BodyHeader::AppendReply {
            epoch: epoch.0,
            round: round.0,
            outcome: match outcome {
                AppendOutcome::Matched(index) => AppendOutcomeHeader::Matched(index.0),
                AppendOutcome::Rejected { prev, hint } => {
                    AppendOutcomeHeader::Rejected { prev: prev.0, hint: hint.into() }
                }
            },
        },
        Body::Heartbeat { epoch, round, prev, commit } => {
            BodyHeader::Heartbeat { epoch: epoch.0, round: round.0, prev: prev.into(), commit: commit.0 }
        }
        Body::HeartbeatReply { epoch, round, matched, clock } => {
            BodyHeader::HeartbeatReply { epoch: epoch.0, round: round.0, matched: matched.0, clock: clock.0 }
        }
        Body::InstallSnapshot { epoch, round, meta } => {
            BodyHeader::InstallSnapshot { epoch: epoch.0, round: round.0, meta: MetaHeader::of(meta) }
        }
        Body::TimeoutNow => BodyHeader::TimeoutNow,
        Body::Removed { conf_id } => BodyHeader::Removed { conf_id: conf_id.into() },
        Body::ReadIndex { start, request } => BodyHeader::ReadIndex { start: start.0, request: *request },
        Body::ReadIndexReply { start, request, index } => BodyHeader::ReadIndexReply {
            start: start.0,
            request: *request,
            index: index.map(|index| index.0),
        },
        Body::Refill { start, after, promised } => {
            BodyHeader::Refill { start: start.0, after: after.into(), promised: promised.into() }
        }
        Body::SnapshotNeeded { start, at_least } => {
            BodyHeader::SnapshotNeeded { start: start.0, at_least: at_least.0 }
        }
    };
    put(out, kind, &MessageHeader { from: message.from.0, to: message.to.0, term: message.term.0, body })?;
    let Body::AppendEntries { entries, .. } = &message.body else { return Ok(0) };
    let mut payload_length = 0_usize;
    for entry in entries {
        let header = EntryHeader {
            id: (&entry.id).into(),
            time: entry.time.0,
            session: entry.session.map(|of| (of.session, of.seq)),
            kind: entry.kind as u8,
            checksum: entry.checksum,
            length: u32::try_from(entry.payload.len())
                .map_err(|_| FrameError::TooLong { length: entry.payload.len(), limit: u32::MAX as usize })?,
        };
        put(out, kind, &header)?;
        payload_length = payload_length.saturating_add(entry.payload.len());
    }
    Ok(payload_length)
}

fn decode_message(header: &[u8], payload: &Bytes) -> Result<Message, FrameError> {
    let kind = FrameKind::Message;
    let (of, rest): (MessageHeader, &[u8]) = take(kind, header)?;
    let carries = matches!(of.body, BodyHeader::AppendEntries { .. });
    if !carries && (!rest.is_empty() || !payload.is_empty()) {
        return Err(bad(kind, "bytes follow where the end should be"));
    }
    let message_term = term(kind, of.term)?;
    let body = match of.body {
        BodyHeader::PreVote { campaign, next_term, last } => Body::PreVote {
            campaign: CampaignId(campaign),
            next_term: term(kind, next_term)?,
            last: last.into(),
        },
        BodyHeader::PreVoteReply { campaign, granted } => {
            Body::PreVoteReply { campaign: CampaignId(campaign), granted }
        }
        BodyHeader::RequestVote { campaign, last, transfer } => {
            Body::RequestVote { campaign: CampaignId(campaign), last: last.into(), transfer }
        }
        BodyHeader::RequestVoteReply { campaign, granted } => {
            Body::RequestVoteReply { campaign: CampaignId(campaign), granted }
        }
        BodyHeader::AppendEntries { epoch, round, prev, commit, count } => {
            let prev = LogId::from(prev);
            Body::AppendEntries {
                epoch: Epoch(epoch),
                round: Round(round),
                prev,
                commit: LogIndex(commit),
                entries: decode_entries(prev, message_term, count, rest, payload)?,
            }
        }
        BodyHeader::AppendReply { epoch, round, outcome } => Body::AppendReply {
            epoch: Epoch(epoch),
            round: Round(round),
            outcome: match outcome {
                AppendOutcomeHeader::Matched(index) => AppendOutcome::Matched(LogIndex(index)),
                AppendOutcomeHeader::Rejected { prev, hint } => {
                    AppendOutcome::Rejected { prev: LogIndex(prev), hint: hint.into() }
                }
            },
        },
        BodyHeader::Heartbeat { epoch, round, prev, commit } => Body::Heartbeat {
            epoch: Epoch(epoch),
            round: Round(round),
            prev: prev.into(),
            commit: LogIndex(commit),
        },
        BodyHeader::HeartbeatReply { epoch, round, matched, clock } => Body::HeartbeatReply {
            epoch: Epoch(epoch),
            round: Round(round),
            matched: LogIndex(matched),
            clock: Timestamp(clock),
        },
        BodyHeader::InstallSnapshot { epoch, round, meta } => Body::InstallSnapshot {
            epoch: Epoch(epoch),
            round: Round(round),
            meta: Box::new(meta.decode(kind)?),
        },
        BodyHeader::TimeoutNow => Body::TimeoutNow,
        BodyHeader::Removed { conf_id } => Body::Removed { conf_id: conf_id.into() },
        BodyHeader::ReadIndex { start, request } => Body::ReadIndex { start: StartNumber(start), request },
        BodyHeader::ReadIndexReply { start, request, index } => {
            Body::ReadIndexReply { start: StartNumber(start), request, index: index.map(LogIndex) }
        }
        BodyHeader::Refill { start, after, promised } => {
            Body::Refill { start: StartNumber(start), after: after.into(), promised: promised.into() }
        }
        BodyHeader::SnapshotNeeded { start, at_least } => {
            Body::SnapshotNeeded { start: StartNumber(start), at_least: LogIndex(at_least) }
        }
    };
    Ok(Message { from: NodeId(of.from), to: NodeId(of.to), term: message_term, body })
}

/// Reads `count` entry headers and cuts their payloads out of `payload`, without copying.
fn decode_entries(
    prev: LogId,
    message_term: Term,
    count: u32,
    mut rest: &[u8],
    payload: &Bytes,
) -> Result<Entries, FrameError> {
    let kind = FrameKind::Message;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    // Checked before the vector is made: a claimed entry is at least that many bytes long.
    if count > APPEND_ENTRIES_MAX || count > rest.len() / ENTRY_HEADER_BYTES_MIN {
        return Err(bad(kind, "more entries are announced than the header holds"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = prev;
    let mut at = 0_usize;
    for _ in 0..count {
        let (of, after): (EntryHeader, &[u8]) = take(kind, rest)?;
        rest = after;
        let id = LogId::from(of.id);
        if last.index.0 == u64::MAX || id.index != last.index.next() {
            return Err(bad(kind, "its entries are not consecutive"));
        }
        if id.term < last.term || id.term > message_term || id.term == Term::ZERO {
            return Err(bad(kind, "an entry's term is out of order"));
        }
        last = id;
        let end = usize::try_from(of.length).ok().and_then(|length| at.checked_add(length));
        let end = end
            .filter(|end| *end <= payload.len())
            .ok_or(bad(kind, "its entries are longer than its payload"))?;
        let entry = Entry {
            id,
            time: Timestamp(of.time),
            session: session(of.session),
            kind: EntryKind::from_u8(of.kind).ok_or(bad(kind, "an entry is of an unknown kind"))?,
            checksum: of.checksum,
            payload: payload.slice(at..end),
        };
        if !entry.is_intact() {
            return Err(FrameError::PayloadChecksum(id));
        }
        at = end;
        entries.push(entry);
    }
    if !rest.is_empty() || at != payload.len() {
        return Err(bad(kind, "bytes follow where the end should be"));
    }
    Ok(Entries::from(entries))
}

/// No encoded [`EntryHeader`] is shorter.
const ENTRY_HEADER_BYTES_MIN: usize = 7;

#[derive(Serialize, Deserialize)]
struct MessageHeader {
    from: u64,
    to: u64,
    term: u64,
    body: BodyHeader,
}

/// The order of the variants is the format.
#[derive(Serialize, Deserialize)]
enum BodyHeader {
    PreVote { campaign: u64, next_term: u64, last: LogIdHeader },
    PreVoteReply { campaign: u64, granted: bool },
    RequestVote { campaign: u64, last: LogIdHeader, transfer: bool },
    RequestVoteReply { campaign: u64, granted: bool },
    AppendEntries { epoch: u64, round: u64, prev: LogIdHeader, commit: u64, count: u32 },
    AppendReply { epoch: u64, round: u64, outcome: AppendOutcomeHeader },
    Heartbeat { epoch: u64, round: u64, prev: LogIdHeader, commit: u64 },
    HeartbeatReply { epoch: u64, round: u64, matched: u64, clock: u64 },
    InstallSnapshot { epoch: u64, round: u64, meta: MetaHeader },
    TimeoutNow,
    ReadIndex { start: u64, request: u64 },
    ReadIndexReply { start: u64, request: u64, index: Option<u64> },
    Removed { conf_id: LogIdHeader },
    Refill { start: u64, after: LogIdHeader, promised: LogIdHeader },
    SnapshotNeeded { start: u64, at_least: u64 },
}

#[derive(Serialize, Deserialize)]
enum AppendOutcomeHeader {
    Matched(u64),
    Rejected { prev: u64, hint: LogIdHeader },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct LogIdHeader {
    term: u64,
    index: u64,
}

impl From<&LogId> for LogIdHeader {
    fn from(id: &LogId) -> LogIdHeader {
        LogIdHeader { term: id.term.0, index: id.index.0 }
    }
}

impl From<LogIdHeader> for LogId {
    fn from(id: LogIdHeader) -> LogId {
        LogId::new(id.term, id.index)
    }
}

/// Follows the message header once per entry.
#[derive(Serialize, Deserialize)]
struct EntryHeader {
    id: LogIdHeader,
    time: u64,
    session: Option<(u64, u64)>,
    kind: u8,
    checksum: u32,
    length: u32,
}

#[derive(Serialize, Deserialize)]
struct MetaHeader {
    last: LogIdHeader,
    time: u64,
    conf_id: LogIdHeader,
    /// As [`ConfState::encode`] wrote it.
    conf: Vec<u8>,
}

impl MetaHeader {
    fn of(meta: &SnapshotMeta) -> MetaHeader {
        MetaHeader {
            last: (&meta.last).into(),
            time: meta.time.0,
            conf_id: (&meta.conf_id).into(),
            conf: meta.conf.encode(),
        }
    }

    fn decode(self, kind: FrameKind) -> Result<SnapshotMeta, FrameError> {
        if self.conf.len() > CONF_STATE_BYTES_MAX {
            return Err(bad(kind, "its configuration is too long"));
        }
        Ok(SnapshotMeta {
            last: self.last.into(),
            time: Timestamp(self.time),
            conf: ConfState::decode(&self.conf).map_err(|_| bad(kind, "its configuration is not valid"))?,
            conf_id: self.conf_id.into(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ForwardHeader {
    request: u64,
    kind: u8,
    session: Option<(u64, u64)>,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct ForwardReplyHeader {
    start: u64,
    request: u64,
    outcome: OutcomeHeader,
}

#[derive(Serialize, Deserialize)]
enum OutcomeHeader {
    Ok { checksum: u32 },
    NotLeader { leader: Option<u64> },
    Busy,
    Unknown,
    TooLarge { limit: u64 },
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct OfferHeader {
    from: u64,
    to: u64,
    term: u64,
    epoch: u64,
    round: u64,
    snapshot_id: u64,
    length: u64,
    meta: MetaHeader,
}

#[derive(Serialize, Deserialize)]
struct ChunkHeader {
    offset: u64,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
enum JoinHeader {
    Admitted { cluster: u128, conf: Vec<u8> },
    NotLeader { leader: Option<String> },
    Busy,
    Refused(String),
}

/// Serialises behind what `out` holds.
fn put<T: Serialize>(out: &mut Vec<u8>, kind: FrameKind, value: &T) -> Result<(), FrameError> {
    struct Behind<'a>(&'a mut Vec<u8>);
    impl Flavor for Behind<'_> {
        type Output = ();

        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.push(byte);
            Ok(())
        }

        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }

        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    postcard::serialize_with_flavor(value, Behind(out)).map_err(|_| bad(kind, "it cannot be written"))
}

fn take<T: DeserializeOwned>(kind: FrameKind, bytes: &[u8]) -> Result<(T, &[u8]), FrameError> {
    postcard::take_from_bytes(bytes).map_err(|error| bad(kind, reason(error)))
}

fn take_all<T: DeserializeOwned>(kind: FrameKind, bytes: &[u8]) -> Result<T, FrameError> {
    match take(kind, bytes)? {
        (value, []) => Ok(value),
        _ => Err(bad(kind, "bytes follow where the end should be")),
    }
}

fn nothing(kind: FrameKind, header: &[u8], packet: Packet) -> Result<Packet, FrameError> {
    if header.is_empty() { Ok(packet) } else { Err(bad(kind, "bytes follow where the end should be")) }
}

fn reason(error: postcard::Error) -> &'static str {
    if error == postcard::Error::DeserializeUnexpectedEnd {
        "it ends too early"
    } else {
        "a field has a value that cannot be"
    }
}

const fn bad(kind: FrameKind, reason: &'static str) -> FrameError {
    FrameError::BadHeader { kind: kind.name(), reason }
}

/// Refuses the one term no valid message carries (SAFETY E13).
fn term(kind: FrameKind, value: u64) -> Result<Term, FrameError> {
    if Term(value) == Term::MAX { Err(bad(kind, "its term is out of range")) } else { Ok(Term(value)) }
}

fn session(of: Option<(u64, u64)>) -> Option<SessionSeq> {
    of.map(|(session, seq)| SessionSeq { session, seq })
}

fn intact(kind: FrameKind, checksum: u32, payload: &[u8]) -> Result<(), FrameError> {
    if crc32fast::hash(payload) == checksum { Ok(()) } else { Err(FrameError::BodyChecksum(kind.name())) }
}

/// At most [`TEXT_BYTES_MAX`] bytes of it, cut between characters.
pub(crate) fn shortened(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

const _: () = assert!(VOTERS_MAX < 64, "a founding proposal of all voters must stay small");
