//! Who is on the other side, and whether we talk to it: the first frames of every connection, and the rules.
//!
//! The dialler sends the magic and its [`Hello`]; the other side judges it and answers with its own hello or a
//! [`Refusal`]; the dialler judges that and answers "ready" or a refusal. Refusals reach both logs.
//! [`judge`] decides and does nothing else.

use std::{collections::BTreeMap, fmt};

use raft_core::{Body, ClusterId, Incarnation, LogIndex, NodeId, StartNumber};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    FrameError, HandshakeError, Packet,
    codec::{FrameReader, Magic},
    wire::shortened,
};

/// The first bytes of every connection, in both directions.
pub const MAGIC: [u8; 8] = *b"raftnet\x01";
/// The oldest protocol version this release speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest protocol version this release speaks.
pub const VERSION_MAX: u16 = 1;
/// Every feature bit this release knows.
pub const KNOWN_FEATURES: u64 = 0;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConnectionKind {
    /// Heartbeats, votes, replies, read indexes, founding: small and never behind anything large.
    Control,
    /// Appends and forwards.
    Bulk,
    /// One snapshot.
    Snapshot,
    /// A node without a cluster asks to be let in; nothing else.
    Join,
}

impl fmt::Display for ConnectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectionKind::Control => "control",
            ConnectionKind::Bulk => "bulk",
            ConnectionKind::Snapshot => "snapshot",
            ConnectionKind::Join => "join",
        })
    }
}

/// Where clients, operators and peers reach a node, as `host:port`. Told to every peer in the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// The Redis protocol.
    pub resp: String,
    /// HTTP.
    pub http: String,
    /// This protocol.
    pub peer: String,
}

/// Who we are, as the data directory and the configuration say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// This node. Not zero.
    pub id: NodeId,
    /// The cluster it belongs to; `None` while founding or joining. Later set with
    /// [`Transport::set_cluster`](crate::Transport::set_cluster).
    pub cluster: Option<ClusterId>,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// This open of it, durable before the transport is started.
    pub start: StartNumber,
    /// Told to peers.
    pub addresses: Addresses,
    /// The founding list (`--initial-cluster`), if this node was configured with one.
    pub founders: Option<BTreeMap<NodeId, String>>,
    /// This node's base election timeout in milliseconds; told to peers, so that leases can be bounded (SAFETY R3).
    pub election_timeout_ms: u64,
}

/// The founding list as the handshake carries it: compared by hash, shown as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FoundersDigest {
    /// Of the whole list.
    pub hash: u64,
    /// `1=host:7402,2=host:7412`, cut after [`TEXT_BYTES_MAX`](crate::TEXT_BYTES_MAX) bytes.
    pub text: String,
}

/// What a node says of itself when a connection opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version it speaks.
    pub version_min: u16,
    /// The newest.
    pub version_max: u16,
    /// Features without which it will not talk; a set bit we do not know ends the handshake.
    pub features_required: u64,
    /// Features it could use; unknown bits are ignored.
    pub features_offered: u64,
    /// Its cluster; `None` while founding or joining.
    pub cluster: Option<ClusterId>,
    /// Who it is.
    pub id: NodeId,
    /// Whom it believes to talk to; `None` where only an address is known (joining).
    pub to: Option<NodeId>,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// This open of the directory.
    pub start: StartNumber,
    /// Random, drawn once by each process: tells a reconnect from a clone.
    pub nonce: u64,
    /// What the connection is for.
    pub kind: ConnectionKind,
    /// Where it is reached.
    pub addresses: Addresses,
    /// The list it founds with, while it has no cluster.
    pub founders: Option<FoundersDigest>,
    /// Its base election timeout in milliseconds.
    pub election_timeout_ms: u64,
    /// The longest frame it accepts, in bytes.
    pub frame_bytes_max: u32,
    /// Where in the log the configuration stands that it goes by: tells who of two nodes that disagree is behind.
    pub conf_index: LogIndex,
}

