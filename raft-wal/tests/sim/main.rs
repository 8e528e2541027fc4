//! The log as its users see it, on the simulated disk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod crash;
mod damage;
mod faults;
