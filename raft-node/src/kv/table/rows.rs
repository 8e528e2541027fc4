//! The rows of the command table: one line for each command that is served.

use super::{Flags, Group, Keys, Spec, Verb};

const NONE: Flags = Flags::NONE;
const WRITE: Flags = Flags::WRITE;
const READONLY: Flags = Flags::READONLY;
const DENYOOM: Flags = Flags::DENYOOM;
const FAST: Flags = Flags::FAST;
const LOADING: Flags = Flags::LOADING;
const STALE: Flags = Flags::STALE;
const ADMIN: Flags = Flags::ADMIN;
const NOSCRIPT: Flags = Flags::NOSCRIPT;
const NO_AUTH: Flags = Flags::NO_AUTH;
const ALLOW_BUSY: Flags = Flags::ALLOW_BUSY;

const NO_KEYS: (u8, i8, u8) = (0, 0, 0);
const ONE_KEY: (u8, i8, u8) = (1, 1, 1);
const ALL_KEYS: (u8, i8, u8) = (1, -1, 1);

/// The version our own commands came with.
const OWN: &str = "0.1.0";

/// Every command, in the order of [`Verb`].
#[rustfmt::skip] // one line a command: it is read as a table
pub(super) const ROWS: [Spec; Verb::COUNT] = [
    // Writes: proposed to the log.
    row(Verb::Set, "set", -3, WRITE.with(DENYOOM), ONE_KEY, Group::String, "1.0.0", "Set the string value of a key"),
    row(Verb::Setnx, "setnx", 3, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "1.0.0", "Set the value of a key, only if the key does not exist"),
    row(Verb::Setex, "setex", 4, WRITE.with(DENYOOM), ONE_KEY, Group::String, "2.0.0", "Set the value and expiration of a key"),
    row(Verb::Psetex, "psetex", 4, WRITE.with(DENYOOM), ONE_KEY, Group::String, "2.6.0", "Set the value and expiration in milliseconds of a key"),
    row(Verb::Getset, "getset", 3, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "1.0.0", "Set the string value of a key and return its old value"),
    row(Verb::Getdel, "getdel", 2, WRITE.with(FAST), ONE_KEY, Group::String, "6.2.0", "Get the value of a key and delete the key"),
    row(Verb::Getex, "getex", -2, WRITE.with(FAST), ONE_KEY, Group::String, "6.2.0", "Get the value of a key and optionally set its expiration"),
    row(Verb::Mset, "mset", -3, WRITE.with(DENYOOM), (1, -1, 2), Group::String, "1.0.1", "Set multiple keys to multiple values"),
    row(Verb::Msetnx, "msetnx", -3, WRITE.with(DENYOOM), (1, -1, 2), Group::String, "1.0.1", "Set multiple keys to multiple values, only if none of the keys exist"),
    row(Verb::Incr, "incr", 2, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "1.0.0", "Increment the integer value of a key by one"),
    row(Verb::Incrby, "incrby", 3, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "1.0.0", "Increment the integer value of a key by the given amount"),
    row(Verb::Incrbyfloat, "incrbyfloat", 3, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "2.6.0", "Increment the float value of a key by the given amount"),
    row(Verb::Decr, "decr", 2, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "1.0.0", "Decrement the integer value of a key by one"),
    row(Verb::Decrby, "decrby", 3, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "1.0.0", "Decrement the integer value of a key by the given number"),
    row(Verb::Append, "append", 3, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, "2.0.0", "Append a value to a key"),
    row(Verb::Setrange, "setrange", 4, WRITE.with(DENYOOM), ONE_KEY, Group::String, "2.2.0", "Overwrite part of a string at key starting at the specified offset"),
    row(Verb::Del, "del", -2, WRITE, ALL_KEYS, Group::Generic, "1.0.0", "Delete a key"),
    row(Verb::Unlink, "unlink", -2, WRITE.with(FAST), ALL_KEYS, Group::Generic, "4.0.0", "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking"),
    row(Verb::Expire, "expire", -3, WRITE.with(FAST), ONE_KEY, Group::Generic, "1.0.0", "Set a key's time to live in seconds"),
    row(Verb::Pexpire, "pexpire", -3, WRITE.with(FAST), ONE_KEY, Group::Generic, "2.6.0", "Set a key's time to live in milliseconds"),
    row(Verb::Expireat, "expireat", -3, WRITE.with(FAST), ONE_KEY, Group::Generic, "1.2.0", "Set the expiration for a key as a UNIX timestamp"),
    row(Verb::Pexpireat, "pexpireat", -3, WRITE.with(FAST), ONE_KEY, Group::Generic, "2.6.0", "Set the expiration for a key as a UNIX timestamp specified in milliseconds"),
    row(Verb::Persist, "persist", 2, WRITE.with(FAST), ONE_KEY, Group::Generic, "2.2.0", "Remove the expiration from a key"),
    row(Verb::Rename, "rename", 3, WRITE, (1, 2, 1), Group::Generic, "1.0.0", "Rename a key"),
    row(Verb::Renamenx, "renamenx", 3, WRITE.with(FAST), (1, 2, 1), Group::Generic, "1.0.0", "Rename a key, only if the new key does not exist"),
    row(Verb::Copy, "copy", -3, WRITE.with(DENYOOM), (1, 2, 1), Group::Generic, "6.2.0", "Copy a key"),
    row(Verb::Flushdb, "flushdb", -1, WRITE, NO_KEYS, Group::Server, "1.0.0", "Remove all keys from the current database"),
    row(Verb::Flushall, "flushall", -1, WRITE, NO_KEYS, Group::Server, "1.0.0", "Remove all keys from all databases"),
    row(Verb::Cas, "cas", 4, WRITE.with(DENYOOM).with(FAST), ONE_KEY, Group::String, OWN, "Set the value of a key, only if it has the expected value. Returns 1 or 0"),

    // Reads: answered by the store.
    row(Verb::Get, "get", 2, READONLY.with(FAST), ONE_KEY, Group::String, "1.0.0", "Get the value of a key"),
    row(Verb::Mget, "mget", -2, READONLY.with(FAST), ALL_KEYS, Group::String, "1.0.0", "Get the values of all the given keys"),
    row(Verb::Strlen, "strlen", 2, READONLY.with(FAST), ONE_KEY, Group::String, "2.2.0", "Get the length of the value stored in a key"),
    row(Verb::Getrange, "getrange", 4, READONLY, ONE_KEY, Group::String, "2.4.0", "Get a substring of the string stored at a key"),
    row(Verb::Substr, "substr", 4, READONLY, ONE_KEY, Group::String, "1.0.0", "Get a substring of the string stored at a key"),
    row(Verb::Lcs, "lcs", -3, READONLY, (1, 2, 1), Group::String, "7.0.0", "Find longest common substring"),
    row(Verb::Exists, "exists", -2, READONLY.with(FAST), ALL_KEYS, Group::Generic, "1.0.0", "Determine if a key exists"),
    row(Verb::Type, "type", 2, READONLY.with(FAST), ONE_KEY, Group::Generic, "1.0.0", "Determine the type stored at key"),
    row(Verb::Expiretime, "expiretime", 2, READONLY.with(FAST), ONE_KEY, Group::Generic, "7.0.0", "Get the expiration Unix timestamp for a key"),
    row(Verb::Pexpiretime, "pexpiretime", 2, READONLY.with(FAST), ONE_KEY, Group::Generic, "7.0.0", "Get the expiration Unix timestamp for a key in milliseconds"),
    row(Verb::Ttl, "ttl", 2, READONLY.with(FAST), ONE_KEY, Group::Generic, "1.0.0", "Get the time to live for a key in seconds"),
    row(Verb::Pttl, "pttl", 2, READONLY.with(FAST), ONE_KEY, Group::Generic, "2.6.0", "Get the time to live for a key in milliseconds"),
    row(Verb::Touch, "touch", -2, READONLY.with(FAST), ALL_KEYS, Group::Generic, "3.2.1", "Alters the last access time of a key(s). Returns the number of existing keys specified"),
    row(Verb::Randomkey, "randomkey", 1, READONLY, NO_KEYS, Group::Generic, "1.0.0", "Return a random key from the keyspace"),
    row(Verb::Keys, "keys", 2, READONLY, NO_KEYS, Group::Generic, "1.0.0", "Find all keys matching the given pattern"),
    row(Verb::Scan, "scan", -2, READONLY, NO_KEYS, Group::Generic, "2.8.0", "Incrementally iterate the keys space"),
    row(Verb::Dbsize, "dbsize", 1, READONLY.with(FAST), NO_KEYS, Group::Server, "1.0.0", "Return the number of keys in the selected database"),
    row(Verb::Object, "object", -2, READONLY, (2, 2, 1), Group::Generic, "2.2.3", "A container for object introspection commands"),
    row(Verb::Memory, "memory", -2, READONLY, (2, 2, 1), Group::Server, "4.0.0", "A container for memory diagnostics commands"),

    // The connection, the node, the cluster.
    row(Verb::Ping, "ping", -1, FAST, NO_KEYS, Group::Connection, "1.0.0", "Ping the server"),
    row(Verb::Echo, "echo", 2, LOADING.with(STALE).with(FAST), NO_KEYS, Group::Connection, "1.0.0", "Echo the given string"),
    row(Verb::Quit, "quit", -1, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(NO_AUTH).with(ALLOW_BUSY), NO_KEYS, Group::Connection, "1.0.0", "Close the connection"),
    row(Verb::Reset, "reset", 1, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(NO_AUTH).with(ALLOW_BUSY), NO_KEYS, Group::Connection, "6.2.0", "Reset the connection"),
    row(Verb::Hello, "hello", -1, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(NO_AUTH).with(ALLOW_BUSY), NO_KEYS, Group::Connection, "6.0.0", "Handshake with Redis"),
    row(Verb::Auth, "auth", -2, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(NO_AUTH).with(ALLOW_BUSY), NO_KEYS, Group::Connection, "1.0.0", "Authenticate to the server"),
    row(Verb::Select, "select", 2, LOADING.with(STALE).with(FAST), NO_KEYS, Group::Connection, "1.0.0", "Change the selected database for the current connection"),
    row(Verb::Client, "client", -2, NONE, NO_KEYS, Group::Connection, "2.4.0", "A container for client connection commands"),
    row(Verb::Command, "command", -1, LOADING.with(STALE), NO_KEYS, Group::Server, "2.8.13", "Get array of Redis command details"),
    row(Verb::Info, "info", -1, LOADING.with(STALE), NO_KEYS, Group::Server, "1.0.0", "Get information and statistics about the server"),
    row(Verb::Role, "role", 1, NOSCRIPT.with(LOADING).with(STALE).with(FAST), NO_KEYS, Group::Server, "2.8.12", "Return the role of the instance in the context of replication"),
    row(Verb::Config, "config", -2, NONE, NO_KEYS, Group::Server, "2.0.0", "A container for server configuration commands"),
    row(Verb::Time, "time", 1, LOADING.with(STALE).with(FAST), NO_KEYS, Group::Server, "2.6.0", "Return the current server time"),
    row(Verb::Lastsave, "lastsave", 1, LOADING.with(STALE).with(FAST), NO_KEYS, Group::Server, "1.0.0", "Get the UNIX time stamp of the last successful save to disk"),
    row(Verb::Debug, "debug", -2, ADMIN.with(NOSCRIPT).with(LOADING).with(STALE), NO_KEYS, Group::Server, "1.0.0", "A container for debugging commands"),
    row(Verb::Multi, "multi", 1, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(ALLOW_BUSY), NO_KEYS, Group::Transactions, "1.2.0", "Mark the start of a transaction block"),
    row(Verb::Exec, "exec", 1, NOSCRIPT.with(LOADING).with(STALE), NO_KEYS, Group::Transactions, "1.2.0", "Execute all commands issued after MULTI"),
    row(Verb::Discard, "discard", 1, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(ALLOW_BUSY), NO_KEYS, Group::Transactions, "2.0.0", "Discard all commands issued after MULTI"),
    row(Verb::Watch, "watch", -2, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(ALLOW_BUSY), ALL_KEYS, Group::Transactions, "2.2.0", "Watch the given keys to determine execution of the MULTI/EXEC block"),
    row(Verb::Unwatch, "unwatch", 1, NOSCRIPT.with(LOADING).with(STALE).with(FAST).with(ALLOW_BUSY), NO_KEYS, Group::Transactions, "2.2.0", "Forget about all watched keys"),
    row(Verb::Readonly, "readonly", 1, LOADING.with(STALE).with(FAST), NO_KEYS, Group::Cluster, "3.0.0", "Enables read queries for a connection to a cluster replica node"),
    row(Verb::Readwrite, "readwrite", 1, LOADING.with(STALE).with(FAST), NO_KEYS, Group::Cluster, "3.0.0", "Disables read queries for a connection to a cluster replica node"),
    row(Verb::Wait, "wait", 3, NOSCRIPT, NO_KEYS, Group::Generic, "3.0.0", "Wait for the synchronous replication of all the write commands sent in the context of the current connection"),
    row(Verb::Cluster, "cluster", -2, NONE, NO_KEYS, Group::Cluster, "3.0.0", "A container for cluster commands"),
    row(Verb::Failover, "failover", -1, ADMIN.with(NOSCRIPT).with(STALE), NO_KEYS, Group::Server, "6.2.0", "Start a coordinated failover between this server and one of its replicas"),
    row(Verb::RaftStatus, "raft.status", -1, LOADING.with(STALE), NO_KEYS, Group::Raft, OWN, "Show the state of this node and its cluster as a map"),
    row(Verb::RaftMembers, "raft.members", 1, LOADING.with(STALE), NO_KEYS, Group::Raft, OWN, "List the members of the cluster"),
    row(Verb::RaftAdd, "raft.add", -3, ADMIN.with(NOSCRIPT), NO_KEYS, Group::Raft, OWN, "Add a member as a learner: its id and peer address"),
    row(Verb::RaftRemove, "raft.remove", 2, ADMIN.with(NOSCRIPT), NO_KEYS, Group::Raft, OWN, "Remove a member by id"),
    row(Verb::RaftPromote, "raft.promote", 2, ADMIN.with(NOSCRIPT), NO_KEYS, Group::Raft, OWN, "Make a learner a voter"),
    row(Verb::RaftTransfer, "raft.transfer", -1, ADMIN.with(NOSCRIPT), NO_KEYS, Group::Raft, OWN, "Hand leadership to a member, or to the best one"),
    row(Verb::RaftSnapshot, "raft.snapshot", 1, ADMIN.with(NOSCRIPT), NO_KEYS, Group::Raft, OWN, "Write a snapshot and compact the log"),
    row(Verb::RaftBarrier, "raft.barrier", 1, NOSCRIPT, NO_KEYS, Group::Raft, OWN, "Wait until everything committed before has been applied"),
    row(Verb::RaftSession, "raft.session", -2, NOSCRIPT, NO_KEYS, Group::Raft, OWN, "Open a session for commands applied exactly once"),
    row(Verb::RaftDo, "raft.do", -4, NOSCRIPT, NO_KEYS, Group::Raft, OWN, "Run a write of a session exactly once: session, sequence number, command"),
];

#[allow(clippy::too_many_arguments, reason = "the columns of a table")]
const fn row(
    verb: Verb,
    name: &'static str,
    arity: i8,
    flags: Flags,
    (first, last, step): (u8, i8, u8),
    group: Group,
    since: &'static str,
    summary: &'static str,
) -> Spec {
    Spec { verb, name, arity, flags, keys: Keys { first, last, step }, group, since, summary }
}
