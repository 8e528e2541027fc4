//! Three cores in one process agree on a command; each has a file that is synced before it tells anything that depends on
//! it: `cargo run -p raft-core --example embed`.
#![expect(clippy::disallowed_types, reason = "files are for whoever embeds the core")]

use std::{collections::VecDeque, error::Error, fs::File, io::Write as _};

use raft_core::{
    Apply, ConfState, Config, Input, Member, Message, NodeId, Now, Proposal, Raft, Recovered, Timestamp,
};

type Network = VecDeque<Message>;

/// Carries out whatever a core asks for, until it asks for nothing more.
fn drive((raft, log): &mut (Raft, File), now: Now, network: &mut Network) -> Result<(), Box<dyn Error>> {
    while let Some(ready) = raft.take_ready() {
        // Safe to send at once: what depends on a write is not in here yet.
        network.extend(ready.messages);
        if let Some(write) = ready.write {
            writeln!(log, "{write:?}")?; // A real log has a format that can be read again.
            log.sync_data()?;
            raft.handle(now, Input::Persisted(write.id))?;
        }
        for work in ready.apply {
            let Apply::Entries(entries) = work else { continue }; // Nobody takes snapshots here.
            for entry in &entries {
                writeln!(std::io::stdout(), "{} applies {}: {:?}", raft.id(), entry.id, entry.payload)?;
                raft.handle(now, Input::Applied(entry.id.index))?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let conf = ConfState::of_voters((1..=3).map(|id| (NodeId(id), Member::default())));
    let (mut now, mut nodes, mut network, mut proposed) = (Now::default(), vec![], Network::new(), None);
    for id in 1..=3 {
        let raft = Raft::new(Config::new(NodeId(id), id), Recovered::fresh(conf.clone()), now)?;
        nodes.push((raft, File::create(std::env::temp_dir().join(format!("embed-{id}.log")))?));
    }
    while proposed.is_none_or(|index| nodes.iter().any(|(raft, _)| raft.applied() < index)) {
        now = Now { instant: now.instant.plus_millis(1), wall: Timestamp(now.wall.0 + 1) };
        for node in &mut nodes {
            if node.0.next_deadline().is_some_and(|at| at <= now.instant) {
                node.0.handle(now, Input::Tick)?;
            }
            if proposed.is_none() {
                // Only a leader takes it.
                proposed = node.0.propose(now, Proposal::new("hello".into())).ok().map(|id| id.index);
            }
            drive(node, now, &mut network)?;
        }
        while let Some(message) = network.pop_front() {
            let to = nodes.iter_mut().find(|node| node.0.id() == message.to).ok_or("an unknown id")?;
            to.0.handle(now, Input::Message(message))?;
            drive(to, now, &mut network)?;
        }
    }
    Ok(())
}
