//! `EXEC`: several commands under one index, if no watched key has changed.

use raft_core::LogIndex;

use super::{Class, Kv, Reply, Verb, table, write::is};

impl Kv {
    /// Runs all of the commands, or none.
    ///
    /// A watched key has changed if its modification index is not the one it had when it was watched. A command that
    /// fails gives its error as its element, and the others are run: as in Redis, there is no rolling back.
    pub(super) fn transaction(&mut self, watched: &[(&[u8], LogIndex)], commands: &[Vec<&[u8]>]) -> Reply {
        // A key that is due but was not removed yet has changed: it is gone. Removed, it shows that by its index.
        for (key, _) in watched {
            self.store.remove_if_due(key, self.time, self.applied);
        }
        if watched.iter().any(|(key, index)| self.modification_index(key) != *index) {
            return Reply::NullArray;
        }
        let mut step = 0;
        let run = |words: &Vec<&[u8]>| {
            step += 1;
            self.run(words, step).unwrap_or_else(|error| error)
        };
        Reply::Array(commands.iter().map(run).collect())
    }

    fn run(&mut self, words: &[&[u8]], step: u64) -> Result<Reply, Reply> {
        let spec = table::check(words)?;
        match spec.class() {
            Class::Write => self.write(words),
            Class::Read => Ok(self.reader(step).answer(spec, words)),
            Class::Connection => self.plain(spec.verb, words),
        }
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
