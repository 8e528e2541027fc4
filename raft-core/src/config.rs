//! What a core is started with: its settings, and what its disk remembered.

use crate::{
    ConfState, Entry, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta, StartNumber, TermRun,
};

/// Settings of one node. All times are milliseconds, all sizes bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Its data directory. If the configuration names another one for this id, the node has no vote to give (SAFETY D2).
    pub incarnation: Incarnation,
    /// This run of its data directory.
    pub start: StartNumber,
    /// Feeds every random choice. Two nodes of a cluster should not share it.
    pub seed: u64,
    /// How much this node is wanted as the leader, 0 to [`PRIORITY_MAX`]: for each step below, it waits one longest
    /// election timeout more before it looks for a new leader. A wish: a node that is needed leads whatever its priority.
    pub priority: u8,
    /// A leader is heard from at least this often.
    pub heartbeat_ms: u64,
    /// A follower waits at least this long before it looks for a new leader.
    pub election_timeout_min_ms: u64,
    /// And at most this long; the wait is drawn anew each time (dissertation 9.3).
    pub election_timeout_max_ms: u64,
    /// A follower that saw its leader's process die waits at most this long (SAFETY E8).
    pub suspicion_delay_max_ms: u64,
    /// A commit that no append carries to the followers is told them after this long.
    pub commit_notice_delay_ms: u64,
    /// A new leader with nothing to send waits this long for something before it tells its voters that it leads. Not
    /// longer than a heartbeat.
    pub greeting_delay_ms: u64,
    /// Payload bytes of one append; a single larger entry still goes alone.
    pub append_bytes_max: usize,
    /// Appends in flight to one peer.
    pub inflight_messages_max: usize,
    /// Bytes in flight to one peer.
    pub inflight_bytes_max: usize,
    /// Recent entries kept in memory for whoever still needs them: a follower, the state machine.
    pub tail_bytes_max: usize,
    /// Recent entries kept in memory when nobody does.
    pub tail_bytes_idle_max: usize,
    /// Proposals beyond this many uncommitted bytes are refused as busy.
    pub uncommitted_bytes_max: usize,
    /// Bytes of committed entries handed out at once.
    pub apply_bytes_max: usize,
    /// Bytes of committed entries handed out and not yet reported applied.
    pub unapplied_bytes_max: usize,
    /// Entries kept behind a snapshot for followers that are only a little late.
    pub trailing_entries: u64,
    /// A snapshot transfer without an answer and without
    /// [progress](crate::Input::SnapshotProgress) is given up after this long.
    pub snapshot_timeout_ms: u64,
    /// A write that takes longer than this makes a leader hand over and keeps others from campaigning (SAFETY V5). So do
    /// entries that have to be applied and could not be read back for as long, while another node can lead.
    pub disk_stall_ms: u64,
}

impl Config {
    /// The product's defaults.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> Config {
        Config {
            id,
            incarnation: Incarnation::UNKNOWN,
            start: StartNumber(1),
            seed,
            priority: PRIORITY_MAX,
            heartbeat_ms: 100,
            election_timeout_min_ms: 500,
            election_timeout_max_ms: 1000,
            suspicion_delay_max_ms: 50,
            commit_notice_delay_ms: 2,
            greeting_delay_ms: 0,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 64,
            inflight_bytes_max: 8 << 20,
            tail_bytes_max: 8 << 20,
            tail_bytes_idle_max: 256 << 10,
            uncommitted_bytes_max: 64 << 20,
            apply_bytes_max: 1 << 20,
            unapplied_bytes_max: 8 << 20,
            trailing_entries: 1024,
            snapshot_timeout_ms: 60_000,
            disk_stall_ms: 2000,
        }
    }

    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == NodeId(0) {
            return Err(ConfigError::ZeroId);
        }
        if self.heartbeat_ms == 0 || self.election_timeout_min_ms < self.heartbeat_ms.saturating_mul(2) {
            return Err(ConfigError::TimeoutTooShort);
        }
        if self.election_timeout_max_ms <= self.election_timeout_min_ms {
            return Err(ConfigError::TimeoutRangeEmpty);
        }
        if self.priority > PRIORITY_MAX {
            return Err(ConfigError::PriorityTooHigh);
        }
        let sizes = [
            self.append_bytes_max,
            self.inflight_messages_max,
            self.inflight_bytes_max,
            self.uncommitted_bytes_max,
            self.apply_bytes_max,
            self.unapplied_bytes_max,
        ];
        if sizes.contains(&0) {
            return Err(ConfigError::ZeroLimit);
        }
        Ok(())
    }
}

