//! The steps the suite's scenarios are made of, as its `config.go` and `tester1` have them.

use std::{future::Future, rc::Rc};

use bytes::Bytes;

use super::{
    Failure, Step,
    exec::{self, Join, Shared},
};
use crate::{Term, sim::random::Random};

/// The tester's hand on a run.
#[derive(Clone)]
pub(super) struct Tester {
    pub(super) world: Shared,
    /// How many servers there are.
    pub(super) n: usize,
}

impl Tester {
    // --- Time and chance. ---

    /// Sleeps because the scenario says so.
    pub(super) async fn sleep(&self, millis: u64) {
        self.world.borrow_mut().slept += millis * 1000;
        exec::sleep(&self.world, millis * 1000).await;
    }

    /// Sleeps for a time that was drawn where `mean_micros` is the average.
    pub(super) async fn sleep_drawn(&self, millis: u64, mean_micros: i64) {
        let drawn = i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000);
        self.world.borrow_mut().bad_luck += drawn - mean_micros;
        self.sleep(millis).await;
    }

    /// Sleeps between two looks.
    pub(super) async fn pause(&self, millis: u64) {
        exec::sleep(&self.world, millis * 1000).await;
    }

    pub(super) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Join<T> {
        exec::spawn(&self.world, task)
    }

    fn random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.world.borrow_mut().random)
    }

    /// Any of `0..end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.random(|random| random.below(end))
    }

    /// True in `per_mille` of a thousand cases.
    pub(super) fn chance(&self, per_mille: u64) -> bool {
        self.random(|random| random.chance(per_mille))
    }

    /// Any server.
    pub(super) fn any_server(&self) -> usize {
        self.random(|random| random.index(self.n))
    }

    /// A random command as the suite draws it: a number of 63 bits.
    pub(super) fn command(&self) -> Bytes {
        number(self.random(Random::next) >> 1)
    }

    /// A random command of printable bytes.
    pub(super) fn text(&self, length: usize) -> Bytes {
        let letter = |random: &mut Random| b"abcdefghijklmnopqrstuvwxyz"[random.index(26)];
        self.random(|random| (0..length).map(|_| letter(random)).collect::<Vec<u8>>().into())
    }

    // --- Servers. ---

    /// The server `ahead` places behind `of`.
    pub(super) fn after(&self, of: usize, ahead: usize) -> usize {
        (of + ahead) % self.n
    }

    pub(super) fn disconnect(&self, servers: &[usize]) {
        let mut world = self.world.borrow_mut();
        for server in servers {
            world.net.disconnect(*server);
        }
        world.note(|| format!("disconnects {servers:?}"));
    }

    pub(super) fn connect(&self, servers: &[usize]) {
        let mut world = self.world.borrow_mut();
        for server in servers {
            world.net.connect(*server);
        }
        world.note(|| format!("connects {servers:?}"));
    }

    pub(super) fn is_connected(&self, server: usize) -> bool {
        self.world.borrow().net.is_connected(server)
    }

    pub(super) fn kill(&self, server: usize) {
        self.world.borrow_mut().kill(server);
    }

    pub(super) fn restart(&self, server: usize) -> Step {
        self.world.borrow_mut().restart(server)
    }

    pub(super) fn is_alive(&self, server: usize) -> bool {
        self.world.borrow().servers[server].core.is_some()
    }

    /// Hands a command to one server, without waiting for anything.
    pub(super) fn start(&self, server: usize, command: &Bytes) -> Option<(u64, Term)> {
        self.world.borrow_mut().offer(server, command)
    }

    pub(super) fn state(&self, server: usize) -> Option<(Term, bool)> {
        self.world.borrow().state(server)
    }

    /// Requests that reached any server since its last start.
    pub(super) fn arrived(&self) -> u64 {
        self.world.borrow().net.arrived.iter().sum()
    }

    // --- The suite's helpers. ---

    /// `checkOneLeader`.
    pub(super) async fn leader(&self) -> Step<usize> {
        for _ in 0..10 {
            let millis = 450 + self.below(100);
            self.sleep_drawn(millis, 499_500).await;
            let mut leaders: Vec<(Term, usize)> = Vec::new();
            for server in (0..self.n).filter(|server| self.is_connected(*server)) {
                let Some((term, true)) = self.state(server) else { continue };
                if leaders.iter().any(|(known, _)| *known == term) {
                    return fail(format!("two leaders in term {term}"));
                }
                leaders.push((term, server));
            }
            if let Some((_, server)) = leaders.into_iter().max() {
                return Ok(server);
            }
        }
        fail("expected one leader, got none")
    }

    /// `checkTerms`.
    pub(super) fn terms(&self) -> Step<Term> {
        let mut agreed = None;
        for server in (0..self.n).filter(|server| self.is_connected(*server)) {
            let Some((term, _)) = self.state(server) else { continue };
            if agreed.is_some_and(|agreed| agreed != term) {
                return fail("servers disagree on the term");
            }
            agreed = Some(term);
        }
        agreed.ok_or_else(|| Failure("nobody to ask for the term".to_owned()))
    }

    /// `checkNoLeader`.
    pub(super) fn no_leader(&self) -> Step {
        let leads = |server: &usize| {
            self.is_connected(*server) && self.state(*server).is_some_and(|(_, leads)| leads)
        };
        match (0..self.n).find(leads) {
            Some(server) => fail(format!("expected no leader, but server {server} claims to be")),
            None => Ok(()),
        }
    }

    /// `nCommitted`: on how many servers a command was applied, and which it is.
    pub(super) fn committed(&self, number: u64) -> Step<(usize, Option<Bytes>)> {
        let world = self.world.borrow();
        let mut found: Vec<&Bytes> =
            world.servers.iter().filter_map(|server| server.service.command(number)).collect();
        let count = found.len();
        found.dedup();
        if found.len() > 1 {
            return fail(format!("the servers applied different commands as number {number}"));
        }
        Ok((count, found.pop().cloned()))
    }

    /// `one`: a command is committed and applied on at least `expected` servers, within 10 s.
    pub(super) async fn one(&self, command: Bytes, expected: usize, retry: Retry) -> Step<u64> {
        let begin = self.now();
        let mut server = 0;
        while self.now() < begin + 10_000 {
            let mut taken = None;
            for _ in 0..self.n {
                server = (server + 1) % self.n;
                if self.is_connected(server)
                    && let Some((number, _)) = self.start(server, &command)
                {
                    taken = Some(number);
                    break;
                }
            }
            let Some(number) = taken else {
                self.pause(50).await;
                continue;
            };
            let offered = self.now();
            while self.now() < offered + 2000 {
                let (count, found) = self.committed(number)?;
                if count > 0 && count >= expected && found.as_ref() == Some(&command) {
                    return Ok(number);
                }
                self.pause(20).await;
            }
            if retry == Retry::Never {
                return fail(format!("command {number} failed to reach agreement"));
            }
        }
        fail(format!("{command:?} failed to reach agreement"))
    }

    /// `one`, which must give the command this number.
    pub(super) async fn one_at(&self, command: Bytes, expected: usize, number: u64) -> Step {
        let got = self.one(command, expected, Retry::Never).await?;
        ensure(got == number, || format!("got number {got} but expected {number}"))
    }

    /// `one` with a command that does not matter, tried again when a leader loses it.
    pub(super) async fn any_one(&self, expected: usize) -> Step<u64> {
        self.one(self.command(), expected, Retry::Again).await
    }

    /// `wait`: the command under this number, once `expected` servers have applied it; `None` if a server has left
    /// `term` meanwhile.
    pub(super) async fn wait(&self, number: u64, expected: usize, term: Option<Term>) -> Step<Option<Bytes>> {
        let mut millis = 10;
        for _ in 0..30 {
            if self.committed(number)?.0 >= expected {
                break;
            }
            self.pause(millis).await;
            millis = (millis * 2).min(1280);
            if let Some(term) = term
                && (0..self.n).any(|server| self.state(server).is_some_and(|(now, _)| now > term))
            {
                return Ok(None);
            }
        }
        let (count, command) = self.committed(number)?;
        ensure(count >= expected, || format!("only {count} of {expected} servers applied {number}"))?;
        Ok(command)
    }

    /// `LogSize`: the largest persisted state of all servers, without the snapshot.
    pub(super) fn log_bytes(&self) -> u64 {
        let world = self.world.borrow();
        world.servers.iter().map(|server| server.store.bytes()).max().unwrap_or_default()
    }

    /// Milliseconds since the test began.
    fn now(&self) -> u64 {
        self.world.borrow().now() / 1000
    }
}

/// Whether [`Tester::one`] offers a command again that a leader took and did not commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    Again,
}

/// A number as a command: as few bytes as it takes, at least one.
pub(super) fn number(value: u64) -> Bytes {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take(7).take_while(|byte| **byte == 0).count();
    Bytes::copy_from_slice(&bytes[zeros..])
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { fail(otherwise()) }
}

pub(super) fn fail<T>(why: impl Into<String>) -> Step<T> {
    Err(Failure(why.into()))
}

/// A world as its tasks share it.
pub(super) fn share(world: super::world::World) -> Shared {
    Rc::new(std::cell::RefCell::new(world))
}
