//! kill -9 under load: every write that was acknowledged is read back, at any node.
//!
//! `RAFT_NODE_KILLS` sets how many kills each test makes; a deep run sets thousands.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::harness::{Client, Cluster, Value};

const WRITERS: usize = 8;

fn kills(default: usize) -> usize {
    std::env::var("RAFT_NODE_KILLS").map_or(default, |text| text.parse().unwrap())
}

/// What one writer knows of its key: the last acknowledged value and those tried since.
#[derive(Debug, Default)]
struct Known {
    acked: u64,
    tried: u64,
    acks: u64,
}

/// Writes ascending numbers to a key of its own, to whichever node answers, until told to stop.
fn write(writer: usize, addresses: &[String], stop: &AtomicBool) -> Known {
    let key = format!("writer:{writer}");
    let mut known = Known::default();
    let mut at = writer;
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = client.as_mut() else {
            at += 1;
            client = Client::connect(&addresses[at % addresses.len()]).ok();
            if client.is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            continue;
        };
        known.tried += 1;
        match connected.call(&["SET", &key, &known.tried.to_string()]) {
            Ok(Value::Simple(ok)) if ok == "OK" => {
                known.acked = known.tried;
                known.acks += 1;
            }
            // Whatever it says, this value may or may not be there.
            Ok(_) | Err(_) => client = None,
        }
    }
    known
}

fn read_back(cluster: &Cluster, known: &BTreeMap<usize, Known>) {
    for node in &cluster.nodes {
        let mut client = Client::connect(&node.resp).unwrap();
        for (writer, known) in known {
            let found = match client.call(&["GET", &format!("writer:{writer}")]).unwrap() {
                Value::Bulk(Some(bytes)) => String::from_utf8(bytes).unwrap().parse().unwrap(),
                Value::Bulk(None) => 0,
                other @ (Value::Simple(_) | Value::Error(_) | Value::Integer(_) | Value::Array(_)) => {
                    panic!("n{} answered {other:?}: {}", node.id, node.log())
                }
            };
            assert!(
                (known.acked..=known.tried).contains(&found),
                "n{}: writer {writer} was acknowledged {} and tried up to {}, but {found} is there\n{}",
                node.id,
                known.acked,
                known.tried,
                node.log()
            );
        }
    }
}

/// Runs the writers while `disturb` kills and restarts, then reads everything back.
fn under_load(mut cluster: Cluster, disturb: impl FnOnce(&mut Cluster)) {
    let addresses = cluster.addresses();
    let stop = AtomicBool::new(false);
    let known: BTreeMap<usize, Known> = std::thread::scope(|scope| {
        let (addresses, stop) = (&addresses, &stop);
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(writer, addresses, stop))).collect();
        disturb(&mut cluster);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).enumerate().collect()
    });
    cluster.wait_ready(Duration::from_secs(20));
    read_back(&cluster, &known);
    let acks: u64 = known.values().map(|known| known.acks).sum();
    assert!(acks > 100, "only {acks} writes were acknowledged, that is no load");
}

fn pause(round: usize) {
    // Not always at the same point of whatever goes on.
    std::thread::sleep(Duration::from_millis(100 + (round as u64 * 37) % 200));
}

#[test]
fn one_node_killed_again_and_again_loses_nothing() {
    under_load(Cluster::start(1, &[]), |cluster| {
        for round in 0..kills(10) {
            pause(round);
            cluster.nodes[0].kill();
            cluster.nodes[0].spawn();
            cluster.wait_ready(Duration::from_secs(20));
        }
        pause(3);
    });
}

#[test]
fn the_leader_of_three_killed_again_and_again_loses_nothing() {
    under_load(Cluster::start(3, &[]), |cluster| {
        for round in 0..kills(5) {
            pause(round);
            let leader = cluster.leader();
            cluster.nodes[leader].kill();
            pause(round + 1);
            let _ = cluster.leader();
            cluster.nodes[leader].spawn();
            cluster.wait_ready(Duration::from_secs(20));
        }
        pause(3);
    });
}

