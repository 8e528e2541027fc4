//! The store against a real Redis, where one is installed: random commands, and every reply must be the same.

use std::{
    env,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{Lab, show, words};
use crate::kv::{Reply, reply};

struct Redis {
    process: Child,
    stream: UnixStream,
    received: BytesMut,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// Starts a server of its own, if there is one to start.
    fn start() -> Option<Redis> {
        let path = env::var_os("PATH")?;
        let program =
            env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|path| path.exists())?;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let process = Command::new(program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stream = connect(&socket);
        let mut redis = Redis { process, stream, received: BytesMut::new(), _dir: dir };
        redis.run(&words("HELLO 3"));
        Some(redis)
    }

    fn run(&mut self, args: &[Bytes]) -> Reply {
        let mut out = BytesMut::new();
        reply::put_length(b'*', args.len(), &mut out);
        args.iter().for_each(|arg| reply::put_bulk(arg, &mut out));
        self.stream.write_all(&out).unwrap();
        loop {
            let mut buffer = [0; 4096];
            let length = self.stream.read(&mut buffer).unwrap();
            assert!(length > 0, "Redis has closed the connection");
            self.received.extend_from_slice(&buffer[..length]);
            // One command at a time: what was received is one reply as soon as it is whole.
            match Reply::decode(&Bytes::copy_from_slice(&self.received)) {
                Ok(reply) => {
                    self.received.clear();
                    return reply;
                }
                Err(reply::DecodeError::Short) => {}
                Err(error) => panic!("{error}: {:?}", self.received),
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn connect(socket: &Path) -> UnixStream {
    for _ in 0..500 {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            return stream;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("Redis does not listen on {}", socket.display());
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn any_word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "k[0-4]",
        4 => "-?[0-9]{1,2}",
        1 => "[a-c ]{0,5}",
        2 => "-?[0-9]{1,2}\\.[0-9]{1,3}",
        1 => prop_oneof![
            Just("9223372036854775807"),
            Just("-9223372036854775808"),
            Just("9223372036854775"),
            Just("+1"),
            Just("007"),
            Just("-0"),
            Just("1e3"),
            Just("inf"),
            Just(""),
        ].prop_map(str::to_owned),
        2 => any_option(),
    ]
}

fn any_option() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "NX",
        "XX",
        "GET",
        "EX",
        "px",
        "EXAT",
        "PXAT",
        "KEEPTTL",
        "PERSIST",
        "GT",
        "LT",
        "REPLACE",
        "DB",
        "IDX",
        "LEN",
        "MINMATCHLEN",
        "WITHMATCHLEN",
        "MATCH",
        "COUNT",
        "TYPE",
        "string",
        "hash",
        "ENCODING",
        "REFCOUNT",
        "FREQ",
        "SYNC",
        "ASYNC",
    ])
    .prop_map(str::to_owned)
}

const NAMES: [&str; 53] = [
    "GET",
    "SET",
    "SET",
    "SET",
    "SETNX",
    "SETEX",
    "PSETEX",
    "GETSET",
    "GETDEL",
    "GETEX",
    "GETEX",
    "MGET",
    "MSET",
    "MSETNX",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "INCRBYFLOAT",
    "DECR",
    "DECRBY",
    "APPEND",
    "STRLEN",
    "GETRANGE",
    "GETRANGE",
    "SUBSTR",
    "SETRANGE",
    "SETRANGE",
    "LCS",
    "DEL",
    "UNLINK",
    "EXISTS",
    "TYPE",
    "EXPIRE",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "EXPIRETIME",
    "PEXPIRETIME",
    "PERSIST",
    "TTL",
    "PTTL",
    "RENAME",
    "RENAMENX",
    "COPY",
    "COPY",
    "TOUCH",
    "OBJECT",
    "DBSIZE",
    "FLUSHALL",
    "NOSUCH",
    "mget",
    "SET",
];

/// A command, with the words one would expect more often than not.
fn any_command() -> impl Strategy<Value = Vec<String>> {
    let plausible = prop_oneof![
        ("k[0-4]", any_word(), any_option(), "[1-9][0-9]{3}").prop_map(|(a, b, c, d)| vec![
            "SET".to_owned(),
            a,
            b,
            c,
            d
        ]),
        ("k[0-4]", any_word(), any_option(), any_option()).prop_map(|(a, b, c, d)| vec![
            "SET".to_owned(),
            a,
            b,
            c,
            d
        ]),
        ("k[0-4]", "[1-9][0-9]{3}", any_option()).prop_map(|(a, b, c)| vec!["EXPIRE".to_owned(), a, b, c]),
        ("k[0-4]", "-?[0-9]", "-?[0-9]").prop_map(|(a, b, c)| vec!["GETRANGE".to_owned(), a, b, c]),
        ("k[0-4]", "[0-9]{1,2}", any_word()).prop_map(|(a, b, c)| vec!["SETRANGE".to_owned(), a, b, c]),
        ("(GET|INCR|TTL|GETDEL|OBJECT ENCODING|TYPE|EXPIRETIME) k[0-4]")
            .prop_map(|line| line.split(' ').map(str::to_owned).collect()),
        ("k[0-4]", "-?[0-9]{1,3}(\\.[0-9]{1,2})?").prop_map(|(a, b)| vec!["INCRBYFLOAT".to_owned(), a, b]),
    ];
    let wild = (prop::sample::select(NAMES.to_vec()), prop::collection::vec(any_word(), 0..6))
        .prop_map(|(name, args)| std::iter::once(name.to_owned()).chain(args).collect::<Vec<_>>());
    prop_oneof![plausible, wild]
}

/// Where we differ and mean to: an expected reply of Redis, and ours instead.
fn is_known_difference(args: &[String], redis: &str, ours: &str) -> bool {
    let name = args[0].to_ascii_uppercase();
    // Milliseconds go by between the two.
    if ["PTTL", "PEXPIRETIME"].contains(&name.as_str()) {
        return redis.len() == ours.len() && !redis.starts_with('-');
    }
    match name.as_str() {
        // Redis remembers by which command a value was made; here its text decides.
        "OBJECT" => redis.starts_with('"') && ours.starts_with('"'),
        // Redis counts keys that are due until it happens to meet them.
        "DBSIZE" => redis.parse::<usize>().unwrap() > ours.parse().unwrap(),
        // A millisecond more or less, rounded to seconds.
        "TTL" | "EXPIRETIME" => {
            let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
            number(redis).zip(number(ours)).is_some_and(|(a, b)| a.abs_diff(b) <= 1)
        }
        // There is one database here.
        "COPY" => ours == "(ERR DB index is out of range)",
        // What can be told from the words alone is told before the store is looked at.
        "GETEX" => redis == "nil" && ours.starts_with('('),
        // Redis adds in binary and shows the noise; ours is the decimal sum.
        "INCRBYFLOAT" => {
            let number = |text: &str| text.trim_matches('"').parse::<f64>().ok();
            number(redis).zip(number(ours)).is_some_and(|(a, b)| (a - b).abs() <= 1e-9 * a.abs())
        }
        _ => false,
    }
}

#[test]
fn redis_answers_the_same() {
    let Some(mut redis) = Redis::start() else {
        // `cargo test` needs nothing but Rust; CI installs a Redis and insists.
        assert!(env::var_os("RAFT_NODE_REQUIRE_TOOLS").is_none(), "redis-server is missing");
        eprintln!("no redis-server on the PATH: nothing to compare with");
        return;
    };
    let count = env::var("REDIS_COMMANDS").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    let seed = env::var("REDIS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u8);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut lab = Lab::new();
    let strategy = any_command();
    let mut differences = String::new();
    for _ in 0..count {
        let command = strategy.new_tree(&mut runner).unwrap().current();
        let args: Vec<Bytes> = command.iter().map(|word| Bytes::from(word.clone())).collect();
        // A key that expires this very moment might be there for the one and gone for the other.
        while lab
            .kv
            .earliest_deadline()
            .is_some_and(|deadline| deadline.0 <= now() + 2 && lab.time <= deadline.0)
        {
            lab.time = now() - 3;
            thread::sleep(Duration::from_millis(1));
        }
        lab.time = now();
        lab.tick(0);
        let theirs = show(&redis.run(&args));
        let ours = show(&lab.run(&args));
        // A pause between the two lets keys expire for one of them alone.
        let paused = now() > lab.time + 2;
        if theirs != ours && !paused && !is_known_difference(&command, &theirs, &ours) {
            differences += &format!("{command:?}\n    Redis: {theirs}\n    ours:  {ours}\n");
        }
        if theirs != ours || differences.len() > 4000 {
            // Each difference is judged on its own.
            redis.run(&words("FLUSHALL"));
            lab.ask("FLUSHALL");
            if differences.len() > 4000 {
                break;
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}
