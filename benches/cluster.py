#!/usr/bin/env python3
"""Measures real clusters of the release binary with redis-benchmark, all on this machine.

    cargo build --release && python3 benches/cluster.py [throughput] [failover] [restart] [idle] [hostile]

Prints one JSON object a line. Throughput runs are interleaved and the median of `RUNS` is given with its spread; the disk
is probed before and after each part, since machines differ and are shared.
"""
import json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.environ.get("RAFT_NODE", os.path.join(ROOT, "target/release/raft-node"))
RUNS = int(os.environ.get("RUNS", "3"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    def __init__(self, directory, number, ports, founders):
        self.dir, self.number, self.ports, self.founders = directory, number, ports, founders
        self.process = None

    def start(self):
        resp, http, peer = (f"127.0.0.1:{p}" for p in self.ports)
        command = [BINARY, "serve", "--id", str(self.number), "--data-dir", self.dir]
        command += ["--resp", resp, "--http", http, "--peer", peer]
        if self.founders:
            command += ["--initial-cluster", self.founders]
        log = open(self.dir + ".log", "a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}{path}", timeout=1) as reply:
            return reply.read()

    def ready(self):
        try:
            self.get("/readyz")
            return True
        except OSError:
            return False

    def status(self):
        return json.loads(self.get("/status"))

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk_bytes(self):
        """Everything, and of it what only waits to be used: spare files, and segments prepared behind those in use."""
        sizes = {entry.name: entry.stat().st_blocks * 512 for entry in os.scandir(self.dir)}
        segments = sorted(name for name in sizes if name.startswith("wal-"))
        spare = [name for name in sizes if name.startswith("spare-")] + segments[self.status()["segments"]:]
        return sum(sizes.values()), sum(sizes[name] for name in spare)


class Cluster:
    def __init__(self, size):
        self.root = tempfile.mkdtemp(prefix="raft-measure-", dir=os.environ.get("MEASURE_DIR"))
        ports = [[free_port() for _ in range(3)] for _ in range(size)]
        founders = ",".join(f"{i + 1}=127.0.0.1:{p[2]}" for i, p in enumerate(ports)) if size > 1 else None
        self.nodes = [Node(os.path.join(self.root, f"n{i + 1}"), i + 1, p, founders) for i, p in enumerate(ports)]
        for node in self.nodes:
            node.start()
        self.wait()

    def wait(self, limit=30):
        deadline = time.monotonic() + limit
        while not all(node.ready() for node in self.nodes if node.process.poll() is None):
            assert time.monotonic() < deadline, "not ready"
            time.sleep(0.005)

    def leader(self, limit=30):
        deadline = time.monotonic() + limit
        while True:
            assert time.monotonic() < deadline, "no leader"
            for node in self.nodes:
                try:
                    if node.process.poll() is None and node.status()["role"] == "leader":
                        return node
                except OSError:
                    pass
            time.sleep(0.005)

    def stop(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.kill()
        shutil.rmtree(self.root)


def fdatasync_us():
    """The median of an 4 KiB overwrite and fdatasync in an allocated file: what the disk gives right now."""
    path = os.path.join(os.environ.get("MEASURE_DIR", tempfile.gettempdir()), f"probe-{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, bytes(1 << 20), 0)
        os.fsync(fd)
        samples = []
        for i in range(200):
            begin = time.perf_counter()
            os.pwrite(fd, b"x" * 4096, 4096 * (i % 256))
            os.fdatasync(fd)
            samples.append((time.perf_counter() - begin) * 1e6)
        return round(statistics.median(samples))
    finally:
        os.close(fd)
        os.unlink(path)


def benchmark(port, requests, pipeline, clients=64, size=256, keys=100_000):
    command = ["redis-benchmark", "-p", str(port), "-t", "set", "-n", str(requests), "-c", str(clients)]
    command += ["-d", str(size), "-r", str(keys), "-P", str(pipeline), "--csv"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = next(line for line in text.splitlines() if line.startswith('"SET"')).replace('"', "").split(",")
    return {"per_s": float(row[1]), "p50_ms": float(row[4]), "p99_ms": float(row[6])}


def spread(rows):
    rates = sorted(row["per_s"] for row in rows)
    return {
        "set_per_s": round(statistics.median(rates)),
        "min": round(rates[0]),
        "max": round(rates[-1]),
        "p50_ms": statistics.median(row["p50_ms"] for row in rows),
        "p99_ms": statistics.median(row["p99_ms"] for row in rows),
        "runs": len(rows),
    }


def say(what, **fields):
    print(json.dumps({"measure": what, **fields}), flush=True)


def throughput():
    before = fdatasync_us()
    one, three, piped = [], [], []
    for _ in range(RUNS):
        cluster = Cluster(1)
        one.append(benchmark(cluster.nodes[0].ports[0], 200_000, 1))
        cluster.stop()
        cluster = Cluster(3)
        port = cluster.leader().ports[0]
        three.append(benchmark(port, 120_000, 1))
        piped.append(benchmark(port, 600_000, 16))
        cluster.stop()
    disk = {"fdatasync_us_before": before, "fdatasync_us_after": fdatasync_us()}
    say("one node, 64 connections, 256 B", goal=20_000, **spread(one), **disk)
    say("three nodes, 64 connections, 256 B", goal=12_000, **spread(three), **disk)
    say("three nodes, 64 connections, 256 B, pipelined by 16", goal=60_000, **spread(piped), **disk)


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.file = self.socket.makefile("rb")

    def call(self, *args):
        data = b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)
        self.socket.sendall(data)
        line = self.file.readline()
        if not line:
            raise OSError("closed")
        if line.startswith(b"$") and not line.startswith(b"$-1"):
            return self.file.read(int(line[1:]) + 2)[:-2]
        return line.strip()


def failover():
    """Time from kill -9 of the leader to the next acknowledged write, and every acknowledged write read back."""
    gaps, lost, acked_total = [], 0, 0
    for _ in range(max(RUNS, 5)):
        cluster = Cluster(3)
        leader = cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        acked, stop, first_after = {}, threading.Event(), []
        killed_at = [None]

        def write(worker):
            client, count = None, 0
            while not stop.is_set():
                try:
                    client = client or Client(others[worker % 2].ports[0])
                    count += 1
                    if client.call(b"SET", b"k%d:%d" % (worker, count), b"%d" % count) == b"+OK":
                        acked[(worker, count)] = True
                        if killed_at[0] and not first_after:
                            begun = time.monotonic()
                            first_after.append(begun - killed_at[0])
                except OSError:
                    client = None

        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        leader.process.send_signal(signal.SIGKILL)
        leader.process.wait()
        # Whatever was acknowledged in this very moment may have been on its way: only what follows a pause counts.
        time.sleep(0.005)
        killed_at[0] = time.monotonic() - 0.005
        deadline = time.monotonic() + 10
        while not first_after and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
        gaps.append(first_after[0] if first_after else float("inf"))
        reader = Client(others[0].ports[0])
        for worker, count in acked:
            lost += reader.call(b"GET", b"k%d:%d" % (worker, count)) != b"%d" % count
        acked_total += len(acked)
        cluster.stop()
    say(
        "leader killed with -9, next acknowledged write",
        goal_s=1.0,
        median_s=round(statistics.median(gaps), 3),
        max_s=round(max(gaps), 3),
        runs=len(gaps),
        acked=acked_total,
        lost=lost,
    )


def restart():
    """300,000 keys of 256 B: restart of all three, memory, disk."""
    cluster = Cluster(3)
    port = cluster.leader().ports[0]
    # The keys key:000000000000 to key:000000299999, each once, in order of a fixed stride.
    lines = []
    for i in range(300_000):
        key = b"key:%012d" % i
        lines.append(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$256\r\n%s\r\n" % (len(key), key, b"%0256d" % i))
    connection = socket.create_connection(("127.0.0.1", port))
    reader = connection.makefile("rb")
    for begin in range(0, len(lines), 500):
        connection.sendall(b"".join(lines[begin:begin + 500]))
        for _ in range(500):
            assert reader.readline() == b"+OK\r\n"
    time.sleep(2)
    rss = [round(node.rss_mib(), 1) for node in cluster.nodes]
    disk = [(total - spare) / 300_000 for total, spare in (node.disk_bytes() for node in cluster.nodes)]
    for node in cluster.nodes:
        node.kill()
    samples = []
    for _ in range(RUNS):
        begin = time.monotonic()
        for node in cluster.nodes:
            node.start()
        waiting = list(cluster.nodes)
        while waiting:
            waiting = [node for node in waiting if not node.ready()]
            time.sleep(0.002)
        for node in cluster.nodes:
            assert Client(node.ports[0]).call(b"GET", b"key:%012d" % 299_999) == b"%0256d" % 299_999
        samples.append(time.monotonic() - begin)
        rss_after = [round(node.rss_mib(), 1) for node in cluster.nodes]
        for node in cluster.nodes:
            node.kill()
    say(
        "300,000 keys of 256 B on three nodes",
        restart_s=round(statistics.median(samples), 3),
        restart_goal_s=1.5,
        rss_mib=rss,
        rss_after_restart_mib=rss_after,
        rss_goal_mib=90,
        disk_bytes_per_key=[round(d) for d in disk],
        disk_goal=450,
    )
    cluster.stop()


def idle():
    """Processor time of nodes that nobody asks anything."""
    for size in (1, 3):
        cluster = Cluster(size)
        time.sleep(2)
        before = [node.cpu_seconds() for node in cluster.nodes]
        time.sleep(10)
        used = [node.cpu_seconds() - b for node, b in zip(cluster.nodes, before)]
        say(f"idle for 10 s, {size} node(s)", cpu_percent=[round(u * 10, 2) for u in used])
        cluster.stop()


class Strangers:
    """Connections that mean no good, on every port: half of them say nothing, half stop within a request or a frame."""

    def __init__(self, ports, count):
        self.ports, self.count, self.open, self.ended = ports, count, [], False
        self.died = 0
        for number in range(count):
            self.open.append(self.dial(number))
        self.keeper = threading.Thread(target=self.keep)
        self.keeper.start()

    def dial(self, number):
        resp, http, peer = self.ports
        port = (resp, peer, resp, http)[number % 4]
        beginning = {resp: b"*3\r\n$3\r\nSET\r\n$1", http: b"GET /status HTTP/1.1\r\nHo", peer: b"\x10\x00\x00"}[port]
        try:
            stranger = socket.create_connection(("127.0.0.1", port), timeout=1)
            if number % 8 >= 4:
                stranger.sendall(beginning)
            stranger.setblocking(False)
            return stranger
        except OSError:
            return None

    def keep(self):
        """Whoever was shown the door comes back, within a second."""
        while not self.ended:
            for number, stranger in enumerate(self.open):
                if stranger is not None:
                    try:
                        if stranger.recv(4096) != b"":
                            continue
                    except BlockingIOError:
                        continue
                    except OSError:
                        pass
                    stranger.close()
                    self.died += 1
                self.open[number] = self.dial(number)
            time.sleep(1)

    def close(self):
        self.ended = True
        self.keeper.join()
        for stranger in self.open:
            if stranger is not None:
                stranger.close()


def hostile():
    """Three nodes, alone and with 1,000 strangers at the leader's doors, by turns within one run of the cluster."""
    cluster = Cluster(3)
    leader = cluster.leader()
    rates = {"alone": [], "beset": []}
    benchmark(leader.ports[0], 60_000, 1)
    for _ in range(max(RUNS, 3)):
        rates["alone"].append(benchmark(leader.ports[0], 120_000, 1))
        strangers = Strangers(leader.ports, 1000)
        held = sum(stranger is not None for stranger in strangers.open)
        rates["beset"].append(benchmark(leader.ports[0], 120_000, 1))
        strangers.close()
    ratios = [beset["per_s"] / alone["per_s"] for alone, beset in zip(rates["alone"], rates["beset"])]
    say(
        "three nodes with 1,000 idle and half-open connections at the leader",
        goal=0.9,
        ratio=round(statistics.median(ratios), 3),
        ratios=[round(ratio, 3) for ratio in ratios],
        alone=spread(rates["alone"]),
        beset=spread(rates["beset"]),
        held=held,
        shown_the_door=strangers.died,
        rss_mib=round(leader.rss_mib(), 1),
    )
    cluster.stop()


if __name__ == "__main__":
    parts = {"throughput": throughput, "failover": failover, "restart": restart, "idle": idle, "hostile": hostile}
    for name in sys.argv[1:] or parts:
        parts[name]()
