//! What a connection waits for: one slot for each command whose reply is still to be sent, in the order of the
//! commands.
//!
//! Reads without anything between them share a slot: the store answers them in one go, encoded for this client.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use raft_core::{LogIndex, Timestamp};
use tokio::sync::oneshot;

use super::{
    Shared,
    backend::{Backend, Consistency, ReplyFuture},
    clients::{Allowance, Clients},
    transaction::Queued,
};
use crate::{
    error::ClientError,
    kv::{Kv, Protocol, Reply},
};

/// The slots of one connection.
#[derive(Default)]
pub(super) struct Pipeline {
    slots: VecDeque<Slot>,
    commands: usize,
    bytes: usize,
    reads: usize,
    writes: usize,
    /// Reads that go out together, at the end of the queue.
    gathered: Vec<Vec<Bytes>>,
}

/// One reply to come, or several.
pub(super) struct Slot {
    pub(super) wait: Wait,
    /// What protocol the client spoke when it sent the command.
    pub(super) protocol: Protocol,
    /// The client wants no reply.
    pub(super) silent: bool,
    /// What the request costs while it waits.
    pub(super) bytes: usize,
}

/// What a slot waits for.
pub(super) enum Wait {
    /// Nothing: these bytes are to be sent when their turn comes.
    Done(BytesMut),
    /// The log.
    Write(ReplyFuture),
    /// The log, for a read that went through it as a transaction of its own.
    LoggedRead(ReplyFuture),
    /// The log, for a transaction that also holds commands of the connection's own.
    Execute(ReplyFuture, Vec<Queued>),
    /// The store, for so many reads.
    Reads(oneshot::Receiver<Result<Answers, ClientError>>, usize),
    /// The store, for the modification indexes of these keys.
    Watch(oneshot::Receiver<Result<Vec<LogIndex>, ClientError>>, Vec<Bytes>),
    /// Something that takes its time.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

/// What a run of reads has brought.
#[derive(Debug)]
pub(super) struct Answers {
    encoded: BytesMut,
    /// The share of `encoded` in the memory of all large buffers, until the connection accounts for it.
    _allowance: Allowance,
    /// Reads that were not run, since the replies before them are large: ask again when those have been sent.
    left: Vec<Vec<Bytes>>,
}

/// What a slot has come to.
pub(super) enum Outcome {
    /// Bytes to send.
    Encoded(BytesMut),
    /// A reply in carried form.
    Carried(Bytes),
    /// A reply to a transaction, in carried form, to be completed.
    Executed(Bytes, Vec<Queued>),
    /// What `WATCH` wanted to know.
    Watched(Vec<Bytes>, Vec<LogIndex>),
    /// `WATCH` is in vain.
    WatchFailed(ClientError),
    /// A reply of the connection's own.
    Reply(Reply),
    /// So many commands failed.
    Failed(ClientError, usize),
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.gathered.is_empty()
    }

    /// Commands under way.
    pub(super) const fn commands(&self) -> usize {
        self.commands
    }

    /// Bytes of requests under way.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether reads are under way, `WATCH` among them.
    pub(super) fn has_reads(&self) -> bool {
        self.reads > 0 || !self.gathered.is_empty()
    }

    /// How many writes are under way.
    pub(super) const fn writes(&self) -> usize {
        self.writes
    }

    /// Whether what comes next takes as long as the client wished.
    pub(super) fn waits_as_wished(&self) -> bool {
        self.slots.front().is_some_and(|slot| matches!(slot.wait, Wait::Later(_)))
    }

    /// Adds a read to the run at the end.
    pub(super) fn gather(&mut self, args: Vec<Bytes>) {
        self.commands += 1;
        self.gathered.push(args);
    }

