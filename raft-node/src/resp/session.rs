//! What a connection knows about its client, and what it does with each command: answer it, hand it to the node, or
//! queue it for a transaction.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{
    Shared,
    backend::{Backend, Consistency},
    client_command,
    clients::Client,
    config_command, hello, info,
    parser::integer,
    raft_command,
    transaction::{Execution, Queued, Transaction},
    unsupported,
};
use crate::kv::{
    self, Class, Protocol, Reply, Verb, request,
    table::{self, Flags, Spec},
};

/// One client's state.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) protocol: Protocol,
    pub(super) authenticated: bool,
    /// What `CLIENT CONSISTENCY` chose.
    pub(super) consistency: Consistency,
    /// Since `READONLY`: reads take what this node has.
    pub(super) read_only: bool,
    pub(super) replies: Replies,
    pub(super) transaction: Transaction,
}

/// Which replies a client wants, by `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// All but the next.
    SkipNext,
}

/// What is to be done for a command.
#[derive(Debug)]
pub(super) enum Action {
    /// Answer.
    Reply(Reply),
    /// Nothing: this command has no reply.
    Nothing,
    /// Propose this payload; its reply is the client's.
    Write(Bytes),
    /// Read, with the others of the same run.
    Read(Vec<Bytes>),
    /// Find out the modification index of these keys.
    Watch(Vec<Bytes>),
    /// Propose this payload; the store's replies go between those of the connection.
    Execute { payload: Bytes, commands: Vec<Queued> },
    /// Answer once this many members have everything written so far, or after a while (zero: no limit).
    WaitFor { members: usize, timeout: Duration },
    /// Answer after a while.
    Sleep(Duration),
    /// Answer once this node has applied everything that was answered before.
    Barrier,
    /// Answer, then close.
    Close(Reply),
}

/// What must have been answered before a command may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Nothing.
    Open,
    /// The connection's earlier reads: else they could see what this command writes.
    Reads,
    /// The connection's earlier writes: else this read could miss them.
    Writes,
    /// Everything.
    All,
}

impl Session {
    pub(super) fn new(client: Arc<Client>, authenticated: bool) -> Session {
        Session {
            client,
            protocol: Protocol::Resp2,
            authenticated,
            consistency: Consistency::Linearizable,
            read_only: false,
            replies: Replies::On,
            transaction: Transaction::default(),
        }
    }

    /// What `args` has to wait for. Asked before [`execute`](Self::execute), which changes the session.
    pub(super) fn gate(&self, args: &[Bytes]) -> Gate {
        let Some(spec) = args.first().and_then(|name| table::lookup(name)) else { return Gate::Open };
        match (spec.class(), spec.verb) {
            (_, Verb::Exec | Verb::Discard | Verb::Reset) => Gate::Reads,
            (Class::Connection, Verb::Quit) => Gate::Open,
            _ if self.transaction.is_open() => Gate::Open,
            (Class::Write, _) | (_, Verb::Unwatch) => Gate::Reads,
            (Class::Read, _) | (_, Verb::Watch) => Gate::Writes,
            (_, Verb::Wait | Verb::Debug | Verb::RaftBarrier) => Gate::All,
            (Class::Connection, _) => Gate::Open,
        }
    }

    /// Whether a read may go through the log with the writes before it, instead of waiting for them: it is cheap for
    /// every node to run, and wants the newest state anyway.
    pub(super) fn may_read_by_log(&self, args: &[Bytes]) -> bool {
        !self.transaction.is_open()
            && self.reads() == Consistency::Linearizable
            && self.authenticated
            && args.len() <= LOGGED_READ_ARGS_MAX
            && table::check(args)
                .is_ok_and(|spec| spec.class() == Class::Read && spec.flags.contains(Flags::FAST))
    }

    /// How fresh reads must be.
    pub(super) const fn reads(&self) -> Consistency {
        if self.read_only { Consistency::Stale { lag_max: None } } else { self.consistency }
    }

    /// Whether the command that comes next gets no reply.
    pub(super) fn take_silence(&mut self) -> bool {
        match self.replies {
            Replies::On => false,
            Replies::Off => true,
            Replies::SkipNext => {
                self.replies = Replies::On;
                true
            }
        }
    }

