use super::*;

fn flags(pairs: &[(&'static str, &str)]) -> Flags {
    pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> File {
    File { path: PathBuf::from("node.toml"), text: text.to_owned() }
}

fn from_flags(pairs: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
    load(&flags(pairs), &BTreeMap::new(), None)
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    load(&Flags::new(), &BTreeMap::new(), Some(&file(text)))
}

fn sentence(result: Result<Config, ConfigError>) -> String {
    result.expect_err("this must be refused").to_string()
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let config = Config::defaults();
    assert_eq!(config.id, NodeId(1));
    assert_eq!(config.data_dir, PathBuf::from("./raft-data"));
    assert_eq!(config.resp.to_string(), "127.0.0.1:7400");
    assert_eq!(config.http.to_string(), "127.0.0.1:7401");
    assert_eq!(config.peer.to_string(), "127.0.0.1:7402");
    assert_eq!((config.heartbeat_ms, config.election_timeout_ms), (100, 500));
    assert_eq!((config.segment_bytes, config.snapshot_log_bytes), (64 << 20, 64 << 20));
    assert_eq!((config.entry_bytes_max, config.value_bytes_max), (32 << 20, 16 << 20));
    assert!(config.memory_bytes_max.is_none() && config.memory_bytes_max() > 0);
    assert!(!config.insecure && !config.verify_on_open);
    assert!(config.table.iter().all(|row| row.origin == Origin::Default));
}

/// Every subset of the three sources: the strongest present one wins.
#[test]
fn file_then_environment_then_flag() {
    for mask in 0..8 {
        let (in_file, in_environment, in_flags) = (mask & 1 != 0, mask & 2 != 0, mask & 4 != 0);
        let file = file("\nheartbeat-ms = 11\n");
        let environment = environment(&[("RAFT_NODE_HEARTBEAT_MS", "22")]);
        let flags = flags(&[("heartbeat-ms", "33")]);
        let config = load(
            if in_flags { &flags } else { const { &Flags::new() } },
            if in_environment { &environment } else { const { &BTreeMap::new() } },
            in_file.then_some(&file),
        )
        .unwrap();
        let (value, origin) = match (in_file, in_environment, in_flags) {
            (_, _, true) => (33, Origin::Flag),
            (_, true, false) => (22, Origin::Environment),
            (true, false, false) => (11, Origin::File { path: "node.toml".into(), line: 2 }),
            (false, false, false) => (100, Origin::Default),
        };
        assert_eq!(config.heartbeat_ms, value, "mask {mask}");
        let row = config.table.iter().find(|row| row.key == "heartbeat-ms").unwrap();
        assert_eq!((row.value.as_deref(), &row.origin), (Some(value.to_string().as_str()), &origin));
    }
}

#[test]
fn every_setting_can_be_given_in_every_way() {
    let samples = [
        ("id", "2"),
        ("data-dir", "\"d\""),
        ("resp", "\"127.0.0.1:1\""),
        ("http", "\"127.0.0.1:2\""),
        ("peer", "\"127.0.0.1:3\""),
        ("advertise-resp", "\"h:1\""),
        ("advertise-http", "\"h:2\""),
        ("advertise-peer", "\"h:3\""),
        ("initial-cluster", "\"1=a:7402,2=b:7402\""),
        ("insecure", "true"),
        ("verify-on-open", "true"),
        ("cluster-redirect", "\"never\""),
        ("heartbeat-ms", "50"),
        ("election-timeout-ms", "5000"),
        ("segment-bytes", "\"128MiB\""),
        ("snapshot-log-bytes", "1048576"),
        ("max-entry-bytes", "\"24MiB\""),
        ("max-value-bytes", "\"1MiB\""),
        ("max-memory-bytes", "\"1GiB\""),
        ("requirepass", "\"p\""),
        ("log-format", "\"json\""),
        ("log-level", "\"debug\""),
    ];
    for setting in SETTINGS {
        let sample = samples.iter().find(|(key, _)| *key == setting.key);
        let Some((key, toml)) = sample else {
            assert_eq!(setting.supported, Supported::No, "no sample for {}", setting.key);
            continue;
        };
        let text = toml.trim_matches('"');
        let given = |result: Result<Config, ConfigError>| {
            let config = result.unwrap_or_else(|error| panic!("{key}: {error}"));
            config.table.iter().find(|row| row.key == *key).unwrap().origin.clone()
        };
        assert!(matches!(given(from_file(&format!("{key} = {toml}"))), Origin::File { line: 1, .. }));
        assert_eq!(given(from_flags(&[(key, text)])), Origin::Flag);
        let environment = environment(&[(setting.variable().as_str(), text)]);
        assert_eq!(given(load(&Flags::new(), &environment, None)), Origin::Environment);
    }
}

#[test]
fn unknown_keys_are_named_with_what_was_meant() {
    assert_eq!(
        sentence(from_file("id = 1\n\nhartbeat-ms = 5\n")),
        "node.toml:3: unknown key \"hartbeat-ms\"; did you mean \"heartbeat-ms\"?"
    );
    assert_eq!(
        sentence(from_file("data_dir = \"x\"")),
        "node.toml:1: unknown key \"data_dir\"; did you mean \"data-dir\"?"
    );
    assert_eq!(sentence(from_file("colour = 1")), "node.toml:1: unknown key \"colour\"");
    assert_eq!(sentence(from_file("[serve]\nid = 1")), "node.toml:1: unknown key \"serve\"");
}

#[test]
fn syntax_errors_and_duplicates_name_the_line() {
    let duplicate = sentence(from_file("id = 1\nhttp = \"127.0.0.1:1\"\nid = 2\n"));
    assert!(duplicate.starts_with("node.toml:3: duplicate key"), "{duplicate}");
    let syntax = sentence(from_file("id = 1\nhttp = \n"));
    assert!(syntax.starts_with("node.toml:2: "), "{syntax}");
}

#[test]
fn type_errors_name_key_value_and_what_is_expected() {
    assert_eq!(
        sentence(from_file("heartbeat-ms = \"fast\"")),
        "node.toml:1: heartbeat-ms: \"fast\" is not valid; expected a whole number of milliseconds"
    );
    assert_eq!(
        sentence(from_file("insecure = 1")),
        "node.toml:1: insecure: 1 is not valid; expected true or false"
    );
    assert_eq!(
        sentence(from_flags(&[("segment-bytes", "64MB")])),
        "--segment-bytes: \"64MB\" is not valid; expected a number of bytes or a size like 64MiB"
    );
    let environment = environment(&[("RAFT_NODE_LOG_FORMAT", "xml")]);
    assert_eq!(
        sentence(load(&Flags::new(), &environment, None)),
        "RAFT_NODE_LOG_FORMAT: \"xml\" is not valid; expected one of text, json"
    );
    assert_eq!(
        sentence(from_flags(&[("http", "example.org:80")])),
        "--http: \"example.org:80\" is not valid; expected an address like 127.0.0.1:7400"
    );
    for bad in ["0", "-1", "1.5", "", "18446744073709551616"] {
        assert!(sentence(from_flags(&[("id", bad)])).starts_with("--id: "), "{bad}");
    }
    for bad in ["loud", "info,raft_net=loud", ""] {
        assert!(from_flags(&[("log-level", bad)]).is_err(), "{bad}");
    }
    assert!(from_flags(&[("log-level", "warn,raft_net=debug")]).is_ok());
}

#[test]
fn secrets_are_never_shown() {
    let config = from_flags(&[("requirepass", "hush")]).unwrap();
    assert_eq!(config.requirepass.as_ref().map(Secret::reveal), Some("hush"));
    assert!(!format!("{config:?}").contains("hush"));
    let wrong_type = sentence(from_file("requirepass = 4711"));
    assert!(!wrong_type.contains("4711"), "{wrong_type}");
}

#[test]
fn settings_of_later_releases_are_refused_by_name() {
    for (key, value) in [
        ("join", "h:1"),
        ("tls-cert", "f"),
        ("tls-key", "f"),
        ("tls-ca", "f"),
        ("readonly-pass", "p"),
        ("resp-tls", "true"),
    ] {
        let refused = from_flags(&[(key, value)]);
        assert!(matches!(refused, Err(ConfigError::NotSupported { .. })), "{key}");
        assert_eq!(sentence(refused), format!("--{key} is not supported in this release"));
    }
    assert_eq!(
        sentence(from_flags(&[("cluster-redirect", "always")])),
        "--cluster-redirect always is not supported in this release"
    );
    assert!(from_flags(&[("resp-tls", "false")]).is_ok());
}

#[test]
fn plaintext_beyond_this_machine_needs_to_be_permitted() {
    assert_eq!(
        sentence(from_flags(&[("resp", "0.0.0.0:7400")])),
        "--resp 0.0.0.0:7400 would speak plaintext beyond this machine; give --insecure to permit it"
    );
    assert!(from_flags(&[("resp", "0.0.0.0:7400"), ("insecure", "true")]).is_ok());
    assert!(from_flags(&[("resp", "[::1]:7400")]).is_ok());
}

#[test]
fn limits_are_checked_together() {
    for (pairs, part) in [
        (&[("heartbeat-ms", "300")][..], "at least two heartbeats"),
        (&[("segment-bytes", "32MiB")], "two of the largest entries"),
        (&[("segment-bytes", "67108865")], "multiple of 4KiB"),
        (&[("segment-bytes", "2GiB")], "from 64KiB to 1GiB"),
        (&[("max-value-bytes", "32MiB")], "too large for an entry"),
        (&[("http", "127.0.0.1:7400")], "--resp and --http are both 127.0.0.1:7400"),
    ] {
        let sentence = sentence(from_flags(pairs));
        assert!(sentence.contains(part), "{pairs:?}: {sentence}");
    }
    let small = [("segment-bytes", "1MiB"), ("max-entry-bytes", "512KiB"), ("max-value-bytes", "256KiB")];
    assert!(from_flags(&small).is_ok());
    assert!(from_flags(&[("http", "127.0.0.1:0"), ("resp", "127.0.0.1:0")]).is_ok());
}

#[test]
fn a_founder_finds_itself_in_the_list() {
    let list = ("initial-cluster", "1=a:7402,2=b:7412,3=c:7422");
    let config = from_flags(&[list]).unwrap();
    assert_eq!(config.advertise_peer.as_deref(), Some("a:7402"));
    assert_eq!(config.initial_cluster.unwrap().len(), 3);

    assert_eq!(
        sentence(from_flags(&[list, ("id", "4")])),
        "--initial-cluster does not name this node: --id is 4"
    );
    assert!(sentence(from_flags(&[list, ("id", "2")])).contains("give --advertise-peer b:7412"));
    assert!(from_flags(&[list, ("id", "2"), ("advertise-peer", "b:7412")]).is_ok());
    assert!(from_flags(&[list, ("id", "2"), ("peer", "127.0.0.1:7412")]).is_ok());
    assert!(sentence(from_flags(&[list, ("advertise-peer", "x:1")])).contains("has this node at a:7402"));
    assert!(from_file("initial-cluster = [\"1=a:7402\", \"2=b:7412\"]").is_ok());
}

#[test]
fn variables_that_are_nearly_ours_are_pointed_out() {
    let names = environment(&[("RAFT_NODE_DATADIR", "x"), ("RAFT_NODE_SERVICE_HOST", "x"), ("HOME", "x")]);
    let config = load(&Flags::new(), &names, None).unwrap();
    assert_eq!(
        config.warnings,
        ["the environment variable RAFT_NODE_DATADIR means nothing; did you mean RAFT_NODE_DATA_DIR?"]
    );
}
