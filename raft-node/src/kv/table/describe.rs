//! The replies of `COMMAND`, made from the table.

use bytes::Bytes;

use super::{COMMANDS, Class, Flags, Spec, lookup, wrong_arity};
use crate::kv::{glob, reply::Reply};

/// Answers `COMMAND`, `COMMAND COUNT|LIST|INFO|DOCS|GETKEYS|GETKEYSANDFLAGS|HELP`.
#[must_use]
pub fn command_reply(args: &[Bytes]) -> Reply {
    let Some(subcommand) = args.get(1) else { return Reply::Array(COMMANDS.iter().map(info).collect()) };
    let rest = &args[2..];
    let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
    if is("COUNT") && rest.is_empty() {
        Reply::count(COMMANDS.len())
    } else if is("INFO") {
        if rest.is_empty() {
            return Reply::Array(COMMANDS.iter().map(info).collect());
        }
        Reply::Array(rest.iter().map(|name| lookup(name).map_or(Reply::Null, info)).collect())
    } else if is("DOCS") {
        let named = rest.iter().filter_map(|name| lookup(name));
        Reply::Map(if rest.is_empty() {
            COMMANDS.iter().map(docs).collect()
        } else {
            named.map(docs).collect()
        })
    } else if is("LIST") {
        list(rest)
    } else if is("GETKEYS") || is("GETKEYSANDFLAGS") {
        keys_of(rest, is("GETKEYSANDFLAGS"))
    } else if is("HELP") {
        Reply::Array(HELP.iter().map(|line| Reply::simple(line)).collect())
    } else if is("COUNT") {
        wrong_arity("command|count")
    } else {
        Reply::error_text(format!(
            "ERR unknown subcommand '{}'. Try COMMAND HELP.",
            String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)])
        ))
    }
}

fn list(rest: &[Bytes]) -> Reply {
    let name = |spec: &Spec| Reply::bulk_static(spec.name);
    match rest {
        [] => Reply::Array(COMMANDS.iter().map(name).collect()),
        [filter, by, pattern] if filter.eq_ignore_ascii_case(b"FILTERBY") => {
            let chosen = |spec: &&Spec| {
                if by.eq_ignore_ascii_case(b"PATTERN") {
                    glob::matches(&pattern.to_ascii_lowercase(), spec.name.as_bytes())
                } else if by.eq_ignore_ascii_case(b"ACLCAT") {
                    let wanted = pattern.to_ascii_lowercase();
                    categories(spec).iter().any(|category| category.as_bytes()[1..] == wanted[..])
                } else {
                    false
                }
            };
            if !by.eq_ignore_ascii_case(b"PATTERN")
                && !by.eq_ignore_ascii_case(b"ACLCAT")
                && !by.eq_ignore_ascii_case(b"MODULE")
            {
                return Reply::error("ERR syntax error");
            }
            Reply::Array(COMMANDS.iter().filter(chosen).map(name).collect())
        }
        _ => Reply::error("ERR syntax error"),
    }
}

