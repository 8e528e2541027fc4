//! The checker itself: it takes what is right and finds what is wrong.

use crate::history::{Answer, Operation, Step, Verdict, check};

fn op(client: usize, called: u64, answered: u64, step: Step, answer: Answer) -> Operation {
    Operation { client, called, steps: vec![step], answered: Some((answered, vec![answer])) }
}

fn set(called: u64, answered: u64, value: &str) -> Operation {
    op(1, called, answered, Step::Set(0, value.into()), Answer::Ok)
}

fn get(called: u64, answered: u64, value: Option<&str>) -> Operation {
    op(2, called, answered, Step::Get(0), Answer::Text(value.map(Into::into)))
}

fn unknown(called: u64, step: Step) -> Operation {
    Operation { client: 3, called, steps: vec![step], answered: None }
}

#[track_caller]
fn good(operations: &[Operation]) {
    assert_eq!(check(operations), Verdict::Linearizable);
}

#[track_caller]
fn bad(operations: &[Operation]) {
    assert!(matches!(check(operations), Verdict::Broken(_)), "{:?}", check(operations));
}

#[test]
fn a_read_sees_the_last_write_before_it() {
    good(&[set(0, 10, "a"), get(11, 20, Some("a"))]);
    bad(&[set(0, 10, "a"), get(11, 20, None)]);
    bad(&[set(0, 10, "a"), set(11, 20, "b"), get(21, 30, Some("a"))]);
}

#[test]
fn a_read_beside_a_write_sees_either() {
    good(&[set(0, 10, "a"), get(5, 20, None)]);
    good(&[set(0, 10, "a"), get(5, 20, Some("a"))]);
    // But two reads, one after the other, do not see it come and go.
    bad(&[set(0, 100, "a"), get(5, 20, Some("a")), get(21, 30, None)]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    bad(&[set(0, 10, "a"), get(11, 20, Some("x"))]);
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_not_before_its_call() {
    let late = unknown(0, Step::Set(0, "u".into()));
    good(&[late.clone(), set(1, 10, "a"), get(11, 20, Some("a"))]);
    good(&[late.clone(), set(1, 10, "a"), get(11, 20, Some("a")), get(500, 501, Some("u"))]);
    bad(&[late.clone(), get(11, 20, Some("u")), get(21, 30, None)]);
    bad(&[unknown(50, Step::Set(0, "u".into())), get(11, 20, Some("u"))]);
}

#[test]
fn a_lost_append_and_a_doubled_one_are_found() {
    let append = |called, text: &str, length| {
        op(1, called, called + 5, Step::Append(0, text.into()), Answer::Number(length))
    };
    good(&[append(0, "a", 1), append(10, "b", 2), get(20, 25, Some("ab"))]);
    bad(&[append(0, "a", 1), append(10, "b", 2), get(20, 25, Some("a"))]);
    bad(&[append(0, "a", 1), append(10, "b", 2), get(20, 25, Some("abb"))]);
    bad(&[append(0, "a", 1), append(10, "b", 1)]);
    // An unknown append is applied once at most.
    good(&[append(0, "a", 1), unknown(6, Step::Append(0, "u".into())), get(20, 25, Some("au"))]);
    bad(&[append(0, "a", 1), unknown(6, Step::Append(0, "u".into())), get(20, 25, Some("auu"))]);
}

#[test]
fn a_counter_that_counts_twice_or_not_at_all_is_found() {
    let incr = |called, value| op(1, called, called + 5, Step::Incr(1), Answer::Number(value));
    good(&[incr(0, 1), incr(3, 2), incr(10, 3)]);
    good(&[incr(0, 2), incr(3, 1)]);
    bad(&[incr(0, 1), incr(3, 1)]);
    bad(&[incr(0, 1), incr(10, 3)]);
    bad(&[incr(0, 2), incr(10, 1)]);
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let both = Operation {
        client: 1,
        called: 0,
        steps: vec![Step::Set(0, "a".into()), Step::Incr(1)],
        answered: Some((10, vec![Answer::Ok, Answer::Number(1)])),
    };
    let look = |called, text: Option<&str>, count: Option<&str>| Operation {
        client: 2,
        called,
        steps: vec![Step::Get(0), Step::Get(1)],
        answered: Some((
            called + 5,
            vec![Answer::Text(text.map(Into::into)), Answer::Text(count.map(Into::into))],
        )),
    };
    good(&[both.clone(), look(2, None, None)]);
    good(&[both.clone(), look(2, Some("a"), Some("1"))]);
    bad(&[both.clone(), look(2, Some("a"), None)]);
    bad(&[both, look(2, None, Some("1"))]);
}

/// Many unknown writes must not make the search explode where each is either seen or not.
#[test]
fn many_unknown_writes_are_decided() {
    let mut history = Vec::new();
    for n in 0..60 {
        let at = n * 10;
        history.push(unknown(at, Step::Append(2, format!("<u{n}>"))));
        history.push(set(at + 1, at + 4, &n.to_string()));
        history.push(get(at + 5, at + 9, Some(&n.to_string())));
    }
    good(&history);
    history.push(get(1000, 1001, Some("7")));
    assert_ne!(check(&history), Verdict::Linearizable);
}
