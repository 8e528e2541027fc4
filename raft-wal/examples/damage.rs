//! Flips every bit of a 64 KiB log, sealed and unsealed, and stops its writing behind every byte: on the simulated disk.
//!
//! ```text
//! cargo run --release -p raft-wal --features sim --example damage
//! ```
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]

use std::{process::ExitCode, time::Instant};

use raft_wal::model::{Outcomes, WHOLE_SEGMENT, every_prefix, flip_every_bit, full_segment};

const THREADS: u64 = 2;

fn main() -> ExitCode {
    let started = Instant::now();
    let run = || -> Result<(), String> {
        let show = |what: &str, outcomes: Outcomes| {
            println!("{what}: {outcomes:?} ({:.0} s)", started.elapsed().as_secs_f64());
        };
        let (sealed, unsealed) = (full(true)?, full(false)?);
        show("each bit of a sealed segment", flip_every_bit(&sealed, WHOLE_SEGMENT, false, THREADS)?);
        show("each bit of the last segment", flip_every_bit(&unsealed, WHOLE_SEGMENT, false, THREADS)?);
        show("each prefix of a segment", every_prefix(&unsealed, WHOLE_SEGMENT.end, THREADS)?);
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn full(sealed: bool) -> Result<raft_wal::model::Driver, String> {
    full_segment(sealed).map_err(|error| error.to_string())
}
