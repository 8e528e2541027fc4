//! The command line: subcommands and their flags. Those of `serve` come from the table of settings.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};

use crate::config::{Flags, Kind, SETTINGS, Supported};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "raft-node",
    version,
    about = "A durable replicated key-value store that speaks the Redis protocol",
    long_about = "A durable replicated key-value store that speaks the Redis protocol.\n\nWithout a subcommand it \
                  serves: a durable single node with its data in ./raft-data; flags of `serve` may be given.",
    subcommand_required = true
)]
pub(super) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Run a node
    Serve(ServeArgs),
    /// Run three nodes on this machine and watch them
    #[command(
        after_help = "On a terminal: k kills the leader (kill -9), r restarts it, q ends. Elsewhere a line is \
                            printed every second until SIGTERM."
    )]
    Demo {
        /// Where the three data directories are kept
        #[arg(long, value_name = "DIR", default_value = "./raft-demo")]
        dir: PathBuf,
        /// The first of the ports: three for each node, ten apart
        #[arg(long, value_name = "PORT", default_value_t = 7400, hide = true)]
        base_port: u16,
    },
    /// Show a running cluster
    Status {
        /// The node to ask; several, separated by commas, are tried in turn
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7401", value_delimiter = ',')]
        http: Vec<String>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Print the value of a key
    #[command(
        after_help = "The bytes are printed as they are; on a terminal a line feed follows. Exit code 1: there is no \
                      such key, 2: it did not work."
    )]
    Get {
        /// The key
        key: OsString,
        /// Where to ask
        #[command(flatten)]
        server: Server,
    },
    /// Set a key to a value
    #[command(
        after_help = "Exit code 2: it did not work and the value is not set, 3: whether it is set is not known."
    )]
    Set {
        /// The key
        key: OsString,
        /// The value
        value: OsString,
        /// Where to ask
        #[command(flatten)]
        server: Server,
    },
    /// Delete a key and print how many there were (0 or 1)
    #[command(
        after_help = "Exit code 2: it did not work and nothing is deleted, 3: whether it is deleted is not known."
    )]
    Del {
        /// The key
        key: OsString,
        /// Where to ask
        #[command(flatten)]
        server: Server,
    },
    /// Check a data directory that is not in use
    #[command(
        after_help = "Exit code 0: clean, 1: an unfinished write at the end (harmless), 2: damage, 3: not a \
                            data directory, 4: cannot be read or is in use, nothing concluded."
    )]
    Verify {
        /// The data directory
        dir: PathBuf,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Show the log of a data directory that is not in use
    #[command(
        after_help = "Every record is shown as it stands there, cut entries too; with --from or --to, entries alone. \
                            Exit code 2: something cannot be read (`verify` says what it means), 3: not a data \
                            directory, 4: cannot be read or is in use."
    )]
    Dump {
        /// The data directory
        dir: PathBuf,
        /// The first entry wanted
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
        /// The last entry wanted
        #[arg(long, value_name = "INDEX")]
        to: Option<u64>,
        /// For programs: an object a line
        #[arg(long)]
        json: bool,
    },
    /// Show or check the configuration
    #[command(disable_help_subcommand = true)]
    Config {
        /// What to do with it.
        #[command(subcommand)]
        task: ConfigTask,
    },
    /// Print a script that completes commands and flags in a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigTask {
    /// Say whether it is valid
    Check(ServeArgs),
    /// Show every setting in effect and where it came from
    Print(ServeArgs),
}

/// Where the Redis protocol is spoken.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The node to ask
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    pub resp: String,
    /// The password, if the server wants one
    #[arg(long, value_name = "PASSWORD", env = "RAFT_NODE_REQUIREPASS", hide_env_values = true)]
    pub password: Option<String>,
}

/// The flags of `serve`, which `config` takes too.
#[derive(Clone, Debug, Default)]
pub(super) struct ServeArgs {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The settings given, as text.
    pub flags: Flags,
    /// Set by `demo`: end when this process ends.
    pub parent: Option<u32>,
}

impl Args for ServeArgs {
    fn augment_args(mut command: Command) -> Command {
        command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .env("RAFT_NODE_CONFIG")
                    .hide_env(true)
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("Read settings from this TOML file"),
            )
            .arg(
                Arg::new("parent")
                    .long("end-with")
                    .value_name("PID")
                    .hide(true)
                    .value_parser(clap::value_parser!(u32)),
            )
            .after_help(
                "Each flag is also a key of the file (without the dashes in front) and a variable (--data-dir is \
                 RAFT_NODE_DATA_DIR). A flag is stronger than a variable, a variable stronger than the file.",
            );
        for setting in SETTINGS {
            let mut help = setting.help.to_owned();
            if let Some(default) = setting.default.filter(|_| setting.kind != Kind::Switch) {
                help += &format!(" [default: {default}]");
            }
            let mut arg = Arg::new(setting.key)
                .long(setting.key)
                .value_name(setting.value_name)
                .action(ArgAction::Set)
                .allow_hyphen_values(setting.kind == Kind::Number)
                .hide(setting.supported == Supported::No)
                .help(help);
            if setting.kind == Kind::Switch {
                // `--insecure` and `--insecure=false`, so that a flag can also take back what the file says.
                arg = arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .hide_possible_values(true);
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServeArgs, clap::Error> {
        let mut args = ServeArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.parent = matches.get_one::<u32>("parent").copied();
        for setting in SETTINGS {
            if matches.value_source(setting.key) == Some(ValueSource::CommandLine)
                && let Some(text) = matches.get_one::<String>(setting.key)
            {
                self.flags.insert(setting.key, text.clone());
            }
        }
        Ok(())
    }
}

/// Puts `serve` where a subcommand is missing: nothing is given, or flags only.
#[must_use]
pub(super) fn with_default_task(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let serve = match arguments.get(1).map(|first| first.to_string_lossy()) {
        None => true,
        Some(first) => first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&&*first),
    };
    if serve {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> CommandLine {
        let words = std::iter::once("raft-node").chain(line.split_whitespace()).map(OsString::from);
        CommandLine::try_parse_from(with_default_task(words))
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        for (line, id) in [("", None), ("--id 3", Some("3")), ("serve --id 4", Some("4"))] {
            let Task::Serve(args) = parse(line).command else { panic!("{line:?} does not serve") };
            assert_eq!(args.flags.get("id").map(String::as_str), id);
        }
    }

    #[test]
    fn switches_take_no_value_or_one_after_an_equals_sign() {
        for (line, value) in
            [("--insecure", "true"), ("--insecure=false", "false"), ("--insecure --id 2", "true")]
        {
            let Task::Serve(args) = parse(line).command else { panic!("{line:?} does not serve") };
            assert_eq!(args.flags["insecure"], value, "{line}");
        }
    }

    #[test]
    fn only_what_was_given_is_a_flag() {
        let Task::Serve(args) = parse("serve --resp 127.0.0.1:1").command else { panic!("does not serve") };
        assert_eq!(args.flags.keys().copied().collect::<Vec<_>>(), ["resp"]);
    }
}
