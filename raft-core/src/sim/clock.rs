//! Virtual time: what happens next in the world, and what each node's own clocks show.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::{Epoch, FetchId, Instant, NodeId, Now, Term, Timestamp, WriteId};

/// Microseconds of true time since the world began. No node ever sees it.
pub(super) type Time = u64;

/// A moment that never comes.
pub(super) const NEVER: Time = Time::MAX;

/// One millisecond of true time.
pub(super) const MILLI: Time = 1000;

/// Something that will happen. Events of a node name the run they belong to: those of an earlier run are void.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A message arrives; the network holds it in this slot.
    Deliver(u32),
    /// A node's timer rings.
    Timer(u8),
    /// A node that has gathered inputs hands out its work.
    Drain(u8, u32),
    /// A node's sync ends. The last number tells it from one that was overtaken.
    Synced(u8, u32, u32),
    /// A node hears that a write is durable.
    Told(u8, u32, WriteId),
    /// A node's state machine is done with the first item of its queue.
    Applied(u8, u32),
    /// A node's read of its log ends.
    Fetched(u8, u32, FetchId),
    /// A node's snapshot file is complete.
    SnapshotTaken(u8, u32),
    /// A node hears that a snapshot transfer broke off.
    SnapshotBroke(u8, u32, NodeId, Epoch),
    /// A node hears that a peer's process is gone, or is back.
    PeerNews(u8, u32, NodeId, bool),
    /// A client asks to read as soon as a process moves again.
    Question(u8, u32),
    /// A node that is down starts.
    Restart(u8, u32),
    /// A leader of this term is not heard any more.
    Silence(u8, Term),
    /// Every link works again.
    Mend,
    /// Clients ask for something.
    Client,
    /// Something goes wrong.
    Fault,
    /// The schedule looks whether its phase is over.
    Phase,
}

/// What happens when; ties go to what was planned first.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    now: Time,
    planned: u64,
    heap: BinaryHeap<Planned>,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    at: Time,
    number: u64,
    event: Event,
}

impl Agenda {
    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn plan(&mut self, at: Time, event: Event) {
        self.planned += 1;
        self.heap.push(Planned { at: at.max(self.now), number: self.planned, event });
    }

    pub(super) fn plan_in(&mut self, delay: Time, event: Event) {
        self.plan(self.now + delay, event);
    }

    /// Moves on to the next event. There always is one: clients never go home.
    pub(super) fn next(&mut self) -> Event {
        let planned = self.heap.pop().expect("the clients' next event is always planned");
        self.now = planned.at;
        planned.event
    }
}

impl Ord for Planned {
    /// The heap gives its greatest: the earliest event is the greatest.
    fn cmp(&self, other: &Planned) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

/// One run's clocks. The monotonic one starts anywhere and runs a little fast or slow; the wall clock is off by any
/// amount and may jump.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NodeClock {
    /// What the monotonic clock showed at the beginning of the world.
    pub(super) base: u64,
    /// How many parts in a million it runs fast (negative: slow).
    pub(super) drift: i64,
    /// What the wall clock showed at the beginning of the world, in milliseconds.
    pub(super) wall: u64,
}

impl NodeClock {
    /// What the clocks show.
    pub(super) fn now(&self, time: Time) -> Now {
        Now {
            instant: Instant(self.base + scaled(time, self.drift)),
            wall: Timestamp(self.wall.saturating_add(time / MILLI)),
        }
    }

    /// The first true moment at which the monotonic clock shows at least `instant`.
    pub(super) fn time_of(&self, instant: Instant) -> Time {
        let local = instant.0.saturating_sub(self.base);
        if self.drift == 0 {
            return local;
        }
        let mut time = scaled(local, -self.drift).saturating_sub(local / 1000);
        // The inverse of a rounded product, found from below: the error is of second order, so few rounds are needed.
        loop {
            let shown = scaled(time, self.drift);
            if shown >= local {
                return time;
            }
            time += (local - shown).div_ceil(2);
        }
    }
}

fn scaled(time: u64, drift: i64) -> u64 {
    let part = time / 1_000_000 * drift.unsigned_abs() + time % 1_000_000 * drift.unsigned_abs() / 1_000_000;
    if drift < 0 { time - part } else { time + part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_rings_in_time() {
        for drift in [-100_000, -20_000, -7, 0, 7, 20_000, 100_000] {
            let clock = NodeClock { base: 12_345, drift, wall: 0 };
            for local in [0, 1, 999, 1_000_000, 123_456_789, 98_765_432_100] {
                let time = clock.time_of(Instant(clock.base + local));
                assert!(clock.now(time).instant.0 >= clock.base + local, "{drift} {local}");
                assert!(clock.now(time.saturating_sub(3)).instant.0 <= clock.base + local, "{drift} {local}");
            }
        }
    }

    #[test]
    fn the_agenda_keeps_its_order() {
        let mut agenda = Agenda::default();
        agenda.plan(5, Event::Client);
        agenda.plan(3, Event::Fault);
        agenda.plan(5, Event::Phase);
        assert!(matches!(agenda.next(), Event::Fault));
        assert!(matches!(agenda.next(), Event::Client));
        assert!(matches!(agenda.next(), Event::Phase));
        assert_eq!(agenda.now(), 5);
    }
}
