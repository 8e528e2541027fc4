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
    recycling  writes while a snapshot lets segments go, and these become spares and then segments again
    receiving  a follower of three that was away for so long that its leader sends it a snapshot

    cargo build --release -p raft-node
    python3 raft-node/tests/crashes/eio.py
    python3 raft-node/tests/crashes/eio.py --phases recycling,receiving
"""

import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from eio_cluster import away, receiving_under, votes_under
from faults import SECOND, SOFT, Broken, Load, Trace, attach, fill, find_again, judge, strace, wait
from run import ROOT, SMALL, Node, call

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
    "recycling": {
        "segment": ("rename", "pwrite64", "fdatasync"),
        "spare": ("openat", "pwrite64", "fdatasync", "rename", "unlink"),
        "directory": ("fsync",),
    },
    "receiving": {
        "received": ("pwrite64", "fdatasync", "rename"),
        "preparation": ("pwrite64", "fdatasync", "rename"),
        "segment": ("pwrite64", "fdatasync"),
        "directory": ("fsync",),
    },
}


def start_under(options, work, phase, what, kind, nth):
    """A start under the fault."""
    data, flags = work / "data", [*SMALL, "--snapshot-log-bytes", "256KiB"]
    acked = []
    if phase == "restart":
        shutil.copytree(options.torn, data)
        acked = options.torn_acked
    trace = work / "trace"
    node = Node(options.binary, data, work / "log", strace(data, trace, what, kind, nth), flags)
    wait_until_ready(node)
    # What comes a little behind the ready line ends the process all the same.
    time.sleep(0.1)
    if Trace(trace, data).at and (what, kind) not in SOFT:
        wait(node, 2 * SECOND)
    if node.process.poll() is None:
        subprocess.run(["pkill", "-KILL", "-P", str(node.process.pid)], check=False)
    node.process.wait(timeout=20)
    seen = Trace(trace, data)
    if seen.at is None:
        return None
    if (what, kind) not in SOFT:
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


def recycling_under(options, work, phase, what, kind, nth):
    """A start on a long log, whose first snapshot lets many segments go, and writes that fill these again."""
    data, soft, flags = work / "data", (what, kind) in SOFT, [*SMALL, "--snapshot-log-bytes", "64KiB"]
    shutil.copytree(options.long, data)
    node = Node(options.binary, data, work / "log", strace(data, work / "trace", what, kind, nth), flags)
    wait_until_ready(node)
    load = Load(node, options.writers, options.writes)
    load.join()
    if not wait(node, 0.3) and Trace(work / "trace", data).at and not soft:
        wait(node, 2 * SECOND)
    if soft and (node.process.poll() is not None or len(load.acked) < options.writers * options.writes):
        raise Broken("what costs nobody anything ended the process, or kept somebody from his answer")
    if node.process.poll() is None:
        subprocess.run(["pkill", "-KILL", "-P", str(node.process.pid)], check=False)
    node.process.wait(timeout=20)
    node.log.close()
    seen = Trace(work / "trace", data)
    if seen.at is None:
        return None
    judge(seen, load, node, must_end=not soft, strict=False)
    find_again(options, data, work, load.acked, flags)
    return seen


def wait_until_ready(node):
    end = time.time() + 20
    while node.process.poll() is None and "ready:" not in pathlib.Path(node.log.name).read_text() and time.time() < end:
        time.sleep(0.01)


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


def long_log(options, work):
    """A log of many segments that no snapshot has let go yet."""
    data = work / "long"
    node = Node(options.binary, data, work / "long-log", flags=[*SMALL, "--snapshot-log-bytes", "1GiB"])
    # A node keeps 1,024 entries behind its snapshot for followers that are late.
    fill(node.ready(), writes=range(1536), keys=8)
    node.end()
    options.long = data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/raft-node", type=pathlib.Path)
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--writers", default=4, type=int)
    parser.add_argument("--writes", default=12, type=int, help="of each writer")
    parser.add_argument("--at-most", default=1000, type=int, help="places for each kind of call and file")
    options = parser.parse_args()
    runs = {
        "founding": start_under,
        "restart": start_under,
        "votes": votes_under,
        "recycling": recycling_under,
        "receiving": receiving_under,
    }
    befores = {"restart": torn_log, "recycling": long_log, "receiving": away}
    began, total, slowest = time.time(), 0, 0.0
    with tempfile.TemporaryDirectory() as before:
        for phase in options.phases.split(","):
            if phase in befores:
                befores[phase](options, pathlib.Path(before))
            for what, kinds in PHASES[phase].items():
                for kind in kinds:
                    places, soft = [], (what, kind) in SOFT
                    for nth in range(1, options.at_most + 1):
                        with tempfile.TemporaryDirectory() as work:
                            try:
                                seen = runs.get(phase, load_under)(options, pathlib.Path(work), phase, what, kind, nth)
                            except Broken as rule:
                                logs = [log for log in sorted(pathlib.Path(work).iterdir()) if log.is_file()]
                                told = "".join(f"{log.name}:\n{log.read_text()}" for log in logs if log.name != "trace")
                                sys.exit(f"{phase}, {what}, {kind} {nth}: {rule}\n{told}")
                        if seen is None:
                            break
                        places.append(0.0 if soft else seen.ended - seen.at)
                    if not places:
                        sys.exit(f"{phase}, {what}: {kind} was never reached")
                    total, slowest = total + len(places), max(slowest, *places)
                    told = "no reason to end" if soft else f"ended within {max(places) * 1000:.0f} ms"
                    print(f"{phase:10} {what:12} {kind:10} {len(places):4} places, {told}", flush=True)
    print(f"{total} failures in {time.time() - began:.0f} s: no Ok, nobody hangs, the slowest end after {slowest * 1000:.0f} ms")


if __name__ == "__main__":
    main()
