//! The log from outside, on the real disk.

mod append;
mod damage;
mod snapshots;
mod support;
mod writer;
