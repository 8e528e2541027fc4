//! What operators do to running nodes and to their directories, and what they and their clients are told.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::harness::{Client, Cluster, Server, Value, free_address};

/// Starts a node that is expected to end at once.
fn refused(node: &Server, extra: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_raft-node"))
        .args(["serve", "--id", &node.id.to_string(), "--resp", &node.resp, "--http", &node.http])
        .args(["--peer", &node.peer])
        .args(extra)
        .arg("--data-dir")
        .arg(&node.dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

fn verify(node: &Server) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raft-node")).arg("verify").arg(&node.dir).output().unwrap()
}

fn remove_log(node: &Server) {
    for entry in std::fs::read_dir(&node.dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// A node whose log was removed once came back as if it had never voted, and a lone one as if it had never had data.
#[test]
fn a_node_that_lost_its_log_does_not_start() {
    for size in [1, 3] {
        let mut cluster = Cluster::start(size, &[]);
        let node = &mut cluster.nodes[0];
        node.terminate();
        remove_log(node);
        let list = node.founders().map(str::to_owned);
        let extra: Vec<&str> = list.iter().flat_map(|list| ["--initial-cluster", list.as_str()]).collect();
        let text = refused(node, &extra);
        assert!(text.contains("has lost its log"), "{text}");
        let checked = verify(node);
        assert_eq!(checked.status.code(), Some(2), "{checked:?}");
        assert!(String::from_utf8_lossy(&checked.stderr).contains("lost its log"), "{checked:?}");
    }
}

#[test]
fn verify_misses_an_identity() {
    let mut cluster = Cluster::start(1, &[]);
    let node = &mut cluster.nodes[0];
    node.terminate();
    assert_eq!(verify(node).status.code(), Some(0));
    std::fs::remove_file(node.dir.join("identity")).unwrap();
    let checked = verify(node);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains("identity file is missing"), "{checked:?}");
}

/// A lone node that was to become one of three went on alone, and said nothing.
#[test]
fn a_directory_is_not_started_as_one_of_other_founders() {
    let mut cluster = Cluster::start(1, &[]);
    let node = &mut cluster.nodes[0];
    node.terminate();
    let list = format!("1={},2={}", node.peer, free_address());
    let text = refused(node, &["--initial-cluster", &list]);
    assert!(text.contains("was founded by n1, but --initial-cluster names n1, n2"), "{text}");
}

#[test]
fn clients_and_operators_are_told_whom_founding_waits_for() {
    let mut cluster = Cluster::start(1, &[]);
    let node = &mut cluster.nodes[0];
    node.terminate();
    std::fs::remove_dir_all(&node.dir).unwrap();
    let missing = free_address();
    let list = format!("1={},2={missing}", node.peer);
    node.add_flag("--initial-cluster");
    node.add_flag(&list);
    node.spawn();
    let wanted = format!("founding the cluster, waiting for n2 ({missing})");
    let deadline = Instant::now() + Duration::from_secs(10);
    let told = loop {
        let asked = Client::connect(&node.resp).and_then(|mut client| client.call(&["SET", "k", "v"]));
        match asked {
            Ok(Value::Error(text)) if text.contains(&missing) => break text,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(told, format!("CLUSTERDOWN no leader: {wanted}"));
    let shown = Command::new(env!("CARGO_BIN_EXE_raft-node")).args(["status", "--http", &node.http]).output();
    assert_eq!(
        String::from_utf8(shown.unwrap().stdout).unwrap(),
        format!("n1 does not serve yet: {wanted}\n")
    );
}

/// A closed terminal once was as sudden as a kill -9.
#[test]
fn a_closed_terminal_is_as_good_as_being_asked_to_leave() {
    let mut cluster = Cluster::start(1, &[]);
    let node = &mut cluster.nodes[0];
    node.signal(Signal::HUP);
    assert_eq!(node.wait(), Some(0));
    assert!(node.log().contains("leaving signal=\"SIGHUP\""), "{}", node.log());
}

/// `WAIT` once counted by a status some milliseconds old, from before the write.
#[test]
fn wait_counts_no_member_that_lacks_the_write() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let mut client = Client::connect(&cluster.nodes[leader].resp).unwrap();
    let follower = &cluster.nodes[(leader + 1) % 3];
    for _ in 0..10 {
        client.call(&["SET", "k", "v"]).unwrap();
        assert_eq!(client.call(&["WAIT", "2", "5000"]).unwrap(), Value::Integer(2), "{}", follower.log());
        follower.signal(Signal::STOP);
        let replies = client.pipeline(&[&["SET", "k", "v"], &["WAIT", "2", "1"]]).unwrap();
        follower.signal(Signal::CONT);
        assert_eq!(replies, [Value::Simple("OK".into()), Value::Integer(1)]);
    }
}

/// Right after its death a voter's log is as far as any: a leader that left handed over to it, and waited in vain.
#[test]
fn a_leader_does_not_hand_over_to_the_dead() {
    for dead in [1, 2] {
        let mut cluster = Cluster::start(3, &[]);
        let leader = cluster.leader();
        let alive = &cluster.nodes[(leader + 3 - dead) % 3];
        let mut client = Client::connect(&alive.resp).unwrap();
        assert_eq!(client.call(&["SET", "k", "1"]).unwrap(), Value::Simple("OK".into()));
        cluster.nodes[(leader + dead) % 3].kill();
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(cluster.nodes[leader].terminate(), Some(0));
        let log = cluster.nodes[leader].log();
        let alive = &cluster.nodes[(leader + 3 - dead) % 3];
        assert!(log.contains(&format!("handing over leadership to=n{}", alive.id)), "{log}");
    }
}
