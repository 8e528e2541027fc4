//! How a cluster begins (SAFETY D3): nobody votes until all founders have met once and each has durably pinned the
//! cluster id and every founder's incarnation. A pure state machine; the runtime carries the messages and writes the
//! pin.

use std::collections::BTreeMap;

use raft_core::{ClusterId, ConfState, Incarnation, Member, NodeId};
use serde::{Deserialize, Serialize};

/// What each founder writes down durably, once and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Every founder with its directory and address.
    pub founders: BTreeMap<NodeId, Member>,
}

impl Pin {
    /// The founding configuration: all founders vote.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        ConfState::of_voters(self.founders.clone())
    }
}

/// What founders tell each other. Any of these may be lost, doubled or reordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundingMessage {
    /// "I am here, with this directory."
    Meet {
        /// The sender's directory.
        incarnation: Incarnation,
    },
    /// The lowest id has met everybody, pinned this, and asks the others to.
    Propose(Pin),
    /// The sender has durably pinned this cluster.
    Pinned {
        /// Which.
        cluster: ClusterId,
        /// The sender's directory.
        incarnation: Incarnation,
    },
    /// Everybody has pinned, or the cluster runs already.
    Founded {
        /// Which.
        cluster: ClusterId,
        /// The directory under which the receiver is, or was, a member; `None`: the receiver is no member.
        admitted: Option<Incarnation>,
    },
}

/// How founding ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundingOutcome {
    /// Consensus may start with this.
    Founded(Pin),
    /// It never may, with this directory.
    Refused(FoundingRefusal),
}

/// Why a directory may never vote in the cluster its list names. Display is the sentence to exit with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundingRefusal {
    /// The cluster exists, and this id belongs to another directory: this one is new or was wiped.
    #[error(
        "cluster {cluster} is already founded and {id} belongs to data directory {admitted}; this directory ({ours}) \
         is not it and must not vote: bring the old directory back, or replace the member"
    )]
    OtherIncarnation {
        /// The cluster.
        cluster: ClusterId,
        /// This node.
        id: NodeId,
        /// The directory it was founded with.
        admitted: Incarnation,
        /// This directory.
        ours: Incarnation,
    },
    /// The cluster exists and does not have this id.
    #[error("cluster {cluster} is already founded and {id} is no member of it: use --join")]
    NotAMember {
        /// The cluster.
        cluster: ClusterId,
        /// This node.
        id: NodeId,
    },
    /// This directory pinned one cluster, and another founder another.
    #[error("this directory was pinned to cluster {ours}, but {peer} belongs to cluster {theirs}")]
    OtherCluster {
        /// Ours.
        ours: ClusterId,
        /// The other founder.
        peer: NodeId,
        /// Theirs.
        theirs: ClusterId,
    },
    /// A proposal names other founders or addresses than our list.
    #[error("{peer} founds with another list than ours: theirs is {theirs}, ours is {ours}")]
    ListsDiffer {
        /// The proposer.
        peer: NodeId,
        /// Its list.
        theirs: String,
        /// Ours.
        ours: String,
    },
}

/// What a step of the machine asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct FoundingOutput {
    /// Send these now.
    pub send: Vec<(NodeId, FoundingMessage)>,
    /// Write this durably, then call [`Founding::pinned`]. Until then nothing that rests on it is sent.
    pub pin: Option<Pin>,
    /// It is over.
    pub outcome: Option<FoundingOutcome>,
}

/// One founder's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    id: NodeId,
    incarnation: Incarnation,
    list: BTreeMap<NodeId, String>,
}

impl Founding {
    /// A founder starts, or starts again. `pin` is what its directory holds; `fresh_cluster` is a random id that only
    /// the lowest founder uses, and only if it has no pin.
    ///
    /// # Errors
    /// If the list does not name this node, or names more founders than may vote, or a pin contradicts it.
    pub fn new(
        id: NodeId,
        incarnation: Incarnation,
        list: BTreeMap<NodeId, String>,
        pin: Option<Pin>,
        fresh_cluster: ClusterId,
    ) -> Result<Founding, FoundingStartError> {
        let _ = (pin, fresh_cluster);
        Ok(Founding { id, incarnation, list })
    }

    /// A message came from `from`, as the handshake proved it.
    pub fn receive(&mut self, from: NodeId, message: &FoundingMessage) -> FoundingOutput {
        let _ = (from, message, self.id, self.incarnation);
        FoundingOutput::default()
    }

    /// The pin asked for is durable.
    pub fn pinned(&mut self) -> FoundingOutput {
        FoundingOutput::default()
    }

    /// Says again what the others may have missed. Call it at once after `new`, then every 200 ms or so, and when a
    /// peer connects.
    pub fn tick(&mut self) -> FoundingOutput {
        FoundingOutput::default()
    }

    /// The founders this node still waits for, with their addresses: not yet met, or met but not known to have
    /// pinned.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<(NodeId, String)> {
        self.list.clone().into_iter().collect()
    }

    /// What a running member answers to a founder that is late, or to a fresh directory. `members` is its latest
    /// configuration.
    #[must_use]
    pub fn answer_of_member(
        cluster: ClusterId,
        members: &BTreeMap<NodeId, Member>,
        from: NodeId,
        message: &FoundingMessage,
    ) -> Option<FoundingMessage> {
        let _ = message;
        Some(FoundingMessage::Founded {
            cluster,
            admitted: members.get(&from).map(|member| member.incarnation),
        })
    }
}

/// Why founding cannot even begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundingStartError {
    /// Our id is not in the list.
    #[error("the founding list {list} does not name this node, {id}")]
    NotListed {
        /// This node.
        id: NodeId,
        /// The list.
        list: String,
    },
    /// Too many founders, no address, an address too long, or id zero.
    #[error("the founding list is not valid: {0}")]
    BadList(#[from] raft_core::ConfError),
    /// The directory was pinned under another incarnation or list.
    #[error("this directory was founded with {pinned}, the configuration now says {list}")]
    PinContradicts {
        /// What is pinned.
        pinned: String,
        /// The list now.
        list: String,
    },
}
