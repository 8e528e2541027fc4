//! How a cluster begins (SAFETY D3): nobody votes until all founders have met once and each has durably pinned the
//! cluster id and every founder's incarnation. A pure state machine; the runtime carries the messages and writes the
//! pin.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{ClusterId, ConfState, Incarnation, Member, NodeId};
use serde::{Deserialize, Serialize};

use crate::handshake::founders_text;

/// What each founder writes down durably, once and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Every founder with its directory and address.
    pub founders: BTreeMap<NodeId, Member>,
}

impl Pin {
    /// Whether this could be the founding configuration of a cluster.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), raft_core::ConfError> {
        self.conf_state().validate()
    }

    fn list(&self) -> BTreeMap<NodeId, String> {
        self.founders.iter().map(|(id, member)| (*id, member.address.clone())).collect()
    }

    fn incarnation_of(&self, id: NodeId) -> Option<Incarnation> {
        self.founders.get(&id).map(|member| member.incarnation)
    }

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
    /// The cluster knows this very directory, which has forgotten what it pinned.
    #[error(
        "cluster {cluster} knows this data directory as {id}, but the directory does not remember it: its identity \
         file was lost or restored, and it must not vote"
    )]
    PinLost {
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
///
/// The founders meet; the lowest id, having met all, pins a new cluster id and everybody's incarnation, and only then
/// proposes it; the others pin the same and say so to all; whoever knows that all have pinned may start.
///
/// Invariant: nothing that rests on a pin is sent before [`pinned`](Self::pinned) said that it is durable, and a pin
/// is never replaced. So all pins that name the same directories are the same, and a founder that crashes anywhere
/// goes on from its pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    id: NodeId,
    incarnation: Incarnation,
    list: BTreeMap<NodeId, String>,
    fresh_cluster: ClusterId,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is pinned here. Whom we met, with the directory they showed last.
    Meeting {
        met: BTreeMap<NodeId, Incarnation>,
    },
    /// The pin is being written.
    Pinning {
        pin: Pin,
    },
    /// The pin is durable; who else is known to have it.
    Pinned {
        pin: Pin,
        others: BTreeSet<NodeId>,
    },
    Over(FoundingOutcome),
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
        if !list.contains_key(&id) {
            return Err(FoundingStartError::NotListed { id, list: founders_text(&list) });
        }
        let unmet = list.keys().map(|id| (*id, Incarnation::UNKNOWN)).collect();
        make_pin(fresh_cluster, &list, &unmet).check()?;
        let state = match pin {
            None => State::Meeting { met: BTreeMap::from([(id, incarnation)]) },
            Some(pin) if pin.list() == list && pin.incarnation_of(id) == Some(incarnation) => {
                State::Pinned { pin, others: BTreeSet::new() }
            }
            Some(pin) => {
                let (pinned, list) = (founders_text(&pin.list()), founders_text(&list));
                return Err(FoundingStartError::PinContradicts { pinned, list });
            }
        };
        Ok(Founding { id, incarnation, list, fresh_cluster, state })
    }

    /// A message came from `from`, as the handshake proved it.
    pub fn receive(&mut self, from: NodeId, message: &FoundingMessage) -> FoundingOutput {
        match message {
            FoundingMessage::Meet { incarnation } => self.meet(from, *incarnation),
            FoundingMessage::Propose(pin) => self.propose(from, pin),
            FoundingMessage::Pinned { cluster, incarnation } => {
                self.peer_pinned(from, *cluster, *incarnation)
            }
            FoundingMessage::Founded { cluster, admitted } => self.founded(from, *cluster, *admitted),
        }
    }

    /// The pin asked for is durable.
    pub fn pinned(&mut self) -> FoundingOutput {
        if let State::Pinning { pin } = &self.state {
            self.state = State::Pinned { pin: pin.clone(), others: BTreeSet::new() };
        }
        let mut output = self.end_if_all_pinned();
        output.send.extend(self.tick().send);
        output
    }

    /// Says again what the others may have missed. Call it at once after `new`, then every 200 ms or so, and when a
    /// peer connects.
    pub fn tick(&mut self) -> FoundingOutput {
        let mut output = self.end_if_all_pinned();
        output.pin = self.pin_if_all_met();
        match &self.state {
            State::Meeting { .. } => {
                let message = FoundingMessage::Meet { incarnation: self.incarnation };
                output.send.extend(self.others().map(|id| (id, message.clone())));
            }
            State::Pinned { pin, others } => {
                for id in self.others() {
                    if self.is_lowest() && !others.contains(&id) {
                        output.send.push((id, FoundingMessage::Propose(pin.clone())));
                    }
                    output.send.push((id, self.pinned_message(pin)));
                }
            }
            State::Pinning { .. } | State::Over(_) => {}
        }
        output
    }

    /// The founders this node still waits for, with their addresses: not yet met, or met but not known to have
    /// pinned. Empty once it is over.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<(NodeId, String)> {
        let missing = |id: &NodeId| match &self.state {
            State::Meeting { met } => !met.contains_key(id),
            State::Pinning { .. } => *id == self.id,
            State::Pinned { others, .. } => *id != self.id && !others.contains(id),
            State::Over(_) => false,
        };
        let waiting = self.list.iter().filter(|(id, _)| missing(id)).map(|(id, at)| (*id, at.clone()));
        let waiting: Vec<_> = waiting.collect();
        match &self.state {
            // Met all, and yet nothing is pinned: the proposal is the lowest founder's to make.
            State::Meeting { .. } if waiting.is_empty() => {
                self.list.iter().take(1).map(|(id, at)| (*id, at.clone())).collect()
            }
            _ => waiting,
        }
    }

    /// What a running member answers to a founder that is late, or to a fresh directory; `None` to what needs no
    /// answer. `members` is its latest configuration.
    #[must_use]
    pub fn answer_of_member(
        cluster: ClusterId,
        members: &BTreeMap<NodeId, Member>,
        from: NodeId,
        message: &FoundingMessage,
    ) -> Option<FoundingMessage> {
        match message {
            FoundingMessage::Meet { .. } | FoundingMessage::Propose(_) | FoundingMessage::Pinned { .. } => {
                let admitted = members.get(&from).map(|member| member.incarnation);
                Some(FoundingMessage::Founded { cluster, admitted })
            }
            FoundingMessage::Founded { .. } => None,
        }
    }

    fn meet(&mut self, from: NodeId, incarnation: Incarnation) -> FoundingOutput {
        let mut output = FoundingOutput::default();
        if !self.list.contains_key(&from) || from == self.id {
            return output;
        }
        let lowest = self.is_lowest();
        match &mut self.state {
            State::Meeting { met } => {
                // A founder that was wiped before anything was pinned simply counts with its new directory.
                met.insert(from, incarnation);
                output.pin = self.pin_if_all_met();
            }
            State::Pinned { pin, .. } => {
                // The lowest asks it to pin. Anybody tells a directory that is not the pinned one.
                if lowest || pin.incarnation_of(from) != Some(incarnation) {
                    output.send.push((from, FoundingMessage::Propose(pin.clone())));
                }
            }
            State::Over(FoundingOutcome::Founded(pin)) => {
                let admitted = pin.incarnation_of(from);
                output.send.push((from, FoundingMessage::Founded { cluster: pin.cluster, admitted }));
            }
            State::Pinning { .. } | State::Over(FoundingOutcome::Refused(_)) => {}
        }
        output
    }

    fn propose(&mut self, from: NodeId, theirs: &Pin) -> FoundingOutput {
        match &self.state {
            State::Meeting { .. } => match theirs.incarnation_of(self.id) {
                None => self.refuse(FoundingRefusal::NotAMember { cluster: theirs.cluster, id: self.id }),
                Some(admitted) if admitted != self.incarnation => {
                    self.refuse(FoundingRefusal::OtherIncarnation {
                        cluster: theirs.cluster,
                        id: self.id,
                        admitted,
                        ours: self.incarnation,
                    })
                }
                Some(_) if theirs.list() != self.list => self.refuse(FoundingRefusal::ListsDiffer {
                    peer: from,
                    theirs: founders_text(&theirs.list()),
                    ours: founders_text(&self.list),
                }),
                // Only the lowest founds; the others repeat its pin to those it does not fit.
                Some(_) if Some(from) != self.lowest() => FoundingOutput::default(),
                Some(_) => {
                    self.state = State::Pinning { pin: theirs.clone() };
                    FoundingOutput { pin: Some(theirs.clone()), ..FoundingOutput::default() }
                }
            },
            State::Pinning { pin } | State::Pinned { pin, .. } if pin.cluster != theirs.cluster => {
                let ours = pin.cluster;
                self.refuse(FoundingRefusal::OtherCluster { ours, peer: from, theirs: theirs.cluster })
            }
            State::Pinned { pin, .. } => {
                let send = vec![(from, self.pinned_message(pin))];
                FoundingOutput { send, ..FoundingOutput::default() }
            }
            State::Over(FoundingOutcome::Founded(pin)) => {
                let message =
                    FoundingMessage::Founded { cluster: pin.cluster, admitted: pin.incarnation_of(from) };
                FoundingOutput { send: vec![(from, message)], ..FoundingOutput::default() }
            }
            State::Pinning { .. } | State::Over(FoundingOutcome::Refused(_)) => FoundingOutput::default(),
        }
    }

    fn peer_pinned(&mut self, from: NodeId, cluster: ClusterId, incarnation: Incarnation) -> FoundingOutput {
        let mut output = FoundingOutput::default();
        match &mut self.state {
            State::Meeting { .. } => {
                // It may have pinned a directory of ours that is gone: showing ours brings that to light.
                output.send.push((from, FoundingMessage::Meet { incarnation: self.incarnation }));
            }
            State::Pinning { pin } | State::Pinned { pin, .. } if pin.cluster != cluster => {
                let ours = pin.cluster;
                return self.refuse(FoundingRefusal::OtherCluster { ours, peer: from, theirs: cluster });
            }
            State::Pinned { pin, others } => {
                if pin.incarnation_of(from) == Some(incarnation) {
                    others.insert(from);
                }
                return self.end_if_all_pinned();
            }
            State::Over(FoundingOutcome::Founded(pin)) => {
                let admitted = pin.incarnation_of(from);
                output.send.push((from, FoundingMessage::Founded { cluster: pin.cluster, admitted }));
            }
            State::Pinning { .. } | State::Over(FoundingOutcome::Refused(_)) => {}
        }
        output
    }

    fn founded(&mut self, from: NodeId, cluster: ClusterId, admitted: Option<Incarnation>) -> FoundingOutput {
        let (pin, durable) = match &self.state {
            State::Over(_) => return FoundingOutput::default(),
            State::Meeting { .. } => (None, false),
            State::Pinning { pin } => (Some(pin), false),
            State::Pinned { pin, .. } => (Some(pin), true),
        };
        if let Some(pin) = pin.filter(|pin| pin.cluster != cluster) {
            let ours = pin.cluster;
            return self.refuse(FoundingRefusal::OtherCluster { ours, peer: from, theirs: cluster });
        }
        match (admitted, pin) {
            (None, _) => self.refuse(FoundingRefusal::NotAMember { cluster, id: self.id }),
            (Some(admitted), _) if admitted != self.incarnation => {
                self.refuse(FoundingRefusal::OtherIncarnation {
                    cluster,
                    id: self.id,
                    admitted,
                    ours: self.incarnation,
                })
            }
            (Some(_), None) => self.refuse(FoundingRefusal::PinLost { cluster, id: self.id }),
            (Some(_), Some(pin)) if durable => {
                let pin = pin.clone();
                self.end(FoundingOutcome::Founded(pin))
            }
            (Some(_), Some(_)) => FoundingOutput::default(),
        }
    }

    /// The lowest founder has met everybody: it pins.
    fn pin_if_all_met(&mut self) -> Option<Pin> {
        let State::Meeting { met } = &self.state else { return None };
        if met.len() < self.list.len() || !self.is_lowest() {
            return None;
        }
        let pin = make_pin(self.fresh_cluster, &self.list, met);
        self.state = State::Pinning { pin: pin.clone() };
        Some(pin)
    }

    /// Everybody has pinned: consensus may start, and the others hear of it.
    fn end_if_all_pinned(&mut self) -> FoundingOutput {
        let State::Pinned { pin, others } = &self.state else { return FoundingOutput::default() };
        if others.len() + 1 < self.list.len() {
            return FoundingOutput::default();
        }
        let pin = pin.clone();
        let mut output = FoundingOutput::default();
        for id in self.others() {
            // Whoever hears this without our own word counts us from it.
            output.send.push((id, self.pinned_message(&pin)));
            let admitted = pin.incarnation_of(id);
            output.send.push((id, FoundingMessage::Founded { cluster: pin.cluster, admitted }));
        }
        output.outcome = self.end(FoundingOutcome::Founded(pin)).outcome;
        output
    }

    fn refuse(&mut self, reason: FoundingRefusal) -> FoundingOutput {
        self.end(FoundingOutcome::Refused(reason))
    }

    fn end(&mut self, outcome: FoundingOutcome) -> FoundingOutput {
        self.state = State::Over(outcome.clone());
        FoundingOutput { outcome: Some(outcome), ..FoundingOutput::default() }
    }

    fn pinned_message(&self, pin: &Pin) -> FoundingMessage {
        FoundingMessage::Pinned { cluster: pin.cluster, incarnation: self.incarnation }
    }

    fn lowest(&self) -> Option<NodeId> {
        self.list.keys().next().copied()
    }

    fn is_lowest(&self) -> bool {
        self.lowest() == Some(self.id)
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.list.keys().copied().filter(|id| *id != self.id)
    }
}

fn make_pin(cluster: ClusterId, list: &BTreeMap<NodeId, String>, met: &BTreeMap<NodeId, Incarnation>) -> Pin {
    let member = |(id, address): (&NodeId, &String)| {
        let incarnation = met.get(id).copied().unwrap_or(Incarnation::UNKNOWN);
        (*id, Member { incarnation, address: address.clone() })
    };
    Pin { cluster, founders: list.iter().map(member).collect() }
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

#[cfg(test)]
mod tests;
