use super::*;

const FOUNDERS: [u64; 3] = [1, 2, 3];

fn list() -> BTreeMap<NodeId, String> {
    FOUNDERS.iter().map(|id| (NodeId(*id), format!("host{id}:7402"))).collect()
}

/// A splitmix64, so that a seed replays.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// A data directory: what survives a crash.
#[derive(Clone)]
struct Disk {
    incarnation: Incarnation,
    pin: Option<Pin>,
}

struct Cluster {
    rng: Rng,
    disks: BTreeMap<NodeId, Disk>,
    running: BTreeMap<NodeId, Founding>,
    wire: Vec<(NodeId, NodeId, FoundingMessage)>,
    /// With the directory that came to it.
    founded: Vec<(NodeId, Incarnation, Pin)>,
    refused: Vec<(NodeId, Incarnation, FoundingRefusal)>,
    loss: bool,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut rng = Rng(seed);
        let disks =
            FOUNDERS.map(|id| (NodeId(id), Disk { incarnation: Incarnation(rng.next() | 1), pin: None }));
        Cluster {
            rng,
            disks: disks.into(),
            running: BTreeMap::new(),
            wire: Vec::new(),
            founded: Vec::new(),
            refused: Vec::new(),
            loss: true,
        }
    }

    fn start(&mut self, id: NodeId) {
        let disk = self.disks[&id].clone();
        let cluster = ClusterId(u128::from(self.rng.next()) << 64 | u128::from(self.rng.next()));
        let mut founding = Founding::new(id, disk.incarnation, list(), disk.pin, cluster).unwrap();
        let output = founding.tick();
        self.running.insert(id, founding);
        self.carry_out(id, output);
    }

    fn carry_out(&mut self, id: NodeId, output: FoundingOutput) {
        for (to, message) in output.send {
            self.wire.push((id, to, message));
        }
        if let Some(outcome) = output.outcome {
            let disk = &self.disks[&id];
            match outcome {
                FoundingOutcome::Founded(pin) => {
                    assert_eq!(disk.pin.as_ref(), Some(&pin), "{id} was founded without a durable pin");
                    self.founded.push((id, disk.incarnation, pin));
                }
                FoundingOutcome::Refused(reason) => self.refused.push((id, disk.incarnation, reason)),
            }
        }
        if let Some(pin) = output.pin {
            // A crash before the write, after it, or none.
            if self.rng.one_in(8) && self.loss {
                self.running.remove(&id);
                return;
            }
            let disk = self.disks.get_mut(&id).unwrap();
            assert!(disk.pin.is_none(), "{id} replaced its pin");
            disk.pin = Some(pin);
            if self.rng.one_in(8) && self.loss {
                self.running.remove(&id);
                return;
            }
            let output = self.running.get_mut(&id).unwrap().pinned();
            self.carry_out(id, output);
        }
    }

    fn step(&mut self, wipe: bool) {
        let id = NodeId(FOUNDERS[self.rng.below(3)]);
        if !self.running.contains_key(&id) {
            return self.start(id);
        }
        match self.rng.below(if self.loss { 20 } else { 4 }) {
            4 => {
                self.running.remove(&id);
                if wipe && self.rng.one_in(3) {
                    let incarnation = Incarnation(self.rng.next() | 1);
                    self.disks.insert(id, Disk { incarnation, pin: None });
                }
            }
            0 => {
                let output = self.running.get_mut(&id).unwrap().tick();
                self.carry_out(id, output);
            }
            _ if self.wire.is_empty() => {}
            _ => {
                let at = self.rng.below(self.wire.len());
                let (from, to, message) = self.wire.swap_remove(at);
                if self.loss && self.rng.one_in(5) {
                    return;
                }
                if self.loss && self.rng.one_in(10) {
                    self.wire.push((from, to, message.clone()));
                }
                if let Some(founding) = self.running.get_mut(&to) {
                    let output = founding.receive(from, &message);
                    self.carry_out(to, output);
                }
            }
        }
        self.wire.truncate(2000);
    }

    /// Whoever may vote agrees on one cluster, and nobody may before all have pinned.
    fn check(&self) {
        for (id, incarnation, pin) in &self.founded {
            assert_eq!(
                pin.founders[id].incarnation, *incarnation,
                "{id} votes with a directory nobody pinned"
            );
            for (_, _, other) in &self.founded {
                // Once every directory was wiped nobody remembers: that is another cluster. Sharing one is not allowed.
                let shares = pin.founders.iter().any(|(id, member)| other.founders[id] == *member);
                assert!(pin == other || !shares, "a directory belongs to two clusters: {pin:?}, {other:?}");
            }
        }
    }
}

