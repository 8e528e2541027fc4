//! Each command, with the edge cases and the words of Redis.

use raft_core::Timestamp;

use super::{Lab, show, words};

#[test]
fn set_and_its_options() {
    Lab::new().check(
        "GET a -> nil
         SET a 1 -> OK
         get a -> \"1\"
         SET a 2 NX -> nil
         SET b 2 NX -> OK
         SET c 1 XX -> nil
         SET a 3 XX -> OK
         SET a 4 GET -> \"3\"
         SET d 4 GET -> nil
         SET d 5 NX GET -> \"4\"
         SET e 5 NX GET -> nil
         GET e -> \"5\"
         SET f 5 XX GET -> nil
         GET f -> nil
         SET a 9 IFEQ 4 -> OK
         SET a 8 IFEQ 4 -> nil
         SET a 8 IFEQ 9 GET -> \"9\"
         SET zz 8 IFEQ \"\" -> nil
         SET a 1 NX XX -> (ERR syntax error)
         SET a 1 IFEQ 1 NX -> (ERR syntax error)
         SET a 1 EX -> (ERR syntax error)
         SET a 1 EX 10 PX 10 -> (ERR syntax error)
         SET a 1 KEEPTTL EX 10 -> (ERR syntax error)
         SET a 1 EX 10 KEEPTTL -> (ERR syntax error)
         SET a 1 nonsense -> (ERR syntax error)
         SET a 1 EX 0 -> (ERR invalid expire time in 'set' command)
         SET a 1 PX -5 -> (ERR invalid expire time in 'set' command)
         SET a 1 EX abc -> (ERR value is not an integer or out of range)
         SET a 1 EX 9223372036854775807 -> (ERR invalid expire time in 'set' command)
         SET a 1 PX 9223372036854775807 -> (ERR invalid expire time in 'set' command)
         SET a -> (ERR wrong number of arguments for 'set' command)
         SET \"\" \"\" -> OK
         GET \"\" -> \"\"",
    );
}

/// While nothing was written, `TTL` once stood still.
#[test]
fn the_time_left_counts_down_while_replicated_time_stands_still() {
    let mut lab = Lab::new();
    lab.ask("SET a 1 PX 100000");
    let at = |lab: &Lab, command: &str, later: u64| {
        let clock = Timestamp(lab.kv.time().0.saturating_add_signed(later.cast_signed()));
        show(&lab.kv.query_at(&words(command), || clock))
    };
    assert_eq!((at(&lab, "TTL a", 4000), at(&lab, "PTTL a", 4000)), ("96".into(), "96000".into()));
    assert_eq!(at(&lab, "PTTL a", 200_000), "0", "it is still seen");
    assert_eq!(
        at(&lab, "PTTL a", 0u64.wrapping_sub(5000)),
        "100000",
        "a clock that is behind counts for nothing"
    );
}

#[test]
fn set_and_deadlines() {
    Lab::new().check(
        "SET a 1 EX 100 -> OK
         TTL a -> 100
         SET a 2 -> OK
         TTL a -> -1
         SET a 2 PX 1500 -> OK
         PTTL a -> 1500
         TTL a -> 2
         SET a 3 KEEPTTL -> OK
         PTTL a -> 1500
         SET a 3 EXAT 1700000100 -> OK
         TTL a -> 100
         EXPIRETIME a -> 1700000100
         SET a 3 PXAT 1700000000500 -> OK
         PEXPIRETIME a -> 1700000000500
         SET a 3 EXAT 5 -> OK
         GET a -> nil
         TTL a -> -2
         PEXPIRETIME a -> -2
         SETEX a 10 v -> OK
         TTL a -> 10
         PSETEX a 10 v -> OK
         PTTL a -> 10
         SETEX a 0 v -> (ERR invalid expire time in 'setex' command)
         PSETEX a -1 v -> (ERR invalid expire time in 'psetex' command)
         SETEX a x v -> (ERR value is not an integer or out of range)
         GETSET a w -> \"v\"
         TTL a -> -1",
    );
}

