//! How much memory an open takes at its peak: no more than two segments and the index, however many segments there are.
//!
//! `cargo run --release -p raft-wal --example open_memory -- DIR` writes logs of eight segments of 64 MiB below DIR, one
//! after the other, opens each in a process of its own, and fails if the bound does not hold. Linux only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]
#![allow(clippy::disallowed_methods, reason = "it plays the bad medium")]

use std::{env, fs, os::unix::fs::FileExt, path::Path, process::Command, sync::Arc};

use raft_core::{
    ClusterId, ConfState, Entry, EntryKind, HardState, LogId, LogIndex, Member, NodeId, Term, Timestamp,
    Write, WriteId,
};
use raft_wal::{Engine, Options, layout, vfs::OsVfs};

const SEGMENTS: u64 = 8;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["open", dir, verify] => open(Path::new(dir), verify == "verify"),
        [dir] => measure(Path::new(dir)),
        _ => panic!("which directory?"),
    }
}

fn options() -> Options {
    Options::new(ClusterId(7), NodeId(1), ConfState::of_voters([(NodeId(1), Member::default())]))
}

fn measure(below: &Path) {
    println!("| payload | entries | open | of it index | bound | peak |");
    println!("|---|---|---|---|---|---|");
    for payload in [64, 1024, 1 << 20] {
        let dir = below.join(format!("open-memory-{payload}"));
        let entries = build(&dir, payload);
        for how in ["clean", "verify"] {
            told(&dir, payload, entries, how, how);
        }
        // Its footer is gone, so it is read whole.
        let sealed = fs::OpenOptions::new().write(true).open(dir.join(layout::segment(3))).unwrap();
        sealed.write_all_at(&[0; 64], options().segment_bytes - 64).unwrap();
        told(&dir, payload, entries, "clean", "a footer lost");
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// A log that ends in the middle of its last segment.
fn build(dir: &Path, payload: usize) -> u64 {
    let (mut engine, _) = Engine::open(Arc::new(OsVfs), dir, options()).unwrap();
    let payload = bytes::Bytes::from(vec![0x5a; payload]);
    let checksum = Entry::checksum_of(&payload);
    let (mut index, mut write) = (0, 0);
    while engine.stats().segments < SEGMENTS
        || engine.stats().written_bytes < options().segment_bytes * (2 * SEGMENTS - 1) / 2
    {
        let count = ((1 << 20) / payload.len() as u64).clamp(1, 4096);
        let entry = |index| Entry {
            id: LogId::new(1, index),
            time: Timestamp(index),
            session: None,
            kind: EntryKind::Command,
            checksum,
            payload: payload.clone(),
        };
        let entries: Vec<Entry> = (index + 1..=index + count).map(entry).collect();
        (index, write) = (index + count, write + 1);
        let hard_state = HardState { term: Term(1), vote: None, commit: LogIndex::ZERO };
        let id = WriteId(write);
        let write = Write { id, hard_state, truncate_after: None, snapshot: None, entries: entries.into() };
        engine.append(&write).unwrap();
        engine.flush().unwrap();
    }
    engine.close().unwrap();
    index
}

fn told(dir: &Path, payload: usize, entries: u64, how: &str, name: &str) {
    let output = Command::new(env::current_exe().unwrap()).args(["open"]).arg(dir).arg(how).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let peak: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let index = entries * 8;
    let bound = 2 * options().segment_bytes + 3 * index / 2 + options().tail_bytes as u64 * 2 + (4 << 20);
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    println!("| {payload} | {entries} | {name} | {} | {} | {} |", mib(index), mib(bound), mib(peak));
    assert!(peak <= bound, "{peak} bytes at the peak, no more than {bound} were to be taken");
}

/// Tells by how much the peak of this process lies above what it had before.
fn open(dir: &Path, verify_on_open: bool) {
    let resident = |field: &str| -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let before = resident("VmRSS:");
    let (engine, report) =
        Engine::open(Arc::new(OsVfs), dir, Options { verify_on_open, ..options() }).unwrap();
    assert!(report.damaged.is_none());
    println!("{}", resident("VmHWM:") - before);
    drop(engine);
}
