//! Connections made, lost and made again; what is sent over them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{Incarnation, NodeId, StartNumber};
use raft_net::{
    ConnectionKind, Forward, ForwardOutcome, ForwardReply, JoinAnswer, LocalIdentity, NetEvent, NetOptions,
    PeerInfo, Refusal, Sent,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::cluster::{CLUSTER, Node, identity, pair};

#[tokio::test]
async fn messages_of_both_kinds_arrive_as_they_were_sent() {
    let (one, mut two) = pair().await;
    let heartbeat = one.heartbeat(NodeId(2), 1);
    assert_eq!(one.transport.send(&heartbeat), Sent::Queued);
    assert_eq!(two.until_message().await, heartbeat);
    let payloads = [0, 1, 100, 511, 512, 513, 5000, 1 << 20].map(|length| Bytes::from(vec![7_u8; length]));
    let append = one.append(NodeId(2), 9, &payloads);
    assert_eq!(one.transport.send(&append), Sent::Queued);
    assert_eq!(two.until_message().await, append);
    let status = &two.transport.peers_status()[&NodeId(1)];
    assert!(status.control_connected && status.bulk_connected);
    assert_eq!(status.hello.as_ref().unwrap().addresses.resp, "resp1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_arrive_in_order_over_several_threads() {
    let (one, mut two) = pair().await;
    let payload = Bytes::from(vec![3_u8; 256]);
    for index in 0..5000 {
        assert_eq!(
            one.transport.send(&one.append(NodeId(2), index, &[payload.clone(), payload.clone()])),
            Sent::Queued
        );
    }
    for index in 0..5000 {
        assert_eq!(
            two.until_message().await,
            one.append(NodeId(2), index, &[payload.clone(), payload.clone()])
        );
    }
    let stats = one.transport.stats();
    assert_eq!(stats.frames_sent, 5000);
    assert!(stats.writes < 5000, "{stats:?}");
}

#[tokio::test]
async fn a_forward_and_its_reply_find_their_way() {
    let (mut one, mut two) = pair().await;
    let payload = Bytes::from_static(b"SET a 1");
    let checksum = raft_core::Entry::checksum_of(&payload);
    let session = Some(raft_core::SessionSeq { session: 5, seq: 6 });
    let forward = Forward { request: 77, kind: 2, session, checksum, payload };
    assert_eq!(one.transport.send_forward(NodeId(2), forward.clone()), Sent::Queued);
    let (origin, received) = two
        .until("the forward", |event| match event {
            NetEvent::Forward { origin, forward } => Some((origin, forward)),
            _ => None,
        })
        .await;
    assert_eq!(received, forward);
    for outcome in [
        ForwardOutcome::Ok(Bytes::from_static(b"OK")),
        ForwardOutcome::Ok(Bytes::from(vec![1; 100_000])),
        ForwardOutcome::NotLeader { leader: Some(NodeId(3)) },
        ForwardOutcome::Unknown,
    ] {
        let reply = ForwardReply { request: 77, outcome };
        assert_eq!(two.transport.send_forward_reply(origin, reply.clone()), Sent::Queued);
        let answer = one
            .until("the reply", |event| match event {
                NetEvent::ForwardReply { reply, .. } => Some(reply),
                _ => None,
            })
            .await;
        assert_eq!(answer, reply);
    }
    // An answer to an earlier run is not delivered; the one behind it is.
    let stale = raft_net::ForwardOrigin { node: origin.node, start: StartNumber(0) };
    let busy = ForwardReply { request: 1, outcome: ForwardOutcome::Busy };
    let _ = two.transport.send_forward_reply(stale, busy);
    let last = ForwardReply { request: 2, outcome: ForwardOutcome::TooLarge { limit: 5 } };
    let _ = two.transport.send_forward_reply(origin, last.clone());
    let answer = one
        .until("the reply", |event| match event {
            NetEvent::ForwardReply { reply, .. } => Some(reply),
            _ => None,
        })
        .await;
    assert_eq!(answer, last);
}

/// Answers to forwards travel on connections that the peer has dialled. Only who had dialled them was told when they were
/// made anew, and whoever waited for what was lost did so until its deadline.
#[tokio::test]
async fn a_peer_that_dials_again_is_told_and_one_that_dials_first_is_not() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    two.know(&[&one]);
    let mut open = 0;
    two.until("both connections", |event| {
        assert!(!matches!(event, NetEvent::PeerRedialled { .. }), "nothing was lost");
        open += usize::from(matches!(event, NetEvent::PeerConnected { .. }));
        (open == 2).then_some(())
    })
    .await;
    one.until_connected(NodeId(2)).await;
    // Under another name of the same place it is dialled anew.
    let address = two.address.replace("127.0.0.1", "localhost");
    let info = PeerInfo { address, incarnation: Incarnation(200) };
    one.transport.set_peers([(NodeId(2), info)].into());
    let mut again = Vec::new();
    two.until("both again", |event| {
        if let NetEvent::PeerRedialled { peer: NodeId(1), kind } = event {
            again.push(kind);
        }
        (again.len() == 2).then_some(())
    })
    .await;
    assert_ne!(again[0], again[1]);
}

#[tokio::test]
async fn a_dead_process_is_noticed_at_once_and_its_return_too() {
    let (mut one, two) = pair().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let address = two.address.clone();
    let began = Instant::now();
    two.transport.shutdown(Duration::ZERO).await;
    drop(two);
    one.until("the death", |event| matches!(event, NetEvent::PeerDied(NodeId(2))).then_some(())).await;
    // Sooner than any election timeout; a few milliseconds on an idle machine.
    assert!(began.elapsed() < Duration::from_millis(450), "{:?}", began.elapsed());
    let again = LocalIdentity { start: StartNumber(2), ..identity(2) };
    let _two = Node::at(&address, again, NetOptions::default()).await;
    one.until_connected(NodeId(2)).await;
}

#[tokio::test]
async fn a_peer_that_returns_is_reached_without_waiting_for_the_backoff() {
    let options = NetOptions {
        backoff_min: Duration::from_secs(5),
        backoff_max: Duration::from_secs(5),
        ..NetOptions::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut one = Node::with(identity(1), options).await;
    let info = PeerInfo { address: address.clone(), incarnation: Incarnation::UNKNOWN };
    one.transport.set_peers([(NodeId(2), info)].into());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(one.transport.peers_status()[&NodeId(2)].last_error.is_some());
    let two = Node::at(&address, identity(2), NetOptions::default()).await;
    let began = Instant::now();
    two.know(&[&one]);
    one.until_connected(NodeId(2)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_dropped_and_counted() {
    let options = NetOptions { bulk_queue_bytes_max: 10_000, ..NetOptions::default() };
    let one = Node::with(identity(1), options).await;
    // Somebody who accepts and says nothing: nothing leaves the queue.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    one.transport.set_peers([(NodeId(2), PeerInfo { address, incarnation: Incarnation::UNKNOWN })].into());
    let large = one.append(NodeId(2), 0, &[Bytes::from(vec![0; 50_000])]);
    assert_eq!(one.transport.send(&large), Sent::Queued);
    assert_eq!(one.transport.send(&large), Sent::Dropped);
    assert_eq!(one.transport.send(&one.heartbeat(NodeId(2), 1)), Sent::Queued);
    assert_eq!(one.transport.send(&one.heartbeat(NodeId(3), 1)), Sent::Dropped);
    let status = &one.transport.peers_status()[&NodeId(2)];
    assert_eq!(status.dropped, 1);
    assert_eq!(one.transport.stats().dropped, 2);
    assert!(status.bulk_queue_bytes > 50_000);
}

#[tokio::test]
async fn a_frame_longer_than_the_peer_takes_is_dropped_and_the_rest_arrives() {
    let mut one = Node::start(1).await;
    let mut two =
        Node::with(identity(2), NetOptions { entry_bytes_max: 1000, ..NetOptions::default() }).await;
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    let _ = one.transport.send(&one.append(NodeId(2), 0, &[Bytes::from(vec![0; 200_000])]));
    let small = one.append(NodeId(2), 0, &[Bytes::from_static(b"small")]);
    let _ = one.transport.send(&small);
    assert_eq!(two.until_message().await, small);
    assert_eq!(one.transport.stats().dropped, 1);
}

#[tokio::test]
async fn heartbeats_do_not_wait_behind_appends() {
    let (one, mut two) = pair().await;
    // The receiver takes nothing: its bulk budget fills, and TCP holds the appends back.
    let payload = Bytes::from(vec![9_u8; 1 << 20]);
    for index in 0..150 {
        let _ = one.transport.send(&one.append(NodeId(2), index, std::slice::from_ref(&payload)));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    let heartbeat = one.heartbeat(NodeId(2), 99);
    assert_eq!(one.transport.send(&heartbeat), Sent::Queued);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(one.transport.peers_status()[&NodeId(2)].bulk_queue_bytes > 0, "nothing was held back");
    assert_eq!(two.until_message().await, heartbeat);
    assert!(began.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_clone_of_a_directory_is_refused_with_its_original() {
    let (mut one, two) = pair().await;
    // The same id, directory and start number, in another process.
    let mut clone = Node::start(2).await;
    clone.know(&[&one]);
    let reason = one
        .until("the refusal", |event| match event {
            NetEvent::PeerRefused { peer: NodeId(2), by_peer: false, reason } => Some(reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, Refusal::Clone { id: NodeId(2), start: StartNumber(1) });
    clone
        .until("to be told", |event| {
            matches!(event, NetEvent::PeerRefused { by_peer: true, .. }).then_some(())
        })
        .await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while one.transport.peers_status()[&NodeId(2)].control_connected {
        assert!(Instant::now() < deadline, "the original stays connected");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(two);
}

#[tokio::test]
async fn an_old_copy_and_another_directory_are_refused() {
    let mut one = Node::start(1).await;
    let newer =
        Node::with(LocalIdentity { start: StartNumber(5), ..identity(2) }, NetOptions::default()).await;
    one.know(&[&newer]);
    one.until_connected(NodeId(2)).await;
    newer.transport.shutdown(Duration::ZERO).await;
    let older =
        Node::with(LocalIdentity { start: StartNumber(4), ..identity(2) }, NetOptions::default()).await;
    older.know(&[&one]);
    let refusal = |event| match event {
        NetEvent::PeerRefused { peer: NodeId(2), reason, .. } => Some(reason),
        _ => None,
    };
    let reason = one.until("the refusal", refusal).await;
    assert_eq!(reason, Refusal::StaleStart { id: NodeId(2), highest: StartNumber(5), found: StartNumber(4) });
    let other = LocalIdentity { incarnation: Incarnation(201), ..identity(2) };
    let other = Node::with(other, NetOptions::default()).await;
    other.know(&[&one]);
    let reason = one.until("the refusal", refusal).await;
    assert!(matches!(reason, Refusal::WrongIncarnation { found: Incarnation(201), .. }), "{reason}");
}

/// SAFETY section 1: a member that missed a config entry must accept its new leader.
#[tokio::test]
async fn a_node_that_is_behind_follows_a_leader_with_a_new_directory() {
    let mut behind = Node::start(1).await;
    let new = LocalIdentity { incarnation: Incarnation(201), ..identity(2) };
    let mut leader = Node::with(new, NetOptions::default()).await;
    leader.transport.set_conf_index(raft_core::LogIndex(50));
    behind.transport.set_conf_index(raft_core::LogIndex(40));
    behind.know(&[&leader]);
    leader.know(&[&behind]);
    leader.until_connected(NodeId(1)).await;
    behind.until_connected(NodeId(2)).await;
    let append = leader.append(NodeId(1), 0, &[Bytes::from_static(b"x")]);
    let _ = leader.transport.send(&append);
    assert_eq!(behind.until_message().await, append);
    // Its heartbeat would count for the n2 we know; its answer does not.
    let _ = behind.transport.send(&behind.heartbeat(NodeId(2), 1));
    let (epoch, round) = (raft_core::Epoch(4), raft_core::Round(5));
    let outcome = raft_core::AppendOutcome::Matched(raft_core::LogIndex(1));
    let body = raft_core::Body::AppendReply { epoch, round, outcome };
    let reply = raft_core::Message { from: NodeId(1), to: NodeId(2), term: raft_core::Term(3), body };
    let _ = behind.transport.send(&reply);
    assert_eq!(leader.until_message().await, reply);

    // The append brought the configuration: now it is a member like any other.
    let info = PeerInfo { address: leader.address.clone(), incarnation: Incarnation(201) };
    behind.transport.set_conf_index(raft_core::LogIndex(50));
    behind.transport.set_peers([(NodeId(2), info)].into());
    behind.until_connected(NodeId(2)).await;
    let heartbeat = behind.heartbeat(NodeId(2), 2);
    let _ = behind.transport.send(&heartbeat);
    assert_eq!(leader.until_message().await, heartbeat);
}

#[tokio::test]
async fn a_peer_that_changes_its_address_is_dialled_there() {
    let (mut one, two) = pair().await;
    two.transport.shutdown(Duration::ZERO).await;
    let again = LocalIdentity { start: StartNumber(2), ..identity(2) };
    let two = Node::with(again, NetOptions::default()).await;
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    one.transport.set_peers([].into());
    assert!(one.transport.peers_status().is_empty());
    assert_eq!(one.transport.send(&one.heartbeat(NodeId(2), 1)), Sent::Dropped);
}

#[tokio::test]
async fn founders_talk_and_then_speak_of_everything() {
    let founders: std::collections::BTreeMap<_, _> =
        [(NodeId(1), "a:1".to_owned()), (NodeId(2), "b:1".to_owned())].into();
    let founder = |id| LocalIdentity { cluster: None, founders: Some(founders.clone()), ..identity(id) };
    let mut one = Node::with(founder(1), NetOptions::default()).await;
    let mut two = Node::with(founder(2), NetOptions::default()).await;
    one.know(&[&two]);
    two.know(&[&one]);
    let meet = raft_net::FoundingMessage::Meet { incarnation: Incarnation(100) };
    let _ = one.transport.send_founding(NodeId(2), &meet);
    let received = two
        .until("the founding message", |event| match event {
            NetEvent::Founding { from, incarnation, message } => Some((from, incarnation, message)),
            _ => None,
        })
        .await;
    assert_eq!(received, (NodeId(1), Incarnation(100), meet.clone()));
    // One knows the cluster first, and can still be asked by the other.
    one.transport.set_cluster(CLUSTER);
    // Founding messages may be lost while connections are made again, and are said again.
    let asked = {
        let transport = two.transport.clone();
        tokio::spawn(async move {
            loop {
                let _ = transport.send_founding(NodeId(1), &meet);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    one.until("the late founder", |event| matches!(event, NetEvent::Founding { .. }).then_some(())).await;
    asked.abort();
    two.transport.set_cluster(CLUSTER);
    one.until("bulk", |event| {
        matches!(event, NetEvent::PeerConnected { kind: ConnectionKind::Bulk, .. }).then_some(())
    })
    .await;
    two.until("bulk", |event| {
        matches!(event, NetEvent::PeerConnected { kind: ConnectionKind::Bulk, .. }).then_some(())
    })
    .await;
    let append = one.append(NodeId(2), 0, &[Bytes::from_static(b"x")]);
    let _ = one.transport.send(&append);
    assert_eq!(two.until_message().await, append);
    let heartbeat = two.heartbeat(NodeId(1), 0);
    let _ = two.transport.send(&heartbeat);
    assert_eq!(one.until_message().await, heartbeat);
}

#[tokio::test]
async fn founding_lists_that_differ_are_refused_with_both_texts() {
    let founder = |id, address: &str| {
        let founders = [(NodeId(1), "a:1".to_owned()), (NodeId(2), address.to_owned())].into();
        LocalIdentity { cluster: None, founders: Some(founders), ..identity(id) }
    };
    let mut one = Node::with(founder(1, "b:1"), NetOptions::default()).await;
    let two = Node::with(founder(2, "c:1"), NetOptions::default()).await;
    one.know(&[&two]);
    let reason = one
        .until("the refusal", |event| match event {
            NetEvent::PeerRefused { reason, by_peer: true, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert_eq!(
        reason,
        Refusal::FoundersDiffer { theirs: "1=a:1,2=b:1".to_owned(), ours: "1=a:1,2=c:1".to_owned() }
    );
}

#[tokio::test]
async fn a_stranger_asks_to_join_and_is_answered() {
    let mut one = Node::start(1).await;
    let address = one.address.clone();
    let stranger = LocalIdentity { cluster: None, ..identity(9) };
    let asking = tokio::spawn(async move {
        raft_net::join(&address, &stranger, &NetOptions::default(), Duration::from_secs(5)).await
    });
    let request = one
        .until("the request", |event| match event {
            NetEvent::Join(request) => Some(request),
            _ => None,
        })
        .await;
    assert_eq!((request.hello.id, request.hello.addresses.peer.as_str()), (NodeId(9), "peer9"));
    let answer = JoinAnswer::NotLeader { leader: Some("elsewhere:7402".to_owned()) };
    request.answer(answer.clone());
    assert_eq!(asking.await.unwrap().unwrap(), answer);
}

#[tokio::test]
async fn shutdown_writes_what_is_queued_and_ends_the_events() {
    let (mut one, mut two) = pair().await;
    for index in 0..100 {
        let _ = one.transport.send(&one.append(NodeId(2), index, &[Bytes::from(vec![1; 10_000])]));
    }
    one.transport.shutdown(Duration::from_secs(5)).await;
    while one.events.recv().await.is_some() {}
    for index in 0..100 {
        assert_eq!(two.until_message().await, one.append(NodeId(2), index, &[Bytes::from(vec![1; 10_000])]));
    }
}

#[tokio::test]
async fn a_dialled_port_that_speaks_something_else_is_left_alone() {
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = web.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _): (TcpStream, _) = web.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let one = Node::start(1).await;
    one.transport.set_peers([(NodeId(2), PeerInfo { address, incarnation: Incarnation::UNKNOWN })].into());
    server.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let error = one.transport.peers_status()[&NodeId(2)].last_error.clone().unwrap_or_default();
        if error.contains("HTTP") || error.contains("refused") {
            break;
        }
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Forwards connections to `to`. While `cut` says so, and for ever on connections it then hits, nothing passes, and
/// neither end notices.
async fn wire(to: String, cut: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (to, mut cut) = (to.clone(), cut.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    biased;
                    _ = cut.wait_for(|cut| *cut) => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                }
                std::future::pending::<()>().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_dialled_again_until_it_answers() {
    let options = NetOptions {
        silence_timeout: Duration::from_secs(1),
        handshake_timeout: Duration::from_millis(300),
        ..NetOptions::default()
    };
    let mut one = Node::with(identity(1), options).await;
    let two = Node::start(2).await;
    let (cut, is_cut) = watch::channel(false);
    let info = PeerInfo { address: wire(two.address.clone(), is_cut).await, incarnation: Incarnation(200) };
    one.transport.set_peers([(NodeId(2), info)].into());
    one.until_connected(NodeId(2)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(one.events.try_recv().is_none(), "a healthy connection was made again");

    cut.send(true).unwrap();
    let began = Instant::now();
    loop {
        let _ = one.transport.send(&one.heartbeat(NodeId(2), 1));
        let status = &one.transport.peers_status()[&NodeId(2)];
        if !status.control_connected && !status.bulk_connected {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(4), "the silence was not noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cut.send(false).unwrap();
    let healed = Instant::now();
    one.until_connected(NodeId(2)).await;
    assert!(healed.elapsed() < Duration::from_secs(2), "{:?}", healed.elapsed());
}
