//! Stories about a few cores, as scripts in `tests/scenarios`: commands, `---`, what followed. The head of each is the
//! story. `UPDATE_GOLDENFILES=1 cargo test -p raft-core --test it scenarios` writes the output anew; read it before it
//! is committed.
//!
//! Nothing happens by itself: messages wait in the network until they are delivered, clocks stand still, disks work at
//! once unless they hang.
//!
//! | command | |
//! |---|---|
//! | `cluster 3 [leader=1] [trailing=..] [uncommitted=..] [append=..]` | founds nodes 1 to 3, the data directory of n1 is 1; some settings |
//! | `timeout 2` | the clock moves to the next deadline of n2, and n2 alone is told |
//! | `wait 100` | milliseconds pass; who has a deadline is told; no message arrives |
//! | `pass 100` | the same, and every message arrives |
//! | `stabilize [1 2]` | messages (between these) arrive until nothing happens any more |
//! | `deliver 1 2 [heartbeat]` | what n1 sent to n2 (of this kind) arrives |
//! | `drop 1 2 [heartbeat]` | is lost |
//! | `repeat 1 2 heartbeat [later=1]` | the latest of this kind, or the one that many before it, arrives once more |
//! | `isolate 1`, `cut 1 2`, `heal` | links break in both directions; all are mended |
//! | `disk 1 hangs`, `disk 1 works` | |
//! | `crash 1`, `restart 1` | what was not on disk is lost |
//! | `damage 1 after=3` | the disk of n1, which is down, loses what it had acknowledged behind 3 |
//! | `join 4 directory=4` | an empty directory starts, in place of the node if there was one |
//! | `propose 1 a=1`, `read 1 7`, `transfer 1 2`, `snapshot 1` | at n1 |
//! | `change 1 voters="1,2" learners=3 directories="3:33" force=true` | the membership; at n1 |
//! | `lease 1 500` | leases of so many ms are switched on, at n1 |
//! | `status [1]`, `log 1` | what a node is, what its disk holds |

use std::{error::Error, fmt::Write as _, path::Path, str::FromStr};

use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use raft_core::{ConfChange, ConfState, Config, Incarnation, Input, Lease, Member, NodeId, RoleKind};

use crate::{cluster::Cluster, journal};

type Failure = Box<dyn Error>;

