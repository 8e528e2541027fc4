//! How every subcommand ends: a sentence on standard error and a number scripts can rely on.

use std::{fmt, process::ExitCode};

use crate::config::ConfigError;

/// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h).
pub(super) const USAGE: u8 = 64;
/// It did not work.
pub(super) const FAILURE: u8 = 1;

/// The end of a command that did not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    /// The process's exit code, not 0.
    pub code: u8,
    /// One sentence for people; empty if everything has been said.
    pub message: String,
}

impl Failure {
    /// Code [`FAILURE`].
    pub(super) fn new(message: impl fmt::Display) -> Failure {
        Failure { code: FAILURE, message: message.to_string() }
    }

    /// Another code.
    pub(super) fn with_code(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string() }
    }

    /// Code [`USAGE`].
    pub(super) fn usage(message: impl fmt::Display) -> Failure {
        Failure::with_code(USAGE, message)
    }

    /// Says it and turns it into the code. Afterwards nothing should be printed any more.
    #[must_use]
    pub(super) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("raft-node: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::usage(error)
    }
}

/// Prints to standard output. A reader that went away (`raft-node … | head`) ends the command quietly.
///
/// # Errors
/// [`Failure`] if standard output takes nothing any more.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::new("")
        } else {
            Failure::new(format_args!("cannot write to standard output: {error}"))
        }
    })
}
