//! Founders over real connections, started one after the other and killed on the way.

use std::{collections::BTreeMap, time::Duration};

use raft_core::{ClusterId, Incarnation, NodeId, StartNumber};
use raft_net::{
    ConnectionKind, Founding, FoundingOutcome, FoundingRefusal, LocalIdentity, NetEvent, NetOptions,
    PeerInfo, Pin,
};
use tokio::{net::TcpListener, time::timeout};

use crate::cluster::{Node, identity};

/// What a founder's directory remembers.
#[derive(Clone)]
struct Disk {
    incarnation: Incarnation,
    start: u64,
    pin: Option<Pin>,
}

async fn free_addresses() -> BTreeMap<NodeId, String> {
    let mut list = BTreeMap::new();
    let mut held = Vec::new();
    for id in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        list.insert(NodeId(id), listener.local_addr().unwrap().to_string());
        held.push(listener);
    }
    list
}

async fn start(id: u64, list: &BTreeMap<NodeId, String>, disk: &mut Disk) -> Node {
    disk.start += 1;
    let identity = LocalIdentity {
        cluster: None,
        founders: Some(list.clone()),
        incarnation: disk.incarnation,
        start: StartNumber(disk.start),
        ..identity(id)
    };
    let node = Node::at(&list[&NodeId(id)], identity, NetOptions::default()).await;
    let info = |(id, address): (&NodeId, &String)| {
        (*id, PeerInfo { address: address.clone(), incarnation: Incarnation::UNKNOWN })
    };
    node.transport.set_peers(list.iter().map(info).collect());
    node
}

/// Founds as the runtime does. Ends early, as in a crash, once the pin is durable and `crash` says so.
async fn found(
    node: &mut Node,
    list: &BTreeMap<NodeId, String>,
    disk: &mut Disk,
    crash: bool,
) -> Option<FoundingOutcome> {
    let fresh = ClusterId(u128::from(node.id.0) << 64 | u128::from(disk.start));
    let mut founding =
        Founding::new(node.id, disk.incarnation, list.clone(), disk.pin.clone(), fresh).unwrap();
    let mut output = founding.tick();
    loop {
        for (to, message) in output.send.drain(..) {
            let _ = node.transport.send_founding(to, &message);
        }
        if let Some(outcome) = output.outcome {
            return Some(outcome);
        }
        if let Some(pin) = output.pin {
            disk.pin = Some(pin);
            if crash {
                return None;
            }
            output = founding.pinned();
            continue;
        }
        output = match timeout(Duration::from_millis(100), node.events.recv()).await {
            Ok(Some(NetEvent::Founding { from, message, .. })) => founding.receive(from, &message),
            Ok(Some(_)) => continue,
            Ok(None) => panic!("the transport ended"),
            Err(_) => founding.tick(),
        };
    }
}

#[tokio::test]
async fn three_founders_agree_though_the_lowest_crashes_after_its_pin() {
    let list = free_addresses().await;
    let mut tasks = Vec::new();
    for id in [3, 1, 2] {
        let list = list.clone();
        tasks.push(tokio::spawn(async move {
            let mut disk = Disk { incarnation: Incarnation(id * 7), start: 0, pin: None };
            let mut node = start(id, &list, &mut disk).await;
            if id == 1 {
                assert!(found(&mut node, &list, &mut disk, true).await.is_none());
                node.transport.shutdown(Duration::ZERO).await;
                node = start(id, &list, &mut disk).await;
            }
            let outcome = found(&mut node, &list, &mut disk, false).await.unwrap();
            let FoundingOutcome::Founded(pin) = outcome else { panic!("n{id}: {outcome:?}") };
            node.transport.set_cluster(pin.cluster);
            // As a running member it tells whoever is late, until all are connected for good.
            let mut open = Vec::new();
            while open.len() < 2 {
                match timeout(Duration::from_secs(10), node.events.recv())
                    .await
                    .expect("n{id} is not connected")
                {
                    Some(NetEvent::Founding { from, message, .. }) => {
                        let answer = Founding::answer_of_member(pin.cluster, &pin.founders, from, &message);
                        if let Some(answer) = answer {
                            let _ = node.transport.send_founding(from, &answer);
                        }
                    }
                    Some(NetEvent::PeerConnected { peer, kind: ConnectionKind::Bulk, .. }) => open.push(peer),
                    _ => {}
                }
            }
            (node, pin)
        }));
    }
    let mut pins = Vec::new();
    let mut nodes = Vec::new();
    for task in tasks {
        let (node, pin) = task.await.unwrap();
        pins.push(pin);
        nodes.push(node);
    }
    assert!(pins.windows(2).all(|pair| pair[0] == pair[1]), "{pins:?}");

    // A wiped directory of n3 comes to the cluster that runs.
    let mut nodes = nodes.into_iter();
    nodes.next().unwrap().transport.shutdown(Duration::ZERO).await;
    let pin = pins[0].clone();
    for mut node in nodes {
        let pin = pin.clone();
        tokio::spawn(async move {
            while let Some(event) = node.events.recv().await {
                let NetEvent::Founding { from, message, .. } = event else { continue };
                let answer = Founding::answer_of_member(pin.cluster, &pin.founders, from, &message);
                let _ = node.transport.send_founding(from, &answer.unwrap());
            }
        });
    }
    let mut wiped = Disk { incarnation: Incarnation(999), start: 0, pin: None };
    let mut node = start(3, &list, &mut wiped).await;
    let outcome = timeout(Duration::from_secs(10), found(&mut node, &list, &mut wiped, false)).await.unwrap();
    let Some(FoundingOutcome::Refused(FoundingRefusal::OtherIncarnation { admitted, ours, .. })) = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!((admitted, ours), (Incarnation(21), Incarnation(999)));
    assert!(wiped.pin.is_none());
}
