//! Everything at once, at random, from a seed: lost, doubled and reordered messages, crashes that keep any prefix of
//! the unsynced writes, stuck disks, snapshots, transfers. After each step the promises of SAFETY section 1 are
//! checked over the whole history; at the end the cluster must come to one state.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::{Config, EntryKind, Input, LogId, LogIndex, NodeId, RoleKind, Term};

use crate::cluster::Cluster;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What must hold over the whole history.
#[derive(Default)]
struct History {
    /// C3: what was committed at each index, ever.
    committed: BTreeMap<LogIndex, (LogId, Bytes)>,
    /// E1: who led each term.
    leaders: BTreeMap<Term, u64>,
    /// Reads: the highest index committed anywhere when each was asked.
    reads: BTreeMap<u64, LogIndex>,
    answered: usize,
}

impl History {
    fn check(&mut self, cluster: &Cluster) {
        for (id, node) in &cluster.nodes {
            if !node.up {
                continue;
            }
            node.raft.check().unwrap();
            assert_eq!(node.raft.halted(), None);
            if node.raft.role() == RoleKind::Leader {
                let leader = *self.leaders.entry(node.raft.term()).or_insert(*id);
                assert_eq!(leader, *id, "E1: two leaders in term {}", node.raft.term());
                for (index, (committed, _)) in &self.committed {
                    let ours = node.raft.term_at(*index);
                    let missing =
                        committed.term < node.raft.term() && ours.is_some_and(|t| t != committed.term);
                    let short = committed.term < node.raft.term() && *index > node.raft.last().index;
                    assert!(!missing && !short, "C4: the leader {id} lacks {committed}");
                }
            }
            for entry in &node.applied {
                let known = (entry.id, entry.payload.clone());
                let first = self.committed.entry(entry.id.index).or_insert_with(|| known.clone());
                assert_eq!(*first, known, "C3: {id} applied another entry");
            }
            for outcome in &node.reads {
                if let (Some(index), Some(floor)) = (outcome.index, self.reads.remove(&outcome.token.0)) {
                    assert!(index >= floor, "R1: a read at {id} would miss {floor}, it got {index}");
                    self.answered += 1;
                }
            }
        }
    }
}

fn settings(config: &mut Config) {
    config.append_bytes_max = 300;
    config.inflight_messages_max = 3;
    config.tail_bytes_max = 200;
    config.apply_bytes_max = 200;
    config.unapplied_bytes_max = 400;
    config.uncommitted_bytes_max = 2000;
    config.trailing_entries = 3;
    config.snapshot_timeout_ms = 2000;
}

/// Tells the entries committed, reads answered and snapshots installed.
fn run(seed: u64, count: u64, steps: u64) -> (u64, usize, usize) {
    let mut dice = Dice(seed.wrapping_mul(7919) + count);
    let mut cluster = Cluster::with(count, |config| {
        settings(config);
        config.seed += seed * 17;
        // Every other run keeps nothing behind a snapshot, so that whoever is late needs one.
        config.trailing_entries = if seed.is_multiple_of(2) { 0 } else { 3 };
    });
    let mut history = History::default();
    // Quiet stretches let something happen that the next storm can endanger.
    let calm = |step: u64| (step / 150).is_multiple_of(2);
    for step in 0..steps {
        let id = dice.roll(count) + 1;
        if step % 300 == 0 {
            calm_down(&mut cluster, count);
        }
        match dice.roll(if calm(step) { 85 } else { 100 }) {
            0..=29 => advance(&mut cluster, &mut dice),
            30..=54 => shuffle_network(&mut cluster, &mut dice),
            55..=69 => {
                if cluster.node(id).up {
                    cluster.carry_out(id);
                }
            }
            70..=79 => {
                let id = cluster.leader().filter(|_| dice.roll(4) > 0).unwrap_or(id);
                let _ = cluster.node(id).up && cluster.propose(id, &format!("{seed}/{step}")).is_ok();
            }
            80..=84 => {
                let now = cluster.now();
                let floor = history.committed.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index);
                let node = cluster.node_mut(id);
                if node.up && node.raft.read(now, raft_core::ReadToken(step)).is_ok() {
                    history.reads.insert(step, floor);
                }
            }
            85..=87 => {
                let stuck = !cluster.node(id).disk_stuck;
                cluster.node_mut(id).disk_stuck = stuck;
                cluster.work_disk(id);
            }
            88..=90 => {
                cluster.snapshot(id);
                if cluster.node(id).up {
                    let kept = usize::try_from(dice.roll(4)).unwrap();
                    cluster.crash_keeping(id, kept);
                } else {
                    cluster.restart(id);
                }
            }
            91..=93 => {
                let other = dice.roll(count) + 1;
                if !cluster.cut.remove(&(id, other)) {
                    cluster.cut.insert((id, other));
                }
            }
            94..=96 => {
                // A leader that compacts while somebody is cut off.
                let id = cluster.leader().unwrap_or(id);
                cluster.isolate(id % count + 1);
                cluster.snapshot(id);
            }
            97 => {
                let (now, to) = (cluster.now(), NodeId(dice.roll(count) + 1));
                let _ = cluster.node_mut(id).raft.transfer_leadership(now, to);
            }
            98 => cluster.heal(),
            _ => {
                let peer = NodeId(dice.roll(count) + 1);
                let input =
                    if dice.roll(2) == 0 { Input::PeerConnected(peer) } else { Input::PeerDied(peer) };
                if cluster.node(id).up {
                    cluster.handle(id, input).unwrap();
                }
            }
        }
        history.check(&cluster);
    }
    converge(&mut cluster, &mut history, count);
    let restored = cluster.nodes.values().map(|node| node.restored.len()).sum();
    (cluster.raft(1).commit().0, history.answered, restored)
}

