//! What a node does with its disk and its state machine, in the place of the log's writer, the applier and the
//! blocking pool.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{Body, Epoch, Fetch, Input, LogId, Message, SnapshotMeta};
use raft_node::{replica::Job, state_machine::SnapshotView};
use raft_wal::{
    WalError,
    snapshot_file::{SnapshotReceiver, SnapshotSource},
};

use crate::{
    clients::Kind,
    coverage::Mark,
    network::{id, place},
    node::{Armed, DiskWork, Local, Waiter},
    world::{Event, MILLI, World},
};

/// A snapshot's file on its way.
pub(crate) struct Transfer {
    from: (usize, u64),
    to: (usize, u64),
    message: Message,
    epoch: Epoch,
    meta: SnapshotMeta,
    source: SnapshotSource,
    offset: u64,
    receiver: Option<SnapshotReceiver>,
}

impl World {
    pub(crate) fn disk_work(&mut self, place: usize, work: DiskWork) {
        let run = self.nodes[place].run;
        let Some(process) = self.nodes[place].process_mut() else { return };
        process.disk_work.push_back(work);
        if !process.disk_busy {
            process.disk_busy = true;
            let delay = self.random.between(1, 50);
            self.plan_in(delay, Event::Disk { node: place, run });
        }
    }

    /// One batch of the log's writer: everything that waits, one sync, then its answer.
    pub(crate) fn disk(&mut self, place: usize) -> Result<(), String> {
        let run = self.nodes[place].run;
        let Some(process) = self.nodes[place].process_mut() else { return Ok(()) };
        if process.disk_work.is_empty() && !process.disk_full {
            process.disk_busy = false;
            return Ok(());
        }
        let mut outcome = Ok(None);
        while let Some(work) = process.disk_work.pop_front() {
            outcome = match &work {
                DiskWork::Write(write) => process.engine.append(write).map(|()| None),
                DiskWork::Compact(up_to) => match process.engine.flush() {
                    Ok(durable) => process.engine.compact(*up_to).map(|()| durable),
                    Err(error) => Err(error),
                },
            };
            if outcome.is_err() {
                if matches!(work, DiskWork::Compact(_)) {
                    process.disk_work.push_front(work);
                }
                break;
            }
        }
        if outcome.is_ok() {
            outcome = process.engine.flush();
        }
        if outcome.is_ok() && self.random.chance(100) {
            outcome = process.engine.witness().and_then(|()| process.engine.flush());
        }
        process.disk_full = matches!(outcome, Err(WalError::Full { .. }));
        if self.strikes(place) {
            return Ok(());
        }
        let took = self.random.between(50, self.storm.sync_max);
        match outcome {
            Ok(durable) => {
                if let Some(id) = durable {
                    let local = Local::Core(Input::Persisted(id));
                    self.plan_in(took, Event::Local { node: place, run, local });
                }
                self.plan_in(took, Event::Disk { node: place, run });
            }
            Err(WalError::Full { .. }) => {
                self.coverage.note(Mark::WritesWaitForRoom);
                self.plan_in(100 * MILLI, Event::Disk { node: place, run });
            }
            Err(error) => {
                let local = Local::Failed(error.to_string());
                self.plan_in(took, Event::Local { node: place, run, local });
            }
        }
        Ok(())
    }

    pub(crate) fn job(&mut self, place: usize, job: Job<Waiter, usize>) {
        let run = self.nodes[place].run;
        let Some(process) = self.nodes[place].process_mut() else { return };
        process.jobs.push_back(job);
        if !process.applying {
            process.applying = true;
            let delay = self.random.between(1, self.storm.apply_max);
            self.plan_in(delay, Event::Apply { node: place, run });
        }
    }

    /// One job of the applier.
    pub(crate) fn apply(&mut self, place: usize) -> Result<(), String> {
        let run = self.nodes[place].run;
        let Some(process) = self.nodes[place].process_mut() else { return Ok(()) };
        let Some(job) = process.jobs.pop_front() else { return Ok(()) };
        process.applying = !process.jobs.is_empty();
        let before = process.machine.position().last;
        match job {
            Job::Apply { entries, waiters } => {
                if entries.first().is_some_and(|first| first.id.index != before.index.next()) {
                    return Err(format!("N4: {} applies {} behind {before}", id(place), entries[0].id));
                }
                let answers = process.machine.apply(&entries, waiters);
                self.applied(place);
                for (waiter, reply) in answers {
                    self.answer(place, waiter, Ok(reply))?;
                }
            }
            Job::Reads(reads) => self.serve(place, reads)?,
            Job::TakeSnapshot => match process.machine.view() {
                Some((meta, view)) => {
                    let (took, meta) = (self.random.between(1, self.storm.apply_max * 4), Box::new(meta));
                    self.plan_in(took, Event::WriteSnapshot { node: place, run, meta, view });
                }
                None => self.give(place, Local::SnapshotFailed),
            },
            Job::Restore(meta) => {
                if meta.last.index < before.index {
                    return Err(format!("N1: {} goes back from {before} to {}", id(place), meta.last));
                }
                let snapshots = Arc::clone(&process.snapshots);
                let restored = process.machine.restore(&snapshots, meta);
                if self.strikes(place) {
                    return Ok(());
                }
                match restored {
                    Ok(_) => {
                        self.coverage.note(Mark::SnapshotRestored);
                        self.applied(place);
                    }
                    Err(error) => return self.fail(place, &error.to_string()),
                }
            }
        }
        if self.nodes[place].process().is_some_and(|process| process.applying) && self.nodes[place].run == run
        {
            let delay = self.random.between(1, self.storm.apply_max);
            self.plan_in(delay, Event::Apply { node: place, run });
        }
        Ok(())
    }

