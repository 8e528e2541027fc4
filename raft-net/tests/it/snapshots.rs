//! Snapshots over a stream of their own.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use raft_core::{
    ConfState, Epoch, Incarnation, LogId, LogIndex, Member, NodeId, Round, SnapshotMeta, Term, Timestamp,
};
use raft_net::{
    IncomingSnapshot, NetEvent, NetOptions, SnapshotError, SnapshotOffer, SnapshotRefusal, SnapshotSource,
};

use crate::cluster::{Node, identity, pair};

fn offer(length: usize, epoch: u64) -> SnapshotOffer {
    let member = Member { incarnation: Incarnation(100), address: "a:1".to_owned() };
    SnapshotOffer {
        from: NodeId(1),
        to: NodeId(2),
        term: Term(3),
        epoch: Epoch(epoch),
        round: Round(6),
        meta: SnapshotMeta {
            last: LogId::new(2, 1000),
            time: Timestamp(5),
            conf: ConfState::of_voters([(NodeId(1), member)]),
            conf_id: LogId { term: Term(1), index: LogIndex(4) },
        },
        snapshot_id: 42,
        length: length as u64,
    }
}

fn content(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at.wrapping_mul(31) % 251).unwrap()).collect::<Vec<_>>().into()
}

async fn incoming(node: &mut Node) -> IncomingSnapshot {
    node.until("the offer", |event| match event {
        NetEvent::SnapshotIncoming(incoming) => Some(*incoming),
        _ => None,
    })
    .await
}

