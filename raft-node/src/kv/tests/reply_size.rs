//! A reply has a largest size: a few bytes of request must not make any node build gigabytes.

use bytes::Bytes;

use super::{
    super::reply::{REPLIES_BYTES_MAX, REPLY_BYTES_MAX},
    Lab,
};
use crate::kv::{Reply, VALUE_BYTES_MAX, request};

/// A store with one value of the largest size.
fn lab() -> Lab {
    let mut lab = Lab::new();
    let value = Bytes::from(vec![b'x'; VALUE_BYTES_MAX]);
    lab.run(&[Bytes::from("SET"), Bytes::from("big"), value]);
    lab
}

fn is_too_large(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if String::from_utf8_lossy(text).contains("would be larger than"))
}

fn command(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// The replies to one transaction.
fn exec(lab: &mut Lab, commands: &[&[&str]]) -> Vec<Reply> {
    let commands: Vec<_> = commands.iter().map(|words| command(words)).collect();
    let Reply::Array(replies) = lab.propose(request::encode_exec::<Bytes, Bytes>(&[], &commands)) else {
        panic!("no array")
    };
    replies
}

#[test]
fn one_value_asked_for_a_thousand_times_is_refused() {
    let (mut lab, fit) = (lab(), REPLY_BYTES_MAX / VALUE_BYTES_MAX - 1);
    let mget = |lab: &mut Lab, count| lab.run(&command(&[&["MGET"], &vec!["big"; count][..]].concat()));
    assert!(matches!(mget(&mut lab, fit), Reply::Array(values) if values.len() == fit));
    assert!(is_too_large(&mget(&mut lab, 1000)));
}

#[test]
fn more_keys_than_fit_are_refused_and_scan_still_walks_over_them() {
    let mut lab = Lab::new();
    for number in 1000..2100 {
        let key = number.to_string().repeat(crate::kv::KEY_BYTES_MAX / 4);
        lab.run(&command(&["SET", &key, "v"]));
    }
    assert!(is_too_large(&lab.run(&command(&["KEYS", "*"]))));
    assert!(is_too_large(&lab.run(&command(&["SCAN", "0", "COUNT", "1000000"]))));
    assert!(!lab.run(&command(&["SCAN", "0", "COUNT", "100"])).is_error());
}

#[test]
fn in_a_transaction_what_does_not_fit_is_not_run_and_the_rest_is() {
    let (mut lab, fit) = (lab(), REPLIES_BYTES_MAX / VALUE_BYTES_MAX - 1);
    let mut commands: Vec<&[&str]> = vec![&["GETEX", "big"]; fit];
    commands.extend([
        &["GET", "big"][..],
        &["GETDEL", "big"],
        &["GETSET", "big", "lost"],
        &["SET", "big", "lost", "GET"],
        &["MGET", "small", "big"],
        &["SET", "small", "1"],
        &["INCR", "small"],
        &["STRLEN", "big"],
    ]);
    let replies = exec(&mut lab, &commands);
    let refused: Vec<bool> = replies.iter().map(is_too_large).collect();
    assert_eq!(refused, [vec![false; fit], vec![true; 5], vec![false; 3]].concat());
    let whole = i64::try_from(VALUE_BYTES_MAX).unwrap();
    assert_eq!(replies[fit + 5..], [Reply::OK, Reply::Integer(2), Reply::Integer(whole)]);
    assert!(!exec(&mut lab, &[&["SET", "big", "new"]])[0].is_error(), "a write that answers OK always fits");
}

/// 40 bytes that make a value of 16 MiB, a hundred thousand times: every node would build them, again at each replay.
#[test]
fn a_transaction_copies_so_much_and_no_more() {
    let last = (VALUE_BYTES_MAX - 1).to_string();
    for words in [&["COPY", "big", "other", "REPLACE"][..], &["SETRANGE", "other", &last, "x"]] {
        let mut lab = lab();
        let replies = exec(&mut lab, &vec![words; 40]);
        let refused: Vec<bool> = replies.iter().map(Reply::is_error).collect();
        assert_eq!(refused, [vec![false; 32], vec![true; 8]].concat(), "{words:?}");
    }
    let mut lab = lab();
    lab.ask("SETRANGE long 1048575 x");
    let replies = exec(&mut lab, &vec![&["APPEND", "long", "x"][..]; 600]);
    assert_eq!(replies.iter().filter(|reply| reply.is_error()).count(), 600 - 511);
}
