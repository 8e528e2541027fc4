//! The command table: what each command is called, how many arguments it takes, where its keys are and who runs it.
//!
//! Everything that tells commands apart rests on this table: the front end decides from it what goes through the log,
//! the state machine finds its operations by it, and the replies of `COMMAND` are made from it.

mod describe;
mod rows;

use bytes::Bytes;

pub use self::describe::command_reply;
use super::reply::Reply;

/// What the table knows about one command.
#[derive(Debug)]
pub struct Spec {
    /// Which command it is.
    pub verb: Verb,
    /// Its name in lower case.
    pub name: &'static str,
    /// How many arguments, the name included; negative means at least that many.
    pub arity: i8,
    /// What kind of command it is.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// The group `COMMAND DOCS` lists it in.
    pub group: Group,
    /// The version of Redis (or of us) it came with.
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
}

impl Spec {
    /// Who runs it.
    #[must_use]
    pub const fn class(&self) -> Class {
        if self.flags.contains(Flags::WRITE) {
            Class::Write
        } else if self.flags.contains(Flags::READONLY) {
            Class::Read
        } else {
            Class::Connection
        }
    }

    /// Whether a command of `count` arguments, the name included, has the right number of them.
    #[must_use]
    pub fn takes(&self, count: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= wanted } else { count == wanted }
    }

    /// The places of the keys in a command of `count` arguments.
    pub fn key_positions(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let Keys { first, last, step } = self.keys;
        let first = usize::from(first);
        let end = match last {
            _ if first == 0 => 0,
            ..0 => (count + 1).saturating_sub(usize::from(last.unsigned_abs())),
            0.. => (usize::from(last.unsigned_abs()) + 1).min(count),
        };
        (first..end).step_by(usize::from(step.max(1)))
    }
}

/// Who runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Goes through the log and is applied by every node.
    Write,
    /// Answered by the store, once it is known to be fresh enough.
    Read,
    /// Answered by the connection or the node.
    Connection,
}

/// Where a command's keys are, counted from its name at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key; zero if there is none.
    pub first: u8,
    /// The last key; negative counts from the end.
    pub last: i8,
    /// How far apart keys are.
    pub step: u8,
}

/// A set of command flags, by the names `COMMAND` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// May change the store.
    pub const WRITE: Flags = Flags(1);
    /// Only reads the store.
    pub const READONLY: Flags = Flags(1 << 1);
    /// Refused when memory is short, as it may need more.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// An operator's command.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Not for scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    /// Answered while the node starts.
    pub const LOADING: Flags = Flags(1 << 5);
    /// Answered without a leader.
    pub const STALE: Flags = Flags(1 << 6);
    /// Takes constant time or nearly so.
    pub const FAST: Flags = Flags(1 << 7);
    /// Answered before `AUTH`.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Answered while a long command runs.
    pub const ALLOW_BUSY: Flags = Flags(1 << 9);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether every flag of `other` is here.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the flags in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAG_NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Values.
    String,
    /// Keys.
    Generic,
    /// The node.
    Server,
    /// The client's connection.
    Connection,
    /// `MULTI` and what belongs to it.
    Transactions,
    /// What Redis Cluster clients ask.
    Cluster,
    /// Our own.
    Raft,
}

impl Group {
    /// Its name in `COMMAND DOCS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Server => "server",
            Group::Connection => "connection",
            Group::Transactions => "transactions",
            Group::Cluster => "cluster",
            Group::Raft => "raft",
        }
    }
}