    fn applied(&mut self, place: usize) {
        let Some(process) = self.nodes[place].process() else { return };
        let index = process.machine.position().last.index;
        self.give(place, Local::Core(Input::Applied(index)));
    }

    fn serve(&mut self, place: usize, reads: Vec<usize>) -> Result<(), String> {
        for read in reads {
            let Some(process) = self.nodes[place].process() else { return Ok(()) };
            let request = &self.clients.requests[read];
            let answers = request.look(process.machine.state());
            if request.kind == Kind::Stale {
                self.coverage.note(Mark::StaleRead);
                let at = process.machine.position().last.index;
                let expected: Vec<_> = request.versions(|key| self.ghost.value_at(key, at));
                if answers != expected {
                    return Err(format!(
                        "{} holds {answers:?} behind entry {at} where {expected:?} was decided",
                        id(place)
                    ));
                }
            }
            self.end(read, Ok(answers))?;
        }
        Ok(())
    }

    pub(crate) fn write_snapshot(
        &mut self,
        place: usize,
        meta: SnapshotMeta,
        view: Box<dyn SnapshotView>,
    ) -> Result<(), String> {
        let Some(process) = self.nodes[place].process() else { return Ok(()) };
        let written = process.snapshots.write(&meta, view);
        if self.strikes(place) {
            return Ok(());
        }
        match written {
            Ok(bytes) => {
                self.trace(|_| format!("{} took snapshot {}", id(place), meta.last));
                self.coverage.note(Mark::SnapshotTaken);
                self.give(place, Local::SnapshotTaken { meta: Box::new(meta), bytes });
            }
            Err(error) if self.nodes[place].armed.is_some() => {
                self.trace(|_| format!("{} took no snapshot: {error}", id(place)));
                self.coverage.note(Mark::SnapshotNotTaken);
                self.give(place, Local::SnapshotFailed);
            }
            Err(error) => return Err(format!("{} cannot write a snapshot: {error}", id(place))),
        }
        Ok(())
    }

    pub(crate) fn fetch(&mut self, place: usize, fetch: Fetch) {
        let run = self.nodes[place].run;
        let Some(process) = self.nodes[place].process() else { return };
        let entries = process.engine.read(fetch.first, fetch.last, fetch.bytes_max);
        let input = match entries {
            Ok(entries) if !self.random.chance(self.storm.fetch_failure) => {
                Input::Fetched { id: fetch.id, entries }
            }
            Ok(_) | Err(_) => Input::FetchFailed { id: fetch.id },
        };
        let took = self.random.between(10, 2 * MILLI);
        self.plan_in(took, Event::Local { node: place, run, local: Local::Core(input) });
    }

    pub(crate) fn discard(&mut self, place: usize, last: LogId) {
        let run = self.nodes[place].run;
        let Some(process) = self.nodes[place].process() else { return };
        process.snapshots.discard(last);
        self.coverage.note(Mark::SnapshotDiscarded);
        if !self.strikes(place) {
            let took = self.random.between(10, 5 * MILLI);
            self.plan_in(took, Event::Local { node: place, run, local: Local::SnapshotGone });
        }
    }

    /// A leader sends a snapshot, and at times again: its core gives a transfer up after a while.
    pub(crate) fn send_snapshot(&mut self, node: usize, message: Message) {
        let run = self.nodes[node].run;
        if self.random.chance(self.storm.offered_again) {
            let (later, message) = (self.random.between(1, 500) * MILLI, Box::new(message.clone()));
            self.plan_in(later, Event::Offer { node, run, message });
        }
        self.offer_snapshot(node, message);
    }

    pub(crate) fn offer_snapshot(&mut self, from: usize, message: Message) {
        let run = self.nodes[from].run;
        let to = place(message.to);
        let Some(process) = self.nodes[from].process() else { return };
        let Body::InstallSnapshot { epoch, meta, .. } = &message.body else { return };
        let (epoch, meta) = (*epoch, SnapshotMeta::clone(meta));
        match process.snapshots.source(meta.last) {
            Ok(source) => {
                let to = (to, self.nodes[to].run);
                let from = (from, run);
                let transfer = Transfer { from, to, message, epoch, meta, source, offset: 0, receiver: None };
                self.transfers.push(Some(transfer));
                let transfer = self.transfers.len() - 1;
                self.plan_in(500, Event::Transfer { transfer });
            }
            Err(error) => {
                self.trace(|_| format!("{} cannot send {}: {error}", id(from), meta.last));
                let local = Local::SnapshotUnreadable { to: id(to), epoch };
                self.plan_in(500, Event::Local { node: from, run, local });
            }
        }
    }

