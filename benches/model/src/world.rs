//! The cluster as a stateright model: three nodes, every message that was ever sent, and a little memory of what happened.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use raft_core::{Body, CampaignId, ConfChange, Message, Term};
use stateright::{Model, Property};

use crate::{
    node::{Clock, Event, Node, Shape},
    rules,
    store::{EventKey, Letter, NodeRef, Outcome, Store, id, mix, place},
};

/// Terms are at most this, whatever is asked for.
pub(crate) const TERMS_MAX: usize = 7;
/// Entries that can be remembered as committed.
const COMMITTED_MAX: usize = 12;
/// In place of a leader: a second one was elected.
pub(crate) const TWO: u8 = u8::MAX;

/// How far the space goes.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) terms: u64,
    /// Elections begun and leaders that step down because they hear nobody.
    pub(crate) timeouts: u8,
    pub(crate) proposals: u8,
    pub(crate) crashes: u8,
    pub(crate) heartbeats: bool,
    /// Changes of the membership that may be asked for, each at most once.
    pub(crate) changes: Vec<ConfChange>,
    /// A change goes through a joint configuration, or its leader away. Otherwise only leaders that keep their vote are
    /// asked.
    pub(crate) joint: bool,
    pub(crate) transfers: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) bounds: Bounds,
    membership: bool,
    /// From each node to each other something that is too old to say anything but that its sender lives. What
    /// [`World::is_dead`] drops had that effect, too.
    stale: Vec<Letter>,
    deadline: Instant,
    /// The deadline passed before the space was explored.
    pub(crate) cut_short: AtomicBool,
    /// The exploration is over; what is asked now is how it came to be.
    pub(crate) over: AtomicBool,
}

/// All nodes at one moment. Messages are never lost or used up: one that is never delivered was lost, one that is
/// delivered twice was doubled.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) nodes: [NodeRef; 3],
    /// By number.
    pub(crate) letters: Arc<[Letter]>,
    pub(crate) ghost: Ghost,
    print: u64,
}

/// What has been true once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ghost {
    /// The node that led each term; 0 none, [`TWO`] a broken rule.
    pub(crate) leaders: [u8; TERMS_MAX + 1],
    /// The term of each committed entry, and the term during which it was first seen committed.
    committed: [(u8, u8); COMMITTED_MAX],
    length: u8,
    timeouts: u8,
    crashes: u8,
    proposals: u8,
    /// One bit for each change.
    changes: u8,
}

impl Ghost {
    pub(crate) fn committed(&self) -> &[(u8, u8)] {
        &self.committed[..usize::from(self.length)]
    }

    /// Whether a change of the membership was ever appended.
    pub(crate) fn has_changed(&self) -> bool {
        self.changes != 0
    }

    fn see(&mut self, node: NodeRef) {
        let known = &node.value;
        let facts = &known.facts;
        let own = u8::try_from(known.node.core.id().0).unwrap_or(TWO);
        let term = usize::try_from(facts.term).unwrap_or(TERMS_MAX).min(TERMS_MAX);
        if known.node.leads() {
            let leader = &mut self.leaders[term];
            *leader = if *leader == 0 || *leader == own { own } else { TWO };
        }
        for at in usize::from(self.length)..facts.commit.min(COMMITTED_MAX) {
            let of = facts.log.get(at).map_or(u8::MAX, |term| u8::try_from(*term).unwrap_or(u8::MAX));
            self.committed[at] = (of, u8::try_from(term).unwrap_or(u8::MAX));
            self.length = u8::try_from(at + 1).unwrap_or(u8::MAX);
        }
    }

    fn print(&self, names: &[usize; 3]) -> u64 {
        let Ghost { leaders, timeouts, crashes, proposals, changes, .. } = self;
        let mut print = u64::from(*crashes)
            | u64::from(*proposals) << 8
            | u64::from(*changes) << 16
            | u64::from(*timeouts) << 24;
        for leader in leaders {
            let named = match leader {
                1..=3 => names[usize::from(*leader) - 1] as u64 + 1,
                _ => u64::from(*leader),
            };
            print = mix(print.wrapping_add(named + 1));
        }
        for (term, during) in self.committed() {
            print = mix(print.wrapping_add(u64::from(*term) << 8 | u64::from(*during)));
        }
        print
    }
}