/// Every command that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verb {
    /// `SET`
    Set,
    /// `SETNX`
    Setnx,
    /// `SETEX`
    Setex,
    /// `PSETEX`
    Psetex,
    /// `GETSET`
    Getset,
    /// `GETDEL`
    Getdel,
    /// `GETEX`
    Getex,
    /// `MSET`
    Mset,
    /// `MSETNX`
    Msetnx,
    /// `INCR`
    Incr,
    /// `INCRBY`
    Incrby,
    /// `INCRBYFLOAT`
    Incrbyfloat,
    /// `DECR`
    Decr,
    /// `DECRBY`
    Decrby,
    /// `APPEND`
    Append,
    /// `SETRANGE`
    Setrange,
    /// `DEL`
    Del,
    /// `UNLINK`
    Unlink,
    /// `EXPIRE`
    Expire,
    /// `PEXPIRE`
    Pexpire,
    /// `EXPIREAT`
    Expireat,
    /// `PEXPIREAT`
    Pexpireat,
    /// `PERSIST`
    Persist,
    /// `RENAME`
    Rename,
    /// `RENAMENX`
    Renamenx,
    /// `COPY`
    Copy,
    /// `FLUSHDB`
    Flushdb,
    /// `FLUSHALL`
    Flushall,
    /// `CAS`
    Cas,
    /// `GET`
    Get,
    /// `MGET`
    Mget,
    /// `STRLEN`
    Strlen,
    /// `GETRANGE`
    Getrange,
    /// `SUBSTR`
    Substr,
    /// `LCS`
    Lcs,
    /// `EXISTS`
    Exists,
    /// `TYPE`
    Type,
    /// `EXPIRETIME`
    Expiretime,
    /// `PEXPIRETIME`
    Pexpiretime,
    /// `TTL`
    Ttl,
    /// `PTTL`
    Pttl,
    /// `TOUCH`
    Touch,
    /// `RANDOMKEY`
    Randomkey,
    /// `KEYS`
    Keys,
    /// `SCAN`
    Scan,
    /// `DBSIZE`
    Dbsize,
    /// `OBJECT`
    Object,
    /// `MEMORY`
    Memory,
    /// `PING`
    Ping,
    /// `ECHO`
    Echo,
    /// `QUIT`
    Quit,
    /// `RESET`
    Reset,
    /// `HELLO`
    Hello,
    /// `AUTH`
    Auth,
    /// `SELECT`
    Select,
    /// `CLIENT`
    Client,
    /// `COMMAND`
    Command,
    /// `INFO`
    Info,
    /// `ROLE`
    Role,
    /// `CONFIG`
    Config,
    /// `TIME`
    Time,
    /// `LASTSAVE`
    Lastsave,
    /// `DEBUG`
    Debug,
    /// `MULTI`
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
    /// `WATCH`
    Watch,
    /// `UNWATCH`
    Unwatch,
    /// `READONLY`
    Readonly,
    /// `READWRITE`
    Readwrite,
    /// `WAIT`
    Wait,
    /// `CLUSTER`
    Cluster,
    /// `FAILOVER`
    Failover,
    /// `RAFT.STATUS`
    RaftStatus,
    /// `RAFT.MEMBERS`
    RaftMembers,
    /// `RAFT.ADD`
    RaftAdd,
    /// `RAFT.REMOVE`
    RaftRemove,
    /// `RAFT.PROMOTE`
    RaftPromote,
    /// `RAFT.TRANSFER`
    RaftTransfer,
    /// `RAFT.SNAPSHOT`
    RaftSnapshot,
    /// `RAFT.BARRIER`
    RaftBarrier,
    /// `RAFT.SESSION`
    RaftSession,
    /// `RAFT.DO`
    RaftDo,
}

impl Verb {
    /// How many commands there are.
    pub const COUNT: usize = Verb::RaftDo as usize + 1;

    /// What the table knows about it.
    #[must_use]
    pub fn spec(self) -> &'static Spec {
        &COMMANDS[self as usize]
    }
}

/// Every command, in the order of [`Verb`].
pub static COMMANDS: [Spec; Verb::COUNT] = rows::ROWS;

/// The command of this name, in any case.
#[must_use]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut slot = name_hash(name) as usize % SLOTS;
    loop {
        let spec = COMMANDS.get(usize::from(SLOT_OF_HASH[slot]))?;
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Finds the command and checks its number of arguments.
///
/// # Errors
/// The reply Redis gives for an unknown command or a wrong number of arguments.
pub fn check<A: AsRef<[u8]>>(args: &[A]) -> Result<&'static Spec, Reply> {
    let Some(name) = args.first() else { return Err(Reply::error("ERR empty command")) };
    let spec = lookup(name.as_ref()).ok_or_else(|| unknown_command(args))?;
    if spec.takes(args.len()) { Ok(spec) } else { Err(wrong_arity(spec.name)) }
}

/// Who runs this command; `None` if there is none of that name.
#[must_use]
pub fn classify(args: &[Bytes]) -> Option<Class> {
    args.first().and_then(|name| lookup(name)).map(Spec::class)
}

/// The reply to a command with too few or too many arguments.
#[must_use]
pub fn wrong_arity(name: &str) -> Reply {
    Reply::error_text(format!("ERR wrong number of arguments for '{name}' command"))
}

