//! `verify`: checks a data directory that nobody uses.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use raft_wal::{
    Verdict, VerifyReport, WalError,
    identity::Identity,
    layout::{self, Name},
    vfs::{DirEntry, OsVfs, Vfs},
};
use serde_json::{Value, json};

use super::exit::{Failure, print};

/// An unfinished write at the end: harmless.
const TORN: u8 = 1;
/// Damage.
pub(super) const DAMAGED: u8 = 2;
/// Not a data directory.
pub(super) const NOT_A_DATA_DIRECTORY: u8 = 3;
/// Cannot be read or is in use: nothing was concluded.
const NOTHING_CONCLUDED: u8 = 4;

pub(super) fn run(dir: &Path, json: bool) -> Result<(), Failure> {
    let vfs = OsVfs;
    if !dir.is_dir() {
        let what = if dir.exists() { "is no directory" } else { "does not exist" };
        return Err(Failure::with_code(NOT_A_DATA_DIRECTORY, format_args!("{} {what}", dir.display())));
    }
    let report = match raft_wal::verify(&vfs, dir) {
        Ok(report) => report,
        Err(WalError::NotADataDirectory { .. }) if has_lost_its_log(&vfs, dir) => {
            let lost =
                format!("damaged: {} has lost its log: its identity says that there was one", dir.display());
            return Err(Failure::with_code(DAMAGED, lost));
        }
        Err(error) => return Err(Failure::with_code(code_of(&error), error)),
    };
    let mut files = vfs
        .list(dir)
        .map_err(|error| Failure::with_code(NOTHING_CONCLUDED, format_args!("{}: {error}", dir.display())))?;
    files.sort();
    let (mut code, mut sentence) = conclusion(&report.verdict);
    if code != DAMAGED && !files.iter().any(|file| layout::parse(&file.name) == Name::Identity) {
        code = DAMAGED;
        sentence = "damaged: the identity file is missing: it is not known whose log this is".to_owned();
    }
    if json {
        print(format!("{:#}\n", as_json(&report, &files, code, &sentence)))?;
    } else {
        print(as_text(&report, &files, &sentence))?;
    }
    if code == 0 { Ok(()) } else { Err(Failure::with_code(code, "")) }
}

fn has_lost_its_log(vfs: &OsVfs, dir: &Path) -> bool {
    matches!(Identity::load(vfs, dir), Ok(Some(identity)) if identity.has_log)
}

/// The exit code for a check that did not take place.
pub(super) fn code_of(error: &WalError) -> u8 {
    match error {
        WalError::NotADataDirectory { .. } => NOT_A_DATA_DIRECTORY,
        WalError::Corrupt(_) | WalError::Damaged(_) => DAMAGED,
        WalError::Io { .. }
        | WalError::Full { .. }
        | WalError::InUse { .. }
        | WalError::Foreign { .. }
        | WalError::NewerFormat { .. }
        | WalError::UnknownFeatures { .. }
        | WalError::Compacted { .. }
        | WalError::NotFound { .. }
        | WalError::Discontinuous { .. }
        | WalError::TooLarge { .. }
        | WalError::BadOptions(_)
        | WalError::Closed => NOTHING_CONCLUDED,
    }
}

fn conclusion(verdict: &Verdict) -> (u8, String) {
    match verdict {
        Verdict::Clean => (0, "clean".to_owned()),
        Verdict::Torn(torn) => (
            TORN,
            format!(
                "an unfinished write of {} bytes at the end ({} from byte {}): harmless, the next start cuts it off",
                torn.bytes,
                torn.path.display(),
                torn.offset
            ),
        ),
        Verdict::Damaged(damage) => (DAMAGED, format!("damaged: {damage}")),
        Verdict::Corrupt(corruption) => (DAMAGED, format!("damaged: {corruption}")),
    }
}

/// What a file is and what is wrong with it.
fn describe(report: &VerifyReport, file: &DirEntry) -> (&'static str, String) {
    let same = |path: &Path| path.file_name() == Some(file.name.as_os_str());
    let kind = match layout::parse(&file.name) {
        Name::Lock => "lock",
        Name::Identity => "identity",
        Name::Segment(_) => "segment",
        Name::Spare(_) => "spare",
        Name::Torn => "cut off earlier",
        Name::Snapshot(_) => "snapshot",
        Name::Temporary => "unfinished",
        Name::Unknown => "not ours",
    };
    let faults: Vec<String> = report
        .corruptions
        .iter()
        .filter(|corruption| same(&corruption.path))
        .map(|corruption| format!("byte {}: {}", corruption.offset, corruption.kind))
        .collect();
    let state = match &report.verdict {
        _ if !faults.is_empty() => faults.join("; "),
        Verdict::Torn(torn) if same(&torn.path) => format!("unfinished write from byte {}", torn.offset),
        Verdict::Damaged(damage) if same(&damage.corruption.path) => {
            format!("byte {}: {}", damage.corruption.offset, damage.corruption.kind)
        }
        Verdict::Clean | Verdict::Torn(_) | Verdict::Damaged(_) | Verdict::Corrupt(_) => match kind {
            "segment" | "snapshot" => "ok".to_owned(),
            _ => "-".to_owned(),
        },
    };
    (kind, state)
}

