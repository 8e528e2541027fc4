//! The HTTP endpoints over real sockets, with a node that is only a value.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, StartNumber, Term};
use raft_node::{
    http::{self, Limits},
    metrics::Metrics,
    status::{MemberKind, MemberStatus, Role, Status, StatusSource},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

struct Fake {
    status: Mutex<Status>,
    metrics: Metrics,
}

impl StatusSource for Fake {
    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

fn status() -> Status {
    Status {
        cluster_id: ClusterId(1),
        id: NodeId(1),
        role: Role::Leader,
        leader: Some(NodeId(1)),
        term: Term(2),
        commit: LogIndex(5),
        applied: LogIndex(5),
        first_index: LogIndex(1),
        last_index: LogIndex(5),
        snapshot_index: LogIndex(0),
        ready: true,
        not_ready_reason: None,
        uptime_s: 1,
        fsync_p50_us: 100,
        fsync_p99_us: 200,
        members: vec![MemberStatus {
            id: NodeId(1),
            kind: MemberKind::Voter,
            resp: "127.0.0.1:7400".to_owned(),
            http: "127.0.0.1:7401".to_owned(),
            peer: "127.0.0.1:7402".to_owned(),
            matched: Some(LogIndex(5)),
            lag: Some(0),
            connected: true,
        }],
        version: "0".to_owned(),
        start_number: StartNumber(1),
        incarnation: Incarnation(1),
        keys: None,
        expiring: None,
        memory_bytes: None,
        memory_bytes_max: None,
        segments: None,
        log_bytes: None,
        log_full: false,
        problems: Vec::new(),
    }
}

/// Ends the server with the test.
struct Server {
    address: SocketAddr,
    fake: Arc<Fake>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start(limits: Limits) -> Server {
    let fake = Arc::new(Fake { status: Mutex::new(status()), metrics: Metrics::new() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(http::serve_with(listener, fake.clone(), limits));
    Server { address, fake, task }
}

impl Server {
    /// Sends `head` and returns all that comes back until the server closes.
    async fn exchange(&self, head: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(head).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        let _ = read.await.expect("the server closes the connection");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn request(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let answer = self
            .exchange(
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
                    .as_bytes(),
            )
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        (code, head.to_owned(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (code, _, body) = self.request("GET", path, "").await;
        (code, body)
    }
}

#[tokio::test]
async fn every_page_answers() {
    let server = start(Limits::default()).await;
    assert_eq!(server.get("/livez").await, (200, "live\n".to_owned()));
    let (code, body) = server.get("/status").await;
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), status());
    let (_, body) = server.get("/members").await;
    assert_eq!(serde_json::from_str::<Vec<MemberStatus>>(&body).unwrap(), status().members);
    let (code, body) = server.get("/").await;
    assert!(code == 200 && body.contains("/metrics"), "{body}");
    server.fake.metrics.elections.inc();
    let (code, head, body) = server.request("GET", "/metrics", "").await;
    assert!(code == 200 && head.contains("openmetrics-text"), "{head}");
    assert!(body.contains("raft_node_elections_total 1\n") && body.contains("raft_node_term 2\n"), "{body}");
}

#[tokio::test]
async fn readiness_says_why_not() {
    let server = start(Limits::default()).await;
    assert_eq!(server.get("/readyz").await, (200, "ready\n".to_owned()));
    {
        let mut status = server.fake.status.lock().unwrap();
        (status.ready, status.leader) = (false, None);
    }
    assert_eq!(server.get("/readyz").await, (503, "not ready: no leader is known\n".to_owned()));
    let (code, _, body) = server.request("GET", "/readyz", "accept: application/json\r\n").await;
    assert_eq!((code, body.as_str()), (503, r#"{"ready":false,"reason":"no leader is known"}"#));
    {
        let mut status = server.fake.status.lock().unwrap();
        (status.leader, status.applied) = (Some(NodeId(2)), LogIndex(3));
    }
    assert_eq!(
        server.get("/readyz").await,
        (503, "not ready: catching up with n2: applied 3 of 5\n".to_owned())
    );
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn other_pages_and_methods_are_json_errors() {
    let server = start(Limits::default()).await;
    let (code, head, body) = server.request("GET", "/nothing", "").await;
    assert_eq!((code, body.as_str()), (404, r#"{"error":"there is no page /nothing"}"#));
    assert!(head.contains("content-type: application/json"), "{head}");
    let (code, head, body) = server.request("POST", "/status", "content-length: 0\r\n").await;
    assert_eq!((code, body.as_str()), (405, r#"{"error":"/status does not take POST"}"#));
    assert!(head.to_ascii_lowercase().contains("allow: get,head"), "{head}");
    assert_eq!(server.request("HEAD", "/livez", "").await.0, 200);
}

#[tokio::test]
async fn garbage_hurts_nobody() {
    let server = start(Limits::default()).await;
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    for bytes in [
        &b"\r\n\r\n\r\n\0\xff\r\n\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999999999999999\r\n\r\n",
        long_path.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let answer = server.exchange(bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_flood_of_idle_connections_keeps_nobody_out() {
    let server = start(Limits { connections_max: 8, ..Limits::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(b"GET /li").await;
        idle.push(stream);
    }
    assert_eq!(server.get("/livez").await.0, 200);
    // The oldest had to go.
    let mut buffer = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(10), idle[0].read(&mut buffer)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let server = start(Limits { head_timeout: Duration::from_millis(100), ..Limits::default() }).await;
    let answer = server.exchange(b"GET /livez HTTP/1.1\r\nhost:").await;
    assert!(!answer.contains("live"), "{answer}");
    let server = start(Limits { connection_timeout: Duration::from_millis(100), ..Limits::default() }).await;
    assert_eq!(server.exchange(b"").await, "");
}

#[tokio::test]
async fn the_status_command_shows_who_answers_and_who_does_not() {
    let server = start(Limits::default()).await;
    // Bound and dropped: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    {
        let mut status = server.fake.status.lock().unwrap();
        let second = MemberStatus {
            id: NodeId(2),
            http: nobody.to_string(),
            connected: false,
            ..status.members[0].clone()
        };
        status.members.push(second);
    }
    let asked = format!("{nobody},{}", server.address);
    let run = async |json: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_raft-node"));
        command.args(["status", "--http", &asked]).args(json.then_some("--json"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(false).await;
    assert!(text.contains("n1    voter  leader"), "{text}");
    assert!(text.contains("n2    voter  silent"), "{text}");
    assert!(text.contains("! n2 does not answer"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(true).await).unwrap();
    assert_eq!((&json["role"], &json["nodes"]["1"]["term"]), (&"leader".into(), &2.into()));
    assert!(json["nodes"]["2"]["error"].is_string());
}
