//! Carrying out what [`Write`] says, under one index and one replicated time.

use raft_core::{LogIndex, Timestamp};

use super::{
    super::{
        Reply, VALUE_BYTES_MAX,
        number::{Float, IntegerText, NOT_A_FLOAT, NOT_AN_INTEGER, integer},
        record::Meta,
        store::Store,
    },
    ExpireWhen, Moment, NewDeadline, SetAnswer, TOO_LONG, When, Write,
};

/// The entry that is being applied.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) struct Context {
    /// Its index: what it changes is marked with it.
    pub(in crate::kv) index: LogIndex,
    /// Its time: what is due by then is gone, and relative deadlines count from it.
    pub(in crate::kv) now: Timestamp,
}

impl Write<'_> {
    /// Carries it out. The same store, index and time give the same store and reply everywhere.
    pub(in crate::kv) fn apply(self, store: &mut Store, context: Context) -> Reply {
        self.run(store, context).unwrap_or_else(|error| error)
    }

    fn run(self, store: &mut Store, context: Context) -> Result<Reply, Reply> {
        let now = context.now;
        match self {
            Write::Set { key, value, when, deadline, answer } => {
                set(store, context, key, value, when, deadline, answer)
            }
            Write::SetAll { pairs, only_new } => {
                let (pairs, _) = pairs.as_chunks::<2>();
                if only_new && pairs.iter().any(|[key, _]| store.find(key, now).is_some()) {
                    return Ok(Reply::ZERO);
                }
                for [key, value] in pairs {
                    store.put(key, context.meta(None), &[value]);
                }
                Ok(if only_new { Reply::ONE } else { Reply::OK })
            }
            Write::Take { key } => {
                let Some(value) = store.value(key, now) else { return Ok(Reply::Null) };
                store.remove(key, context.index);
                Ok(Reply::Bulk(value))
            }
            Write::Touch { key, deadline } => {
                let Some(value) = store.value(key, now) else { return Ok(Reply::Null) };
                let before = store.get(key, now).and_then(|view| view.meta.deadline);
                match deadline {
                    None | Some(NewDeadline::Keep) => {}
                    Some(NewDeadline::None) if before.is_none() => {}
                    Some(NewDeadline::None) => store.set_meta(key, context.meta(None)),
                    Some(NewDeadline::At(at)) => set_deadline(store, context, key, at.resolve(now)?),
                }
                Ok(Reply::Bulk(value))
            }
            Write::Add { key, by } => {
                let (before, deadline) = match store.get(key, now) {
                    None => (0, None),
                    Some(view) => (integer(view.value).ok_or(NOT_AN_INTEGER)?, view.meta.deadline),
                };
                let overflow = Reply::error("ERR increment or decrement would overflow");
                let sum = before.checked_add(by).ok_or(overflow)?;
                store.put(key, context.meta(deadline), &[IntegerText::new().write(sum)]);
                Ok(Reply::Integer(sum))
            }
            Write::AddFloat { key, by } => {
                let (before, deadline) = match store.get(key, now) {
                    None => (Float::Exact(0), None),
                    Some(view) => (Float::parse(view.value).ok_or(NOT_A_FLOAT)?, view.meta.deadline),
                };
                let sum = before.plus(by);
                let text = sum.ok_or(Reply::error("ERR increment would produce NaN or Infinity"))?.text();
                store.put(key, context.meta(deadline), &[text.as_bytes()]);
                Ok(Reply::bulk(text))
            }
            Write::Append { key, value } => {
                let (before, deadline) = store
                    .find(key, now)
                    .map(|record| (record.value_bytes(), record.view().meta.deadline))
                    .unwrap_or_default();
                let length = before.len() + value.len();
                if length > VALUE_BYTES_MAX {
                    return Err(TOO_LONG);
                }
                store.put(key, context.meta(deadline), &[&before, value]);
                Ok(Reply::count(length))
            }
            Write::SetRange { key, offset, value } => set_range(store, context, key, offset, value),
            Write::CompareAndSet { key, expected, new } => match store.get(key, now) {
                Some(view) if view.value == expected => {
                    let meta = context.meta(view.meta.deadline);
                    store.put(key, meta, &[new]);
                    Ok(Reply::ONE)
                }
                Some(_) | None => Ok(Reply::ZERO),
            },
            Write::Remove { keys } => {
                let mut removed = 0;
                for key in keys {
                    removed +=
                        usize::from(store.find(key, now).is_some() && store.remove(key, context.index));
                }
                Ok(Reply::count(removed))
            }
            Write::Expire { key, at, when } => expire(store, context, key, at, when),
            Write::Persist { key } => match store.get(key, now) {
                Some(view) if view.meta.deadline.is_some() => {
                    store.set_meta(key, context.meta(None));
                    Ok(Reply::ONE)
                }
                Some(_) | None => Ok(Reply::ZERO),
            },
            Write::Rename { from, to, only_new } => {
                let Some(record) = store.find(from, now) else {
                    return Err(Reply::error("ERR no such key"));
                };
                let (value, deadline) = (record.value_bytes(), record.view().meta.deadline);
                if from == to || (only_new && store.find(to, now).is_some()) {
                    return Ok(if only_new { Reply::ZERO } else { Reply::OK });
                }
                store.remove(from, context.index);
                store.put(to, context.meta(deadline), &[&value]);
                Ok(if only_new { Reply::ONE } else { Reply::OK })
            }
            Write::Copy { from, to, replace } => {
                let Some(record) = store.find(from, now) else { return Ok(Reply::ZERO) };
                let (value, deadline) = (record.value_bytes(), record.view().meta.deadline);
                if !replace && store.find(to, now).is_some() {
                    return Ok(Reply::ZERO);
                }
                store.put(to, context.meta(deadline), &[&value]);
                Ok(Reply::ONE)
            }
            Write::Clear => {
                store.clear(context.index);
                Ok(Reply::OK)
            }
        }
    }
}

