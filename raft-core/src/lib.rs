//! The Raft consensus algorithm as a pure state machine: no clock, no disk, no socket, no thread.
//!
//! [`Raft`] takes inputs and hands out [`Ready`]; its documentation tells how to drive it. To read the code, follow
//! the modules in the order below: what is talked about, the queues and tables, the roles, the dispatcher.
//! `examples/embed.rs` drives three of them in 60 lines; the scripts in `tests/scenarios` tell message by message what they
//! do. The names of rules, as in "SAFETY E3", are those of `docs/RULES.md`.
//!
//! | what | where it is decided | told by |
//! |---|---|---|
//! | elections: pre-vote, random timeouts, loyalty to a leader that lives, check-quorum | `candidate`, `follower`, `step`, `leader` | `an_election_and_its_noop`, `a_split_vote_is_settled_by_the_next_timeouts`, `a_node_that_returns_disturbs_nobody` |
//! | election priority that decays | `priority` | `tests/it/priority.rs` |
//! | a no-op only where something is uncommitted; no commit by counting old entries | `leader` | `figure_8_an_old_entry_is_not_committed_by_counting` |
//! | the conflict search, by terms on both sides | `term_runs` | `the_conflict_search_skips_whole_terms` |
//! | probe, replicate, snapshot; a window in messages and bytes; batches that grow under load | `progress`, `replication` | `entries_are_pipelined_up_to_a_window` |
//! | many writes in flight; messages that wait for theirs; commit by others before the own disk | `durability`, `ready` | `a_slow_disk_does_not_delay_a_quorum_of_others`, `a_follower_acknowledges_after_its_disk` |
//! | work for the state machine in pages bounded by bytes | `apply_queue` | `pages_keep_to_their_bytes_and_stop_at_a_slow_state_machine` |
//! | a bound on uncommitted bytes | `leader` | `too_much_that_is_not_committed_is_refused_as_busy` |
//! | linearizable reads everywhere, many in one round | `read_index` | `a_read_needs_a_round_that_began_after_it`, `a_learner_reads_through_its_leader` |
//! | reads by the clock, if all agreed on it | `lease` | `leases_nobody_votes_before_their_time_is_over` |
//! | leadership handed over, with a deadline | `transfer` | `a_transfer_and_one_that_is_given_up` |
//! | any set of members to any other; learners that catch up first; a leader that hands over before it goes | `change`, `reconfigure`, `catch_up`, `membership` | `joint_consensus_from_any_set_to_any_set`, `a_learner_is_promoted_once_it_has_caught_up`, `a_leader_that_is_removed_hands_over_first` |
//! | a removed node is told | `step` | `a_removed_node_that_missed_it_is_told` |
//! | snapshots for whoever is behind the log; the log kept for whoever is close | `replication`, `shared` | `a_follower_behind_the_log_gets_a_snapshot` |
//! | a disk that hangs | `disk_stall` | `a_leader_whose_disk_hangs_gives_up_leading` |
//! | a disk that was wiped | `shared`, `replication` | `a_wiped_node_gives_no_vote`, `a_wiped_node_is_not_taken_for_the_voter_it_was` |
//! | a log that lost its end | `recovering` | `a_damaged_log_votes_by_its_promise_and_is_refilled` |
//! | nothing to do costs nothing: the core says when it wants to be woken | `raft` | [`Raft::next_deadline`] |

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
pub use lease::{DRIFT_PPM_MAX, LEASE_TIMEOUT_MS_MAX, Lease};
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
