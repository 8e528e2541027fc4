//! The whole front end over real sockets, in front of a store in memory.

use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{FrontEnd, Options, memory::MemoryBackend};
use crate::error::ClientError;

struct Node {
    front: FrontEnd<MemoryBackend>,
    backend: MemoryBackend,
}

async fn node(delay: Duration, options: Options) -> Node {
    let backend = MemoryBackend::start(delay);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = FrontEnd::start(listener, backend.clone(), options).unwrap();
    Node { front, backend }
}

async fn quick() -> Node {
    node(Duration::ZERO, Options::default()).await
}

impl Node {
    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.front.address()).await.unwrap())
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Asserts that exactly these bytes come next.
    async fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        let mut got = vec![0; wanted.len()];
        match timeout(DEADLINE, self.0.read_exact(&mut got)).await {
            Ok(Ok(_)) => assert_eq!(show(&got), show(wanted)),
            Ok(Err(error)) => panic!("closed before {:?} came: {error}", show(wanted)),
            Err(_) => panic!("nothing came instead of {:?}", show(wanted)),
        }
    }

    async fn check(&mut self, line: &str, wanted: &str) {
        self.send(format!("{line}\r\n")).await;
        self.expect(wanted).await;
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(timeout(DEADLINE, self.0.read_u8()).await.unwrap().unwrap());
        }
        show(&line)
    }

    async fn line_feed(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(timeout(DEADLINE, self.0.read_u8()).await.unwrap().unwrap());
        }
        show(&line)
    }

    /// Everything up to the end of the stream.
    async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = timeout(DEADLINE, self.0.read_to_end(&mut rest)).await.expect("the connection is closed");
        rest
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn array(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

const DEADLINE: Duration = Duration::from_secs(20);

/// A web page can have a browser post commands to an address of its own machine.
#[tokio::test]
async fn nothing_behind_the_head_of_an_http_request_is_run() {
    let node = quick().await;
    for head in ["POST / HTTP/1.1", "GET / HTTP/1.1\r\nHost: localhost", "get x\r\nhost: localhost"] {
        let mut client = node.connect().await;
        client.send(format!("{head}\r\nSET stolen yes\r\n\r\nSET stolen yes\r\n")).await;
        let answer = show(&client.rest().await);
        assert!(answer.ends_with("HTTP is served at the address given with --http\r\n"), "{head}: {answer}");
    }
    node.connect().await.check("EXISTS stolen", ":0\r\n").await;
}

#[tokio::test]
async fn simple_commands() {
    let node = quick().await;
    let mut client = node.connect().await;
    for (line, reply) in [
        ("PING", "+PONG\r\n"),
        ("ping 'a b'", "$3\r\na b\r\n"),
        ("echo x", "$1\r\nx\r\n"),
        ("SET k v", "+OK\r\n"),
        ("get k", "$1\r\nv\r\n"),
        ("GET none", "$-1\r\n"),
        ("DBSIZE", ":1\r\n"),
        ("INCR k", "-ERR value is not an integer or out of range\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("FOO a b", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        ("SELECT x", "-ERR value is not an integer or out of range\r\n"),
        ("WAIT 0 10", ":0\r\n"),
        ("RAFT.BARRIER", "+OK\r\n"),
        ("RAFT.SNAPSHOT", "-ERR 'RAFT.SNAPSHOT' is not supported in this release\r\n"),
        ("CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n"),
        ("READONLY", "+OK\r\n"),
        ("GET k", "$1\r\nv\r\n"),
        ("READWRITE", "+OK\r\n"),
        ("CONFIG GET sav*", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG SET maxmemory-policy noeviction", "+OK\r\n"),
        ("DEBUG SLEEP 0", "+OK\r\n"),
        ("DEBUG SEGFAULT", "-ERR only DEBUG SLEEP is supported\r\n"),
        (
            "AUTH x",
            "-ERR AUTH <password> called without any password configured for the default user. Are you \
                    sure your configuration is correct?\r\n",
        ),
        ("CLIENT CONSISTENCY stale MAXLAG 100", "+OK\r\n"),
        ("CLIENT CONSISTENCY lease", "+OK\r\n"),
        ("CLIENT CONSISTENCY other", "-ERR syntax error\r\n"),
        ("CLIENT NOPE", "-ERR unknown subcommand 'NOPE'. Try CLIENT HELP.\r\n"),
        (
            "CLIENT SETNAME 'a b'",
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        ),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ("CLIENT ID", ":1\r\n"),
        ("RESET", "+RESET\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("QUIT", "+OK\r\n"),
    ] {
        client.check(line, reply).await;
    }
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn hello_chooses_the_protocol() {
    let node = quick().await;
    let mut client = node.connect().await;
    client.check("HELLO 4", "-NOPROTO unsupported protocol version\r\n").await;
    client.check("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n").await;
    client.check("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n").await;
    client
        .check(
            "HELLO 3 AUTH default anything SETNAME me",
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n\
             $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
        )
        .await;
    client.check("GET none", "_\r\n").await;
    client.check("CONFIG GET appendonly", "%1\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n").await;
    client.check("CLIENT GETNAME", "$2\r\nme\r\n").await;
    client.send("HELLO 2\r\n").await;
    assert_eq!(client.line().await, "*14\r\n");
}

#[tokio::test]
async fn strangers_must_authenticate() {
    let node = node(Duration::ZERO, Options { password: Some("secret".into()), ..Options::default() }).await;
    let mut client = node.connect().await;
    client.check("GET k", "-NOAUTH Authentication required.\r\n").await;
    client.check("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    client
        .check("AUTH other secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        .await;
    client.send("HELLO 3\r\n").await;
    assert!(client.line().await.starts_with("-NOAUTH HELLO must be called"));
    client.check("AUTH secret", "+OK\r\n").await;
    client.check("GET k", "$-1\r\n").await;
    client.check("RESET", "+RESET\r\n").await;
    client.check("GET k", "-NOAUTH Authentication required.\r\n").await;
    client.send("*1\r\n$20000\r\n").await;
    assert_eq!(show(&client.rest().await), "-ERR Protocol error: unauthenticated bulk length\r\n");
}

#[tokio::test]
async fn a_pipeline_keeps_its_order() {
    let node = node(Duration::from_millis(2), Options::default()).await;
    let client = node.connect().await;
    let mut sent = Vec::new();
    let mut wanted = String::new();
    for round in 0..10_000 {
        // Reads must see the writes before them and none behind them, although the store runs reads first.
        match round % 5 {
            0 => {
                sent.extend(array(&["SET", "k", &round.to_string()]));
                wanted += "+OK\r\n";
            }
            1 => {
                sent.extend(array(&["GET", "k"]));
                let value = (round - 1).to_string();
                wanted += &format!("${}\r\n{value}\r\n", value.len());
            }
            2 => {
                sent.extend(array(&["PING"]));
                wanted += "+PONG\r\n";
            }
            3 if round % 500 == 3 => {
                sent.extend(array(&["KEYS", "*"]));
                wanted += "*1\r\n$1\r\nk\r\n";
            }
            3 => {
                sent.extend(array(&["EXISTS", "k", "none"]));
                wanted += ":1\r\n";
            }
            _ => {
                sent.extend(array(&["NOPE"]));
                wanted += "-ERR unknown command 'NOPE', with args beginning with: \r\n";
            }
        }
    }
    let (mut receiving, mut sending) = client.0.into_split();
    let writer = tokio::spawn(async move {
        sending.write_all(&sent).await.unwrap();
        sending
    });
    let mut got = vec![0; wanted.len()];
    timeout(DEADLINE * 3, receiving.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == wanted.as_bytes(), "the replies are not those of the commands in their order");
    writer.await.unwrap();
}

#[tokio::test]
async fn any_fragmentation_gives_the_same_replies() {
    let node = quick().await;
    let request = [
        array(&["SET", "a", "1"]),
        b"INCR a\r\n".to_vec(),
        array(&["GET", "a"]),
        array(&["MSET", "a", "1", "b", ""]),
        b"\r\n*0\r\n".to_vec(),
        array(&["MGET", "a", "b", "c"]),
    ]
    .concat();
    let wanted = "+OK\r\n:2\r\n$1\r\n2\r\n+OK\r\n*3\r\n$1\r\n1\r\n$0\r\n\r\n$-1\r\n";
    for cut in 0..=request.len() {
        let mut client = node.connect().await;
        client.send(&request[..cut]).await;
        tokio::task::yield_now().await;
        client.send(&request[cut..]).await;
        client.expect(wanted).await;
    }
    let mut client = node.connect().await;
    client.0.set_nodelay(true).unwrap();
    for byte in &request {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    client.expect(wanted).await;
}

#[tokio::test]
async fn transactions() {
    let node = node(Duration::from_millis(1), Options::default()).await;
    let mut client = node.connect().await;
    let mut other = node.connect().await;
    for (line, reply) in [
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
        ("MULTI", "+OK\r\n"),
        ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
        ("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n"),
        ("SET a 1", "+QUEUED\r\n"),
        ("PING", "+QUEUED\r\n"),
        ("GET a", "+QUEUED\r\n"),
        ("INCR a", "+QUEUED\r\n"),
        ("EXEC", "*4\r\n+OK\r\n+PONG\r\n$1\r\n1\r\n:2\r\n"),
        ("GET a", "$1\r\n2\r\n"),
        ("MULTI", "+OK\r\n"),
        ("EXEC", "*0\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a", "-ERR wrong number of arguments for 'set' command\r\n"),
        ("SET a 5", "+QUEUED\r\n"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 5", "+QUEUED\r\n"),
        ("DISCARD", "+OK\r\n"),
        ("GET a", "$1\r\n2\r\n"),
        ("MULTI", "+OK\r\n"),
        ("INCR b", "+QUEUED\r\n"),
        ("SET c x", "+QUEUED\r\n"),
        ("INCR c", "+QUEUED\r\n"),
        ("EXEC", "*3\r\n:1\r\n+OK\r\n-ERR value is not an integer or out of range\r\n"),
        ("WATCH a", "+OK\r\n"),
    ] {
        client.check(line, reply).await;
    }
    other.check("SET a 9", "+OK\r\n").await;
    client.send("MULTI\r\nSET a 5\r\nEXEC\r\n").await;
    client.expect("+OK\r\n+QUEUED\r\n*-1\r\n").await;
    // The watch is over.
    client.send("MULTI\r\nSET a 5\r\nEXEC\r\n").await;
    client.expect("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n").await;
    client.send("WATCH a none\r\nMULTI\r\nGET a\r\nEXEC\r\n").await;
    client.expect("+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n5\r\n").await;
    client.check("WATCH a", "+OK\r\n").await;
    other.check("DEL a", ":1\r\n").await;
    client.send("UNWATCH\r\nMULTI\r\nPING\r\nSET a 6\r\nEXEC\r\n").await;
    client.expect("+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n+OK\r\n").await;
    client.send("HELLO 3\r\nWATCH a\r\nSET a 7\r\nMULTI\r\nEXEC\r\n").await;
    for _ in 0..26 {
        client.line().await;
    }
    client.expect("+OK\r\n+OK\r\n+OK\r\n_\r\n").await;
}

#[tokio::test]
async fn a_watch_that_failed_does_not_let_the_transaction_run() {
    let node = quick().await;
    let mut client = node.connect().await;
    node.backend.fail(Some(ClientError::NoLeader));
    client.send("WATCH a\r\n").await;
    assert!(client.line().await.starts_with("-CLUSTERDOWN no leader: "));
    node.backend.fail(None);
    client.send("MULTI\r\nSET a 1\r\nEXEC\r\n").await;
    client.expect("+OK\r\n+QUEUED\r\n-EXECABORT Transaction discarded because WATCH failed.\r\n").await;
}

#[tokio::test]
async fn failures_are_told_apart() {
    let node = quick().await;
    let mut client = node.connect().await;
    for (error, code) in [
        (ClientError::NotLeader, "-TRYAGAIN "),
        (ClientError::NoLeader, "-CLUSTERDOWN no leader: "),
        (ClientError::Busy, "-BUSY "),
        (ClientError::OutcomeUnknown, "-UNKNOWN "),
        (ClientError::DiskFull, "-MISCONF no space left "),
        (ClientError::OutOfMemory, "-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        (ClientError::ShuttingDown, "-CLUSTERDOWN "),
    ] {
        node.backend.fail(Some(error));
        client.send("SET a 1\r\nGET a\r\nGET b\r\n").await;
        for _ in 0..3 {
            let line = client.line().await;
            assert!(line.starts_with(code), "{line}");
        }
    }
}

#[tokio::test]
async fn client_reply_silences() {
    let node = quick().await;
    let mut client = node.connect().await;
    client.send("CLIENT REPLY OFF\r\nPING\r\nSET a 1\r\nGET a\r\nNOPE\r\nCLIENT REPLY ON\r\nGET a\r\n").await;
    client.expect("+OK\r\n$1\r\n1\r\n").await;
    client.send("CLIENT REPLY SKIP\r\nINCR a\r\nINCR a\r\nCLIENT REPLY SKIP\r\nGET a\r\nPING\r\n").await;
    client.expect(":3\r\n+PONG\r\n").await;
}

#[tokio::test]
async fn clients_see_and_end_each_other() {
    let node = quick().await;
    let mut client = node.connect().await;
    let mut other = node.connect().await;
    other.check("CLIENT SETNAME worker", "+OK\r\n").await;
    client.send("CLIENT LIST\r\n").await;
    assert!(client.line().await.starts_with('$'));
    let lines = client.line_feed().await + &client.line().await;
    assert!(
        lines.starts_with("id=1 ") && lines.contains("\nid=2 ") && lines.contains(" name=worker "),
        "{lines}"
    );
    client.check("CLIENT KILL ID 99", ":0\r\n").await;
    client.check("CLIENT KILL ID 2", ":1\r\n").await;
    assert!(other.rest().await.is_empty());
    client.check("CLIENT KILL 1.2.3.4:5", "-ERR No such client\r\n").await;
    client.check("CLIENT KILL TYPE normal SKIPME no", ":1\r\n").await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn too_many_clients_are_told() {
    let node = node(Duration::ZERO, Options { clients_max: 1, ..Options::default() }).await;
    let mut first = node.connect().await;
    first.check("PING", "+PONG\r\n").await;
    assert_eq!(show(&node.connect().await.rest().await), "-ERR max number of clients reached\r\n");
    drop(first);
    while node.front.connected() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.connect().await.check("PING", "+PONG\r\n").await;
}

#[tokio::test]
async fn garbage_is_answered_and_closed() {
    let node = quick().await;
    for (bytes, reply) in [
        (&b"PING\r\n*1\r\nx\r\n"[..], "+PONG\r\n-ERR Protocol error: expected '$', got 'x'\r\n"),
        (b"SET a 1\r\n*x\r\n", "+OK\r\n-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$600000000\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"get \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ] {
        let mut client = node.connect().await;
        client.send(bytes).await;
        assert_eq!(show(&client.rest().await), reply);
    }
}

#[tokio::test]
async fn large_values_pass_and_too_large_ones_do_not() {
    let node = quick().await;
    let mut client = node.connect().await;
    let value = "v".repeat(3 << 20);
    for _ in 0..3 {
        client.send(array(&["SET", "large", &value])).await;
        client.expect("+OK\r\n").await;
    }
    client.send("GET large\r\nGET large\r\nGET large\r\n").await;
    for _ in 0..3 {
        client.expect(format!("${}\r\n{value}\r\n", value.len())).await;
    }
    client.check("STRLEN large", ":3145728\r\n").await;
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$16777217\r\n").await;
    assert_eq!(show(&client.rest().await), "-ERR Protocol error: invalid bulk length\r\n");
}

/// It was once cut off in the middle of its value, and never knew why.
#[tokio::test]
async fn who_sends_too_large_a_value_whole_is_told_so() {
    let node = quick().await;
    let mut client = node.connect().await;
    client.send(array(&["SET", "large", &"v".repeat(20 << 20)])).await;
    client.expect("-ERR Protocol error: invalid bulk length\r\n").await;
}

#[tokio::test]
async fn memory_for_large_requests_is_shared() {
    let node = node(Duration::ZERO, Options { buffers_bytes_max: 1 << 20, ..Options::default() }).await;
    let mut client = node.connect().await;
    client.send(b"*2\r\n$3\r\nGET\r\n$8000000\r\n").await;
    // It is closed while we still send.
    let _ = client.0.write_all(&vec![b'x'; 7_000_000]).await;
    drop(client);
    node.connect().await.check("PING", "+PONG\r\n").await;
}

#[tokio::test]
async fn who_takes_no_replies_is_closed_and_others_are_served() {
    let stall_timeout = Duration::from_millis(300);
    let node = node(Duration::ZERO, Options { stall_timeout, ..Options::default() }).await;
    let mut slow = node.connect().await;
    slow.send(array(&["SET", "k", &"v".repeat(1 << 20)])).await;
    slow.expect("+OK\r\n").await;
    slow.send("GET k\r\n".repeat(200)).await;
    let mut other = node.connect().await;
    other.check("PING", "+PONG\r\n").await;
    while node.front.connected() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.check("PING", "+PONG\r\n").await;
}

#[tokio::test]
async fn large_replies_that_nobody_takes_are_bounded_together() {
    let node = node(Duration::ZERO, Options { buffers_bytes_max: 12 << 20, ..Options::default() }).await;
    let mut client = node.connect().await;
    client.send(array(&["SET", "k", &"v".repeat(5 << 20)])).await;
    client.expect("+OK\r\n").await;
    let mut greedy = Vec::new();
    for _ in 0..30 {
        let mut one = node.connect().await;
        one.send("GET k\r\n").await;
        greedy.push(one);
    }
    let mut refused = 0;
    for one in &mut greedy {
        let first = one.line().await;
        assert!(first == "$5242880\r\n" || first.starts_with("-BUSY"), "{first}");
        refused += usize::from(first.starts_with("-BUSY"));
    }
    // Whoever got the beginning of a reply is cut off where there was no room for the rest.
    while node.front.connected() > 10 + refused {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.check("PING", "+PONG\r\n").await;
}

#[tokio::test]
async fn half_a_request_times_out_but_idling_does_not() {
    let stall_timeout = Duration::from_millis(200);
    let node = node(Duration::ZERO, Options { stall_timeout, ..Options::default() }).await;
    let mut idle = node.connect().await;
    idle.check("PING", "+PONG\r\n").await;
    let mut half = node.connect().await;
    half.send("*2\r\n$3\r\nGE").await;
    assert!(half.rest().await.is_empty());
    idle.check("PING", "+PONG\r\n").await;
}

#[tokio::test]
async fn replies_come_after_the_client_has_closed_its_side() {
    let node = node(Duration::from_millis(5), Options::default()).await;
    let mut client = node.connect().await;
    client.send("SET a 1\r\nGET a\r\nGET").await;
    client.0.shutdown().await.unwrap();
    assert_eq!(show(&client.rest().await), "+OK\r\n$1\r\n1\r\n");
}

// It kept its task and its place among the clients for ever.
#[tokio::test]
async fn who_has_gone_is_not_waited_for_without_end() {
    let stall_timeout = Duration::from_millis(200);
    let node = node(Duration::ZERO, Options { stall_timeout, ..Options::default() }).await;
    let mut client = node.connect().await;
    client.send("WAIT 9 0\r\n").await;
    client.0.shutdown().await.unwrap();
    assert!(client.rest().await.is_empty());
    while node.front.connected() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// Behind a slow command transactions piled up, of which only the word EXEC was counted.
#[tokio::test]
async fn transactions_under_way_count_with_all_that_was_queued() {
    let options = Options { in_flight_bytes_max: 100_000, ..Options::default() };
    let node = node(Duration::ZERO, options).await;
    let mut client = node.connect().await;
    client.send("DEBUG SLEEP 60\r\n").await;
    let value = "v".repeat(30_000);
    let one = [array(&["MULTI"]), array(&["ECHO", &value]), array(&["GET", "k"]), array(&["EXEC"])].concat();
    client.send(one.repeat(20)).await;
    let commands = || node.front.counters().commands.load(std::sync::atomic::Ordering::Relaxed);
    // The fourth transaction fills it.
    while commands() < 1 + 4 * 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(commands(), 1 + 4 * 4);
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way() {
    let node = node(Duration::from_millis(50), Options::default()).await;
    let mut client = node.connect().await;
    client.send("SET a 1\r\n").await;
    while node.front.counters().commands.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let address = node.front.address();
    node.front.shutdown(DEADLINE).await;
    assert_eq!(show(&client.rest().await), "+OK\r\n");
    assert!(TcpStream::connect(address).await.is_err());
}

/// The replies to `pieces`, one write each, up to the end.
fn converse(pieces: Vec<Vec<u8>>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = quick().await;
        let mut client = node.connect().await;
        for piece in pieces {
            // It may be closed already, for good reason.
            if client.0.write_all(&piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.0.shutdown().await;
        client.rest().await
    })
}

fn any_piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "(SET|GET|INCR|APPEND|DEL) [ab]( [0-9]{1,3})?".prop_map(|line| {
            array(&line.split(' ').collect::<Vec<_>>())
        }),
        2 => "(multi|exec|discard|watch a|unwatch|ping|client reply skip|hello 3|hello 2|reset|config get s\\*)"
            .prop_map(|line| format!("{line}\r\n").into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => "[*$][0-9]{0,2}(\r\n)?".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces(
        bytes in proptest::collection::vec(any_piece(), 0..24).prop_map(|pieces| pieces.concat()),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let whole = converse(vec![bytes.clone()]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces = places.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect();
        prop_assert_eq!(show(&whole), show(&converse(pieces)));
    }
}
