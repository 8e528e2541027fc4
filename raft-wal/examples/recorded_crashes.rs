//! Crashes of a recorded run of the real binary. Plays its system calls on the simulated disk, and recovers from what a
//! machine crash may have left behind each of them: `raft-node/tests/crashes/run.py` records, and calls this.
//!
//! ```text
//! recorded_crashes OPERATIONS DATA TOKENS [SAMPLES-DIRECTORY HOW-MANY]
//! ```
//! OPERATIONS has a line for each call, DATA the bytes that were written, TOKENS a line for each acknowledged write, in
//! the order in which they were acknowledged: each occurs in what was written, and must be found again.
#![allow(clippy::print_stdout, reason = "it is a tool for the terminal")]
#![expect(clippy::disallowed_methods, reason = "it reads a recording, no log")]

use std::{
    collections::HashSet,
    error::Error,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use raft_core::{ConfState, LogIndex};
use raft_wal::{
    Engine, Options, SEGMENT_BYTES_MIN,
    identity::Identity,
    snapshot_file::SnapshotReader,
    vfs::{
        Vfs as _,
        sim::{Moment, SimVfs, Survivors},
    },
};

const DIR: &str = "/data";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [operations, data, tokens, rest @ ..] = &arguments[..] else {
        println!("recorded_crashes OPERATIONS DATA TOKENS [SAMPLES-DIRECTORY HOW-MANY]");
        return ExitCode::from(2);
    };
    let samples = match rest {
        [directory, count] => Some((PathBuf::from(directory), count.parse().unwrap_or(1))),
        _ => None,
    };
    match run(Path::new(operations), Path::new(data), Path::new(tokens), samples) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    operations: &Path,
    data: &Path,
    tokens: &Path,
    samples: Option<(PathBuf, usize)>,
) -> Result<(), Box<dyn Error>> {
    let (operations, data) = (fs::read_to_string(operations)?, fs::read(data)?);
    let tokens = fs::read_to_string(tokens)?;
    let tokens: Vec<&str> = tokens.lines().collect();
    let moments = play(&operations, &data)?;
    let mut seen = HashSet::new();
    let mut disks = HashSet::new();
    let (mut judged, mut torn) = (0_usize, 0);
    let mut chosen = Vec::new();
    for (number, moment) in moments.iter().enumerate() {
        let acknowledged = usize::try_from(moment.note())?;
        let random = (0..4).map(|n| Survivors::Random(number as u64 * 4 + n));
        for survivors in moment.survivors().into_iter().chain(random) {
            let disk = moment.crash(survivors);
            let fingerprint = disk.fingerprint();
            disks.insert(fingerprint);
            if !seen.insert((fingerprint, acknowledged)) {
                continue;
            }
            let place = |error: Box<dyn Error>| {
                format!(
                    "call {number} of {}, {survivors:?}, {acknowledged} acknowledged: {error}",
                    moments.len()
                )
            };
            judged += 1;
            chosen.push((number, survivors));
            torn += usize::from(recover(&disk.fork(), &tokens[..acknowledged]).map_err(place)?);
            if judged.is_multiple_of(8) {
                // What the first recovery showed is durable: another crash right behind it changes nothing.
                let again = disk.fork();
                recover(&again, &tokens[..acknowledged]).map_err(place)?;
                recover(&again.crash_machine(Survivors::None), &tokens[..acknowledged]).map_err(place)?;
            }
        }
    }
    if let Some((directory, count)) = samples {
        for (n, (number, survivors)) in
            chosen.iter().rev().step_by((chosen.len() / count.max(1)).max(1)).take(count).enumerate()
        {
            let moment = &moments[*number];
            write_out(&moment.crash(*survivors), &directory.join(format!("{n:04}")), moment.note())?;
        }
    }
    println!(
        "{} calls, {} acknowledged writes, {} different disks, {judged} recoveries judged, {torn} cut a torn write, none failed",
        moments.len(),
        tokens.len(),
        disks.len()
    );
    Ok(())
}

