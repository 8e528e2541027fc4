//! Who is connected: the state that [`judge`] judges by, kept true as connections come and go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use raft_core::{ClusterId, Incarnation, LogIndex, NodeId};
use tokio_util::sync::CancellationToken;

use crate::{
    ConnectionKind, Hello, Known, KnownPeer, LocalIdentity, PeerInfo, Refusal,
    handshake::{Standing, judge, standing},
};

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// We did.
    Outbound,
    /// The peer did.
    Inbound,
}

/// The books of one transport.
///
/// Invariant: a peer's `live` process is the one behind all its open connections, and there is none without a
/// connection.
#[derive(Debug)]
pub(crate) struct Books(Mutex<State>);

#[derive(Debug)]
struct State {
    known: Known,
    open: BTreeMap<u64, Open>,
    next: u64,
    inbound_max: usize,
}

#[derive(Debug)]
struct Open {
    peer: NodeId,
    kind: ConnectionKind,
    direction: Direction,
    incarnation: Incarnation,
    start: raft_core::StartNumber,
    standing: Standing,
    close: CancellationToken,
}

/// A connection's line in the books; dropping it strikes the line out.
#[derive(Debug)]
pub(crate) struct Ticket {
    books: Arc<Books>,
    id: u64,
    /// Cancelled when the connection has to end.
    pub(crate) close: CancellationToken,
    /// What may be talked about.
    pub(crate) standing: Standing,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.books.state().leave(self.id);
    }
}

impl Books {
    pub(crate) fn new(local: LocalIdentity, inbound_max: usize) -> Books {
        let known = Known { local, conf_index: LogIndex::ZERO, peers: BTreeMap::new() };
        Books(Mutex::new(State { known, open: BTreeMap::new(), next: 0, inbound_max }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What we say of ourselves.
    pub(crate) fn hello(
        &self,
        nonce: u64,
        kind: ConnectionKind,
        to: NodeId,
        frame_bytes_max: usize,
    ) -> Hello {
        let state = self.state();
        state.known.local.hello(nonce, kind, Some(to), frame_bytes_max, state.known.conf_index)
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.state().known.local.cluster
    }

    /// Judges without entering.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let mut state = self.state();
        let verdict = judge(hello, &state.known);
        state.note(hello, verdict)
    }

    /// Judges and, if all is well, enters the connection. One it replaces is closed: an older one of the same kind
    /// and process, and all of an earlier process.
    ///
    /// `said` is the cluster that our own hello named. If we have found one since, the other side would take us for a
    /// founder for as long as the connection lives, and drop all our messages.
    pub(crate) fn enter(
        self: &Arc<Self>,
        hello: &Hello,
        said: Option<ClusterId>,
        kind: ConnectionKind,
        direction: Direction,
        parent: &CancellationToken,
    ) -> Result<Ticket, Refusal> {
        let mut state = self.state();
        let verdict = judge(hello, &state.known);
        state.note(hello, verdict)?;
        if parent.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        if said != state.known.local.cluster {
            return Err(Refusal::Overtaken);
        }
        let standing = standing(hello, &state.known);
        let inbound = state.open.values().filter(|open| open.direction == Direction::Inbound);
        let is_stranger = |kind, standing| kind == ConnectionKind::Join || standing == Standing::Founder;
        let strangers = inbound.clone().filter(|open| is_stranger(open.kind, open.standing)).count();
        let full = inbound.count() >= state.inbound_max
            || (is_stranger(kind, standing) && strangers >= STRANGERS_INBOUND_MAX);
        if direction == Direction::Inbound && full {
            return Err(Refusal::TooMany);
        }
        let close = parent.child_token();
        if kind != ConnectionKind::Join {
            state.known.peers.entry(hello.id).or_default().admit(hello);
        }
        for open in state.open.values().filter(|open| open.peer == hello.id) {
            let same_process = open.start == hello.start && open.incarnation == hello.incarnation;
            let same_place = open.kind == kind && open.direction == direction;
            if kind != ConnectionKind::Join && (!same_process || same_place) {
                open.close.cancel();
            }
        }
        let id = state.next;
        state.next += 1;
        let open = Open {
            peer: hello.id,
            kind,
            direction,
            incarnation: hello.incarnation,
            start: hello.start,
            standing,
            close: close.clone(),
        };
        state.open.insert(id, open);
        Ok(Ticket { books: Arc::clone(self), id, close, standing })
    }

    /// The peer cannot be reached over one of the connections we dialled: the others lead nowhere either.
    pub(crate) fn give_up(&self, peer: NodeId) {
        for open in self.state().open.values() {
            if open.peer == peer && open.direction == Direction::Outbound {
                open.close.cancel();
            }
        }
    }

    /// The membership changed: connections of directories that are no longer the named ones are closed.
    pub(crate) fn set_peers(&self, peers: &BTreeMap<NodeId, PeerInfo>) {
        let mut state = self.state();
        let state = &mut *state;
        for (id, info) in peers {
            state.known.peers.entry(*id).or_default().incarnation = info.incarnation;
        }
        for (id, peer) in &mut state.known.peers {
            if !peers.contains_key(id) {
                peer.incarnation = Incarnation::UNKNOWN;
            }
        }
        for open in state.open.values().filter(|open| open.kind != ConnectionKind::Join) {
            let expected = peers.get(&open.peer).map_or(Incarnation::UNKNOWN, |info| info.incarnation);
            let other = expected != Incarnation::UNKNOWN && expected != open.incarnation;
            // Made again, it is judged by what we know now.
            match open.standing {
                Standing::Member if other => open.close.cancel(),
                Standing::Successor if !other => open.close.cancel(),
                Standing::Founder | Standing::Member | Standing::Successor => {}
            }
        }
    }

    /// The configuration that names the members stands here in the log.
    pub(crate) fn set_conf_index(&self, index: LogIndex) {
        self.state().known.conf_index = index;
    }

    /// From now on this cluster: every connection made without one is closed.
    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        let mut state = self.state();
        state.known.local.cluster = Some(cluster);
        for open in state.open.values().filter(|open| open.standing == Standing::Founder) {
            open.close.cancel();
        }
    }
}

impl State {
    /// Two processes on copies of one directory: neither is spoken to any more (SAFETY D3).
    fn note(&mut self, hello: &Hello, verdict: Result<(), Refusal>) -> Result<(), Refusal> {
        if let Err(Refusal::Clone { id, start }) = &verdict {
            self.known.peers.entry(*id).or_default().cloned = Some((hello.incarnation, *start));
            for open in self.open.values().filter(|open| open.peer == *id && open.start == *start) {
                open.close.cancel();
            }
        }
        verdict
    }

