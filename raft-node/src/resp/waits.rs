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
    kv::{Kv, Reply},
    status::{MemberKind, Role, Status},
};

/// `WAIT`: how many other members have everything that was answered when this began, as soon as there are `wanted` of
/// them or `timeout` is over (zero: no timeout). A node that does not lead tells at once what is certain.
///
/// The connection's writes have been answered before this begins, so a read that is linearizable finds out an index that
/// covers them. The status does not: it may be some milliseconds old.
pub(super) async fn members<B: Backend>(shared: Arc<Shared<B>>, wanted: usize, timeout: Duration) -> Reply {
    let started = Instant::now();
    let target = match tokio::time::timeout(time_left(timeout, started), applied(&shared.backend)).await {
        Ok(Ok(applied)) => applied,
        // What is acknowledged is on a majority; more is not known.
        Ok(Err(_)) | Err(_) => return Reply::count(for_certain(&shared.backend.status())),
    };
    loop {
        let status = shared.backend.status();
        let count = covered(&status, target);
        let over = !timeout.is_zero() && started.elapsed() >= timeout;
        // Nobody reports to a node that does not lead: more than is certain it will never know.
        if count >= wanted || over || status.role != Role::Leader {
            return Reply::count(count);
        }
        sleep(time_left(timeout, started).min(POLL_INTERVAL)).await;
    }
}

fn time_left(timeout: Duration, started: Instant) -> Duration {
    if timeout.is_zero() { Duration::MAX } else { timeout.saturating_sub(started.elapsed()) }
}

/// How many others have what is committed on disk: it is on a majority, even where nobody reports to us.
fn for_certain(status: &Status) -> usize {
    status.members.iter().filter(|member| member.kind == MemberKind::Voter).count() / 2
}

/// How many others have everything up to `target` on disk.
fn covered(status: &Status, target: LogIndex) -> usize {
    let for_certain = for_certain(status);
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
    match applied(&shared.backend).await {
        Ok(_) => Reply::OK,
        Err(error) => failure(&error, &shared.backend),
    }
}

/// What this node has applied once that is everything any client was answered before.
async fn applied<B: Backend>(backend: &B) -> Result<LogIndex, ClientError> {
    let (sender, receiver) = oneshot::channel();
    backend.read(
        Consistency::Linearizable,
        Box::new(move |kv| {
            // The client may have gone.
            let _ = sender.send(kv.map(Kv::applied));
        }),
    );
    receiver.await.unwrap_or(Err(ClientError::ShuttingDown))
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);
