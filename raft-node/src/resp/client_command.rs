//! `CLIENT`: what a client may ask and set about its own connection, and about others.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;

use super::{
    Shared,
    backend::{Backend, Consistency},
    clients::{Client, Stop},
    parser::integer,
    session::{Action, Replies, Session},
};
use crate::kv::{Protocol, Reply};

/// Whether this is a `CLIENT REPLY` in its right form, which may have no reply itself.
pub(super) fn changes_replies(args: &[Bytes]) -> bool {
    matches!(args, [client, reply, _]
        if client.eq_ignore_ascii_case(b"CLIENT") && reply.eq_ignore_ascii_case(b"REPLY"))
}

/// `CLIENT REPLY ON|OFF|SKIP`
pub(super) fn reply_mode(session: &mut Session, args: &[Bytes]) -> Action {
    let mode = args.get(2).map(|mode| mode.to_ascii_uppercase());
    match mode.as_deref() {
        Some(b"ON") => {
            session.replies = Replies::On;
            Action::Reply(Reply::OK)
        }
        Some(b"OFF") => {
            session.replies = Replies::Off;
            Action::Nothing
        }
        Some(b"SKIP") => {
            if session.replies == Replies::On {
                session.replies = Replies::SkipNext;
            }
            Action::Nothing
        }
        _ => Action::Reply(Reply::error("ERR syntax error")),
    }
}

/// Every other `CLIENT` subcommand.
pub(super) fn client<B: Backend>(session: &mut Session, args: &[Bytes], shared: &Shared<B>) -> Reply {
    let subcommand = args[1].to_ascii_uppercase();
    let rest = &args[2..];
    match (subcommand.as_slice(), rest) {
        (b"ID", []) => Reply::Integer(i64::try_from(session.client.id).unwrap_or(i64::MAX)),
        (b"GETNAME", []) => match session.client.facts().name.clone() {
            name if name.is_empty() => Reply::Null,
            name => Reply::Bulk(name),
        },
        (b"SETNAME", [name]) => {
            if !is_valid_name(name) {
                return Reply::error(INVALID_NAME);
            }
            session.client.facts().name = Bytes::copy_from_slice(name);
            Reply::OK
        }
        (b"SETINFO", [attribute, value]) => set_info(session, attribute, value),
        (b"INFO", []) => {
            session.publish();
            Reply::Verbatim(*b"txt", Bytes::from(describe(&session.client)))
        }
        (b"LIST", _) => {
            session.publish();
            list(rest, shared)
        }
        (b"KILL", [_, ..]) => kill(session, rest, shared),
        (b"NO-EVICT", [mode]) => switch(mode, |on| session.client.facts().no_evict = on),
        (b"NO-TOUCH", [mode]) => switch(mode, |on| session.client.facts().no_touch = on),
        // Nothing a client can do changes what we send it, so every capability is welcome.
        (b"CAPA", [_, ..]) => Reply::OK,
        (b"CONSISTENCY", [_, ..]) => consistency(session, rest),
        (b"GETREDIR", []) => Reply::Integer(-1),
        (b"UNPAUSE", []) => Reply::OK,
        (b"HELP", []) => Reply::Array(HELP.iter().map(|line| Reply::simple(line)).collect()),
        (name, _) if SUBCOMMANDS.contains(&name) => Reply::error_text(format!(
            "ERR wrong number of arguments for 'client|{}' command",
            String::from_utf8_lossy(name).to_lowercase()
        )),
        _ => Reply::error_text(format!(
            "ERR unknown subcommand '{}'. Try CLIENT HELP.",
            String::from_utf8_lossy(&args[1][..args[1].len().min(128)])
        )),
    }
}

/// A name is shown in lists of one line a client: nothing in it may look like a space or a line end.
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// What Redis answers to another name.
pub(super) const INVALID_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

fn set_info(session: &Session, attribute: &[u8], value: &Bytes) -> Reply {
    let is = |name: &[u8]| attribute.eq_ignore_ascii_case(name);
    if !is(b"LIB-NAME") && !is(b"LIB-VER") {
        return Reply::error_text(format!(
            "ERR Unrecognized option '{}'",
            String::from_utf8_lossy(&attribute[..attribute.len().min(128)])
        ));
    }
    if !is_valid_name(value) {
        return Reply::error_text(format!(
            "ERR {} cannot contain spaces, newlines or special characters.",
            String::from_utf8_lossy(attribute).to_lowercase()
        ));
    }
    let value = Bytes::copy_from_slice(value);
    let mut facts = session.client.facts();
    if is(b"LIB-NAME") {
        facts.library_name = value;
    } else {
        facts.library_version = value;
    }
    Reply::OK
}