async fn ended(node: &mut Node) -> (Epoch, Option<SnapshotError>) {
    node.until("the end of the transfer", |event| match event {
        NetEvent::SnapshotSent { epoch, .. } => Some((epoch, None)),
        NetEvent::SnapshotFailed { epoch, error, .. } => Some((epoch, Some(error))),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn sixty_four_mebibytes_arrive_after_a_break_and_a_resume() {
    let (mut one, mut two) = pair().await;
    let data = content(64 << 20);
    one.transport.send_snapshot(offer(data.len(), 1), data.clone());
    let snapshot = incoming(&mut two).await;
    assert_eq!(*snapshot.offer(), offer(data.len(), 1));
    assert_eq!(
        SnapshotOffer::from_message(&snapshot.offer().to_message(), 42, 64 << 20),
        Some(offer(data.len(), 1))
    );
    let mut receiver = snapshot.accept(0).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 20 << 20 {
        let (offset, chunk) = receiver.next_chunk().await.unwrap().unwrap();
        assert_eq!(offset, received.len() as u64);
        received.extend_from_slice(&chunk);
    }
    drop(receiver);
    let (epoch, error) = ended(&mut one).await;
    assert!(epoch == Epoch(1) && error.is_some());

    one.transport.send_snapshot(offer(data.len(), 2), data.clone());
    let mut receiver = incoming(&mut two).await.accept(received.len() as u64).await.unwrap();
    while let Some((_, chunk)) = receiver.next_chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert!(received == data, "the bytes differ");
    receiver.finish(Ok(())).await.unwrap();
    let (epoch, error) = ended(&mut one).await;
    assert!(epoch == Epoch(2) && error.is_none(), "{error:?}");
}

#[tokio::test]
async fn a_refusal_reaches_the_sender_with_its_reason() {
    let (mut one, mut two) = pair().await;
    one.transport.send_snapshot(offer(10, 1), content(10));
    incoming(&mut two).await.refuse(SnapshotRefusal::NotNeeded).await;
    let (_, error) = ended(&mut one).await;
    assert!(matches!(error, Some(SnapshotError::Refused(SnapshotRefusal::NotNeeded))), "{error:?}");

    one.transport.send_snapshot(offer(10, 2), content(10));
    let mut receiver = incoming(&mut two).await.accept(0).await.unwrap();
    while receiver.next_chunk().await.unwrap().is_some() {}
    receiver.finish(Err(SnapshotRefusal::Disk("full".to_owned()))).await.unwrap();
    let (_, error) = ended(&mut one).await;
    assert!(matches!(error, Some(SnapshotError::Refused(SnapshotRefusal::Disk(text))) if text == "full"));

    // Refused in the middle: the sender hears of it before it has sent all.
    one.transport.send_snapshot(offer(32 << 20, 3), content(32 << 20));
    let mut receiver = incoming(&mut two).await.accept(0).await.unwrap();
    receiver.next_chunk().await.unwrap();
    receiver.finish(Err(SnapshotRefusal::Busy)).await.unwrap();
    let (_, error) = ended(&mut one).await;
    assert!(matches!(error, Some(SnapshotError::Refused(SnapshotRefusal::Busy))), "{error:?}");
}

#[tokio::test]
async fn an_empty_snapshot_and_a_complete_resume_need_no_chunk() {
    let (mut one, mut two) = pair().await;
    for (length, from) in [(0, 0), (1000, 1000)] {
        one.transport.send_snapshot(offer(length, 1), content(length));
        let mut receiver = incoming(&mut two).await.accept(from).await.unwrap();
        assert!(receiver.next_chunk().await.unwrap().is_none());
        receiver.finish(Ok(())).await.unwrap();
        assert!(ended(&mut one).await.1.is_none());
    }
}

struct Failing;

impl SnapshotSource for Failing {
    fn read_exact_at(&mut self, offset: u64, _into: &mut [u8]) -> io::Result<()> {
        if offset == 0 { Ok(()) } else { Err(io::Error::other("the disk")) }
    }
}

#[tokio::test]
async fn a_source_that_cannot_be_read_ends_the_transfer_on_both_sides() {
    let (mut one, mut two) = pair().await;
    one.transport.send_snapshot(offer(1 << 20, 1), Failing);
    let mut receiver = incoming(&mut two).await.accept(0).await.unwrap();
    let error = loop {
        match receiver.next_chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "a broken snapshot ended well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SnapshotError::Frame(_) | SnapshotError::Io(_)), "{error:?}");
    assert!(matches!(ended(&mut one).await.1, Some(SnapshotError::Source(_))));
}

#[tokio::test]
async fn a_newer_transfer_replaces_the_older_and_a_cancelled_one_ends() {
    let (mut one, mut two) = pair().await;
    one.transport.send_snapshot(offer(1 << 20, 1), content(1 << 20));
    let first = incoming(&mut two).await;
    one.transport.send_snapshot(offer(1 << 20, 2), content(1 << 20));
    let (epoch, error) = ended(&mut one).await;
    assert!(epoch == Epoch(1) && matches!(error, Some(SnapshotError::Cancelled)), "{error:?}");
    drop(first);
    let _second = incoming(&mut two).await;
    one.transport.cancel_snapshot(NodeId(2));
    assert!(matches!(ended(&mut one).await, (Epoch(2), Some(SnapshotError::Cancelled))));
}

/// Whoever waits for a transfer learns that it moves, and a node that does not lead any more ends all of them.
#[tokio::test]
async fn a_transfer_tells_that_it_moves_until_all_are_broken_off() {
    let options = NetOptions { snapshot_bytes_per_second: Some(1 << 20), ..NetOptions::default() };
    let mut one = Node::with(identity(1), options).await;
    let mut two = Node::start(2).await;
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    one.transport.send_snapshot(offer(64 << 20, 7), content(64 << 20));
    let mut receiver = incoming(&mut two).await.accept(0).await.unwrap();
    let receiving = tokio::spawn(async move { while let Ok(Some(_)) = receiver.next_chunk().await {} });
    for _ in 0..3 {
        one.until("progress", |event| {
            matches!(event, NetEvent::SnapshotProgress { to: NodeId(2), epoch: Epoch(7) }).then_some(())
        })
        .await;
    }
    one.transport.cancel_snapshots();
    assert!(matches!(ended(&mut one).await, (Epoch(7), Some(SnapshotError::Cancelled))));
    receiving.await.unwrap();
}

#[tokio::test]
async fn a_throttled_snapshot_takes_its_time_and_delays_no_heartbeat() {
    let options = NetOptions { snapshot_bytes_per_second: Some(4 << 20), ..NetOptions::default() };
    let mut one = Node::with(identity(1), options).await;
    let mut two = Node::start(2).await;
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    let began = Instant::now();
    one.transport.send_snapshot(offer(2 << 20, 1), content(2 << 20));
    let mut receiver = incoming(&mut two).await.accept(0).await.unwrap();
    let receiving = tokio::spawn(async move {
        while receiver.next_chunk().await.unwrap().is_some() {}
        receiver.finish(Ok(())).await.unwrap();
    });
    for round in 0..10 {
        let sent = Instant::now();
        let heartbeat = one.heartbeat(NodeId(2), round);
        let _ = one.transport.send(&heartbeat);
        assert_eq!(two.until_message().await, heartbeat);
        assert!(sent.elapsed() < Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    receiving.await.unwrap();
    assert!(ended(&mut one).await.1.is_none());
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

/// A small limit on entries once refused every chunk of a snapshot.
#[tokio::test]
async fn a_limit_on_entries_below_the_size_of_a_chunk_does_not_keep_snapshots_from_arriving() {
    let options = NetOptions { entry_bytes_max: 32 << 10, ..NetOptions::default() };
    let mut one = Node::with(identity(1), options.clone()).await;
    let mut two = Node::with(identity(2), options).await;
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    let data = content(1 << 20);
    one.transport.send_snapshot(offer(data.len(), 1), data.clone());
    let mut receiver = incoming(&mut two).await.accept(0).await.unwrap();
    let mut received = Vec::new();
    while let Some((_, chunk)) = receiver.next_chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    receiver.finish(Ok(())).await.unwrap();
    assert!(received == data && ended(&mut one).await.1.is_none());
}
