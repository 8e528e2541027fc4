//! The core as its users see it: a few cores, driven by hand.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod basics;
mod chaos;
mod cluster;
mod dissertation;