    /// Sends off the reads gathered so far.
    pub(super) fn start_reads<B: Backend>(
        &mut self,
        shared: &Shared<B>,
        consistency: Consistency,
        protocol: Protocol,
    ) {
        if self.gathered.is_empty() {
            return;
        }
        let commands = std::mem::take(&mut self.gathered);
        let count = commands.len();
        let bytes = commands.iter().map(|args| cost(args)).sum();
        let wait = Wait::Reads(start(shared, consistency, protocol, commands), count);
        // They were counted when they were gathered.
        self.commands -= count;
        self.push(Slot { wait, protocol, silent: false, bytes });
    }

    /// Adds a slot at the end.
    pub(super) fn push(&mut self, slot: Slot) {
        self.commands += slot.commands();
        self.bytes += slot.bytes;
        self.reads += usize::from(slot.reads());
        self.writes += usize::from(slot.writes());
        self.slots.push_back(slot);
    }

    /// Adds a reply that is known already. Nothing to wait for is put in front of it by a later call.
    pub(super) fn push_reply(&mut self, reply: &Reply, protocol: Protocol) {
        if let Some(Slot { wait: Wait::Done(encoded), bytes, .. }) = self.slots.back_mut() {
            let before = encoded.len();
            reply.encode(protocol, encoded);
            *bytes += encoded.len() - before;
            self.bytes += encoded.len() - before;
            return;
        }
        let mut encoded = BytesMut::new();
        reply.encode(protocol, &mut encoded);
        let bytes = encoded.len();
        self.push(Slot { wait: Wait::Done(encoded), protocol, silent: false, bytes });
    }

    /// Takes out the first slot once it has come to something.
    pub(super) fn poll_first<B: Backend>(
        &mut self,
        context: &mut Context<'_>,
        shared: &Shared<B>,
        consistency: Consistency,
    ) -> Poll<Option<(Outcome, Slot)>> {
        let Some(first) = self.slots.front_mut() else { return Poll::Ready(None) };
        let outcome = match &mut first.wait {
            Wait::Done(encoded) => Outcome::Encoded(std::mem::take(encoded)),
            Wait::Write(reply) => match Pin::new(reply).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(carried)) => Outcome::Carried(carried),
                Poll::Ready(Err(error)) => Outcome::Failed(error, 1),
            },
            Wait::LoggedRead(reply) => match Pin::new(reply).poll(context) {
                Poll::Pending => return Poll::Pending,
                // The one element of the transaction's array; an error comes without an array.
                Poll::Ready(Ok(carried)) if carried.starts_with(ARRAY_OF_ONE) => {
                    Outcome::Carried(carried.slice(ARRAY_OF_ONE.len()..))
                }
                Poll::Ready(Ok(carried)) => Outcome::Carried(carried),
                Poll::Ready(Err(error)) => Outcome::Failed(error, 1),
            },
            Wait::Execute(reply, commands) => match Pin::new(reply).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(carried)) => Outcome::Executed(carried, std::mem::take(commands)),
                Poll::Ready(Err(error)) => Outcome::Failed(error, 1),
            },
            Wait::Reads(answers, count) => match Pin::new(answers).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(answers) => match answers.unwrap_or(Err(ClientError::ShuttingDown)) {
                    Ok(Answers { encoded, left, .. }) if left.is_empty() => Outcome::Encoded(encoded),
                    Ok(Answers { encoded, left, .. }) => {
                        // What was answered leaves; the slot stays for the rest.
                        let answered = *count - left.len();
                        self.commands -= answered;
                        *count = left.len();
                        *answers_of(&mut first.wait) = start(shared, consistency, first.protocol, left);
                        let done = Slot {
                            wait: Wait::Done(BytesMut::new()),
                            protocol: first.protocol,
                            silent: false,
                            bytes: 0,
                        };
                        return Poll::Ready(Some((Outcome::Encoded(encoded), done)));
                    }
                    Err(error) => Outcome::Failed(error, *count),
                },
            },
            Wait::Watch(indexes, keys) => match Pin::new(indexes).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Ok(indexes))) => Outcome::Watched(std::mem::take(keys), indexes),
                Poll::Ready(Ok(Err(error))) => Outcome::WatchFailed(error),
                Poll::Ready(Err(_)) => Outcome::WatchFailed(ClientError::ShuttingDown),
            },
            Wait::Later(reply) => match reply.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(reply) => Outcome::Reply(reply),
            },
        };
        let Some(slot) = self.slots.pop_front() else { return Poll::Ready(None) };
        self.commands -= slot.commands();
        self.bytes -= slot.bytes;
        self.reads -= usize::from(slot.reads());
        self.writes -= usize::from(slot.writes());
        Poll::Ready(Some((outcome, slot)))
    }
}

