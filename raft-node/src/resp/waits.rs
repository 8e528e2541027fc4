//! Commands that answer later: `WAIT` and `RAFT.BARRIER`.

use std::{sync::Arc, time::Duration};

use raft_core::LogIndex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    Shared,
    backend::{Backend, Consistency},
    failure::failure,
};
use crate::{
    error::ClientError,
    kv::Reply,
    status::{MemberKind, Role, Status},
};

/// `WAIT`: how many other members have everything that was committed when this began, as soon as there are `wanted` of
/// them or `timeout` is over (zero: no timeout).
///
/// The connection's writes have been answered before this begins, so the commit index covers them.
pub(super) async fn members<B: Backend>(shared: Arc<Shared<B>>, wanted: usize, timeout: Duration) -> Reply {
    let started = Instant::now();
    let status = shared.backend.status();
    let target = status.commit;
    let mut count = covered(&status, target);
    while count < wanted && (timeout.is_zero() || started.elapsed() < timeout) {
        let left = if timeout.is_zero() { POLL_INTERVAL } else { timeout.saturating_sub(started.elapsed()) };
        sleep(left.min(POLL_INTERVAL)).await;
        count = covered(&shared.backend.status(), target);
    }
    Reply::count(count)
}

/// How many others have everything up to `target` on disk.
fn covered(status: &Status, target: LogIndex) -> usize {
    let voters = status.members.iter().filter(|member| member.kind == MemberKind::Voter).count();
    // What is committed is on a majority; that much is known even where nobody reports to us.
    let for_certain = voters / 2;
    if status.role != Role::Leader {
        return for_certain;
    }
    let reported = status
        .members
        .iter()
        .filter(|member| member.id != status.id && member.matched >= Some(target))
        .count();
    reported.max(for_certain)
}

/// `RAFT.BARRIER`: `OK` once this node has applied everything that any client was answered before.
pub(super) async fn barrier<B: Backend>(shared: Arc<Shared<B>>) -> Reply {
    let (sender, receiver) = oneshot::channel();
    shared.backend.read(
        Consistency::Linearizable,
        Box::new(move |kv| {
            // The client may have gone.
            let _ = sender.send(kv.map(|_| ()));
        }),
    );
    match receiver.await.unwrap_or(Err(ClientError::ShuttingDown)) {
        Ok(()) => Reply::OK,
        Err(error) => failure(&error, || shared.backend.status()),
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);
