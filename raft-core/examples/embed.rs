//! Three cores in one process agree on a command. What a real program does with disks, sockets and clocks is done
//! here in a few lines each: `cargo run -p raft-core --example embed`.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{
    Apply, ConfState, Config, EntryKind, Input, Instant, Member, Message, NodeId, Now, Proposal, Raft,
    Recovered, RoleKind, Timestamp,
};

type Failure = Box<dyn std::error::Error>;

/// Carries out whatever a core asks for, until it asks for nothing more.
fn drive(raft: &mut Raft, now: Now, network: &mut VecDeque<Message>) -> Result<(), Failure> {
    while let Some(ready) = raft.take_ready() {
        // Safe to send at once: what depends on a write is not in here yet.
        network.extend(ready.messages);
        if let Some(write) = ready.write {
            // A real log would append, sync, and only then report.
            raft.handle(now, Input::Persisted(write.id))?;
        }
        for work in ready.apply {
            let Apply::Entries(entries) = work else { continue };
            for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Command) {
                let command = String::from_utf8_lossy(&entry.payload);
                say(&format!("{} applies {}: {command}", raft.id(), entry.id));
            }
            if let Some(last) = entries.last() {
                raft.handle(now, Input::Applied(last.id.index))?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let conf = ConfState::of_voters((1..=3).map(|id| (NodeId(id), Member::default())));
    let mut now = Now::default();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(Raft::new(Config::new(NodeId(id), id), Recovered::fresh(conf.clone()), now)?);
    }
    let mut network = VecDeque::new();
    let mut proposed = None;
    while proposed.is_none_or(|index| nodes.iter().any(|raft| raft.applied() < index)) {
        now = Now { instant: now.instant.plus_millis(1), wall: Timestamp(now.wall.0 + 1) };
        for raft in &mut nodes {
            if raft.next_deadline().is_some_and(|at: Instant| at <= now.instant) {
                raft.handle(now, Input::Tick)?;
            }
            if raft.role() == RoleKind::Leader && proposed.is_none() {
                say(&format!("{} leads term {}", raft.id(), raft.term()));
                proposed = Some(raft.propose(now, Proposal::new(Bytes::from_static(b"hello")))?.index);
            }
            drive(raft, now, &mut network)?;
        }
        while let Some(message) = network.pop_front() {
            if let Some(raft) = nodes.iter_mut().find(|raft| raft.id() == message.to) {
                raft.handle(now, Input::Message(message))?;
                drive(raft, now, &mut network)?;
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example talks to its reader")]
fn say(line: &str) {
    println!("{line}");
}
