//! The client protocol: RESP2 and RESP3, so that whatever speaks to Redis speaks to a node.
//!
//! ```text
//! bytes -> parser -> session -> pipeline -> bytes
//!                       |          ^
//!                       v          |
//!                     backend (the node: log, store, status)
//! ```
//! One task a connection. What it knows about its client is the [`session`], what it waits for the [`pipeline`], and
//! the node lies behind one small trait, [`Backend`].

pub mod backend;
mod client_command;
mod clients;
mod config_command;
mod connection;
mod failure;
mod hello;
mod info;
mod inline;
pub mod memory;
mod options;
pub mod parser;
mod pipeline;
mod raft_command;
mod server;
mod session;
mod transaction;
mod unsupported;
mod waits;

use std::{net::SocketAddr, sync::Arc};

use self::clients::Clients;
pub use self::{
    backend::{Backend, Consistency, ReadRequest, ReplyFuture, ReplySender},
    clients::Counters,
    options::Options,
    parser::{Parser, ProtocolError, RequestLimits},
    server::FrontEnd,
};

/// What clients are told when they ask for the version of Redis: the one whose commands and replies ours are like.
pub const REDIS_VERSION: &str = "7.4.0";

/// What all connections of one front end have in common.
#[derive(Debug)]
struct Shared<B> {
    backend: B,
    options: Options,
    clients: Arc<Clients>,
    /// Where it listens.
    address: SocketAddr,
}

#[cfg(test)]
mod tests;
