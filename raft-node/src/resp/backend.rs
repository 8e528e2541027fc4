//! How a connection reaches the node behind it: the one seam of the front end.
//!
//! The node implements [`Backend`]; so does [`MemoryBackend`](super::memory::MemoryBackend), a store without a log, for
//! tests and for measuring the front end alone.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use raft_core::Timestamp;
use tokio::sync::oneshot;

use crate::{error::ClientError, kv::Kv, status::Status};

/// The node, as its clients' connections see it.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Hands in one request for the log (see [`request`](crate::kv::request)) and returns at once.
    ///
    /// Requests of one caller enter the log in the order of the calls, unless one of them fails. The reply is in
    /// carried form ([`Reply::to_carried`](crate::kv::Reply::to_carried)). Dropping the future does not take the
    /// request back.
    fn propose(&self, payload: Bytes) -> ReplyFuture;

    /// Has `read` run on the store once it is as fresh as `consistency` asks, or with the reason why it never will be.
    ///
    /// Linearizable: the store holds every write that any client had been answered before this call. A `read` that is
    /// dropped without being run tells its client that the node is leaving.
    fn read(&self, consistency: Consistency, read: ReadRequest);

    /// What the leader's clock shows, as far as the node can tell.
    fn time(&self) -> Timestamp;

    /// Whether the disk has no room for the log, as of some milliseconds ago. Cheap enough to be asked for each command.
    fn log_is_full(&self) -> bool;

    /// What the node knows about itself and its cluster. Cheap enough to be asked ten times a second.
    fn status(&self) -> Status;
}

/// A read, run on the store by its owner. It answers for itself.
///
/// One such closure serves a whole run of pipelined reads.
pub type ReadRequest = Box<dyn FnOnce(Result<&Kv, ClientError>) + Send>;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write answered before it began. The leader is asked.
    #[default]
    Linearizable,
    /// The same as long as clocks run at about the same rate. A node without a lease serves it as linearizable.
    Lease,
    /// What this node has applied.
    Stale {
        /// Everything answered until this long before is seen: the leader is asked if that is not known. `None` takes
        /// anything.
        lag_max: Option<Duration>,
    },
}

/// Where an answer is put; see [`ReplyFuture`].
pub type ReplySender = oneshot::Sender<Result<Bytes, ClientError>>;

/// The reply to come.
#[derive(Debug)]
#[must_use]
pub struct ReplyFuture {
    state: State,
    abandoned: ClientError,
}

#[derive(Debug)]
enum State {
    Ready(Result<Bytes, ClientError>),
    Waiting(oneshot::Receiver<Result<Bytes, ClientError>>),
    Taken,
}

impl ReplyFuture {
    /// A write whose answer arrives at `receiver`. If the sender is dropped, the outcome is unknown.
    pub const fn write(receiver: oneshot::Receiver<Result<Bytes, ClientError>>) -> ReplyFuture {
        ReplyFuture { state: State::Waiting(receiver), abandoned: ClientError::OutcomeUnknown }
    }

    /// A read whose answer arrives at `receiver`. If the sender is dropped, the node is leaving: a read that was not
    /// answered has changed nothing.
    pub const fn read(receiver: oneshot::Receiver<Result<Bytes, ClientError>>) -> ReplyFuture {
        ReplyFuture { state: State::Waiting(receiver), abandoned: ClientError::ShuttingDown }
    }

    /// An answer that is known already.
    pub const fn ready(result: Result<Bytes, ClientError>) -> ReplyFuture {
        ReplyFuture { state: State::Ready(result), abandoned: ClientError::OutcomeUnknown }
    }
}

impl Future for ReplyFuture {
    type Output = Result<Bytes, ClientError>;

    /// # Panics
    /// If it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(result) => result,
            State::Waiting(mut receiver) => match Pin::new(&mut receiver).poll(context) {
                Poll::Pending => {
                    self.state = State::Waiting(receiver);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(result)) => result,
                Poll::Ready(Err(_)) => Err(self.abandoned.clone()),
            },
            State::Taken => panic!("a reply was asked for twice"),
        };
        Poll::Ready(result)
    }
}
