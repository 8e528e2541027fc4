#!/usr/bin/env python3
"""Real Redis clients against the real binary: redis-py (RESP2 and RESP3), redis-cli, redis-benchmark, strace.

    cargo build --release && python3 raft-node/tests/clients/run.py

Needs redis-py, redis-tools and strace; fails if one is missing. Nothing is skipped.
"""
import json, os, shutil, signal, socket, subprocess, sys, tempfile, time, traceback, urllib.request

import redis

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BINARY = os.environ.get("RAFT_NODE", os.path.join(ROOT, "target/release/raft-node"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """One node; `prefix` is put before the command, as strace needs it."""

    def __init__(self, directory, prefix=(), number=1, founders=None, ports=None, extra=()):
        self.directory, self.prefix, self.number, self.founders = directory, list(prefix), number, founders
        self.extra = list(extra)
        self.resp, self.http, self.peer = ports or [free_port() for _ in range(3)]
        self.process = None

    def start(self, ready=True):
        command = self.prefix + [BINARY, "serve", "--id", str(self.number), "--data-dir", self.directory]
        for flag, port in (("--resp", self.resp), ("--http", self.http), ("--peer", self.peer)):
            command += [flag, f"127.0.0.1:{port}"]
        if self.founders:
            command += ["--initial-cluster", self.founders]
        command += self.extra
        self.log = self.directory + ".log"
        log = open(self.log, "a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, limit=20):
        deadline = time.monotonic() + limit
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=1).read()
                return
            except OSError:
                assert self.process.poll() is None, open(self.log).read()
                assert time.monotonic() < deadline, "not ready: " + open(self.log).read()
                time.sleep(0.02)

    def status(self):
        return json.loads(urllib.request.urlopen(f"http://127.0.0.1:{self.http}/status", timeout=1).read())

    def kill(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def client(self, **options):
        return redis.Redis(port=self.resp, socket_timeout=10, **options)


class Lab:
    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="raft-clients-")
        self.servers = []

    def server(self, name, **options):
        self.servers.append(Server(os.path.join(self.root, name), **options))
        return self.servers[-1]

    def three(self):
        ports = [[free_port() for _ in range(3)] for _ in range(3)]
        founders = ",".join(f"{i + 1}=127.0.0.1:{p[2]}" for i, p in enumerate(ports))
        nodes = [self.server(f"n{i + 1}", number=i + 1, founders=founders, ports=p) for i, p in enumerate(ports)]
        for node in nodes:
            node.start(ready=False)
        for node in nodes:
            node.wait_ready()
        return nodes

    def close(self):
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.root)


def refused(error, call, *args, **options):
    try:
        call(*args, **options)
    except error as caught:
        return str(caught)
    raise AssertionError("was not refused")


def test_a_read_never_sees_a_key_past_its_deadline(lab):
    """A linearizable read behind a deadline waits for the entry that tells the time, at every node."""
    nodes = lab.three()
    clients = [node.client() for node in nodes]
    late = []
    for turn in range(40):
        for r in clients:
            key = f"k{turn}"
            clients[0].set(key, "v", px=30)
            begin = time.monotonic()
            while time.monotonic() - begin < 0.031 + 0.001 * (turn % 4):
                pass
            if r.get(key) is not None:
                late.append((turn, clients.index(r)))
    assert not late, late


def test_a_stale_read_with_a_bound_is_refused_once_the_node_is_cut_off(lab):
    """CLIENT CONSISTENCY stale MAXLAG: served while the bound holds, refused when nothing proves it any more."""
    nodes = lab.three()
    leader = nodes[0].status()["leader"]
    others = [node for node in nodes if node.number != leader]
    reader = others[0].client(single_connection_client=True)
    reader.set("k", "1")
    assert reader.execute_command("CLIENT", "CONSISTENCY", "stale", "MAXLAG", "500") in (b"OK", True)
    assert reader.get("k") == b"1"
    for node in nodes:
        if node is not others[0]:
            node.process.send_signal(signal.SIGSTOP)
    assert reader.get("k") == b"1", "within the bound nobody is asked"
    time.sleep(0.6)
    text = refused(redis.exceptions.ClusterDownError, reader.get, "k")
    assert "no leader" in text, text
    assert reader.execute_command("CLIENT", "CONSISTENCY", "stale") in (b"OK", True)
    assert reader.get("k") == b"1", "without a bound anything goes"
    for node in nodes:
        node.process.send_signal(signal.SIGCONT)


def test_the_time_left_counts_down_while_nothing_is_written(lab):
    """TTL at every node, and on its own: no write, no other read."""
    nodes = lab.three()
    nodes[0].client().set("k", "v", ex=100)
    time.sleep(2.2)
    for node in nodes:
        assert 96 <= node.client().ttl("k") <= 98, node.client().ttl("k")


def peak_mib(server):
    """The most memory the process ever had."""
    for line in open(f"/proc/{server.process.pid}/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024


def test_a_few_bytes_do_not_make_gigabytes(lab):
    """MGET, transactions and pipelines that name one large value a thousand times."""
    nodes = lab.three()
    r = nodes[0].client()
    r.set("big", b"x" * (1 << 20))
    assert "larger than 64 MiB" in refused(redis.ResponseError, r.mget, ["big"] * 1000)
    with r.pipeline() as pipe:
        for _ in range(1000):
            pipe.get("big")
        replies = pipe.execute(raise_on_error=False)
    whole = sum(isinstance(reply, bytes) for reply in replies)
    assert 28 <= whole <= 32 and all("32 MiB" in str(reply) for reply in replies[whole:]), whole
    with socket.create_connection(("127.0.0.1", nodes[0].resp)) as s:
        s.sendall(b"GETEX big\r\n" * 1000)
        time.sleep(2)
        assert r.get("big") == b"x" * (1 << 20), "others are served"
    # 512 MiB for replies that wait at the node that was asked, and what builds them.
    assert peak_mib(nodes[0]) < 800, peak_mib(nodes[0])
    assert all(peak_mib(node) < 300 for node in nodes[1:]), [peak_mib(node) for node in nodes]


def test_a_lone_node_on_a_full_disk(lab):
    """No space for the third file of the log: writes are refused with the reason, reads and deletes go on."""
    small = ["--segment-bytes", "1MiB", "--max-entry-bytes", "64KiB", "--max-value-bytes", "32KiB"]
    full = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fallocate",
            "-e", "inject=fallocate:error=ENOSPC:when=3+"]
    server = lab.server("full", prefix=full, extra=small).start()
    r = server.client(retry=None)
    acked, text = 0, ""
    for i in range(400):
        try:
            r.set(f"k{i}", b"v" * 10_000)
            acked += 1
        except redis.ResponseError as error:
            text = str(error)
            break
    assert acked > 5 and "no space left" in text, (acked, text)
    assert all(r.get(f"k{i}") == b"v" * 10_000 for i in range(acked))
    assert r.delete("k0") == 1 and server.status()["log_full"]
    server.kill()
    server.prefix = []
    server.start()
    r = server.client()
    assert r.get("k0") is None and all(r.get(f"k{i}") for i in range(1, acked)) and r.set("k0", "v")


def test_redis_py(lab):
    """The commands of redis-py, over both protocols, on one node."""
    server = lab.server("redis-py").start()
    for protocol in (2, 3):
        r = server.client(protocol=protocol, decode_responses=True)
        r.flushall()
        assert r.ping() and r.echo("hi") == "hi"
        assert r.set("a", "1") and r.get("a") == "1" and r.get("none") is None
        assert r.set("a", "2", nx=True) is None and r.set("b", "2", xx=True) is None
        assert r.set("a", "3", get=True) == "1" and r.get("a") == "3"
        assert r.incr("n") == 1 and r.incrby("n", 41) == 42 and r.decr("n") == 41
        assert float(r.incrbyfloat("f", 0.5)) == 0.5
        assert "not an integer" in refused(redis.ResponseError, r.incr, "f")
        assert r.append("s", "abc") == 3 and r.strlen("s") == 3
        assert r.mset({"x": "1", "y": "2"}) and r.mget("x", "none", "y") == ["1", None, "2"]
        assert r.exists("x", "y", "none") == 2 and r.type("x") == "string" and r.type("none") == "none"
        assert r.delete("x", "none") == 1
        assert r.set("t", "v", ex=100) and 95 < r.ttl("t") <= 100 and r.persist("t") and r.ttl("t") == -1
        assert r.expire("t", 100) and r.pttl("t") > 95_000 and r.ttl("none") == -2
        assert r.pexpire("t", 50)
        deadline = time.monotonic() + 5
        while r.get("t") is not None:
            assert time.monotonic() < deadline, "never expired"
            time.sleep(0.01)
        for i in range(100):
            r.set(f"scan:{i}", i)
        assert len(set(r.scan_iter("scan:*", count=7))) == 100 and len(r.keys("scan:*")) == 100
        before = r.dbsize()
        r.set("one-more", 1)
        assert r.dbsize() == before + 1
        with r.pipeline(transaction=True) as pipe:
            assert pipe.set("p", "1").incr("p").get("p").execute() == [True, 2, "2"]
        with r.pipeline() as pipe:
            pipe.watch("p")
            r.set("p", "10")
            pipe.multi()
            pipe.set("p", "11")
            refused(redis.WatchError, pipe.execute)
        assert r.get("p") == "10"
        with r.pipeline() as pipe:
            pipe.watch("p")
            pipe.multi()
            pipe.set("p", "12")
            assert pipe.execute() == [True]
        with r.pipeline(transaction=False) as pipe:
            for i in range(1000):
                pipe.set(f"pipe:{i}", i)
            assert all(pipe.execute())
        assert "unknown command" in refused(redis.ResponseError, r.execute_command, "NOSUCH", "x")
        assert "wrong number of arguments" in refused(redis.ResponseError, r.execute_command, "GET")
        assert r.info()["redis_version"] and r.client_id() > 0 and r.role()[0] in ("master", b"master")
        assert r.config_get("save") is not None and r.command_count() > 50
        big = "x" * (1 << 20)
        assert r.set("big", big) and r.get("big") == big
        binary = server.client(protocol=protocol)
        blob = bytes(range(256)) * 10
        assert binary.set(blob, blob) and binary.get(blob) == blob


def test_any_node_answers(lab):
    """Writes and reads at every node of three, each seeing the others' writes at once."""
    nodes = lab.three()
    clients = [node.client(decode_responses=True) for node in nodes]
    for i in range(60):
        assert clients[i % 3].set("turn", i)
        for client in clients:
            assert client.get("turn") == str(i)
    with clients[0].pipeline() as pipe:
        pipe.watch("turn")
        clients[1].set("turn", "other")
        pipe.multi()
        pipe.set("turn", "mine")
        refused(redis.WatchError, pipe.execute)


def test_redis_cli(lab):
    """redis-cli: one command, a script, inline text, and garbage."""
    server = lab.server("cli").start()

    def cli(*args, stdin=None):
        command = ["redis-cli", "-p", str(server.resp), *args]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20).stdout.strip()

    assert cli("SET", "k", "v") == "OK" and cli("GET", "k") == "v" and cli("-3", "HELLO")
    assert cli(stdin="SET a 1\nINCR a\nGET a\n").split() == ["OK", "2", "2"]
    assert cli("--scan", "--pattern", "*").split() and "role:master" in cli("INFO", "replication")
    with socket.create_connection(("127.0.0.1", server.resp)) as s:
        s.sendall(b"PING\r\nSET inline yes\r\n")
        assert s.recv(100).startswith(b"+PONG\r\n")
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"*1\r\n$-5\r\n", b"*99999999999\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        for port in (server.resp, server.peer, server.http):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                try:
                    while s.recv(4096):
                        pass
                except OSError:
                    pass
    assert cli("GET", "k") == "v"


