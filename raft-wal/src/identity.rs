//! Who a data directory belongs to: the file `identity`.
//!
//! Always replaced as a whole (temporary file, fdatasync, rename, directory sync), so that a crash leaves the old one
//! or the new one. A damaged one is refused and never guessed at: a node that cannot prove who it is must not vote
//! (SAFETY D2). FORMAT.md has the bytes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{CONF_STATE_BYTES_MAX, ClusterId, ConfState, Incarnation, NodeId, StartNumber};

use crate::{
    fields::Fields,
    layout,
    vfs::{Vfs, read_exact_at},
};

/// What a data directory knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node whose directory this is.
    pub node: NodeId,
    /// Drawn at random when the directory was made. A wiped directory comes back with another one.
    pub incarnation: Incarnation,
    /// How often the directory was opened. See [`start`](Self::start).
    pub start: StartNumber,
    /// The cluster, once its founders have met or an existing one has taken this node in.
    pub cluster: Option<ClusterId>,
    /// The configuration the cluster was founded with, once it is.
    pub founding: Option<ConfState>,
    /// A log has been made in the directory. If there is none, it is lost.
    pub has_log: bool,
}

impl Identity {
    /// The identity of a directory made just now. It is on disk after the first [`store`](Self::store).
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation) -> Identity {
        Identity { node, incarnation, start: StartNumber(0), cluster: None, founding: None, has_log: false }
    }

    /// Reads the identity of `dir`; `None` if it has none.
    ///
    /// # Errors
    /// Anything but a whole, undamaged file of a version this release knows. Nothing is changed.
    pub fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Identity>, IdentityError> {
        let path = dir.join(layout::IDENTITY_FILE);
        let io_error = |source| IdentityError::io("read", &path, source);
        let file = match vfs.open(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(io_error)?,
        };
        let length = file.length().map_err(io_error)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= FILE_BYTES_MAX);
        let Some(length) = length else {
            return Err(IdentityError::damaged(&path, 0, IdentityDamage::Length));
        };
        let mut bytes = vec![0; length];
        read_exact_at(&*file, &mut bytes, 0).map_err(io_error)?;
        decode(&path, &bytes).map(Some)
    }

    /// Counts one more open and makes it durable: before anything is sent, so that of two copies of one directory
    /// the older one is recognised (SAFETY D3).
    ///
    /// # Errors
    /// As [`store`](Self::store).
    pub fn start(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<StartNumber, IdentityError> {
        let next = Identity { start: StartNumber(self.start.0.saturating_add(1)), ..self.clone() };
        next.store(vfs, dir)?;
        *self = next;
        Ok(self.start)
    }

    /// Replaces the identity of `dir`. Durable when it returns; after a crash the old one or this one is found.
    ///
    /// # Errors
    /// [`IdentityError::Io`]: which of the two is on disk is unknown until it is loaded by another start. Do not go on.
    pub fn store(&self, vfs: &dyn Vfs, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(layout::IDENTITY_FILE);
        let temporary = dir.join(layout::IDENTITY_FILE.to_owned() + layout::TEMPORARY_SUFFIX);
        let wrap = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::io(operation, &path, source)
        };
        match vfs.remove(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(wrap("remove", &temporary))?,
        }
        let file = vfs.create(&temporary).map_err(wrap("create", &temporary))?;
        file.write_at(&self.encode(), 0).map_err(wrap("write", &temporary))?;
        // Before the rename: a crash must never find the final name on a file without its bytes.
        file.sync_data().map_err(wrap("sync", &temporary))?;
        vfs.rename(&temporary, &path).map_err(wrap("rename", &temporary))?;
        vfs.sync_dir(dir).map_err(wrap("sync", dir))
    }

    fn encode(&self) -> Vec<u8> {
        let founding = self.founding.as_ref().map(ConfState::encode);
        let flags = if self.cluster.is_some() { HAS_CLUSTER } else { 0 }
            | if founding.is_some() { HAS_FOUNDING } else { 0 }
            | if self.has_log { HAS_LOG } else { 0 };
        let founding = founding.unwrap_or_default();
        let length = (FIXED_BYTES + founding.len()).next_multiple_of(8) + TRAILER_BYTES;
        let as_u32 = |length: usize| u32::try_from(length).expect("a configuration is at most 128 KiB");

        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&as_u32(length).to_le_bytes());
        out.extend_from_slice(&0_u64.to_le_bytes()); // feature bits: none yet
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.incarnation.0.to_le_bytes());
        out.extend_from_slice(&self.start.0.to_le_bytes());
        out.extend_from_slice(&self.cluster.map_or(0, |cluster| cluster.0).to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&as_u32(founding.len()).to_le_bytes());
        debug_assert_eq!(out.len(), FIXED_BYTES);
        out.extend_from_slice(&founding);
        out.resize(length - TRAILER_BYTES, 0);
        out.extend_from_slice(&0_u32.to_le_bytes());
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
    let damaged = |offset, kind| IdentityError::damaged(path, offset, kind);
    let short = || damaged(bytes.len() as u64, IdentityDamage::Length);
    let mut fields = Fields::new(bytes);
    if fields.array::<8>().ok_or_else(short)? != MAGIC {
        return Err(damaged(0, IdentityDamage::Magic));
    }
    // A newer format may have its checksum elsewhere, so the version is looked at first. A flipped bit in it is taken
    // for a newer release: refused as well.
    let version = fields.u32().ok_or_else(short)?;
    if version != FORMAT_VERSION {
        return Err(IdentityError::NewerFormat { path: path.to_owned(), version, known: FORMAT_VERSION });
    }
    let length = fields.u32().ok_or_else(short)?;
    if u64::from(length) != bytes.len() as u64 || bytes.len() < FIXED_BYTES + TRAILER_BYTES {
        return Err(damaged(OFFSET_LENGTH, IdentityDamage::Length));
    }
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or_else(short)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(damaged(body.len() as u64, IdentityDamage::Checksum));
    }
    let features = fields.u64().ok_or_else(short)?;
    if features != 0 {
        return Err(IdentityError::UnknownFeatures { path: path.to_owned(), bits: features });
    }
    let node = NodeId(fields.u64().ok_or_else(short)?);
    let incarnation = Incarnation(fields.u64().ok_or_else(short)?);
    let start = StartNumber(fields.u64().ok_or_else(short)?);
    let cluster = ClusterId(fields.u128().ok_or_else(short)?);
    let flags = fields.u32().ok_or_else(short)?;
    let founding_length = fields.u32().ok_or_else(short)?;
    if flags & !(HAS_CLUSTER | HAS_FOUNDING | HAS_LOG) != 0 {
        return Err(damaged(OFFSET_FLAGS, IdentityDamage::Content));
    }
    let founding = usize::try_from(founding_length).ok().and_then(|length| fields.take(length));
    let founding = founding.ok_or_else(|| damaged(OFFSET_FLAGS + 4, IdentityDamage::Length))?;
    let founding = match flags & HAS_FOUNDING {
        0 => None,
        _ => Some(
            ConfState::decode(founding)
                .map_err(|_| damaged(FIXED_BYTES as u64, IdentityDamage::Configuration))?,
        ),
    };
    let cluster = (flags & HAS_CLUSTER != 0).then_some(cluster);
    let has_log = flags & HAS_LOG != 0;
    Ok(Identity { node, incarnation, start, cluster, founding, has_log })
}

