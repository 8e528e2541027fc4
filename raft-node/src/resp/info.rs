//! `INFO` and `ROLE`: the node in the fields that tools for Redis read, and a section of our own.

use std::{fmt::Write as _, sync::atomic::Ordering};

use bytes::Bytes;

use super::{REDIS_VERSION, Shared, backend::Backend};
use crate::{
    kv::Reply,
    status::{MemberStatus, Role, Status},
};

/// `INFO [section…]`
pub(super) fn info<B: Backend>(args: &[Bytes], shared: &Shared<B>) -> Reply {
    let wanted: Vec<Vec<u8>> = args[1..].iter().map(|arg| arg.to_ascii_lowercase()).collect();
    let everything = wanted.is_empty()
        || wanted.iter().any(|w| matches!(w.as_slice(), b"all" | b"default" | b"everything"));
    let status = shared.backend.status();
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if everything || wanted.iter().any(|w| w == name.to_lowercase().as_bytes()) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str(&format!("# {name}\r\n"));
            for (field, value) in section(&Facts { status: &status, front: &front(shared) }) {
                write!(text, "{field}:{value}\r\n").expect("writing into a String does not fail");
            }
        }
    }
    Reply::Verbatim(*b"txt", Bytes::from(text))
}

/// `ROLE`, as Redis answers it.
pub(super) fn role<B: Backend>(shared: &Shared<B>) -> Reply {
    let status = shared.backend.status();
    let place = |member: Option<&MemberStatus>| {
        let address = member.map_or("", |member| member.resp.as_str());
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        (host.to_owned(), port.to_owned())
    };
    let offset = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
    if status.role == Role::Leader {
        let replicas = status.members.iter().filter(|member| member.id != status.id).map(|member| {
            let (host, port) = place(Some(member));
            Reply::Array(vec![Reply::bulk(host), Reply::bulk(port), Reply::bulk(matched(member).to_string())])
        });
        return Reply::Array(vec![
            Reply::bulk_static("master"),
            Reply::Integer(offset(status.commit.0)),
            Reply::Array(replicas.collect()),
        ]);
    }
    let (host, port) = place(leader(&status));
    Reply::Array(vec![
        Reply::bulk_static("slave"),
        Reply::bulk(host),
        Reply::Integer(port.parse().unwrap_or(0)),
        Reply::bulk_static(if status.leader.is_some() { "connected" } else { "connect" }),
        Reply::Integer(offset(status.applied.0)),
    ])
}

struct Facts<'a> {
    status: &'a Status,
    front: &'a Front,
}

/// What the front end counts itself.
struct Front {
    port: u16,
    clients: usize,
    clients_max: usize,
    connections: u64,
    rejected: u64,
    commands: u64,
    errors: u64,
    bytes_in: u64,
    bytes_out: u64,
}

fn front<B: Backend>(shared: &Shared<B>) -> Front {
    let counters = &shared.clients.counters;
    Front {
        port: shared.address.port(),
        clients: shared.clients.count(),
        clients_max: shared.options.clients_max,
        connections: counters.connections.load(Ordering::Relaxed),
        rejected: counters.connections_rejected.load(Ordering::Relaxed),
        commands: counters.commands.load(Ordering::Relaxed),
        errors: counters.errors.load(Ordering::Relaxed),
        bytes_in: counters.bytes_in.load(Ordering::Relaxed),
        bytes_out: counters.bytes_out.load(Ordering::Relaxed),
    }
}

type Fields = Vec<(String, String)>;
type Section = (&'static str, fn(&Facts<'_>) -> Fields);

const SECTIONS: [Section; 8] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Raft", raft),
    ("Keyspace", keyspace),
];