#[test]
fn founders_agree_whatever_is_lost_and_whoever_crashes() {
    for seed in 0..300 {
        let mut cluster = Cluster::new(seed);
        for _ in 0..400 {
            let before = cluster.founded.len();
            cluster.step(false);
            cluster.check();
            if before == 0 && !cluster.founded.is_empty() {
                let pin = &cluster.founded[0].2;
                for disk in cluster.disks.values() {
                    assert_eq!(disk.pin.as_ref(), Some(pin), "seed {seed}: founded before all had pinned");
                }
            }
        }
        cluster.loss = false;
        for _ in 0..400 {
            cluster.step(false);
            cluster.check();
        }
        assert!(cluster.refused.is_empty(), "seed {seed}: {:?}", cluster.refused);
        for founding in cluster.running.values() {
            let over = matches!(founding.state, State::Over(FoundingOutcome::Founded(_)));
            assert!(over, "seed {seed}: {founding:?} waits for {:?}", founding.waiting_for());
        }
    }
}

#[test]
fn a_wiped_founder_never_makes_two_clusters() {
    let mut refusals = 0;
    for seed in 1000..1400 {
        let mut cluster = Cluster::new(seed);
        for _ in 0..600 {
            cluster.step(true);
            cluster.check();
        }
        refusals += cluster.refused.len();
    }
    assert!(refusals > 100, "wiping was never noticed: {refusals}");
}

fn alone(id: u64, incarnation: u64) -> Founding {
    Founding::new(NodeId(id), Incarnation(incarnation), list(), None, ClusterId(7)).unwrap()
}

#[test]
fn a_start_with_a_founder_missing_waits_and_says_for_whom() {
    let mut first = alone(1, 11);
    let _ = first.tick();
    let output = first.receive(NodeId(2), &FoundingMessage::Meet { incarnation: Incarnation(22) });
    assert_eq!(output, FoundingOutput::default());
    assert_eq!(first.waiting_for(), vec![(NodeId(3), "host3:7402".to_owned())]);
    let output = first.receive(NodeId(3), &FoundingMessage::Meet { incarnation: Incarnation(33) });
    assert!(output.send.is_empty(), "proposed before the pin was durable");
    assert!(output.pin.is_some());
    assert!(first.pinned().send.iter().any(|(_, message)| matches!(message, FoundingMessage::Propose(_))));
}

#[test]
fn a_lone_founder_founds_at_once() {
    let list = BTreeMap::from([(NodeId(1), "localhost:7402".to_owned())]);
    let mut only = Founding::new(NodeId(1), Incarnation(5), list, None, ClusterId(9)).unwrap();
    let pin = only.tick().pin.expect("nobody else has to be met");
    let output = only.pinned();
    assert_eq!(output.outcome, Some(FoundingOutcome::Founded(pin)));
}

#[test]
fn a_fresh_directory_is_told_that_its_id_is_taken() {
    let members = list()
        .into_iter()
        .map(|(id, address)| (id, Member { incarnation: Incarnation(id.0 * 11), address }))
        .collect();
    let mut fresh = alone(2, 99);
    let meet = FoundingMessage::Meet { incarnation: Incarnation(99) };
    let answer = Founding::answer_of_member(ClusterId(7), &members, NodeId(2), &meet).unwrap();
    let outcome = fresh.receive(NodeId(1), &answer).outcome;
    let Some(FoundingOutcome::Refused(reason)) = outcome else { panic!("{outcome:?}") };
    assert!(
        matches!(reason, FoundingRefusal::OtherIncarnation { admitted: Incarnation(22), .. }),
        "{reason}"
    );
    assert_eq!(fresh.tick(), FoundingOutput::default());
}

#[test]
fn a_pinned_founder_starts_when_a_member_says_that_the_cluster_runs() {
    let met = FOUNDERS.iter().map(|id| (NodeId(*id), Incarnation(id * 11))).collect();
    let pin = make_pin(ClusterId(7), &list(), &met);
    let mut late =
        Founding::new(NodeId(3), Incarnation(33), list(), Some(pin.clone()), ClusterId(8)).unwrap();
    let founded = |admitted| FoundingMessage::Founded { cluster: ClusterId(7), admitted };
    let output = late.clone().receive(NodeId(1), &founded(None));
    assert!(matches!(output.outcome, Some(FoundingOutcome::Refused(FoundingRefusal::NotAMember { .. }))));
    let output = late.receive(NodeId(1), &founded(Some(Incarnation(33))));
    assert_eq!(output.outcome, Some(FoundingOutcome::Founded(pin)));
}

#[test]
fn lists_that_cannot_be_are_refused() {
    let of = |id, list| Founding::new(NodeId(id), Incarnation(1), list, None, ClusterId(7));
    assert!(matches!(of(4, list()), Err(FoundingStartError::NotListed { .. })));
    let ten = (1..=10).map(|id| (NodeId(id), "host:1".to_owned())).collect();
    assert!(matches!(of(1, ten), Err(FoundingStartError::BadList(_))));
    let long = BTreeMap::from([(NodeId(1), "a".repeat(256))]);
    assert!(matches!(of(1, long), Err(FoundingStartError::BadList(_))));
}
