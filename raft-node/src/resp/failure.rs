//! How a client is told that its command got no reply from the store.

use super::backend::Backend;
use crate::{
    error::ClientError,
    kv::Reply,
    status::{MemberKind, Status},
};

/// The error line for `error`. What the node knows is added where it helps.
pub(super) fn failure(error: &ClientError, backend: &impl Backend) -> Reply {
    match error {
        ClientError::NotLeader => {
            Reply::error("TRYAGAIN the leader changed, the command was not executed; try again")
        }
        ClientError::NoLeader => no_leader(&backend.status()),
        ClientError::Busy if backend.log_is_full() => DISK_FULL,
        ClientError::Busy => Reply::error(
            "BUSY too many commands are waiting, this one was not executed; try again in a moment",
        ),
        ClientError::DiskFull => DISK_FULL,
        ClientError::OutcomeUnknown => Reply::error(
            "UNKNOWN the outcome of the command is not known: it may have been executed, or may still be",
        ),
        ClientError::TooLarge { limit, .. } => {
            Reply::error_text(format!("ERR the command is larger than {limit} bytes"))
        }
        ClientError::OutOfMemory => Reply::error("OOM command not allowed when used memory > 'maxmemory'."),
        ClientError::ShuttingDown => {
            Reply::error("CLUSTERDOWN this node is shutting down, the command was not executed")
        }
    }
}

const DISK_FULL: Reply = Reply::error(
    "MISCONF no space left for the log on the disk of this node: the command was not executed; reads go on, and writes \
     once there is space",
);

fn no_leader(status: &Status) -> Reply {
    if let Some(reason) = status.not_ready_reason.as_ref().filter(|_| status.leader.is_none()) {
        return Reply::error_text(format!("CLUSTERDOWN no leader: {reason}"));
    }
    if let Some(leader) = status.leader.filter(|leader| *leader != status.id) {
        let full = if status.log_full { ": no space left for the log on its disk" } else { "" };
        return Reply::error_text(format!(
            "CLUSTERDOWN no leader: node {} follows {leader} but does not keep up, it has applied {}{full}",
            status.id.0, status.applied.0,
        ));
    }
    let voters = status.members.iter().filter(|member| member.kind == MemberKind::Voter);
    let (mut count, mut reached) = (0, 0);
    for voter in voters {
        count += 1;
        reached += usize::from(voter.connected || voter.id == status.id);
    }
    Reply::error_text(format!(
        "CLUSTERDOWN no leader: node {} in term {} reaches {reached} of {count} voters, {} are needed",
        status.id.0,
        status.term.0,
        count / 2 + 1,
    ))
}
