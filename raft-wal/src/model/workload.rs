//! Generated workloads: the same seed, the same steps.

use super::{Driver, Model, Step};
use crate::{WalError, vfs::sim::SimVfs};

/// A small deterministic generator (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn small(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// One step. Big payloads come now and then, so that segments fill.
fn step(rng: &mut Rng) -> Step {
    match rng.below(40) {
        0..=9 => Step::Append { count: rng.small(), bytes: 300, new_term: rng.below(6) == 0 },
        10..=15 => Step::Append { count: rng.small() % 3, bytes: 5500, new_term: false },
        16 => Step::Append { count: 0, bytes: 0, new_term: true },
        17 => Step::Configure,
        18..=19 => Step::Vote,
        20..=21 => Step::Replace { back: rng.small() },
        22 => Step::Cut { back: rng.small() },
        23..=24 => Step::Snapshot { back: rng.small() },
        25 => Step::Install { ahead: rng.small() },
        26..=27 => Step::Compact,
        28 => Step::Witness,
        29 => Step::Reopen,
        30 => Step::Kill,
        _ => Step::Flush,
    }
}

/// `count` steps of the workload of `seed`, and a flush.
#[must_use]
pub fn workload(seed: u64, count: usize) -> Vec<Step> {
    let mut rng = Rng(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let mut steps: Vec<Step> = (0..count).map(|_| step(&mut rng)).collect();
    steps.push(Step::Flush);
    steps
}

/// Runs `steps` on a new disk, moments recorded from before the log is founded.
///
/// # Errors
/// The log's.
pub fn recorded(seed: u64, steps: &[Step]) -> Result<Driver, WalError> {
    let vfs = SimVfs::new();
    vfs.record();
    let mut driver = Driver::open(vfs, Model::default(), seed)?;
    for step in steps {
        driver.step(*step)?;
    }
    Ok(driver)
}
