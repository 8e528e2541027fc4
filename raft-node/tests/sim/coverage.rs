//! What has occurred: a fault that never struck has tested nothing.

use std::collections::BTreeMap;

/// Something worth knowing that it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    CrashOfProcess,
    CrashOfMachine,
    CrashInAFileOperation,
    CrashBetweenEffects,
    CrashWhileFounding,
    PowerCutWhileDown,
    DiskError,
    DiskFull,
    WritesWaitForRoom,
    NodeEndedByItsDisk,
    StartRefusedByItsDisk,
    Partition,
    OneWayCut,
    Pause,
    MessageLost,
    MessageDoubled,
    ConnectionBroken,
    ForwardHeldBack,
    ForwardLost,
    ForwardReoffered,
    LeaderChanged,
    Handover,
    SnapshotTaken,
    SnapshotNotTaken,
    SnapshotSent,
    SnapshotBrokenOff,
    SnapshotRestored,
    SnapshotRefusedBusy,
    SnapshotDiscarded,
    RestoredAtStart,
    EntriesFetched,
    LogTorn,
    WriteAcknowledged,
    WriteUnknown,
    WriteRefused,
    ReadAnswered,
    ReadRefused,
    StaleRead,
    Transaction,
    Healed,
}

const ALL: &[Mark] = &[
    Mark::CrashOfProcess,
    Mark::CrashOfMachine,
    Mark::CrashInAFileOperation,
    Mark::CrashBetweenEffects,
    Mark::CrashWhileFounding,
    Mark::PowerCutWhileDown,
    Mark::DiskError,
    Mark::DiskFull,
    Mark::WritesWaitForRoom,
    Mark::NodeEndedByItsDisk,
    Mark::StartRefusedByItsDisk,
    Mark::Partition,
    Mark::OneWayCut,
    Mark::Pause,
    Mark::MessageLost,
    Mark::MessageDoubled,
    Mark::ConnectionBroken,
    Mark::ForwardHeldBack,
    Mark::ForwardLost,
    Mark::ForwardReoffered,
    Mark::LeaderChanged,
    Mark::Handover,
    Mark::SnapshotTaken,
    Mark::SnapshotNotTaken,
    Mark::SnapshotSent,
    Mark::SnapshotBrokenOff,
    Mark::SnapshotRestored,
    Mark::SnapshotRefusedBusy,
    Mark::SnapshotDiscarded,
    Mark::RestoredAtStart,
    Mark::EntriesFetched,
    Mark::LogTorn,
    Mark::WriteAcknowledged,
    Mark::WriteUnknown,
    Mark::WriteRefused,
    Mark::ReadAnswered,
    Mark::ReadRefused,
    Mark::StaleRead,
    Mark::Transaction,
    Mark::Healed,
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<Mark, u64>);

impl Coverage {
    pub(crate) fn note(&mut self, mark: Mark) {
        *self.0.entry(mark).or_default() += 1;
    }

    pub(crate) fn count(&self, mark: Mark) -> u64 {
        self.0.get(&mark).copied().unwrap_or(0)
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (mark, count) in &other.0 {
            *self.0.entry(*mark).or_default() += count;
        }
    }

    pub(crate) fn missing(&self) -> Vec<Mark> {
        ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }
}
