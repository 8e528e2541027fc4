//! A durable replicated node: the runtime that ties the core, the log and the wire together, and the key-value store
//! built on it.

pub mod cli;
pub mod config;
pub mod error;
pub mod http;
pub mod kv;
pub mod metrics;
pub mod resp;
pub mod state_machine;
pub mod status;
