//! The commands that change the store: read first, then carried out.
//!
//! Reading a command ([`Write::parse`]) depends on its words alone, so that the node that proposes it finds the same
//! mistakes as the nodes that apply it, and keeps them out of the log. What depends on the store or on time is left
//! to [`Write::apply`].

mod apply;

pub(super) use self::apply::Context;

use raft_core::Timestamp;

use super::{
    KEY_BYTES_MAX, Reply, VALUE_BYTES_MAX,
    number::{Float, NOT_A_FLOAT, integer_arg},
    table::{Spec, Verb, wrong_arity},
};

/// A command that changes the store.
#[derive(Debug, PartialEq)]
pub(super) enum Write<'a> {
    /// `SET` and its older relatives.
    Set { key: &'a [u8], value: &'a [u8], when: When<'a>, deadline: NewDeadline, answer: SetAnswer },
    /// `MSET`, `MSETNX`.
    SetAll { pairs: &'a [&'a [u8]], only_new: bool },
    /// `GETDEL`.
    Take { key: &'a [u8] },
    /// `GETEX`. `None` leaves the deadline alone.
    Touch { key: &'a [u8], deadline: Option<NewDeadline> },
    /// `INCR`, `DECR`, `INCRBY`, `DECRBY`.
    Add { key: &'a [u8], by: i64 },
    /// `INCRBYFLOAT`.
    AddFloat { key: &'a [u8], by: Float },
    /// `APPEND`.
    Append { key: &'a [u8], value: &'a [u8] },
    /// `SETRANGE`.
    SetRange { key: &'a [u8], offset: usize, value: &'a [u8] },
    /// `CAS`.
    CompareAndSet { key: &'a [u8], expected: &'a [u8], new: &'a [u8] },
    /// `DEL`, `UNLINK`.
    Remove { keys: &'a [&'a [u8]] },
    /// `EXPIRE` and its relatives.
    Expire { key: &'a [u8], at: Moment, when: ExpireWhen },
    /// `PERSIST`.
    Persist { key: &'a [u8] },
    /// `RENAME`, `RENAMENX`.
    Rename { from: &'a [u8], to: &'a [u8], only_new: bool },
    /// `COPY`.
    Copy { from: &'a [u8], to: &'a [u8], replace: bool },
    /// `FLUSHDB`, `FLUSHALL`.
    Clear,
}

/// On which condition `SET` takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When<'a> {
    Always,
    /// NX
    New,
    /// XX
    Exists,
    /// IFEQ
    Equals(&'a [u8]),
}

/// What a successful `SET` answers, and a refused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetAnswer {
    /// `OK`, or null.
    Status,
    /// 1, or 0.
    Flag,
    /// The value before, either way.
    Old,
}

/// What becomes of the deadline of a key that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewDeadline {
    /// It loses its deadline.
    None,
    /// KEEPTTL
    Keep,
    /// It gets this one.
    At(Moment),
}

/// A point in time as a client states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    millis: i64,
    /// Counted from the replicated time at which the command is applied, not from 1970.
    relative: bool,
    /// For the error text.
    command: &'static str,
}

impl Moment {
    /// The point in replicated time; zero stands for everything before 1970.
    ///
    /// # Errors
    /// The reply to a time beyond what 64 bits can hold.
    pub(super) fn resolve(self, now: Timestamp) -> Result<Timestamp, Reply> {
        let base = if self.relative { i64::try_from(now.0).unwrap_or(i64::MAX) } else { 0 };
        let at = self.millis.checked_add(base).ok_or_else(|| invalid_expire(self.command))?;
        Ok(Timestamp(u64::try_from(at).unwrap_or(0)))
    }
}

/// On which conditions `EXPIRE` takes effect; none set means always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ExpireWhen {
    /// NX: it has no deadline.
    none: bool,
    /// XX: it has one.
    some: bool,
    /// GT: the new one is later. No deadline is later than any.
    later: bool,
    /// LT: the new one is earlier.
    earlier: bool,
}

impl<'a> Write<'a> {
    /// Reads a command whose number of arguments was found right.
    ///
    /// # Errors
    /// The reply to give: a syntax error, a number that is none, a key or value that is too long.
    #[allow(clippy::wildcard_enum_match_arm, reason = "only the writes are named here")]
    pub(super) fn parse(spec: &'static Spec, args: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
        check_sizes(spec, args)?;
        let arg = |at: usize| args.get(at).copied().unwrap_or_default();
        let key = arg(1);
        let name = spec.name;
        Ok(match spec.verb {
            Verb::Set => parse_set(args)?,
            Verb::Setnx => plain_set(key, arg(2), When::New, NewDeadline::None, SetAnswer::Flag),
            Verb::Getset => plain_set(key, arg(2), When::Always, NewDeadline::None, SetAnswer::Old),
            Verb::Setex | Verb::Psetex => {
                let unit = if spec.verb == Verb::Setex { 1000 } else { 1 };
                let deadline = NewDeadline::At(positive_moment(arg(2), unit, true, name)?);
                plain_set(key, arg(3), When::Always, deadline, SetAnswer::Status)
            }
            Verb::Mset | Verb::Msetnx => {
                if args.len().is_multiple_of(2) {
                    return Err(wrong_arity(name));
                }
                Write::SetAll { pairs: &args[1..], only_new: spec.verb == Verb::Msetnx }
            }
            Verb::Getdel => Write::Take { key },
            Verb::Getex => Write::Touch { key, deadline: parse_touch(&args[2..])? },
            Verb::Incr => Write::Add { key, by: 1 },
            Verb::Decr => Write::Add { key, by: -1 },
            Verb::Incrby => Write::Add { key, by: integer_arg(arg(2))? },
            Verb::Decrby => {
                let by = integer_arg(arg(2))?.checked_neg();
                Write::Add { key, by: by.ok_or(Reply::error("ERR decrement would overflow"))? }
            }
            Verb::Incrbyfloat => Write::AddFloat { key, by: Float::parse(arg(2)).ok_or(NOT_A_FLOAT)? },
            Verb::Append => Write::Append { key, value: arg(2) },
            Verb::Setrange => {
                let offset = usize::try_from(integer_arg(arg(2))?)
                    .map_err(|_| Reply::error("ERR offset is out of range"))?;
                Write::SetRange { key, offset, value: arg(3) }
            }
            Verb::Cas => Write::CompareAndSet { key, expected: arg(2), new: arg(3) },
            Verb::Del | Verb::Unlink => Write::Remove { keys: &args[1..] },
            Verb::Expire => parse_expire(args, 1000, true, name)?,
            Verb::Pexpire => parse_expire(args, 1, true, name)?,
            Verb::Expireat => parse_expire(args, 1000, false, name)?,
            Verb::Pexpireat => parse_expire(args, 1, false, name)?,
            Verb::Persist => Write::Persist { key },
            Verb::Rename => Write::Rename { from: key, to: arg(2), only_new: false },
            Verb::Renamenx => Write::Rename { from: key, to: arg(2), only_new: true },
            Verb::Copy => parse_copy(args)?,
            Verb::Flushdb | Verb::Flushall => match args {
                [_] => Write::Clear,
                [_, how] if is(how, "ASYNC") || is(how, "SYNC") => Write::Clear,
                _ => return Err(SYNTAX_ERROR),
            },
            _ => return Err(Reply::error_text(format!("ERR '{name}' is no command that writes"))),
        })
    }
}

fn plain_set<'a>(
    key: &'a [u8],
    value: &'a [u8],
    when: When<'a>,
    deadline: NewDeadline,
    answer: SetAnswer,
) -> Write<'a> {
    Write::Set { key, value, when, deadline, answer }
}

