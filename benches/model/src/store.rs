//! Every node state, message and step once: a state of the cluster is a few references, and a step that was computed once
//! is looked up. What is stored stays until the process ends.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{Mutex, PoisonError, RwLock},
};

use raft_core::{Message, NodeId};

use crate::{
    marks::Marks,
    node::{Event, Node, Shape},
    rules::Facts,
};

/// A value, its number, and its hash under each naming of the nodes.
#[derive(Debug)]
pub(crate) struct Stored<T> {
    pub(crate) value: T,
    pub(crate) number: u32,
    pub(crate) prints: Vec<u64>,
}

/// A node with what the rules need of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) node: Node,
    pub(crate) facts: Facts,
    /// The node but for the messages that wait for its disk.
    pub(crate) bare: u64,
}

pub(crate) type NodeRef = &'static Stored<Known>;
pub(crate) type Letter = &'static Stored<Message>;

/// What a step leads to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) node: NodeRef,
    pub(crate) sent: Vec<Letter>,
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Outcome) -> bool {
        self.node.number == other.node.number
            && self.sent.iter().map(|l| l.number).eq(other.sent.iter().map(|l| l.number))
    }
}

/// An event without its node: the message's number or a small code, and the kind.
pub(crate) type EventKey = (u32, u8);

#[derive(Debug)]
pub(crate) struct Store {
    shape: Shape,
    /// Where each naming puts each node: `names[p][i]` for the node at place `i`.
    pub(crate) names: Vec<[usize; 3]>,
    nodes: RwLock<HashMap<u64, NodeRef>>,
    letters: RwLock<HashMap<u64, Letter>>,
    steps: RwLock<HashMap<(u32, EventKey), &'static Outcome, BuildHasherDefault<Mix>>>,
    adding: Mutex<()>,
    pub(crate) marks: Marks,
}

impl Store {
    /// `names`: the namings of the nodes that make no difference, the one as it is first.
    pub(crate) fn new(shape: Shape, names: &[[usize; 3]]) -> Store {
        Store {
            shape,
            names: names.to_vec(),
            nodes: RwLock::default(),
            letters: RwLock::default(),
            steps: RwLock::default(),
            adding: Mutex::new(()),
            marks: Marks::default(),
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Node states, messages and steps.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (read(&self.nodes).len(), read(&self.letters).len(), read(&self.steps).len())
    }

    /// What becomes of a node by an event.
    pub(crate) fn step(&self, node: NodeRef, key: EventKey, event: &Event<'_>) -> &'static Outcome {
        let key = (node.number, key);
        if let Some(known) = read(&self.steps).get(&key) {
            return known;
        }
        let step = node.value.node.step(&self.shape, event);
        self.marks.add(&step.marks);
        let mut sent: Vec<Letter> = step.sent.into_iter().map(|message| self.letter(message)).collect();
        sent.sort_unstable_by_key(|letter| letter.number);
        sent.dedup_by_key(|letter| letter.number);
        let outcome: &Outcome = Box::leak(Box::new(Outcome { node: self.node(step.node), sent }));
        self.steps.write().unwrap_or_else(PoisonError::into_inner).insert(key, outcome);
        outcome
    }

    pub(crate) fn node(&self, node: Node) -> NodeRef {
        let print = |names: &[usize; 3]| hash_of(&node.renamed(&|id| renamed(names, id)));
        let prints: Vec<u64> = self.names.iter().map(print).collect();
        let facts = Facts::of(&node, &self.shape.founding);
        let bare = hash_of(&Node { core: node.core.without_held(), ..node.clone() });
        intern(&self.nodes, &self.adding, prints, Known { node, facts, bare })
    }

    pub(crate) fn letter(&self, message: Message) -> Letter {
        let print = |names: &[usize; 3]| hash_of(&message.renamed(&|id| renamed(names, id)));
        let prints: Vec<u64> = self.names.iter().map(print).collect();
        intern(&self.letters, &self.adding, prints, message)
    }
}

fn intern<T: Same>(
    table: &RwLock<HashMap<u64, &'static Stored<T>>>,
    adding: &Mutex<()>,
    prints: Vec<u64>,
    value: T,
) -> &'static Stored<T> {
    let _one_at_a_time = adding.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = read(table).get(&prints[0]) {
        assert!(known.value.same(&value), "two values with one hash");
        return known;
    }
    let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
    let number = u32::try_from(table.len()).expect("fewer than 2^32 states of one node");
    let stored: &Stored<T> = Box::leak(Box::new(Stored { number, prints: prints.clone(), value }));
    table.insert(prints[0], stored);
    stored
}

/// Equality that a hash stands for.
trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl Same for Known {
    fn same(&self, other: &Known) -> bool {
        self.node == other.node
    }
}

impl Same for Message {
    fn same(&self, other: &Message) -> bool {
        self == other
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Nodes are numbered from 1.
pub(crate) fn place(id: NodeId) -> usize {
    usize::try_from(id.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

pub(crate) fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

fn renamed(names: &[usize; 3], node: NodeId) -> NodeId {
    id(names[place(node)])
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// SplitMix64's finish: spreads a number over all bits.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// For keys that are small numbers.
#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ value);
    }
}
