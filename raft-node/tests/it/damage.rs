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

/// The segments of a log, in order.
fn segments(node: &Server) -> Vec<PathBuf> {
    let names = std::fs::read_dir(&node.dir).unwrap().map(|entry| entry.unwrap().path());
    let is_segment =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wal-"));
    let mut segments: Vec<PathBuf> = names.filter(is_segment).collect();
    segments.sort();
    segments
}

/// Flips one bit in the value of a key, where the log holds it; tells in which segment that is.
fn flip(node: &Server, key: usize) -> usize {
    let value = format!("{key:0>100}").into_bytes();
    for (number, path) in segments(node).iter().enumerate() {
        let mut bytes = std::fs::read(path).unwrap();
        if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
            bytes[at + 10] ^= 0b100;
            std::fs::write(path, bytes).unwrap();
            return number;
        }
    }
    panic!("key {key} is not in the log");
}

fn verdict(node: &Server) -> Verdict {
    raft_wal::verify(&OsVfs, &node.dir).unwrap().verdict
}

fn expect_everything_everywhere(cluster: &Cluster) {
    let applied = |node: &Server| node.status().and_then(|status| status["applied"].as_u64());
    let last = applied(&cluster.nodes[cluster.leader()]);
    for node in &cluster.nodes {
        wait_for("everybody has everything", node, || applied(node) >= last);
    }
}

/// Ends every node and compares their logs.
fn expect_the_same_logs(cluster: &mut Cluster, at_least: usize) {
    expect_everything_everywhere(cluster);
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate(), Some(0));
    }
    let logs: Vec<Vec<Entry>> = cluster.nodes.iter().map(|node| entries(&node.dir)).collect();
    let shortest = logs.iter().map(Vec::len).min().unwrap();
    assert!(shortest >= at_least, "{shortest} entries");
    for log in &logs {
        assert!(log.iter().all(Entry::is_intact));
        assert_eq!(log[..shortest], logs[0][..shortest], "byte-identical entries");
    }
    for node in &cluster.nodes {
        assert_eq!(verdict(node), Verdict::Clean, "n{}", node.id);
    }
}

const SMALL_SEGMENTS: [&str; 6] =
    ["--segment-bytes", "64KiB", "--max-entry-bytes", "32KiB", "--max-value-bytes", "16KiB"];

