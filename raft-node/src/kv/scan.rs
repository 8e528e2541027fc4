//! `SCAN` and `RANDOMKEY`: walking over the keys in the order of their hashes.
//!
//! A cursor is a position in that order, and the order depends on nothing but the keys. So a cursor is valid at every
//! node and after every restart, and whatever is written meanwhile, each key that is there from the first call to the
//! last is returned exactly once.

use raft_core::Timestamp;

use super::{
    Reply,
    bank::{SHARD_BITS, SHARDS, shard_of},
    glob,
    number::integer_arg,
    store::Store,
    write::{SYNTAX_ERROR, is},
};

/// Answers `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`, given what follows the name.
pub(super) fn answer(store: &Store, now: Timestamp, args: &[&[u8]]) -> Result<Reply, Reply> {
    let (first, options) = args.split_first().ok_or(SYNTAX_ERROR)?;
    let cursor = std::str::from_utf8(first).ok().and_then(|text| text.parse::<u64>().ok());
    let cursor = cursor.ok_or(Reply::error("ERR invalid cursor"))?;
    let (mut pattern, mut count, mut strings) = (None, COUNT_DEFAULT, true);
    let (pairs, odd) = options.as_chunks::<2>();
    for [option, value] in pairs {
        if is(option, "MATCH") {
            pattern = Some(*value);
        } else if is(option, "COUNT") {
            let wanted = integer_arg(value)?;
            count = usize::try_from(wanted).ok().filter(|count| *count > 0).ok_or(SYNTAX_ERROR)?;
        } else if is(option, "TYPE") {
            strings = is(value, "string");
        } else {
            return Err(SYNTAX_ERROR);
        }
    }
    if !odd.is_empty() {
        return Err(SYNTAX_ERROR);
    }
    let (next, keys) = page(store, now, cursor, count);
    let keys = keys
        .into_iter()
        .filter(|key| strings && pattern.is_none_or(|pattern| glob::matches(pattern, key)))
        .map(Reply::bulk);
    let keys = Reply::array(keys);
    if keys.is_error() {
        return Err(keys);
    }
    Ok(Reply::Array(vec![Reply::Bulk(next.to_string().into()), keys]))
}

/// About `count` keys from the position `cursor` on, and the position after them; zero at the end.
fn page(store: &Store, now: Timestamp, cursor: u64, count: usize) -> (u64, Vec<&[u8]>) {
    let mut keys = Vec::new();
    if cursor >= POSITIONS {
        return (0, keys);
    }
    let first = shard_of(cursor << POSITION_SHIFT);
    for shard in first..SHARDS {
        let records = store.sorted(shard);
        let mut position = None;
        // A page is at least an eighth of a shard, so that walking over a very large one is not quadratic.
        let wanted = count.max(keys.len() + records.len() / 8);
        for (hash, record) in &records {
            let view = record.view();
            let at = hash >> POSITION_SHIFT;
            if at < cursor {
                continue;
            }
            // Keys that share a position are never parted.
            if keys.len() >= wanted && position.is_some_and(|position| position != at) {
                return (at, keys);
            }
            if !view.meta.is_due(now) {
                keys.push(view.key);
            }
            position = Some(at);
        }
        if keys.len() >= count && shard + 1 < SHARDS {
            return (((shard + 1) as u64) << (POSITION_BITS - SHARD_BITS), keys);
        }
    }
    (0, keys)
}

/// The first key at or after a random position.
pub(super) fn random_key(store: &Store, now: Timestamp, random: u64) -> Option<&[u8]> {
    if store.len(now) == 0 {
        return None;
    }
    let first = shard_of(random);
    // Once around, and the first shard again for what lies before the position.
    for step in 0..=SHARDS {
        let records = store.sorted((first + step) % SHARDS);
        let mut live = records.iter().filter(|(_, record)| !record.view().meta.is_due(now));
        let found = live.find(|(hash, _)| step > 0 || *hash >= random);
        if let Some((_, record)) = found {
            return Some(record.key());
        }
    }
    None
}

/// Positions are the upper bits of the hash: few enough that every client can hold a cursor (JavaScript's numbers are
/// exact up to 2^53).
const POSITION_BITS: u32 = 48;
const POSITION_SHIFT: u32 = u64::BITS - POSITION_BITS;
const POSITIONS: u64 = 1 << POSITION_BITS;

/// What Redis takes without COUNT.
const COUNT_DEFAULT: usize = 10;
