//! A histogram of latencies: four buckets for every doubling, so a quantile is right to a quarter.

/// Microseconds, counted.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    last: u64,
}

const BUCKETS: usize = 160;

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { buckets: Box::new([0; BUCKETS]), count: 0, last: 0 }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, micros: u64) {
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.last = micros;
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The latency that `percent` of all stay at or below, rounded up to its bucket's end; 0 if there was none.
    pub(crate) fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (place, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return end(place);
            }
        }
        0
    }
}

/// 0 to 3 have buckets of their own, then each doubling has four.
fn bucket(micros: u64) -> usize {
    if micros < 4 {
        return usize::try_from(micros).unwrap_or(0);
    }
    let power = micros.ilog2();
    let quarter = (micros >> (power - 2)) & 3;
    let place = usize::try_from(u64::from(power - 1) * 4 + quarter).unwrap_or(BUCKETS);
    place.min(BUCKETS - 1)
}

/// The largest latency of a bucket.
fn end(place: usize) -> u64 {
    if place < 4 {
        return place as u64;
    }
    let power = place / 4 + 1;
    let quarter = place % 4;
    ((5 + quarter as u64) << (power - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_lies_in_its_bucket() {
        for micros in (0..5000).chain([1 << 20, (1 << 30) + 7]) {
            let place = bucket(micros);
            assert!(micros <= end(place), "{micros}");
            assert!(place == 0 || micros > end(place - 1), "{micros}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_right_to_a_quarter() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(50), 0);
        (1..=1000).for_each(|micros| latencies.record(micros));
        assert!((500..=625).contains(&latencies.quantile(50)));
        assert!((990..=1250).contains(&latencies.quantile(99)));
        assert_eq!(latencies.last(), 1000);
    }
}
