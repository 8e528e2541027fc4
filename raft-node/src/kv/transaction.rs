//! `EXEC`: several commands under one index, if no watched key has changed.

use raft_core::LogIndex;

use super::{
    Class, Kv, Reply, VALUE_BYTES_MAX, Verb,
    number::integer,
    reply::{REPLIES_BYTES_MAX, TOO_LARGE_TOGETHER},
    table,
    write::is,
};

/// How many bytes of values the commands of one transaction may copy or fill: the store does not grow by more at once than
/// can be watched, and no node stands still for long.
const COPIED_BYTES_MAX: usize = 512 << 20;

const TOO_MUCH_COPIED: Reply =
    Reply::error("ERR the transaction would copy more than 512 MiB of values: this command was not run");

impl Kv {
    /// Runs all of the commands, or none.
    ///
    /// A watched key has changed if its modification index is not the one it had when it was watched. A command that
    /// fails gives its error as its element, and the others are run: as in Redis, there is no rolling back. So does one
    /// whose reply would make all of them too large: it is not run, since every node would have to hold them at once, and
    /// again whenever it replays the log.
    pub(super) fn transaction(&mut self, watched: &[(&[u8], LogIndex)], commands: &[Vec<&[u8]>]) -> Reply {
        // A key that is due but was not removed yet has changed: it is gone. Removed, it shows that by its index.
        for (key, _) in watched {
            self.store.remove_if_due(key, self.time, self.applied);
        }
        if watched.iter().any(|(key, index)| self.modification_index(key) != *index) {
            return Reply::NullArray;
        }
        let (mut step, mut left, mut copied) = (0, REPLIES_BYTES_MAX, 0);
        let run = |words: &Vec<&[u8]>| {
            step += 1;
            copied += self.copied_bytes(words);
            if copied > COPIED_BYTES_MAX {
                return TOO_MUCH_COPIED;
            }
            let reply = self.run(words, step, left).unwrap_or_else(|error| error);
            left = left.saturating_sub(reply.size_bytes());
            reply
        };
        Reply::Array(commands.iter().map(run).collect())
    }

    /// Runs one of them, if its reply has at most about `room` bytes.
    fn run(&mut self, words: &[&[u8]], step: u64, room: usize) -> Result<Reply, Reply> {
        let spec = table::check(words)?;
        match spec.class() {
            Class::Write if self.old_value_bytes(spec.verb, words) > room => Err(TOO_LARGE_TOGETHER),
            Class::Write => self.write(words),
            Class::Read => {
                let reply = self.reader(step).answer(spec, words);
                if reply.size_bytes() > room { Err(TOO_LARGE_TOGETHER) } else { Ok(reply) }
            }
            Class::Connection => self.plain(spec.verb, words),
        }
    }

    /// How much a write copies or fills beyond what it brings along, at most.
    fn copied_bytes(&self, words: &[&[u8]]) -> usize {
        let length = |key| self.store.get(key, self.time).map_or(0, |view| view.value.len());
        let verb = words.first().and_then(|name| table::lookup(name)).map(|spec| spec.verb);
        match (verb, words) {
            (Some(Verb::Append | Verb::Copy), [_, key, ..]) => length(key),
            (Some(Verb::Setrange), [_, key, offset, _]) => {
                let end = integer(offset).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
                length(key).max(end.min(VALUE_BYTES_MAX))
            }
            _ => 0,
        }
    }

    /// How much of the value before a write answers, at most.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the others answer with a number or a status")]
    fn old_value_bytes(&self, verb: Verb, words: &[&[u8]]) -> usize {
        let key = match (verb, words) {
            (Verb::Set, [_, key, _, options @ ..]) if options.iter().any(|option| is(option, "GET")) => key,
            (Verb::Getset | Verb::Getdel | Verb::Getex, [_, key, ..]) => key,
            _ => return 0,
        };
        self.store.get(key, self.time).map_or(0, |view| view.value.len())
    }

    /// The few commands that touch no key and yet make sense in the middle of a transaction.
    #[allow(clippy::wildcard_enum_match_arm, reason = "everything else is refused")]
    fn plain(&self, verb: Verb, words: &[&[u8]]) -> Result<Reply, Reply> {
        match (verb, words) {
            (Verb::Ping, [_]) => Ok(Reply::simple("PONG")),
            (Verb::Ping | Verb::Echo, [_, text]) => Ok(Reply::bulk(text)),
            (Verb::Ping, _) => Err(table::wrong_arity("ping")),
            (Verb::Select, [_, number]) if is(number, "0") => Ok(Reply::OK),
            (Verb::Select, _) => Err(Reply::error("ERR DB index is out of range")),
            (Verb::Time, _) => Ok(Reply::Array(vec![
                Reply::bulk((self.time.0 / 1000).to_string()),
                Reply::bulk((self.time.0 % 1000 * 1000).to_string()),
            ])),
            _ => Err(Reply::error_text(format!(
                "ERR '{}' is not allowed inside a transaction",
                verb.spec().name
            ))),
        }
    }
}
