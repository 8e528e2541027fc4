//! Snapshots on their way to and from peers: files on one side, the transport's stream on the other.

use std::{io, sync::Arc, time::Duration};

use raft_core::{Body, Epoch, LogId, Message, NodeId};
use raft_net::{IncomingSnapshot, SnapshotError, SnapshotOffer, SnapshotRefusal, Transport};
use raft_wal::snapshot_file::{SnapshotFileError, SnapshotSource};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{driver::DriverInput, error::NodeError, snapshot_store::SnapshotStore};

struct Source(SnapshotSource);

impl raft_net::SnapshotSource for Source {
    fn read_exact_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read_at(offset, into.len()).map_err(io::Error::other)?;
        if bytes.len() != into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into.copy_from_slice(&bytes);
        Ok(())
    }
}

/// Opens the snapshot an [`InstallSnapshot`](Body::InstallSnapshot) message names, for the driver to [`send`].
pub(crate) fn open<S: Send + 'static>(
    message: Message,
    store: &Arc<SnapshotStore>,
    inputs: &mpsc::UnboundedSender<DriverInput<S>>,
) {
    let Body::InstallSnapshot { epoch, meta, .. } = &message.body else { return };
    let (to, epoch, last) = (message.to, *epoch, meta.last);
    let (store, inputs) = (Arc::clone(store), inputs.clone());
    let runtime = tokio::runtime::Handle::current();
    // Opening it reads its header and trailer.
    tokio::task::spawn_blocking(move || match store.source(last) {
        Ok(source) => {
            let _ = inputs.send(DriverInput::SnapshotOpened(message, Box::new(source)));
        }
        Err(error) => {
            warn!(%to, %error, "the snapshot cannot be sent");
            let _in_runtime = runtime.enter();
            not_sent(&inputs, to, epoch, Blame::FileSuspected);
        }
    });
}

/// Starts sending a snapshot that is open.
pub(crate) fn send(message: &Message, source: SnapshotSource, transport: &Transport) {
    let (checksum, length) = (u64::from(source.info().checksum), source.info().file_bytes);
    if let Some(offer) = SnapshotOffer::from_message(message, checksum, length) {
        info!(to = %message.to, index = offer.meta.last.index.0, bytes = length, "sending a snapshot");
        transport.send_snapshot(offer, Source(source));
    }
}

/// Tells the driver that a snapshot did not reach `to`, after a while: it is sent again as soon as the core knows, and a
/// receiver without room on its disk would be kept busy writing what there is room for.
pub(crate) fn not_sent<S: Send + 'static>(
    inputs: &mpsc::UnboundedSender<DriverInput<S>>,
    to: NodeId,
    epoch: Epoch,
    blame: Blame,
) {
    let inputs = inputs.clone();
    tokio::spawn(async move {
        tokio::time::sleep(APART).await;
        let _ = inputs.send(DriverInput::SnapshotNotSent { to, epoch, blame });
    });
}

/// Looks at the snapshot up to `last` and tells the driver whether it was to blame that one did not reach `to`. A receiver's
/// own disk or memory may have been: that is no reason to take another snapshot.
pub(crate) fn judge<S: Send + 'static>(
    store: &Arc<SnapshotStore>,
    last: LogId,
    inputs: &mpsc::UnboundedSender<DriverInput<S>>,
    to: NodeId,
    epoch: Epoch,
) {
    let (store, inputs) = (Arc::clone(store), inputs.clone());
    // It reads the whole file.
    tokio::task::spawn_blocking(move || {
        let blame = match store.damage(last) {
            Some(error) => {
                warn!(%error, "the snapshot is damaged: another is taken");
                Blame::FileDamaged
            }
            None => Blame::NotTheFile,
        };
        let _ = inputs.send(DriverInput::SnapshotNotSent { to, epoch, blame });
    });
}

/// Why a snapshot did not arrive, as far as it decides what is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The connection, or the receiver: the same file may do.
    NotTheFile,
    /// The file may not be what it was.
    FileSuspected,
    /// The file cannot be sent: another is due.
    FileDamaged,
}

impl Blame {
    /// What a failure says. None is left out: a transfer may be broken off without any newer one, and the core alone knows
    /// which attempt it waits for.
    pub(crate) fn of(error: &SnapshotError) -> Blame {
        match error {
            SnapshotError::Refused(SnapshotRefusal::Damaged) | SnapshotError::Source(_) => {
                Blame::FileSuspected
            }
            SnapshotError::Refused(_)
            | SnapshotError::Connect(_)
            | SnapshotError::Io(_)
            | SnapshotError::Frame(_)
            | SnapshotError::Protocol(_)
            | SnapshotError::Stalled
            | SnapshotError::Cancelled => Blame::NotTheFile,
        }
    }
}

/// Between the failure of sending a snapshot and the next try.
const APART: Duration = Duration::from_secs(1);

/// Receives an accepted snapshot to its end; a whole one is handed to the driver.
pub(crate) async fn receive<S: Send + 'static>(
    incoming: IncomingSnapshot,
    store: Arc<SnapshotStore>,
    inputs: mpsc::UnboundedSender<DriverInput<S>>,
) {
    let from = incoming.offer().from;
    let input = match receive_whole(incoming, store).await {
        Ok(message) => DriverInput::SnapshotReceived(message),
        Err(NotReceived::Disk(error)) => DriverInput::Failed(NodeError::Disk(error)),
        Err(NotReceived::Transfer(error)) => {
            warn!(%from, %error, "a snapshot was not received");
            DriverInput::SnapshotGone
        }
    };
    let _ = inputs.send(input);
}

/// Why a snapshot did not come in.
enum NotReceived {
    /// It broke off, or was refused; the next one may do.
    Transfer(SnapshotError),
    /// The disk failed: the node ends.
    Disk(SnapshotFileError),
}

