"""A disk that fails under one node of three."""

import itertools
import json
import shutil
import subprocess
import time
import urllib.request

from faults import FILES, SECOND, Broken, Load, Trace, attach, fill, judge, read_again, strace, wait
from run import SMALL, Node, call, free_port


def status(node):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http}/status", timeout=1) as reply:
            return json.load(reply)
    except OSError:
        return {}


def until(what, seconds, is_so):
    """Waits for something that has to come."""
    end = time.time() + seconds
    while not is_so():
        if time.time() > end:
            raise Broken(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Cluster:
    """Three nodes with their directories in `work`."""

    def __init__(self, options, work, peers=None, snapshot_log="1GiB"):
        self.binary, self.work, self.snapshot_log = options.binary, work, snapshot_log
        self.peers = peers or {n: free_port() for n in (1, 2, 3)}
        self.nodes = {}

    def start(self, n, log, wrap=()):
        members = ",".join(f"{n}=127.0.0.1:{port}" for n, port in self.peers.items())
        flags = [*SMALL, "--snapshot-log-bytes", self.snapshot_log, "--id", n, "--initial-cluster", members]
        self.nodes[n] = Node(self.binary, self.data(n), self.work / f"{log}{n}", wrap, flags, self.peers[n])

    def data(self, n):
        return self.work / f"n{n}"

    def leader(self):
        return next((n for n in self.nodes if status(self.nodes[n]).get("role") == "leader"), None)

    def kill(self, n):
        node = self.nodes.pop(n)
        if node.process.poll() is None:
            # The child, if it runs under strace.
            subprocess.run(["pkill", "-KILL", "-P", str(node.process.pid)], check=False)
            node.process.kill()
        node.process.wait(timeout=20)

    def end(self):
        for n in list(self.nodes):
            self.kill(n)

    def find(self, n, acked):
        """Every acknowledged write is there, read through this node, and another one is taken."""
        read_again(self.nodes[n].ready(), acked)


def votes_under(options, work, phase, what, kind, nth):
    """A follower's disk fails when it writes down a term or a vote: it ends, and with it nobody is acknowledged."""
    cluster = Cluster(options, work)
    try:
        [cluster.start(n, "log") for n in cluster.peers]
        [node.ready() for node in cluster.nodes.values()]
        load = Load(cluster.nodes[1], 2, 5)
        load.join()
        if load.hung or not load.acked:
            raise RuntimeError("no load before the fault")
        # Until the witness of the last write is there: what is written next is a term or a vote.
        time.sleep(0.1)
        until("somebody leads", 20, cluster.leader)
        leader = cluster.leader()
        victim, other = [n for n in cluster.peers if n != leader]
        node, data = cluster.nodes[victim], cluster.data(victim)
        tracer = attach(node, strace(data, work / "trace", what, kind, nth))
        cluster.kill(leader)
        wait(node, 4)
        tracer.terminate()
        tracer.wait(timeout=20)
        seen = Trace(work / "trace", data)
        if seen.at is None:
            return None
        judge(seen, load, node, must_end=True, strict=True)
        after = Load(cluster.nodes[other], 1, 1)
        after.join()
        if after.acked:
            raise Broken("one node of three acknowledged a write")
        cluster.start(victim, "again")
        cluster.start(leader, "again")
        [cluster.find(n, load.acked) for n in cluster.peers]
        return seen
    finally:
        cluster.end()


def away(options, work):
    """The directories of three nodes, one of which was away until the others had only a snapshot of what it lacks."""
    cluster = Cluster(options, work / "away", snapshot_log="64KiB")
    cluster.work.mkdir()
    try:
        [cluster.start(n, "log") for n in cluster.peers]
        [node.ready() for node in cluster.nodes.values()]
        load = Load(cluster.nodes[1], 2, 5)
        load.join()
        until("somebody leads", 20, cluster.leader)
        leader = cluster.leader()
        victim, other = [n for n in cluster.peers if n != leader]
        lacks = status(cluster.nodes[victim])["last_index"] + 1
        cluster.kill(victim)
        stream, done = cluster.nodes[leader].connect(), itertools.count(0, 32)

        def is_gone():
            first = next(done)
            fill(stream, range(first, first + 32), keys=256)
            time.sleep(0.05)
            # The segments with these entries are gone, too; and there is not much behind the snapshot, which is what the
            # runs are about.
            told = [status(node) for node in cluster.nodes.values()]
            return all(t["first_index"] > lacks + 64 and t["last_index"] - t["snapshot_index"] < 64 for t in told)

        until("the entries that one node lacks are gone", 120, is_gone)
    finally:
        cluster.end()
    names = [path.name for n in (leader, other) for path in cluster.data(n).glob("*.snap")]
    FILES["received"] = lambda _: [name + ".recv.tmp" for name in names]
    options.away, options.away_acked, options.away_victim = cluster, load.acked, victim


def receiving_under(options, work, phase, what, kind, nth):
    """The disk of the node that was away fails: it ends, the others go on, and its next start gets it all."""
    cluster, victim = Cluster(options, work, options.away.peers), options.away_victim
    others = [n for n in cluster.peers if n != victim]
    data = cluster.data(victim)
    for n in cluster.peers:
        shutil.copytree(options.away.data(n), cluster.data(n))

    def is_level():
        told, leader = status(cluster.nodes[victim]), cluster.leader()
        return leader and told.get("ready") and told["applied"] >= status(cluster.nodes[leader])["commit"]

    try:
        [cluster.start(n, "log") for n in others]
        [cluster.nodes[n].ready() for n in others]
        cluster.start(victim, "log", strace(data, work / "trace", what, kind, nth))
        node = cluster.nodes[victim]
        until("it gets what it lacks, or ends", 20, lambda: node.process.poll() is not None or is_level())
        # What comes a little behind ends the process all the same.
        if not wait(node, 0.1) and Trace(work / "trace", data).at:
            wait(node, 2 * SECOND)
        cluster.kill(victim)
        seen = Trace(work / "trace", data)
        if seen.at is None:
            return None
        after = Load(cluster.nodes[others[0]], 1, 2, first=2)
        after.join()
        judge(seen, after, node, must_end=True, strict=False)
        if len(after.acked) < 2:
            raise Broken("two nodes of three acknowledged nothing")
        cluster.start(victim, "again")
        until("it gets what it lacks", 20, is_level)
        # From now on it is one of two: what was acknowledged has to be there without the third, too.
        cluster.kill(others[0])
        cluster.find(victim, options.away_acked + after.acked)
        return seen
    finally:
        cluster.end()
