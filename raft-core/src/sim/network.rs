//! The wires.
//!
//! The fault model: a message may be lost, arrive twice, arrive late and so behind later ones, or find its link cut,
//! each direction by itself. It is never changed (frames carry checksums) and never comes from anyone but its sender.
//! A snapshot travels with the message that announces it; if it breaks off, the sender may or may not hear of it.

use super::{
    clock::{Agenda, Event, MILLI, Time},
    coverage::{Coverage, Mark},
    disk::Snapshot,
    random::Random,
};
use crate::{Body, Incarnation, Message, NodeId};

/// How bad the wires are. Shares are per mille.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) loss: u64,
    pub(super) duplication: u64,
    /// How many messages take up to `delay_max` instead of a little.
    pub(super) lateness: u64,
    pub(super) delay_max: Time,
    /// How long a few messages take at most; zero if none does. Long enough for a node to lead again meanwhile.
    pub(super) straggle_max: Time,
}

impl Weather {
    pub(super) const FAIR: Weather =
        Weather { loss: 0, duplication: 0, lateness: 0, delay_max: MILLI, straggle_max: 0 };
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) message: Message,
    /// The file that goes with an [`Body::InstallSnapshot`].
    pub(super) snapshot: Option<Snapshot>,
    /// Between which data directories the connection was made.
    pub(super) directories: (Incarnation, Incarnation),
    /// Sent before this number of others on its link, to tell when order is lost.
    number: u64,
}

/// All links, and everything on its way.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) weather: Weather,
    nodes: usize,
    cut: Vec<bool>,
    slow: Vec<bool>,
    sent: Vec<u64>,
    arrived: Vec<u64>,
    slots: Vec<Option<Parcel>>,
    free: Vec<u32>,
}

impl Network {
    pub(super) fn new(nodes: usize) -> Network {
        Network {
            weather: Weather::FAIR,
            nodes,
            cut: vec![false; nodes * nodes],
            slow: vec![false; nodes * nodes],
            sent: vec![0; nodes * nodes],
            arrived: vec![0; nodes * nodes],
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Sends, unless the weather decides otherwise. False if the message is lost at once.
    pub(super) fn send(
        &mut self,
        message: Message,
        snapshot: Option<Snapshot>,
        directories: (Incarnation, Incarnation),
        agenda: &mut Agenda,
        random: &mut Random,
        coverage: &mut Coverage,
    ) -> bool {
        let link = self.link(message.from, message.to);
        self.sent[link] += 1;
        if self.cut[link] {
            coverage.hit(Mark::MessageCut);
            return false;
        }
        if random.chance(self.weather.loss) {
            coverage.hit(Mark::MessageLost);
            return false;
        }
        let parcel = Parcel { message, snapshot, directories, number: self.sent[link] };
        if random.chance(self.weather.duplication) {
            coverage.hit(Mark::MessageDuplicated);
            let delay = self.delay(link, random, coverage);
            self.dispatch(parcel.clone(), delay, agenda);
        }
        let delay = self.delay(link, random, coverage);
        self.dispatch(parcel, delay, agenda);
        true
    }

    /// Delivers once more what has arrived before.
    pub(super) fn repeat(
        &mut self,
        message: Message,
        directories: (Incarnation, Incarnation),
        delay: Time,
        agenda: &mut Agenda,
    ) {
        self.dispatch(Parcel { message, snapshot: None, directories, number: 0 }, delay, agenda);
    }

    /// Takes out what a [`Event::Deliver`] announced; nothing if the link was cut meanwhile.
    pub(super) fn arrive(&mut self, slot: u32, coverage: &mut Coverage) -> Option<Parcel> {
        let parcel = self.slots[slot as usize].take()?;
        self.free.push(slot);
        let link = self.link(parcel.message.from, parcel.message.to);
        if self.cut[link] {
            coverage.hit(Mark::MessageCut);
            return None;
        }
        if parcel.number < self.arrived[link] {
            coverage.hit(Mark::MessageReordered);
        }
        self.arrived[link] = self.arrived[link].max(parcel.number);
        Some(parcel)
    }

    /// Puts back what cannot be taken in now.
    pub(super) fn postpone(&mut self, parcel: Parcel, until: Time, agenda: &mut Agenda) {
        let slot = self.store(parcel);
        agenda.plan(until, Event::Deliver(slot));
    }

    pub(super) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }

    pub(super) fn set_slow(&mut self, from: usize, to: usize) {
        self.slow[from * self.nodes + to] = true;
    }

    /// All links work again.
    pub(super) fn heal(&mut self) {
        self.cut.fill(false);
        self.slow.fill(false);
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    fn dispatch(&mut self, parcel: Parcel, delay: Time, agenda: &mut Agenda) {
        // A file takes longer than a letter.
        let delay =
            if matches!(parcel.message.body, Body::InstallSnapshot { .. }) { delay * 8 } else { delay };
        let slot = self.store(parcel);
        agenda.plan_in(delay, Event::Deliver(slot));
    }

    fn store(&mut self, parcel: Parcel) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(parcel);
            return slot;
        }
        self.slots.push(Some(parcel));
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 messages are on their way")
    }

    fn delay(&self, link: usize, random: &mut Random, coverage: &mut Coverage) -> Time {
        if self.weather.straggle_max > 0 && random.chance(STRAGGLERS) {
            coverage.hit(Mark::MessageStraggled);
            return random.between(MILLI, self.weather.straggle_max);
        }
        if self.slow[link] {
            return random.between(self.weather.delay_max / 2, self.weather.delay_max * 2);
        }
        if random.chance(self.weather.lateness) {
            random.between(MILLI, self.weather.delay_max.max(MILLI))
        } else {
            random.between(MILLI / 10, MILLI)
        }
    }

    fn link(&self, from: NodeId, to: NodeId) -> usize {
        place(from) * self.nodes + place(to)
    }
}

/// How many of thousand messages are far too late, in a storm that has such.
const STRAGGLERS: u64 = 20;

/// Where a node stands in the simulator's lists: ids start at 1.
pub(super) fn place(id: NodeId) -> usize {
    usize::try_from(id.0).expect("the simulator numbers its nodes from 1") - 1
}

/// The id of the node at this place.
pub(super) fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}
