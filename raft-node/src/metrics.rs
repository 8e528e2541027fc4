//! What a node counts and measures, for Prometheus. The runtime holds the handles and increments them where it
//! happens; gauges that repeat the [`Status`] are set from it when somebody asks.
//!
//! All names begin with `raft_node_` and end in their unit; counters end in `_total`.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::status::{Role, Status};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All of a node's metrics. The handles are shared: cloning one counts into the same place.
pub struct Metrics {
    registry: Registry,
    /// Commands of clients that were answered, whatever the answer.
    pub commands: Counter,
    /// Commands that were answered with an error.
    pub command_errors: Counter,
    /// Connections of clients that were accepted.
    pub connections: Counter,
    /// Connections of clients that are open.
    pub connections_open: Gauge,
    /// Commands that this node put into its log as leader.
    pub proposals: Counter,
    /// Commands that were refused because too much was waiting.
    pub proposals_refused: Counter,
    /// Commands that went to the leader on behalf of a client of this node.
    pub forwards: Counter,
    /// Linearizable reads that were served here.
    pub reads: Counter,
    /// Entries that were applied.
    pub entries_applied: Counter,
    /// Syncs of the log.
    pub fsyncs: Counter,
    /// Bytes that were written to the log.
    pub log_bytes_written: Counter,
    /// Elections that this node started.
    pub elections: Counter,
    /// Changes of the leader that this node noticed.
    pub leader_changes: Counter,
    /// Snapshots that were taken here.
    pub snapshots: Counter,
    /// Snapshots that were received from a leader.
    pub snapshots_received: Counter,
    /// How long a sync of the log took.
    pub fsync_duration: Seconds,
    /// From a proposal to its commit, at the leader.
    pub commit_duration: Seconds,
    /// How long a batch took to apply.
    pub apply_duration: Seconds,
    from_status: FromStatus,
}

/// A distribution of durations, in seconds.
#[derive(Clone, Debug)]
pub struct Seconds(Histogram);

impl Seconds {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    fn new() -> Seconds {
        // 50 µs (a fast disk's sync, a commit on one machine) to 13 s, in factors of two.
        Seconds(Histogram::new(exponential_buckets(50e-6, 2.0, 19)))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All zero.
    #[must_use]
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("raft_node");
        let r = &mut registry;
        Metrics {
            commands: counter(r, "commands", "Commands of clients answered"),
            command_errors: counter(r, "command_errors", "Commands of clients answered with an error"),
            connections: counter(r, "connections", "Connections of clients accepted"),
            connections_open: gauge(r, "connections_open", "Connections of clients open"),
            proposals: counter(r, "proposals", "Commands put into the log by this node as leader"),
            proposals_refused: counter(
                r,
                "proposals_refused",
                "Commands refused because too much was waiting",
            ),
            forwards: counter(r, "forwards", "Commands sent to the leader for clients of this node"),
            reads: counter(r, "reads", "Linearizable reads served by this node"),
            entries_applied: counter(r, "entries_applied", "Entries applied to the state machine"),
            fsyncs: counter(r, "fsyncs", "Syncs of the log"),
            log_bytes_written: counter(r, "log_written_bytes", "Bytes written to the log"),
            elections: counter(r, "elections", "Elections this node started"),
            leader_changes: counter(r, "leader_changes", "Changes of the leader this node noticed"),
            snapshots: counter(r, "snapshots", "Snapshots taken by this node"),
            snapshots_received: counter(r, "snapshots_received", "Snapshots received from a leader"),
            fsync_duration: seconds(r, "fsync_duration", "How long a sync of the log took"),
            commit_duration: seconds(r, "commit_duration", "From a proposal to its commit, at the leader"),
            apply_duration: seconds(r, "apply_duration", "How long a batch took to apply"),
            from_status: FromStatus::new(r),
            registry,
        }
    }