impl Slot {
    const fn commands(&self) -> usize {
        match &self.wait {
            Wait::Done(_) => 0,
            Wait::Reads(_, count) => *count,
            Wait::Write(_) | Wait::LoggedRead(_) | Wait::Execute(..) | Wait::Watch(..) | Wait::Later(_) => 1,
        }
    }

    const fn reads(&self) -> bool {
        matches!(self.wait, Wait::Reads(..) | Wait::Watch(..))
    }

    const fn writes(&self) -> bool {
        matches!(self.wait, Wait::Write(_) | Wait::LoggedRead(_) | Wait::Execute(..))
    }
}

/// What a request takes while it waits, in bytes: each word by itself costs something, however short.
pub(super) fn cost(args: &[Bytes]) -> usize {
    args.iter().map(|word| word.len() + size_of::<Bytes>()).sum()
}

fn answers_of(wait: &mut Wait) -> &mut oneshot::Receiver<Result<Answers, ClientError>> {
    match wait {
        Wait::Reads(answers, _) => answers,
        Wait::Done(_)
        | Wait::Write(_)
        | Wait::LoggedRead(_)
        | Wait::Execute(..)
        | Wait::Watch(..)
        | Wait::Later(_) => {
            unreachable!("only asked for a slot of reads")
        }
    }
}

fn start<B: Backend>(
    shared: &Shared<B>,
    consistency: Consistency,
    protocol: Protocol,
    commands: Vec<Vec<Bytes>>,
) -> oneshot::Receiver<Result<Answers, ClientError>> {
    let (sender, receiver) = oneshot::channel();
    let (clients, limit) = (Arc::clone(&shared.clients), shared.options.buffers_bytes_max);
    let backend = shared.backend.clone();
    let run = move |kv: Result<&Kv, ClientError>| {
        // The client may have gone.
        let _ = sender.send(kv.map(|kv| answer(kv, || backend.time(), protocol, commands, clients, limit)));
    };
    shared.backend.read(consistency, Box::new(run));
    receiver
}

/// Runs reads. All clients may ask for large values at one moment, and all of them are answered before the first of them
/// can take anything: what does not fit into the memory of all large buffers is refused before it is encoded.
fn answer(
    kv: &Kv,
    clock: impl Fn() -> Timestamp,
    protocol: Protocol,
    mut commands: Vec<Vec<Bytes>>,
    clients: Arc<Clients>,
    bytes_max: usize,
) -> Answers {
    let mut encoded = BytesMut::new();
    let mut allowance = Allowance::new(clients);
    for at in 0..commands.len() {
        let reply = kv.query_at(&commands[at], &clock);
        let bytes = encoded.len() + reply.size_bytes();
        if bytes < ANSWERS_FREE_BYTES || allowance.resize(bytes, bytes_max) {
            reply.encode(protocol, &mut encoded);
        } else {
            NO_ROOM.encode(protocol, &mut encoded);
        }
        if encoded.len() >= ANSWERS_BYTES_MAX {
            return Answers { encoded, _allowance: allowance, left: commands.split_off(at + 1) };
        }
    }
    Answers { encoded, _allowance: allowance, left: Vec::new() }
}

const NO_ROOM: Reply = Reply::error("BUSY too many large replies are under way, try again");

/// What the answers of one connection may take without being counted.
const ANSWERS_FREE_BYTES: usize = 64 << 10;

const ARRAY_OF_ONE: &[u8] = b"*1\r\n";

/// Past this the rest of a run of reads waits until the replies so far have been sent.
const ANSWERS_BYTES_MAX: usize = 1 << 20;
