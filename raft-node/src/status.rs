//! What a node tells about itself: `/status`, `RAFT.STATUS` and the `status` command all show this.

use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, StartNumber, Term};
use serde::{Deserialize, Serialize};

/// One node's view of itself and its cluster, as of one moment.
///
/// The names of the fields are part of the product. Ids wider than a JSON number can be are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's random id, 32 hexadecimal digits.
    #[serde(with = "cluster_text")]
    pub cluster_id: ClusterId,
    /// This node.
    pub id: NodeId,
    /// What it is at the moment.
    pub role: Role,
    /// Whom it follows, itself if it leads; `None` while there is no leader it knows of.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// The last index it knows to be committed.
    pub commit: LogIndex,
    /// The last index its state machine contains.
    pub applied: LogIndex,
    /// The first entry of its log.
    pub first_index: LogIndex,
    /// The last entry of its log.
    pub last_index: LogIndex,
    /// The last index in its newest snapshot, 0 if it has none.
    pub snapshot_index: LogIndex,
    /// Whether it serves: it knows a leader and has caught up.
    pub ready: bool,
    /// Why it does not serve, for people. `None` if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_reason: Option<String>,
    /// Seconds since it was started.
    pub uptime_s: u64,
    /// Median time of a sync of the log, in microseconds, over the recent ones.
    pub fsync_p50_us: u64,
    /// Slow syncs: 99 of 100 took no longer.
    pub fsync_p99_us: u64,
    /// Everybody in the configuration in force, by id.
    pub members: Vec<MemberStatus>,
    /// The release.
    #[serde(default)]
    pub version: String,
    /// How often the data directory has been opened.
    #[serde(default)]
    pub start_number: StartNumber,
    /// The data directory's random id, 16 hexadecimal digits.
    #[serde(default, with = "incarnation_text")]
    pub incarnation: Incarnation,
    /// Keys in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Those of them that have a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiring: Option<u64>,
    /// Memory the store uses, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Past this much memory writes are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Files of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<u64>,
    /// Bytes of those files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// No space is left on its disk for the next file of the log.
    #[serde(default)]
    pub log_full: bool,
    /// What is wrong, one sentence each; empty when all is well.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It tries to become leader.
    Candidate,
    /// It follows and has no vote.
    Learner,
}

impl Role {
    /// The name in every output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        }
    }
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// It does.
    Voter,
    /// It does not.
    Learner,
}

impl MemberKind {
    /// The name in every output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MemberKind::Voter => "voter",
            MemberKind::Learner => "learner",
        }
    }
}

/// What a node knows of one member, itself included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Who.
    pub id: NodeId,
    /// Whether it votes.
    pub kind: MemberKind,
    /// Where clients reach it; empty while it has not said so.
    pub resp: String,
    /// Where operators reach it; empty while it has not said so.
    pub http: String,
    /// Where the other nodes reach it.
    pub peer: String,
    /// How far its log is known to match the leader's. Only a leader knows.
    pub matched: Option<LogIndex>,
    /// Entries of the leader's log it is known to lack. Only a leader knows.
    pub lag: Option<u64>,
    /// Whether there is a connection to it; always true for the node itself.
    pub connected: bool,
}

/// Where the HTTP endpoints get their answers. Asked for each request, so it must be cheap and must not block.
pub trait StatusSource: Send + Sync + 'static {
    /// The state as of now.
    fn status(&self) -> Status;

    /// What the node counts. Gauges that repeat the status are brought up to date by whoever writes them out.
    fn metrics(&self) -> &crate::metrics::Metrics;
}

mod cluster_text {
    use raft_core::ClusterId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &ClusterId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClusterId, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(ClusterId).map_err(D::Error::custom)
    }
}

mod incarnation_text {
    use raft_core::Incarnation;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &Incarnation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Incarnation, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Incarnation).map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A leader of three, for tests.
    pub(crate) fn sample() -> Status {
        let member = |id: u64, lag: u64, connected| MemberStatus {
            id: NodeId(id),
            kind: if id == 3 { MemberKind::Learner } else { MemberKind::Voter },
            resp: format!("127.0.0.1:74{}0", id - 1),
            http: format!("127.0.0.1:74{}1", id - 1),
            peer: format!("127.0.0.1:74{}2", id - 1),
            matched: Some(LogIndex(120 - lag)),
            lag: Some(lag),
            connected,
        };
        Status {
            cluster_id: ClusterId(0xabc),
            id: NodeId(1),
            role: Role::Leader,
            leader: Some(NodeId(1)),
            term: Term(3),
            commit: LogIndex(120),
            applied: LogIndex(119),
            first_index: LogIndex(1),
            last_index: LogIndex(120),
            snapshot_index: LogIndex(0),
            ready: true,
            not_ready_reason: None,
            uptime_s: 61,
            fsync_p50_us: 210,
            fsync_p99_us: 900,
            members: vec![member(1, 0, true), member(2, 0, true), member(3, 20, false)],
            version: "0.1.0".to_owned(),
            start_number: StartNumber(2),
            incarnation: Incarnation(u64::MAX),
            keys: Some(7),
            expiring: Some(2),
            memory_bytes: None,
            memory_bytes_max: None,
            segments: None,
            log_bytes: None,
            log_full: false,
            problems: vec!["n3 unreachable for 12 s".to_owned()],
        }
    }

    #[test]
    fn the_promised_fields_are_there() {
        let json = serde_json::to_value(sample()).unwrap();
        for field in [
            "cluster_id",
            "id",
            "role",
            "leader",
            "term",
            "commit",
            "applied",
            "first_index",
            "last_index",
            "snapshot_index",
            "ready",
            "uptime_s",
            "fsync_p50_us",
            "fsync_p99_us",
            "members",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        for field in ["id", "kind", "resp", "http", "peer", "matched", "lag", "connected"] {
            assert!(json["members"][0].get(field).is_some(), "{field}");
        }
        assert_eq!(json["role"], "leader");
        assert_eq!(json["members"][2]["kind"], "learner");
        assert_eq!(json["cluster_id"], "00000000000000000000000000000abc");
        assert_eq!(json["incarnation"], "ffffffffffffffff");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let json = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), sample());
    }
}