    /// One piece of a snapshot's file.
    pub(crate) fn transfer(&mut self, number: usize) -> Result<(), String> {
        let Some(mut transfer) = self.transfers[number].take() else { return Ok(()) };
        let ((from, from_run), (to, to_run)) = (transfer.from, transfer.to);
        let connected = self.lives(from, from_run)
            && self.nodes[to].run == to_run
            && self.nodes[to].process().is_some()
            && !self.links.is_cut(from, to)
            && !self.links.is_cut(to, from)
            && !self.random.chance(self.storm.transfer_failure);
        if !connected {
            self.broken_off(&transfer);
            return Ok(());
        }
        let Some(process) = self.nodes[to].process_mut() else { return Ok(()) };
        let Some(receiver) = &mut transfer.receiver else {
            if !process.replica.accept_snapshot() {
                self.coverage.note(Mark::SnapshotRefusedBusy);
                self.tell_sender(&transfer);
                return Ok(());
            }
            match process.snapshots.receiver(transfer.meta.last) {
                Ok(receiver) => transfer.receiver = Some(receiver),
                Err(_) => {
                    process.replica.snapshot_gone();
                    self.tell_sender(&transfer);
                    return Ok(());
                }
            }
            return self.go_on(number, transfer);
        };
        let left = transfer.source.info().file_bytes - transfer.offset;
        if left > 0 {
            let length = usize::try_from(left.min(1500)).unwrap();
            let bytes: Bytes =
                transfer.source.read_at(transfer.offset, length).map_err(|error| error.to_string())?;
            let written = receiver.write(transfer.offset, &bytes);
            transfer.offset += bytes.len() as u64;
            if self.strikes(to) {
                return Ok(());
            }
            if written.is_err() {
                self.broken_off(&transfer);
                return Ok(());
            }
            return self.go_on(number, transfer);
        }
        let Some(receiver) = transfer.receiver.take() else { return Ok(()) };
        let received = process.snapshots.received(receiver, &transfer.meta);
        if self.strikes(to) {
            return Ok(());
        }
        if let Ok(Some(_)) = received {
            self.trace(|_| format!("{} received snapshot {}", id(to), transfer.meta.last));
            self.coverage.note(Mark::SnapshotSent);
            self.give(to, Local::SnapshotReceived(transfer.message.clone()));
            // The last word may be lost on its way back.
            if self.random.chance(self.storm.transfer_failure) {
                self.tell_sender(&transfer);
            }
            return Ok(());
        }
        if self.nodes[to].armed.is_none() {
            return Err(format!("N6: {} received something else: {received:?}", id(to)));
        }
        self.broken_off(&transfer);
        Ok(())
    }

    fn go_on(&mut self, number: usize, transfer: Transfer) -> Result<(), String> {
        let ((node, run), to, epoch) = (transfer.from, id(transfer.to.0), transfer.epoch);
        self.transfers[number] = Some(transfer);
        let local = Local::Core(Input::SnapshotProgress { to, epoch });
        self.plan_in(300, Event::Local { node, run, local });
        let to = self.transfers[number].as_ref().map_or(0, |transfer| transfer.to.0);
        if self.strikes(to) {
            return Ok(());
        }
        let pause = self.random.between(100, self.storm.transfer_pause_max);
        self.plan_in(pause, Event::Transfer { transfer: number });
        Ok(())
    }

    fn broken_off(&mut self, transfer: &Transfer) {
        self.coverage.note(Mark::SnapshotBrokenOff);
        let (to, to_run) = transfer.to;
        // Only who had accepted it has something to forget.
        if transfer.receiver.is_some() && self.lives(to, to_run) {
            self.give(to, Local::SnapshotGone);
        }
        self.tell_sender(transfer);
    }

    fn tell_sender(&mut self, transfer: &Transfer) {
        let ((node, run), to) = (transfer.from, id(transfer.to.0));
        let local = Local::Core(Input::SnapshotFailed { to, epoch: transfer.epoch });
        self.plan_in(300, Event::Local { node, run, local });
    }

    /// Leaves little room on a disk.
    pub(crate) fn fill_disk(&mut self, place: usize) {
        let used: u64 = self.nodes[place].used_bytes();
        let spare = self.random.pick(&[0, 500, 3000, 20_000, 70_000]);
        self.nodes[place].vfs.set_capacity(Some(used + spare));
        self.nodes[place].armed = Some(Armed::Full);
    }
}