#[test]
fn all_three_killed_at_once_lose_nothing() {
    under_load(Cluster::start(3, &[]), |cluster| {
        for round in 0..kills(4) {
            pause(round);
            for node in &mut cluster.nodes {
                node.kill();
            }
            for node in &mut cluster.nodes {
                node.spawn();
            }
            cluster.wait_ready(Duration::from_secs(20));
        }
        pause(3);
    });
}

#[test]
fn small_segments_and_snapshots_survive_the_same() {
    let extra = ["--segment-bytes", "64MiB", "--snapshot-log-bytes", "256KiB"];
    under_load(Cluster::start(3, &extra), |cluster| {
        for round in 0..kills(4) {
            pause(round);
            let victim = round % 3;
            cluster.nodes[victim].kill();
            pause(round + 2);
            cluster.nodes[victim].spawn();
            cluster.wait_ready(Duration::from_secs(20));
        }
        pause(3);
    });
}

/// A paused leader that wakes up must not serve what was true before (etcd #20418).
#[test]
fn a_paused_leader_does_not_serve_stale_reads() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let mut old = Client::connect(&cluster.nodes[leader].resp).unwrap();
    assert_eq!(old.call(&["SET", "k", "1"]).unwrap(), Value::Simple("OK".into()));
    cluster.nodes[leader].signal(rustix::process::Signal::STOP);
    let other = &cluster.nodes[(leader + 1) % 3];
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = Client::connect(&other.resp).unwrap();
        if client.call(&["SET", "k", "2"]).unwrap() == Value::Simple("OK".into()) {
            break;
        }
        assert!(Instant::now() < deadline, "no new leader: {}", other.log());
    }
    cluster.nodes[leader].signal(rustix::process::Signal::CONT);
    let seen = old.call(&["GET", "k"]).unwrap();
    assert_eq!(seen, Value::Bulk(Some(b"2".to_vec())), "{}", cluster.nodes[leader].log());
}

/// What is sent to a follower that fell behind fits into a frame, however small entries have to be: it once was cut into
/// appends of 1 MiB, which nobody took, and the follower stayed behind for good.
#[test]
fn a_follower_that_fell_behind_catches_up_where_entries_are_small() {
    let limits = ["--max-entry-bytes", "32KiB", "--max-value-bytes", "16KiB"];
    let cluster = Cluster::start(3, &limits);
    let leader = cluster.leader();
    let behind = &cluster.nodes[(leader + 1) % 3];
    behind.signal(rustix::process::Signal::STOP);
    let mut client = Client::connect(&cluster.nodes[leader].resp).unwrap();
    let value = "v".repeat(16_000);
    for _ in 0..100 {
        assert_eq!(client.call(&["SET", "k", &value]).unwrap(), Value::Simple("OK".into()));
    }
    behind.signal(rustix::process::Signal::CONT);
    let applied = |node: &crate::harness::Server| node.status().and_then(|status| status["applied"].as_u64());
    // The founding entries come before these.
    let last = Some(100);
    let deadline = Instant::now() + Duration::from_secs(20);
    while applied(behind) < last {
        assert!(Instant::now() < deadline, "{:?} of {last:?}: {}", applied(behind), behind.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// SIGTERM: leadership goes to somebody else before the process ends, so nobody waits for an election.
#[test]
fn a_leader_that_is_asked_to_leave_hands_over() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let mut client = Client::connect(&cluster.nodes[follower].resp).unwrap();
    assert_eq!(client.call(&["SET", "k", "1"]).unwrap(), Value::Simple("OK".into()));
    assert_eq!(cluster.nodes[leader].terminate(), Some(0), "{}", cluster.nodes[leader].log());
    assert_eq!(client.call(&["SET", "k", "2"]).unwrap(), Value::Simple("OK".into()));
    assert_eq!(client.call(&["GET", "k"]).unwrap(), Value::Bulk(Some(b"2".to_vec())));
    let log = cluster.nodes[leader].log();
    assert!(log.contains("handing over leadership"), "{log}");
}
