//! Commands of Redis that a node does not have, by what they belong to: a client is told what is missing, not that it
//! may have misspelt a word.

use bytes::Bytes;

use crate::kv::{Reply, table};

/// The refusal of a command that Redis has and this node does not; `None` for any other. It begins as Redis's own word
/// for a command it does not know, by which clients tell what a server can do.
pub(super) fn refusal(args: &[Bytes]) -> Option<Reply> {
    let name = args.first()?;
    if table::lookup(name).is_some() {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let (family, _) = FAMILIES.iter().find(|(_, names)| names.split_whitespace().any(|one| one == name))?;
    Some(Reply::error_text(format!("ERR unknown command '{name}': this node {family}")))
}

/// What is missing, as the end of the sentence "this node …", and the commands it takes.
const FAMILIES: [(&str, &str); 6] = [
    (
        "keeps strings only: no lists, hashes, sets, sorted sets, streams, bitmaps, JSON or positions",
        "blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange lrem lset \
         ltrim rpop rpoplpush rpush rpushx hdel hexists hexpire hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset \
         hpexpire hpersist hpttl hrandfield hscan hset hsetnx hstrlen httl hvals sadd scard sdiff sdiffstore sinter \
         sintercard sinterstore sismember smembers smismember smove spop srandmember srem sscan sunion sunionstore \
         bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount \
         zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem \
         zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan \
         zscore zunion zunionstore xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending xrange xread xreadgroup \
         xrevrange xsetid xtrim bitcount bitfield bitfield_ro bitop bitpos getbit setbit pfadd pfcount pfmerge geoadd \
         geodist geohash geopos georadius georadiusbymember geosearch geosearchstore sort sort_ro json.get json.set",
    ),
    (
        "has no pub/sub",
        "psubscribe publish pubsub punsubscribe spublish ssubscribe subscribe sunsubscribe unsubscribe monitor",
    ),
    (
        "has no scripts, functions or modules",
        "eval eval_ro evalsha evalsha_ro fcall fcall_ro function module script",
    ),
    ("has one database", "move swapdb"),
    (
        "writes every command to its log before it answers: there is nothing to save, and no dump to load",
        "bgrewriteaof bgsave dump migrate restore restore-asking save",
    ),
    (
        "is looked after in other ways: see `raft-node help`, its HTTP port and RAFT.STATUS",
        "acl latency psync replicaof shutdown slaveof slowlog sync",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_that_is_served_is_listed_and_none_twice() {
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|(_, names)| names.split_whitespace()).collect();
        let count = names.len();
        for name in &names {
            assert!(table::lookup(name.as_bytes()).is_none(), "{name} is served");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn only_commands_of_redis_are_told_what_is_missing() {
        let refused = |name: &str| refusal(&[Bytes::copy_from_slice(name.as_bytes())]);
        let text = "ERR unknown command 'subscribe': this node has no pub/sub";
        assert_eq!(refused("SUBSCRIBE"), Some(Reply::error_text(text)));
        assert_eq!((refused("FOO"), refused("GET"), refusal(&[])), (None, None, None));
    }
}
