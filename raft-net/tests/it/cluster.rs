//! Nodes for tests: a transport on a port of its own, and the events it has told.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use raft_core::{
    Body, ClusterId, Entries, Entry, EntryKind, Epoch, Incarnation, LogId, LogIndex, Message, NodeId, Round,
    StartNumber, Term, Timestamp,
};
use raft_net::{Addresses, LocalIdentity, NetEvent, NetEvents, NetOptions, PeerInfo, Transport};
use tokio::{net::TcpListener, time::timeout};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: String,
    pub(crate) transport: Transport,
    pub(crate) events: NetEvents,
}

pub(crate) fn identity(id: u64) -> LocalIdentity {
    LocalIdentity {
        id: NodeId(id),
        cluster: Some(CLUSTER),
        incarnation: Incarnation(id * 100),
        start: StartNumber(1),
        addresses: Addresses {
            resp: format!("resp{id}"),
            http: format!("http{id}"),
            peer: format!("peer{id}"),
        },
        founders: None,
        election_timeout_ms: 500,
    }
}

impl Node {
    pub(crate) async fn start(id: u64) -> Node {
        Node::with(identity(id), NetOptions::default()).await
    }

    pub(crate) async fn with(identity: LocalIdentity, options: NetOptions) -> Node {
        Node::at("127.0.0.1:0", identity, options).await
    }

    pub(crate) async fn at(address: &str, identity: LocalIdentity, options: NetOptions) -> Node {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let id = identity.id;
        let (transport, events) = Transport::start(options, identity, listener).unwrap();
        Node { id, address, transport, events }
    }

    /// Waits for an event that `pick` wants; others are dropped.
    pub(crate) async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the transport has ended");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        let id = self.id;
        timeout(Duration::from_secs(10), search)
            .await
            .unwrap_or_else(|_| panic!("{id} waited in vain for {what}"))
    }

    pub(crate) async fn until_message(&mut self) -> Message {
        self.until("a message", |event| match event {
            NetEvent::Message(message) => Some(message),
            _ => None,
        })
        .await
    }

    pub(crate) async fn until_connected(&mut self, to: NodeId) {
        let mut kinds = Vec::new();
        self.until("both connections", |event| match event {
            NetEvent::PeerConnected { peer, kind, .. } if peer == to => {
                kinds.push(kind);
                (kinds.len() == 2).then_some(())
            }
            _ => None,
        })
        .await;
    }

    pub(crate) fn know(&self, peers: &[&Node]) {
        let info = |node: &&Node| {
            let incarnation = Incarnation(node.id.0 * 100);
            (node.id, PeerInfo { address: node.address.clone(), incarnation })
        };
        self.transport.set_peers(peers.iter().map(info).collect::<BTreeMap<_, _>>());
    }

    pub(crate) fn heartbeat(&self, to: NodeId, round: u64) -> Message {
        let prev = LogId::new(3, 9);
        let body = Body::Heartbeat { epoch: Epoch(4), round: Round(round), prev, commit: LogIndex(7) };
        Message { from: self.id, to, term: Term(3), body }
    }

    pub(crate) fn append(&self, to: NodeId, prev: u64, payloads: &[Bytes]) -> Message {
        let entries: Entries = payloads
            .iter()
            .zip(prev + 1..)
            .map(|(payload, index)| Entry {
                id: LogId::new(3, index),
                time: Timestamp(1_700_000_000_000 + index),
                session: None,
                kind: EntryKind::Command,
                checksum: Entry::checksum_of(payload),
                payload: payload.clone(),
            })
            .collect();
        let body = Body::AppendEntries {
            epoch: Epoch(4),
            round: Round(5),
            prev: LogId::new(3, prev),
            commit: LogIndex(prev),
            entries,
        };
        Message { from: self.id, to, term: Term(3), body }
    }
}

pub(crate) async fn pair() -> (Node, Node) {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    two.know(&[&one]);
    one.until_connected(NodeId(2)).await;
    two.until_connected(NodeId(1)).await;
    (one, two)
}
