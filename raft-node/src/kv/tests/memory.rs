//! What keys cost, and that memory comes back.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Lab;
use crate::{
    kv::{
        Kv, Reply,
        bank::{SHARDS_PER_BANK, shard_of},
        hash::hash,
        heap::PAGE_BYTES,
    },
    state_machine::StateMachine,
};

fn set(lab: &mut Lab, key: &str, value: &Bytes) {
    let words = [Bytes::from_static(b"SET"), Bytes::copy_from_slice(key.as_bytes()), value.clone()];
    assert_eq!(lab.run(&words), Reply::OK);
}

/// What a key of 16 bytes with a value of 256 costs, by our own estimate and by the operating system's.
#[test]
fn memory_per_key() {
    const KEYS: usize = 300_000;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").ok()?;
        status.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4096)
    };
    let before = resident();
    let mut lab = Lab::new();
    let value = Bytes::from(vec![b'v'; 256]);
    for key in 0..KEYS {
        let key = Bytes::from(format!("key:{key:012}"));
        lab.run(&[Bytes::from_static(b"SET"), key, value.clone()]);
    }
    let estimated = lab.kv.stats().size_bytes;
    eprintln!("estimated: {} bytes a key, {} MiB", estimated / KEYS, estimated >> 20);
    if let (Some(before), Some(after)) = (before, resident()) {
        let measured = after.saturating_sub(before);
        // Other tests run in this process: this figure means something when the test runs alone.
        eprintln!("resident:  {} bytes a key, {} MiB", measured / KEYS, measured >> 20);
    }
    assert!(estimated / KEYS < 295, "{} bytes a key", estimated / KEYS);
    lab.ask("FLUSHALL");
    assert!(lab.kv.stats().size_bytes < 1 << 20);
}

/// Pages are cleared under the records that stay, while views share them.
#[test]
fn values_of_every_size_keep_their_place_in_memory_that_is_cleared() {
    const LIVE: usize = 8000;
    // All in one bank, so that it has many pages.
    let in_bank = |key: &String| shard_of(hash(key.as_bytes())) < SHARDS_PER_BANK;
    let keys: Vec<String> = (0..).map(|key| format!("key:{key}")).filter(in_bank).take(LIVE).collect();
    let mut lab = Lab::new();
    let mut expected = BTreeMap::<String, Bytes>::new();
    let mut views = Vec::new();
    for step in 0..60_000_u32 {
        let random = step.wrapping_mul(2_654_435_761) >> 7;
        let key = keys[random as usize % LIVE].clone();
        if random % 5 == 0 {
            lab.ask(&format!("DEL {key}"));
            expected.remove(&key);
        } else {
            let length = if random % 211 == 0 { 20_000 } else { 100 + random % 400 };
            let value = Bytes::from(vec![step.to_le_bytes()[0]; length as usize]);
            set(&mut lab, &key, &value);
            expected.insert(key, value);
        }
        if step % 20_000 == 10_000 {
            views.push((lab.kv.view(), lab.kv.fingerprint()));
        }
    }
    for (key, value) in &expected {
        assert_eq!(lab.kv.value(key.as_bytes()).as_ref(), Some(value));
    }
    for (view, fingerprint) in views {
        let mut bytes = Vec::new();
        view.write(&mut bytes).unwrap();
        let mut then = Kv::new();
        then.restore(&mut &bytes[..]).unwrap();
        assert_eq!(then.fingerprint(), fingerprint);
    }
    let used: usize = expected.iter().map(|(key, value)| key.len() + value.len() + 24).sum();
    let (taken, empty) = (lab.kv.stats().size_bytes, Kv::new().stats().size_bytes);
    // An eighth for holes, and the page that filled since the last was cleared.
    assert!(taken < empty + used * 8 / 7 + 2 * PAGE_BYTES, "{taken} for {used}");
    for key in expected.keys() {
        lab.ask(&format!("DEL {key}"));
    }
    assert!(lab.kv.stats().size_bytes <= empty + PAGE_BYTES, "the open page is left");
}
