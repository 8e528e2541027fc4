//! `completion` and `man`: what a package installs beside the binary, made from the command line's own definition.

use clap::{Command, CommandFactory as _};

use super::{
    args::CommandLine,
    exit::{Failure, print},
};

pub(super) fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "raft-node", &mut text);
    print(text)
}

/// One page: the command, and then each subcommand.
pub(super) fn man() -> Result<(), Failure> {
    let mut command = CommandLine::command();
    command.build();
    let mut text = Vec::new();
    let made = clap_mangen::Man::new(command.clone()).render(&mut text).and_then(|()| {
        subcommands(&command).into_iter().try_for_each(|(name, subcommand)| {
            use std::io::Write as _;
            writeln!(text, ".SH \"{}\"", name.to_uppercase())?;
            let page = clap_mangen::Man::new(subcommand);
            page.render_description_section(&mut text)?;
            page.render_options_section(&mut text)
        })
    });
    made.map_err(|error| Failure::new(format_args!("cannot make the manual page: {error}")))?;
    print(text)
}

/// Every subcommand that has none of its own, with its full name.
fn subcommands(command: &Command) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let inner = subcommands(subcommand);
        if inner.is_empty() {
            found.push((subcommand.get_name().to_owned(), subcommand.clone()));
        }
        found.extend(
            inner.into_iter().map(|(name, inner)| (format!("{} {name}", subcommand.get_name()), inner)),
        );
    }
    found
}
