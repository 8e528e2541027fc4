//! The Raft consensus algorithm as a pure state machine: no clock, no disk, no socket, no thread.
//!
//! [`Raft`] takes inputs and hands out [`Ready`]; its documentation tells how to drive it. To read the code, follow
//! the modules in the order below: what is talked about, the queues and tables, the roles, the dispatcher.

#[macro_use]
mod planted;

mod types;

mod conf_state;
mod config;
mod entry;
mod error;
mod input;
mod message;
mod ready;

mod rng;

mod apply_queue;
mod catch_up;
mod change;
mod durability;
mod fetching;
mod log;
mod membership;
mod progress;
mod quorum;
mod read_index;
mod tail;
mod term_runs;
mod validate;

mod candidate;
mod disk_stall;
mod follower;
mod leader;
mod lease;
mod priority;
mod reconfigure;
mod recovering;
mod replication;
mod shared;
mod transfer;

mod invariants;
mod raft;
mod step;
mod transition;
mod view;

#[cfg(feature = "model")]
pub mod model;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
mod test_util;

pub use change::ConfChange;
pub use conf_state::{
    ADDRESS_BYTES_MAX, CONF_STATE_BYTES_MAX, ConfError, ConfState, MEMBERS_MAX, Member, VOTERS_MAX,
};
pub use config::{Config, ConfigError, PRIORITY_MAX, Recovered};
pub use entry::{
    ENTRY_OVERHEAD_BYTES, Entries, Entry, EntryKind, HardState, SessionSeq, SnapshotMeta, TermRun,
};
pub use error::{ChangeError, ProposeError, ReadError, StartError, StepError, TransferError};
pub use input::{Input, Proposal, ReadToken};
pub use lease::{DRIFT_PPM_MAX, Lease};
pub use message::{AppendOutcome, Body, Message};
#[cfg(raft_planted)]
pub use planted::{Mistake, plant, unplant};
pub use progress::PeerStatus;
pub use raft::Raft;
pub use ready::{
    Apply, Event, Fetch, FetchId, HaltReason, ReadOutcome, Ready, RoleKind, SnapshotMark, TransferOutcome,
    Write,
};
pub use types::{
    CampaignId, ClusterId, Epoch, GroupId, Incarnation, Instant, LogId, LogIndex, NodeId, Now, Round,
    StartNumber, Term, Timestamp, WriteId,
};
