//! What every node must agree on: time, transactions, sessions, snapshots.

use bytes::Bytes;
use proptest::prelude::*;
use raft_core::{LogIndex, SessionSeq, Timestamp};

use super::{Lab, show, words};
use crate::{
    kv::{Kv, Reply, request},
    state_machine::{Command, RestoreError, StateMachine},
};

fn snapshot(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    kv.view().write(&mut bytes).unwrap();
    bytes
}

fn restored(bytes: &[u8]) -> Kv {
    let mut kv = Kv::new();
    kv.restore(&mut &bytes[..]).unwrap();
    kv
}

#[test]
fn keys_expire_by_replicated_time_only() {
    let mut lab = Lab::new();
    lab.check("SET a 1 PX 100 -> OK");
    assert_eq!(lab.kv.earliest_deadline(), Some(Timestamp(lab.time + 100)));
    // No entry, no time.
    assert_eq!(lab.ask("GET a"), "\"1\"");
    lab.tick(99);
    assert_eq!(lab.ask("PTTL a"), "1");
    lab.tick(1);
    assert_eq!(lab.ask("GET a"), "nil");
    assert_eq!(lab.kv.earliest_deadline(), None);
    assert_eq!(lab.kv.stats().keys, 0);
    // A leader whose clock is behind does not bring it back.
    lab.time -= 1000;
    lab.check("SET b 1 -> OK");
    assert_eq!(lab.kv.time(), Timestamp(lab.time + 1000));
}

#[test]
fn due_keys_are_hidden_until_they_are_removed() {
    let mut lab = Lab::new();
    for key in 0..100 {
        lab.ask(&format!("SET k{key} 1 PX 10"));
    }
    lab.ask("SET other 1");
    lab.time += 10;
    // One entry removes only some of them.
    lab.check("SET x 1 -> OK");
    assert!(lab.kv.earliest_deadline().is_some());
    lab.check("DBSIZE -> 2");
    for key in 0..100 {
        assert_eq!(lab.ask(&format!("EXISTS k{key}")), "0");
    }
    assert_eq!(lab.ask("SCAN 0 COUNT 1000 MATCH k*"), "[\"0\" []]");
    lab.check(
        "SETNX k0 2 -> 1
         TTL k0 -> -1
         INCR k1 -> 1
         APPEND k2 x -> 1
         DEL k3 -> 0
         RENAME k4 k5 -> (ERR no such key)",
    );
    lab.tick(0);
    assert_eq!(lab.kv.earliest_deadline(), None);
    lab.check("DBSIZE -> 5");
}

#[test]
fn transactions_are_whole() {
    let mut lab = Lab::new();
    let answer = lab.exec(&[], "SET a 1\nINCR a\nLPUSH a 1\nINCRBY a x\nGET a\nPING\nGET\nMULTI");
    assert_eq!(
        answer,
        "[OK 2 (ERR unknown command 'LPUSH', with args beginning with: 'a' '1' ) \
         (ERR value is not an integer or out of range) \"2\" PONG \
         (ERR wrong number of arguments for 'get' command) (ERR 'multi' is not allowed inside a transaction)]"
    );
    assert_eq!(lab.exec(&[], ""), "[]");
}

#[test]
fn watched_keys_that_changed_stop_a_transaction() {
    for (before, change, runs) in [
        ("SET a 1", "SET b 1", true),
        ("SET a 1", "GET a", true),
        ("SET a 1", "SET a 1", false),
        ("SET a 1", "DEL a", false),
        ("SET a 1", "FLUSHALL", false),
        ("SET a 1", "EXPIRE a 100", false),
        ("SET a 1", "RENAME a b", false),
        ("SET b 1", "SET a 1", false),
        ("SET b 1", "RENAME b a", false),
        ("SET b 1", "DEL a", true),
        ("SET a x", "INCR a", true),
    ] {
        let mut lab = Lab::new();
        lab.ask(before);
        let watched = lab.watch("a");
        lab.ask(change);
        let answer = lab.exec(&[watched], "SET done 1");
        assert_eq!(answer, if runs { "[OK]" } else { "no array" }, "{before}, {change}");
        assert_eq!(lab.ask("EXISTS done"), if runs { "1" } else { "0" });
    }
}

#[test]
fn a_key_that_came_and_went_has_changed() {
    let mut lab = Lab::new();
    let watched = lab.watch("a");
    lab.check("SET a 1 -> OK\nDEL a -> 1");
    assert_eq!(lab.exec(&[watched], "PING"), "no array");
    // And it stays so through a snapshot.
    let watched = lab.watch("a");
    lab.check("SET a 1 -> OK\nDEL a -> 1");
    lab.kv = restored(&snapshot(&lab.kv));
    assert_eq!(lab.exec(&[watched], "PING"), "no array");
}

#[test]
fn a_watched_key_that_expires_has_changed() {
    let mut lab = Lab::new();
    // Other keys that expire with it keep it from being removed by the entry itself.
    for key in 0..50 {
        lab.ask(&format!("SET k{key} 1 PX 9"));
    }
    lab.ask("SET a 1 PX 10");
    let watched = lab.watch("a");
    lab.time += 10;
    assert_eq!(lab.exec(&[watched], "PING"), "no array");
    let watched = lab.watch("a");
    assert_eq!(lab.exec(&[watched], "PING"), "[PONG]");
}

