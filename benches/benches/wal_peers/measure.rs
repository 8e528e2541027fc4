//! Clocks and counters.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use raft_benches::{noise, physlog::Physlog};

/// Latencies of one kind of call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let outcome = call();
        self.0.push(start.elapsed());
        outcome
    }

    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn extend(&mut self, other: &[Duration]) {
        self.0.extend_from_slice(other);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Microseconds that this part of the calls took at most.
    pub(crate) fn quantile(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let rank = (self.0.len() as f64 * part).ceil().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a vector")]
        let place = rank as usize - 1;
        self.0.get(place).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
    }
}

/// One figure a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(pub(crate) Vec<f64>);

impl Figures {
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn least_decile(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 10).copied().unwrap_or(f64::NAN)
    }

    /// Each round's quotient: a busy moment falls on both.
    pub(crate) fn over(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// The median, the least and the largest.
    pub(crate) fn spread(&self, decimals: usize) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(0.0, f64::max);
        format!("{:.decimals$} ({least:.decimals$} to {most:.decimals$})", self.median())
    }
}

/// What is written to the disk that `dir` lies on, by anybody. `/proc/self/io` would count the process's own, but counts a
/// page of the cache that is larger than 4 KiB as written whole, which the file system does not do.
pub(crate) struct Device {
    stat: String,
}

impl Device {
    pub(crate) fn of(dir: &Path) -> Device {
        let device = fs::metadata(dir).expect("it is there").dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Device { stat: format!("/sys/dev/block/{major}:{minor}/stat") }
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        let text = fs::read_to_string(&self.stat).unwrap_or_default();
        text.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok()).unwrap_or(0) * 512
    }
}

/// The process's memory that no file backs.
pub(crate) fn anonymous_bytes() -> u64 {
    field("/proc/self/status", "RssAnon:") * 1024
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Drops the pages of every file in `dir` from the page cache.
pub(crate) fn cool(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Ok(file) = fs::File::open(entry.path()) {
            file.sync_all().expect("the disk works");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a regular file");
        }
    }
}

/// What the disk itself does now: a durable write of 4 KiB, median and 99th percentile.
pub(crate) fn probe(dir: &Path) -> String {
    let path = dir.join("probe");
    let mut disk = Physlog::create(&path, 16 << 20);
    let payload = [noise(4084)];
    let mut samples = Samples::default();
    for _ in 0..3000 {
        samples.time(|| disk.append(&payload));
    }
    fs::remove_file(path).expect("the file was made");
    format!("p50 {:.0} us, p99 {:.0} us", samples.quantile(0.5), samples.quantile(0.99))
}