fn keys_of(command: &[Bytes], with_flags: bool) -> Reply {
    let Some(spec) = command.first().and_then(|name| lookup(name)) else {
        return Reply::error("ERR Invalid command specified");
    };
    if !spec.takes(command.len()) {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    let keys: Vec<Reply> = spec
        .key_positions(command.len())
        .map(|at| Reply::Bulk(command[at].clone()))
        .map(|key| if with_flags { Reply::Array(vec![key, Reply::Array(key_flags(spec))]) } else { key })
        .collect();
    if keys.is_empty() {
        return Reply::error("ERR The command has no key arguments");
    }
    Reply::Array(keys)
}

fn info(spec: &Spec) -> Reply {
    let statuses = |names: &[&'static str]| names.iter().map(|name| Reply::simple(name)).collect();
    Reply::Array(vec![
        Reply::bulk_static(spec.name),
        Reply::Integer(i64::from(spec.arity)),
        Reply::Set(spec.flags.names().map(Reply::simple).collect()),
        Reply::Integer(i64::from(spec.keys.first)),
        Reply::Integer(i64::from(spec.keys.last)),
        Reply::Integer(i64::from(spec.keys.step)),
        Reply::Set(statuses(&categories(spec))),
        Reply::Array(Vec::new()),
        Reply::Set(key_specs(spec)),
        Reply::Array(Vec::new()),
    ])
}

fn docs(spec: &Spec) -> (Reply, Reply) {
    let text = Reply::bulk_static;
    let description = vec![
        (text("summary"), text(spec.summary)),
        (text("since"), text(spec.since)),
        (text("group"), text(spec.group.name())),
        (text("complexity"), text(if spec.flags.contains(Flags::FAST) { "O(1)" } else { "O(N)" })),
    ];
    (text(spec.name), Reply::Map(description))
}

fn categories(spec: &Spec) -> Vec<&'static str> {
    use super::Group;
    let mut categories = Vec::new();
    match spec.class() {
        Class::Write => categories.push("@write"),
        Class::Read => categories.push("@read"),
        Class::Connection => {}
    }
    match spec.group {
        Group::String => categories.push("@string"),
        Group::Generic => categories.push("@keyspace"),
        Group::Connection => categories.push("@connection"),
        Group::Transactions => categories.push("@transaction"),
        Group::Server | Group::Cluster | Group::Raft => {}
    }
    if spec.flags.contains(Flags::ADMIN) {
        categories.extend(["@admin", "@dangerous"]);
    }
    categories.push(if spec.flags.contains(Flags::FAST) { "@fast" } else { "@slow" });
    categories
}

fn key_specs(spec: &Spec) -> Vec<Reply> {
    if spec.keys.first == 0 {
        return Vec::new();
    }
    let text = Reply::bulk_static;
    let last = i64::from(spec.keys.last);
    let last = if last < 0 { last } else { last - i64::from(spec.keys.first) };
    let search = vec![(text("index"), Reply::Integer(i64::from(spec.keys.first)))];
    let range = vec![
        (text("lastkey"), Reply::Integer(last)),
        (text("keystep"), Reply::Integer(i64::from(spec.keys.step))),
        (text("limit"), Reply::ZERO),
    ];
    let typed = |kind: &'static str, spec| {
        Reply::Map(vec![(text("type"), text(kind)), (text("spec"), Reply::Map(spec))])
    };
    vec![Reply::Map(vec![
        (text("flags"), Reply::Set(key_flags(spec))),
        (text("begin_search"), typed("index", search)),
        (text("find_keys"), typed("range", range)),
    ])]
}

fn key_flags(spec: &Spec) -> Vec<Reply> {
    let names: &[&str] = match spec.class() {
        Class::Write => &["RW", "access", "update"],
        Class::Read | Class::Connection => &["RO", "access"],
    };
    names.iter().map(|name| Reply::simple(name)).collect()
}

const HELP: [&str; 8] = [
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)  Return details about all commands.",
    "COUNT  Return the number of commands.",
    "LIST [FILTERBY PATTERN pattern | ACLCAT category]  Return the names of the commands.",
    "INFO [<command-name> ...]  Return details about the given commands.",
    "DOCS [<command-name> ...]  Return documentation about the given commands.",
    "GETKEYS <full-command>  Return the keys of a full command.",
    "GETKEYSANDFLAGS <full-command>  Return the keys and how they are used.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::table::Verb;

    fn ask(command: &str) -> Reply {
        let args: Vec<Bytes> =
            command.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        command_reply(&args)
    }

    #[test]
    fn count_list_and_info_agree() {
        let count = i64::try_from(Verb::COUNT).unwrap();
        assert_eq!(ask("COMMAND COUNT"), Reply::Integer(count));
        for command in ["COMMAND", "COMMAND LIST", "command info"] {
            assert!(matches!(ask(command), Reply::Array(all) if all.len() == Verb::COUNT), "{command}");
        }
        assert!(matches!(ask("COMMAND DOCS"), Reply::Map(all) if all.len() == Verb::COUNT));
    }

    #[test]
    fn info_has_ten_columns_and_null_for_strangers() {
        let Reply::Array(rows) = ask("COMMAND INFO GET lpush") else { panic!() };
        let Reply::Array(get) = &rows[0] else { panic!() };
        assert_eq!(get.len(), 10);
        assert_eq!(get[..2], [Reply::bulk("get"), Reply::Integer(2)]);
        assert_eq!(get[3..6], [Reply::ONE, Reply::ONE, Reply::ONE]);
        assert_eq!(rows[1], Reply::Null);
    }

    #[test]
    fn keys_of_a_command() {
        assert_eq!(
            ask("COMMAND GETKEYS MSET a 1 b 2"),
            Reply::Array(vec![Reply::bulk("a"), Reply::bulk("b")])
        );
        assert_eq!(ask("COMMAND GETKEYS PING"), Reply::error("ERR The command has no key arguments"));
        assert_eq!(ask("COMMAND GETKEYS lpush a b"), Reply::error("ERR Invalid command specified"));
        assert_eq!(
            ask("COMMAND LIST FILTERBY PATTERN *nx"),
            Reply::Array(["setnx", "msetnx", "renamenx"].map(Reply::bulk).to_vec())
        );
        assert!(ask("COMMAND nonsense").is_error());
    }
}
