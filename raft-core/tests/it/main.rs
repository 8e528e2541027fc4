//! The core as its users see it: a few cores, driven by hand.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests look for one kind among all")]
#![allow(clippy::print_stdout, reason = "a failed random run tells its seed")]

mod basics;
mod chaos;
mod cluster;
mod damage;
mod disk_stall;
mod dissertation;
mod elections;
mod hostile;
mod journal;
mod lease;
mod membership;
mod peers_bugs;
mod priority;
mod regressions;
mod replication;
mod scenarios;
mod snapshot_lost;
mod snapshot_transfer;
