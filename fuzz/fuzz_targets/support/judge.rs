//! What an open may do to a directory of any content.

use std::{path::Path, sync::Arc};

use raft_core::{Entries, HardState, Term, Write, WriteId};
use raft_wal::{
    CorruptionKind, Engine, Options, Verdict, WalError,
    model::{DIR, options},
    verify,
    vfs::sim::{SimVfs, Survivors},
};

/// Opens, reads everything, writes, and opens again. `sound`: no checksum was made to fit a lie.
pub fn judge(vfs: &SimVfs, verify_on_open: bool, sound: bool) {
    let before = vfs.fingerprint();
    let checked = verify(vfs, Path::new(DIR));
    assert_eq!(vfs.fingerprint(), before, "the offline check changed something");
    let options = Options { verify_on_open, ..options(1 << 63 | 77) };
    let (mut engine, report) = match Engine::open(Arc::new(vfs.clone()), Path::new(DIR), options.clone()) {
        Ok(opened) => opened,
        Err(error) => {
            let clean =
                matches!(&checked, Ok(report) if matches!(report.verdict, Verdict::Clean | Verdict::Torn(_)));
            let refused = matches!(
                error,
                WalError::Corrupt(_)
                    | WalError::Foreign { .. }
                    | WalError::NewerFormat { .. }
                    | WalError::UnknownFeatures { .. }
            );
            assert!(refused, "an error that tells nothing of the files: {error}");
            let foreign = matches!(error, WalError::Foreign { .. });
            assert!(!clean || foreign || !sound, "the offline check found nothing, and yet {error}");
            assert_eq!(vfs.fingerprint(), before, "a refused directory was changed: {error}");
            return;
        }
    };
    let recovered = report.recovered;
    let mut next = recovered.log_start.index.next();
    let mut read = 0_u64;
    while next <= recovered.last {
        match engine.read(next, recovered.last, 1 << 16) {
            Ok(entries) => {
                let last = entries.last().expect("a read gives something or an error").id.index;
                assert!(last >= next && last <= recovered.last, "a read from {next} ended at {last}");
                next = last.next();
                read += entries.len() as u64;
            }
            Err(_) => break,
        }
        assert!(read < 1 << 20, "more entries than bytes");
    }
    if let Some(damage) = report.damaged {
        // What a repair has refilled so far is written again.
        let refilled_so_far = damage.corruption.kind == CorruptionKind::Missing;
        assert!(refilled_so_far || vfs.fingerprint() == before, "a damaged log was changed");
        assert!(!matches!(checked, Ok(report) if matches!(report.verdict, Verdict::Clean)), "{damage}");
        return;
    }
    let write = Write {
        id: WriteId(1),
        hard_state: HardState {
            term: Term(recovered.hard_state.term.0.saturating_add(1)),
            ..recovered.hard_state
        },
        truncate_after: None,
        snapshot: None,
        entries: Entries::EMPTY,
    };
    if engine.append(&write).and_then(|()| engine.flush()).is_err() {
        return;
    }
    drop(engine);
    let after = vfs.crash_machine(Survivors::None);
    let opened = Engine::open(Arc::new(after), Path::new(DIR), options);
    if sound {
        let (_, report) = opened.expect("what was written is found again");
        assert_eq!(report.recovered.hard_state, write.hard_state, "an acknowledged vote is gone");
        assert_eq!(report.recovered.last, recovered.last, "entries came or went");
    }
}