/// One step of one node.
#[derive(Clone)]
pub(crate) struct Action {
    at: usize,
    what: What,
    outcome: &'static Outcome,
}

/// What happens to it.
#[derive(Clone, Copy, Debug)]
enum What {
    Hear(Letter, Clock),
    Timeout,
    Heartbeat,
    Deadline,
    Persist,
    /// So many of its unfinished writes are found on the disk.
    Crash(usize),
    Propose,
    /// The place in [`Bounds::changes`].
    Change(usize),
    Transfer(usize),
}

impl World {
    pub(crate) fn new(shape: Shape, bounds: Bounds, names: &[[usize; 3]], deadline: Instant) -> World {
        assert!(bounds.terms < TERMS_MAX as u64, "the model remembers {TERMS_MAX} terms");
        let membership = !bounds.changes.is_empty();
        let store = Store::new(shape, names);
        let pairs = (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let body = Body::RequestVoteReply { campaign: CampaignId(0), granted: false };
        let stale = pairs.map(|(from, to)| {
            store.letter(Message { from: id(from), to: id(to), term: Term(1), body: body.clone() })
        });
        let stale = stale.collect();
        World {
            store,
            bounds,
            membership,
            stale,
            deadline,
            cut_short: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    fn state(&self, nodes: [NodeRef; 3], letters: Arc<[Letter]>, ghost: Ghost) -> State {
        // The smallest over all namings: states that differ in names alone are one.
        let print = |(naming, names): (usize, &[usize; 3])| {
            let mut places = [0; 3];
            for (at, node) in nodes.iter().enumerate() {
                places[names[at]] = node.prints[naming];
            }
            let sum = letters.iter().fold(0_u64, |sum, letter| sum.wrapping_add(mix(letter.prints[naming])));
            let nodes = places.iter().fold(0_u64, |print, place| mix(print.rotate_left(7) ^ place));
            mix(nodes ^ mix(sum) ^ ghost.print(names).rotate_left(32))
        };
        let print = self.store.names.iter().enumerate().map(print).min().unwrap_or_default();
        State { nodes, letters, ghost, print }
    }

    fn outcome(&self, node: NodeRef, what: What) -> &'static Outcome {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (key, event): (EventKey, Event<'_>) = match what {
            What::Hear(letter, Clock::Still) => {
                ((letter.number, 0), Event::Deliver(&letter.value, Clock::Still))
            }
            What::Hear(letter, Clock::Late) => {
                ((letter.number, 1), Event::Deliver(&letter.value, Clock::Late))
            }
            What::Crash(survive) => ((small(survive), 2), Event::Crash(survive)),
            What::Timeout => ((0, 3), Event::Timeout),
            What::Heartbeat => ((0, 4), Event::Heartbeat),
            What::Deadline => ((0, 5), Event::Deadline),
            What::Persist => ((0, 6), Event::Persist),
            What::Propose => ((0, 7), Event::Propose),
            What::Change(change) => ((small(change), 8), Event::Change(&self.bounds.changes[change])),
            What::Transfer(to) => ((small(to), 9), Event::Transfer(id(to))),
        };
        self.store.step(node, key, &event)
    }

    /// Takes every step that does no more than send: it changes no node, or only what waits for its disk. Since messages
    /// are never used up, having more of them rules nothing out, so these steps need not be interleaved with others.
    fn saturate(
        &self,
        nodes: &mut [NodeRef; 3],
        letters: &Arc<[Letter]>,
        step: (usize, &[Letter]),
    ) -> Arc<[Letter]> {
        let (at, sent) = step;
        let mut all: Vec<Letter> =
            letters.iter().copied().filter(|letter| !self.is_dead(letter, nodes)).collect();
        let mut work: Vec<Letter> =
            all.iter().copied().filter(|letter| place(letter.value.to) == at).collect();
        let add = |all: &mut Vec<Letter>, work: &mut Vec<Letter>, nodes: &[NodeRef; 3], sent: &[Letter]| {
            for letter in sent.iter().copied().filter(|letter| !self.is_dead(letter, nodes)) {
                if let Err(place) = all.binary_search_by_key(&letter.number, |l| l.number) {
                    all.insert(place, letter);
                    work.push(letter);
                }
            }
        };
        add(&mut all, &mut work, nodes, sent);
        if self.bounds.heartbeats && nodes[at].value.node.leads() {
            let outcome = self.outcome(nodes[at], What::Heartbeat);
            if outcome.node.value.bare == nodes[at].value.bare {
                nodes[at] = outcome.node;
                add(&mut all, &mut work, nodes, &outcome.sent);
            }
        }
        while let Some(letter) = work.pop() {
            let to = place(letter.value.to);
            for clock in clocks(letter, nodes[to]) {
                let outcome = self.outcome(nodes[to], What::Hear(letter, *clock));
                if outcome.node.value.bare == nodes[to].value.bare {
                    nodes[to] = outcome.node;
                    add(&mut all, &mut work, nodes, &outcome.sent);
                }
            }
        }
        if all.len() == letters.len() && all.iter().zip(letters.iter()).all(|(a, b)| a.number == b.number) {
            return letters.clone();
        }
        all.into()
    }

    /// Whether a message can have no effect any more: an answer to a term that its receiver has left for good, or
    /// anything of an earlier term between two nodes that have both reached the last. Votes that were given stay, E2
    /// looks at them.
    fn is_dead(&self, letter: Letter, nodes: &[NodeRef; 3]) -> bool {
        let message = &letter.value;
        let disk_term = |id| nodes[place(id)].value.facts.disk_term;
        let receiver = disk_term(message.to);
        if message.term.0 >= receiver {
            return false;
        }
        let all_done = receiver == self.bounds.terms && disk_term(message.from) == self.bounds.terms;
        let body = &message.body;
        let answers = matches!(
            body,
            Body::AppendReply { .. }
                | Body::HeartbeatReply { .. }
                | Body::TimeoutNow
                | Body::RequestVoteReply { granted: false, .. }
        );
        let appends = matches!(body, Body::AppendEntries { .. } | Body::Heartbeat { .. });
        answers || (appends && all_done)
    }
}

/// How much time it makes sense to let pass before this message.
fn clocks(letter: Letter, node: NodeRef) -> &'static [Clock] {
    let Node { core, .. } = &node.value.node;
    let leads = node.value.node.leads();
    let body = &letter.value.body;
    let asks = matches!(body, Body::PreVote { .. } | Body::RequestVote { .. });
    let answers = matches!(body, Body::HeartbeatReply { .. } | Body::AppendReply { .. });
    // A leader that is followed ignores the later term of a stranger.
    let matters =
        (asks && core.leader().is_some()) || (leads && (answers || letter.value.term > core.term()));
    if matters { &[Clock::Still, Clock::Late] } else { &[Clock::Still] }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let shape = self.store.shape();
        let nodes = [0, 1, 2].map(|at| self.store.node(Node::new(id(at), shape)));
        let ghost = Ghost {
            leaders: [0; TERMS_MAX + 1],
            committed: [(0, 0); COMMITTED_MAX],
            length: 0,
            timeouts: 0,
            crashes: 0,
            proposals: 0,
            changes: 0,
        };
        vec![self.state(nodes, Arc::new([]), ghost)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if Instant::now() > self.deadline && !self.over.load(Ordering::Relaxed) {
            self.cut_short.store(true, Ordering::Relaxed);
            return;
        }
        let Bounds { terms, timeouts, proposals, crashes, heartbeats, ref changes, joint, transfers } =
            self.bounds;
        let mut offer = |at: usize, what: What| {
            let node = state.nodes[at];
            let outcome = self.outcome(node, what);
            // With much time passed the same may come out as with none.
            let again = |last: &Action| last.at == at && last.outcome == outcome;
            if outcome.node.number != node.number && !actions.last().is_some_and(again) {
                actions.push(Action { at, what, outcome });
            }
        };
        for letter in state.letters.iter() {
            let at = place(letter.value.to);
            for clock in clocks(letter, state.nodes[at]) {
                offer(at, What::Hear(letter, *clock));
            }
        }
        for at in 0..3 {
            let Node { core, writes, .. } = &state.nodes[at].value.node;
            let leads = state.nodes[at].value.node.leads();
            if state.ghost.timeouts < timeouts && (leads || core.term().0 < terms) {
                offer(at, What::Timeout);
            }
            if !writes.is_empty() {
                offer(at, What::Persist);
            }
            if state.ghost.crashes < crashes {
                (0..=writes.len()).for_each(|survive| offer(at, What::Crash(survive)));
            }
            if !leads {
                continue;
            }
            for letter in self.stale.iter().filter(|l| place(l.value.to) == at && l.value.term < core.term())
            {
                offer(at, What::Hear(letter, Clock::Still));
            }
            if heartbeats {
                offer(at, What::Heartbeat);
            }
            if state.ghost.proposals < proposals {
                offer(at, What::Propose);
            }
            let open = |change: &usize| {
                let keeps_vote = changes[*change].voters.contains(&id(at));
                state.ghost.changes & (1 << change) == 0 && (joint || keeps_vote)
            };
            for change in (0..changes.len()).filter(open) {
                offer(at, What::Change(change));
            }
            if self.membership && joint {
                offer(at, What::Deadline);
            }
            if transfers {
                (0..3).filter(|to| *to != at).for_each(|to| offer(at, What::Transfer(to)));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let Action { at, what, outcome } = action;
        let mut nodes = state.nodes;
        nodes[at] = outcome.node;
        let mut ghost = state.ghost;
        match what {
            What::Timeout => ghost.timeouts += 1,
            What::Crash(_) => ghost.crashes += 1,
            What::Propose => ghost.proposals += 1,
            // A leader that is not ready appends a no-op first and is asked again.
            What::Change(change) => {
                let conf = |node: NodeRef| node.value.node.core.conf_id();
                ghost.changes |= u8::from(conf(outcome.node) != conf(state.nodes[at])) << change;
            }
            What::Hear(..) | What::Heartbeat | What::Deadline | What::Persist | What::Transfer(_) => {}
        }
        ghost.see(outcome.node);
        let letters = self.saturate(&mut nodes, &state.letters, (at, &outcome.sent));
        Some(self.state(nodes, letters, ghost))
    }

    fn properties(&self) -> Vec<Property<World>> {
        let mut all = rules::properties();
        all.extend(rules::sights(&self.bounds));
        all
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.nodes.iter().all(|node| node.value.facts.term <= self.bounds.terms)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.print);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.print == other.print
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            let (core, facts) = (&node.value.node.core, &node.value.facts);
            let vote = core.vote().map_or(0, |id| id.0);
            write!(f, "  {} {:?} term {} vote {vote}", core.id(), core.role(), facts.term)?;
            write!(f, " log {:?} commit {} | disk ", facts.log, facts.commit)?;
            writeln!(f, "term {} log {:?}", facts.disk_term, facts.disk)?;
        }
        Ok(())
    }
}

impl PartialEq for Action {
    fn eq(&self, other: &Action) -> bool {
        self.at == other.at && self.outcome == other.outcome
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", id(self.at))?;
        match self.what {
            What::Hear(letter, clock) => {
                let message = &letter.value;
                write!(f, "hears {} of term {}, {clock:?}: {:?}", message.from, message.term, message.body)
            }
            What::Timeout => f.write_str("times out"),
            What::Heartbeat => f.write_str("sends heartbeats"),
            What::Deadline => f.write_str("waits no longer"),
            What::Persist => f.write_str("has written"),
            What::Crash(survive) => write!(f, "crashes, {survive} unfinished writes are found"),
            What::Propose => f.write_str("gets a command"),
            What::Change(change) => write!(f, "is asked for change {change}"),
            What::Transfer(to) => write!(f, "is to hand over to {}", id(to)),
        }
    }
}
