//! Strangers at the port.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::NodeId;
use raft_net::{
    ConnectionKind, HANDSHAKE_FRAME_BYTES_MAX, HandshakeError, Hello, LocalIdentity, MAGIC, NetOptions,
    Packet, Refusal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::cluster::{CLUSTER, Node, identity, pair};

async fn closed_within(stream: &mut TcpStream, limit: Duration) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(limit, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let (one, mut two) = pair().await;
    let mut seed = 1_u64;
    for length in [1_usize, 7, 8, 20, 100, 5000] {
        let mut stream = TcpStream::connect(&two.address).await.unwrap();
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_le_bytes()[5] | 1
            })
            .collect();
        let _ = stream.write_all(&bytes).await;
        assert!(closed_within(&mut stream, Duration::from_secs(2)).await, "{length} bytes of garbage");
    }
    let heartbeat = one.heartbeat(NodeId(2), 1);
    let _ = one.transport.send(&heartbeat);
    assert_eq!(two.until_message().await, heartbeat);
}

#[tokio::test]
async fn a_claimed_gibibyte_is_refused_before_and_after_the_handshake() {
    let mut one = Node::start(1).await;
    let mut stream = TcpStream::connect(&one.address).await.unwrap();
    stream.write_all(&MAGIC).await.unwrap();
    stream.write_all(&(1_u32 << 30).to_le_bytes()).await.unwrap();
    assert!(closed_within(&mut stream, Duration::from_secs(2)).await);

    let mut stream = introduce(&one, 7).await;
    stream.write_all(&(1_u32 << 30).to_le_bytes()).await.unwrap();
    assert!(closed_within(&mut stream, Duration::from_secs(2)).await);
    assert_eq!(one.transport.stats().malformed, 1);
    assert!(one.events.try_recv().is_none());
}

#[tokio::test]
async fn a_message_in_anothers_name_closes_the_connection() {
    let one = Node::start(1).await;
    let two = Node::start(2).await;
    let mut stream = introduce(&one, 7).await;
    let mut bytes = Vec::new();
    Packet::Message(two.heartbeat(NodeId(1), 1)).encode_head(&mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    assert!(closed_within(&mut stream, Duration::from_secs(2)).await);
    assert_eq!(one.transport.stats().malformed, 1);
}

#[tokio::test]
async fn a_damaged_payload_closes_the_connection() {
    let mut one = Node::start(1).await;
    let mut seven = Node::start(7).await;
    seven.know(&[&one]);
    seven.until_connected(NodeId(1)).await;
    let mut append = seven.append(NodeId(1), 0, &[Bytes::from_static(b"payload")]);
    let raft_core::Body::AppendEntries { entries, .. } = &mut append.body else { unreachable!() };
    let mut damaged = entries.to_vec();
    damaged[0].checksum ^= 1;
    *entries = damaged.into();
    let _ = seven.transport.send(&append);
    let good = seven.append(NodeId(1), 0, &[Bytes::from_static(b"payload")]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while one.transport.stats().malformed == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seven
        .until("the reconnection", |event| {
            matches!(event, raft_net::NetEvent::PeerConnected { .. }).then_some(())
        })
        .await;
    let _ = seven.transport.send(&good);
    assert_eq!(one.until_message().await, good);
}

#[tokio::test]
async fn who_does_not_introduce_itself_in_time_is_closed() {
    let options = NetOptions { handshake_timeout: Duration::from_millis(200), ..NetOptions::default() };
    let one = Node::with(identity(1), options).await;
    let began = Instant::now();
    let mut stream = TcpStream::connect(&one.address).await.unwrap();
    stream.write_all(&MAGIC[..4]).await.unwrap();
    assert!(closed_within(&mut stream, Duration::from_secs(2)).await);
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn strangers_take_each_others_seats_and_an_honest_peer_gets_in() {
    let options =
        NetOptions { unauthenticated_max: 20, unauthenticated_per_ip_max: 8, ..NetOptions::default() };
    let mut one = Node::with(identity(1), options).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(&one.address).await.unwrap());
    }
    let two = Node::start(2).await;
    two.know(&[&one]);
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !two.transport.peers_status()[&NodeId(1)].control_connected {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(one.transport.stats().evicted >= 42);
    for stream in &mut idle[..40] {
        assert!(closed_within(stream, Duration::from_secs(2)).await);
    }
}

#[tokio::test]
async fn a_silent_peer_is_closed_and_a_quiet_one_is_not() {
    let short = NetOptions {
        idle_timeout: Duration::from_millis(300),
        keepalive: Duration::from_millis(100),
        ..NetOptions::default()
    };
    let mut one = Node::with(identity(1), short.clone()).await;
    let mut two = Node::with(identity(2), short).await;
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
    let mut silent = introduce(&one, 7).await;
    assert!(closed_within(&mut silent, Duration::from_secs(2)).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let heartbeat = one.heartbeat(NodeId(2), 1);
    let _ = one.transport.send(&heartbeat);
    assert_eq!(two.until_message().await, heartbeat);
    assert!(one.events.try_recv().is_none(), "the quiet connection was made again");
}

#[tokio::test]
async fn strangers_that_ask_to_join_leave_room_for_members() {
    let options = NetOptions { unauthenticated_per_ip_max: 200, ..NetOptions::default() };
    let mut one = Node::with(identity(1), options).await;
    let mut asking = tokio::task::JoinSet::new();
    for id in 10..110 {
        let (address, stranger) = (one.address.clone(), LocalIdentity { cluster: None, ..identity(id) });
        asking.spawn(async move {
            raft_net::join(&address, &stranger, &NetOptions::default(), Duration::from_secs(3)).await
        });
    }
    let mut refused = 0;
    while refused < 36 {
        let Err(error) = asking.join_next().await.unwrap().unwrap() else { panic!("nobody answered") };
        assert!(matches!(error, HandshakeError::RefusedByPeer(Refusal::TooMany)), "{error}");
        refused += 1;
    }
    let two = Node::start(2).await;
    two.know(&[&one]);
    one.know(&[&two]);
    one.until_connected(NodeId(2)).await;
}

/// Shakes hands by hand, as this id, for a control connection.
async fn introduce(with: &Node, id: u64) -> TcpStream {
    let mut stream = TcpStream::connect(&with.address).await.unwrap();
    let local = identity(id);
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features_required: 0,
        features_offered: 0,
        cluster: Some(CLUSTER),
        id: local.id,
        to: Some(with.id),
        incarnation: local.incarnation,
        start: local.start,
        nonce: 1,
        kind: ConnectionKind::Control,
        addresses: local.addresses,
        founders: None,
        election_timeout_ms: 0,
        frame_bytes_max: 1 << 20,
        conf_index: raft_core::LogIndex(0),
    };
    let mut bytes = MAGIC.to_vec();
    Packet::Hello(Box::new(hello)).encode_head(&mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; MAGIC.len() + 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..MAGIC.len()], MAGIC);
    let length = u32::from_le_bytes(answer[MAGIC.len()..].try_into().unwrap());
    let mut rest = vec![0; usize::try_from(length).unwrap()];
    assert!(rest.len() < HANDSHAKE_FRAME_BYTES_MAX);
    stream.read_exact(&mut rest).await.unwrap();
    let mut bytes = Vec::new();
    Packet::Ready.encode_head(&mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}
