//! The binary as scripts see it: exit codes, and which stream says what.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread::{self, JoinHandle},
};

fn raft_node(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-node"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAFT_NODE_") {
            command.env_remove(name);
        }
    }
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_and_version_succeed() {
    for arguments in
        [&["--help"][..], &["-h"], &["--version"], &["help"], &["serve", "--help"], &["verify", "-h"]]
    {
        let output = raft_node(arguments);
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
    assert!(stdout(&raft_node(&["completion", "bash"])).contains("--initial-cluster"));
    assert!(stdout(&raft_node(&["man"])).contains("initial"));
    let help = stdout(&raft_node(&["serve", "--help"]));
    for flag in ["--id", "--initial-cluster", "--segment-bytes", "--log-level", "--config"] {
        assert!(help.contains(flag), "{flag}");
    }
    // What this release cannot do is not advertised.
    for flag in ["--join", "--tls-cert"] {
        assert!(!help.contains(flag), "{flag}");
    }
}

#[test]
fn usage_errors_are_64_in_every_subcommand() {
    for arguments in [
        &["nonsense"][..],
        &["--nonsense"],
        &["serve", "--id"],
        &["serve", "--id", "1", "--id", "2"],
        &["serve", "--id", "0"],
        &["serve", "--id", "x"],
        &["serve", "--join", "h:1"],
        &["serve", "--tls-cert", "f"],
        &["serve", "--cluster-redirect", "always"],
        &["serve", "--readonly-pass", "p"],
        &["serve", "--resp-tls"],
        &["serve", "--resp", "0.0.0.0:0"],
        &["--heartbeat-ms", "400"],
        &["--config", "/does/not/exist.toml"],
        &["demo", "--nonsense"],
        &["status", "extra"],
        &["get"],
        &["set", "key"],
        &["del"],
        &["verify"],
        &["config"],
        &["config", "check", "--id", "x"],
        &["config", "print", "--segment-bytes", "1"],
    ] {
        let output = raft_node(arguments);
        assert_eq!(code(&output), 64, "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_refused_configuration_is_one_sentence() {
    let output = raft_node(&["--join", "n2:7402"]);
    assert_eq!(stderr(&output), "raft-node: --join is not supported in this release\n");
}

#[test]
fn config_print_tells_where_values_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "# a comment\nheartbeat-ms = 40\nid = 7\nrequirepass = \"hush\"\n").unwrap();
    let output = command(&["config", "print", "--id", "9", "--config"])
        .arg(&file)
        .env("RAFT_NODE_HEARTBEAT_MS", "50")
        .env("RAFT_NODE_SEGMENT_BYTES", "128MiB")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let line = |key: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{text}")).split_whitespace().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(line("id"), ["9", "flag"]);
    assert_eq!(line("heartbeat-ms"), ["50", "environment"]);
    assert_eq!(line("segment-bytes"), ["128MiB", "environment"]);
    assert_eq!(line("http"), ["127.0.0.1:7401", "default"]);
    assert_eq!(line("requirepass"), ["(set)", &format!("{}:4", file.display())]);
    assert!(!text.contains("hush"));
}

#[test]
fn config_check_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "id = 1\nsegmentbytes = 5\n").unwrap();
    let output = command(&["config", "check", "--config"]).arg(&file).output().unwrap();
    assert_eq!(code(&output), 64);
    let expected = format!(
        "raft-node: {}:2: unknown key \"segmentbytes\"; did you mean \"segment-bytes\"?\n",
        file.display()
    );
    assert_eq!(stderr(&output), expected);

    let output = command(&["config", "check"]).env("RAFT_NODE_CONFIG", &file).output().unwrap();
    assert_eq!(code(&output), 64, "the variable names the file too");
    let output = command(&["config", "check"]).env("RAFT_NODE_DATADIR", "x").output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("RAFT_NODE_DATA_DIR"), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--resp", "--http", "--peer"] {
        let mut arguments = vec!["serve", "--data-dir", data.to_str().unwrap()];
        for other in ["--resp", "--http", "--peer"] {
            arguments.extend([other, if other == flag { &address } else { "127.0.0.1:0" }]);
        }
        let output = raft_node(&arguments);
        assert_eq!(code(&output), 1);
        let sentence = stderr(&output);
        assert!(sentence.contains(&address) && sentence.contains(flag), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(!data.exists());
    }
}

#[test]
fn verify_tells_what_is_no_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let output = command(&["verify"]).arg(&missing).output().unwrap();
    assert_eq!((code(&output), stdout(&output)), (3, String::new()));
    assert!(stderr(&output).contains("does not exist"));
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(code(&command(&["verify"]).arg(&file).output().unwrap()), 3);
}

#[test]
fn status_of_nobody_fails_with_the_address() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = raft_node(&["status", "--http", &nobody]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&nobody), "{}", stderr(&output));
}

/// A server that answers each connection's first command with fixed bytes, and the words it was sent.
fn answer_with(answer: &'static [u8]) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let number = |reader: &mut BufReader<TcpStream>| {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line[1..].trim().parse::<usize>().unwrap()
        };
        let mut words = Vec::new();
        for _ in 0..number(&mut reader) {
            let length = number(&mut reader);
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word).unwrap();
            word.truncate(length);
            words.push(word);
        }
        reader.get_mut().write_all(answer).unwrap();
        words
    });
    (address, server)
}

#[test]
fn values_are_printed_byte_for_byte() {
    let (address, server) = answer_with(b"$6\r\na\0\xff\r\nb\r\n");
    let output = raft_node(&["get", "k", "--resp", &address]);
    assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"a\0\xff\r\nb"[..]));
    assert_eq!(server.join().unwrap(), [b"GET".to_vec(), b"k".to_vec()]);
}

#[test]
fn a_missing_key_prints_nothing_and_is_1() {
    let (address, _server) = answer_with(b"$-1\r\n");
    let output = raft_node(&["get", "k", "--resp", &address]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert_eq!(stderr(&output), "raft-node: there is no key \"k\"\n");
}

#[test]
fn set_and_del_say_what_was_done() {
    let (address, server) = answer_with(b"+OK\r\n");
    let output = raft_node(&["set", "k", "", "--resp", &address]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "OK\n"));
    assert_eq!(server.join().unwrap(), [b"SET".to_vec(), b"k".to_vec(), b"".to_vec()]);
    let (address, _server) = answer_with(b":1\r\n");
    let output = raft_node(&["del", "k", "--resp", &address]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "1\n"));
}

#[test]
fn what_failed_and_what_is_not_known_are_told_apart() {
    let cases: [(&'static [u8], i32); 4] = [
        (b"-CLUSTERDOWN no leader\r\n", 2),
        (b"-UNKNOWN the outcome is not known\r\n", 3),
        (b"", 3),
        (b"nonsense\r\n", 3),
    ];
    for (answer, expected) in cases {
        let (address, _server) = answer_with(answer);
        let output = raft_node(&["set", "k", "v", "--resp", &address]);
        assert_eq!(code(&output), expected, "{}", stderr(&output));
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(code(&raft_node(&["set", "k", "v", "--resp", &nobody])), 2, "nothing was sent");
    let (address, _server) = answer_with(b"");
    assert_eq!(code(&raft_node(&["get", "k", "--resp", &address])), 2, "a read changes nothing");
}
