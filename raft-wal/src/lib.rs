//! A segmented, checksummed write-ahead log for Raft.

pub mod vfs;
