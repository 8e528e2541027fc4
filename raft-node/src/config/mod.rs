//! The configuration of a node: read from a file, the environment and the command line, checked as a whole.
//!
//! [`load`] is a function of its arguments: no file, no variable and no clock is looked at here. The file is weakest,
//! then the environment, then the command line. Each value remembers where it came from.

mod error;
mod file;
mod memory;
mod parse;
mod settings;
mod suggest;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use raft_core::NodeId;
use tracing_subscriber::filter::Targets;

pub use error::{ConfigError, Origin};
pub use file::File;
pub use memory::{memory_bytes, memory_bytes_default};
pub use parse::{bytes_text, listen_address, reachable_address};
pub use settings::{CONFIG_VARIABLE, Kind, SETTINGS, Setting, Supported, VARIABLE_PREFIX};
pub use suggest::nearest;

/// What a node is run with. Times are milliseconds, sizes bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where clients are listened for.
    pub resp: SocketAddr,
    /// Where operators are listened for.
    pub http: SocketAddr,
    /// Where the other nodes are listened for.
    pub peer: SocketAddr,
    /// Where clients reach this node, if that differs from where it listens.
    pub advertise_resp: Option<String>,
    /// Where operators reach this node, if that differs.
    pub advertise_http: Option<String>,
    /// Where the other nodes reach this node, if that differs. In a cluster it is this node's address in
    /// `initial_cluster`.
    pub advertise_peer: Option<String>,
    /// The founding nodes and their peer addresses, this node among them. `None` is a cluster of one.
    pub initial_cluster: Option<BTreeMap<NodeId, String>>,
    /// Plaintext beyond this machine is permitted.
    pub insecure: bool,
    /// Every record of the log is checked before the start.
    pub verify_on_open: bool,
    /// When clients are sent to the leader instead of being served here.
    pub cluster_redirect: ClusterRedirect,
    /// See [`raft_core::Config::heartbeat_ms`].
    pub heartbeat_ms: u64,
    /// The shortest election timeout; the longest is twice that.
    pub election_timeout_ms: u64,
    /// Size of one segment of the log.
    pub segment_bytes: u64,
    /// A snapshot is taken once the log exceeds this and twice the last snapshot.
    pub snapshot_log_bytes: u64,
    /// The largest entry.
    pub entry_bytes_max: usize,
    /// The largest value.
    pub value_bytes_max: usize,
    /// Past this much memory writes are refused; `None` is [`memory_bytes_default`].
    pub memory_bytes_max: Option<u64>,
    /// The password clients have to give.
    pub requirepass: Option<Secret>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are: directives of [`Targets`].
    pub log_level: String,
    /// Each setting as it was written, and where; in the order of [`SETTINGS`]. Secrets are masked.
    pub table: Vec<Row>,
    /// What looks like a mistake but is none for certain, as sentences.
    pub warnings: Vec<String>,
}

/// One line of `config print`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The setting.
    pub key: &'static str,
    /// Its value as it would be written; `None` where there is none.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What it is.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

/// Whether clients are sent to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterRedirect {
    /// Those that show that they understand it.
    Auto,
    /// Nobody: commands are forwarded.
    Never,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings given on the command line, by key.
pub type Flags = BTreeMap<&'static str, String>;

/// Stands for a password wherever settings are shown.
const MASK: &str = "(set)";
/// Timeouts longer than this are a mistake in the unit.
const MILLIS_MAX: u64 = 60 * 60 * 1000;

