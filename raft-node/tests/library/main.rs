//! The library as a service embeds it: a state machine of its own, real files, a real listener.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{io, thread::sleep, time::Duration};

use bytes::Bytes;
use raft_core::{LogIndex, NodeId};
use raft_node::{
    Ended, Node, NodeConfig,
    state_machine::{Command, RestoreError, SnapshotView, StateMachine},
};
use tokio::{net::TcpListener, sync::watch};

/// Counts commands, and takes its time over each.
struct Slow(u64);

impl StateMachine for Slow {
    fn apply(&mut self, batch: &[Command]) -> Vec<Bytes> {
        sleep(Duration::from_millis(100));
        self.0 += batch.len() as u64;
        batch.iter().map(|_| Bytes::new()).collect()
    }

    fn view(&self) -> Box<dyn SnapshotView> {
        Box::new(View(self.0))
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> Result<(), RestoreError> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

struct View(u64);

impl SnapshotView for View {
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
        to.write_all(&self.0.to_le_bytes())
    }
}

/// Panics at the second command.
struct Brittle(u64);

impl StateMachine for Brittle {
    fn apply(&mut self, batch: &[Command]) -> Vec<Bytes> {
        self.0 += batch.len() as u64;
        assert!(self.0 < 2, "a bug of the service's own");
        batch.iter().map(|_| Bytes::new()).collect()
    }

    fn view(&self) -> Box<dyn SnapshotView> {
        Box::new(View(self.0))
    }

    fn restore(&mut self, _: &mut dyn io::Read) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// Where a panic does not end the process it ends the node: it led on, and no command was ever applied again.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_state_machine_ends_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = NodeConfig::new(NodeId(1), dir.path().join("n1"));
    let (progress, _) = watch::channel(String::new());
    let node = Node::start(config, Brittle(0), listener, &progress).await.unwrap();
    node.propose(Bytes::from_static(b"one")).await.unwrap();
    assert!(node.propose(Bytes::from_static(b"two")).await.is_err());
    let ended = tokio::time::timeout(Duration::from_secs(10), node.ended()).await.expect("it ends");
    assert!(matches!(&ended, Ended::Failed(why) if why.contains("the state machine panicked")), "{ended:?}");
}

/// Nothing happens on a lone node after its last entry is applied: whoever waits for that must still see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_shows_that_all_is_applied_without_being_asked_anything() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = NodeConfig::new(NodeId(1), dir.path().join("n1"));
    let (progress, _) = watch::channel(String::new());
    let node = Node::start(config, Slow(0), listener, &progress).await.unwrap();
    node.propose(Bytes::from_static(b"one")).await.unwrap();
    let commit = || node.inspect().commit;
    let settled = async {
        while node.inspect().applied < commit() || commit() == LogIndex::ZERO {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled).await.expect("it shows what it has applied");
    node.shutdown().await;
}