fn parse_set<'a>(args: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let mut when = When::Always;
    let mut deadline = NewDeadline::None;
    let mut answer = SetAnswer::Status;
    let mut time = None;
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        if is(option, "NX") && matches!(when, When::Always | When::New) {
            when = When::New;
        } else if is(option, "XX") && matches!(when, When::Always | When::Exists) {
            when = When::Exists;
        } else if is(option, "IFEQ") && when == When::Always {
            when = When::Equals(rest.next().ok_or(SYNTAX_ERROR)?);
        } else if is(option, "GET") {
            answer = SetAnswer::Old;
        } else if is(option, "KEEPTTL") && time.is_none() {
            deadline = NewDeadline::Keep;
        } else if let Some(unit) = time_option(option)
            && (time.is_none() && deadline == NewDeadline::None)
        {
            time = Some((unit, rest.next().ok_or(SYNTAX_ERROR)?));
        } else {
            return Err(SYNTAX_ERROR);
        }
    }
    // Only now: a syntax error further on is the one that is told.
    if let Some(((unit, relative), text)) = time {
        deadline = NewDeadline::At(positive_moment(text, unit, relative, "set")?);
    }
    Ok(Write::Set { key: args[1], value: args[2], when, deadline, answer })
}

fn parse_touch(options: &[&[u8]]) -> Result<Option<NewDeadline>, Reply> {
    match options {
        [] => Ok(None),
        [option] if is(option, "PERSIST") => Ok(Some(NewDeadline::None)),
        [option, text] => {
            let (unit, relative) = time_option(option).ok_or(SYNTAX_ERROR)?;
            Ok(Some(NewDeadline::At(positive_moment(text, unit, relative, "getex")?)))
        }
        _ => Err(SYNTAX_ERROR),
    }
}