    /// Decides what becomes of a command.
    pub(super) fn execute<B: Backend>(&mut self, args: Vec<Bytes>, shared: &Shared<B>) -> Action {
        let spec = match self.admit(&args) {
            Ok(spec) => spec,
            // A browser can be made to send a request here whose body is commands: nothing behind its head is run.
            Err(_) if args.first().is_some_and(|name| is_http(name)) => {
                return Action::Close(Reply::error(NOT_HTTP));
            }
            Err(refusal) => {
                self.transaction.refuse();
                return Action::Reply(unsupported::refusal(&args).unwrap_or(refusal));
            }
        };
        self.client.ran(spec.verb);
        if self.transaction.is_open() && !ENDS_OR_STANDS_OUTSIDE.contains(&spec.verb) {
            return Action::Reply(self.queue(spec, &args, shared));
        }
        match spec.class() {
            // What can be seen to be wrong from the words alone is not worth an entry.
            Class::Write => match kv::validate(&args) {
                Ok(_) => Action::Write(request::encode_command(&args)),
                Err(refusal) => Action::Reply(refusal),
            },
            Class::Read => Action::Read(args),
            Class::Connection => self.own(spec, args, shared),
        }
    }

    /// Checks the name, the number of arguments and whether the client may.
    fn admit(&self, args: &[Bytes]) -> Result<&'static Spec, Reply> {
        let spec = table::check(args)?;
        if !self.authenticated && !spec.flags.contains(Flags::NO_AUTH) {
            return Err(Reply::error("NOAUTH Authentication required."));
        }
        Ok(spec)
    }

    fn queue<B: Backend>(&mut self, spec: &Spec, args: &[Bytes], shared: &Shared<B>) -> Reply {
        if NOT_IN_TRANSACTIONS.contains(&spec.verb) || client_command::changes_replies(args) {
            self.transaction.refuse();
            return Reply::error("ERR Command not allowed inside a transaction");
        }
        let stored = spec.class() != Class::Connection;
        self.transaction.push(args, stored, shared.options.requests.request_bytes_max)
    }

    /// Commands that are about the connection or the node.
    fn own<B: Backend>(&mut self, spec: &Spec, args: Vec<Bytes>, shared: &Shared<B>) -> Action {
        #[allow(clippy::wildcard_enum_match_arm, reason = "the rest is answered at once")]
        match spec.verb {
            Verb::Quit => Action::Close(Reply::OK),
            Verb::Reset => Action::Reply(hello::reset(self, shared)),
            Verb::Client if client_command::changes_replies(&args) => client_command::reply_mode(self, &args),
            Verb::Exec => match self.transaction.execute(shared.options.requests.request_bytes_max) {
                Execution::Refused(reply) => Action::Reply(reply),
                Execution::Local(commands) => Action::Reply(Reply::array(
                    commands.iter().map(|command| self.answer(&command.args, shared)),
                )),
                Execution::Entry { payload, commands } => Action::Execute { payload, commands },
            },
            Verb::Watch if self.transaction.is_open() => {
                Action::Reply(Reply::error("ERR WATCH inside MULTI is not allowed"))
            }
            Verb::Watch => Action::Watch(args[1..].iter().map(|key| Bytes::copy_from_slice(key)).collect()),
            Verb::Wait => wait(&args),
            Verb::Debug => debug(&args),
            Verb::RaftBarrier => Action::Barrier,
            _ => Action::Reply(self.answer(&args, shared)),
        }
    }

    /// The reply to a command that needs nothing but what is known here and now; also within `EXEC`.
    pub(super) fn answer<B: Backend>(&mut self, args: &[Bytes], shared: &Shared<B>) -> Reply {
        let spec = match table::check(args) {
            Ok(spec) => spec,
            Err(reply) => return reply,
        };
        #[allow(clippy::wildcard_enum_match_arm, reason = "the rest is the store's, or not served yet")]
        match spec.verb {
            Verb::Ping => match args.get(1) {
                None => Reply::simple("PONG"),
                Some(_) if args.len() > 2 => table::wrong_arity("ping"),
                Some(text) => Reply::Bulk(text.clone()),
            },
            Verb::Echo => Reply::Bulk(args[1].clone()),
            Verb::Hello => hello::hello(self, args, shared),
            Verb::Auth => hello::auth(self, args, shared),
            Verb::Select => match integer(&args[1]) {
                Some(0) => Reply::OK,
                Some(_) => Reply::error("ERR DB index is out of range"),
                None => Reply::error("ERR value is not an integer or out of range"),
            },
            Verb::Client => client_command::client(self, args, shared),
            Verb::Command => table::command_reply(args),
            Verb::Info => info::info(args, shared),
            Verb::Role => info::role(shared),
            Verb::Config => config_command::config(args, shared),
            Verb::Time => time(),
            // Every write is on disk before it is answered. Redis, too, begins with the time of its start.
            Verb::Lastsave => {
                let started = seconds_since_1970().saturating_sub(shared.backend.status().uptime_s);
                Reply::Integer(i64::try_from(started).unwrap_or(i64::MAX))
            }
            Verb::Multi => self.transaction.open(),
            Verb::Discard => self.transaction.discard(),
            Verb::Unwatch => self.transaction.unwatch(),
            Verb::Readonly => {
                self.read_only = true;
                Reply::OK
            }
            Verb::Readwrite => {
                self.read_only = false;
                Reply::OK
            }
            Verb::Cluster => Reply::error("ERR This instance has cluster support disabled"),
            Verb::RaftStatus => raft_command::status(&shared.backend.status()),
            Verb::RaftMembers => raft_command::members(&shared.backend.status()),
            _ => Reply::error_text(format!(
                "ERR '{}' is not supported in this release",
                spec.name.to_uppercase()
            )),
        }
    }

    /// Shows others what has changed.
    pub(super) fn publish(&self) {
        let mut facts = self.client.facts();
        facts.protocol = self.protocol;
        facts.queued = self.transaction.queued();
        facts.watched = self.transaction.watched();
        facts.read_only = self.read_only;
    }
}

