//! Every setting there is, once: flags, file keys, environment variables, defaults and help all come from this table.

/// One setting of a node.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name: the key in the file, the flag with `--` before it.
    pub key: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// The value it has when nobody gives one, as it would be written.
    pub default: Option<&'static str>,
    /// What stands for the value in help texts.
    pub value_name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Whether this release can do it. Settings of later releases are recognised and refused by name.
    pub supported: Supported,
}

/// What the values of a setting look like. The file is strict about types, flags and variables are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number,
    /// A whole number of milliseconds.
    Millis,
    /// A number of bytes, or text like `64MiB`.
    Bytes,
    /// `true` or `false`; as a flag it needs no value.
    Switch,
    /// Text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Text that is never shown.
    Secret,
    /// Text, or in the file also an array of texts.
    List,
}

/// Whether this release can do what a setting asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supported {
    /// Yes.
    Yes,
    /// Not with this value.
    Except(&'static str),
    /// Only what it does by default.
    No,
}

impl Setting {
    const fn new(
        key: &'static str,
        kind: Kind,
        default: Option<&'static str>,
        value_name: &'static str,
        help: &'static str,
    ) -> Setting {
        Setting { key, kind, default, value_name, help, supported: Supported::Yes }
    }

    const fn later(mut self) -> Setting {
        self.supported = Supported::No;
        self
    }

    const fn except(mut self, value: &'static str) -> Setting {
        self.supported = Supported::Except(value);
        self
    }

    /// The flag: `--data-dir`.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.key)
    }

    /// The environment variable: `RAFT_NODE_DATA_DIR`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.replace('-', "_").to_ascii_uppercase())
    }

    /// What a value should have been, to end the sentence "expected …".
    #[must_use]
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Number => "a whole number".to_owned(),
            Kind::Millis => "a whole number of milliseconds".to_owned(),
            Kind::Bytes => "a number of bytes or a size like 64MiB".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Text | Kind::Secret => "text".to_owned(),
            Kind::Choice(values) => format!("one of {}", values.join(", ")),
            Kind::List => "text, or an array of texts".to_owned(),
        }
    }

    /// The setting called `key`.
    #[must_use]
    pub fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

/// What the name of every variable begins with.
pub const VARIABLE_PREFIX: &str = "RAFT_NODE_";
/// Names the configuration file when `--config` does not.
pub const CONFIG_VARIABLE: &str = "RAFT_NODE_CONFIG";

/// All settings, in the order people read them.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "id",
        Kind::Number,
        Some("1"),
        "N",
        "This node's number; never changes for a data directory",
    ),
    Setting::new(
        "data-dir",
        Kind::Text,
        Some("./raft-data"),
        "DIR",
        "Where everything is kept; made if missing",
    ),
    Setting::new("resp", Kind::Text, Some("127.0.0.1:7400"), "ADDR", "Listen here for Redis clients"),
    Setting::new(
        "http",
        Kind::Text,
        Some("127.0.0.1:7401"),
        "ADDR",
        "Listen here for health, metrics and status",
    ),
    Setting::new("peer", Kind::Text, Some("127.0.0.1:7402"), "ADDR", "Listen here for the other nodes"),
    Setting::new(
        "advertise-resp",
        Kind::Text,
        None,
        "ADDR",
        "Where clients reach this node, if not at --resp",
    ),
    Setting::new("advertise-http", Kind::Text, None, "ADDR", "Where operators reach it, if not at --http"),
    Setting::new(
        "advertise-peer",
        Kind::Text,
        None,
        "ADDR",
        "Where the other nodes reach it, if not at --peer",
    ),
    Setting::new(
        "initial-cluster",
        Kind::List,
        None,
        "ID=HOST:PORT,…",
        "The founding nodes and their peer addresses; the same list on each of them",
    ),
    Setting::new("join", Kind::Text, None, "ADDR", "Join the cluster of the node at this address").later(),
    Setting::new("insecure", Kind::Switch, Some("false"), "BOOL", "Permit plaintext beyond this machine"),
    Setting::new(
        "verify-on-open",
        Kind::Switch,
        Some("false"),
        "BOOL",
        "Check the whole log before starting",
    ),
    Setting::new(
        "cluster-redirect",
        Kind::Choice(&["auto", "always", "never"]),
        Some("auto"),
        "WHEN",
        "Whether clients that can be are sent to the leader: auto or never",
    )
    .except("always"),
    Setting::new("readonly-pass", Kind::Secret, None, "PASSWORD", "A password that permits reading only")
        .later(),
    Setting::new("resp-tls", Kind::Switch, Some("false"), "BOOL", "Expect TLS from clients").later(),
    Setting::new(
        "heartbeat-ms",
        Kind::Millis,
        Some("100"),
        "MS",
        "A leader is heard from at least this often",
    ),
    Setting::new(
        "election-timeout-ms",
        Kind::Millis,
        Some("500"),
        "MS",
        "The shortest wait for a leader before electing another; the longest is twice that",
    ),
    Setting::new("segment-bytes", Kind::Bytes, Some("64MiB"), "SIZE", "Size of one file of the log"),
    Setting::new(
        "snapshot-log-bytes",
        Kind::Bytes,
        Some("64MiB"),
        "SIZE",
        "Take a snapshot once the log exceeds this and twice the last snapshot",
    ),
    Setting::new("max-entry-bytes", Kind::Bytes, Some("32MiB"), "SIZE", "The largest transaction or MSET"),
    Setting::new("max-value-bytes", Kind::Bytes, Some("16MiB"), "SIZE", "The largest value"),
    Setting::new(
        "max-memory-bytes",
        Kind::Bytes,
        None,
        "SIZE",
        "Refuse writes past this much memory [default: 75 % of what there is]",
    ),
    Setting::new("requirepass", Kind::Secret, None, "PASSWORD", "The password clients have to give"),
    Setting::new("tls-cert", Kind::Text, None, "FILE", "This node's certificate").later(),
    Setting::new("tls-key", Kind::Text, None, "FILE", "Its private key").later(),
    Setting::new("tls-ca", Kind::Text, None, "FILE", "Whose certificates are trusted").later(),
    Setting::new(
        "log-format",
        Kind::Choice(&["text", "json"]),
        Some("text"),
        "FORMAT",
        "How log lines look: text or json",
    ),
    Setting::new(
        "log-level",
        Kind::Text,
        Some("info"),
        "LEVEL",
        "error, warn, info, debug or trace, also per module: info,raft_net=debug",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_kebab_case() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
        for key in keys {
            assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{key}");
        }
    }

    #[test]
    fn variables_are_upper_case() {
        assert_eq!(Setting::find("data-dir").unwrap().variable(), "RAFT_NODE_DATA_DIR");
    }
}
