//! Part D of the suite: the log is cut behind snapshots, and who is too far behind gets one.

use super::{
    Step,
    tester::{Tester, ensure},
};

/// What becomes of the server that is to fall behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// Nothing happens to it.
    Stays,
    /// It is cut off for a while.
    Disconnected,
    /// It is killed and comes back.
    Killed,
}

pub(super) async fn install(t: Tester, fate: Victim) -> Step {
    t.any_one(t.n).await?;
    let mut leader = t.leader().await?;
    for round in 0..30 {
        let next = t.after(leader, 1);
        let (victim, sender) = if round % 3 == 1 { (leader, next) } else { (next, leader) };
        match fate {
            Victim::Stays => {}
            Victim::Disconnected => {
                t.disconnect(&[victim]);
                t.any_one(t.n - 1).await?;
            }
            Victim::Killed => {
                t.kill(victim);
                t.any_one(t.n - 1).await?;
            }
        }
        for _ in 0..5 + t.below(10) {
            t.start(sender, &t.command());
        }
        // With nobody away all must catch up, so that no snapshot has to be sent.
        t.any_one(if fate == Victim::Stays { t.n } else { t.n - 1 }).await?;
        let bytes = t.log_bytes();
        ensure(bytes < LOG_BYTES_MAX, || format!("the persisted state has {bytes} bytes"))?;
        match fate {
            Victim::Stays => {}
            Victim::Disconnected => {
                t.connect(&[victim]);
                t.any_one(t.n).await?;
                leader = t.leader().await?;
            }
            Victim::Killed => {
                t.restart(victim)?;
                t.any_one(t.n).await?;
                leader = t.leader().await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn all_crash(t: Tester) -> Step {
    t.any_one(t.n).await?;
    for _ in 0..5 {
        for _ in 0..5 + t.below(10) {
            t.any_one(t.n).await?;
        }
        let before = t.any_one(t.n).await?;
        restart_all(&t)?;
        let after = t.any_one(t.n).await?;
        ensure(after > before, || format!("the number went back from {before} to {after}"))?;
    }
    Ok(())
}

pub(super) async fn init(t: Tester) -> Step {
    t.any_one(t.n).await?;
    for _ in 0..11 {
        t.any_one(t.n).await?;
    }
    restart_all(&t)?;
    // One command makes the servers persist again; the snapshot must survive that.
    t.any_one(t.n).await?;
    restart_all(&t)?;
    t.any_one(t.n).await?;
    Ok(())
}

fn restart_all(t: &Tester) -> Step {
    (0..t.n).for_each(|server| t.kill(server));
    for server in 0..t.n {
        t.restart(server)?;
        t.connect(&[server]);
    }
    Ok(())
}

/// The suite's limit for the persisted state without the snapshot.
const LOG_BYTES_MAX: u64 = 2000;