/// Puts the configuration together and checks it as a whole.
///
/// # Errors
/// The first thing that is wrong, as a sentence that names the setting the way it was written.
pub fn load(
    flags: &Flags,
    environment: &BTreeMap<String, String>,
    file: Option<&File>,
) -> Result<Config, ConfigError> {
    let given = Given::gather(flags, environment, file)?;
    given.check_supported()?;
    let config = Config {
        id: given
            .required("id", "a number from 1", |text| parse::number(text).filter(|id| *id > 0).map(NodeId))?,
        data_dir: given
            .required("data-dir", "a directory", |text| (!text.is_empty()).then(|| PathBuf::from(text)))?,
        resp: given.required("resp", LISTEN, listen_address)?,
        http: given.required("http", LISTEN, listen_address)?,
        peer: given.required("peer", LISTEN, listen_address)?,
        advertise_resp: given.optional("advertise-resp", REACH, reachable_address)?,
        advertise_http: given.optional("advertise-http", REACH, reachable_address)?,
        advertise_peer: given.optional("advertise-peer", REACH, reachable_address)?,
        initial_cluster: given.cluster()?,
        insecure: given.switch("insecure")?,
        verify_on_open: given.switch("verify-on-open")?,
        cluster_redirect: given.choice("cluster-redirect", |text| match text {
            "auto" => Some(ClusterRedirect::Auto),
            "never" => Some(ClusterRedirect::Never),
            _ => None,
        })?,
        heartbeat_ms: given.millis("heartbeat-ms")?,
        election_timeout_ms: given.millis("election-timeout-ms")?,
        segment_bytes: given.bytes("segment-bytes")?,
        snapshot_log_bytes: given.bytes("snapshot-log-bytes")?,
        entry_bytes_max: given.length("max-entry-bytes")?,
        value_bytes_max: given.length("max-value-bytes")?,
        memory_bytes_max: given.optional("max-memory-bytes", BYTES, parse::bytes)?,
        requirepass: given.optional("requirepass", "a password", |text| {
            (!text.is_empty()).then(|| Secret(text.to_owned()))
        })?,
        log_format: given.choice("log-format", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        })?,
        log_level: given.required(
            "log-level",
            "error, warn, info, debug or trace, also per module",
            |text| {
                let known = !text.is_empty() && text.parse::<Targets>().is_ok() && levels_are_known(text);
                known.then(|| text.to_owned())
            },
        )?,
        table: given.table(),
        warnings: look_alikes(environment),
    };
    config.validate(&given)
}

const LISTEN: &str = "an address like 127.0.0.1:7400";
const REACH: &str = "an address like host:7400";
const BYTES: &str = "a number of bytes or a size like 64MiB";

/// `Targets` takes a misspelt level for the name of a module; a directive without `=` has to be a level.
fn levels_are_known(text: &str) -> bool {
    let level = |text: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| text.eq_ignore_ascii_case(level))
    };
    text.split(',').all(|part| match part.rsplit_once('=') {
        Some((_, value)) => level(value.trim()),
        None => level(part.trim()),
    })
}

/// Variables that begin like ours and are nearly one of them. The others are not our business: service managers put
/// variables of their own beside ours.
fn look_alikes(environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in environment.keys() {
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        let key = rest.to_ascii_lowercase().replace('_', "-");
        if name == CONFIG_VARIABLE || Setting::find(&key).is_some() {
            continue;
        }
        if let Some(setting) =
            nearest(&key, SETTINGS.iter().map(|setting| setting.key)).and_then(Setting::find)
        {
            warnings.push(format!(
                "the environment variable {name} means nothing; did you mean {}?",
                setting.variable()
            ));
        }
    }
    warnings
}

impl Config {
    /// The defaults, as if nothing had been given.
    ///
    /// # Panics
    /// Never: the defaults are valid, and a test says so.
    #[must_use]
    pub fn defaults() -> Config {
        load(&Flags::new(), &BTreeMap::new(), None).expect("the defaults are valid")
    }

