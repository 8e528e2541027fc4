//! The servers, the clock and the agenda: what happens while the tester sleeps.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Failure, Restart, Step,
    exec::{TaskId, Tasks},
    net::{Net, id},
    rules::{Rules, Seen},
    service::{Agreed, Service},
    store::{Snap, Store, settings},
};
use crate::{
    ConfState, Input, Instant, Member, Message, Now, Proposal, Raft, RoleKind, StartNumber, Term, Timestamp,
    sim::{random::Random, trace::Trace},
};

/// Everything but the tester.
pub(super) struct World {
    now: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    planned: u64,
    pub(super) tasks: Tasks,
    pub(super) random: Random,
    pub(super) net: Net,
    pub(super) servers: Vec<Server>,
    pub(super) rules: Rules,
    pub(super) agreed: Agreed,
    pub(super) trace: Trace,
    /// The service takes snapshots.
    pub(super) snapshots: bool,
    restart: Restart,
    /// How long the scenario itself has slept, looks at what became of a command left out.
    pub(super) slept: u64,
    /// By how much its random sleeps were longer than they are on average.
    pub(super) bad_luck: i64,
}

/// One server: what runs of it, and what outlives it.
pub(super) struct Server {
    /// Gone while it is dead.
    pub(super) core: Option<Raft>,
    /// Counts its lives: what was meant for an earlier one is void.
    pub(super) life: u32,
    pub(super) store: Store,
    pub(super) service: Service,
    pub(super) seen: Seen,
    /// Commands taken since its output was last asked for.
    pub(super) taken: u64,
    /// The life each other server was in when it last asked something.
    pub(super) asked_by: Vec<u32>,
    turn_planned: bool,
    timer: u64,
}

/// Something that will happen.
enum Event {
    Wake(TaskId),
    Timer(usize, u32),
    /// The output of everything handed in is asked for.
    Turn(usize, u32),
    Deliver(Box<Flight>),
}

/// A message under way.
pub(super) struct Flight {
    pub(super) message: Message,
    /// The snapshot it carries.
    pub(super) snap: Option<Snap>,
    /// Which life of sender and receiver it is between.
    pub(super) lives: (u32, u32),
}

