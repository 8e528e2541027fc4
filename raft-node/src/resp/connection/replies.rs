//! From what the pipeline comes to, to the bytes a client gets.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::Connection;
use crate::{
    error::ClientError,
    kv::{
        Protocol, Reply,
        reply::{transcode_to_resp2, transcode_to_resp3},
    },
    resp::{
        backend::Backend,
        failure::failure,
        pipeline::{Outcome, Slot},
        transaction,
    },
};

impl<S, B: Backend> Connection<S, B> {
    /// Sends off the reads gathered so far.
    pub(super) fn start_reads(&mut self) {
        self.pipeline.start_reads(&self.shared, self.session.reads(), self.session.protocol);
    }

    /// Puts a reply behind those that are still to come.
    pub(super) fn reply(&mut self, reply: &Reply) {
        if reply.is_error() {
            self.shared.clients.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.start_reads();
        if self.pipeline.is_empty() {
            reply.encode(self.session.protocol, &mut self.output);
        } else {
            self.pipeline.push_reply(reply, self.session.protocol);
        }
    }

    /// Moves replies that are ready to the output, in order. Whether there was any.
    pub(super) fn poll_replies(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while self.output.len() < self.shared.options.output_bytes_max {
            let consistency = self.session.reads();
            match self.pipeline.poll_first(context, &self.shared, consistency) {
                Poll::Pending | Poll::Ready(None) => break,
                Poll::Ready(Some((outcome, slot))) => {
                    any = true;
                    self.settle(outcome, &slot);
                }
            }
        }
        any
    }

    fn settle(&mut self, outcome: Outcome, slot: &Slot) {
        let reply = match outcome {
            Outcome::Encoded(encoded) => {
                if self.output.is_empty() {
                    self.output = encoded;
                } else {
                    self.output.extend_from_slice(&encoded);
                }
                return;
            }
            Outcome::Carried(_) if slot.silent => return,
            Outcome::Carried(carried) => return self.send_carried(&carried, slot.protocol),
            Outcome::Executed(carried, commands) => {
                if commands.iter().all(|command| command.stored) {
                    if !slot.silent {
                        self.send_carried(&carried, slot.protocol);
                    }
                    return;
                }
                self.complete(&carried, &commands)
            }
            Outcome::Watched(keys, indexes) => {
                let bytes_max = self.shared.options.requests.request_bytes_max;
                self.session.transaction.watch(keys, indexes.into_iter(), bytes_max)
            }
            Outcome::WatchFailed(error) => {
                self.session.transaction.watch_failed();
                self.failure(&error)
            }
            Outcome::Reply(reply) => reply,
            Outcome::Failed(error, count) => {
                let reply = self.failure(&error);
                for _ in 1..count {
                    reply.encode(slot.protocol, &mut self.output);
                }
                reply
            }
        };
        if !slot.silent {
            reply.encode(slot.protocol, &mut self.output);
        }
    }

    fn send_carried(&mut self, carried: &[u8], protocol: Protocol) {
        match protocol {
            Protocol::Resp3 => transcode_to_resp3(carried, &mut self.output),
            Protocol::Resp2 => {
                if transcode_to_resp2(carried, &mut self.output).is_err() {
                    MALFORMED.encode(protocol, &mut self.output);
                }
            }
        }
    }

    /// The reply to a transaction some of whose commands are answered here.
    fn complete(&mut self, carried: &Bytes, commands: &[transaction::Queued]) -> Reply {
        match Reply::decode(carried) {
            Ok(Reply::Array(stored)) => {
                let (session, shared) = (&mut self.session, &self.shared);
                transaction::merge(commands, stored, |args| session.answer(args, shared))
            }
            // Refused as a whole.
            Ok(reply) => reply,
            Err(_) => MALFORMED,
        }
    }

    fn failure(&self, error: &ClientError) -> Reply {
        self.shared.clients.counters.errors.fetch_add(1, Ordering::Relaxed);
        failure(error, &self.shared.backend)
    }
}

const MALFORMED: Reply = Reply::error("ERR the store answered something that is no reply");