fn advance(cluster: &mut Cluster, dice: &mut Dice) {
    cluster.now_ms += dice.roll(40);
    let now = cluster.now().instant;
    let ids: Vec<u64> = cluster.nodes.keys().copied().collect();
    for id in ids {
        if cluster.node(id).up && cluster.raft(id).next_deadline().is_some_and(|at| at <= now) {
            cluster.handle(id, Input::Tick).unwrap();
            cluster.carry_out(id);
        }
    }
}

/// Delivers some of what is under way, in any order; loses and doubles some.
fn shuffle_network(cluster: &mut Cluster, dice: &mut Dice) {
    let ids: Vec<u64> = cluster.nodes.keys().copied().collect();
    for id in ids {
        cluster.carry_out(id);
    }
    for _ in 0..dice.roll(25) {
        if cluster.network.is_empty() {
            return;
        }
        let place = usize::try_from(dice.roll(cluster.network.len() as u64)).unwrap();
        let fate = dice.roll(20);
        let message = cluster.network[place].clone();
        if fate != 0 {
            cluster.network.remove(place);
        }
        if fate != 1 {
            cluster.deliver(message);
        }
    }
}

fn calm_down(cluster: &mut Cluster, count: u64) {
    cluster.heal();
    for id in 1..=count {
        cluster.node_mut(id).disk_stuck = false;
        if !cluster.node(id).up {
            cluster.restart(id);
        }
        cluster.work_disk(id);
    }
}

/// After the faults stop: one leader, one state (SAFETY V1, V2).
fn converge(cluster: &mut Cluster, history: &mut History, count: u64) {
    calm_down(cluster, count);
    cluster.wait_for_leader();
    cluster.pass(5000);
    history.check(cluster);
    let leader = cluster.leader().unwrap();
    let last = cluster.propose(leader, "the end").unwrap();
    cluster.pass(3000);
    history.check(cluster);
    for id in 1..=count {
        let raft = cluster.raft(id);
        assert_eq!((raft.commit(), raft.applied(), raft.last()), (last.index, last.index, last), "V2: {id}");
        assert!(cluster.node(id).applied.last().is_some_and(|e| e.kind == EntryKind::Command));
    }
}

fn runs(seeds: std::ops::Range<u64>, count: u64) {
    let (mut committed, mut reads, mut restores) = (0, 0, 0);
    for seed in seeds.clone() {
        println!("seed {seed}, {count} nodes");
        let (one, answered, restored) = run(seed, count, 1500);
        committed += one;
        reads += answered;
        restores += restored;
    }
    println!("{committed} entries, {reads} reads, {restores} snapshots");
    let runs = seeds.end - seeds.start;
    assert!(
        committed > runs * 10 && reads as u64 > runs && (restores > 0 || count < 3),
        "the runs must get something done"
    );
}

#[test]
fn three_nodes_keep_their_promises() {
    runs(0..150, 3);
}

#[test]
fn five_nodes_keep_their_promises() {
    runs(0..60, 5);
}

#[test]
fn two_nodes_keep_their_promises() {
    runs(0..40, 2);
}

#[test]
fn one_node_keeps_its_promises() {
    for seed in 0..20 {
        run(seed, 1, 800);
    }
}