/// Why the identity of a directory could not be read or replaced.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Written by a newer release.
    #[error("{path} has format version {version}; this release reads up to {known}", path = path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this release knows.
        known: u32,
    },
    /// Uses features this release does not know.
    #[error("{path} uses features unknown to this release (bits {bits:#x})", path = path.display())]
    UnknownFeatures {
        /// The file.
        path: PathBuf,
        /// The unknown bits.
        bits: u64,
    },
    /// The bytes are not what was written. The node cannot prove who it is; it comes back as a new member.
    #[error("{path} is damaged at byte {offset}: {kind}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        kind: IdentityDamage,
    },
}

impl IdentityError {
    fn io(operation: &'static str, path: &Path, source: io::Error) -> IdentityError {
        IdentityError::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }

    fn damaged(path: &Path, offset: u64, kind: IdentityDamage) -> IdentityError {
        IdentityError::Damaged { path: path.to_owned(), offset, kind }
    }
}

/// What does not fit about an identity file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityDamage {
    /// It does not begin as one.
    #[error("it does not begin as an identity file does")]
    Magic,
    /// It is longer or shorter than it says.
    #[error("its length does not fit")]
    Length,
    /// The checksum differs.
    #[error("the checksum differs")]
    Checksum,
    /// The checksum fits, the content makes no sense.
    #[error("its content contradicts itself")]
    Content,
    /// The checksum fits, the founding configuration cannot be read.
    #[error("the founding configuration cannot be read")]
    Configuration,
}

const MAGIC: [u8; 8] = *b"RAFT-ID\0";
const FORMAT_VERSION: u32 = 1;
const HAS_CLUSTER: u32 = 1;
const HAS_FOUNDING: u32 = 2;
const HAS_LOG: u32 = 4;
/// Up to the founding configuration.
const FIXED_BYTES: usize = 72;
/// Four zeros and the checksum.
const TRAILER_BYTES: usize = 8;
const OFFSET_LENGTH: u64 = 12;
const OFFSET_FLAGS: u64 = 64;
const FILE_BYTES_MAX: usize = FIXED_BYTES + CONF_STATE_BYTES_MAX + 8 + TRAILER_BYTES;

#[cfg(test)]
mod tests {
    use raft_core::Member;

