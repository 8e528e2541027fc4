//! `RAFT.STATUS` and `RAFT.MEMBERS`: the cluster as this node sees it, as maps.

use crate::{
    kv::Reply,
    status::{MemberStatus, Status},
};

/// `RAFT.STATUS`: the fields of the HTTP `/status`.
pub(super) fn status(status: &Status) -> Reply {
    map([
        ("cluster_id", Reply::bulk(status.cluster_id.to_string())),
        ("id", number(status.id.0)),
        ("role", Reply::bulk_static(status.role.name())),
        ("leader", status.leader.map_or(Reply::Null, |leader| number(leader.0))),
        ("term", number(status.term.0)),
        ("commit", number(status.commit.0)),
        ("applied", number(status.applied.0)),
        ("first_index", number(status.first_index.0)),
        ("last_index", number(status.last_index.0)),
        ("snapshot_index", number(status.snapshot_index.0)),
        ("ready", Reply::Bool(status.ready)),
        ("uptime_s", number(status.uptime_s)),
        ("fsync_p50_us", number(status.fsync_p50_us)),
        ("fsync_p99_us", number(status.fsync_p99_us)),
        ("members", members(status)),
    ])
}

/// `RAFT.MEMBERS`
pub(super) fn members(status: &Status) -> Reply {
    Reply::Array(status.members.iter().map(member).collect())
}

fn member(member: &MemberStatus) -> Reply {
    map([
        ("id", number(member.id.0)),
        ("kind", Reply::bulk_static(member.kind.name())),
        ("resp", Reply::bulk(&member.resp)),
        ("http", Reply::bulk(&member.http)),
        ("peer", Reply::bulk(&member.peer)),
        ("matched", member.matched.map_or(Reply::Null, |matched| number(matched.0))),
        ("lag", member.lag.map_or(Reply::Null, number)),
        ("connected", Reply::Bool(member.connected)),
    ])
}

fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::bulk_static(name), value)).collect())
}

fn number(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}
