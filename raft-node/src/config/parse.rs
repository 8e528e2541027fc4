//! From the text of one value to its meaning.

use std::{collections::BTreeMap, net::SocketAddr};

use raft_core::NodeId;

/// A size: plain bytes, or a number with `KiB`, `MiB`, `GiB`, `TiB` (also `K`, `M`, `G`, `T`, powers of 1024 too).
#[must_use]
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor: u64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number(digits)?.checked_mul(factor)
}

/// A whole number; underscores between digits as TOML has them.
#[must_use]
pub(super) fn number(text: &str) -> Option<u64> {
    let plain = text.replace('_', "");
    // `parse` would take a plus sign.
    if !plain.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    plain.parse().ok()
}

/// A size as people write it: exact, in the largest unit that divides it.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// An address to listen at: `IP:port`, `[IPv6]:port` or `localhost:port`. Names are not looked up: which of their
/// addresses would be used, and whether it is this machine only, must not depend on a name server.
#[must_use]
pub fn listen_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse().ok(),
        None => text.parse().ok(),
    }
}

/// An address to connect to: `host:port`, where the host may be a name. Returned as it is.
#[must_use]
pub fn reachable_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = number(port)?.try_into().ok()?;
    let address = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            !host.is_empty() && host.len() <= 253 && host.chars().all(letter)
        }
    };
    (address && port != 0).then(|| text.to_owned())
}

/// `1=host:7402,2=host:7412`: ids and peer addresses. `Err` says what is wrong with which part.
pub(super) fn cluster(text: &str) -> Result<BTreeMap<NodeId, String>, String> {
    let mut members = BTreeMap::new();
    for part in text.split(',') {
        let part = part.trim();
        let member = part.split_once('=').and_then(|(id, address)| {
            Some((number(id.trim()).filter(|id| *id > 0)?, reachable_address(address.trim())?))
        });
        let Some((id, address)) = member else {
            return Err(format!("parts like 1=host:7402, not {part:?}"));
        };
        if members.values().any(|other| *other == address) {
            return Err(format!("each address once, but {address} appears twice"));
        }
        if members.insert(NodeId(id), address).is_some() {
            return Err(format!("each id once, but {id} appears twice"));
        }
    }
    if members.len() > raft_core::VOTERS_MAX {
        return Err(format!("at most {} founding nodes", raft_core::VOTERS_MAX));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, value) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("1_000", 1000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("8b", 8),
        ] {
            assert_eq!(bytes(text), Some(value), "{text}");
        }
        for text in
            ["", "MiB", "-1", "+1", "1.5GiB", "64MB", "1 2", "99999999999TiB", "18446744073709551616", "1é"]
        {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for size in [0, 1, 1023, 1024, 1025, 64 << 20, 1 << 30, 3 << 40] {
            assert_eq!(bytes(&bytes_text(size)), Some(size));
        }
        assert_eq!(bytes_text(64 << 20), "64MiB");
    }

    #[test]
    fn addresses() {
        assert_eq!(listen_address("localhost:7400"), "127.0.0.1:7400".parse().ok());
        assert!(listen_address("[::1]:0").is_some());
        for text in ["", "7400", ":7400", "host:7400", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:7400 "] {
            assert_eq!(listen_address(text), None, "{text}");
        }
        for text in ["a:1", "n1.example.org:7402", "10.0.0.1:7402", "[::1]:7402"] {
            assert!(reachable_address(text).is_some(), "{text}");
        }
        for text in ["", "a", ":1", "a:0", "a:70000", "a b:1", "::1:7402", "[x]:1", "http://a:1"] {
            assert_eq!(reachable_address(text), None, "{text}");
        }
    }

    #[test]
    fn clusters() {
        let members = cluster("1=a:7402, 2=b:7412,3=c:7422").unwrap();
        assert_eq!(members.len(), 3);
        assert_eq!(members[&NodeId(2)], "b:7412");
        for text in ["", "a:1", "0=a:1", "1=a", "1=a:1,", "1=a:1,1=b:1", "1=a:1,2=a:1"] {
            assert!(cluster(text).is_err(), "{text}");
        }
        let ten: Vec<String> = (1..=10).map(|id| format!("{id}=a:{id}")).collect();
        assert!(cluster(&ten.join(",")).is_err());
    }
}
