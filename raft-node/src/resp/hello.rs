//! How a connection introduces itself: `HELLO`, `AUTH`, `RESET`.

use bytes::Bytes;

use super::{
    REDIS_VERSION, Shared,
    backend::{Backend, Consistency},
    client_command,
    parser::integer,
    session::{Replies, Session},
    transaction::Transaction,
};
use crate::{
    kv::{Protocol, Reply},
    status::Role,
};

/// `HELLO [2|3] [AUTH user password] [SETNAME name]`. Nothing changes unless all of it is accepted.
pub(super) fn hello<B: Backend>(session: &mut Session, args: &[Bytes], shared: &Shared<B>) -> Reply {
    let protocol = match args.get(1).map(|version| integer(version)) {
        None => session.protocol,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Reply::error("NOPROTO unsupported protocol version"),
        Some(None) => return Reply::error("ERR Protocol version is not an integer or out of range"),
    };
    let mut name = None;
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => break,
            [option, user, password, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                if !accepts(user, password, shared) {
                    return wrong_password();
                }
                session.authenticated = true;
                rest
            }
            [option, wanted, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                if !client_command::is_valid_name(wanted) {
                    return Reply::error(client_command::INVALID_NAME);
                }
                name = Some(Bytes::copy_from_slice(wanted));
                rest
            }
            [option, ..] => {
                return Reply::error_text(format!(
                    "ERR Syntax error in HELLO option '{}'",
                    String::from_utf8_lossy(&option[..option.len().min(128)])
                ));
            }
        };
    }
    if !session.authenticated {
        return Reply::error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time",
        );
    }
    if let Some(name) = name {
        session.client.facts().name = name;
    }
    session.protocol = protocol;
    session.publish();
    let is_leader = shared.backend.status().role == Role::Leader;
    let pairs = [
        // The name clients look for; who we are stands beside it.
        ("server", Reply::bulk_static("redis")),
        ("version", Reply::bulk_static(REDIS_VERSION)),
        ("proto", Reply::Integer(if protocol == Protocol::Resp3 { 3 } else { 2 })),
        ("id", Reply::Integer(i64::try_from(session.client.id).unwrap_or(i64::MAX))),
        ("mode", Reply::bulk_static("standalone")),
        // A node that takes writes (any does: it forwards them) calls itself a master only if it leads.
        ("role", Reply::bulk_static(if is_leader { "master" } else { "replica" })),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(pairs.into_iter().map(|(key, value)| (Reply::bulk_static(key), value)).collect())
}

/// `AUTH [user] password`
pub(super) fn auth<B: Backend>(session: &mut Session, args: &[Bytes], shared: &Shared<B>) -> Reply {
    let accepted = match args {
        [_, _] if shared.options.password.is_none() => {
            return Reply::error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                 your configuration is correct?",
            );
        }
        [_, password] => accepts(b"default", password, shared),
        [_, user, password] => accepts(user, password, shared),
        _ => return Reply::error("ERR syntax error"),
    };
    if !accepted {
        return wrong_password();
    }
    session.authenticated = true;
    Reply::OK
}

/// `RESET`: the connection is as good as new.
pub(super) fn reset<B: Backend>(session: &mut Session, shared: &Shared<B>) -> Reply {
    session.transaction = Transaction::default();
    session.protocol = Protocol::Resp2;
    session.consistency = Consistency::Linearizable;
    session.read_only = false;
    session.replies = Replies::On;
    session.authenticated = shared.options.password.is_none();
    {
        let mut facts = session.client.facts();
        facts.name = Bytes::new();
        facts.no_evict = false;
        facts.no_touch = false;
    }
    session.publish();
    Reply::simple("RESET")
}

fn accepts<B: Backend>(user: &[u8], password: &[u8], shared: &Shared<B>) -> bool {
    let known = user == b"default";
    match &shared.options.password {
        None => known,
        Some(wanted) => equal_in_constant_time(wanted.as_bytes(), password) && known,
    }
}

/// Whether two strings are equal, in a time that depends on the length of `given` alone: how much of a guess is right
/// cannot be measured.
fn equal_in_constant_time(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = usize::from(secret.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        let other = secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ other));
    }
    std::hint::black_box(difference) == 0
}

fn wrong_password() -> Reply {
    Reply::error("WRONGPASS invalid username-password pair or user is disabled.")
}

#[cfg(test)]
mod tests {
    use super::equal_in_constant_time;

    #[test]
    fn passwords_are_compared_whole() {
        for (secret, given, equal) in [
            ("secret", "secret", true),
            ("secret", "secrex", false),
            ("secret", "secre", false),
            ("secret", "secretsecret", false),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
        ] {
            assert_eq!(
                equal_in_constant_time(secret.as_bytes(), given.as_bytes()),
                equal,
                "{secret} {given}"
            );
        }
    }
}
