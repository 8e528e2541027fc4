//! `dump`: the log of a data directory that nobody uses, as text.

use std::{fmt::Write as _, path::Path};

use raft_core::{Entry, EntryKind, LogIndex};
use raft_wal::{Dumped, DumpedRecord, WalError, layout, vfs::OsVfs};
use serde_json::{Value, json};

use super::{
    exit::{Failure, print},
    verify::{DAMAGED, NOT_A_DATA_DIRECTORY, code_of},
};
use crate::kv::request::Request;

/// Which entries are wanted. With a bound, entries alone are shown; without, every record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from: Option<u64>,
    pub(super) to: Option<u64>,
}

impl Range {
    fn wants(self, content: &Dumped) -> bool {
        match content {
            Dumped::Entry(entry) => {
                let LogIndex(index) = entry.id.index;
                self.from.is_none_or(|from| index >= from) && self.to.is_none_or(|to| index <= to)
            }
            Dumped::Segment { .. }
            | Dumped::Cut { .. }
            | Dumped::Mark { .. }
            | Dumped::Commit { .. }
            | Dumped::Seal { .. } => self.from.is_none() && self.to.is_none(),
        }
    }
}

pub(super) fn run(dir: &Path, range: Range, as_json: bool) -> Result<(), Failure> {
    if !dir.is_dir() {
        let what = if dir.exists() { "is no directory" } else { "does not exist" };
        return Err(Failure::with_code(NOT_A_DATA_DIRECTORY, format_args!("{} {what}", dir.display())));
    }
    let records = raft_wal::dump(&OsVfs, dir).map_err(|error| Failure::with_code(code_of(&error), error))?;
    let mut out = String::new();
    let mut first_error = None;
    for record in records {
        match (record, as_json) {
            (Ok(record), _) if !range.wants(&record.content) => {}
            (Ok(record), true) => out.push_str(&line_of(&json_of(&record))),
            (Ok(record), false) => text_of(&record, &mut out),
            (Err(error), as_json) => {
                if as_json {
                    out.push_str(&line_of(&json!({ "kind": "damage", "message": error.to_string() })));
                } else {
                    out.push_str(&format!("!! {error}\n"));
                }
                first_error.get_or_insert(error);
            }
        }
        if out.len() > PIECE_BYTES {
            print(&out)?;
            out.clear();
        }
    }
    print(&out)?;
    match first_error {
        None => Ok(()),
        // It may be an unfinished write, which is harmless: only the check tells.
        Some(WalError::Corrupt(_)) => Err(Failure::with_code(
            DAMAGED,
            format_args!(
                "some records cannot be read; `raft-node verify {}` says what that means",
                dir.display()
            ),
        )),
        Some(error) => Err(Failure::with_code(code_of(&error), error)),
    }
}

/// Printed at once.
const PIECE_BYTES: usize = 64 << 10;
/// Of each word of a command.
const SHOWN_BYTES_MAX: usize = 64;
/// Of each command.
const SHOWN_WORDS_MAX: usize = 16;

fn line_of(value: &Value) -> String {
    format!("{value}\n")
}

