//! The Raft consensus algorithm as a pure state machine: no clock, no disk, no socket, no thread.

mod conf_state;
mod config;
mod entry;
mod error;
mod input;
mod message;
mod raft;
mod ready;
mod types;

pub use conf_state::{
    ADDRESS_BYTES_MAX, CONF_STATE_BYTES_MAX, ConfError, ConfState, MEMBERS_MAX, Member, VOTERS_MAX,
};
pub use config::{Config, ConfigError, Recovered};
pub use entry::{
    ENTRY_OVERHEAD_BYTES, Entries, Entry, EntryKind, HardState, SessionSeq, SnapshotMeta, TermRun,
};
pub use error::{ProposeError, ReadError, StartError, StepError};
pub use input::{Input, Proposal, ReadToken};
pub use message::{AppendOutcome, Body, Message};
pub use raft::Raft;
pub use ready::{
    Apply, Event, Fetch, FetchId, HaltReason, ReadOutcome, Ready, RoleKind, SnapshotMark, Write,
};
pub use types::{
    CampaignId, ClusterId, Epoch, GroupId, Incarnation, Instant, LogId, LogIndex, NodeId, Now, Round,
    StartNumber, Term, Timestamp, WriteId,
};
