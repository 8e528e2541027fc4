//! The service each server feeds: it keeps the commands it was given, takes a snapshot after every tenth, and knows
//! what may never happen to it.

use std::rc::Rc;

use bytes::Bytes;

/// The commands a server has applied in this life, by number from 1 on.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    log: Vec<Bytes>,
}

/// What all servers together have applied: never two different commands under one number.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed {
    log: Vec<Bytes>,
}

impl Service {
    /// The number of the last command.
    pub(super) fn last(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn command(&self, number: u64) -> Option<&Bytes> {
        self.log.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// The next command. Whether a snapshot is due.
    pub(super) fn apply(&mut self, agreed: &mut Agreed, command: Bytes) -> Result<bool, String> {
        self.log.push(command.clone());
        let number = self.last();
        let place = self.log.len() - 1;
        match agreed.log.get(place) {
            None if agreed.log.len() == place => agreed.log.push(command),
            None => return Err(format!("command {number} is applied before the one in front of it")),
            Some(known) if *known != command => {
                return Err(format!("two servers apply different commands as number {number}"));
            }
            Some(_) => {}
        }
        Ok((number + 1).is_multiple_of(SNAPSHOT_INTERVAL))
    }

    /// What a snapshot taken now holds.
    pub(super) fn commands(&self) -> Rc<Vec<Bytes>> {
        Rc::new(self.log.clone())
    }

    /// Goes on from a snapshot.
    pub(super) fn restore(&mut self, commands: &Rc<Vec<Bytes>>) -> Result<(), String> {
        if commands.len() < self.log.len() {
            return Err(format!("a snapshot goes back from {} to {}", self.log.len(), commands.len()));
        }
        self.log = commands.to_vec();
        Ok(())
    }
}

impl Agreed {
    /// How many commands were committed.
    pub(super) fn count(&self) -> u64 {
        self.log.len() as u64
    }
}

/// Between two snapshots of a server.
const SNAPSHOT_INTERVAL: u64 = 10;