fn text_of(record: &DumpedRecord, out: &mut String) {
    let mut line = String::new();
    let written = match &record.content {
        Dumped::Segment { repair, last } => {
            let repair = if *repair { ", begun after damage was accepted" } else { "" };
            let name = layout::segment(record.segment);
            writeln!(out, "segment {} ({name}), behind entry {last}{repair}", record.segment)
        }
        Dumped::Entry(entry) => {
            let session = entry.session.map_or_else(String::new, |session| {
                format!("  session {} seq {}", session.session, session.seq)
            });
            let what = match entry.kind {
                EntryKind::Noop => "no-op".to_owned(),
                EntryKind::ConfChange => "configuration".to_owned(),
                EntryKind::Command => commands(entry).join("; "),
            };
            write!(line, "entry     {}  time {}{session}  {what}", entry.id, entry.time.0)
        }
        Dumped::Cut { after } => write!(line, "cut       everything behind entry {after}"),
        Dumped::Mark { meta, resets_log, restated } => {
            let resets = if *resets_log { ", the log starts anew behind it" } else { "" };
            let restated = if *restated { ", repeated" } else { "" };
            write!(line, "snapshot  {}{resets}{restated}", meta.last)
        }
        Dumped::Commit { batch, watermark, hard_state, last } => write!(
            line,
            "commit    batch {batch}, durable before: {watermark}, term {}, vote {}, commit {}, last {last}",
            hard_state.term,
            hard_state.vote.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            hard_state.commit,
        ),
        Dumped::Seal { next } => write!(line, "seal      next is segment {next}"),
    };
    written.expect("a string takes everything");
    if !line.is_empty() {
        out.push_str(&format!("{:>10}  {line}\n", record.offset));
    }
}

fn json_of(record: &DumpedRecord) -> Value {
    let mut value = match &record.content {
        Dumped::Segment { repair, last } => {
            json!({ "kind": "segment", "repair": repair, "last_index": last.index, "last_term": last.term })
        }
        Dumped::Entry(entry) => json!({
            "kind": "entry",
            "index": entry.id.index,
            "term": entry.id.term,
            "time_ms": entry.time.0,
            "session": entry.session.map(|session| session.session),
            "seq": entry.session.map(|session| session.seq),
            "entry": match entry.kind {
                EntryKind::Noop => "no-op",
                EntryKind::Command => "command",
                EntryKind::ConfChange => "configuration",
            },
            "bytes": entry.payload.len(),
            "commands": if entry.kind == EntryKind::Command { commands(entry) } else { Vec::new() },
        }),
        Dumped::Cut { after } => json!({ "kind": "cut", "after_index": after }),
        Dumped::Mark { meta, resets_log, restated } => json!({
            "kind": "snapshot",
            "last_index": meta.last.index,
            "last_term": meta.last.term,
            "time_ms": meta.time.0,
            "resets_log": resets_log,
            "restated": restated,
        }),
        Dumped::Commit { batch, watermark, hard_state, last } => json!({
            "kind": "commit",
            "batch": batch,
            "watermark": watermark,
            "term": hard_state.term,
            "vote": hard_state.vote,
            "commit_index": hard_state.commit,
            "last_index": last.index,
            "last_term": last.term,
        }),
        Dumped::Seal { next } => json!({ "kind": "seal", "next_segment": next }),
    };
    value["segment"] = json!(record.segment);
    value["offset"] = json!(record.offset);
    value
}

/// What the store would do, or the bytes if they are no request of this release.
fn commands(entry: &Entry) -> Vec<String> {
    match Request::decode(&entry.payload) {
        Ok(Request::Command(words)) => vec![command(&words)],
        Ok(Request::Exec { commands, .. }) => commands.iter().map(|words| command(words)).collect(),
        Ok(Request::Tick) => vec!["(time)".to_owned()],
        Ok(Request::OpenSession) => vec!["(new session)".to_owned()],
        Err(_) => vec![shown(&entry.payload)],
    }
}

fn command(words: &[&[u8]]) -> String {
    let mut text: Vec<String> = words.iter().take(SHOWN_WORDS_MAX).map(|word| shown(word)).collect();
    if words.len() > SHOWN_WORDS_MAX {
        text.push(format!("... ({} words)", words.len()));
    }
    text.join(" ")
}

/// Printable whatever the bytes are, and not too much of them.
fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let plain = !start.is_empty() && start.iter().all(u8::is_ascii_graphic);
    let rest = if bytes.len() > start.len() { format!("... ({} bytes)", bytes.len()) } else { String::new() };
    let start = start.escape_ascii();
    if plain { format!("{start}{rest}") } else { format!("\"{start}\"{rest}") }
}
