//! A durable replicated node: the runtime that ties the core, the log and the wire together, and the key-value store
//! built on it.
//!
//! [`Node`] runs on tokio, real files and sockets. Its parts that decide run on anything: [`replica::Replica`],
//! [`machine::Machine`], [`data_dir::DataDir`], [`opened::Opened`] and [`snapshot_store::SnapshotStore`] are what the
//! simulation of whole nodes is made of, over `raft_wal`'s simulated disk.

mod allocator;
mod applier;
mod arrivals;
mod budget;
pub mod cli;
pub mod config;
mod counts;
pub mod data_dir;
mod driver;
pub mod error;
mod founding;
pub mod http;
mod inspection;
pub mod kv;
mod leader_time;
pub mod machine;
pub mod metrics;
mod node;
pub mod opened;
mod reads;
pub mod replica;
pub mod resp;
mod scrub_watch;
mod service;
pub mod snapshot_store;
mod snapshot_transfer;
pub mod state_machine;
pub mod status;
mod store;

pub use applier::ReadFn;
pub use counts::Totals;
pub use inspection::Inspection;
pub use node::{Ended, Node, NodeConfig, Started};
