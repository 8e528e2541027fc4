//! Faults on demand: which call fails, and how.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::Inode;

/// What is planned for the process that runs now.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many calls of each kind there were.
    pub(super) calls: BTreeMap<Call, u64>,
    pub(super) by_call: BTreeMap<(Call, u64), Fault>,
    pub(super) changes: u64,
    pub(super) by_change: BTreeMap<u64, Fault>,
    pub(super) halt_at: Option<u64>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) unreadable: BTreeSet<(Inode, u64)>,
}

/// The kinds of calls that can fail on demand. All but `Read`, `Open` and `List` count as changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Vfs::create_dir_all`](crate::vfs::Vfs::create_dir_all).
    MakeDir,
    /// [`Vfs::create`](crate::vfs::Vfs::create).
    Create,
    /// [`Vfs::open`](crate::vfs::Vfs::open).
    Open,
    /// [`Vfs::list`](crate::vfs::Vfs::list).
    List,
    /// [`Vfs::rename`](crate::vfs::Vfs::rename).
    Rename,
    /// [`Vfs::remove`](crate::vfs::Vfs::remove).
    Remove,
    /// [`Vfs::sync_dir`](crate::vfs::Vfs::sync_dir).
    SyncDir,
    /// [`VfsFile::read_at`](crate::vfs::VfsFile::read_at).
    Read,
    /// [`VfsFile::write_at`](crate::vfs::VfsFile::write_at).
    Write,
    /// [`VfsFile::sync_data`](crate::vfs::VfsFile::sync_data).
    SyncData,
    /// [`VfsFile::allocate`](crate::vfs::VfsFile::allocate).
    Allocate,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO. Nothing is changed, except that a sync marks what it was to write as clean.
    Error,
    /// ENOSPC. Nothing is changed.
    NoSpace,
    /// Of a write: this many bytes are written, then EIO.
    Short(usize),
    /// Of a write: it succeeds, but its bytes land this much further on.
    Misdirected(i64),
}