fn fields<const N: usize>(fields: [(&str, String); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn server(facts: &Facts<'_>) -> Fields {
    let uptime = facts.status.uptime_s;
    fields([
        ("redis_version", REDIS_VERSION.into()),
        ("redis_mode", "standalone".into()),
        ("server_name", "raft-node".into()),
        ("raft_node_version", env!("CARGO_PKG_VERSION").into()),
        ("os", std::env::consts::OS.into()),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", std::process::id().to_string()),
        ("run_id", run_id(facts.status)),
        ("tcp_port", facts.front.port.to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
    ])
}

fn clients(facts: &Facts<'_>) -> Fields {
    fields([
        ("connected_clients", facts.front.clients.to_string()),
        ("maxclients", facts.front.clients_max.to_string()),
        ("blocked_clients", "0".into()),
    ])
}

fn memory(facts: &Facts<'_>) -> Fields {
    let human = |bytes: u64| {
        #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
        let (bytes, mut unit, mut shown) = (bytes as f64, "B", bytes as f64);
        for (next, size) in
            [("K", 1_024.0), ("M", 1_048_576.0), ("G", 1_073_741_824.0), ("T", 1_099_511_627_776.0)]
        {
            if bytes >= size {
                (unit, shown) = (next, bytes / size);
            }
        }
        format!("{shown:.2}{unit}")
    };
    fields([
        ("used_memory", facts.status.memory_bytes.unwrap_or(0).to_string()),
        ("used_memory_human", human(facts.status.memory_bytes.unwrap_or(0))),
        ("maxmemory", facts.status.memory_bytes_max.unwrap_or(0).to_string()),
        ("maxmemory_human", human(facts.status.memory_bytes_max.unwrap_or(0))),
        ("maxmemory_policy", "noeviction".into()),
    ])
}

fn persistence(facts: &Facts<'_>) -> Fields {
    fields([
        ("loading", "0".into()),
        (
            "rdb_changes_since_last_save",
            facts.status.applied.0.saturating_sub(facts.status.snapshot_index.0).to_string(),
        ),
        ("aof_enabled", "1".into()),
        ("aof_last_write_status", if facts.status.log_full { "err" } else { "ok" }.into()),
        ("aof_current_size", facts.status.log_bytes.unwrap_or(0).to_string()),
        ("fsync_p50_us", facts.status.fsync_p50_us.to_string()),
        ("fsync_p99_us", facts.status.fsync_p99_us.to_string()),
    ])
}

fn stats(facts: &Facts<'_>) -> Fields {
    fields([
        ("total_connections_received", facts.front.connections.to_string()),
        ("total_commands_processed", facts.front.commands.to_string()),
        ("total_net_input_bytes", facts.front.bytes_in.to_string()),
        ("total_net_output_bytes", facts.front.bytes_out.to_string()),
        ("rejected_connections", facts.front.rejected.to_string()),
        ("total_error_replies", facts.front.errors.to_string()),
        ("evicted_keys", "0".into()),
    ])
}

fn replication(facts: &Facts<'_>) -> Fields {
    let status = facts.status;
    let leads = status.role == Role::Leader;
    let mut all = fields([("role", if leads { "master".into() } else { "slave".into() })]);
    if !leads {
        let address = leader(status).map_or("", |member| member.resp.as_str());
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        all.extend(fields([
            ("master_host", host.into()),
            ("master_port", port.into()),
            ("master_link_status", if status.leader.is_some() { "up".into() } else { "down".into() }),
            ("slave_repl_offset", status.applied.0.to_string()),
            // Any node takes any command: it passes writes on.
            ("slave_read_only", "0".into()),
        ]));
    }
    let others: Vec<&MemberStatus> = status.members.iter().filter(|member| member.id != status.id).collect();
    all.push((
        "connected_slaves".into(),
        others.iter().filter(|other| leads && other.connected).count().to_string(),
    ));
    if leads {
        for (at, member) in others.iter().enumerate() {
            let (host, port) = member.resp.rsplit_once(':').unwrap_or((&member.resp, "0"));
            all.push((
                format!("slave{at}"),
                format!(
                    "ip={host},port={port},state={},offset={},lag={}",
                    if member.connected { "online" } else { "offline" },
                    matched(member),
                    member.lag.unwrap_or(0)
                ),
            ));
        }
    }
    all.push(("master_replid".into(), run_id(status)));
    all.push(("master_repl_offset".into(), status.commit.0.to_string()));
    all
}

fn raft(facts: &Facts<'_>) -> Fields {
    let status = facts.status;
    let mut all = fields([
        ("raft_cluster_id", status.cluster_id.to_string()),
        ("raft_node_id", status.id.0.to_string()),
        ("raft_role", status.role.name().into()),
        ("raft_leader", status.leader.map_or(0, |leader| leader.0).to_string()),
        ("raft_term", status.term.0.to_string()),
        ("raft_commit", status.commit.0.to_string()),
        ("raft_applied", status.applied.0.to_string()),
        ("raft_first_index", status.first_index.0.to_string()),
        ("raft_last_index", status.last_index.0.to_string()),
        ("raft_snapshot_index", status.snapshot_index.0.to_string()),
        ("raft_ready", u8::from(status.ready).to_string()),
        ("raft_start_number", status.start_number.0.to_string()),
    ]);
    for member in &status.members {
        all.push((
            format!("raft_member_{}", member.id.0),
            format!(
                "kind={},resp={},peer={},matched={},lag={},connected={}",
                member.kind.name(),
                member.resp,
                member.peer,
                matched(member),
                member.lag.unwrap_or(0),
                u8::from(member.connected)
            ),
        ));
    }
    all
}

fn keyspace(facts: &Facts<'_>) -> Fields {
    match facts.status.keys {
        None | Some(0) => Vec::new(),
        Some(keys) => {
            let expiring = facts.status.expiring.unwrap_or(0);
            fields([("db0", format!("keys={keys},expires={expiring},avg_ttl=0"))])
        }
    }
}

fn leader(status: &Status) -> Option<&MemberStatus> {
    let leader = status.leader?;
    status.members.iter().find(|member| member.id == leader)
}

/// What is known of a member's log.
fn matched(member: &MemberStatus) -> u64 {
    member.matched.map_or(0, |index| index.0)
}

/// 40 hexadecimal digits that differ from node to node and from start to start.
fn run_id(status: &Status) -> String {
    format!("{:016x}{:016x}{:08x}", status.incarnation.0, status.start_number.0, status.id.0 & 0xffff_ffff)
}