/// The priority of a node that nothing speaks against as a leader.
pub const PRIORITY_MAX: u8 = 3;

/// Why a [`Config`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The node's id is zero.
    ZeroId,
    /// The election timeout is less than two heartbeats.
    TimeoutTooShort,
    /// The upper end of the election timeout is not above the lower.
    TimeoutRangeEmpty,
    /// The priority is above [`PRIORITY_MAX`].
    PriorityTooHigh,
    /// A limit of zero would let nothing through.
    ZeroLimit,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ConfigError::ZeroId => "node id 0 is not valid: ids start at 1",
            ConfigError::TimeoutTooShort => "the election timeout must be at least two heartbeats",
            ConfigError::TimeoutRangeEmpty => "the longest election timeout must be above the shortest",
            ConfigError::PriorityTooHigh => "the highest election priority is 3",
            ConfigError::ZeroLimit => "a limit of zero would let nothing through",
        })
    }
}

impl std::error::Error for ConfigError {}

/// What the disk remembered. A fresh node has the founding configuration and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// Term, vote and the commit hint.
    pub hard_state: HardState,
    /// The newest marked snapshot; before the first one, index 0 with the founding configuration.
    pub snapshot: SnapshotMeta,
    /// The entry before the first one kept. At or before `snapshot.last`: entries may trail behind a snapshot.
    pub log_start: LogId,
    /// The last entry, `log_start` if there is none.
    pub last: LogIndex,
    /// The terms of `log_start.index + 1 ..= last`.
    pub term_runs: Vec<TermRun>,
    /// Every configuration entry of the log that is still in it, in order.
    pub confs: Vec<(LogId, ConfState)>,
    /// The most recent entries, ending at `last`; the rest is fetched when needed. The last entry must be among them
    /// unless the snapshot ends with it: replicated time goes on from there.
    pub tail: Vec<Entry>,
    /// The last entry this node had acknowledged, if the disk lost some of them: `last` then is the one before the
    /// first hole (SAFETY D1).
    pub promised: Option<LogId>,
    /// The file of `snapshot` cannot be read: the state machine starts empty and needs a leader's. What `snapshot` says
    /// of itself is from its mark in the log (SAFETY D1).
    pub snapshot_lost: bool,
}

impl Recovered {
    /// A node that starts for the first time: as one of these founders, or as one that joins the cluster they founded.
    /// Later configurations reach it with the log, and must not be given here: they were not in force at its beginning.
    #[must_use]
    pub fn fresh(conf: ConfState) -> Recovered {
        Recovered { snapshot: SnapshotMeta { conf, ..SnapshotMeta::default() }, ..Recovered::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_are_refused_with_a_word_of_their_own() {
        let told = |change: fn(&mut Config)| {
            let mut config = Config::new(NodeId(1), 1);
            change(&mut config);
            config.validate().map_err(|error| error.to_string())
        };
        assert_eq!(told(|_| ()), Ok(()));
        assert_eq!(told(|c| c.election_timeout_min_ms = 2 * c.heartbeat_ms), Ok(()));
        let refused: Vec<String> = [
            told(|c| c.id = NodeId(0)),
            told(|c| c.heartbeat_ms = 0),
            told(|c| c.election_timeout_min_ms = 2 * c.heartbeat_ms - 1),
            told(|c| c.election_timeout_max_ms = c.election_timeout_min_ms),
            told(|c| c.priority = PRIORITY_MAX + 1),
            told(|c| c.inflight_bytes_max = 0),
        ]
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
        let words = ["id", "two heartbeats", "two heartbeats", "longest", "priority", "zero"];
        assert!(refused.iter().zip(words).all(|(text, word)| text.contains(word)), "{refused:?}");
    }
}
