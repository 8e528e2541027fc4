//! `CONFIG`: what clients ask for under the names of Redis. Nothing can be set here: a node's configuration is its
//! own file.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Shared, backend::Backend};
use crate::kv::{Reply, glob, table::wrong_arity};

/// `CONFIG GET pattern…`, `CONFIG RESETSTAT`; `CONFIG SET` says where to look.
pub(super) fn config<B: Backend>(args: &[Bytes], shared: &Shared<B>) -> Reply {
    let rest = &args[2..];
    match (args[1].to_ascii_uppercase().as_slice(), rest) {
        (b"GET", []) => wrong_arity("config|get"),
        (b"GET", patterns) => get(patterns, shared),
        (b"SET", [_, _, ..]) if rest.len().is_multiple_of(2) => set(rest, shared),
        (b"SET", _) => wrong_arity("config|set"),
        (b"RESETSTAT", []) => {
            let counters = &shared.clients.counters;
            for counter in [
                &counters.connections,
                &counters.connections_rejected,
                &counters.commands,
                &counters.errors,
                &counters.bytes_in,
                &counters.bytes_out,
            ] {
                counter.store(0, Ordering::Relaxed);
            }
            Reply::OK
        }
        (b"RESETSTAT", _) => wrong_arity("config|resetstat"),
        (b"REWRITE", _) => Reply::error("ERR The server is running without a config file"),
        _ => Reply::error_text(format!(
            "ERR unknown subcommand '{}'. Try CONFIG HELP.",
            String::from_utf8_lossy(&args[1][..args[1].len().min(128)])
        )),
    }
}

fn get<B: Backend>(patterns: &[Bytes], shared: &Shared<B>) -> Reply {
    let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    Reply::Map(
        parameters(shared)
            .into_iter()
            .filter(|(name, _)| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes())))
            .map(|(name, value)| (Reply::bulk_static(name), Reply::bulk(value)))
            .collect(),
    )
}

/// Accepted where it changes nothing, so that tools that write back what they read go on.
fn set<B: Backend>(pairs: &[Bytes], shared: &Shared<B>) -> Reply {
    let parameters = parameters(shared);
    for pair in pairs.chunks_exact(2) {
        let name = pair[0].to_ascii_lowercase();
        let shown = String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned();
        match parameters.iter().find(|(known, _)| known.as_bytes() == name) {
            None => {
                return Reply::error_text(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
                ));
            }
            Some((_, value)) if value.as_bytes() == pair[1] => {}
            Some(_) => {
                return Reply::error_text(format!(
                    "ERR CONFIG SET failed (possibly related to argument '{shown}') - can't be changed while the node \
                     runs, see its configuration file"
                ));
            }
        }
    }
    Reply::OK
}

/// What is true of this node, in the words of Redis.
fn parameters<B: Backend>(shared: &Shared<B>) -> Vec<(&'static str, String)> {
    let options = &shared.options;
    let status = shared.backend.status();
    vec![
        // Every write is in the log and synced before it is answered.
        ("appendfsync", "always".into()),
        ("appendonly", "yes".into()),
        ("bind", shared.address.ip().to_string()),
        ("client-output-buffer-limit", format!("normal {} 0 0", options.output_bytes_max)),
        ("cluster-enabled", "no".into()),
        ("databases", "1".into()),
        ("io-threads", "1".into()),
        ("lazyfree-lazy-user-del", "no".into()),
        ("maxclients", options.clients_max.to_string()),
        ("maxmemory", status.memory_bytes_max.unwrap_or(0).to_string()),
        ("maxmemory-policy", "noeviction".into()),
        ("port", shared.address.port().to_string()),
        ("proto-max-bulk-len", options.requests.bulk_bytes_max.to_string()),
        ("requirepass", if options.password.is_some() { "********".into() } else { String::new() }),
        ("save", String::new()),
        ("slowlog-log-slower-than", "-1".into()),
        ("slowlog-max-len", "0".into()),
        ("tcp-keepalive", "0".into()),
        ("timeout", "0".into()),
    ]
}