    /// Everything as text, with the gauges that repeat `status` set from it.
    #[must_use]
    pub fn encode(&self, status: &Status) -> String {
        self.from_status.set(status);
        let mut text = String::new();
        // Writing into a `String` does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// Gauges that repeat the status.
struct FromStatus {
    role: Family<RoleLabel, Gauge>,
    term: Gauge,
    commit: Gauge,
    applied: Gauge,
    first: Gauge,
    last: Gauge,
    snapshot: Gauge,
    ready: Gauge,
    has_leader: Gauge,
    leader: Gauge,
    uptime: Gauge,
    start_number: Gauge,
    members: Gauge,
    peers_connected: Gauge,
    peer_connected: Family<PeerLabel, Gauge>,
    peer_lag: Family<PeerLabel, Gauge>,
    keys: Gauge,
    memory: Gauge,
    segments: Gauge,
    log: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer: u64,
}

impl FromStatus {
    fn new(r: &mut Registry) -> FromStatus {
        let role = Family::default();
        r.register("role", "1 for the role this node has, 0 for the others", role.clone());
        let peer_connected = Family::default();
        r.register("peer_connected", "Whether there is a connection to a peer", peer_connected.clone());
        let peer_lag = Family::default();
        r.register("peer_lag_entries", "Entries a peer is known to lack, at the leader", peer_lag.clone());
        FromStatus {
            role,
            term: gauge(r, "term", "Current term"),
            commit: gauge(r, "commit_index", "Last index known to be committed"),
            applied: gauge(r, "applied_index", "Last index applied"),
            first: gauge(r, "first_index", "First index of the log"),
            last: gauge(r, "last_index", "Last index of the log"),
            snapshot: gauge(r, "snapshot_index", "Last index in the newest snapshot"),
            ready: gauge(r, "ready", "Whether this node serves"),
            has_leader: gauge(r, "has_leader", "Whether this node knows a leader"),
            leader: gauge(r, "leader_id", "The leader's id, 0 while none is known"),
            uptime: gauge_with(r, "uptime", "Since the start", Unit::Seconds),
            start_number: gauge(r, "start_number", "How often the data directory has been opened"),
            members: gauge(r, "members", "Members in the configuration in force"),
            peers_connected: gauge(r, "peers_connected", "Other members there is a connection to"),
            peer_connected,
            peer_lag,
            keys: gauge(r, "keys", "Keys in the store"),
            memory: gauge_with(r, "memory", "Memory the store uses", Unit::Bytes),
            segments: gauge(r, "log_segments", "Files of the log"),
            log: gauge_with(r, "log_size", "Size of the log's files", Unit::Bytes),
        }
    }

    fn set(&self, status: &Status) {
        for role in [Role::Leader, Role::Follower, Role::Candidate, Role::Learner] {
            self.role.get_or_create(&RoleLabel { role: role.name() }).set(i64::from(role == status.role));
        }
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.term, status.term.0);
        set(&self.commit, status.commit.0);
        set(&self.applied, status.applied.0);
        set(&self.first, status.first_index.0);
        set(&self.last, status.last_index.0);
        set(&self.snapshot, status.snapshot_index.0);
        set(&self.ready, u64::from(status.ready));
        set(&self.has_leader, u64::from(status.leader.is_some()));
        set(&self.leader, status.leader.map_or(0, |leader| leader.0));
        set(&self.uptime, status.uptime_s);
        set(&self.start_number, status.start_number.0);
        set(&self.members, status.members.len() as u64);
        set(&self.keys, status.keys.unwrap_or(0));
        set(&self.memory, status.memory_bytes.unwrap_or(0));
        set(&self.segments, status.segments.unwrap_or(0));
        set(&self.log, status.log_bytes.unwrap_or(0));
        // A member that was removed, or a lag that only the former leader knew, must not be shown for ever.
        self.peer_connected.clear();
        self.peer_lag.clear();
        let mut connected = 0;
        for peer in status.members.iter().filter(|member| member.id != status.id) {
            connected += u64::from(peer.connected);
            let label = PeerLabel { peer: peer.id.0 };
            set(&self.peer_connected.get_or_create(&label), u64::from(peer.connected));
            if let Some(lag) = peer.lag {
                set(&self.peer_lag.get_or_create(&label), lag);
            }
        }
        set(&self.peers_connected, connected);
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn gauge_with(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> Gauge {
    let gauge = Gauge::default();
    registry.register_with_unit(name, help, unit, gauge.clone());
    gauge
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let seconds = Seconds::new();
    registry.register_with_unit(name, help, Unit::Seconds, seconds.0.clone());
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::sample;

    #[test]
    fn text_has_counters_gauges_and_histograms() {
        let metrics = Metrics::new();
        metrics.commands.inc();
        metrics.fsync_duration.observe(Duration::from_micros(300));
        let text = metrics.encode(&sample());
        for line in [
            "raft_node_commands_total 1",
            "raft_node_term 3",
            "raft_node_commit_index 120",
            "raft_node_role{role=\"leader\"} 1",
            "raft_node_role{role=\"follower\"} 0",
            "raft_node_peers_connected 1",
            "raft_node_peer_lag_entries{peer=\"3\"} 20",
            "raft_node_fsync_duration_seconds_count 1",
            "raft_node_uptime_seconds 61",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_no_longer_known_is_no_longer_shown() {
        let metrics = Metrics::new();
        let mut status = sample();
        assert!(metrics.encode(&status).contains("raft_node_peer_lag_entries{peer=\"2\"}"));
        status.members.retain(|member| member.id != raft_core::NodeId(2));
        assert!(!metrics.encode(&status).contains("{peer=\"2\"}"));
    }
}
