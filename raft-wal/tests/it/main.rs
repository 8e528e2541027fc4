//! The log from outside, on the real disk and on a simulated one.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests may fail")]

mod append;
mod bad_input;
mod damage;
mod format;
mod full_disk;
mod reopen;
mod repair;
mod snapshots;
mod support;
mod writer;
