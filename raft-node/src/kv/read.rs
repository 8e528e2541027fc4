//! The commands that only look.

use raft_core::Timestamp;

use super::{
    Reply,
    bank::{SHARDS, record_bytes},
    glob,
    lcs::Question,
    number::{integer, integer_arg},
    record::View,
    scan,
    store::Store,
    table::{Spec, Verb, wrong_arity},
    write::{SYNTAX_ERROR, is},
};

/// What a read may see.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) store: &'a Store,
    /// Replicated time: keys due by then are not seen.
    pub(super) now: Timestamp,
    /// What the time is for those who are shown how much of it is left.
    pub(super) clock: Timestamp,
    /// Where `RANDOMKEY` begins to look.
    pub(super) random: u64,
}

impl<'a> Reader<'a> {
    /// Answers a command whose number of arguments was found right.
    pub(super) fn answer(self, spec: &'static Spec, args: &[&[u8]]) -> Reply {
        self.try_answer(spec, args).unwrap_or_else(|error| error)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "only the reads are named here")]
    fn try_answer(self, spec: &'static Spec, args: &[&[u8]]) -> Result<Reply, Reply> {
        let arg = |at: usize| args.get(at).copied().unwrap_or_default();
        let key = arg(1);
        Ok(match spec.verb {
            Verb::Get => self.value(key),
            Verb::Mget => Reply::array(args[1..].iter().map(|key| self.value(key))),
            Verb::Strlen => Reply::count(self.get(key).map_or(0, |view| view.value.len())),
            Verb::Getrange | Verb::Substr => {
                let (start, end) = (integer_arg(arg(2))?, integer_arg(arg(3))?);
                Reply::bulk(self.get(key).map_or(&[][..], |view| slice(view.value, start, end)))
            }
            Verb::Lcs => {
                let question = Question::parse(&args[3..])?;
                let value = |key| self.get(key).map_or(&[][..], |view| view.value);
                question.answer(value(key), value(arg(2)))
            }
            Verb::Exists | Verb::Touch => {
                Reply::count(args[1..].iter().filter(|key| self.get(key).is_some()).count())
            }
            Verb::Type => Reply::simple(if self.get(key).is_some() { "string" } else { "none" }),
            // Rounded to the nearest second, as Redis does.
            Verb::Ttl => self.deadline(key, |at, now| at.saturating_sub(now).saturating_add(500) / 1000),
            Verb::Pttl => self.deadline(key, u64::saturating_sub),
            Verb::Expiretime => self.deadline(key, |at, _| at.saturating_add(500) / 1000),
            Verb::Pexpiretime => self.deadline(key, |at, _| at),
            Verb::Randomkey => {
                scan::random_key(self.store, self.now, self.random).map_or(Reply::Null, Reply::bulk)
            }
            Verb::Keys => {
                let found = |view: &View<'_>| !view.meta.is_due(self.now) && glob::matches(key, view.key);
                let records = (0..SHARDS).flat_map(|shard| self.store.sorted(shard));
                Reply::array(
                    records
                        .filter(|(_, record)| found(&record.view()))
                        .map(|(_, record)| Reply::bulk(record.key())),
                )
            }
            Verb::Scan => scan::answer(self.store, self.now, &args[1..])?,
            Verb::Dbsize => Reply::count(self.store.len(self.now)),
            Verb::Object => self.object(args)?,
            Verb::Memory => self.memory(args)?,
            _ => return Err(Reply::error_text(format!("ERR '{}' is no command that reads", spec.name))),
        })
    }

    fn get(self, key: &[u8]) -> Option<View<'a>> {
        self.store.get(key, self.now)
    }

    fn value(self, key: &[u8]) -> Reply {
        self.store.value(key, self.now).map_or(Reply::Null, Reply::Bulk)
    }

    /// -2 without the key, -1 without a deadline.
    fn deadline(self, key: &[u8], shown: impl Fn(u64, u64) -> u64) -> Reply {
        Reply::Integer(match self.get(key).map(|view| view.meta.deadline) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => i64::try_from(shown(at.0, self.clock.0)).unwrap_or(i64::MAX),
        })
    }

    fn object(self, args: &[&[u8]]) -> Result<Reply, Reply> {
        let subcommand = args[1];
        if is(subcommand, "HELP") {
            return Ok(lines(&OBJECT_HELP));
        }
        let known = OBJECT_SUBCOMMANDS.iter().find(|name| is(subcommand, name));
        let name = known.ok_or_else(|| unknown_subcommand("OBJECT", subcommand))?;
        let [_, _, key] = args else {
            return Err(wrong_arity(&format!("object|{}", name.to_ascii_lowercase())));
        };
        let Some(view) = self.get(key) else { return Ok(Reply::Null) };
        Ok(match *name {
            "ENCODING" => Reply::bulk_static(encoding(view.value)),
            "REFCOUNT" => Reply::ONE,
            "IDLETIME" => Reply::ZERO,
            _ => Reply::error(NO_FREQUENCIES),
        })
    }

    fn memory(self, args: &[&[u8]]) -> Result<Reply, Reply> {
        let subcommand = args[1];
        if is(subcommand, "HELP") {
            return Ok(lines(&MEMORY_HELP));
        }
        if !is(subcommand, "USAGE") {
            return Err(unknown_subcommand("MEMORY", subcommand));
        }
        let key = match args {
            [_, _, key] => key,
            [_, _, key, option, samples] if is(option, "SAMPLES") => {
                if integer_arg(samples)? < 0 {
                    return Err(SYNTAX_ERROR);
                }
                key
            }
            [_, _] => return Err(wrong_arity("memory|usage")),
            _ => return Err(SYNTAX_ERROR),
        };
        Ok(self.store.find(key, self.now).map_or(Reply::Null, |record| Reply::count(record_bytes(record))))
    }
}

