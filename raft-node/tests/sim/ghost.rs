//! What nobody in the cluster can see: the whole history, and whether it keeps the rules of SAFETY.

use std::collections::BTreeMap;

use raft_core::{Body, Entry, EntryKind, Event, LogIndex, Message, NodeId, RoleKind, SnapshotMeta, Term};
use raft_net::Pin;
use raft_node::{kv::Kv, machine::Machine};

/// Everything that was ever decided, and a state machine that nothing happens to.
#[derive(Debug)]
pub(crate) struct Ghost {
    pin: Option<Pin>,
    committed: BTreeMap<LogIndex, Entry>,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Term, NodeId), NodeId>,
    oracle: Machine<Kv>,
    /// For each key, its value behind each command that changed it.
    versions: BTreeMap<String, Vec<(LogIndex, Option<String>)>>,
    keys: Vec<String>,
}

impl Ghost {
    pub(crate) fn new(keys: Vec<String>) -> Ghost {
        Ghost {
            pin: None,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            oracle: Machine::new(Kv::new(), SnapshotMeta::default()),
            versions: BTreeMap::new(),
            keys,
        }
    }

    /// D3: all founders found the same cluster.
    pub(crate) fn founded(&mut self, pin: &Pin) -> Result<(), String> {
        let first = self.pin.get_or_insert_with(|| pin.clone());
        if first == pin { Ok(()) } else { Err(format!("D3: one founds {first:?} and another {pin:?}")) }
    }

    /// E1: one leader per term, over all crashes.
    pub(crate) fn event(&mut self, node: NodeId, event: &Event) -> Result<bool, String> {
        let Event::RoleChanged { role: RoleKind::Leader, term, .. } = event else { return Ok(false) };
        let leader = *self.leaders.entry(*term).or_insert(node);
        if leader == node { Ok(true) } else { Err(format!("E1: {leader} and {node} both lead term {term}")) }
    }

    /// E2: one vote per term, over all crashes. A candidate's request is its vote for itself.
    pub(crate) fn sent(&mut self, message: &Message) -> Result<(), String> {
        let granted = matches!(message.body, Body::RequestVoteReply { granted: true, .. });
        let own = matches!(message.body, Body::RequestVote { .. });
        let vote = if own { message.from } else { message.to };
        if !granted && !own {
            return Ok(());
        }
        let first = *self.votes.entry((message.term, message.from)).or_insert(vote);
        if first == vote {
            return Ok(());
        }
        Err(format!("E2: {} voted for {first} and {vote} in term {}", message.from, message.term))
    }

    /// C3: what is committed at an index never changes, and nobody applies anything else.
    pub(crate) fn applied(&mut self, node: NodeId, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let first = self.committed.entry(entry.id.index).or_insert_with(|| entry.clone());
            if first != entry {
                return Err(format!("C3: {node} applies {} where {} was committed", entry.id, first.id));
            }
        }
        while let Some(entry) = self.committed.get(&self.oracle.position().last.index.next()) {
            let entry = entry.clone();
            self.oracle.apply::<()>(std::slice::from_ref(&entry), Vec::new());
            if entry.kind == EntryKind::Command {
                let named =
                    |key: &&String| entry.payload.windows(key.len()).any(|bytes| bytes == key.as_bytes());
                for key in self.keys.iter().filter(named) {
                    let value = text(self.oracle.state(), key);
                    let versions = self.versions.entry(key.clone()).or_default();
                    if versions.last().is_none_or(|(_, last)| *last != value) {
                        versions.push((entry.id.index, value));
                    }
                }
            }
        }
        Ok(())
    }

    /// The value of `key` behind entry `index`.
    pub(crate) fn value_at(&self, key: &str, index: LogIndex) -> Option<String> {
        let versions = self.versions.get(key)?;
        let place = versions.partition_point(|(at, _)| *at <= index).checked_sub(1)?;
        versions[place].1.clone()
    }

    /// How far the history is known.
    pub(crate) fn end(&self) -> LogIndex {
        self.oracle.position().last.index
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.oracle.state().fingerprint()
    }
}

/// The value of a key as text.
pub(crate) fn text(kv: &Kv, key: &str) -> Option<String> {
    kv.value(key.as_bytes()).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}