impl World {
    pub(super) fn new(servers: usize, seed: u64, restart: Restart, reliable: bool, snapshots: bool) -> World {
        let conf = ConfState::of_voters((0..servers).map(|at| (id(at), Member::default())));
        let server = || Server {
            core: None,
            life: 0,
            store: Store::founded(conf.clone()),
            service: Service::default(),
            seen: Seen::default(),
            taken: 0,
            asked_by: vec![0; servers],
            turn_planned: false,
            timer: NEVER,
        };
        World {
            now: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            tasks: Tasks::default(),
            random: Random::new(seed.wrapping_mul(0x9E37_79B9).wrapping_add(servers as u64)),
            net: Net::new(servers, reliable),
            servers: (0..servers).map(|_| server()).collect(),
            rules: Rules::default(),
            agreed: Agreed::default(),
            trace: Trace::default(),
            snapshots,
            restart,
            slept: 0,
            bad_luck: 0,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn clock(&self) -> Now {
        Now { instant: Instant(self.now), wall: Timestamp(self.now / 1000) }
    }

    /// Writes down what the tester does.
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(self.now, || format!("-- the tester {}", text()));
    }

    pub(super) fn wake_at(&mut self, at: u64, task: TaskId) {
        self.plan(at, Event::Wake(task));
    }

    pub(super) fn deliver_in(&mut self, delay: u64, flight: Flight) {
        self.plan(self.now + delay, Event::Deliver(Box::new(flight)));
    }

    /// Lets the next event happen.
    pub(super) fn advance(&mut self) -> Step {
        let Some(((at, _), event)) = self.agenda.pop_first() else {
            return Err(Failure("nothing will ever happen again".to_owned()));
        };
        self.now = at;
        if at > LIMIT {
            return Err(Failure("the test takes more than 120 s".to_owned()));
        }
        let done = match event {
            Event::Wake(task) => {
                self.tasks.wake(task);
                Ok(())
            }
            Event::Timer(at, life) => self.timer(at, life),
            Event::Turn(at, life) if self.servers[at].life == life => self.turn(at),
            Event::Turn(..) => Ok(()),
            Event::Deliver(flight) => self.arrive(*flight),
        };
        done.map_err(Failure)
    }

    // --- What the tester does to a server. ---

    /// Starts a server from what it persisted.
    pub(super) fn start(&mut self, at: usize) -> Step {
        let seed = self.random.next();
        let clock = self.clock();
        let server = &mut self.servers[at];
        server.life += 1;
        let start = StartNumber(u64::from(server.life));
        let config = crate::Config { id: id(at), start, seed, ..settings() };
        let core = Raft::new(config, server.store.recover(), clock);
        let core = core.map_err(|error| Failure(format!("{} does not start: {error}", id(at))))?;
        server.core = Some(core);
        server.service = Service::default();
        server.service.restore(&server.store.snap.commands).map_err(Failure)?;
        server.seen = Seen::default();
        (server.taken, server.turn_planned, server.timer) = (0, false, NEVER);
        self.net.arrived[at] = 0;
        self.trace.line(self.now, || format!("{} starts, life {}", id(at), self.servers[at].life));
        self.plan_turn(at);
        Ok(())
    }

    /// Kills a server: its memory is gone, what it persisted is frozen.
    pub(super) fn kill(&mut self, at: usize) {
        self.trace.line(self.now, || format!("{} is killed", id(at)));
        self.net.disconnect(at);
        self.servers[at].core = None;
    }

    /// Starts a server again, and connects as the year's suite does.
    pub(super) fn restart(&mut self, at: usize) -> Step {
        self.kill(at);
        self.start(at)?;
        match self.restart {
            Restart::HealsAll => (0..self.servers.len()).for_each(|peer| self.net.connect(peer)),
            Restart::OnlyItself => self.net.connect(at),
        }
        Ok(())
    }

    /// The suite's `Start`: the command's number and the term, if the server leads.
    pub(super) fn offer(&mut self, at: usize, command: &Bytes) -> Option<(u64, Term)> {
        let clock = self.clock();
        let server = &mut self.servers[at];
        let core = server.core.as_mut()?;
        let taken = core.propose(clock, Proposal::new(command.clone()));
        let Ok(entry) = taken else { return None };
        server.taken += 1;
        let number = server.store.last_number() + server.taken;
        self.trace.line(self.now, || format!("{} takes command {number} as {entry}", id(at)));
        self.plan_turn(at);
        Some((number, entry.term))
    }

    /// The suite's `GetState`: term, and whether the server believes that it leads.
    pub(super) fn state(&self, at: usize) -> Option<(Term, bool)> {
        let core = self.servers[at].core.as_ref()?;
        Some((core.term(), core.role() == RoleKind::Leader))
    }

    /// Hands something in; the output is asked for a little later, together with what else comes until then.
    pub(super) fn input(&mut self, at: usize, input: Input) -> Result<(), String> {
        let clock = self.clock();
        let Some(core) = self.servers[at].core.as_mut() else { return Ok(()) };
        core.handle(clock, input).map_err(|error| format!("{} refuses an input: {error}", id(at)))?;
        self.plan_turn(at);
        Ok(())
    }

    /// Plans to wake a server when it wants to be.
    pub(super) fn arm(&mut self, at: usize) {
        let now = self.now;
        let server = &mut self.servers[at];
        let deadline = server.core.as_ref().and_then(Raft::next_deadline);
        let due = deadline.map_or(NEVER, |deadline| deadline.0.max(now + 1));
        if due != server.timer {
            server.timer = due;
            let life = server.life;
            if due != NEVER {
                self.plan(due, Event::Timer(at, life));
            }
        }
    }

    pub(super) fn turn_begins(&mut self, at: usize) {
        let server = &mut self.servers[at];
        server.turn_planned = false;
        server.taken = 0;
    }

    fn timer(&mut self, at: usize, life: u32) -> Result<(), String> {
        let server = &mut self.servers[at];
        if server.life != life || server.timer != self.now {
            return Ok(());
        }
        server.timer = NEVER;
        let deadline = server.core.as_ref().and_then(Raft::next_deadline);
        if deadline.is_some_and(|deadline| deadline.0 <= self.now) {
            return self.input(at, Input::Tick);
        }
        self.arm(at);
        Ok(())
    }

    fn plan_turn(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if !std::mem::replace(&mut server.turn_planned, true) {
            let life = server.life;
            self.plan(self.now + TURN, Event::Turn(at, life));
        }
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), event);
    }
}

/// The suite's limit for one test, in microseconds.
const LIMIT: u64 = 120_000_000;
/// From an input to its output: the runtime wakes up and gathers what waits.
const TURN: u64 = 50;
const NEVER: u64 = u64::MAX;
