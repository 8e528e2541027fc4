//! A data directory held by this process: its lock, its identity, and the way to its log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{Incarnation, NodeId, StartNumber};
use raft_net::Pin;
use raft_wal::{DirLock, identity::Identity, layout, vfs::Vfs};

use crate::error::StartError;

/// The directory of one node, locked. Opening it counts one more start, durably (SAFETY D3).
#[derive(Debug)]
pub struct DataDir {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    lock: DirLock,
    identity: Identity,
}

impl DataDir {
    /// Opens the directory of node `id`, creating it if it is missing; a new one becomes the directory `fresh`, a
    /// random id that no other has. Blocks.
    ///
    /// # Errors
    /// Nothing is changed if the directory is in use or belongs to somebody else.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        path: &Path,
        id: NodeId,
        fresh: Incarnation,
    ) -> Result<DataDir, StartError> {
        let disk = |operation| {
            let path = path.to_owned();
            move |source| StartError::Disk { operation, path, source }
        };
        vfs.create_dir_all(path).map_err(disk("create"))?;
        let lock = vfs.lock(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::WouldBlock {
                return StartError::InUse { path: path.to_owned() };
            }
            disk("lock")(error)
        })?;
        let names = vfs.list(path).map_err(disk("list"))?;
        let has_log =
            names.iter().any(|entry| matches!(layout::parse(&entry.name), layout::Name::Segment(_)));
        let mut identity = match Identity::load(&*vfs, path)? {
            Some(identity) if identity.node != id => {
                return Err(StartError::OtherNode { path: path.to_owned(), found: identity.node, id });
            }
            Some(identity) => identity,
            // A log without an identity: who it voted for is known, but not as whom.
            None if has_log => return Err(StartError::NoIdentity { path: path.to_owned() }),
            None => Identity::new(id, fresh),
        };
        // What it had voted and acknowledged is forgotten (SAFETY D2).
        if identity.has_log && !has_log {
            return Err(StartError::LostLog { path: path.to_owned() });
        }
        // A crash may have come between the log and its note.
        identity.has_log = has_log;
        identity.start(&*vfs, path)?;
        Ok(DataDir { vfs, path: path.to_owned(), lock, identity })
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.identity.node
    }

    /// Its random id.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// The number of this open.
    #[must_use]
    pub fn start(&self) -> StartNumber {
        self.identity.start
    }

    /// Whether founding is over: there is a log, which is made only then.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.identity.has_log
    }

    /// The cluster this directory was pinned to.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        let cluster = self.identity.cluster?;
        let founders = self.identity.founding.clone()?.members;
        Some(Pin { cluster, founders })
    }

    /// Pins the directory to a cluster. Durable when it returns. Blocks for two syncs.
    ///
    /// # Errors
    /// The disk's. The directory may then be pinned or not; nothing that rests on the pin may be sent.
    pub fn store_pin(&mut self, pin: &Pin) -> Result<(), StartError> {
        self.identity.cluster = Some(pin.cluster);
        self.identity.founding = Some(pin.conf_state());
        Ok(self.identity.store(&*self.vfs, &self.path)?)
    }

    /// What the log is opened with: the file system, the directory, and its lock, which goes with it. Once the log is
    /// open, its presence is to be noted.
    #[must_use]
    pub fn into_parts(self) -> (Arc<dyn Vfs>, PathBuf, DirLock, LogNote) {
        (self.vfs, self.path, self.lock, LogNote(self.identity))
    }
}

/// What is left to do in the directory of a log that was just opened.
#[derive(Debug)]
pub struct LogNote(Identity);

impl LogNote {
    /// Notes durably that there is a log, if that is not known yet, so that its loss is told from a directory in which
    /// none was made. Blocks for two syncs the first time.
    ///
    /// # Errors
    /// The disk's.
    pub fn make(mut self, vfs: &dyn Vfs, dir: &Path) -> Result<(), StartError> {
        if self.0.has_log {
            return Ok(());
        }
        self.0.has_log = true;
        Ok(self.0.store(vfs, dir)?)
    }
}
