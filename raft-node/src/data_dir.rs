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
    /// Whether there is a log. It is made only when founding is over, so it is the mark of a founded node.
    has_log: bool,
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
        identity.start(&*vfs, path)?;
        Ok(DataDir { vfs, path: path.to_owned(), lock, identity, has_log })
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

    /// Whether founding is over.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.has_log
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

    /// What the log is opened with: the file system, the directory, and its lock, which goes with it.
    #[must_use]
    pub fn into_parts(self) -> (Arc<dyn Vfs>, PathBuf, DirLock) {
        (self.vfs, self.path, self.lock)
    }
}