impl Context {
    fn meta(self, deadline: Option<Timestamp>) -> Meta {
        Meta { modified: self.index, deadline }
    }
}

fn set(
    store: &mut Store,
    context: Context,
    key: &[u8],
    value: &[u8],
    when: When<'_>,
    deadline: NewDeadline,
    answer: SetAnswer,
) -> Result<Reply, Reply> {
    let now = context.now;
    let at = match deadline {
        NewDeadline::At(at) => Some(at.resolve(now)?),
        NewDeadline::None | NewDeadline::Keep => None,
    };
    // The commonest SET needs to know nothing about what was there before.
    let needs_old = when != When::Always || deadline == NewDeadline::Keep || answer == SetAnswer::Old;
    let record = if needs_old { store.find(key, now) } else { None };
    let allowed = match when {
        When::Always => true,
        When::New => record.is_none(),
        When::Exists => record.is_some(),
        When::Equals(expected) => record.is_some_and(|record| record.view().value == expected),
    };
    let reply = match answer {
        SetAnswer::Status => {
            if allowed {
                Reply::OK
            } else {
                Reply::Null
            }
        }
        SetAnswer::Flag => {
            if allowed {
                Reply::ONE
            } else {
                Reply::ZERO
            }
        }
        SetAnswer::Old => record.map_or(Reply::Null, |record| Reply::Bulk(record.value_bytes())),
    };
    let kept = record.and_then(|record| record.view().meta.deadline);
    if allowed {
        match at {
            // Set and gone in the same moment.
            Some(at) if at <= now => {
                store.remove(key, context.index);
            }
            Some(at) => store.put(key, context.meta(Some(at)), &[value]),
            None => {
                let deadline = if deadline == NewDeadline::Keep { kept } else { None };
                store.put(key, context.meta(deadline), &[value]);
            }
        }
    }
    Ok(reply)
}

fn set_range(
    store: &mut Store,
    context: Context,
    key: &[u8],
    offset: usize,
    value: &[u8],
) -> Result<Reply, Reply> {
    let (before, deadline) =
        store.get(key, context.now).map(|view| (view.value.to_vec(), view.meta.deadline)).unwrap_or_default();
    if value.is_empty() {
        return Ok(Reply::count(before.len()));
    }
    let Some(end) = offset.checked_add(value.len()).filter(|end| *end <= VALUE_BYTES_MAX) else {
        return Err(TOO_LONG);
    };
    let mut bytes = before;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(value);
    store.put(key, context.meta(deadline), &[&bytes]);
    Ok(Reply::count(bytes.len()))
}

fn expire(
    store: &mut Store,
    context: Context,
    key: &[u8],
    at: Moment,
    when: ExpireWhen,
) -> Result<Reply, Reply> {
    let at = at.resolve(context.now)?;
    let Some(view) = store.get(key, context.now) else { return Ok(Reply::ZERO) };
    let before = view.meta.deadline;
    let refused = (when.none && before.is_some())
        || (when.some && before.is_none())
        || (when.later && before.is_none_or(|before| at <= before))
        || (when.earlier && before.is_some_and(|before| at >= before));
    if refused {
        return Ok(Reply::ZERO);
    }
    set_deadline(store, context, key, at);
    Ok(Reply::ONE)
}

/// A deadline that has passed removes the key.
fn set_deadline(store: &mut Store, context: Context, key: &[u8], at: Timestamp) {
    if at <= context.now {
        store.remove(key, context.index);
    } else {
        store.set_meta(key, context.meta(Some(at)));
    }
}
