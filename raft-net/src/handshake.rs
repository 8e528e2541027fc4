//! Who is on the other side, and whether we talk to it: the first frames of every connection, and the rules.
//!
//! The dialler sends the magic and its [`Hello`]; the other side judges it and answers with its own hello or a
//! [`Refusal`]; the dialler judges that and answers "ready" or a refusal. Refusals reach both logs.
//! [`judge`] decides and does nothing else.

use std::{collections::BTreeMap, fmt};

use raft_core::{ClusterId, Incarnation, NodeId, StartNumber};
use serde::{Deserialize, Serialize};

/// The first bytes of every connection, in both directions.
pub const MAGIC: [u8; 8] = *b"raftnet\x01";
/// The oldest protocol version this release speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest protocol version this release speaks.
pub const VERSION_MAX: u16 = 1;

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
}

/// What is known when a [`Hello`] has to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Ourselves.
    pub local: LocalIdentity,
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
}

/// A process behind at least one open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveProcess {
    /// Its start number.
    pub start: StartNumber,
    /// Its random nonce.
    pub nonce: u64,
}