/// The reply to a command that does not exist, with the beginning of its arguments, as Redis words it.
pub fn unknown_command<A: AsRef<[u8]>>(args: &[A]) -> Reply {
    let mut text = b"ERR unknown command '".to_vec();
    let name = args.first().map_or(&[][..], AsRef::as_ref);
    text.extend_from_slice(&name[..name.len().min(UNKNOWN_SHOWN_BYTES)]);
    text.extend_from_slice(b"', with args beginning with: ");
    let shown = text.len() + UNKNOWN_SHOWN_BYTES;
    for arg in args.iter().skip(1) {
        if text.len() >= shown {
            break;
        }
        let arg = arg.as_ref();
        text.push(b'\'');
        text.extend_from_slice(&arg[..arg.len().min(shown - text.len())]);
        text.extend_from_slice(b"' ");
    }
    Reply::Error(text.into())
}

const FLAG_NAMES: [(Flags, &str); 10] = [
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

/// How much of an unknown command, and of its arguments, is repeated in the error.
const UNKNOWN_SHOWN_BYTES: usize = 128;

/// The size of the table that finds a command by its name: over four times the commands, so that probes are short.
const SLOTS: usize = 512;
const EMPTY_SLOT: u8 = u8::MAX;

static SLOT_OF_HASH: [u8; SLOTS] = {
    assert!(Verb::COUNT < EMPTY_SLOT as usize, "a slot holds the number of a command in one byte");
    let mut slots = [EMPTY_SLOT; SLOTS];
    let mut command = 0;
    while command < Verb::COUNT {
        let row = &rows::ROWS[command];
        assert!(row.verb as usize == command, "the rows are in the order of Verb");
        let mut slot = name_hash(row.name.as_bytes()) as usize % SLOTS;
        while slots[slot] != EMPTY_SLOT {
            slot = (slot + 1) % SLOTS;
        }
        #[allow(clippy::cast_possible_truncation, reason = "there are fewer than 255 commands, see above")]
        {
            slots[slot] = command as u8;
        }
        command += 1;
    }
    slots
};

/// FNV-1a over the beginning of the name in lower case.
const fn name_hash(name: &[u8]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() && at < 24 {
        hash = (hash ^ name[at].to_ascii_lowercase() as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn every_command_is_found_in_any_case() {
        for spec in &COMMANDS {
            assert_eq!(lookup(spec.name.as_bytes()).unwrap().verb, spec.verb);
            assert_eq!(lookup(spec.name.to_uppercase().as_bytes()).unwrap().verb, spec.verb);
            assert_eq!(spec.verb.spec().name, spec.name);
        }
        assert!(lookup(b"").is_none());
        assert!(lookup(b"getx").is_none());
        assert!(lookup(&[b'g'; 1000]).is_none());
    }

    #[test]
    fn classes() {
        for (command, class) in [
            ("set a b", Class::Write),
            ("GETEX a", Class::Write),
            ("flushall", Class::Write),
            ("get a", Class::Read),
            ("Scan 0", Class::Read),
            ("object encoding a", Class::Read),
            ("multi", Class::Connection),
            ("raft.status", Class::Connection),
        ] {
            assert_eq!(classify(&args(command)), Some(class), "{command}");
        }
        assert_eq!(classify(&args("lpush a b")), None);
    }

    #[test]
    fn arity_and_unknown_commands_are_worded_as_in_redis() {
        let text = |reply: Reply| {
            let Reply::Error(text) = reply else { panic!("{reply:?}") };
            String::from_utf8(text.to_vec()).unwrap()
        };
        assert_eq!(text(check(&args("GET")).unwrap_err()), "ERR wrong number of arguments for 'get' command");
        assert_eq!(
            text(check(&args("LPUSH a b")).unwrap_err()),
            "ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' "
        );
        let long = [b"nope".to_vec(), vec![b'x'; 500], vec![b'y'; 500]];
        assert!(text(check(&long).unwrap_err()).len() < 200);
    }

    #[test]
    fn keys_are_found() {
        let keys = |command: &str| {
            let args = args(command);
            lookup(&args[0]).unwrap().key_positions(args.len()).collect::<Vec<_>>()
        };
        assert_eq!(keys("get a"), [1]);
        assert_eq!(keys("mset a 1 b 2"), [1, 3]);
        assert_eq!(keys("del a b c"), [1, 2, 3]);
        assert_eq!(keys("rename a b"), [1, 2]);
        assert_eq!(keys("object encoding a"), [2]);
        assert_eq!(keys("object help"), [0usize; 0]);
        assert_eq!(keys("ping"), [0usize; 0]);
    }
}