/// Several holes, in sealed segments and in the one in use, of the node that leads: all of them are refilled.
#[test]
fn holes_in_sealed_segments_and_the_tail_of_a_leader_are_refilled() {
    let flags = [&SMALL_SEGMENTS[..], &["--verify-on-open"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let damaged = cluster.leader();
    write(&cluster.nodes[damaged], 0, 500);
    assert_eq!(cluster.nodes[damaged].terminate(), Some(0));
    let holes = [20, 21, 200, 499].map(|key| flip(&cluster.nodes[damaged], key));
    assert!(holes[0] < holes[2] && holes[2] < holes[3], "two sealed segments and the tail: {holes:?}");
    let Verdict::Damaged(damage) = verdict(&cluster.nodes[damaged]) else { panic!("no damage") };
    cluster.nodes[damaged].spawn();
    cluster.wait_ready(Duration::from_secs(20));
    let node = &cluster.nodes[damaged];
    wait_for("the log is refilled", node, || node.log().contains("the damaged log is whole again"));
    write(node, 500, 510);
    assert!(damage.promised.index.0 >= 500, "{damage}");
    expect_the_same_logs(&mut cluster, 510);
}

/// Damage that no open looks at: one pass of the scrub finds it, the node says so and what helps; that does help.
#[test]
fn damage_found_by_the_scrub_is_told_with_what_helps() {
    let mut cluster = Cluster::start(3, &SMALL_SEGMENTS);
    let damaged = (cluster.leader() + 1) % 3;
    // More than the open hands back, so that it does not read the first segment.
    let mut client = Client::connect(&cluster.nodes[damaged].resp).unwrap();
    write(&cluster.nodes[damaged], 0, 20);
    let filler = "f".repeat(16_000);
    for _ in 0..700 {
        assert_eq!(client.call(&["SET", "filler", &filler]).unwrap(), Value::Simple("OK".to_owned()));
    }
    drop(client);
    expect_everything_everywhere(&cluster);
    assert_eq!(cluster.nodes[damaged].terminate(), Some(0));
    assert_eq!(flip(&cluster.nodes[damaged], 7), 0);
    cluster.nodes[damaged].spawn();
    let node = &cluster.nodes[damaged];
    wait_for("the scrub tells", node, || node.log().contains("an acknowledged entry of the log is damaged"));
    assert!(
        !node.log().contains("this node does not lead until"),
        "the open found it already: {}",
        node.log()
    );
    // It has no snapshot, so it needs that very entry to serve: it does not, and says why.
    assert!(!node.is_ready());
    let problems = node.status().unwrap()["problems"].to_string();
    assert!(problems.contains("damaged entries") && problems.contains("--verify-on-open"), "{problems}");
    cluster.nodes[damaged].terminate();
    cluster.nodes[damaged].add_flag("--verify-on-open");
    cluster.nodes[damaged].spawn();
    cluster.wait_ready(Duration::from_secs(20));
    let node = &cluster.nodes[damaged];
    wait_for("the log is refilled", node, || node.log().contains("the damaged log is whole again"));
    expect_the_same_logs(&mut cluster, 720);
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
    assert!(damage.promised.index.0 < 140);
    expect_the_same_logs(&mut cluster, 140);
}

#[test]
fn a_lone_node_with_a_damaged_log_refuses_to_start_and_names_the_command_that_helps() {
    let mut cluster = Cluster::start(1, &[]);
    write(&cluster.nodes[0], 0, 20);
    assert_eq!(cluster.nodes[0].terminate(), Some(0));
    flip(&cluster.nodes[0], 10);
    let before = std::fs::read(&segments(&cluster.nodes[0])[0]).unwrap();
    let node = &cluster.nodes[0];
    let text = refusal(node);
    assert!(text.contains("raft-node verify") && text.contains("damaged"), "{text}");
    assert_eq!(std::fs::read(&segments(node)[0]).unwrap(), before, "nothing was changed");
}

/// What a node says that does not start.
fn refusal(node: &Server) -> String {
    let ports = ["--resp", &node.resp, "--http", &node.http, "--peer", &node.peer];
    let output = Command::new(env!("CARGO_BIN_EXE_raft-node"))
        .args(["serve", "--id", "1"])
        .args(ports)
        .arg("--data-dir")
        .arg(&node.dir)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What took a segment away may have said more, of a vote perhaps: nobody can refill that.
#[test]
fn a_log_that_lacks_a_file_is_refused_with_what_helps() {
    let mut cluster = Cluster::start(1, &SMALL_SEGMENTS);
    write(&cluster.nodes[0], 0, 1500);
    assert_eq!(cluster.nodes[0].terminate(), Some(0));
    let node = &cluster.nodes[0];
    let gone = segments(node).remove(1);
    std::fs::remove_file(&gone).unwrap();
    let before = segments(node);
    let text = refusal(node);
    for word in [&*gone.to_string_lossy(), "the file is missing", "raft-node verify", "empty directory"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(segments(node), before);
}

/// What `verify` and `dump` end with, as scripts see it: 0 clean, 1 torn, 2 damaged, 3 no data directory, 4 nothing
/// concluded.
#[test]
fn verify_and_dump_say_by_their_exit_code_what_they_found() {
    let run = |task: &str, node: &Server| {
        let output = Command::new(env!("CARGO_BIN_EXE_raft-node")).arg(task).arg(&node.dir).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
    };
    let mut cluster = Cluster::start(1, &["--segment-bytes", "64MiB", "--snapshot-log-bytes", "64KiB"]);
    assert_eq!(run("verify", &cluster.nodes[0]).0, 4, "a directory in use");
    assert_eq!(run("dump", &cluster.nodes[0]).0, 4, "a directory in use");
    write(&cluster.nodes[0], 0, 800);
    wait_for("a snapshot", &cluster.nodes[0], || cluster.nodes[0].log().contains("snapshot taken"));
    assert_eq!(cluster.nodes[0].terminate(), Some(0));
    let node = &cluster.nodes[0];
    let (code, text) = run("verify", node);
    assert_eq!((code, text.contains("clean")), (0, true), "{text}");
    assert_eq!(run("dump", node).0, 0);

    let path = segments(node).remove(0);
    let clean = std::fs::read(&path).unwrap();
    let value_at = |key: usize| {
        let value = format!("{key:0>100}").into_bytes();
        clean.windows(value.len()).rposition(|window| window == value).unwrap()
    };
    let check = |bytes: &[u8], expected: i32, words: &[&str]| {
        std::fs::write(&path, bytes).unwrap();
        let (code, text) = run("verify", node);
        assert_eq!(code, expected, "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "verify changed the segment");
        run("dump", node).0
    };
    // Everything behind the middle of the last value was never written.
    let mut torn = clean.clone();
    torn[value_at(799) + 50..].fill(0);
    check(&torn, 1, &["unfinished write", "harmless"]);
    let mut damaged = clean.clone();
    damaged[value_at(795)] ^= 1;
    assert_eq!(check(&damaged, 2, &["damaged", "wal-0000000000000001.log", "byte", "entries"]), 2);
    let mut newer = clean.clone();
    for copy in [0, 2048] {
        newer[copy + 8] = 2;
        let fitting = crc32fast::hash(&[&newer[copy..copy + 12], &newer[copy + 16..copy + 232]].concat());
        newer[copy + 12..copy + 16].copy_from_slice(&fitting.to_le_bytes());
    }
    assert_eq!(check(&newer, 4, &["format version 2"]), 4);
    check(&clean, 0, &["clean"]);

    flip_in_snapshot(node);
    let (code, text) = run("verify", node);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("snapshot-") && text.contains("chunk"), "{text}");
    // A lone node does not start on it either, and names the file.
    let mut node = cluster.nodes.remove(0);
    node.spawn();
    let words = ["snapshot-", "unusable", "raft-node verify"];
    wait_for("it refuses", &node, || words.iter().all(|word| node.log().contains(word)));
}

/// Flips one bit in the middle of the newest snapshot, and tells which file that is.
fn flip_in_snapshot(node: &Server) -> PathBuf {
    let names = std::fs::read_dir(&node.dir).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = names.filter(|path| path.extension().is_some_and(|end| end == "snap")).max().unwrap();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    snapshot
}

fn expect_values(node: &Server, keys: std::ops::Range<usize>) {
    let mut client = Client::connect(&node.resp).unwrap();
    for key in keys {
        let value = format!("{key:0>100}").into_bytes();
        let found = client.call(&["GET", &format!("key:{key}")]).unwrap();
        assert_eq!(found, Value::Bulk(Some(value)), "key {key} at n{}", node.id);
    }
}

/// The leader has a damaged snapshot too, and does not know: what it sends is refused, and it takes another. It sent the same
/// file again once a second for ever.
#[test]
fn a_leader_whose_own_snapshot_is_damaged_takes_another() {
    let flags = [&SMALL_SEGMENTS[..], &["--snapshot-log-bytes", "64KiB"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let damaged = (cluster.leader() + 1) % 3;
    write(&cluster.nodes[damaged], 0, 2000);
    expect_everything_everywhere(&cluster);
    for place in 0..3 {
        let node = &cluster.nodes[place];
        wait_for("a snapshot", node, || node.log().contains("snapshot taken"));
    }
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate(), Some(0));
    }
    flip_in_snapshot(&cluster.nodes[damaged]);
    let others = [(damaged + 1) % 3, (damaged + 2) % 3];
    for place in others {
        cluster.nodes[place].spawn();
    }
    // They run: whichever leads, now or later, does not look at its file any more.
    cluster.leader();
    for place in others {
        flip_in_snapshot(&cluster.nodes[place]);
    }
    cluster.nodes[damaged].spawn();
    let node = &cluster.nodes[damaged];
    wait_for("it is replaced", node, || node.log().contains("the damaged snapshot is replaced"));
    assert!(others.iter().any(|place| cluster.nodes[*place].log().contains("arrived damaged")));
    expect_values(node, 0..2000);
}

/// Bits that flip in a node's newest snapshot: it starts, serves nothing, deletes nothing, gets another one from its
/// leader, applies its own log behind it, and is a node like any other.
#[test]
fn a_damaged_snapshot_is_replaced_by_the_leaders() {
    let flags = [&SMALL_SEGMENTS[..], &["--snapshot-log-bytes", "64KiB"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let damaged = (cluster.leader() + 1) % 3;
    write(&cluster.nodes[damaged], 0, 2000);
    expect_everything_everywhere(&cluster);
    wait_for("a snapshot", &cluster.nodes[damaged], || {
        cluster.nodes[damaged].log().contains("snapshot taken")
    });
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate(), Some(0));
    }
    let snapshot = flip_in_snapshot(&cluster.nodes[damaged]);
    let before = std::fs::read(&snapshot).unwrap();
    assert!(matches!(verdict(&cluster.nodes[damaged]), Verdict::Corrupt(_)));

    // Alone it waits: there is nothing to read yet, and the damaged file stays.
    cluster.nodes[damaged].spawn();
    let node = &cluster.nodes[damaged];
    wait_for("it tells", node, || node.log().contains("the snapshot is damaged"));
    wait_for("it answers", node, || node.status().is_some_and(|status| status["applied"] == 0));
    assert!(!node.is_ready());
    let problems = node.status().unwrap()["problems"].to_string();
    assert!(problems.contains("its snapshot is damaged"), "{problems}");
    let mut client = Client::connect(&node.resp).unwrap();
    assert_eq!(client.call(&["CLIENT", "CONSISTENCY", "stale"]).unwrap(), Value::Simple("OK".to_owned()));
    let read = client.call(&["GET", "key:7"]).unwrap();
    assert!(matches!(read, Value::Error(_)), "a stale read of no state: {read:?}");
    assert_eq!(std::fs::read(&snapshot).unwrap(), before);

    for place in [(damaged + 1) % 3, (damaged + 2) % 3] {
        cluster.nodes[place].spawn();
    }
    cluster.wait_ready(Duration::from_secs(20));
    let node = &cluster.nodes[damaged];
    wait_for("it is replaced", node, || node.log().contains("the damaged snapshot is replaced"));
    write(node, 2000, 2050);
    // It takes part again: with it alone beside it, any other node commits.
    let other = (damaged + 2) % 3;
    cluster.nodes[other].kill();
    let leader = cluster.leader();
    write(&cluster.nodes[leader], 2050, 2100);
    expect_values(&cluster.nodes[damaged], 0..2100);
    // And what it has now survives.
    assert_eq!(cluster.nodes[damaged].terminate(), Some(0));
    assert_eq!(verdict(&cluster.nodes[damaged]), Verdict::Clean);
    cluster.nodes[damaged].spawn();
    cluster.nodes[other].spawn();
    cluster.wait_ready(Duration::from_secs(20));
    expect_values(&cluster.nodes[damaged], 0..2100);
    assert_eq!(cluster.nodes[damaged].log().matches("the snapshot is damaged").count(), 1);
}
