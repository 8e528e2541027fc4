//! Real binaries on real files and sockets: spawn, kill -9, restart, and a blocking client.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

/// A cluster of real processes in a temporary directory. Dropping it kills them.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    _dir: tempfile::TempDir,
}

/// One process, or the place where one was.
pub(crate) struct Server {
    pub(crate) id: u64,
    pub(crate) dir: PathBuf,
    pub(crate) resp: String,
    pub(crate) http: String,
    pub(crate) peer: String,
    founders: Option<String>,
    extra: Vec<String>,
    child: Option<Child>,
}

/// Ports handed out by this process, so that two tests never share one.
static PORTS: Mutex<BTreeMap<u16, ()>> = Mutex::new(BTreeMap::new());

/// A loopback address nobody listens on.
pub(crate) fn free_address() -> String {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if PORTS.lock().unwrap().insert(port, ()).is_none() {
            return format!("127.0.0.1:{port}");
        }
    }
}

impl Cluster {
    /// Spawns `size` nodes that found a cluster; one node founds it alone.
    pub(crate) fn start(size: usize, extra: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let peers: Vec<String> = (0..size).map(|_| free_address()).collect();
        let list = (1..).zip(&peers).map(|(id, peer)| format!("{id}={peer}")).collect::<Vec<_>>().join(",");
        let mut nodes: Vec<Server> = (1u64..)
            .zip(peers)
            .map(|(id, peer)| Server {
                id,
                dir: dir.path().join(format!("n{id}")),
                resp: free_address(),
                http: free_address(),
                peer,
                founders: (size > 1).then(|| list.clone()),
                extra: extra.iter().map(ToString::to_string).collect(),
                child: None,
            })
            .collect();
        for node in &mut nodes {
            node.spawn();
        }
        let cluster = Cluster { nodes, _dir: dir };
        cluster.wait_ready(Duration::from_secs(20));
        cluster
    }

    /// Waits until every live node serves.
    pub(crate) fn wait_ready(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            while !node.is_ready() {
                assert!(Instant::now() < deadline, "n{} is not ready: {}", node.id, node.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The position of the node that leads, by its own word and the highest term.
    pub(crate) fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let leading = self.nodes.iter().enumerate().filter_map(|(at, node)| {
                let status = node.status()?;
                (status["role"] == "leader").then(|| (status["term"].as_u64().unwrap_or(0), at))
            });
            if let Some((_, at)) = leading.max() {
                return at;
            }
            assert!(Instant::now() < deadline, "no leader: {}", self.nodes[0].log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The addresses clients use.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.resp.clone()).collect()
    }
}

impl Server {
    /// Starts the process. Its standard error goes to `log` beside the data directory.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "n{} runs already", self.id);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.with_extension("log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_raft-node"));
        command
            .arg("serve")
            .args(["--id", &self.id.to_string()])
            .arg("--data-dir")
            .arg(&self.dir)
            .args(["--resp", &self.resp, "--http", &self.http, "--peer", &self.peer])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(founders) = &self.founders {
            command.args(["--initial-cluster", founders]);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// For the next start.
    pub(crate) fn add_flag(&mut self, flag: &str) {
        self.extra.push(flag.to_owned());
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap().code()
    }

    /// Waits for the exit code of a process that was told to end in some other way.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.take()?.wait().unwrap().code()
    }

    /// What it is given as `--initial-cluster`.
    pub(crate) fn founders(&self) -> Option<&str> {
        self.founders.as_deref()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        if let Some(child) = &self.child {
            rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.http_get("/readyz").is_some_and(|(code, _)| code == 200)
    }

    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        let (code, body) = self.http_get("/status")?;
        (code == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    /// One GET with a short deadline; `None` if nobody answers.
    pub(crate) fn http_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A blocking Redis client that knows just enough.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Value>),
}

impl Client {
    pub(crate) fn connect(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// One command, one reply. An error of the connection leaves the outcome unknown.
    pub(crate) fn call(&mut self, args: &[&str]) -> io::Result<Value> {
        self.stream.get_mut().write_all(request(args).as_bytes())?;
        self.reply()
    }

    /// Commands sent at once, and their replies.
    pub(crate) fn pipeline(&mut self, commands: &[&[&str]]) -> io::Result<Vec<Value>> {
        let requests: String = commands.iter().map(|args| request(args)).collect();
        self.stream.get_mut().write_all(requests.as_bytes())?;
        commands.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.trim_end();
        let Some((kind, rest)) = line.split_at_checked(1) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Value::Bulk(None),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Value::Bulk(Some(bytes))
                }
            },
            "*" => Value::Array((0..number()?).map(|_| self.reply()).collect::<io::Result<_>>()?),
            other => return Err(io::Error::other(format!("unexpected reply type {other:?}"))),
        })
    }
}

fn request(args: &[&str]) -> String {
    let args = args.iter().map(|arg| format!("${}\r\n{arg}\r\n", arg.len()));
    std::iter::once(format!("*{}\r\n", args.len())).chain(args).collect()
}