fn switch(mode: &[u8], set: impl FnOnce(bool)) -> Reply {
    if mode.eq_ignore_ascii_case(b"ON") {
        set(true);
    } else if mode.eq_ignore_ascii_case(b"OFF") {
        set(false);
    } else {
        return Reply::error("ERR syntax error");
    }
    Reply::OK
}

/// `CLIENT CONSISTENCY linearizable|lease|stale [MAXLAG ms]`
fn consistency(session: &mut Session, rest: &[Bytes]) -> Reply {
    let is = |at: usize, name: &[u8]| rest.get(at).is_some_and(|arg: &Bytes| arg.eq_ignore_ascii_case(name));
    session.consistency = if rest.len() == 1 && is(0, b"LINEARIZABLE") {
        Consistency::Linearizable
    } else if rest.len() == 1 && is(0, b"LEASE") {
        Consistency::Lease
    } else if rest.len() == 1 && is(0, b"STALE") {
        Consistency::Stale { lag_max: None }
    } else if rest.len() == 3 && is(0, b"STALE") && is(1, b"MAXLAG") {
        let Some(milliseconds) = integer(&rest[2]).and_then(|lag| u64::try_from(lag).ok()) else {
            return Reply::error("ERR value is not an integer or out of range");
        };
        Consistency::Stale { lag_max: Some(Duration::from_millis(milliseconds)) }
    } else {
        return Reply::error("ERR syntax error");
    };
    Reply::OK
}

fn list<B: Backend>(rest: &[Bytes], shared: &Shared<B>) -> Reply {
    let mut wanted = None;
    let mut normal = true;
    match rest {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"TYPE") => {
            let kind = kind.to_ascii_lowercase();
            match kind.as_slice() {
                b"normal" => {}
                b"master" | b"replica" | b"slave" | b"pubsub" => normal = false,
                _ => {
                    return Reply::error_text(format!(
                        "ERR Unknown client type '{}'",
                        String::from_utf8_lossy(&kind[..kind.len().min(128)])
                    ));
                }
            }
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let ids: Option<Vec<i64>> = ids.iter().map(|id| integer(id)).collect();
            let Some(ids) = ids else { return Reply::error("ERR Invalid client ID") };
            wanted = Some(ids);
        }
        _ => return Reply::error("ERR syntax error"),
    }
    let mut text = String::new();
    for client in shared.clients.all() {
        let id = i64::try_from(client.id).unwrap_or(i64::MAX);
        if normal && wanted.as_ref().is_none_or(|ids| ids.contains(&id)) {
            text.push_str(&describe(&client));
        }
    }
    Reply::Verbatim(*b"txt", Bytes::from(text))
}

/// One line of `CLIENT LIST`, in the fields and the order of Redis.
fn describe(client: &Client) -> String {
    let facts = client.facts();
    let mut flags = String::new();
    for (set, flag) in
        [(facts.queued.is_some(), 'x'), (facts.read_only, 'r'), (facts.no_evict, 'e'), (facts.no_touch, 'T')]
    {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let mut text = format!(
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 ssub=0 multi={}",
        client.id,
        client.address,
        client.local_address,
        String::from_utf8_lossy(&facts.name),
        client.age().as_secs(),
        client.idle().as_secs(),
        facts.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX)),
    );
    let protocol = if facts.protocol == Protocol::Resp3 { 3 } else { 2 };
    writeln!(
        text,
        " watch={} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} \
         user=default redir=-1 resp={protocol} lib-name={} lib-ver={}",
        facts.watched,
        client.last_command(),
        String::from_utf8_lossy(&facts.library_name),
        String::from_utf8_lossy(&facts.library_version),
    )
    .expect("writing into a String does not fail");
    text
}

/// Which clients `CLIENT KILL` means.
struct Filter {
    id: Option<u64>,
    address: Option<String>,
    local_address: Option<String>,
    /// The type is one we have.
    normal: bool,
    skip_me: bool,
}