/// Words that begin a line of an HTTP request and are no command.
fn is_http(name: &[u8]) -> bool {
    [&b"POST"[..], b"PUT", b"HEAD", b"OPTIONS", b"Host:"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

const NOT_HTTP: &str =
    "ERR this port speaks the Redis protocol; HTTP is served at the address given with --http";

fn wait(args: &[Bytes]) -> Action {
    let Some(members) = integer(&args[1]) else {
        return Action::Reply(Reply::error("ERR value is not an integer or out of range"));
    };
    let Some(timeout) = integer(&args[2]) else {
        return Action::Reply(Reply::error("ERR timeout is not an integer or out of range"));
    };
    let Ok(timeout) = u64::try_from(timeout) else {
        return Action::Reply(Reply::error("ERR timeout is negative"));
    };
    let members = usize::try_from(members.max(0)).unwrap_or(usize::MAX);
    Action::WaitFor { members, timeout: Duration::from_millis(timeout) }
}

fn debug(args: &[Bytes]) -> Action {
    if !args[1].eq_ignore_ascii_case(b"SLEEP") {
        return Action::Reply(Reply::error("ERR only DEBUG SLEEP is supported"));
    }
    let seconds = args.get(2).filter(|_| args.len() == 3).and_then(|text| std::str::from_utf8(text).ok());
    match seconds.and_then(|text| text.parse::<f64>().ok()) {
        Some(seconds) if seconds >= 0.0 => {
            Action::Sleep(Duration::from_secs_f64(seconds.min(DEBUG_SLEEP_MAX.as_secs_f64())))
        }
        _ => Action::Reply(Reply::error("ERR value is not a valid float")),
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The node's own clock. Nothing replicated depends on it.
fn time() -> Reply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Reply::Array(vec![Reply::bulk(now.as_secs().to_string()), Reply::bulk(now.subsec_micros().to_string())])
}

const ENDS_OR_STANDS_OUTSIDE: [Verb; 6] =
    [Verb::Exec, Verb::Discard, Verb::Multi, Verb::Watch, Verb::Quit, Verb::Reset];

/// These change what later replies look like, or take their time.
const NOT_IN_TRANSACTIONS: [Verb; 5] = [Verb::Hello, Verb::Auth, Verb::Wait, Verb::Debug, Verb::RaftBarrier];

/// One client may keep its own connection waiting no longer.
const DEBUG_SLEEP_MAX: Duration = Duration::from_secs(60);

/// A read of more arguments is not run by every node just to save a wait.
const LOGGED_READ_ARGS_MAX: usize = 8;