    /// Past this much memory writes are refused.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max.unwrap_or_else(memory_bytes_default)
    }

    /// Checks the values against each other.
    fn validate(self, given: &Given<'_>) -> Result<Config, ConfigError> {
        let refuse = |sentence: String| Err(ConfigError::Contradiction(sentence));
        let least = self.heartbeat_ms.saturating_mul(2);
        if self.election_timeout_ms < least {
            return refuse(format!(
                "{} is {} ms, but has to be at least two heartbeats ({} is {} ms)",
                given.at("election-timeout-ms"),
                self.election_timeout_ms,
                given.at("heartbeat-ms"),
                self.heartbeat_ms
            ));
        }
        let segments = raft_wal::SEGMENT_BYTES_MIN..=raft_wal::SEGMENT_BYTES_MAX;
        if !segments.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(4096) {
            return refuse(format!(
                "{} has to be a multiple of 4KiB from {} to {}",
                given.at("segment-bytes"),
                bytes_text(*segments.start()),
                bytes_text(*segments.end())
            ));
        }
        if (self.entry_bytes_max as u64).saturating_mul(2) > self.segment_bytes {
            return refuse(format!(
                "{} is {}, but has to hold two of the largest entries ({} is {})",
                given.at("segment-bytes"),
                bytes_text(self.segment_bytes),
                given.at("max-entry-bytes"),
                bytes_text(self.entry_bytes_max as u64)
            ));
        }
        // What a command adds to its value: its name, a key, the framing.
        let overhead = ENTRY_OVERHEAD_BYTES.min(self.entry_bytes_max / 2);
        if self.value_bytes_max.saturating_add(overhead) > self.entry_bytes_max {
            return refuse(format!(
                "{} is {}, too large for an entry ({} is {})",
                given.at("max-value-bytes"),
                bytes_text(self.value_bytes_max as u64),
                given.at("max-entry-bytes"),
                bytes_text(self.entry_bytes_max as u64)
            ));
        }
        let listeners = [("resp", self.resp), ("http", self.http), ("peer", self.peer)];
        for (i, (key, address)) in listeners.iter().enumerate() {
            if address.port() != 0
                && let Some((other, _)) = listeners[..i].iter().find(|(_, other)| other == address)
            {
                return refuse(format!("{} and {} are both {address}", given.at(other), given.at(key)));
            }
            if !address.ip().is_loopback() && !self.insecure {
                return refuse(format!(
                    "{} {address} would speak plaintext beyond this machine; give --insecure to permit it",
                    given.at(key)
                ));
            }
        }
        self.place_in_cluster(given)
    }

    /// This node's place among the founders: its peer address is what the list says.
    fn place_in_cluster(mut self, given: &Given<'_>) -> Result<Config, ConfigError> {
        let refuse = |sentence: String| Err(ConfigError::Contradiction(sentence));
        let Some(cluster) = &self.initial_cluster else {
            let unreachable = self.peer.ip().is_unspecified() && self.advertise_peer.is_none();
            if unreachable {
                self.warnings.push(format!(
                    "--peer {} does not tell other nodes where this one is; give --advertise-peer",
                    self.peer
                ));
            }
            return Ok(self);
        };
        let list = given.at("initial-cluster");
        let Some(own) = cluster.get(&self.id) else {
            return refuse(format!("{list} does not name this node: {} is {}", given.at("id"), self.id.0));
        };
        match &self.advertise_peer {
            Some(advertised) if advertised != own => refuse(format!(
                "{list} has this node at {own}, but {} is {advertised}",
                given.at("advertise-peer")
            )),
            None if self.peer.port() != 0
                && own.rsplit(':').next() != Some(&self.peer.port().to_string()) =>
            {
                refuse(format!(
                    "{list} has this node at {own}, but {} is {}; if that is what you want, give --advertise-peer {own}",
                    given.at("peer"),
                    self.peer
                ))
            }
            Some(_) | None => {
                self.advertise_peer = Some(own.clone());
                Ok(self)
            }
        }
    }
}

/// Room in an entry beside the largest value.
const ENTRY_OVERHEAD_BYTES: usize = 64 << 10;

/// Everything that was given, strongest first won.
struct Given<'a> {
    values: BTreeMap<&'static str, (String, Origin)>,
    flags: &'a Flags,
}