/// `CLIENT KILL addr` and `CLIENT KILL <filter value>…`
fn kill<B: Backend>(session: &Session, rest: &[Bytes], shared: &Shared<B>) -> Reply {
    if let [address] = rest {
        let address = String::from_utf8_lossy(address);
        return match shared.clients.all().iter().find(|client| client.address == address) {
            Some(client) => {
                client.stop(kind_of_stop(session, client));
                Reply::OK
            }
            None => Reply::error("ERR No such client"),
        };
    }
    let filter = match Filter::read(rest) {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let mut killed = 0;
    for client in shared.clients.all() {
        if filter.takes(&client) && !(filter.skip_me && client.id == session.client.id) {
            client.stop(kind_of_stop(session, &client));
            killed += 1;
        }
    }
    Reply::Integer(killed)
}

/// Who ends itself still gets the answer.
fn kind_of_stop(session: &Session, client: &Client) -> Stop {
    if client.id == session.client.id { Stop::Drain } else { Stop::Kill }
}

impl Filter {
    fn read(args: &[Bytes]) -> Result<Filter, Reply> {
        let mut filter = Filter { id: None, address: None, local_address: None, normal: true, skip_me: true };
        if !args.len().is_multiple_of(2) {
            return Err(Reply::error("ERR syntax error"));
        }
        for pair in args.chunks_exact(2) {
            let value = String::from_utf8_lossy(&pair[1]).into_owned();
            match pair[0].to_ascii_uppercase().as_slice() {
                b"ID" => match integer(&pair[1]).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0) {
                    Some(id) => filter.id = Some(id),
                    None => return Err(Reply::error("ERR client-id should be greater than 0")),
                },
                b"ADDR" => filter.address = Some(value),
                b"LADDR" => filter.local_address = Some(value),
                b"USER" => match value.as_str() {
                    "default" => {}
                    _ => return Err(Reply::error_text(format!("ERR No such user '{value}'"))),
                },
                b"TYPE" => match value.to_ascii_lowercase().as_str() {
                    "normal" => {}
                    "master" | "replica" | "slave" | "pubsub" => filter.normal = false,
                    _ => return Err(Reply::error_text(format!("ERR Unknown client type '{value}'"))),
                },
                b"SKIPME" => match value.to_ascii_lowercase().as_str() {
                    "yes" => filter.skip_me = true,
                    "no" => filter.skip_me = false,
                    _ => return Err(Reply::error("ERR syntax error")),
                },
                _ => return Err(Reply::error("ERR syntax error")),
            }
        }
        Ok(filter)
    }

    fn takes(&self, client: &Client) -> bool {
        self.normal
            && self.id.is_none_or(|id| id == client.id)
            && self.address.as_ref().is_none_or(|address| *address == client.address)
            && self.local_address.as_ref().is_none_or(|address| *address == client.local_address)
    }
}

const NAME_BYTES_MAX: usize = 1024;

const SUBCOMMANDS: [&[u8]; 13] = [
    b"ID",
    b"GETNAME",
    b"SETNAME",
    b"SETINFO",
    b"INFO",
    b"KILL",
    b"NO-EVICT",
    b"NO-TOUCH",
    b"CAPA",
    b"CONSISTENCY",
    b"REPLY",
    b"GETREDIR",
    b"UNPAUSE",
];

const HELP: [&str; 14] = [
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAPA <capability> [<capability> ...]  Declare what the client can do.",
    "CONSISTENCY (linearizable|lease|stale [MAXLAG <ms>])  Choose how fresh reads of this connection are.",
    "GETNAME  Return the name of the current connection.",
    "ID  Return the ID of the current connection.",
    "INFO  Return information about the current connection.",
    "KILL <ip:port> | <option> <value> ...  Kill connections. Options: ADDR, LADDR, ID, TYPE, USER, SKIPME.",
    "LIST [TYPE <type> | ID <id> ...]  Return information about connections.",
    "NO-EVICT (ON|OFF)  Accepted for compatibility.",
    "NO-TOUCH (ON|OFF)  Accepted for compatibility.",
    "REPLY (ON|OFF|SKIP)  Control the replies sent to the current connection.",
    "SETINFO <LIB-NAME|LIB-VER> <value>  Tell which library is used.",
    "SETNAME <name>  Assign a name to the current connection.",
    "HELP  Print this help.",
];

#[cfg(test)]
mod tests {
    use super::is_valid_name;

    #[test]
    fn names_fit_on_a_line() {
        assert!(is_valid_name(b"worker-1") && is_valid_name(b""));
        assert!(!is_valid_name(b"a b") && !is_valid_name(b"a\n") && !is_valid_name(&[b'a'; 5000]));
    }
}
