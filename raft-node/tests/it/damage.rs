//! Bits that flip in the log of a node: it refills from the cluster, or says what helps.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use raft_core::{Entry, LogIndex};
use raft_wal::{Dumped, Verdict, vfs::OsVfs};

use crate::harness::{Client, Cluster, Server, Value};

/// Writes keys `from..to` at any node and waits for each acknowledgement.
fn write(node: &Server, from: usize, to: usize) {
    let mut client = Client::connect(&node.resp).unwrap();
    for key in from..to {
        let value = format!("{key:0>100}");
        assert_eq!(
            client.call(&["SET", &format!("key:{key}"), &value]).unwrap(),
            Value::Simple("OK".to_owned())
        );
    }
}

/// The first segment of a log.
fn segment(node: &Server) -> PathBuf {
    let names = std::fs::read_dir(&node.dir).unwrap().map(|entry| entry.unwrap().path());
    let is_segment =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wal-"));
    names.filter(is_segment).min().unwrap()
}

/// Flips one bit in the value of a key, where the log holds it.
fn flip(node: &Server, key: usize) {
    let path = segment(node);
    let mut bytes = std::fs::read(&path).unwrap();
    let value = format!("{key:0>100}").into_bytes();
    let at = bytes.windows(value.len()).position(|window| window == value).expect("the value is in the log");
    bytes[at + 10] ^= 0b100;
    std::fs::write(&path, bytes).unwrap();
}

/// Every entry on disk, the last one written for each index.
fn entries(dir: &Path) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let drop_behind =
        |entries: &mut Vec<Entry>, last: LogIndex| entries.retain(|entry| entry.id.index <= last);
    for record in raft_wal::dump(&OsVfs, dir).unwrap() {
        // What follows damage in an old segment is not part of the log; the new segment begins with the cut.
        let Ok(record) = record else { continue };
        match record.content {
            Dumped::Entry(entry) => {
                drop_behind(&mut entries, entry.id.index.prev());
                entries.push(entry);
            }
            Dumped::Cut { .. }
            | Dumped::Segment { .. }
            | Dumped::Mark { .. }
            | Dumped::Commit { .. }
            | Dumped::Seal { .. } => {}
        }
    }
    entries
}

fn wait_for(what: &str, node: &Server, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: {}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn bits_that_flip_in_acknowledged_entries_are_refilled_from_the_leader() {
    let mut cluster = Cluster::start(3, &[]);
    let damaged = (cluster.leader() + 1) % 3;
    write(&cluster.nodes[damaged], 0, 100);
    assert_eq!(cluster.nodes[damaged].terminate(), Some(0));
    flip(&cluster.nodes[damaged], 30);
    let verdict = raft_wal::verify(&OsVfs, &cluster.nodes[damaged].dir).unwrap().verdict;
    let Verdict::Damaged(damage) = verdict else { panic!("{verdict:?}") };
    // The others go on meanwhile.
    write(&cluster.nodes[(damaged + 1) % 3], 100, 120);
    cluster.nodes[damaged].spawn();
    cluster.wait_ready(Duration::from_secs(20));
    let node = &cluster.nodes[damaged];
    wait_for("the log is refilled", node, || node.log().contains("the damaged log is whole again"));
    assert!(node.log().contains("the log is damaged"), "{}", node.log());
    // It takes part again: with it alone beside it, any other node commits.
    let other = (damaged + 2) % 3;
    cluster.nodes[other].kill();
    let leader = cluster.leader();
    write(&cluster.nodes[leader], 120, 140);
    let mut client = Client::connect(&cluster.nodes[damaged].resp).unwrap();
    for key in [0, 30, 99, 119, 139] {
        let value = format!("{key:0>100}").into_bytes();
        assert_eq!(client.call(&["GET", &format!("key:{key}")]).unwrap(), Value::Bulk(Some(value)));
    }
    cluster.nodes[other].spawn();
    cluster.wait_ready(Duration::from_secs(20));
    let applied = |node: &Server| node.status().and_then(|status| status["applied"].as_u64());
    let last = applied(&cluster.nodes[leader]);
    for node in &cluster.nodes {
        wait_for("everybody has everything", node, || applied(node) >= last);
    }
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate(), Some(0));
    }
    let logs: Vec<Vec<Entry>> = cluster.nodes.iter().map(|node| entries(&node.dir)).collect();
    let shortest = logs.iter().map(Vec::len).min().unwrap();
    assert!(shortest as u64 >= 140 && shortest as u64 > damage.promised.index.0, "{shortest}");
    for log in &logs {
        assert!(log.iter().all(Entry::is_intact));
        assert_eq!(log[..shortest], logs[0][..shortest], "byte-identical entries");
    }
    let verdict = raft_wal::verify(&OsVfs, &cluster.nodes[damaged].dir).unwrap().verdict;
    assert_eq!(verdict, Verdict::Clean);
}

#[test]
fn a_lone_node_with_a_damaged_log_refuses_to_start_and_names_the_command_that_helps() {
    let mut cluster = Cluster::start(1, &[]);
    write(&cluster.nodes[0], 0, 20);
    assert_eq!(cluster.nodes[0].terminate(), Some(0));
    flip(&cluster.nodes[0], 10);
    let before = std::fs::read(segment(&cluster.nodes[0])).unwrap();
    let node = &cluster.nodes[0];
    let output = Command::new(env!("CARGO_BIN_EXE_raft-node"))
        .args([
            "serve",
            "--id",
            "1",
            "--resp",
            &node.resp,
            "--http",
            &node.http,
            "--peer",
            &node.peer,
            "--data-dir",
        ])
        .arg(&node.dir)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("raft-node verify") && text.contains("damaged"), "{text}");
    assert_eq!(std::fs::read(segment(node)).unwrap(), before, "nothing was changed");
}