    fn leave(&mut self, id: u64) {
        let Some(gone) = self.open.remove(&id) else { return };
        let left = self.open.values().any(|open| open.peer == gone.peer && open.kind != ConnectionKind::Join);
        if let Some(peer) = self.known.peers.get_mut(&gone.peer).filter(|_| !left) {
            peer.live = None;
        }
        // What is remembered of strangers is bounded.
        if !left && self.known.peers.len() > STRANGERS_MAX {
            self.known.peers.retain(|_, peer: &mut KnownPeer| {
                peer.live.is_some() || peer.incarnation != Incarnation::UNKNOWN
            });
        }
    }
}

/// Open connections of nodes without a cluster: whoever reaches the port can make them, and they must leave room for
/// the members.
const STRANGERS_INBOUND_MAX: usize = 64;
/// Nodes remembered before those that are neither members nor connected are forgotten.
const STRANGERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use raft_core::StartNumber;

    use super::*;
    use crate::Addresses;

    fn identity(id: u64, cluster: Option<ClusterId>) -> LocalIdentity {
        LocalIdentity {
            id: NodeId(id),
            cluster,
            incarnation: Incarnation(id),
            start: StartNumber(1),
            addresses: Addresses::default(),
            founders: Some(BTreeMap::from([(NodeId(1), "a:1".to_owned()), (NodeId(2), "b:1".to_owned())])),
            election_timeout_ms: 500,
        }
    }

    /// Seen once in some twenty foundings on a busy machine: one side went on as a founder's connection for ever, all
    /// its messages were dropped, and three nodes so connected in a ring never elected a leader.
    #[test]
    fn a_handshake_overtaken_by_the_founding_is_made_again() {
        let cluster = ClusterId(7);
        let books = Arc::new(Books::new(identity(1, None), 16));
        let said = books.hello(11, ConnectionKind::Control, NodeId(2), 1 << 20).cluster;
        books.set_cluster(cluster);
        let theirs = identity(2, Some(cluster)).hello(
            22,
            ConnectionKind::Control,
            Some(NodeId(1)),
            1 << 20,
            LogIndex::ZERO,
        );
        let parent = CancellationToken::new();
        let enter = |said| books.enter(&theirs, said, ConnectionKind::Control, Direction::Inbound, &parent);
        assert_eq!(enter(said).map(|_| ()), Err(Refusal::Overtaken));
        assert_eq!(enter(Some(cluster)).unwrap().standing, Standing::Member);
    }
}
