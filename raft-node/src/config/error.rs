//! What is wrong with a configuration, as a sentence that says where and what to do.

use std::{fmt, io, path::PathBuf};

/// Where a value came from. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The file, at this line.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment => f.write_str("environment"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// Why a configuration is refused. `at` names the setting in the way the user wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named by `--config` cannot be read.
    #[error("cannot read the configuration file {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no TOML, or says something twice.
    #[error("{path}:{line}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What does not fit there.
        message: String,
    },
    /// The file has a key that means nothing.
    #[error(
        "{path}:{line}: unknown key {key:?}{hint}",
        path = path.display(),
        hint = nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default()
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// The valid key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A value is not what its setting needs.
    #[error("{at}: {value} is not valid; expected {expected}")]
    BadValue {
        /// The setting.
        at: String,
        /// The value as it was written.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// The setting belongs to a later release.
    #[error("{at} is not supported in this release")]
    NotSupported {
        /// The setting.
        at: String,
    },
    /// Each value is fine, but not with the others.
    #[error("{0}")]
    Contradiction(String),
}
