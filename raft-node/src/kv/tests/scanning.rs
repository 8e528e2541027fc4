//! SCAN's promise.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Lab;
use crate::kv::{Kv, Reply};

fn page(kv: &Kv, cursor: &Bytes, count: &str) -> (Bytes, Vec<Bytes>) {
    let args = ["SCAN", "", "COUNT", count].map(|word| Bytes::copy_from_slice(word.as_bytes()));
    let args = [args[0].clone(), cursor.clone(), args[2].clone(), args[3].clone()];
    let Reply::Array(parts) = kv.query(&args) else { panic!() };
    let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!() };
    let keys = keys.iter().map(|key| if let Reply::Bulk(key) = key { key.clone() } else { panic!() });
    (next.clone(), keys.collect())
}

#[test]
fn every_key_that_stays_is_returned_exactly_once() {
    for count in ["1", "10", "1000", "1000000"] {
        let mut lab = Lab::new();
        for key in 0..20_000 {
            lab.ask(&format!("SET stay:{key} 1"));
        }
        let mut seen = BTreeMap::<Bytes, u32>::new();
        let mut cursor = Bytes::from_static(b"0");
        let mut step = 0;
        loop {
            let (next, keys) = page(&lab.kv, &cursor, count);
            for key in keys {
                *seen.entry(key).or_default() += 1;
            }
            if next == "0" {
                break;
            }
            cursor = next;
            // Meanwhile other keys come and go, shards grow and shrink, and once the node is another one.
            step += 1;
            lab.ask(&format!("SET come:{step} 1"));
            lab.ask(&format!("DEL come:{}", step / 2));
            if step == 5 {
                for key in 0..30_000 {
                    lab.ask(&format!("SET grow:{key} 1"));
                }
                let mut bytes = Vec::new();
                crate::state_machine::StateMachine::view(&lab.kv).write(&mut bytes).unwrap();
                lab.kv = Kv::new();
                crate::state_machine::StateMachine::restore(&mut lab.kv, &mut &bytes[..]).unwrap();
            }
        }
        assert!(seen.values().all(|times| *times == 1));
        let stayed = seen.keys().filter(|key| key.starts_with(b"stay:")).count();
        assert_eq!(stayed, 20_000, "COUNT {count}");
    }
}

#[test]
fn patterns_types_and_the_end() {
    let mut lab = Lab::new();
    lab.check(
        "MSET user:1 a user:2 b other c -> OK
         SCAN 0 COUNT 100000 MATCH other -> [\"0\" [\"other\"]]
         SCAN 0 COUNT 100000 TYPE hash -> [\"0\" []]
         SCAN 0 COUNT 100000 TYPE string MATCH o* -> [\"0\" [\"other\"]]
         SCAN 18446744073709551615 -> [\"0\" []]
         SCAN 18446744073709551616 -> (ERR invalid cursor)",
    );
}

#[test]
fn random_keys_are_found_among_few_and_many() {
    let mut lab = Lab::new();
    lab.check("MSET a 1 b 2 c 3 -> OK");
    let seen: std::collections::BTreeSet<String> = (0..200).map(|_| lab.ask("RANDOMKEY")).collect();
    assert_eq!(seen.len(), 3);
    lab.check("DEL a b -> 2\nRANDOMKEY -> \"c\"");
}
