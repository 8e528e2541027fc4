#!/usr/bin/env python3
"""Crash states of the real binary.

Records the system calls of a real node under load (strace), and works out every disk that a machine crash behind any of
them may have left, in a strict model: a name counts only after an fsync of its directory, and of what was written and not
synced any subset of sectors may be there. Each of them is recovered from (raft-wal's recovery, on its simulated disk);
a sample is written out and started with the real binary. Every acknowledged write must be found.

    cargo build --release -p raft-node
    cargo build --release -p raft-wal --features sim --example recorded_crashes
    python3 raft-node/tests/crashes/run.py
"""

import argparse
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
CALLS = "openat,pwrite64,write,pwritev,writev,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fallocate"
SMALL = ["--segment-bytes", "64KiB", "--max-entry-bytes", "32KiB", "--max-value-bytes", "16KiB"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    """A real node; `wrap` runs it under something else."""

    def __init__(self, binary, data, log, wrap=(), flags=(*SMALL, "--snapshot-log-bytes", "256KiB"), peer=None):
        self.resp, self.http = free_port(), free_port()
        ports = [f"127.0.0.1:{port}" for port in (self.resp, self.http, peer or free_port())]
        args = [*wrap, binary, "serve", "--data-dir", data, *flags]
        args += ["--resp", ports[0], "--http", ports[1], "--peer", ports[2]]
        self.log = open(log, "wb")
        self.process = subprocess.Popen([str(a) for a in args], stdout=self.log, stderr=self.log)

    def connect(self, seconds=30):
        end = time.time() + seconds
        while True:
            try:
                s = socket.create_connection(("127.0.0.1", self.resp), timeout=20)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return s.makefile("rwb", buffering=1 << 16)
            except OSError:
                if time.time() > end or self.process.poll() is not None:
                    raise RuntimeError(pathlib.Path(self.log.name).read_text())
                time.sleep(0.02)

    def ready(self, seconds=60):
        """A connection, once the node leads."""
        end = time.time() + seconds
        while True:
            stream = self.connect()
            reply = call(stream, "SET", "ready", "1")
            if reply == b"+OK":
                return stream
            if time.time() > end:
                raise RuntimeError(reply)
            time.sleep(0.05)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        self.log.close()


def call(stream, *words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
    stream.flush()
    line = stream.readline()
    if line.startswith(b"$") and line != b"$-1\r\n":
        return stream.read(int(line[1:]) + 2)[:-2]
    return line.strip()


def value_of(token):
    """The token, and what makes every sector of the value differ from the next one."""
    length = 600 + hash_of(token) % 1500
    return f"{token}{'.'.join(str(n) for n in range(length // 4))}".encode()[:length]


def hash_of(text):
    value = 0
    for c in text.encode():
        value = (value * 131 + c) % (1 << 32)
    return value


def load(node, writers, seconds):
    """Writes until the time is up; tells what was acknowledged, and when."""
    node.ready()
    acks, lock, end = [], threading.Lock(), time.time() + seconds

    def write(writer):
        stream, n = node.connect(), 0
        while time.time() < end:
            token = f"<{writer}:{n}>"
            reply = call(stream, "SET", f"key:{writer}:{n}", value_of(token))
            if reply != b"+OK":
                raise RuntimeError(reply)
            with lock:
                acks.append((time.time(), token))
            n += 1
            # A pause now and then: the log is idle, and writes its witness.
            time.sleep(0.03 if n % 10 == writer % 10 else 0)

    threads = [threading.Thread(target=write, args=(w,)) for w in range(writers)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return sorted(acks)


LINE = re.compile(r"^(\d+)\s+([\d.]+) (.*)$")
HEX = re.compile(r"\\x([0-9a-f]{2})")


def raw(text):
    return bytes.fromhex(text.replace("\\x", ""))


def calls(trace):
    """The calls of a trace: (first line, last line, time of the first, time of the last, name, arguments, result)."""
    started, out = {}, []
    for number, line in enumerate(trace):
        match = LINE.match(line)
        if not match:
            continue
        pid, at, rest = match[1], float(match[2]), match[3].rstrip("\n")
        if rest.endswith("<unfinished ...>"):
            started[pid] = (number, at, rest[: -len("<unfinished ...>")])
            continue
        first, began = number, at
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)$", rest)
        if resumed:
            if pid not in started:
                continue
            first, began, head = started.pop(pid)
            rest = head + resumed[1]
        match = re.match(r"^(\w+)\((.*)\)\s+= (-?\d+)", rest)
        if match:
            out.append((first, number, began, at, match[1], match[2].strip(), int(match[3])))
    return out


def operations(trace, data_dir, acks, data):
    """The calls on the data directory as lines for `recorded_crashes`, each where it takes effect."""
    prefix, events, syncs, overlaps = str(data_dir) + "/", [], [], 0

    def name_of(text):
        path = raw(text).decode(errors="replace")
        if path == str(data_dir):
            return "."
        return path[len(prefix):] if path.startswith(prefix) and not path.endswith("LOCK") else None

    written = 0
    for first, last, began, ended, call_name, args, result in calls(trace):
        names = [name_of(t) for t in re.findall(r'[<"]((?:\\x[0-9a-f]{2})+)[>"]', args)]
        if result < 0 or not [n for n in names if n]:
            continue
        if call_name == "openat":
            created = "O_CREAT" in args and names[-1]
            if created:
                assert "O_EXCL" in args, args
                events.append((first, began, f"create {created}", created))
        elif call_name == "pwrite64":
            name, bytes_, (length, offset) = names[0], raw(re.findall(r'"((?:\\x..)*)"', args)[-1]), re.findall(r", (\d+), (\d+)$", args)[0]
            assert name and result == int(length) == len(bytes_), args[:200]
            data.write(bytes_)
            events.append((first, began, f"write {name} {offset} {written} {length}", name))
            written += len(bytes_)
        elif call_name == "fallocate":
            mode, offset, length = re.findall(r", (\w+), (\d+), (\d+)$", args)[0]
            assert (mode, offset) == ("0", "0"), args
            events.append((first, began, f"allocate {names[0]} {length}", names[0]))
        elif call_name in ("fdatasync", "fsync"):
            syncs.append((first, last, began, ended, names[0]))
        elif call_name == "rename":
            events.append((first, began, f"rename {names[0]} {names[1]}", "."))
            events[-1] += (names,)
        elif call_name == "unlink":
            events.append((first, began, f"unlink {names[0]}", "."))
        elif call_name in ("write", "writev", "pwritev", "ftruncate", "unlinkat", "renameat", "renameat2"):
            raise RuntimeError(f"{call_name} is not part of the model: {args[:200]}")
    changes = [(e[0], "." if e[2].startswith(("create", "rename", "unlink")) else e[3]) for e in events]
    for first, last, began, ended, name in syncs:
        # Done when it returns, unless something began meanwhile: that is not covered by it, so it counts from its start.
        meanwhile = any(first < at < last and what == name for at, what in changes)
        overlaps += meanwhile
        place, at = (first, began) if meanwhile else (last, ended)
        events.append((place, at, "syncdir" if name == "." else f"sync {name}", name))
    lines, known = [], 0
    for event in sorted(events, key=lambda e: e[0]):
        now = sum(1 for at, _ in acks if at < event[1])
        if now > known:
            lines.append(f"note {now}")
            known = now
        lines.append(event[2])
    return lines, overlaps


def check_with_binary(binary, sample, acks):
    """Verifies and starts the real binary on a disk that a crash left; every acknowledged key is read."""
    data, acknowledged = sample / "data", int((sample / "acknowledged").read_text())
    checked = subprocess.run([binary, "verify", data], capture_output=True, text=True)
    # 3: the directory was made, and nothing of a log is in it yet.
    allowed = (0, 1, 3) if acknowledged == 0 else (0, 1)
    if checked.returncode not in allowed:
        raise RuntimeError(f"{sample}: verify says {checked.returncode}: {checked.stdout}{checked.stderr}")
    node = Node(binary, data, sample / "log")
    stream = node.ready()
    for _, token in acks[:acknowledged]:
        found = call(stream, "GET", "key:" + token.strip("<>"))
        if found != value_of(token):
            raise RuntimeError(f"{sample}: {token} was acknowledged; found {found[:60]}")
    node.end(signal.SIGKILL)
    return acknowledged


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=ROOT / "target/release/raft-node", type=pathlib.Path)
    parser.add_argument("--checker", default=ROOT / "target/release/examples/recorded_crashes", type=pathlib.Path)
    parser.add_argument("--seconds", default=0.3, type=float, help="of load in each run")
    parser.add_argument("--states", default=10_000, type=int, help="at least this many in all")
    parser.add_argument("--samples", default=10, type=int, help="states of each run started with the real binary")
    options = parser.parse_args()
    states = 0
    # Several short runs instead of a long one: each state is recovered from with all that was written before it.
    while states < options.states:
        states += one_run(options)
    print(f"{states} different disks in all, none failed")


def one_run(options):
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        data_dir, trace = work / "data", work / "trace"
        strace = ["strace", "-f", "-ttt", "-xx", "-y", "-s", "4194304", "-e", f"trace={CALLS}", "-o", trace]
        node = Node(options.binary, data_dir, work / "log", strace)
        acks = load(node, 8, options.seconds)
        # The child of strace, so that the recording ends with the run.
        subprocess.run(["pkill", "-KILL", "-P", str(node.process.pid)], check=True)
        node.process.wait(timeout=60)
        with open(work / "bytes", "wb") as data, open(trace, errors="replace") as lines:
            played, overlaps = operations(lines, data_dir, acks, data)
        (work / "operations").write_text("\n".join(played) + "\n")
        (work / "tokens").write_text("".join(token + "\n" for _, token in acks))
        kinds = {}
        for line in played:
            kinds[line.split()[0]] = kinds.get(line.split()[0], 0) + 1
        print(f"recorded: {kinds}, {overlaps} syncs overlapped by a change, {len(acks)} acknowledged")
        samples = work / "samples"
        checker = [options.checker, work / "operations", work / "bytes", work / "tokens", samples, options.samples]
        checked = subprocess.run([str(a) for a in checker], capture_output=True, text=True)
        print(checked.stdout.strip(), flush=True)
        if checked.returncode != 0:
            sys.exit(checked.stderr or 1)
        states = int(re.search(r"(\d+) different disks", checked.stdout)[1])
        if states < 100 or kinds.get("rename", 0) < 5:
            sys.exit("too little happened")
        read = [check_with_binary(options.binary, sample, acks) for sample in sorted(samples.iterdir())]
        print(f"the real binary: {len(read)} of these disks verified, started, {sum(read)} acknowledged keys read")
        return states


if __name__ == "__main__":
    main()
