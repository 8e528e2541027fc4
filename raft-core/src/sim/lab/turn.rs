//! One turn of one server: its core's output is carried out, and messages go through the network.

use super::{
    net::{id, place},
    size,
    store::Snap,
    world::{Flight, World},
};
use crate::{
    Apply, Body, Entry, EntryKind, Event, FetchId, Input, LogIndex, Message, Ready, RoleKind, SnapshotMeta,
    sim::trace,
};

impl World {
    /// Carries out everything a server wants.
    pub(super) fn turn(&mut self, at: usize) -> Result<(), String> {
        self.turn_begins(at);
        while let Some(ready) = self.servers[at].core.as_mut().and_then(crate::Raft::take_ready) {
            self.carry_out(at, ready)?;
        }
        let server = &mut self.servers[at];
        if let Some(core) = &server.core {
            self.rules.settles(core, &mut server.seen)?;
        }
        self.arm(at);
        Ok(())
    }

    fn carry_out(&mut self, at: usize, ready: Ready) -> Result<(), String> {
        let Ready { messages, write, apply, reads: _, fetches, compact, events } = ready;
        if let Some(write) = write {
            self.trace.line(self.now(), || format!("{} persists {}", id(at), trace::write(&write)));
            let server = &mut self.servers[at];
            let Some(core) = &server.core else { return Ok(()) };
            self.rules.writes(core, &server.seen, &server.store, &write)?;
            server.store.apply(&write)?;
            self.rules.wrote(id(at), &server.store, &write)?;
            self.input(at, Input::Persisted(write.id))?;
        }
        for event in events {
            self.tell(at, &event)?;
        }
        let stores: Vec<_> = self.servers.iter().map(|server| &server.store).collect();
        if let Some(core) = &self.servers[at].core {
            self.rules.commits(core, &stores)?;
        }
        for message in messages {
            self.rules.sends(&self.servers[at].store, &message)?;
            self.send(at, message);
        }
        for fetch in fetches {
            let (id, entries): (FetchId, _) = (fetch.id, self.servers[at].store.read(&fetch));
            self.input(at, Input::Fetched { id, entries })?;
        }
        for work in apply {
            match work {
                Apply::Entries(entries) => self.apply(at, &entries)?,
                Apply::Restore(meta) => self.restore(at, &meta)?,
            }
        }
        if let Some(index) = compact {
            self.servers[at].store.compact(index);
        }
        Ok(())
    }

    fn tell(&mut self, at: usize, event: &Event) -> Result<(), String> {
        self.trace.line(self.now(), || format!("{} tells {event:?}", id(at)));
        if let Event::Halted(reason) = event {
            return Err(format!("{} halts: {reason}", id(at)));
        }
        let server = &self.servers[at];
        if let (Event::RoleChanged { role: RoleKind::Leader, .. }, Some(core)) = (event, &server.core)
            // By now it may have lost the office again; then its successor is checked.
            && core.role() == RoleKind::Leader
        {
            return self.rules.leads(core, &server.store);
        }
        Ok(())
    }

    fn apply(&mut self, at: usize, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let server = &mut self.servers[at];
            let command = entry.kind == EntryKind::Command;
            if command && server.service.apply(&mut self.agreed, entry.payload.clone())? && self.snapshots {
                let hash = server.store.log.hash(entry.id.index).unwrap_or_default();
                let meta =
                    SnapshotMeta { last: entry.id, time: entry.time, ..server.store.snap.meta.clone() };
                server.store.keep(Snap { meta: meta.clone(), commands: server.service.commands(), hash });
                self.input(at, Input::Applied(entry.id.index))?;
                self.input(at, Input::SnapshotTaken(Box::new(meta)))?;
            }
        }
        let last = entries.last().map_or(LogIndex::ZERO, |entry| entry.id.index);
        self.input(at, Input::Applied(last))
    }

    fn restore(&mut self, at: usize, meta: &SnapshotMeta) -> Result<(), String> {
        let server = &mut self.servers[at];
        let Some(snap) = server.store.snapshot(meta.last) else {
            return Err(format!("{} is to restore the snapshot {}, which is not there", id(at), meta.last));
        };
        server.service.restore(&snap.commands)?;
        self.input(at, Input::Applied(meta.last.index))
    }

    /// A message goes into the network.
    fn send(&mut self, from: usize, message: Message) {
        let to = place(message.to);
        let snap = if let Body::InstallSnapshot { meta, .. } = &message.body {
            self.servers[from].store.snapshot(meta.last).cloned()
        } else {
            None
        };
        let bytes = size::message(&message, snap.as_ref());
        let mut up = self.net.is_up(from, to);
        let mut life = self.servers[to].life;
        if !message.body.is_request() {
            // The links of a server that was replaced went with it: its successor gets no answer.
            let asked = self.servers[from].asked_by[to];
            up &= asked == life;
            life = asked;
        }
        let delay = if message.body.is_request() {
            self.net.rpcs += 1;
            self.net.bytes += bytes;
            up.then(|| self.net.request_delay(&mut self.random)).flatten()
        } else {
            let delay = up.then(|| self.net.answer_delay(&mut self.random)).flatten();
            self.net.bytes += delay.map_or(0, |_| bytes);
            delay
        };
        self.trace.line(self.now(), || {
            let fate = match delay {
                Some(delay) => format!("{}.{:03} ms", delay / 1000, delay % 1000),
                None if up => "lost".to_owned(),
                None => "link down".to_owned(),
            };
            format!("{}  ({bytes} bytes, {fate})", trace::message(&message))
        });
        if let Some(delay) = delay {
            let lives = (self.servers[from].life, life);
            self.deliver_in(delay, Flight { message, snap, lives });
        }
    }

    /// A message arrives, if the life of the server it was meant for goes on.
    pub(super) fn arrive(&mut self, flight: Flight) -> Result<(), String> {
        let Flight { message, snap, lives } = flight;
        let (from, to) = (place(message.from), place(message.to));
        let server = &self.servers[to];
        if server.core.is_none() || server.life != lives.1 {
            return Ok(());
        }
        if message.body.is_request() {
            self.net.arrived[to] += 1;
            self.servers[to].asked_by[from] = lives.0;
        }
        if let Some(snap) = snap {
            self.servers[to].store.keep(snap);
        }
        self.input(to, Input::Message(message))
    }
}