impl<'a> Given<'a> {
    fn gather(
        flags: &'a Flags,
        environment: &BTreeMap<String, String>,
        file: Option<&File>,
    ) -> Result<Given<'a>, ConfigError> {
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                values.insert(setting.key, (default.to_owned(), Origin::Default));
            }
        }
        if let Some(file) = file {
            for (setting, line, text) in file.values()? {
                values.insert(setting.key, (text, Origin::File { path: file.path.clone(), line }));
            }
        }
        for setting in SETTINGS {
            // An empty variable is how many service managers say "not set".
            if let Some(text) = environment.get(&setting.variable()).filter(|text| !text.is_empty()) {
                values.insert(setting.key, (text.clone(), Origin::Environment));
            }
        }
        for (key, text) in flags {
            values.insert(key, (text.clone(), Origin::Flag));
        }
        Ok(Given { values, flags })
    }

    fn check_supported(&self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let Some((text, _)) = self.values.get(setting.key) else { continue };
            let refused = match setting.supported {
                Supported::Yes => false,
                Supported::Except(value) => text == value,
                Supported::No => setting.default != Some(text.as_str()),
            };
            if refused {
                let value = if setting.supported == Supported::No { "" } else { text };
                let at = format!("{} {value}", self.at(setting.key));
                return Err(ConfigError::NotSupported { at: at.trim_end().to_owned() });
            }
        }
        Ok(())
    }

    /// The setting's name the way the user wrote it.
    fn at(&self, key: &str) -> String {
        let name = || Setting::find(key).map_or_else(|| key.to_owned(), Setting::variable);
        match self.values.get(key).map(|(_, origin)| origin) {
            Some(Origin::File { path, line }) => format!("{}:{line}: {key}", path.display()),
            Some(Origin::Environment) => name(),
            Some(Origin::Flag | Origin::Default) | None => format!("--{key}"),
        }
    }

    fn bad(&self, key: &str, expected: &str) -> ConfigError {
        let secret = Setting::find(key).is_some_and(|setting| setting.kind == Kind::Secret);
        let value = match self.values.get(key) {
            Some((text, _)) if !secret => format!("{text:?}"),
            _ => "the value".to_owned(),
        };
        ConfigError::BadValue { at: self.at(key), value, expected: expected.to_owned() }
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.values.get(key) {
            None => Ok(None),
            Some((text, _)) => parse(text).map(Some).ok_or_else(|| self.bad(key, expected)),
        }
    }

    fn required<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.optional(key, expected, parse)?.ok_or_else(|| self.bad(key, expected))
    }

    fn switch(&self, key: &str) -> Result<bool, ConfigError> {
        self.required(key, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    fn choice<T>(&self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        let expected = Setting::find(key).map(Setting::expected).unwrap_or_default();
        self.required(key, &expected, parse)
    }

    fn millis(&self, key: &str) -> Result<u64, ConfigError> {
        self.required(key, "a whole number of milliseconds, 1 to 3600000", |text| {
            parse::number(text).filter(|millis| (1..=MILLIS_MAX).contains(millis))
        })
    }

    fn bytes(&self, key: &str) -> Result<u64, ConfigError> {
        self.required(key, BYTES, |text| parse::bytes(text).filter(|bytes| *bytes > 0))
    }

    fn length(&self, key: &str) -> Result<usize, ConfigError> {
        self.required(key, BYTES, |text| {
            parse::bytes(text).filter(|bytes| *bytes > 0).and_then(|bytes| usize::try_from(bytes).ok())
        })
    }

    fn cluster(&self) -> Result<Option<BTreeMap<NodeId, String>>, ConfigError> {
        let Some((text, _)) = self.values.get("initial-cluster") else { return Ok(None) };
        parse::cluster(text).map(Some).map_err(|expected| self.bad("initial-cluster", &expected))
    }

    fn table(&self) -> Vec<Row> {
        let row = |setting: &Setting| {
            let (value, origin) = match self.values.get(setting.key) {
                Some((text, origin)) => {
                    let shown = if setting.kind == Kind::Secret { MASK.to_owned() } else { text.clone() };
                    (Some(shown), origin.clone())
                }
                None if setting.key == "max-memory-bytes" => {
                    (Some(bytes_text(memory_bytes_default())), Origin::Default)
                }
                None => (None, Origin::Default),
            };
            Row { key: setting.key, value, origin }
        };
        debug_assert!(self.flags.keys().all(|key| Setting::find(key).is_some()), "a flag that is no setting");
        SETTINGS.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests;
