"""What the sweeps with a failing disk share: the fault, the load, the rules."""

import pathlib
import re
import signal
import subprocess
import threading
import time

from run import Node, call, value_of

CALLS = "pwrite64,fdatasync,fsync,rename"
# What strace matches are whole names; of a rename, the old one.
FILES = {
    "identity": lambda n: ["identity", "identity.tmp"],
    "segment": lambda n: [f"wal-{i:016x}.log" for i in range(1, 257)],
    "preparation": lambda n: [f"wal-{i:016x}.log.tmp" for i in range(1, 257)],
    "spare": lambda n: [f"spare-{i:016x}.log" for i in range(1, 257)],
    "snapshot": lambda n: [f"snapshot-{i:016x}-{t:016x}.snap.tmp" for i in range(1, n) for t in (1, 2, 3)],
    "torn": lambda n: [f"torn-{1:016x}-{offset:016x}.bin" for offset in range(4096, 65536, 8)],
    "directory": lambda n: ["."],
}
# What costs nobody anything. Torn bytes were promised to nobody: if they cannot be kept aside, the start goes on without
# them. A spare that cannot be opened is left alone, and a new file takes its place; one that cannot be removed waits for
# the next start.
SOFT = (("torn", "pwrite64"), ("torn", "fdatasync"), ("spare", "openat"), ("spare", "unlink"))
SECOND = 1.0


class Broken(Exception):
    """A rule that a run broke."""


def strace(data, log, what, kind, nth):
    """The command that lets the `nth` call of this kind fail, on files of this kind, in each thread."""
    names = [data if name == "." else data / name for name in FILES[what](400)]
    paths = [word for name in names for word in ("-P", name)]
    inject = f"inject={kind}:error=EIO:when={nth}"
    return ["strace", "-f", "-ttt", "-y", "-s", "0", "-o", log, "-e", f"trace={CALLS},{kind}", "-e", inject, *paths]


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

    def __init__(self, node, writers, writes, first=0):
        self.acked, self.hung = [], []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.write, args=(node, first + w, writes)) for w in range(writers)]
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


def fill(stream, writes, keys):
    """Writes, by their numbers, to so many keys, sent at once."""
    value = b"v" * 3600
    for n in writes:
        key = b"fill:%d" % (n % keys)
        stream.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
    stream.flush()
    for _ in writes:
        reply = stream.readline().strip()
        if reply != b"+OK":
            raise RuntimeError(reply)


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
        told = pathlib.Path(node.log.name).read_text()
        if "panicked" in told:
            raise Broken("the process panicked")
        last = told.strip().splitlines()[-1]
        if not last.startswith("raft-node: ") or "Input/output error" not in last:
            raise Broken(f"no sentence that tells why: {last}")


def find_again(options, data, work, acked, flags):
    """A start without the fault: every acknowledged write is there, and another one is taken."""
    node = Node(options.binary, data, work / "again", flags=flags)
    try:
        read_again(node.ready(), acked)
    finally:
        node.end(signal.SIGKILL)


def read_again(stream, acked):
    for _, token in acked:
        found = call(stream, "GET", "key:" + token.strip("<>"))
        if found != value_of(token) * 3:
            raise Broken(f"{token} was acknowledged; found {found[:60]}")
