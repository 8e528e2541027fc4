//! A durable replicated node: the runtime that ties the core, the log and the wire together, and the key-value store
//! built on it.

mod applier;
pub mod cli;
pub mod config;
mod counts;
mod data_dir;
mod driver;
pub mod error;
mod founding;
pub mod http;
mod inspection;
pub mod kv;
pub mod metrics;
mod node;
pub mod replica;
pub mod resp;
mod service;
mod snapshot_store;
mod snapshot_transfer;
pub mod state_machine;
pub mod status;
mod store;

pub use applier::ReadFn;
pub use counts::Totals;
pub use inspection::Inspection;
pub use node::{Ended, Node, NodeConfig, Started};
