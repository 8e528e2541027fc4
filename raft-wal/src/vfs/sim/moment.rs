//! A machine crash: which parts of what was pending it keeps.

use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use super::{
    SimVfs,
    disk::{Disk, Unit},
    mix,
};

/// The disk right after one change, and what its owner knew then.
#[derive(Clone, Debug)]
pub struct Moment {
    pub(super) disk: Disk,
    pub(super) note: u64,
}

impl Moment {
    /// The note in force: see [`SimVfs::note`].
    #[must_use]
    pub fn note(&self) -> u64 {
        self.note
    }

    /// Every way a machine crash at this moment is tried: all of what is pending lost, all kept, each single part lost,
    /// each single part kept, each single call lost as a whole or kept alone, and the last call torn at each sector from
    /// either side.
    #[must_use]
    pub fn survivors(&self) -> Vec<Survivors> {
        let pending = self.disk.pending();
        let mut out = vec![Survivors::None];
        if pending.is_empty() {
            return out;
        }
        out.push(Survivors::All);
        if pending.len() > 1 {
            out.extend(pending.iter().map(|unit| Survivors::AllBut(unit.id)));
            out.extend(pending.iter().map(|unit| Survivors::Only(unit.id)));
        }
        let calls: BTreeSet<u64> = pending.iter().map(|unit| unit.operation).collect();
        if calls.len() > 1 {
            out.extend(calls.iter().map(|call| Survivors::AllButCall(*call)));
            out.extend(calls.iter().map(|call| Survivors::OnlyCall(*call)));
        }
        let last = pending.iter().filter(|unit| unit.operation == self.disk.operation);
        out.extend(last.clone().map(|unit| Survivors::UpTo(unit.id)));
        out.extend(last.map(|unit| Survivors::LastFrom(unit.id)));
        out
    }

    /// Identifies the crash state together with the note, among the moments of one disk.
    #[must_use]
    pub fn key(&self, survivors: Survivors) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.note, self.disk.generation()).hash(&mut hasher);
        for unit in self.disk.pending().iter().filter(|unit| survivors.keeps(&self.disk, unit)) {
            unit.id.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The disk after a machine crash at this moment.
    #[must_use]
    pub fn crash(&self, survivors: Survivors) -> SimVfs {
        SimVfs::on(survivors.crash(&self.disk))
    }

    /// The disk after a crash of the process alone: the cache as it was.
    #[must_use]
    pub fn crash_process(&self) -> SimVfs {
        SimVfs::on(self.disk.clone())
    }
}

/// What a machine crash leaves of what was pending. The numbers are those of [`Moment::survivors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Everything but this part.
    AllBut(u64),
    /// This part alone.
    Only(u64),
    /// Everything but what this call changed.
    AllButCall(u64),
    /// What this call changed alone.
    OnlyCall(u64),
    /// This part and everything before: the last call is torn behind it.
    UpTo(u64),
    /// Everything before the last call, and of the last call this part and what follows.
    LastFrom(u64),
    /// Each part with probability one half, drawn from this seed.
    Random(u64),
}

impl Survivors {
    pub(super) fn crash(self, disk: &Disk) -> Disk {
        disk.crash(|unit| self.keeps(disk, unit))
    }

    fn keeps(self, disk: &Disk, unit: &Unit) -> bool {
        match self {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::AllBut(id) => unit.id != id,
            Survivors::Only(id) => unit.id == id,
            Survivors::AllButCall(call) => unit.operation != call,
            Survivors::OnlyCall(call) => unit.operation == call,
            Survivors::UpTo(id) => unit.id <= id,
            Survivors::LastFrom(id) => unit.operation != disk.operation || unit.id >= id,
            Survivors::Random(seed) => mix(seed ^ mix(unit.id)) & 1 == 0,
        }
    }
}
