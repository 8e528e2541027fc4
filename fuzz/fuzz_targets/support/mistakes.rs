//! A target that finds none of the known mistakes proves nothing: `RUSTFLAGS="--cfg raft_planted"` builds them in, and
//! `RAFT_MISTAKE` names the one to be found.

pub fn plant() {
    #[cfg(raft_planted)]
    if let Ok(name) = std::env::var("RAFT_MISTAKE") {
        let mistake = raft_core::Mistake::ALL.iter().find(|(mistake, _)| format!("{mistake:?}") == name);
        raft_core::plant(mistake.expect("a mistake of raft-core/src/planted.rs").0);
    }
}
