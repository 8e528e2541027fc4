//! From a data directory to everything a node starts from: the log, the state machine as of the newest snapshot, and
//! what becomes of a log that is damaged.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{LogIndex, NodeId, Recovered, SnapshotMeta};
use raft_wal::{DirLock, OpenReport, Options, WalError, vfs::Vfs};
use tracing::warn;

use crate::{
    data_dir::DataDir, error::StartError, machine::Machine, snapshot_store::SnapshotStore,
    state_machine::StateMachine,
};

/// What opening the disk gave. `L` is the log: with a thread of its own in a process, as plain calls in a simulation.
#[derive(Debug)]
pub struct Opened<L, S> {
    /// The log, which holds the directory's lock.
    pub log: L,
    /// What the core starts from.
    pub recovered: Recovered,
    /// The state machine, restored from the newest snapshot.
    pub machine: Machine<S>,
    /// The directory's snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// Length of the newest snapshot's file, 0 if there is none.
    pub snapshot_bytes: u64,
    /// Bytes of a torn tail that were set aside.
    pub torn_bytes: u64,
    /// Names in the directory that are not ours.
    pub unknown_files: Vec<PathBuf>,
}

/// How a log is opened: [`raft_wal::Wal::open_locked`] or [`raft_wal::Engine::open_locked`].
pub type OpenLog<L> = fn(Arc<dyn Vfs>, &Path, Options, DirLock) -> Result<(L, OpenReport), WalError>;

impl<L, S: StateMachine> Opened<L, S> {
    /// Opens the log of `data_dir` and restores `state`, which must be empty. Blocks.
    ///
    /// # Errors
    /// The log or the newest snapshot cannot be used; nothing that was on disk is lost.
    pub fn open(
        data_dir: DataDir,
        options: Options,
        open_log: OpenLog<L>,
        begin_repair: fn(&mut L) -> Result<(), WalError>,
        state: S,
    ) -> Result<Opened<L, S>, StartError> {
        let (cluster, node) = (options.cluster, options.node);
        let (vfs, dir, lock, note) = data_dir.into_parts();
        let (mut log, report) = open_log(Arc::clone(&vfs), &dir, options, lock).map_err(StartError::Log)?;
        note.make(&*vfs, &dir)?;
        if let Some(damage) = &report.damaged {
            // Nobody could give back what a lone voter lost, and writing behind the hole would hide it.
            if !has_other_voters(&report.recovered, node) {
                return Err(StartError::Damaged(damage.to_string()));
            }
            warn!(%damage, "the log is damaged: this node does not lead until the cluster has refilled it");
            begin_repair(&mut log).map_err(StartError::Log)?;
        }
        for rebuilt in &report.rebuilt {
            warn!(%rebuilt, "bytes of the log changed on this disk; no entry is lost, and what they told is known from elsewhere");
        }
        let snapshots = Arc::new(SnapshotStore::new(vfs, dir, cluster));
        let mut recovered = report.recovered;
        let (machine, snapshot_bytes) = restore(&mut recovered, node, &snapshots, state)?;
        Ok(Opened {
            log,
            recovered,
            machine,
            snapshots,
            snapshot_bytes,
            torn_bytes: report.torn.map_or(0, |torn| torn.bytes),
            unknown_files: report.unknown_files,
        })
    }
}

/// The state machine as of the newest snapshot, and that file's length in bytes.
///
/// Where bytes of the file changed and there are other voters, it is left empty for a leader's snapshot. The file stays
/// until that one takes its place.
fn restore<S: StateMachine>(
    recovered: &mut Recovered,
    me: NodeId,
    snapshots: &SnapshotStore,
    state: S,
) -> Result<(Machine<S>, u64), StartError> {
    let newest = recovered.snapshot.clone();
    if newest.last.index == LogIndex::ZERO {
        return Ok((Machine::new(state, newest), 0));
    }
    let mut machine = Machine::new(state, SnapshotMeta::default());
    let error = match machine.restore(snapshots, newest.clone()) {
        Ok(bytes) => return Ok((machine, bytes)),
        Err(error) => error,
    };
    let Some(damage) = snapshots.damage(newest.last) else { return Err(StartError::Snapshot(error)) };
    if !has_other_voters(recovered, me) {
        return Err(StartError::SnapshotDamaged {
            damage: damage.to_string(),
            older: snapshots.older(newest.last),
        });
    }
    warn!(%damage, "the snapshot is damaged: this node does not lead until it has another one from the leader");
    recovered.snapshot_lost = true;
    Ok((machine, 0))
}

/// Whether somebody else has a vote in the last configuration this disk knows.
fn has_other_voters(recovered: &Recovered, me: NodeId) -> bool {
    let conf = recovered.confs.last().map_or(&recovered.snapshot.conf, |(_, conf)| conf);
    conf.all().into_iter().any(|id| id != me && conf.is_voter(id))
}
