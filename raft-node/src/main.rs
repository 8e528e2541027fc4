//! The `raft-node` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    raft_node::cli::run(std::env::args_os())
}
