//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.
//!
//! Commands are gathered here and enter the log as one entry. What a watched key looked like is remembered as the
//! index of its last modification; the entry carries those, and every node compares them when it applies it. So a
//! transaction is right at whichever node its client is connected to.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::LogIndex;

use crate::kv::{Reply, request};

/// What one connection has gathered.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    queue: Option<Queue>,
    watched: BTreeMap<Bytes, LogIndex>,
    watched_bytes: usize,
    /// A `WATCH` failed. Its keys are not guarded, so the next `EXEC` must not run.
    unguarded: bool,
}

#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Queued>,
    bytes: usize,
    /// A command was refused while queueing.
    broken: bool,
}

/// One command between `MULTI` and `EXEC`.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) args: Vec<Bytes>,
    /// Answered by the store; others by the connection.
    pub(super) stored: bool,
}

/// What `EXEC` has to do.
#[derive(Debug)]
pub(super) enum Execution {
    /// Nothing: this is the answer.
    Refused(Reply),
    /// Only commands that the connection answers, and nothing to compare.
    Local(Vec<Queued>),
    /// One entry. The connection's own commands keep their places.
    Entry { payload: Bytes, commands: Vec<Queued> },
}

impl Transaction {
    /// Whether commands are queued instead of run.
    pub(super) const fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// How many commands are queued, if any are being queued.
    pub(super) fn queued(&self) -> Option<usize> {
        self.queue.as_ref().map(|queue| queue.commands.len())
    }

    pub(super) fn watched(&self) -> usize {
        self.watched.len()
    }

    /// The memory it holds.
    pub(super) fn bytes(&self) -> usize {
        self.watched_bytes + self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// `MULTI`
    pub(super) fn open(&mut self) -> Reply {
        if self.queue.is_some() {
            return Reply::error("ERR MULTI calls can not be nested");
        }
        self.queue = Some(Queue::default());
        Reply::OK
    }

    /// A command after `MULTI`. Copies it: what is queued may wait long, and must not hold a receive buffer.
    pub(super) fn push(&mut self, args: &[Bytes], stored: bool, bytes_max: usize) -> Reply {
        let Some(queue) = &mut self.queue else { return Reply::error("ERR no transaction") };
        let bytes: usize = args.iter().map(|arg| arg.len() + ARG_OVERHEAD_BYTES).sum();
        if queue.bytes + bytes > bytes_max || queue.commands.len() >= request::WORDS_MAX {
            queue.broken = true;
            return Reply::error_text(format!("ERR the transaction is larger than {bytes_max} bytes"));
        }
        // What is broken is never run, so it need not be kept.
        if !queue.broken {
            queue.bytes += bytes;
            let args = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
            queue.commands.push(Queued { args, stored });
        }
        Reply::QUEUED
    }

    /// A command was refused: `EXEC` will be, too.
    pub(super) fn refuse(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.broken = true;
            queue.commands = Vec::new();
        }
    }

    /// `EXEC`
    pub(super) fn execute(&mut self, bytes_max: usize) -> Execution {
        let Some(queue) = self.queue.take() else {
            return Execution::Refused(Reply::error("ERR EXEC without MULTI"));
        };
        let watched: Vec<_> = std::mem::take(&mut self.watched).into_iter().collect();
        let unguarded = self.unguarded;
        self.unwatch();
        if queue.broken {
            return Execution::Refused(Reply::error(
                "EXECABORT Transaction discarded because of previous errors.",
            ));
        }
        if unguarded {
            return Execution::Refused(Reply::error("EXECABORT Transaction discarded because WATCH failed."));
        }
        let stored: Vec<&[Bytes]> =
            queue.commands.iter().filter(|command| command.stored).map(|command| &command.args[..]).collect();
        if stored.is_empty() && watched.is_empty() {
            return Execution::Local(queue.commands);
        }
        let stored: Vec<Vec<&Bytes>> = stored.into_iter().map(|args| args.iter().collect()).collect();
        let payload = request::encode_exec(&watched, &stored);
        if payload.len() > bytes_max {
            return Execution::Refused(Reply::error_text(format!(
                "EXECABORT Transaction discarded because it is larger than {bytes_max} bytes."
            )));
        }
        Execution::Entry { payload, commands: queue.commands }
    }

    /// `DISCARD`
    pub(super) fn discard(&mut self) -> Reply {
        if self.queue.is_none() {
            return Reply::error("ERR DISCARD without MULTI");
        }
        *self = Transaction::default();
        Reply::OK
    }

    /// `UNWATCH`, and what a connection forgets when it is reset.
    pub(super) fn unwatch(&mut self) -> Reply {
        self.watched = BTreeMap::new();
        self.watched_bytes = 0;
        self.unguarded = false;
        Reply::OK
    }

    /// What `WATCH` has found out. A key that is watched already keeps its older index.
    pub(super) fn watch(
        &mut self,
        keys: Vec<Bytes>,
        indexes: impl Iterator<Item = LogIndex>,
        bytes_max: usize,
    ) -> Reply {
        for (key, index) in keys.into_iter().zip(indexes) {
            self.watched_bytes += key.len() + ARG_OVERHEAD_BYTES;
            if self.watched_bytes > bytes_max {
                self.unguarded = true;
                self.watched = BTreeMap::new();
                return Reply::error_text(format!("ERR the watched keys are larger than {bytes_max} bytes"));
            }
            self.watched.entry(key).or_insert(index);
        }
        Reply::OK
    }

    /// `WATCH` could not find out anything.
    pub(super) fn watch_failed(&mut self) {
        self.unguarded = true;
    }
}

/// Puts the connection's own replies between those of the store: one reply a command, in their order.
pub(super) fn merge(
    commands: &[Queued],
    stored: Vec<Reply>,
    mut local: impl FnMut(&[Bytes]) -> Reply,
) -> Reply {
    let mut stored = stored.into_iter();
    Reply::array(commands.iter().map(|command| {
        if command.stored { stored.next().unwrap_or(Reply::Null) } else { local(&command.args) }
    }))
}

/// What an argument costs beside its bytes, so that many small ones are bounded too.
const ARG_OVERHEAD_BYTES: usize = 16;
