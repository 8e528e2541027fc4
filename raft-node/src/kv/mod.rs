//! The built-in state machine: a durable, replicated key-value store that speaks Redis.
//!
//! ```text
//! words of a command ── table ──► class ──┬─ write ──► validate ──► request ──► the log ──► Kv::apply ──► reply
//!                                         └─ read ───────────────────────────────────────► Kv::query ──► reply
//! ```
//! To see what a command does, start at `write` or `read`; how keys lie in memory is in `store`, `bank`, `heap` and
//! `record`.

mod bank;
mod deadlines;
pub mod glob;
mod hash;
mod heap;
mod lcs;
mod number;
mod page;
mod read;
mod record;
pub mod reply;
pub mod request;
mod scan;
mod sessions;
mod snapshot;
mod store;
pub mod table;
mod transaction;
pub(crate) mod varint;
mod write;

use std::{
    fmt, io,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use raft_core::{LogIndex, Timestamp};

pub use self::{
    reply::{Protocol, Reply},
    request::Request,
    sessions::{REPLIES_MAX, SESSION_IDLE_MILLIS_MAX, SESSIONS_MAX},
    table::{Class, Spec, Verb, classify},
};
use self::{
    sessions::{Sessions, Turn},
    snapshot::{Frozen, Thawed},
    store::Store,
    write::{Context, Write},
};
use crate::state_machine::{Command, RestoreError, SnapshotView, StateMachine};

/// The key-value store.
///
/// Nothing about it can be configured, as what one node is told another would not know.
///
/// - Invariant: `time` is the time of the last entry applied, and never goes back.
/// - Invariant: nothing in here looks at a clock. A key is gone when replicated time has reached its deadline; until
///   an entry removes it, it is hidden.
pub struct Kv {
    store: Store,
    sessions: Sessions,
    time: Timestamp,
    applied: LogIndex,
    /// Makes `RANDOMKEY` differ from call to call. Only outside the log: no part of the state.
    queries: AtomicU64,
}

impl Kv {
    /// An empty store, before the first entry.
    #[must_use]
    pub fn new() -> Kv {
        Kv {
            store: Store::new(),
            sessions: Sessions::default(),
            time: Timestamp::default(),
            applied: LogIndex::ZERO,
            queries: AtomicU64::new(0),
        }
    }

    /// Answers a command that only reads, at replicated time. Anything else gets an error.
    #[must_use]
    pub fn query(&self, args: &[Bytes]) -> Reply {
        self.query_at(args, || self.time)
    }

    /// As [`query`](Self::query). How long a key has still to live counts from `clock`, if that is later: replicated time
    /// stands still while nothing is written.
    #[must_use]
    pub fn query_at(&self, args: &[Bytes], clock: impl Fn() -> Timestamp) -> Reply {
        let spec = match table::check(args) {
            Ok(spec) => spec,
            Err(error) => return error,
        };
        let mut few = [&[][..]; FEW_WORDS];
        let many: Vec<&[u8]>;
        let words = if let Some(few) = few.get_mut(..args.len()) {
            few.iter_mut().zip(args).for_each(|(word, arg)| *word = arg);
            &*few
        } else {
            many = args.iter().map(AsRef::as_ref).collect();
            &many
        };
        let random =
            if spec.verb == Verb::Randomkey { self.queries.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let counts_down = matches!(spec.verb, Verb::Ttl | Verb::Pttl);
        let clock = if counts_down { self.time.max(clock()) } else { self.time };
        read::Reader { clock, ..self.reader(random) }.answer(spec, words)
    }

    /// The value of a key, if it has one.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<Bytes> {
        self.store.value(key, self.time)
    }

    /// The entry that changed a key last, for `WATCH`. If it is not there, an entry not before the one that removed
    /// it.
    #[must_use]
    pub fn modification_index(&self, key: &[u8]) -> LogIndex {
        self.store.modification_index(key, self.time)
    }

    /// When the next key expires. Once the leader's clock has passed it, an entry is due that says so.
    #[must_use]
    pub fn earliest_deadline(&self) -> Option<Timestamp> {
        self.store.earliest_deadline()
    }

    /// Whether a key that is still seen has a deadline that `clock` has reached: replicated time is behind by that much.
    #[must_use]
    pub fn is_behind(&self, clock: Timestamp) -> bool {
        self.store.deadline_after(self.time).is_some_and(|deadline| deadline <= clock)
    }

    /// Replicated time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// What there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            keys: self.store.len(self.time),
            expiring: self.store.expiring(),
            size_bytes: self.store.size_bytes(),
            sessions: self.sessions.len(),
            time: self.time,
        }
    }

    /// A number that is equal for equal states, to compare nodes by. Looks at every record.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = bytes::BytesMut::new();
        self.sessions.encode(&mut bytes);
        for number in [self.time.0, self.applied.0] {
            varint::put(number, &mut bytes);
        }
        for shard in 0..bank::SHARDS {
            bytes::BufMut::put_u64(&mut bytes, self.store.fingerprint(shard));
        }
        hash::hash(&bytes)
    }

    fn reader(&self, random: u64) -> read::Reader<'_> {
        let random = hash::hash(&(self.applied.0 ^ random.rotate_left(32)).to_le_bytes());
        read::Reader { store: &self.store, now: self.time, clock: self.time, random }
    }

    fn apply_one(&mut self, command: &Command) -> Bytes {
        assert!(command.index > self.applied, "entry {} was applied after {}", command.index, self.applied);
        self.applied = command.index;
        // An entry whose leader's clock was behind changes nothing about what is due.
        self.time = self.time.max(command.time);
        let request = Request::decode(&command.payload);
        let due_max = if request == Ok(Request::Tick) { DUE_PER_TICK } else { DUE_PER_ENTRY };
        self.store.remove_due(self.time, due_max, self.applied);

        let Some(id) = command.session else { return self.execute(request).to_carried() };
        match self.sessions.begin(id, self.time) {
            Turn::Execute => {
                let reply = self.execute(request).to_carried();
                self.sessions.keep(id, &reply);
                reply
            }
            Turn::Done(reply) => reply,
            Turn::Refused(reply) => reply.to_carried(),
        }
    }

    fn execute(&mut self, request: Result<Request<'_>, request::RequestError>) -> Reply {
        match request {
            Ok(Request::Command(words)) => self.write(&words).unwrap_or_else(|error| error),
            Ok(Request::Exec { watched, commands }) => self.transaction(&watched, &commands),
            // Whoever asked learns what the leader's clock shows.
            Ok(Request::Tick) => Reply::Integer(i64::try_from(self.time.0).unwrap_or(i64::MAX)),
            Ok(Request::OpenSession) => self.sessions.open(self.applied, self.time),
            Err(error) => Reply::error_text(format!("ERR {error}")),
        }
    }

    fn write(&mut self, words: &[&[u8]]) -> Result<Reply, Reply> {
        let spec = table::check(words)?;
        let context = Context { index: self.applied, now: self.time };
        Ok(Write::parse(spec, words)?.apply(&mut self.store, context))
    }
}