impl From<SnapshotError> for NotReceived {
    fn from(error: SnapshotError) -> NotReceived {
        NotReceived::Transfer(error)
    }
}

impl From<Refused> for NotReceived {
    fn from(refused: Refused) -> NotReceived {
        match refused.failure {
            Some(failure) => NotReceived::Disk(failure),
            None => NotReceived::Transfer(SnapshotError::Refused(refused.refusal)),
        }
    }
}

/// What the sender is told, and the disk's failure if there was one.
#[derive(Debug)]
struct Refused {
    refusal: SnapshotRefusal,
    failure: Option<SnapshotFileError>,
}

async fn receive_whole(
    incoming: IncomingSnapshot,
    store: Arc<SnapshotStore>,
) -> Result<Message, NotReceived> {
    let offer = incoming.offer().clone();
    let last = offer.meta.last;
    info!(from = %offer.from, index = last.index.0, bytes = offer.length, "receiving a snapshot");
    let opened = Arc::clone(&store);
    let mut file = match blocking(move || opened.receiver(last)).await {
        Ok(file) => file,
        Err(refused) => {
            incoming.refuse(refused.refusal.clone()).await;
            return Err(refused.into());
        }
    };
    let mut stream = incoming.accept(0).await?;
    while let Some((offset, bytes)) = stream.next_chunk().await? {
        let written = blocking(move || {
            file.write(offset, &bytes)?;
            Ok(file)
        })
        .await;
        file = match written {
            Ok(file) => file,
            Err(refused) => {
                // A node that ends does not wait for anybody.
                if refused.failure.is_none() {
                    stream.finish(Err(refused.refusal.clone())).await?;
                }
                return Err(refused.into());
            }
        };
    }
    let meta = offer.meta.clone();
    let received = blocking(move || store.received(file, &meta)).await;
    let whole = received.and_then(|info| info.ok_or(Refused::damaged()));
    match whole {
        Ok(_) => stream.finish(Ok(())).await?,
        Err(refused) => {
            if refused.failure.is_none() {
                stream.finish(Err(refused.refusal.clone())).await?;
            }
            return Err(refused.into());
        }
    }
    Ok(offer.to_message())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotFileError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| {
            if matches!(error, SnapshotFileError::Damaged { .. }) {
                return Refused::damaged();
            }
            let refusal = SnapshotRefusal::Disk(error.to_string());
            Refused { refusal, failure: Some(error).filter(SnapshotFileError::is_disk_failure) }
        }),
        Err(join) => Err(Refused { refusal: SnapshotRefusal::Disk(join.to_string()), failure: None }),
    }
}

impl Refused {
    fn damaged() -> Refused {
        Refused { refusal: SnapshotRefusal::Damaged, failure: None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as plain;

    use super::*;

    /// The checksum of a large snapshot was computed on the thread that also sends the heartbeats (camunda 6269). Here the
    /// work cannot end before the thread has done something else: it waits for a word from there.
    #[tokio::test(flavor = "current_thread")]
    async fn big_snapshot_checksum_off_thread() {
        let (heartbeat, heard) = plain::channel();
        let checksum = blocking(move || Ok(heard.recv_timeout(Duration::from_secs(20)).is_ok()));
        let heartbeats = async { heartbeat.send(()).expect("the checksum still runs") };
        let (alive, ()) = tokio::join!(checksum, heartbeats);
        assert!(
            matches!(alive, Ok(true)),
            "the runtime's only thread stood still until the checksum was done"
        );
    }

    // A transfer that this node broke off for a peer that fell silent was no failure to anybody: the core waited a minute.
    #[test]
    fn every_failure_is_told_and_only_some_put_the_file_in_doubt() {
        let read = || io::Error::other("unreadable");
        for (error, blame) in [
            (SnapshotError::Cancelled, Blame::NotTheFile),
            (SnapshotError::Stalled, Blame::NotTheFile),
            (SnapshotError::Io(read()), Blame::NotTheFile),
            (SnapshotError::Refused(SnapshotRefusal::Busy), Blame::NotTheFile),
            (SnapshotError::Refused(SnapshotRefusal::Damaged), Blame::FileSuspected),
            (SnapshotError::Source(read()), Blame::FileSuspected),
        ] {
            assert_eq!(Blame::of(&error), blame, "{error}");
        }
    }

    struct Nothing;

    impl crate::state_machine::SnapshotView for Nothing {
        fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
            to.write_all(&[7; 1000])
        }
    }

    // A receiver with a broken disk had the leader take one whole snapshot after the other.
    #[tokio::test]
    async fn the_file_is_to_blame_only_if_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let conf = raft_core::ConfState::of_voters([(NodeId(1), raft_core::Member::default())]);
        let meta = raft_core::SnapshotMeta { last: LogId::new(1, 5), conf, ..Default::default() };
        let vfs = Arc::new(raft_wal::vfs::OsVfs);
        let store = Arc::new(SnapshotStore::new(vfs, dir.path().to_owned(), raft_core::ClusterId(1)));
        store.write(&meta, Box::new(Nothing)).unwrap();
        let (tell, mut told) = mpsc::unbounded_channel::<DriverInput<()>>();
        let mut judged = async || {
            judge(&store, meta.last, &tell, NodeId(2), Epoch(4));
            match told.recv().await {
                Some(DriverInput::SnapshotNotSent { to: NodeId(2), epoch: Epoch(4), blame }) => blame,
                _ => panic!("something else was told"),
            }
        };
        assert_eq!(judged().await, Blame::NotTheFile);
        let path = dir.path().join(raft_wal::layout::snapshot(meta.last));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(judged().await, Blame::FileDamaged);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(judged().await, Blame::FileDamaged);
    }
}
