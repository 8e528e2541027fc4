//! `status`: one node's view of the cluster, completed by what each member says of itself.

use std::{collections::BTreeMap, thread, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use raft_core::NodeId;
use serde::Serialize;

use super::{
    exit::{Failure, print},
    http_client,
    terminal::harmless,
};
use crate::{config::bytes_text, status::Status};

/// For the node that is asked.
const TIMEOUT: Duration = Duration::from_secs(3);
/// For the other members: some of them may be down.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn run(addresses: &[String], json: bool) -> Result<(), Failure> {
    let cluster = ask_any(addresses)?;
    if json {
        let text = serde_json::to_string_pretty(&cluster).map_err(Failure::new)?;
        return print(text + "\n");
    }
    print(cluster.text())
}

/// What `status --json` prints: the status of the node that was asked, and with it everybody's own.
#[derive(Debug, Serialize)]
pub(super) struct Cluster {
    /// The node that was asked.
    #[serde(flatten)]
    pub(super) asked: Status,
    /// Each member's own status, or why there is none.
    pub(super) nodes: BTreeMap<u64, Own>,
}

/// What a member says of itself.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Own {
    /// Its answer.
    Answer(Box<Status>),
    /// Why there is none.
    Silent {
        /// In words.
        error: String,
    },
}

/// Asks the first of `addresses` that answers, then all members it names.
fn ask_any(addresses: &[String]) -> Result<Cluster, Failure> {
    let mut failures = Vec::new();
    for address in addresses {
        match ask(address, TIMEOUT) {
            Ok(status) => return Ok(complete(status)),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(Failure::new(format_args!("no node answers ({})", failures.join("; "))))
}

/// The status of the node at `address`.
pub(super) fn ask(address: &str, timeout: Duration) -> Result<Status, String> {
    let body = http_client::get(address, "/status", timeout).map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| format!("the answer is no status: {error}"))
}

/// Asks the members that `asked` names, all at once.
fn complete(asked: Status) -> Cluster {
    let others: Vec<(NodeId, String)> = asked
        .members
        .iter()
        .filter(|member| member.id != asked.id)
        .map(|member| (member.id, member.http.clone()))
        .collect();
    let answers: Vec<_> =
        others.into_iter().map(|(id, http)| (id, thread::spawn(move || own(id, &http)))).collect();
    let mut nodes: BTreeMap<u64, Own> = answers
        .into_iter()
        .map(|(id, answer)| {
            let gave_up = |_| Own::Silent { error: "asking it failed".to_owned() };
            (id.0, answer.join().unwrap_or_else(gave_up))
        })
        .collect();
    nodes.insert(asked.id.0, Own::Answer(Box::new(asked.clone())));
    Cluster { asked, nodes }
}

fn own(id: NodeId, http: &str) -> Own {
    if http.is_empty() {
        return Own::Silent { error: "its address is not known".to_owned() };
    }
    match ask(http, MEMBER_TIMEOUT) {
        Ok(status) if status.id == id => Own::Answer(Box::new(status)),
        Ok(status) => Own::Silent { error: format!("{} answers at {http}", status.id) },
        Err(error) => Own::Silent { error },
    }
}

impl Cluster {
    /// For people.
    fn text(&self) -> String {
        let asked = &self.asked;
        if let Some(reason) = asked.not_ready_reason.as_ref().filter(|_| asked.members.is_empty()) {
            return format!("{} does not serve yet: {}\n", asked.id, harmless(reason));
        }
        let leader = asked.leader.map_or_else(|| "none known".to_owned(), |leader| leader.to_string());
        let mut text = format!(
            "cluster {}, as {} sees it: leader {leader}, term {}, committed {}, log {}..={}, fdatasync p50 {} p99 {}\n\n",
            asked.cluster_id,
            asked.id,
            asked.term,
            asked.commit,
            asked.first_index,
            asked.last_index,
            micros(asked.fsync_p50_us),
            micros(asked.fsync_p99_us),
        );
        text += &self.table();
        let problems = asked.problems.iter().map(|problem| harmless(problem));
        let silent = self.nodes.iter().filter_map(|(id, own)| match own {
            Own::Silent { error } => Some(format!("n{id} does not answer: {}", harmless(error))),
            Own::Answer(_) => None,
        });
        for problem in problems.chain(silent) {
            text += &format!("\n! {problem}");
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "NODE",
            "KIND",
            "ROLE",
            "TERM",
            "COMMIT",
            "APPLIED",
            "LAG",
            "FSYNC P99",
            "MEMORY",
            "RESP",
            "HTTP",
            "PEER",
        ]);
        for column in 3..=8 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let leader = self.nodes.values().find_map(|own| match own {
            Own::Answer(status) if Some(status.id) == self.asked.leader => Some(status),
            Own::Answer(_) | Own::Silent { .. } => None,
        });
        for member in &self.asked.members {
            let lag = leader
                .and_then(|leader| leader.members.iter().find(|other| other.id == member.id))
                .and_then(|other| other.lag)
                .or(member.lag);
            let own = match self.nodes.get(&member.id.0) {
                Some(Own::Answer(own)) => [
                    own.role.name().to_owned(),
                    own.term.to_string(),
                    own.commit.to_string(),
                    own.applied.to_string(),
                    micros(own.fsync_p99_us),
                    own.memory_bytes.map_or_else(|| "-".to_owned(), rounded),
                ],
                Some(Own::Silent { .. }) | None => {
                    let dash = || "-".to_owned();
                    ["silent".to_owned(), dash(), dash(), dash(), dash(), dash()]
                }
            };
            let [role, term, commit, applied, fsync, memory] = own;
            let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { harmless(text) };
            table.add_row([
                member.id.to_string(),
                member.kind.name().to_owned(),
                role,
                term,
                commit,
                applied,
                lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
                fsync,
                memory,
                shown(&member.resp),
                shown(&member.http),
                shown(&member.peer),
            ]);
        }
        super::terminal::finish(&table)
    }
}

