//! Tests of the whole store: what each command answers, and what must hold for all of them together.

mod commands;
mod memory;
mod model;
mod redis;
mod replication;
mod reply_size;
mod scanning;

use bytes::Bytes;
use raft_core::{LogIndex, Timestamp};

use super::{Kv, Reply, request};
use crate::state_machine::{Command, StateMachine};

/// A store with a log of its own: commands go the way they go in a cluster, encoded and decoded.
struct Lab {
    kv: Kv,
    index: u64,
    time: u64,
}

impl Lab {
    fn new() -> Lab {
        Lab { kv: Kv::new(), index: 0, time: 1_700_000_000_000 }
    }

    /// What a client would be answered, in one line.
    fn ask(&mut self, command: &str) -> String {
        show(&self.run(&words(command)))
    }

    fn run(&mut self, args: &[Bytes]) -> Reply {
        match super::validate(args).map(super::Spec::class) {
            Err(error) => error,
            Ok(super::Class::Read) => self.kv.query(args),
            Ok(_) => self.propose(request::encode_command(args)),
        }
    }

    /// Applies a payload, whatever it is.
    fn propose(&mut self, payload: Bytes) -> Reply {
        let command = self.next(payload);
        Reply::decode(&self.kv.apply(&[command])[0]).unwrap()
    }

    fn next(&mut self, payload: Bytes) -> Command {
        self.index += 1;
        Command { index: LogIndex(self.index), time: Timestamp(self.time), session: None, payload }
    }

    /// Runs commands, given one a line, as one transaction.
    fn exec(&mut self, watched: &[(Bytes, LogIndex)], commands: &str) -> String {
        let commands: Vec<Vec<Bytes>> = commands.lines().map(|line| words(line.trim())).collect();
        show(&self.propose(request::encode_exec(watched, &commands)))
    }

    fn watch(&self, key: &str) -> (Bytes, LogIndex) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let index = self.kv.modification_index(&key);
        (key, index)
    }

    fn tick(&mut self, millis: u64) {
        self.time += millis;
        self.propose(request::encode_tick());
    }

    /// Checks lines of `command -> answer`.
    fn check(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, expected) = line.split_once(" -> ").unwrap();
            assert_eq!(self.ask(command.trim()), expected, "{command}");
        }
    }
}

/// Words between spaces; `""` is the empty one.
fn words(command: &str) -> Vec<Bytes> {
    command
        .split_ascii_whitespace()
        .map(|word| if word == "\"\"" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) })
        .collect()
}

fn show(reply: &Reply) -> String {
    let list = |items: &[Reply]| format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "));
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Simple(line) => text(line),
        Reply::Error(line) => format!("({})", text(line)),
        Reply::Integer(value) => value.to_string(),
        Reply::Bulk(value) => format!("\"{}\"", text(value).replace('\0', "\\0")),
        Reply::Null => "nil".into(),
        Reply::NullArray => "no array".into(),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => list(items),
        Reply::Map(pairs) => {
            list(&pairs.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect::<Vec<_>>())
        }
        Reply::Double(value) => value.to_string(),
        Reply::Bool(value) => value.to_string(),
        Reply::BigNumber(value) | Reply::Verbatim(_, value) => text(value),
    }
}
