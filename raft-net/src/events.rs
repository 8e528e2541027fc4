//! The way from the connections to the runtime: two bounded queues, the small one first.

use std::sync::Arc;

use raft_core::{Epoch, Incarnation, Message, NodeId};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    ConnectionKind, Forward, ForwardOrigin, ForwardReply, FoundingMessage, Hello, IncomingSnapshot,
    JoinRequest, Refusal, SnapshotError,
};

/// Something that came from the wire.
#[derive(Debug)]
pub enum NetEvent {
    /// A peer's message: sender and receiver are checked, every payload is intact.
    Message(Message),
    /// A follower forwards a command.
    Forward {
        /// Give this back with the reply.
        origin: ForwardOrigin,
        /// The command.
        forward: Forward,
    },
    /// The answer to one of this run's forwards.
    ForwardReply {
        /// Who answered.
        from: NodeId,
        /// The answer.
        reply: ForwardReply,
    },
    /// A connection we dialled is open. Whatever was in flight on the one before may be lost.
    PeerConnected {
        /// The peer.
        peer: NodeId,
        /// Which of the two connections.
        kind: ConnectionKind,
        /// What it told of itself.
        hello: Box<Hello>,
    },
    /// The peer has dialled us again: what it sent on the connection before, answers to forwards above all, may be lost.
    /// The first connection of a kind that its process makes is not told.
    PeerRedialled {
        /// The peer.
        peer: NodeId,
        /// Which of the two connections.
        kind: ConnectionKind,
    },
    /// The peer's process is gone: a connection broke and the next was refused (SAFETY E8). At most once between two
    /// `PeerConnected`.
    PeerDied(NodeId),
    /// A connection was refused by one of the two sides. Told again only when the reason changes.
    PeerRefused {
        /// The peer: as dialled, or as it claimed to be.
        peer: NodeId,
        /// Whether it refused us; otherwise we refused it.
        by_peer: bool,
        /// Why.
        reason: Refusal,
    },
    /// A leader offers a snapshot.
    SnapshotIncoming(Box<IncomingSnapshot>),
    /// A snapshot's transfer moves. Told now and then.
    SnapshotProgress {
        /// The receiver.
        to: NodeId,
        /// As offered.
        epoch: Epoch,
    },
    /// The receiver has the whole snapshot on disk.
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// As offered.
        epoch: Epoch,
    },
    /// The transfer broke off. Offering it again resumes it.
    SnapshotFailed {
        /// The receiver.
        to: NodeId,
        /// As offered.
        epoch: Epoch,
        /// Why.
        error: SnapshotError,
    },
    /// A founder's message.
    Founding {
        /// Who, as the handshake proved it.
        from: NodeId,
        /// Its directory.
        incarnation: Incarnation,
        /// What it says.
        message: FoundingMessage,
    },
    /// A node asks to be let in.
    Join(JoinRequest),
}

/// Events from the wire. Those of control connections come first, so that a heartbeat never waits behind appends
/// that the runtime has not taken yet.
#[derive(Debug)]
pub struct NetEvents {
    control: Receiver,
    bulk: Receiver,
    /// Cancelled once nothing can come any more.
    ended: CancellationToken,
}

impl NetEvents {
    /// The next event; `None` once the transport has shut down and all were taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        tokio::select! {
            biased;
            Some(event) = self.control.recv() => Some(event),
            Some(event) = self.bulk.recv() => Some(event),
            // Both queues were found empty, and nothing is put into them any more.
            () = self.ended.cancelled() => self.try_recv(),
            else => None,
        }
    }

    /// An event that waits already.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        self.control.try_recv().or_else(|| self.bulk.try_recv())
    }
}

#[derive(Debug)]
struct Receiver {
    queue: mpsc::UnboundedReceiver<(NetEvent, u32)>,
    budget: Arc<Semaphore>,
}

impl Receiver {
    async fn recv(&mut self) -> Option<NetEvent> {
        let taken = self.queue.recv().await;
        self.repay(taken)
    }

    fn try_recv(&mut self) -> Option<NetEvent> {
        let taken = self.queue.try_recv().ok();
        self.repay(taken)
    }

    fn repay(&self, taken: Option<(NetEvent, u32)>) -> Option<NetEvent> {
        let (event, cost) = taken?;
        self.budget.add_permits(cost as usize);
        Some(event)
    }
}

/// The connections' ends of both queues.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    control: Sender,
    bulk: Sender,
}

#[derive(Clone, Debug)]
struct Sender {
    queue: mpsc::UnboundedSender<(NetEvent, u32)>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

/// Makes both queues, with their budgets in bytes.
pub(crate) fn channel(
    control_bytes: usize,
    bulk_bytes: usize,
    ended: CancellationToken,
) -> (EventSender, NetEvents) {
    let (control, control_receiver) = one(control_bytes);
    let (bulk, bulk_receiver) = one(bulk_bytes);
    (EventSender { control, bulk }, NetEvents { control: control_receiver, bulk: bulk_receiver, ended })
}

fn one(budget_bytes: usize) -> (Sender, Receiver) {
    let budget_bytes = budget_bytes.clamp(1, u32::MAX as usize >> 1);
    let (sender, queue) = mpsc::unbounded_channel();
    let budget = Arc::new(Semaphore::new(budget_bytes));
    (Sender { queue: sender, budget: Arc::clone(&budget), budget_bytes }, Receiver { queue, budget })
}

impl EventSender {
    /// Something that happened here and not on the wire: rare, small, never held back.
    pub(crate) fn tell(&self, event: NetEvent) {
        // Without a receiver the runtime is gone, and with it whoever wanted to know.
        drop(self.control.queue.send((event, 0)));
    }

    /// Something received, `weight` bytes of it. Waits while the runtime has too much before it: the connection is not
    /// read meanwhile, and TCP holds the peer back. Events of one connection stay in order.
    pub(crate) async fn deliver(&self, bulk: bool, event: NetEvent, weight: usize) {
        let sender = if bulk { &self.bulk } else { &self.control };
        // What is larger than the whole budget waits until it is alone.
        let cost = u32::try_from(weight.min(sender.budget_bytes)).unwrap_or(u32::MAX >> 1);
        if let Ok(permit) = sender.budget.acquire_many(cost).await {
            permit.forget();
            drop(sender.queue.send((event, cost)));
        }
    }
}
