//! How much memory there is: the machine's, or less if the process's control group says so.

use std::{fs, path::Path};

/// Bytes of memory this process may use at most; `None` where the system does not tell.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, |path| fs::read_to_string(path).ok()));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    }
}

/// The default of `--max-memory-bytes`: 75 % of [`memory_bytes`], and no limit where that is unknown.
#[must_use]
pub fn memory_bytes_default() -> u64 {
    memory_bytes().map_or(u64::MAX, |bytes| bytes / 4 * 3)
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The smallest limit on the way from the process's control group to the root; version 2 and the old `memory`
/// controller.
fn group_limit(cgroup: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let full = root.join(group.trim_start_matches('/'));
        for dir in full.ancestors().take_while(|dir| dir.starts_with(root)) {
            // "max" is no number: no limit at this level.
            if let Some(limit) = read(&dir.join(file)).and_then(|text| text.trim().parse::<u64>().ok()) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_machine() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total("nonsense"), None);
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_smallest_limit_above_counts() {
        let read = |path: &Path| match path.to_str() {
            Some("/sys/fs/cgroup/a/b/memory.max") => Some("max\n".to_owned()),
            Some("/sys/fs/cgroup/a/memory.max") => Some("4096\n".to_owned()),
            Some("/sys/fs/cgroup/memory.max") => Some("8192\n".to_owned()),
            _ => None,
        };
        assert_eq!(group_limit("0::/a/b\n", read), Some(4096));
        assert_eq!(group_limit("0::/\n", |_| None), None);
        assert_eq!(group_limit("4:memory:/x\n", |_| Some("77".to_owned())), Some(77));
    }
}