    use super::*;
    use crate::vfs::OsVfs;

    fn founded() -> Identity {
        let member = Member { incarnation: Incarnation(7), address: "host:7402".to_owned() };
        let founding = ConfState {
            voters: [NodeId(3)].into(),
            members: [(NodeId(3), member)].into(),
            ..ConfState::default()
        };
        Identity {
            cluster: Some(ClusterId(1 << 100)),
            founding: Some(founding),
            has_log: true,
            ..Identity::new(NodeId(3), Incarnation(7))
        }
    }

    #[test]
    fn an_identity_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(&OsVfs, dir.path()).unwrap().is_none());
        for identity in [Identity::new(NodeId(1), Incarnation(9)), founded()] {
            identity.store(&OsVfs, dir.path()).unwrap();
            assert_eq!(Identity::load(&OsVfs, dir.path()).unwrap(), Some(identity));
        }
    }

    #[test]
    fn each_start_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = founded();
        assert_eq!(identity.start(&OsVfs, dir.path()).unwrap(), StartNumber(1));
        let mut identity = Identity::load(&OsVfs, dir.path()).unwrap().unwrap();
        assert_eq!(identity.start(&OsVfs, dir.path()).unwrap(), StartNumber(2));
    }

    #[test]
    fn every_flipped_bit_and_every_prefix_is_refused() {
        let path = Path::new("identity");
        let bytes = founded().encode();
        assert_eq!(decode(path, &bytes).unwrap(), founded());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(path, &damaged).is_err(), "bit {bit} went unnoticed");
        }
        for end in 0..bytes.len() {
            assert!(decode(path, &bytes[..end]).is_err(), "a prefix of {end} bytes was taken");
        }
        assert!(decode(path, &[bytes, vec![0]].concat()).is_err());
    }

    /// A founded identity, changed, with a checksum that fits.
    fn refused(change: impl FnOnce(&mut Vec<u8>)) -> IdentityError {
        let mut bytes = founded().encode();
        bytes.truncate(bytes.len() - 4);
        change(&mut bytes);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        decode(Path::new("identity"), &bytes).unwrap_err()
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_place_even_if_the_checksum_fits() {
        let put = |at: usize, value: u32| {
            move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes())
        };
        let short = |bytes: &mut Vec<u8>| {
            bytes.truncate(36);
            put(12, 40)(bytes);
        };
        let too_short = |bytes: &mut Vec<u8>| {
            bytes.truncate(68);
            put(12, 72)(bytes);
        };
        let cases = [
            (refused(put(0, 1)), 0, IdentityDamage::Magic),
            (refused(put(12, 200)), 12, IdentityDamage::Length),
            (refused(short), 12, IdentityDamage::Length),
            (refused(too_short), 12, IdentityDamage::Length),
            (refused(put(64, 8)), 64, IdentityDamage::Content),
            (refused(put(68, 1 << 20)), 68, IdentityDamage::Length),
            (refused(put(72, u32::MAX)), 72, IdentityDamage::Configuration),
        ];
        for (n, (error, at, what)) in cases.into_iter().enumerate() {
            let IdentityError::Damaged { offset, kind, .. } = error else { panic!("case {n}: {error}") };
            assert_eq!((offset, kind), (at, what), "case {n}");
        }
        assert!(matches!(refused(put(8, 2)), IdentityError::NewerFormat { version: 2, known: 1, .. }));
        assert!(matches!(refused(put(16, 4)), IdentityError::UnknownFeatures { bits: 4, .. }));
    }

    #[test]
    fn a_file_longer_than_any_identity_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsVfs.create(&dir.path().join(layout::IDENTITY_FILE)).unwrap();
        let longest = 72 + CONF_STATE_BYTES_MAX + 8 + 8;
        for (length, what) in [(longest, IdentityDamage::Magic), (longest + 1, IdentityDamage::Length)] {
            file.write_at(&[0], length as u64 - 1).unwrap();
            match Identity::load(&OsVfs, dir.path()) {
                Err(IdentityError::Damaged { offset: 0, kind, .. }) => assert_eq!(kind, what),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Taken for absent, it would be founded anew: without its vote.
    #[test]
    fn an_identity_that_cannot_be_opened_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(layout::IDENTITY_FILE);
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let error = Identity::load(&OsVfs, dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Io { operation: "read", .. }), "{error}");
    }

    #[test]
    fn what_stands_in_the_way_of_a_new_identity_is_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = layout::IDENTITY_FILE.to_owned() + layout::TEMPORARY_SUFFIX;
        OsVfs.create_dir_all(&dir.path().join(&temporary).join("full")).unwrap();
        let error = founded().store(&OsVfs, dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Io { operation: "remove", .. }), "{error}");
        assert!(Identity::load(&OsVfs, dir.path()).unwrap().is_none());
    }
}