/// Why a connection is refused. Sent to the other side and logged by both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No protocol version in common.
    #[error(
        "no common protocol version: {theirs_min}-{theirs_max} offered, {ours_min}-{ours_max} spoken here"
    )]
    Version {
        /// The caller's oldest.
        theirs_min: u16,
        /// The caller's newest.
        theirs_max: u16,
        /// Our oldest.
        ours_min: u16,
        /// Our newest.
        ours_max: u16,
    },
    /// A required feature bit we do not know.
    #[error("required feature bit {bit} is not known here")]
    UnknownFeature {
        /// The lowest such bit, from 0.
        bit: u8,
    },
    /// It belongs to another cluster.
    #[error("it belongs to cluster {theirs}, this node to {ours}")]
    WrongCluster {
        /// Its cluster.
        theirs: ClusterId,
        /// Our cluster.
        ours: ClusterId,
    },
    /// A node without a cluster met one that neither founds nor is asked to let it in.
    #[error("it has no cluster and this node does not found one")]
    NoCluster,
    /// The dialler looked for another node at this address.
    #[error("{wanted} was dialled, but {met} answers here")]
    WrongNode {
        /// Who was dialled.
        wanted: NodeId,
        /// Who answered.
        met: NodeId,
    },
    /// It claims to be us.
    #[error("it claims to be {0}, which is this node's own id")]
    OwnId(NodeId),
    /// Zero is no id.
    #[error("node id 0 is not valid")]
    ZeroId,
    /// The directory is not the one the cluster admitted under this id (SAFETY D2, D3).
    #[error("{id} was admitted with data directory {expected}, this one is {found}")]
    WrongIncarnation {
        /// Whose.
        id: NodeId,
        /// The admitted directory.
        expected: Incarnation,
        /// The one that came.
        found: Incarnation,
    },
    /// The directory was opened more often before: this is an old copy (SAFETY D3).
    #[error("{id} shows start {found} after start {highest} was seen: its data directory is an old copy")]
    StaleStart {
        /// Whose.
        id: NodeId,
        /// The highest seen.
        highest: StartNumber,
        /// The one that came.
        found: StartNumber,
    },
    /// Two live processes run on copies of one directory (SAFETY D3).
    #[error("{id} runs twice with start {start}: two processes on copies of one data directory")]
    Clone {
        /// Whose.
        id: NodeId,
        /// The start number both show.
        start: StartNumber,
    },
    /// The founding lists differ.
    #[error("the founding lists differ: theirs is {theirs:?}, ours is {ours:?}")]
    FoundersDiffer {
        /// Theirs, as text.
        theirs: String,
        /// Ours, as text.
        ours: String,
    },
    /// No room for another connection.
    #[error("too many connections")]
    TooMany,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// While it shook hands as a node without a cluster, the node found one: the next attempt will do.
    #[error("the handshake was overtaken by the founding of the cluster")]
    Overtaken,
}

/// What is known when a [`Hello`] has to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Ourselves.
    pub local: LocalIdentity,
    /// Where in the log the configuration stands that named the members.
    pub conf_index: LogIndex,
    /// Per node, what the membership and earlier connections told.
    pub peers: BTreeMap<NodeId, KnownPeer>,
}

/// What is known of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownPeer {
    /// The directory it was admitted with; [`Incarnation::UNKNOWN`] accepts any.
    pub incarnation: Incarnation,
    /// The highest start number seen, with the incarnation that showed it.
    pub highest_start: Option<(Incarnation, StartNumber)>,
    /// The process that is connected at the moment.
    pub live: Option<LiveProcess>,
    /// Two processes have shown this start number: neither is spoken to until a higher one comes (SAFETY D3).
    pub cloned: Option<(Incarnation, StartNumber)>,
}

/// A process behind at least one open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveProcess {
    /// Its start number.
    pub start: StartNumber,
    /// Its random nonce.
    pub nonce: u64,
}

impl FoundersDigest {
    /// Of this list.
    #[must_use]
    pub fn of(list: &BTreeMap<NodeId, String>) -> FoundersDigest {
        let text = founders_text(list);
        // FNV-1a: the lists are compared to catch a typing error, not an attacker.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        FoundersDigest { hash, text: shortened(&text) }
    }
}

/// A founding list as the command line spells it.
pub(crate) fn founders_text(list: &BTreeMap<NodeId, String>) -> String {
    list.iter().map(|(id, address)| format!("{}={address}", id.0)).collect::<Vec<_>>().join(",")
}

impl LocalIdentity {
    /// What this node says of itself on a connection of this kind.
    pub(crate) fn hello(
        &self,
        nonce: u64,
        kind: ConnectionKind,
        to: Option<NodeId>,
        frame_bytes_max: usize,
        conf_index: LogIndex,
    ) -> Hello {
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features_required: 0,
            features_offered: KNOWN_FEATURES,
            cluster: self.cluster,
            id: self.id,
            to,
            incarnation: self.incarnation,
            start: self.start,
            nonce,
            kind,
            addresses: self.addresses.clone(),
            founders: match self.cluster {
                None => self.founders.as_ref().map(FoundersDigest::of),
                Some(_) => None,
            },
            election_timeout_ms: self.election_timeout_ms,
            frame_bytes_max: u32::try_from(frame_bytes_max).unwrap_or(u32::MAX),
            conf_index,
        }
    }
}

impl KnownPeer {
    /// Notes a process that was let in. Its number is the highest from now on.
    pub fn admit(&mut self, hello: &Hello) {
        self.highest_start = Some((hello.incarnation, hello.start));
        self.live = Some(LiveProcess { start: hello.start, nonce: hello.nonce });
        self.cloned = None;
    }
}

