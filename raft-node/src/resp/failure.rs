//! How a client is told that its command got no reply from the store.

use crate::{
    error::ClientError,
    kv::Reply,
    status::{MemberKind, Status},
};

/// The error line for `error`. What the node knows is added where it helps.
pub(super) fn failure(error: &ClientError, status: impl FnOnce() -> Status) -> Reply {
    match error {
        ClientError::NotLeader => {
            Reply::error("TRYAGAIN the leader changed, the command was not executed; try again")
        }
        ClientError::NoLeader => no_leader(&status()),
        ClientError::Busy => Reply::error(
            "BUSY too many commands are waiting, this one was not executed; try again in a moment",
        ),
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

fn no_leader(status: &Status) -> Reply {
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