/// Plays the recording; a moment for each call.
fn play(operations: &str, data: &[u8]) -> Result<Vec<Moment>, Box<dyn Error>> {
    let vfs = SimVfs::new();
    let dir = Path::new(DIR);
    vfs.create_dir_all(dir)?;
    vfs.record();
    for line in operations.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let path = |name: &str| dir.join(name);
        let number = |word: &str| word.parse::<u64>();
        let played: std::io::Result<()> = match words[..] {
            ["note", note] => {
                vfs.note(number(note)?);
                Ok(())
            }
            ["create", name] => vfs.create(&path(name)).map(|_| ()),
            ["write", name, offset, from, length] => {
                let from = usize::try_from(number(from)?)?;
                let bytes =
                    data.get(from..from + usize::try_from(number(length)?)?).ok_or("no such bytes")?;
                vfs.open(&path(name), true).and_then(|file| file.write_at(bytes, offset.parse().unwrap_or(0)))
            }
            ["allocate", name, length] => {
                let length = number(length)?;
                vfs.open(&path(name), true).and_then(|file| file.allocate(length))
            }
            ["sync", name] => vfs.open(&path(name), true).and_then(|file| file.sync_data()),
            ["rename", from, to] => vfs.rename(&path(from), &path(to)),
            ["unlink", name] => vfs.remove(&path(name)),
            ["syncdir"] => vfs.sync_dir(dir),
            _ => return Err(format!("an unknown operation: {line}").into()),
        };
        played.map_err(|error| format!("{line}: {error}"))?;
    }
    Ok(vfs.take_moments())
}

/// Recovers as a node does: identity, log, snapshot. Every token must be there. Tells whether a torn write was cut.
fn recover(vfs: &SimVfs, tokens: &[&str]) -> Result<bool, Box<dyn Error>> {
    let dir = Path::new(DIR);
    let identity = Identity::load(vfs, dir)?;
    let Some((identity, cluster)) = identity.and_then(|identity| Some((identity.clone(), identity.cluster?)))
    else {
        return if tokens.is_empty() { Ok(false) } else { Err("the identity is gone".into()) };
    };
    let options =
        Options::new(cluster, identity.node, ConfState::default()).with_segment_bytes(SEGMENT_BYTES_MIN);
    let (engine, report) = Engine::open(Arc::new(vfs.clone()), dir, options)?;
    if let Some(damage) = report.damaged {
        return Err(format!("a crash was taken for damage: {damage}").into());
    }
    if let Some(corruption) = report.rebuilt.first() {
        return Err(format!("a crash was taken for damage: {corruption}").into());
    }
    let recovered = report.recovered;
    let mut found = HashSet::new();
    let mut bytes = Vec::new();
    if recovered.snapshot.last.index > LogIndex::ZERO {
        SnapshotReader::open(vfs, dir, cluster, recovered.snapshot.last)?.read_to_end(&mut bytes)?;
    }
    collect(&bytes, &mut found);
    let mut next = recovered.log_start.index.next();
    while next <= recovered.last {
        for entry in engine.read(next, recovered.last, 1 << 20)? {
            collect(&entry.payload, &mut found);
            next = entry.id.index.next();
        }
    }
    match tokens.iter().find(|token| !found.contains(token.as_bytes())) {
        Some(lost) => Err(format!("{lost} was acknowledged and is gone").into()),
        None => Ok(report.torn.is_some()),
    }
}

/// Everything that looks like a token: `<`, at most 30 other characters, `>`.
fn collect(bytes: &[u8], found: &mut HashSet<Vec<u8>>) {
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'<') {
        let end = bytes[at..].iter().take(32).position(|byte| *byte == b'>');
        found.extend(end.map(|end| bytes[at..=at + end].to_vec()));
    }
}

fn write_out(vfs: &SimVfs, to: &Path, acknowledged: u64) -> Result<(), Box<dyn Error>> {
    let dir = to.join("data");
    fs::create_dir_all(&dir)?;
    for entry in vfs.list(Path::new(DIR))? {
        let bytes = vfs.bytes(&Path::new(DIR).join(&entry.name)).unwrap_or_default();
        fs::write(dir.join(&entry.name), bytes)?;
    }
    fs::write(to.join("acknowledged"), acknowledged.to_string())?;
    Ok(())
}