/// The part of a value that `GETRANGE` names: both ends included, negative ones counted from the end.
fn slice(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { length.saturating_add(at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end {
        return &[];
    }
    let place = |at: i64| usize::try_from(at).unwrap_or(0);
    value.get(place(start)..=place(end)).unwrap_or_default()
}

/// The name Redis has for how it would keep this value.
fn encoding(value: &[u8]) -> &'static str {
    if integer(value).is_some() {
        "int"
    } else if value.len() <= 44 {
        "embstr"
    } else {
        "raw"
    }
}

fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Reply {
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]);
    Reply::error_text(format!("ERR unknown subcommand '{shown}'. Try {command} HELP."))
}

fn lines(text: &[&'static str]) -> Reply {
    Reply::Array(text.iter().map(|line| Reply::simple(line)).collect())
}

const OBJECT_SUBCOMMANDS: [&str; 4] = ["ENCODING", "REFCOUNT", "IDLETIME", "FREQ"];

const NO_FREQUENCIES: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
     that when switching between policies at runtime LRU and LFU data will take some time to adjust.";

const OBJECT_HELP: [&str; 6] = [
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>  Return how the value would be kept by Redis.",
    "FREQ <key>  Not tracked.",
    "IDLETIME <key>  Not tracked: 0.",
    "REFCOUNT <key>  1.",
    "HELP  Print this help.",
];

const MEMORY_HELP: [&str; 3] = [
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]  Return the memory the key takes, in bytes.",
    "HELP  Print this help.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_both_ends() {
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-1, -3, ""),
            (-100, 1, "Th"),
            (-100, -200, ""),
            (100, 200, ""),
            (i64::MIN, i64::MAX, "This is a string"),
        ] {
            assert_eq!(slice(b"This is a string", start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(slice(b"", 0, -1), b"");
        // Redis 7: both ends before the beginning still name the first byte.
        assert_eq!(slice(b"abc", -100, -50), b"a");
    }

    #[test]
    fn encodings() {
        assert_eq!(encoding(b"12"), "int");
        assert_eq!(encoding(b"012"), "embstr");
        assert_eq!(encoding(&[b'x'; 45]), "raw");
    }
}