#[test]
fn commands_of_a_session_take_effect_once() {
    let mut lab = Lab::new();
    assert_eq!(lab.propose(request::encode_open_session()), Reply::ONE);
    let increment = request::encode_command(&words("INCR n"));
    let id = Some(SessionSeq { session: 1, seq: 1 });
    for _ in 0..3 {
        let command = Command { session: id, ..lab.next(increment.clone()) };
        assert_eq!(lab.kv.apply(&[command])[0], ":1\r\n");
    }
    // It is remembered by whoever starts from a snapshot.
    lab.kv = restored(&snapshot(&lab.kv));
    let command = Command { session: id, ..lab.next(increment.clone()) };
    assert_eq!(lab.kv.apply(&[command])[0], ":1\r\n");
    let command = Command { session: Some(SessionSeq { session: 2, seq: 1 }), ..lab.next(increment) };
    let reply = Reply::decode(&lab.kv.apply(&[command])[0]).unwrap();
    assert!(show(&reply).starts_with("(NOSESSION"), "{reply:?}");
    lab.check("GET n -> \"1\"");
}

#[test]
fn nonsense_in_the_log_is_answered_and_changes_nothing() {
    let mut lab = Lab::new();
    lab.ask("SET a 1");
    let before = lab.kv.fingerprint();
    for payload in [&b""[..], &[0x11], &[0x11, 0], &[0xff; 9], &[0x1e], &[0x11, 1, 3, b'F', b'O', b'O']] {
        assert!(lab.propose(Bytes::copy_from_slice(payload)).is_error(), "{payload:?}");
    }
    // Reads and connection commands have no business there.
    for command in ["GET a", "PING", "SET a", "SET a b NX XX"] {
        assert!(lab.propose(request::encode_command(&words(command))).is_error(), "{command}");
    }
    assert_ne!(lab.kv.fingerprint(), before, "the index moved on");
    assert_eq!(lab.ask("GET a"), "\"1\"");
}

#[test]
fn a_view_shows_the_moment_it_was_taken() {
    let mut lab = Lab::new();
    for key in 0..5000 {
        lab.ask(&format!("SET key:{key} {key} EX {}", 100 + key));
    }
    let before = lab.kv.fingerprint();
    let view = lab.kv.view();
    let again = lab.kv.view();
    for key in 0..5000 {
        lab.ask(&format!("SET key:{key} other"));
        lab.ask(&format!("INCR new:{key}"));
    }
    lab.ask("DEL key:1 key:2");
    let mut bytes = Vec::new();
    view.write(&mut bytes).unwrap();
    assert_eq!(restored(&bytes).fingerprint(), before);
    lab.ask("FLUSHALL");
    let mut same = Vec::new();
    again.write(&mut same).unwrap();
    assert_eq!(bytes, same, "equal states make equal snapshots");
}

#[test]
fn a_damaged_snapshot_is_refused_and_harms_nothing() {
    let mut lab = Lab::new();
    for key in 0..200 {
        lab.ask(&format!("SET key:{key} {key}"));
    }
    lab.ask("SET t 1 EX 5");
    let good = snapshot(&lab.kv);
    let before = lab.kv.fingerprint();
    for length in (0..good.len()).step_by(97) {
        assert!(lab.kv.restore(&mut &good[..length]).is_err());
    }
    let mut other = good.clone();
    other[3] = 9;
    assert!(matches!(lab.kv.restore(&mut &other[..]), Err(RestoreError::Format(0x524B_5609))));
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(lab.kv.restore(&mut &longer[..]), Err(RestoreError::Damaged(_))));
    for at in 0..good.len() {
        let mut other = good.clone();
        other[at] ^= 0x80;
        // Some flips make another valid snapshot (a checksum guards against those); none may panic.
        let _ = Kv::new().restore(&mut &other[..]);
    }
    assert_eq!(lab.kv.fingerprint(), before);
}

#[test]
fn how_entries_are_batched_does_not_matter() {
    let mut one = Lab::new();
    let commands: Vec<Command> = (0..500)
        .map(|at| {
            one.time += 7;
            one.next(request::encode_command(&words(&format!("SET k{} {at} PX {}", at % 37, at % 50 + 1))))
        })
        .collect();
    let mut single = Kv::new();
    let replies: Vec<Bytes> =
        commands.iter().flat_map(|command| single.apply(std::slice::from_ref(command))).collect();
    let mut batched = Kv::new();
    assert_eq!(batched.apply(&commands), replies);
    assert_eq!(single.fingerprint(), batched.fingerprint());
    assert_eq!(batched.applied(), LogIndex(500));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A node that starts from a snapshot in the middle ends where the others do.
    #[test]
    fn a_snapshot_stands_for_what_it_replaces(
        entries in proptest::collection::vec((super::model::any_command(), 0u64..40), 1..120),
        cut in 0usize..120,
    ) {
        let mut lab = Lab::new();
        let mut other = Kv::new();
        for (at, (command, millis)) in entries.iter().enumerate() {
            if at == cut {
                other = restored(&snapshot(&lab.kv));
            }
            lab.time += millis;
            let command = lab.next(request::encode_command(&words(command)));
            let reply = lab.kv.apply(std::slice::from_ref(&command));
            if at >= cut {
                prop_assert_eq!(other.apply(&[command]), reply);
                prop_assert_eq!(other.fingerprint(), lab.kv.fingerprint());
            }
        }
        prop_assert_eq!(restored(&snapshot(&lab.kv)).fingerprint(), lab.kv.fingerprint());
    }
}
