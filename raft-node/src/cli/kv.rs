//! `get`, `set` and `del`: for machines without a Redis client.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal as _},
    os::unix::ffi::OsStrExt as _,
};

use super::{
    args::Server,
    exit::{Failure, print},
    resp_client::{Client, Reply},
    terminal::harmless,
};

/// There is no such key.
const NO_SUCH_KEY: u8 = 1;
/// It did not work, and nothing was changed.
const NOT_DONE: u8 = 2;
/// It may have been done or not.
const OUTCOME_UNKNOWN: u8 = 3;

pub(super) fn get(server: &Server, key: &OsStr) -> Result<(), Failure> {
    match ask(server, &[b"GET", key.as_bytes()], Effect::None)? {
        Reply::Bulk(mut value) => {
            if io::stdout().is_terminal() {
                value.push(b'\n');
            }
            print(value)
        }
        Reply::Nil => {
            let key = harmless(&key.to_string_lossy());
            Err(Failure::with_code(NO_SUCH_KEY, format_args!("there is no key {key:?}")))
        }
        other @ (Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_)) => Err(unexpected(&other)),
    }
}

pub(super) fn set(server: &Server, key: &OsStr, value: &OsStr) -> Result<(), Failure> {
    let reply = ask(server, &[b"SET", key.as_bytes(), value.as_bytes()], Effect::Change)?;
    if let Reply::Simple(text) = reply { print(harmless(&text) + "\n") } else { Err(unexpected(&reply)) }
}

pub(super) fn del(server: &Server, key: &OsStr) -> Result<(), Failure> {
    let reply = ask(server, &[b"DEL", key.as_bytes()], Effect::Change)?;
    if let Reply::Integer(count) = reply { print(format!("{count}\n")) } else { Err(unexpected(&reply)) }
}

/// Whether a command that got no answer may have changed something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Change,
}

/// The answer, unless it is an error.
fn ask(server: &Server, words: &[&[u8]], effect: Effect) -> Result<Reply, Failure> {
    let not_done = |error: &dyn std::fmt::Display| {
        Failure::with_code(NOT_DONE, format_args!("cannot ask {}: {error}", server.resp))
    };
    let mut client = Client::connect(&server.resp).map_err(|error| not_done(&error))?;
    if let Some(password) = &server.password {
        let reply = client.ask(&[b"AUTH", password.as_bytes()]).map_err(|error| not_done(&error))?;
        if let Reply::Error(text) = reply {
            return Err(not_done(&harmless(&text)));
        }
    }
    match client.ask(words) {
        Ok(Reply::Error(text)) => {
            let code = if text.starts_with("UNKNOWN") { OUTCOME_UNKNOWN } else { NOT_DONE };
            Err(Failure::with_code(code, harmless(&text)))
        }
        Ok(reply) => Ok(reply),
        // The command may have arrived before the connection broke.
        Err(error) if effect == Effect::Change => Err(Failure::with_code(
            OUTCOME_UNKNOWN,
            format_args!("{} did not answer, whether it was done is not known: {error}", server.resp),
        )),
        Err(error) => Err(not_done(&error)),
    }
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::with_code(NOT_DONE, format_args!("unexpected answer: {reply:?}"))
}