/// Whether to talk to whoever said this. Depends on nothing but its arguments.
///
/// Nodes of the same cluster that the membership here does not name are let in: this node may be behind, and must
/// hear its new leader all the same. Where one side has no cluster yet, only founding may be talked about, which the
/// connection enforces ([`Standing`]).
///
/// # Errors
/// The first rule that is broken.
pub fn judge(hello: &Hello, known: &Known) -> Result<(), Refusal> {
    let local = &known.local;
    if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
        return Err(Refusal::Version {
            theirs_min: hello.version_min,
            theirs_max: hello.version_max,
            ours_min: VERSION_MIN,
            ours_max: VERSION_MAX,
        });
    }
    let unknown = hello.features_required & !KNOWN_FEATURES;
    if unknown != 0 {
        return Err(Refusal::UnknownFeature {
            bit: u8::try_from(unknown.trailing_zeros()).unwrap_or(u8::MAX),
        });
    }
    if hello.id == NodeId(0) {
        return Err(Refusal::ZeroId);
    }
    if hello.id == local.id {
        return Err(Refusal::OwnId(local.id));
    }
    if let Some(wanted) = hello.to.filter(|wanted| *wanted != local.id) {
        return Err(Refusal::WrongNode { wanted, met: local.id });
    }
    if hello.kind == ConnectionKind::Join {
        // Whether it is let in is for the leader to say; here it only has to be a stranger, and we a member.
        return match (hello.cluster, local.cluster) {
            (None, Some(_)) => Ok(()),
            (Some(theirs), Some(ours)) if theirs != ours => Err(Refusal::WrongCluster { theirs, ours }),
            _ => Err(Refusal::NoCluster),
        };
    }
    match (hello.cluster, local.cluster) {
        (Some(theirs), Some(ours)) if theirs != ours => return Err(Refusal::WrongCluster { theirs, ours }),
        (Some(_), Some(_)) => {}
        // One of the two is founding: it is told over the control connection what has become of its cluster.
        _ if hello.kind != ConnectionKind::Control => return Err(Refusal::NoCluster),
        (None, Some(_)) if hello.founders.is_none() => return Err(Refusal::NoCluster),
        (Some(_), None) if local.founders.is_none() => return Err(Refusal::NoCluster),
        (None, Some(_)) | (Some(_), None) => {}
        (None, None) => {
            let (Some(theirs), Some(ours)) = (&hello.founders, &local.founders) else {
                return Err(Refusal::NoCluster);
            };
            let ours = FoundersDigest::of(ours);
            if theirs.hash != ours.hash {
                return Err(Refusal::FoundersDiffer { theirs: shortened(&theirs.text), ours: ours.text });
            }
        }
    }
    let Some(peer) = known.peers.get(&hello.id) else { return Ok(()) };
    let expected = peer.incarnation;
    let same_cluster = hello.cluster.is_some() && hello.cluster == local.cluster;
    // Who goes by a later configuration may know that this id has another directory now; we then are behind.
    let behind = hello.conf_index > known.conf_index;
    if same_cluster && is_other(expected, hello.incarnation) && !behind {
        return Err(Refusal::WrongIncarnation { id: hello.id, expected, found: hello.incarnation });
    }
    if peer.cloned == Some((hello.incarnation, hello.start)) {
        return Err(Refusal::Clone { id: hello.id, start: hello.start });
    }
    let Some((incarnation, highest)) = peer.highest_start else { return Ok(()) };
    if incarnation != hello.incarnation {
        return Ok(());
    }
    if hello.start < highest {
        return Err(Refusal::StaleStart { id: hello.id, highest, found: hello.start });
    }
    match peer.live {
        Some(live) if live.start == hello.start && live.nonce != hello.nonce => {
            Err(Refusal::Clone { id: hello.id, start: hello.start })
        }
        _ => Ok(()),
    }
}

/// How much is believed of whoever was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// One of the two has no cluster yet: only founding is talked about.
    Founder,
    /// A node of our cluster, with the directory our configuration names, or with one it does not speak of.
    Member,
    /// A node of our cluster that goes by a later configuration, with another directory than the one ours names. It
    /// may lead us, which is how we learn of it; but its voice does not count for the member we know, and it gets no
    /// vote that we might have given that one (SAFETY D2).
    Successor,
}

impl Standing {
    /// Whether a message is taken from a node of this standing.
    #[must_use]
    pub fn may_say(self, body: &Body) -> bool {
        match self {
            Standing::Founder => false,
            Standing::Member => true,
            Standing::Successor => {
                matches!(
                    body,
                    Body::AppendEntries { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. }
                )
            }
        }
    }

