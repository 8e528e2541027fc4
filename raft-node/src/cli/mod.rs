//! The command line tools of the binary. [`run`] is all that `main` calls.

mod args;
pub mod banner;
mod config_tasks;
mod demo;
mod dump;
mod exit;
mod http_client;
mod kv;
mod packaging;
mod resp_client;
mod serve;
mod signals;
mod status;
mod terminal;
mod verify;

use std::{collections::BTreeMap, ffi::OsString, process::ExitCode};

use clap::Parser as _;

use args::{CommandLine, ServeArgs, Task};
use exit::Failure;

use crate::config::{self, Config, File, VARIABLE_PREFIX};

/// Does what the command line says and returns the process's exit code. Everything that can go wrong has been said on
/// standard error.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command_line = match CommandLine::try_parse_from(args::with_default_task(arguments)) {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version are no errors: they go to standard output.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let done = match command_line.command {
        Task::Serve(args) => serve::run(&args),
        Task::Demo { dir, base_port } => demo::run(&dir, base_port),
        Task::Status { http, json } => status::run(&http, json),
        Task::Get { key, server } => kv::get(&server, &key),
        Task::Set { key, value, server } => kv::set(&server, &key, &value),
        Task::Del { key, server } => kv::del(&server, &key),
        Task::Verify { dir, json } => verify::run(&dir, json),
        Task::Dump { dir, from, to, json } => dump::run(&dir, dump::Range { from, to }, json),
        Task::Config { task } => config_tasks::run(&task),
        Task::Completion { shell } => packaging::completion(shell),
        Task::Man => packaging::man(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The configuration that the flags, this process's environment and the file make.
fn load_config(args: &ServeArgs) -> Result<Config, Failure> {
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        // What is no text is no valid value either: the replacement character makes the refusal visible.
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    let file = args.config.as_deref().map(File::read).transpose()?;
    Ok(config::load(&args.flags, &environment, file.as_ref())?)
}