impl StateMachine for Kv {
    fn apply(&mut self, batch: &[Command]) -> Vec<Bytes> {
        batch.iter().map(|command| self.apply_one(command)).collect()
    }

    fn view(&self) -> Box<dyn SnapshotView> {
        Box::new(Frozen {
            time: self.time,
            applied: self.applied,
            sessions: self.sessions.clone(),
            banks: self.store.share(),
        })
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> Result<(), RestoreError> {
        let Thawed { time, applied, sessions, store } = Thawed::read(from)?;
        *self = Kv { store, sessions, time, applied, queries: AtomicU64::new(0) };
        Ok(())
    }
}

impl Default for Kv {
    fn default() -> Kv {
        Kv::new()
    }
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kv").field("applied", &self.applied).field("stats", &self.stats()).finish()
    }
}

/// Finds mistakes in a command before it is proposed: an unknown name, a wrong number of arguments and, in a command
/// that writes, whatever can be told from its words.
///
/// # Errors
/// The reply to give instead.
pub fn validate(args: &[Bytes]) -> Result<&'static Spec, Reply> {
    let spec = table::check(args)?;
    if spec.class() == Class::Write {
        let words: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        Write::parse(spec, &words)?;
    }
    Ok(spec)
}

/// What is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that are seen.
    pub keys: usize,
    /// Keys with a deadline.
    pub expiring: usize,
    /// The memory of keys, values and tables, closely estimated.
    pub size_bytes: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Replicated time.
    pub time: Timestamp,
}

/// The longest key.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// The longest value. The same at every node, as `APPEND` and `SETRANGE` are judged by it when they are applied.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many due keys an entry removes beside what it is for, and how many one that is for nothing else.
const DUE_PER_ENTRY: usize = 16;
const DUE_PER_TICK: usize = 1024;

/// Commands of up to this many words are read without an allocation.
const FEW_WORDS: usize = 8;

#[cfg(test)]
mod tests;
