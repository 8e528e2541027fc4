//! "Did you mean": the nearest of the valid names.

/// The candidate fewest edits away from `name`, if it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    // Longer names may have more typing errors; a third of the letters is a different word.
    let edits_max = (name.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (edits(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= edits_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that turn `from` into `to`.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Names longer than any of ours are no typing error, and would cost quadratic time.
    if from.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=to.len()).collect();
    for i in 0..from.len() {
        let mut current = vec![i + 1];
        for j in 0..to.len() {
            let mut least = (previous[j + 1] + 1).min(current[j] + 1);
            least = least.min(previous[j] + usize::from(from[i] != to[j]));
            if i > 0 && j > 0 && from[i] == to[j - 1] && from[i - 1] == to[j] {
                least = least.min(before[j - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (from, to, count) in [
            ("", "", 0),
            ("peer", "peer", 0),
            ("pere", "peer", 1),
            ("peers", "peer", 1),
            ("per", "peer", 1),
            ("poor", "peer", 2),
            ("", "http", 4),
        ] {
            assert_eq!(edits(from, to), count, "{from} -> {to}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["data-dir", "heartbeat-ms", "id", "resp"];
        assert_eq!(nearest("hartbeat-ms", keys), Some("heartbeat-ms"));
        assert_eq!(nearest("DATA_DIR", keys), Some("data-dir"));
        assert_eq!(nearest("datadir", keys), Some("data-dir"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys), None);
    }
}
