//! The store against a model that is too simple to be wrong: a map from keys to values and deadlines.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Lab;

#[derive(Default)]
struct Model {
    keys: BTreeMap<String, (String, Option<u64>)>,
}

impl Model {
    fn expire(&mut self, now: u64) {
        self.keys.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
    }

    fn ask(&mut self, command: &str, now: u64) -> String {
        self.expire(now);
        let words: Vec<&str> = command.split(' ').collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        let key = words.get(1).copied().unwrap_or_default().to_owned();
        let quoted = |found: Option<&(String, Option<u64>)>| {
            found.map_or_else(|| "nil".to_owned(), |(value, _)| format!("\"{value}\""))
        };
        match words[0] {
            "GET" => quoted(self.keys.get(&key)),
            "SET" => {
                let deadline = match words.get(3) {
                    None => None,
                    Some(&"KEEPTTL") => self.keys.get(&key).and_then(|(_, deadline)| *deadline),
                    Some(_) => Some(now + number(4).unsigned_abs()),
                };
                self.keys.insert(key, (words[2].to_owned(), deadline));
                "OK".to_owned()
            }
            "SETNX" => {
                let new = !self.keys.contains_key(&key);
                self.keys.entry(key).or_insert_with(|| (words[2].to_owned(), None));
                u8::from(new).to_string()
            }
            "APPEND" => {
                let (value, _) = self.keys.entry(key).or_default();
                value.push_str(words[2]);
                value.len().to_string()
            }
            "INCRBY" => {
                let before = self.keys.get(&key).map_or(Some(0), |(value, _)| value.parse::<i64>().ok());
                match before {
                    Some(before) => {
                        let sum = before + number(2);
                        self.keys.entry(key).or_default().0 = sum.to_string();
                        sum.to_string()
                    }
                    None => "(ERR value is not an integer or out of range)".to_owned(),
                }
            }
            "DEL" => words[1..].iter().filter(|key| self.keys.remove(**key).is_some()).count().to_string(),
            "GETDEL" => quoted(self.keys.remove(&key).as_ref()),
            "PEXPIRE" => match self.keys.get_mut(&key) {
                None => "0".to_owned(),
                Some(_) if number(2) <= 0 => {
                    self.keys.remove(&key);
                    "1".to_owned()
                }
                Some((_, deadline)) => {
                    *deadline = Some(now + number(2).unsigned_abs());
                    "1".to_owned()
                }
            },
            "PERSIST" => {
                let taken = self.keys.get_mut(&key).and_then(|(_, deadline)| deadline.take());
                u8::from(taken.is_some()).to_string()
            }
            "PTTL" => match self.keys.get(&key) {
                None => "-2".to_owned(),
                Some((_, None)) => "-1".to_owned(),
                Some((_, Some(deadline))) => (deadline - now).to_string(),
            },
            "RENAME" => match self.keys.remove(&key) {
                None => "(ERR no such key)".to_owned(),
                Some(record) => {
                    self.keys.insert(words[2].to_owned(), record);
                    "OK".to_owned()
                }
            },
            "COPY" => match self.keys.get(&key).cloned() {
                Some(_) if words[1] == words[2] => unreachable!("not generated"),
                Some(record) if !self.keys.contains_key(words[2]) => {
                    self.keys.insert(words[2].to_owned(), record);
                    "1".to_owned()
                }
                Some(_) | None => "0".to_owned(),
            },
            "DBSIZE" => self.keys.len().to_string(),
            "FLUSHALL" => {
                self.keys.clear();
                "OK".to_owned()
            }
            other => panic!("the model does not know {other}"),
        }
    }
}

/// Commands about few keys, so that they meet.
pub(super) fn any_command() -> impl Strategy<Value = String> {
    let key = || prop_oneof!["k[0-5]", Just("a-key-that-is-long-enough-to-be-hashed-by-lanes".to_owned())];
    let value = || prop_oneof!["-?[1-9][0-9]{0,3}", "[a-z]{1,40}"];
    prop_oneof![
        4 => key().prop_map(|key| format!("GET {key}")),
        3 => (key(), value()).prop_map(|(key, value)| format!("SET {key} {value}")),
        2 => (key(), value(), 1..99).prop_map(|(key, value, px)| format!("SET {key} {value} PX {px}")),
        1 => (key(), value()).prop_map(|(key, value)| format!("SET {key} {value} KEEPTTL")),
        1 => (key(), value()).prop_map(|(key, value)| format!("SETNX {key} {value}")),
        2 => (key(), value()).prop_map(|(key, value)| format!("APPEND {key} {value}")),
        2 => (key(), -500..500).prop_map(|(key, by)| format!("INCRBY {key} {by}")),
        2 => (key(), key()).prop_map(|(a, b)| format!("DEL {a} {b}")),
        1 => key().prop_map(|key| format!("GETDEL {key}")),
        2 => (key(), -3..99).prop_map(|(key, px)| format!("PEXPIRE {key} {px}")),
        1 => key().prop_map(|key| format!("PERSIST {key}")),
        2 => key().prop_map(|key| format!("PTTL {key}")),
        1 => (key(), key()).prop_map(|(a, b)| format!("RENAME {a} {b}")),
        1 => (key(), "c[0-2]").prop_map(|(a, b)| format!("COPY {a} {b}")),
        1 => Just("DBSIZE".to_owned()),
        1 => (0..20).prop_map(|at| (if at == 0 { "FLUSHALL" } else { "DBSIZE" }).to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_store_does_what_the_model_does(
        commands in proptest::collection::vec((any_command(), 0u64..30), 1..150)
    ) {
        let mut lab = Lab::new();
        let mut model = Model::default();
        for (command, millis) in commands {
            lab.time += millis;
            // The model is at the new time at once; the store learns of it by an entry.
            lab.tick(0);
            prop_assert_eq!(lab.ask(&command), model.ask(&command, lab.time), "{}", command);
            prop_assert_eq!(lab.kv.stats().keys, model.keys.len());
            let deadlines = model.keys.values().filter_map(|(_, deadline)| *deadline);
            prop_assert_eq!(lab.kv.earliest_deadline().map(|at| at.0), deadlines.min());
        }
    }
}
