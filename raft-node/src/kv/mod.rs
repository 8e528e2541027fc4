//! The built-in state machine: a durable, replicated key-value store that speaks Redis.

pub mod glob;
pub mod reply;
pub mod request;
pub mod table;
pub(crate) mod varint;

pub use self::{
    reply::{Protocol, Reply},
    request::Request,
    table::{Class, Verb, classify},
};
