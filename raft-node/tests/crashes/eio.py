#!/usr/bin/env python3
"""A disk that fails under the real binary: EIO at every call in turn.

strace lets the n-th call of one kind, on one kind of file, fail: n = 1, 2, 3 ... until a run goes by in which it was not
reached. Each time: what is asked after the failure is never answered Ok, nobody who waits hangs, the process ends within
a second, and a start without the fault shows every acknowledged write.

    founding   a first start, up to its ready line
    restart    a start on a log with a torn end, up to its ready line
    entries    writes of several clients over several segments
    snapshots  the same, with snapshots
    together   the same, with snapshots and segments that are prepared at the same time, and old snapshots removed
    votes      a follower of three whose leader is killed

    cargo build --release -p raft-node
    python3 raft-node/tests/crashes/eio.py
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from run import ROOT, SMALL, Node, call, free_port, value_of

CALLS = "pwrite64,fdatasync,fsync,rename"
# What strace matches are whole names.
FILES = {
    "identity": lambda n: ["identity", "identity.tmp"],
    "segment": lambda n: [f"wal-{i:016x}.log" for i in range(1, 65)],
    "preparation": lambda n: [f"{kind}-{i:016x}.log.tmp" for i in range(1, 65) for kind in ("wal", "spare")],
    "snapshot": lambda n: [f"snapshot-{i:016x}-{t:016x}.snap.tmp" for i in range(1, n) for t in (1, 2, 3)],
    "torn": lambda n: [f"torn-{1:016x}-{offset:016x}.bin" for offset in range(4096, 65536, 8)],
    "directory": lambda n: ["."],
}
# Large segments: none is prepared while the fault is armed, so that each sync of the directory is a snapshot's.
LARGE = ["--segment-bytes", "1MiB", "--max-entry-bytes", "32KiB", "--max-value-bytes", "16KiB"]
PHASES = {
    "founding": {
        "identity": ("pwrite64", "fdatasync", "rename"),
        "preparation": ("pwrite64", "fdatasync", "rename"),
        "segment": ("pwrite64", "fdatasync"),
        "directory": ("fsync",),
    },
    "restart": {
        "identity": ("pwrite64", "fdatasync", "rename"),
        "segment": ("pwrite64", "fdatasync"),
        "torn": ("pwrite64", "fdatasync"),
        "directory": ("fsync",),
    },
    "entries": {
        "preparation": ("pwrite64", "fdatasync", "rename"),
        "segment": ("pwrite64", "fdatasync"),
        "directory": ("fsync",),
    },
    "snapshots": {
        "snapshot": ("pwrite64", "fdatasync", "rename"),
        "directory": ("fsync",),
    },
    "together": {"directory": ("fsync",)},
    "votes": {"segment": ("pwrite64", "fdatasync")},
}
# Bytes that nobody was promised: if they cannot be kept aside, the start goes on without them.
SOFT = ("torn",)
SECOND = 1.0


class Broken(Exception):
    """A rule that a run broke."""


def strace(data, log, what, kind, nth):
    """The command that lets the `nth` call of this kind fail, on files of this kind, in each thread."""
    names = [data if name == "." else data / name for name in FILES[what](400)]
    paths = [word for name in names for word in ("-P", name)]
    inject = f"inject={kind}:error=EIO:when={nth}"
    return ["strace", "-f", "-ttt", "-y", "-s", "0", "-o", log, "-e", f"trace={CALLS}", "-e", inject, *paths]


class Trace:
    """What strace saw: when a call failed first, which one, and when the process was gone."""

    def __init__(self, path, data):
        self.at, self.call, self.ended = None, None, None
        for line in open(path, errors="replace"):
            match = re.match(r"^\d+\s+([\d.]+) (.*)$", line)
            if match and "INJECTED" in match[2] and self.at is None:
                self.at = float(match[1])
                self.call = match[2].replace(str(data), "").replace(" = -1 EIO (Input/output error) (INJECTED)", "")
            if match and match[2].startswith("+++"):
                self.ended = float(match[1])


def attach(node, command):
    """Arms the fault in a process that runs."""
    tracer = subprocess.Popen([str(a) for a in [*command, "-p", node.process.pid]], stderr=subprocess.PIPE, text=True)
    for line in tracer.stderr:
        if "attached" in line:
            # It goes on talking when threads come and go.
            threading.Thread(target=tracer.stderr.read, daemon=True).start()
            return tracer
    raise RuntimeError(f"strace does not attach to {node.process.pid}")


def wait(node, seconds):
    """Tells whether the process ended in this time."""
    try:
        node.process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


class Load:
    """Clients that write until their share is done or nobody answers."""

    def __init__(self, node, writers, writes):
        self.acked, self.late, self.hung = [], [], []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.write, args=(node, w, writes)) for w in range(writers)]
        [t.start() for t in self.threads]

    def write(self, node, writer, writes):
        refused = 0
        for n in range(writes):
            token, began = f"<{writer}:{n}>", None
            try:
                stream = node.connect(seconds=0) if n == 0 or refused else stream
                began = time.time()
                reply = call(stream, "SET", f"key:{writer}:{n}", value_of(token) * 3)
            except TimeoutError:
                with self.lock:
                    self.hung.append(token)
                return
            except (OSError, RuntimeError):
                return
            if reply == b"+OK":
                with self.lock:
                    self.acked.append((began, token))
            elif reply == b"":
                return
            else:
                refused += 1
                if refused > 20:
                    return
                time.sleep(0.02)

    def join(self):
        [t.join() for t in self.threads]


def judge(trace, load, node, must_end, strict):
    """The rules, but for the last one."""
    if load.hung:
        raise Broken(f"nobody answered {load.hung}")
    if strict:
        late = [token for began, token in load.acked if began > trace.at]
        if late:
            raise Broken(f"{late} were asked for after the failure, and answered Ok")
    if must_end:
        if trace.ended is None:
            raise Broken("the process goes on")
        if trace.ended - trace.at > SECOND:
            raise Broken(f"the process ended {trace.ended - trace.at:.2f} s after the failure")
        if node.process.returncode == 0:
            raise Broken("the process ended as if all were well")
        if "panicked" in pathlib.Path(node.log.name).read_text():
            raise Broken("the process panicked")


def find_again(options, data, work, acked, flags):
    """A start without the fault: every acknowledged write is there, and another one is taken."""
    node = Node(options.binary, data, work / "again", flags=flags)
    try:
        stream = node.ready()
        for _, token in acked:
            found = call(stream, "GET", "key:" + token.strip("<>"))
            if found != value_of(token) * 3:
                raise Broken(f"{token} was acknowledged; found {found[:60]}")
    finally:
        node.end(signal.SIGKILL)


def start_under(options, work, phase, what, kind, nth):
    """A start under the fault."""
    data, flags = work / "data", [*SMALL, "--snapshot-log-bytes", "256KiB"]
    acked = []
    if phase == "restart":
        shutil.copytree(options.torn, data)
        acked = options.torn_acked
    trace = work / "trace"
    node = Node(options.binary, data, work / "log", strace(data, trace, what, kind, nth), flags)
    end = time.time() + 20
    while node.process.poll() is None and "ready:" not in (work / "log").read_text() and time.time() < end:
        time.sleep(0.01)
    # What comes a little behind the ready line ends the process all the same.
    time.sleep(0.1)
    if Trace(trace, data).at and what not in SOFT:
        wait(node, 2 * SECOND)
    if node.process.poll() is None:
        subprocess.run(["pkill", "-KILL", "-P", str(node.process.pid)], check=False)
    node.process.wait(timeout=20)
    seen = Trace(trace, data)
    if seen.at is None:
        return None
    if what not in SOFT:
        nobody = argparse.Namespace(hung=[], acked=[])
        judge(seen, nobody, node, must_end=True, strict=False)
    find_again(options, data, work, acked, flags)
    return seen


def load_under(options, work, phase, what, kind, nth):
    """Writes under the fault, armed once the node is ready."""
    data = work / "data"
    size = LARGE if phase == "snapshots" else SMALL
    flags = [*size, "--snapshot-log-bytes", "1GiB" if phase == "entries" else "64KiB"]
    node = Node(options.binary, data, work / "log", flags=flags)
    node.ready()
    tracer = attach(node, strace(data, work / "trace", what, kind, nth))
    load = Load(node, options.writers, options.writes)
    load.join()
    # What goes on beside the writes, a preparation or a snapshot, may end a little later.
    if not wait(node, 0.3) and Trace(work / "trace", data).at:
        wait(node, 2 * SECOND)
    if node.process.poll() is None:
        tracer.terminate()
        tracer.wait(timeout=20)
        node.process.kill()
    node.process.wait(timeout=20)
    tracer.wait(timeout=20)
    node.log.close()
    seen = Trace(work / "trace", data)
    if seen.at is None:
        return None
    # A segment's write or sync that fails is known before anybody is answered.
    judge(seen, load, node, must_end=True, strict=what == "segment")
    find_again(options, data, work, load.acked, flags)
    return seen


def status(node):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http}/status", timeout=1) as reply:
            return json.load(reply)
    except OSError:
        return {}


def votes_under(options, work, phase, what, kind, nth):
    """A follower's disk fails when it writes down a term or a vote: it ends, and with it nobody is acknowledged."""
    peers = {n: free_port() for n in (1, 2, 3)}
    members = ",".join(f"{n}=127.0.0.1:{port}" for n, port in peers.items())
    flags = lambda n: [*SMALL, "--id", n, "--initial-cluster", members]
    start = lambda n, log: Node(options.binary, work / f"n{n}", work / f"{log}{n}", (), flags(n), peers[n])
    nodes = {n: start(n, "log") for n in peers}
    tracer = None
    try:
        [node.ready() for node in nodes.values()]
        load = Load(nodes[1], 2, 5)
        load.join()
        if load.hung or not load.acked:
            raise RuntimeError("no load before the fault")
        # Until the witness of the last write is there: what is written next is a term or a vote.
        time.sleep(0.1)
        leader = next(n for n in peers if status(nodes[n]).get("role") == "leader")
        victim, other = [n for n in peers if n != leader]
        data = work / f"n{victim}"
        tracer = attach(nodes[victim], strace(data, work / "trace", what, kind, nth))
        nodes[leader].process.kill()
        nodes[leader].process.wait(timeout=20)
        wait(nodes[victim], 4)
        tracer.terminate()
        tracer.wait(timeout=20)
        seen = Trace(work / "trace", data)
        if seen.at is None:
            return None
        judge(seen, load, nodes[victim], must_end=True, strict=True)
        after = Load(nodes[other], 1, 1)
        after.join()
        if after.acked:
            raise Broken("one node of three acknowledged a write")
        nodes[victim], nodes[leader] = start(victim, "again"), start(leader, "again")
        streams = [nodes[n].ready() for n in peers]
        for stream in streams:
            for _, token in load.acked:
                found = call(stream, "GET", "key:" + token.strip("<>"))
                if found != value_of(token) * 3:
                    raise Broken(f"{token} was acknowledged; found {found[:60]}")
        return seen
    finally:
        for node in nodes.values():
            node.process.poll() is None and node.process.kill()
            node.process.wait(timeout=20)