/// A duration as people read it.
pub(super) fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// A size to the nearest unit below.
fn rounded(bytes: u64) -> String {
    let shift = if bytes < 1 << 20 { 10 } else { 20 };
    bytes_text(bytes >> shift << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Role, tests::sample};

    #[test]
    fn the_table_shows_everybody_also_the_silent() {
        let asked = sample();
        let second = Status { id: NodeId(2), role: Role::Follower, fsync_p99_us: 12_345, ..sample() };
        let nodes = BTreeMap::from([
            (1, Own::Answer(Box::new(asked.clone()))),
            (2, Own::Answer(Box::new(second))),
            (3, Own::Silent { error: "connection refused\x1b[2J".to_owned() }),
        ]);
        let text = Cluster { asked, nodes }.text();
        assert_eq!(
            text,
            "\
cluster 00000000000000000000000000000abc, as n1 sees it: leader n1, term 3, committed 120, log 1..=120, fdatasync p50 210 µs p99 900 µs

NODE  KIND     ROLE      TERM  COMMIT  APPLIED  LAG  FSYNC P99  MEMORY  RESP            HTTP            PEER
n1    voter    leader       3     120      119    0     900 µs       -  127.0.0.1:7400  127.0.0.1:7401  127.0.0.1:7402
n2    voter    follower     3     120      119    0    12.3 ms       -  127.0.0.1:7410  127.0.0.1:7411  127.0.0.1:7412
n3    learner  silent       -       -        -   20          -       -  127.0.0.1:7420  127.0.0.1:7421  127.0.0.1:7422

! n3 unreachable for 12 s
! n3 does not answer: connection refused\u{fffd}[2J
"
        );
    }

    #[test]
    fn durations() {
        assert_eq!([micros(7), micros(1250), micros(2_340_000)], ["7 µs", "1.2 ms", "2.3 s"]);
    }
}