    /// Whether a message is sent to a node of this standing.
    #[must_use]
    pub fn may_hear(self, body: &Body) -> bool {
        match self {
            Standing::Founder => false,
            Standing::Member => true,
            Standing::Successor => matches!(body, Body::AppendReply { .. } | Body::HeartbeatReply { .. }),
        }
    }
}

/// The standing of a node that [`judge`] let in.
#[must_use]
pub fn standing(hello: &Hello, known: &Known) -> Standing {
    if hello.cluster.is_none() || hello.cluster != known.local.cluster {
        return Standing::Founder;
    }
    match known.peers.get(&hello.id) {
        Some(peer) if is_other(peer.incarnation, hello.incarnation) => Standing::Successor,
        _ => Standing::Member,
    }
}

fn is_other(expected: Incarnation, found: Incarnation) -> bool {
    expected != Incarnation::UNKNOWN && expected != found
}

/// The dialler's side. `judge` decides about the answer; it is called once, when everything else is well.
///
/// # Errors
/// If the connection was not made. The caller sets the deadline.
pub(crate) async fn dial<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut W,
    mine: Hello,
    judge: impl FnOnce(&Hello) -> Result<(), Refusal>,
) -> Result<Box<Hello>, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let wanted = mine.to;
    send(writer, true, &Packet::Hello(Box::new(mine))).await?;
    let hello = meet(reader).await?;
    let verdict = match wanted {
        Some(wanted) if wanted != hello.id => Err(Refusal::WrongNode { wanted, met: hello.id }),
        _ => judge(&hello),
    };
    if let Err(refusal) = verdict {
        // It is told as a courtesy: that it could not be told changes nothing.
        drop(send(writer, false, &Packet::Refusal(Box::new(refusal.clone()))).await);
        return Err(HandshakeError::Refused(refusal));
    }
    send(writer, false, &Packet::Ready).await?;
    Ok(hello)
}

/// The accepting side. `judge` is called twice: when the hello has come, and with `true` when the dialler is ready
/// and the connection has to be entered in the books. `answer` makes our hello for theirs.
///
/// # Errors
/// If the connection was not made. The caller sets the deadline.
pub(crate) async fn accept<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut W,
    answer: impl FnOnce(&Hello) -> Hello,
    mut judge: impl FnMut(&Hello, bool) -> Result<(), Refusal>,
) -> Result<Box<Hello>, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = meet(reader).await?;
    if let Err(refusal) = judge(&hello, false) {
        drop(send(writer, true, &Packet::Refusal(Box::new(refusal.clone()))).await);
        return Err(HandshakeError::Refused(refusal));
    }
    send(writer, true, &Packet::Hello(Box::new(answer(&hello)))).await?;
    match reader.next().await?.ok_or(FrameError::Truncated)? {
        Packet::Ready => {}
        Packet::Refusal(refusal) => return Err(HandshakeError::RefusedByPeer(*refusal)),
        other => return Err(HandshakeError::Unexpected(other.kind().name())),
    }
    if let Err(refusal) = judge(&hello, true) {
        drop(send(writer, false, &Packet::Refusal(Box::new(refusal.clone()))).await);
        return Err(HandshakeError::Refused(refusal));
    }
    Ok(hello)
}

/// Reads the other side's magic and hello.
async fn meet<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> Result<Box<Hello>, HandshakeError> {
    if let Magic::Other(guess) = reader.expect(&MAGIC).await? {
        return Err(HandshakeError::WrongMagic(guess));
    }
    match reader.next().await?.ok_or(FrameError::Truncated)? {
        Packet::Hello(hello) => Ok(hello),
        Packet::Refusal(refusal) => Err(HandshakeError::RefusedByPeer(*refusal)),
        other => Err(HandshakeError::Unexpected(other.kind().name())),
    }
}

async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    first: bool,
    packet: &Packet,
) -> Result<(), HandshakeError> {
    let mut bytes = if first { MAGIC.to_vec() } else { Vec::new() };
    packet.encode_head(&mut bytes)?;
    writer.write_all(&bytes).await?;
    writer.flush().await?;
    Ok(())
}

/// What bytes a stranger sent amount to: for fuzzing. Never panics, whatever they are.
///
/// # Errors
/// As a handshake would end.
pub fn read_opening(bytes: &[u8]) -> Result<Hello, HandshakeError> {
    use tokio_util::codec::Decoder;
    let Some(rest) = bytes.strip_prefix(&MAGIC) else { return Err(HandshakeError::WrongMagic("")) };
    let mut buffer = bytes::BytesMut::from(rest);
    match crate::FrameCodec::opening().decode_eof(&mut buffer)?.ok_or(FrameError::Truncated)? {
        Packet::Hello(hello) => Ok(*hello),
        Packet::Refusal(refusal) => Err(HandshakeError::RefusedByPeer(*refusal)),
        other => Err(HandshakeError::Unexpected(other.kind().name())),
    }
}

#[cfg(test)]
mod tests;