fn as_text(report: &VerifyReport, files: &[DirEntry], sentence: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["FILE", "KIND", "BYTES", "STATE"]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for file in files {
        let (kind, state) = describe(report, file);
        let name = super::terminal::harmless(&file.name.to_string_lossy());
        table.add_row([name, kind.to_owned(), file.length.to_string(), state]);
    }
    let range = report.range.map_or_else(
        || "no entries".to_owned(),
        |(first, last)| format!("entries {first} to {last}, {} checked", report.entries),
    );
    let snapshot = report.marked.map_or_else(String::new, |id| format!(", snapshot {id}"));
    format!(
        "{}\n{} segment{}, {range}{snapshot}\n{sentence}\n",
        super::terminal::finish(&table),
        report.segments,
        if report.segments == 1 { "" } else { "s" },
    )
}

fn as_json(report: &VerifyReport, files: &[DirEntry], code: u8, sentence: &str) -> Value {
    let files: Vec<Value> = files
        .iter()
        .map(|file| {
            let (kind, state) = describe(report, file);
            json!({ "name": file.name.to_string_lossy(), "kind": kind, "bytes": file.length, "state": state })
        })
        .collect();
    let damage = match &report.verdict {
        Verdict::Damaged(damage) => json!({
            "file": damage.corruption.path.to_string_lossy(),
            "offset": damage.corruption.offset,
            "first_index": damage.first,
            "last_index": damage.last,
            "promised_index": damage.promised.index,
        }),
        Verdict::Corrupt(corruption) => {
            json!({ "file": corruption.path.to_string_lossy(), "offset": corruption.offset })
        }
        Verdict::Clean | Verdict::Torn(_) => Value::Null,
    };
    let torn = match &report.verdict {
        Verdict::Torn(torn) => {
            json!({ "file": torn.path.to_string_lossy(), "offset": torn.offset, "bytes": torn.bytes })
        }
        Verdict::Clean | Verdict::Damaged(_) | Verdict::Corrupt(_) => Value::Null,
    };
    json!({
        "code": code,
        "verdict": match code {
            0 => "clean",
            TORN => "torn",
            _ => "damaged",
        },
        "message": sentence,
        "segments": report.segments,
        "entries": report.entries,
        "first_index": report.range.map(|(first, _)| first),
        "last_index": report.range.map(|(_, last)| last),
        "snapshot_index": report.marked.map(|id| id.index),
        "torn": torn,
        "damage": damage,
        "files": files,
    })
}

#[cfg(test)]
mod tests {
    use raft_core::{LogId, LogIndex};
    use raft_wal::{Corruption, CorruptionKind, Damage, Torn};

    use super::*;

    fn report(verdict: Verdict, corruptions: Vec<Corruption>) -> VerifyReport {
        VerifyReport {
            verdict,
            segments: 2,
            entries: 40,
            range: Some((LogIndex(1), LogIndex(40))),
            corruptions,
            snapshots: vec![],
            marked: None,
            unknown_files: vec![],
        }
    }

    fn files() -> Vec<DirEntry> {
        let file = |name: String, length| DirEntry { name: name.into(), is_file: true, length };
        vec![file("LOCK".to_owned(), 0), file(layout::segment(1), 65536), file(layout::segment(2), 65536)]
    }

    #[test]
    fn damage_names_file_offset_and_range() {
        let corruption = Corruption {
            path: Path::new("d").join(layout::segment(1)),
            offset: 4096,
            kind: CorruptionKind::Payload(LogId::new(2, 7)),
        };
        let damage = Damage {
            first: LogIndex(7),
            last: LogIndex(9),
            promised: LogId::new(2, 40),
            corruption: corruption.clone(),
        };
        let report = report(Verdict::Damaged(damage), vec![corruption]);
        let (code, sentence) = conclusion(&report.verdict);
        assert_eq!(code, 2);
        assert_eq!(
            as_text(&report, &files(), &sentence),
            "\
FILE                      KIND     BYTES  STATE
LOCK                      lock         0  -
wal-0000000000000001.log  segment  65536  byte 4096: the payload of entry 7@2 is damaged
wal-0000000000000002.log  segment  65536  ok

2 segments, entries 1 to 40, 40 checked
damaged: entries 7 to 9 are damaged (d/wal-0000000000000001.log is damaged at byte 4096: the payload of entry 7@2 is \
             damaged); this node had acknowledged everything up to 40@2
"
        );
        let json = as_json(&report, &files(), code, &sentence);
        assert_eq!((&json["damage"]["offset"], &json["damage"]["first_index"]), (&json!(4096), &json!(7)));
    }

    #[test]
    fn codes() {
        let torn = Torn { path: "d/x".into(), offset: 1, bytes: 2, kept: None };
        assert_eq!(conclusion(&Verdict::Clean).0, 0);
        assert_eq!(conclusion(&Verdict::Torn(torn)).0, 1);
        assert_eq!(code_of(&WalError::NotADataDirectory { path: "d".into() }), 3);
        assert_eq!(code_of(&WalError::InUse { path: "d".into() }), 4);
    }
}