#[test]
fn every_story_ends_as_it_is_told() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    assert!(paths.len() >= 20, "the stories are gone");
    let mut failed = Vec::new();
    for path in paths {
        println!("{}", path.display());
        failed.extend(goldenscript::run(&mut Story::default(), &path).err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[derive(Default)]
struct Story {
    cluster: Option<Cluster>,
    founding: ConfState,
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        let mut args = command.consume_args();
        let said = match command.name.as_str() {
            "cluster" => self.found(&mut args)?,
            "join" => self.join(&mut args)?,
            name => self.cluster.as_mut().ok_or("no cluster")?.obey(name, &mut args)?,
        };
        args.reject_next()?;
        let cluster = self.cluster.as_mut().ok_or("no cluster")?;
        cluster.settle_those(|_| false);
        let mut lines = cluster.journal.take();
        lines.splice(0..0, said);
        Ok(lines.join("\n"))
    }
}

impl Story {
    fn found(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Option<String>, Failure> {
        let count: u64 = next(args)?;
        let leader = args.take_key("leader").map(str::parse).transpose()?;
        let trailing = args.take_key("trailing").map(str::parse).transpose()?;
        let uncommitted = args.take_key("uncommitted").map(str::parse).transpose()?;
        let append = args.take_key("append").map(str::parse).transpose()?;
        let ids: Vec<u64> = (1..=count).collect();
        self.founding = ConfState::of_voters(ids.iter().map(|id| (NodeId(*id), member(*id))));
        let mut cluster = Cluster::of(&ids, self.founding.clone(), |config: &mut Config| {
            config.incarnation = Incarnation(config.id.0);
            config.trailing_entries = trailing.unwrap_or(config.trailing_entries);
            config.uncommitted_bytes_max = uncommitted.unwrap_or(config.uncommitted_bytes_max);
            config.append_bytes_max = append.unwrap_or(config.append_bytes_max);
        });
        cluster.journal.begin();
        if let Some(leader) = leader {
            cluster.time_out(leader)?;
            cluster.settle();
        }
        self.cluster = Some(cluster);
        Ok(None)
    }

    fn join(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Option<String>, Failure> {
        let directory = key(args, "directory")?;
        self.cluster.as_mut().ok_or("no cluster")?.join(next(args)?, directory, self.founding.clone());
        Ok(None)
    }
}

impl Cluster {
    /// Carries out one command and tells what it says itself.
    fn obey(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<String>, Failure> {
        let now = self.now();
        match name {
            "timeout" => self.time_out(next(args)?)?,
            "wait" => {
                for _ in 0..next(args)? {
                    self.tick();
                    self.settle_those(|_| false);
                }
            }
            "pass" => self.pass(next(args)?),
            "stabilize" => {
                let ids = rest(args)?;
                let among = |id: NodeId| ids.is_empty() || ids.contains(&id.0);
                self.settle_those(|message| among(message.from) && among(message.to));
            }
            "deliver" | "drop" => {
                let (from, to, kind) = (NodeId(next(args)?), NodeId(next(args)?), args.next_pos());
                let (wanted, others): (Vec<_>, Vec<_>) = self.network.drain(..).partition(|message| {
                    (message.from, message.to) == (from, to)
                        && kind.is_none_or(|kind| kind == message.body.name())
                });
                self.network = others.into();
                if wanted.is_empty() {
                    return Err("nothing like that is under way".into());
                }
                for message in wanted {
                    match name {
                        "deliver" => self.deliver(message),
                        _ => self.journal.line(|| format!("lost: {}", journal::message(&message))),
                    }
                }
            }
            "repeat" => {
                let later = args.take_key("later").map_or(Ok(0), str::parse)?;
                let (from, to, kind) = (next(args)?, next(args)?, args.next_pos());
                let sent = self.sent_since(0, from, to);
                let mut alike = sent.into_iter().rev().filter(|message| Some(message.body.name()) == kind);
                let message = alike.nth(later).ok_or("nothing like that was sent")?;
                self.journal.line(|| format!("again: {}", journal::message(&message)));
                self.deliver(message);
            }
            "isolate" => self.isolate(next(args)?),
            "cut" => {
                let (one, other) = (next(args)?, next(args)?);
                self.cut.extend([(one, other), (other, one)]);
            }
            "heal" => self.heal(),
            "disk" => {
                let id = next(args)?;
                let stuck = match args.next_pos() {
                    Some("hangs") => true,
                    Some("works") => false,
                    _ => return Err("hangs or works?".into()),
                };
                self.node_mut(id).disk_stuck = stuck;
            }
            "crash" => self.crash(next(args)?),
            "restart" => self.restart(next(args)?),
            "damage" => {
                let after = key(args, "after")?;
                self.node_mut(next(args)?).disk.damage(after);
            }
            "propose" => {
                let id = next(args)?;
                let command = args.next().ok_or("what?")?.to_string();
                return Ok(Some(format!("n{id} takes {}", self.propose(id, &command)?)));
            }
            "read" => {
                let (id, token) = (next(args)?, next(args)?);
                let token = raft_core::ReadToken(token);
                self.node_mut(id).raft.read(now, token)?;
            }
            "transfer" => {
                let (id, to) = (next(args)?, NodeId(next(args)?));
                self.node_mut(id).raft.transfer_leadership(now, to)?;
            }
            "snapshot" => drop(self.snapshot(next(args)?)),
            "change" => {
                let change = ConfChange {
                    voters: ids(args.take_key("voters"))?,
                    learners: ids(args.take_key("learners"))?,
                    members: directories(args.take_key("directories"))?,
                    force: args.take_key("force").is_some_and(|force| force == "true"),
                };
                let id = next(args)?;
                return Ok(Some(format!("n{id} takes {}", self.change(id, &change)?)));
            }
            "lease" => {
                let (id, timeout_ms) = (next(args)?, next(args)?);
                let lease = Lease { timeout_ms, drift_ppm: 1000 };
                let taken = self.node_mut(id).raft.set_lease(now, Some(lease))?;
                return Ok(Some(format!("n{id} takes {taken}")));
            }
            "status" => {
                let asked: Vec<u64> = rest(args)?;
                let all = self.nodes.keys().copied().filter(|id| asked.is_empty() || asked.contains(id));
                return Ok(Some(all.map(|id| self.status(id)).collect::<Vec<_>>().join("\n")));
            }
            "log" => {
                let disk = &self.node(next(args)?).disk;
                let entries = disk.entries.iter().map(journal::entry);
                let start = format!("the log begins after {}", disk.start);
                return Ok(Some(std::iter::once(start).chain(entries).collect::<Vec<_>>().join("\n")));
            }
            _ => return Err("no such command".into()),
        }
        Ok(None)
    }

    /// The clock moves to the next deadline of `id`, and `id` alone is told.
    fn time_out(&mut self, id: u64) -> Result<(), Failure> {
        self.settle_those(|_| false);
        let at = self.raft(id).next_deadline().ok_or("it waits for nothing")?;
        self.now_ms = self.now_ms.max(at.0.div_ceil(1000));
        self.handle(id, Input::Tick)?;
        Ok(())
    }

    fn status(&self, id: u64) -> String {
        let node = self.node(id);
        if !node.up {
            return format!("n{id} is down");
        }
        let raft = &node.raft;
        let mut told = match raft.role() {
            RoleKind::Leader => format!("n{id} leads term {}", raft.term()),
            RoleKind::Follower | RoleKind::PreCandidate | RoleKind::Candidate => match raft.leader() {
                Some(leader) => format!("n{id} follows {leader} in term {}", raft.term()),
                None => format!("n{id} has no leader in term {}", raft.term()),
            },
        };
        let (last, durable, commit, applied) = (raft.last(), raft.durable(), raft.commit(), raft.applied());
        let _ = write!(told, ": last={last} durable={durable} commit={commit} applied={applied}");
        if let Some(promised) = raft.promised() {
            let _ = write!(told, " promised={promised}");
        }
        told
    }
}

fn member(directory: u64) -> Member {
    Member { incarnation: Incarnation(directory), ..Member::default() }
}

fn next<T: FromStr<Err: Error + 'static>>(args: &mut ArgumentConsumer<'_>) -> Result<T, Failure> {
    Ok(args.next_pos().ok_or("an argument is missing")?.parse()?)
}

fn rest(args: &mut ArgumentConsumer<'_>) -> Result<Vec<u64>, Failure> {
    std::iter::from_fn(|| args.next_pos()).map(|id| Ok(id.parse()?)).collect()
}

fn key(args: &mut ArgumentConsumer<'_>, name: &str) -> Result<u64, Failure> {
    Ok(args.take_key(name).ok_or_else(|| format!("{name}= is missing"))?.parse()?)
}

fn ids(list: Option<&str>) -> Result<Vec<NodeId>, Failure> {
    list.into_iter().flat_map(|list| list.split(',')).map(|id| Ok(NodeId(id.parse()?))).collect()
}

fn directories(list: Option<&str>) -> Result<Vec<(NodeId, Member)>, Failure> {
    let pair = |pair: &str| {
        let (id, directory) = pair.split_once(':').ok_or("id:directory")?;
        Ok((NodeId(id.parse()?), member(directory.parse()?)))
    };
    list.into_iter().flat_map(|list| list.split(',')).map(pair).collect()
}