#[test]
fn relatives_of_get_and_set() {
    Lab::new().check(
        "SETNX a 1 -> 1
         SETNX a 2 -> 0
         GETSET a 2 -> \"1\"
         GETSET b 2 -> nil
         GETDEL b -> \"2\"
         GETDEL b -> nil
         GETEX a -> \"2\"
         GETEX a EX 10 -> \"2\"
         TTL a -> 10
         GETEX a -> \"2\"
         TTL a -> 10
         GETEX a PERSIST -> \"2\"
         TTL a -> -1
         GETEX a PXAT 1 -> \"2\"
         GET a -> nil
         GETEX a EX 10 -> nil
         GETEX a EX 0 -> (ERR invalid expire time in 'getex' command)
         GETEX a EX 1 PERSIST -> (ERR syntax error)
         GETEX a NX 1 -> (ERR syntax error)
         MSET a 1 b 2 a 3 -> OK
         MGET a b c -> [\"3\" \"2\" nil]
         MSET a 1 b -> (ERR wrong number of arguments for 'mset' command)
         MSETNX a 1 z 2 -> 0
         GET z -> nil
         MSETNX y 1 z 2 -> 1
         MSETNX y -> (ERR wrong number of arguments for 'msetnx' command)
         CAS a 3 4 -> 1
         CAS a 3 5 -> 0
         CAS none 3 5 -> 0
         GET a -> \"4\"",
    );
}

#[test]
fn counting() {
    Lab::new().check(
        "INCR n -> 1
         INCRBY n 41 -> 42
         DECR n -> 41
         DECRBY n 2 -> 39
         INCRBY n abc -> (ERR value is not an integer or out of range)
         INCRBY n 9223372036854775807 -> (ERR increment or decrement would overflow)
         DECRBY n -9223372036854775808 -> (ERR decrement would overflow)
         SET n 9223372036854775807 -> OK
         INCR n -> (ERR increment or decrement would overflow)
         SET n -9223372036854775808 -> OK
         DECR n -> (ERR increment or decrement would overflow)
         SET s 012 -> OK
         INCR s -> (ERR value is not an integer or out of range)
         SET s 1.5 -> OK
         INCR s -> (ERR value is not an integer or out of range)
         INCRBYFLOAT s 0.1 -> \"1.6\"
         INCRBYFLOAT s -1.6 -> \"0\"
         INCRBYFLOAT s 5.0e3 -> \"5000\"
         INCRBYFLOAT s x -> (ERR value is not a valid float)
         INCRBYFLOAT s inf -> (ERR increment would produce NaN or Infinity)
         SET s text -> OK
         INCRBYFLOAT s 1 -> (ERR value is not a valid float)
         SET t 1 EX 100 -> OK
         INCR t -> 2
         TTL t -> 100
         INCRBYFLOAT t 0.5 -> \"2.5\"
         TTL t -> 100",
    );
}

#[test]
fn parts_of_values() {
    Lab::new().check(
        "APPEND a Hello -> 5
         APPEND a World -> 10
         STRLEN a -> 10
         STRLEN none -> 0
         GETRANGE a 0 4 -> \"Hello\"
         GETRANGE a -5 -1 -> \"World\"
         SUBSTR a 3 5 -> \"loW\"
         GETRANGE a 5 3 -> \"\"
         GETRANGE none 0 -1 -> \"\"
         GETRANGE a x 1 -> (ERR value is not an integer or out of range)
         SETRANGE a 5 Redis -> 10
         GET a -> \"HelloRedis\"
         SETRANGE b 2 x -> 3
         GET b -> \"\\0\\0x\"
         SETRANGE c 5 \"\" -> 0
         EXISTS c -> 0
         SETRANGE a 0 \"\" -> 10
         SETRANGE a -1 x -> (ERR offset is out of range)
         SETRANGE a 536870911 x -> (ERR string exceeds maximum allowed size (proto-max-bulk-len))
         SETRANGE a 9223372036854775807 x -> (ERR string exceeds maximum allowed size (proto-max-bulk-len))
         EXPIRE a 100 -> 1
         APPEND a ! -> 11
         SETRANGE a 0 J -> 11
         TTL a -> 100
         LCS a b LEN -> 0",
    );
}

#[test]
fn deadlines() {
    Lab::new().check(
        "EXPIRE a 10 -> 0
         SET a 1 -> OK
         EXPIRE a 10 -> 1
         TTL a -> 10
         EXPIRE a 20 NX -> 0
         EXPIRE a 20 XX -> 1
         EXPIRE a 10 GT -> 0
         EXPIRE a 30 GT -> 1
         EXPIRE a 40 LT -> 0
         EXPIRE a 20 LT -> 1
         EXPIRE a 15 XX LT -> 1
         PERSIST a -> 1
         PERSIST a -> 0
         EXPIRE a 40 GT -> 0
         EXPIRE a 40 LT -> 1
         PERSIST a -> 1
         EXPIRE a 20 XX -> 0
         EXPIRE a 20 NX -> 1
         PEXPIRE a 1234 -> 1
         PTTL a -> 1234
         EXPIREAT a 1700000010 -> 1
         TTL a -> 10
         PEXPIREAT a 1700000000010 -> 1
         PTTL a -> 10
         EXPIRE a 1 NX XX -> (ERR NX and XX, GT or LT options at the same time are not compatible)
         EXPIRE a 1 GT LT -> (ERR GT and LT options at the same time are not compatible)
         EXPIRE a 1 foo -> (ERR Unsupported option foo)
         EXPIRE a 9223372036854775807 -> (ERR invalid expire time in 'expire' command)
         PEXPIRE a 9223372036854775807 -> (ERR invalid expire time in 'pexpire' command)
         EXPIRE a x -> (ERR value is not an integer or out of range)
         EXPIRE a 0 -> 1
         EXISTS a -> 0
         SET a 1 -> OK
         EXPIRE a -1 -> 1
         EXISTS a -> 0
         SET a 1 -> OK
         EXPIREAT a -5 -> 1
         EXISTS a -> 0
         PERSIST a -> 0",
    );
}

#[test]
fn keys() {
    Lab::new().check(
        "MSET a 1 b 2 c 3 -> OK
         EXISTS a b c d a -> 4
         TOUCH a d -> 1
         TYPE a -> string
         TYPE d -> none
         DEL a d a -> 1
         UNLINK b c -> 2
         DBSIZE -> 0
         RANDOMKEY -> nil
         RENAME x y -> (ERR no such key)
         RENAMENX x y -> (ERR no such key)
         SET x 1 EX 100 -> OK
         RENAME x x -> OK
         RENAMENX x x -> 0
         RENAME x y -> OK
         TTL y -> 100
         SET z 9 -> OK
         RENAMENX y z -> 0
         RENAMENX y w -> 1
         COPY w z -> 0
         COPY w z REPLACE -> 1
         TTL z -> 100
         COPY none z -> 0
         COPY w v DB 0 -> 1
         COPY w u DB 1 -> (ERR DB index is out of range)
         COPY w w -> (ERR source and destination objects are the same)
         COPY w u foo -> (ERR syntax error)
         FLUSHALL FOO -> (ERR syntax error)
         FLUSHALL ASYNC -> OK
         DBSIZE -> 0
         SET only 1 -> OK
         RANDOMKEY -> \"only\"
         KEYS o* -> [\"only\"]
         KEYS x* -> []
         FLUSHDB -> OK
         KEYS * -> []",
    );
}

#[test]
fn introspection() {
    Lab::new().check(
        "SET a 1 -> OK
         SET b text -> OK
         OBJECT ENCODING a -> \"int\"
         OBJECT ENCODING b -> \"embstr\"
         OBJECT ENCODING none -> nil
         OBJECT REFCOUNT a -> 1
         OBJECT IDLETIME a -> 0
         OBJECT ENCODING -> (ERR wrong number of arguments for 'object|encoding' command)
         OBJECT FOO a -> (ERR unknown subcommand 'FOO'. Try OBJECT HELP.)
         MEMORY USAGE none -> nil
         MEMORY USAGE b -> 16
         MEMORY USAGE b SAMPLES 5 -> 16
         MEMORY DOCTOR -> (ERR unknown subcommand 'DOCTOR'. Try MEMORY HELP.)",
    );
}

#[test]
fn strangers_and_mistakes() {
    Lab::new().check(
        "LPUSH a b -> (ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' )
         GET -> (ERR wrong number of arguments for 'get' command)
         GET a b -> (ERR wrong number of arguments for 'get' command)
         SCAN x -> (ERR invalid cursor)
         SCAN 0 COUNT 0 -> (ERR syntax error)
         SCAN 0 COUNT x -> (ERR value is not an integer or out of range)
         SCAN 0 MATCH -> (ERR syntax error)
         SCAN 0 FOO x -> (ERR syntax error)
         SCAN 0 -> [\"0\" []]",
    );
}

#[test]
fn sizes_are_limited() {
    use bytes::Bytes;

    use crate::kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    let mut lab = Lab::new();
    let mut set = |key: usize, value: usize| {
        let args = [Bytes::from_static(b"SET"), vec![b'k'; key].into(), vec![b'v'; value].into()];
        super::show(&lab.run(&args))
    };
    assert_eq!(set(KEY_BYTES_MAX, VALUE_BYTES_MAX), "OK");
    assert_eq!(set(KEY_BYTES_MAX + 1, 1), "(ERR key exceeds maximum allowed size (64 KiB))");
    let too_long = "(ERR string exceeds maximum allowed size (proto-max-bulk-len))";
    assert_eq!(set(1, VALUE_BYTES_MAX + 1), too_long);
    let append = [Bytes::from_static(b"APPEND"), vec![b'k'; KEY_BYTES_MAX].into(), "x".into()];
    assert_eq!(super::show(&lab.run(&append)), too_long);
}