def torn_log(options, work):
    """A log that ends in a torn write, and what it acknowledged."""
    data, flags = work / "torn", [*SMALL, "--snapshot-log-bytes", "256KiB"]
    node = Node(options.binary, data, work / "torn-log", flags=flags)
    node.ready()
    load = Load(node, 2, 3)
    load.join()
    time.sleep(0.1)
    stream = node.connect()
    call(stream, "SET", "torn", "t" * 3000)
    node.end(signal.SIGKILL)
    segment = data / f"wal-{1:016x}.log"
    written = bytearray(segment.read_bytes())
    at = written.index(b"t" * 3000)
    written[at + 1000:] = bytes(len(written) - at - 1000)
    segment.write_bytes(written)
    options.torn, options.torn_acked = data, load.acked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/raft-node", type=pathlib.Path)
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--writers", default=4, type=int)
    parser.add_argument("--writes", default=12, type=int, help="of each writer")
    parser.add_argument("--at-most", default=1000, type=int, help="places for each kind of call and file")
    options = parser.parse_args()
    runs = {"founding": start_under, "restart": start_under, "votes": votes_under}
    began, total, slowest = time.time(), 0, 0.0
    with tempfile.TemporaryDirectory() as torn:
        torn_log(options, pathlib.Path(torn))
        for phase in options.phases.split(","):
            for what, kinds in PHASES[phase].items():
                for kind in kinds:
                    places = []
                    for nth in range(1, options.at_most + 1):
                        with tempfile.TemporaryDirectory() as work:
                            try:
                                seen = runs.get(phase, load_under)(options, pathlib.Path(work), phase, what, kind, nth)
                            except Broken as rule:
                                log = pathlib.Path(work) / "log"
                                told = log.read_text() if log.exists() else ""
                                sys.exit(f"{phase}, {what}, {kind} {nth}: {rule}\n{told}")
                        if seen is None:
                            break
                        places.append(0.0 if what in SOFT else seen.ended - seen.at)
                    if not places:
                        sys.exit(f"{phase}, {what}: {kind} was never reached")
                    total, slowest = total + len(places), max(slowest, *places)
                    told = "no reason to end" if what in SOFT else f"ended within {max(places) * 1000:.0f} ms"
                    print(f"{phase:10} {what:12} {kind:10} {len(places):4} places, {told}", flush=True)
    print(f"{total} failures in {time.time() - began:.0f} s: no Ok, nobody hangs, the slowest end after {slowest * 1000:.0f} ms")


if __name__ == "__main__":
    main()
