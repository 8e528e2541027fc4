//! The demonstration leaves nothing running, however it ends.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Starts a demonstration and waits for the first line of its report.
fn start(dir: &Path, base_port: u16) -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_raft-node"))
        .arg("demo")
        .arg("--dir")
        .arg(dir)
        .args(["--base-port", &base_port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> =
        BufReader::new(demo.stdout.as_mut().unwrap()).lines().take(5).map(Result::unwrap).collect();
    assert!(lines[0].contains(&format!("redis-cli -p {base_port}")), "{lines:?}");
    assert!(lines[4].contains("n1 ") && lines[4].contains("n3 "), "{lines:?}");
    demo
}

/// The first of thirty ports that nobody uses, as far as anybody can tell.
fn free_ports(offset: u32) -> u16 {
    (0..)
        .map(|attempt| 20_000 + (std::process::id() * 101 + offset * 31 + attempt * 97) % 10_000)
        .map(|port| u16::try_from(port).unwrap())
        .find(|base| all_free(*base))
        .unwrap()
}

fn all_free(base: u16) -> bool {
    (0..30)
        .filter(|offset| offset % 10 < 3)
        .all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok())
}

fn wait_until_free(base: u16) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !all_free(base) {
        assert!(Instant::now() < deadline, "something still listens at {base} to {}", base + 22);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn sigterm_ends_it_and_its_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_ports(0);
    let mut demo = start(dir.path(), base);
    kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
    assert!(demo.wait().unwrap().success());
    wait_until_free(base);
}

#[test]
fn its_nodes_end_with_it_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_ports(1);
    let mut demo = start(dir.path(), base);
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_until_free(base);
}

#[test]
fn a_port_in_use_is_said_and_nothing_is_left_running() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_ports(2);
    let taken = TcpListener::bind(("127.0.0.1", base + 11)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_raft-node"))
        .args(["demo", "--base-port", &base.to_string(), "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(sentence.contains("n2") && sentence.contains(&(base + 11).to_string()), "{sentence}");
    drop(taken);
    wait_until_free(base);
}