fn parse_expire<'a>(
    args: &'a [&'a [u8]],
    unit: i64,
    relative: bool,
    command: &'static str,
) -> Result<Write<'a>, Reply> {
    let mut when = ExpireWhen::default();
    for option in &args[3..] {
        if is(option, "NX") {
            when.none = true;
        } else if is(option, "XX") {
            when.some = true;
        } else if is(option, "GT") {
            when.later = true;
        } else if is(option, "LT") {
            when.earlier = true;
        } else {
            let text = String::from_utf8_lossy(&option[..option.len().min(128)]).into_owned();
            return Err(Reply::error_text(format!("ERR Unsupported option {text}")));
        }
    }
    if when.none && (when.some || when.later || when.earlier) {
        return Err(Reply::error("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if when.later && when.earlier {
        return Err(Reply::error("ERR GT and LT options at the same time are not compatible"));
    }
    let millis = integer_arg(args[2])?.checked_mul(unit).ok_or_else(|| invalid_expire(command))?;
    Ok(Write::Expire { key: args[1], at: Moment { millis, relative, command }, when })
}

fn parse_copy<'a>(args: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let mut replace = false;
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        if is(option, "REPLACE") {
            replace = true;
        } else if is(option, "DB") {
            if integer_arg(rest.next().ok_or(SYNTAX_ERROR)?)? != 0 {
                return Err(Reply::error("ERR DB index is out of range"));
            }
        } else {
            return Err(SYNTAX_ERROR);
        }
    }
    if args[1] == args[2] {
        return Err(Reply::error("ERR source and destination objects are the same"));
    }
    Ok(Write::Copy { from: args[1], to: args[2], replace })
}

/// EX, PX, EXAT, PXAT: milliseconds a unit, and whether it counts from now.
fn time_option(option: &[u8]) -> Option<(i64, bool)> {
    if is(option, "EX") {
        Some((1000, true))
    } else if is(option, "PX") {
        Some((1, true))
    } else if is(option, "EXAT") {
        Some((1000, false))
    } else if is(option, "PXAT") {
        Some((1, false))
    } else {
        None
    }
}

fn positive_moment(text: &[u8], unit: i64, relative: bool, command: &'static str) -> Result<Moment, Reply> {
    let millis = integer_arg(text)?.checked_mul(unit).filter(|millis| *millis > 0);
    Ok(Moment { millis: millis.ok_or_else(|| invalid_expire(command))?, relative, command })
}

/// Keys and values that are too long are refused before anything else is looked at.
fn check_sizes(spec: &Spec, args: &[&[u8]]) -> Result<(), Reply> {
    if args.iter().any(|arg| arg.len() > VALUE_BYTES_MAX) {
        return Err(TOO_LONG);
    }
    let mut keys = spec.key_positions(args.len()).filter_map(|at| args.get(at));
    if keys.any(|key| key.len() > KEY_BYTES_MAX) { Err(KEY_TOO_LONG) } else { Ok(()) }
}

fn invalid_expire(command: &str) -> Reply {
    Reply::error_text(format!("ERR invalid expire time in '{command}' command"))
}

pub(super) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

pub(super) const SYNTAX_ERROR: Reply = Reply::error("ERR syntax error");
const TOO_LONG: Reply = Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
const KEY_TOO_LONG: Reply = Reply::error("ERR key exceeds maximum allowed size (64 KiB)");