def test_redis_benchmark(lab):
    """redis-benchmark runs to its end without a word of complaint."""
    server = lab.server("benchmark").start()
    command = ["redis-benchmark", "-p", str(server.resp), "-t", "ping,set,get,incr,mset", "-n", "5000", "-c", "20", "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "rror" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert '"SET"' in done.stdout


def test_ack_waits_for_fdatasync(lab):
    """Every answer to a SET is preceded by an fdatasync that began after the request was read (strace)."""
    trace = os.path.join(lab.root, "trace")
    server = lab.server("strace", prefix=["strace", "-f", "-qq", "-e", "trace=fdatasync", "-o", trace]).start()
    r = server.client()
    begin = sum("fdatasync" in line for line in open(trace))
    for i in range(50):
        r.set("k", i)
    count = sum("fdatasync" in line for line in open(trace)) - begin
    assert count >= 50, f"50 writes one after the other, {count} fdatasyncs"


def test_failed_fdatasync_is_final(lab):
    """EIO at the n-th fdatasync: the node ends with a sentence, acknowledges nothing more, and starts again whole."""
    for nth in (12, 20, 33):
        server = lab.server(f"eio-{nth}", prefix=["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync",
                            "-e", f"inject=fdatasync:error=EIO:when={nth}+"])
        server.start(ready=False)
        acked = -1
        deadline = time.monotonic() + 20
        while server.process.poll() is None and time.monotonic() < deadline:
            try:
                r = server.client(retry=None)
                for i in range(acked + 1, 1000):
                    r.set("k", i)
                    acked = i
            except (redis.RedisError, OSError):
                time.sleep(0.02)
        assert server.process.poll() not in (None, 0), f"still runs after EIO (acked {acked})"
        log = open(server.log).read()
        assert "panicked" not in log and ("nput/output error" in log or "os error 5" in log), log
        server.prefix = []
        server.start()
        found = server.client().get("k")
        found = -1 if found is None else int(found)
        assert acked <= found <= acked + 1, f"acknowledged {acked}, found {found}"


def main():
    names = sys.argv[1:] or [name for name in globals() if name.startswith("test_")]
    failed = 0
    for name in names:
        lab = Lab()
        try:
            globals()[name](lab)
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
            for server in lab.servers:
                print(f"-- {server.log}\n" + open(server.log).read()[-2000:] if os.path.exists(server.log) else "")
        finally:
            lab.close()
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
