//! The rules of SAFETY section 1 as checks, and the ghost state they need: what has been true once anywhere.
//!
//! A check looks only at what changed. The ghost remembers the hash of every prefix that was ever in a log, so that
//! "the same history" is one comparison however long the logs are. It sees what each core hands out and takes in and
//! what is on each disk, never the inside of a core. Two rules show up under another name: a stale completion that is
//! taken for a new one (L7) acknowledges or counts what is not on disk (L6, C2).

#![expect(clippy::wildcard_enum_match_arm, reason = "a rule looks at the few kinds of messages it concerns")]

use std::{collections::BTreeMap, fmt};

use super::{
    coverage::{Coverage, Mark},
    disk::{Disk, Image, Log, Stored, chain, count},
    network::{id, place},
};
use crate::{AppendOutcome, Apply, Body, CampaignId, Entry, Epoch, Event, HaltReason, HardState, Instant};
use crate::{LogId, LogIndex, Message, NodeId, Ready, RoleKind, Term, Write};

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name in SAFETY section 1.
    pub rule: &'static str,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}", self.rule, self.text)
    }
}

impl std::error::Error for Violation {}

/// The outcome of a check.
pub(super) type Checked = Result<(), Violation>;

/// The form of every rule: a fact that must hold, its name, and what to say if it does not.
pub(super) fn check(holds: bool, rule: &'static str, text: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { rule, text: text() }) }
}

/// What has been true once: never in the product.
#[derive(Clone, Debug)]
pub(super) struct Ghost {
    pub(super) members: Vec<Member>,
    election_timeout_min: u64,
    leaders: BTreeMap<Term, NodeId>,
    granted: BTreeMap<(Term, NodeId), NodeId>,
    prefixes: Prefixes,
    committed: Vec<Committed>,
    /// How many of `committed` the workload has seen.
    reported: usize,
}

/// A committed entry: set once.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) hash: u64,
    /// In which leader's term.
    pub(super) term: Term,
    pub(super) entry: Entry,
}

/// The prefix hash of every (index, term) that was ever in a log. Almost always an index has one term.
#[derive(Clone, Debug, Default)]
struct Prefixes {
    first: Vec<(Term, u64)>,
    more: BTreeMap<(LogIndex, Term), u64>,
}

/// What the ghost knows of one node's current run.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub(super) term: Term,
    pub(super) role: RoleKind,
    pub(super) commit: LogIndex,
    /// Its log as handed out, whether on disk yet or not.
    pub(super) log: Log,
    hard_state: HardState,
    leader: Option<(Term, NodeId)>,
    checked_commit: LogIndex,
    compacted: LogIndex,
    handed: LogIndex,
    handed_hash: u64,
    /// Inputs since it last handed out its work.
    pub(super) inputs: u32,
    /// When it last heard the leader of its term, by its own clock.
    contact: Option<Instant>,
    asks: Vec<Ask>,
    campaign: Campaign,
    pre_campaign: Campaign,
    peers: Vec<Peer>,
}

/// A request for a vote or pre-vote, as its receiver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) pre: bool,
    pub(super) term: Term,
    pub(super) candidate: NodeId,
    pub(super) campaign: CampaignId,
    pub(super) last: LogId,
    /// The receiver heard its leader less than an election timeout ago.
    pub(super) sticky: bool,
}

/// One campaign, and who granted it.
#[derive(Clone, Copy, Debug, Default)]
struct Campaign {
    term: Term,
    number: CampaignId,
    granted: u32,
}

/// What a leader was told by one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    term: Term,
    epoch: Epoch,
    /// The furthest success of this term and epoch that was delivered; and the same one and two drains ago.
    acked: LogIndex,
    acked_at_drain: LogIndex,
    acked_before_drain: LogIndex,
    /// The furthest success of this term.
    proven: LogIndex,
}

/// What a core shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) term: Term,
    pub(super) role: RoleKind,
    pub(super) leader: Option<NodeId>,
    pub(super) commit: LogIndex,
}

// --- The rules that need no memory. ---

/// E3: what a message claims about its sender's term and vote is on the sender's disk.
fn e3_durable_before_sent(message: &Message, disk: &Disk) -> Checked {
    let durable = disk.durable.hard_state.term;
    check(durable >= message.term, "E3", || {
        format!(
            "{} sent {} in term {}, on disk is {durable}",
            message.from,
            message.body.name(),
            message.term
        )
    })?;
    let vote = match message.body {
        Body::RequestVoteReply { granted: true, .. } => message.to,
        Body::RequestVote { .. } => message.from,
        _ => return Ok(()),
    };
    check(disk.votes.iter().rev().any(|cast| *cast == (message.term, vote)), "E3", || {
        format!("{} told of its vote for {vote} in term {}, which is not on disk", message.from, message.term)
    })
}

/// E4: the term never goes back, and a vote stands as long as its term.
fn e4_vote_kept_within_term(node: NodeId, old: HardState, new: HardState) -> Checked {
    check(new.term >= old.term, "E4", || format!("{node} went back from term {} to {}", old.term, new.term))?;
    check(new.term > old.term || old.vote.is_none() || new.vote == old.vote, "E4", || {
        format!("{node} changed its vote in term {} from {:?} to {:?}", old.term, old.vote, new.vote)
    })
}

/// E5 and E8: a vote goes to a candidate that asked, whose log is not behind, and not while a leader is heard.
fn e5_e8_grant(voter: NodeId, last: LogId, candidate: NodeId, asks: &[Ask]) -> Checked {
    check(!asks.is_empty(), "E5", || format!("{voter} granted {candidate} what it never asked for"))?;
    check(asks.iter().any(|ask| ask.last >= last), "E5", || {
        format!("{voter} whose log ends at {last} granted {candidate}: {asks:?}")
    })?;
    check(asks.iter().any(|ask| ask.last >= last && !ask.sticky), "E8", || {
        format!("{voter} granted {candidate} although it had just heard its leader")
    })
}

/// E6: being asked for a pre-vote changes nothing.
pub(super) fn e6_pre_vote_changes_nothing<T: PartialEq + fmt::Debug>(
    node: NodeId,
    before: &T,
    after: &T,
) -> Checked {
    check(before == after, "E6", || format!("a pre-vote changed {node} from {before:?} to {after:?}"))
}

/// E7: who takes a role by vote has a majority of one campaign.
fn e7_majority_of_one_campaign(node: NodeId, role: RoleKind, granted: u32, nodes: usize) -> Checked {
    check(granted.count_ones() as usize > nodes / 2, "E7", || {
        format!("{node} became {role:?} with {} of {nodes} votes", granted.count_ones())
    })
}

/// E12: nothing has term 0, except that a node that was just founded asks for and answers pre-votes from there.
fn e12_no_term_zero(message: &Message) -> Checked {
    let entries = match &message.body {
        Body::AppendEntries { entries, .. } => &entries[..],
        _ => &[],
    };
    let asks_first = match message.body {
        Body::PreVote { next_term, .. } => next_term > Term::ZERO,
        Body::PreVoteReply { .. } => true,
        _ => false,
    };
    check(
        (message.term > Term::ZERO || asks_first) && entries.iter().all(|entry| entry.id.term > Term::ZERO),
        "E12",
        || format!("{} sent {} with a term of 0", message.from, message.body.name()),
    )
}

/// E13: an impossible term is refused and changes nothing.
pub(super) fn e13_absurd_term_refused(node: NodeId, refused: bool, before: Term, after: Term) -> Checked {
    check(refused && before == after, "E13", || {
        format!("{node} took an impossible term: {before} to {after}")
    })
}

/// E14, E6 and E7: this message is answered at once, with the receiver's own term.
pub(super) fn answered(
    rule: &'static str,
    node: NodeId,
    asker: NodeId,
    term: Term,
    messages: &[Message],
) -> Checked {
    check(messages.iter().any(|message| message.to == asker && message.term == term), rule, || {
        format!("{node} in term {term} left {asker} without an answer")
    })
}

/// L2: a leader never cuts its own log.
fn l2_leader_append_only(node: NodeId, role: RoleKind, cut: bool) -> Checked {
    check(role != RoleKind::Leader || !cut, "L2", || format!("the leader {node} cut its own log"))
}

/// L3: a log is cut only where a leader's entry contradicts it, and never below the commit index.
fn l3_real_conflict(
    node: NodeId,
    log: &Log,
    after: LogIndex,
    commit: LogIndex,
    new: Option<LogId>,
) -> Checked {
    check(after >= commit, "L3", || format!("{node} cut its log after {after}, committed is {commit}"))?;
    let real = new.is_some_and(|new| new.index == after.next() && log.term(new.index) != Some(new.term));
    check(real, "L3", || {
        format!("{node} cut its log after {after} without a conflict: {:?} gives way to {new:?}", log.last())
    })
}

/// L4: terms do not fall along a log, and do not exceed the node's. Replicated time does not fall either.
fn l4_terms_rise(node: NodeId, log: &Log, entry: &Entry, term: Term) -> Checked {
    let last = log.last();
    check(entry.id.term >= last.term && entry.id.term <= term && entry.id.term > Term::ZERO, "L4", || {
        format!("{node} in term {term} appended {} behind {last}", entry.id)
    })?;
    let time = log.entry(last.index).map(|entry| entry.time);
    check(time.is_none_or(|time| time <= entry.time), "L4", || {
        format!("{node} appended {} with time {:?} behind {time:?}", entry.id, entry.time)
    })
}

/// L5: an append continues the log without a hole.
fn l5_no_hole(node: NodeId, last: LogId, entry: LogId) -> Checked {
    check(entry.index == last.index.next(), "L5", || format!("{node} appended {entry} behind {last}"))
}

/// L6: what a follower acknowledges is on its disk, and is what this leader has.
fn l6_acknowledged_is_durable(
    message: &Message,
    matched: LogIndex,
    durable: &Image,
    leader: &Member,
) -> Checked {
    let log = &durable.log;
    let last = log.last().index.max(durable.snapshot.meta.last.index);
    check(last >= matched, "L6", || {
        format!("{} acknowledged {matched} to {}, on disk is {last}", message.from, message.to)
    })?;
    if leader.role != RoleKind::Leader || leader.term != message.term {
        return Ok(());
    }
    check(same_history(log, &leader.log, matched), "L6", || {
        format!("{} acknowledged {matched} to {}, which has another history there", message.from, message.to)
    })
}

/// P1: what a leader believes a peer to have, the peer has on disk.
fn p1_match_is_true(message: &Message, prev: LogId, durable: &Image) -> Checked {
    if durable.hard_state.term > message.term {
        return Ok(()); // a later leader may have cut it
    }
    let log = &durable.log;
    let holds = prev.index < log.start().index || log.term(prev.index) == Some(prev.term);
    check(holds, "P1", || {
        format!("{} believes {} to have {prev}, on disk it ends at {}", message.from, message.to, log.last())
    })
}

/// C5: the commit index never falls, and is never behind the log's end.
fn c5_commit_never_falls(node: NodeId, old: LogIndex, new: LogIndex) -> Checked {
    check(new >= old, "C5", || format!("{node} went back from commit {old} to {new}"))
}

/// N1: a snapshot that holds nothing new is not installed.
fn n1_only_newer_snapshots(node: NodeId, commit: LogIndex, snapshot: LogId) -> Checked {
    check(snapshot.index > commit, "N1", || format!("{node} installed {snapshot}, committed is {commit}"))
}

/// N2: the suffix is kept exactly if the log has the snapshot's last entry.
fn n2_suffix_kept_if_it_fits(node: NodeId, log: &Log, snapshot: LogId, resets_log: bool) -> Checked {
    let fits = log.term(snapshot.index) == Some(snapshot.term);
    check(fits != resets_log, "N2", || {
        format!(
            "{node} noted snapshot {snapshot} with resets_log={resets_log}, its log ends at {}",
            log.last()
        )
    })
}

/// N2: the log is cut at its front only up to a snapshot that is on disk.
pub(super) fn n2_compacted_behind_snapshot(node: NodeId, index: LogIndex, durable: &Image) -> Checked {
    let snapshot = durable.snapshot.meta.last.index;
    check(index <= snapshot, "N2", || {
        format!("{node} may drop its log up to {index}, the snapshot on disk ends at {snapshot}")
    })
}

/// R1: a read sees every write that was committed when it was asked.
pub(super) fn r1_read_is_current(node: NodeId, index: LogIndex, floor: LogIndex) -> Checked {
    check(index >= floor, "R1", || {
        format!("{node} may serve a read at {index}; {floor} was committed when it was asked")
    })
}

/// Whether two logs agree up to `index`, as far as both still tell.
fn same_history(one: &Log, other: &Log, index: LogIndex) -> bool {
    match (one.hash(index), other.hash(index)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

// --- The rules that need memory. ---

impl Ghost {
    pub(super) fn new(nodes: usize, election_timeout_min_ms: u64) -> Ghost {
        Ghost {
            members: vec![Member { peers: vec![Peer::default(); nodes], ..Member::default() }; nodes],
            election_timeout_min: election_timeout_min_ms * 1000,
            leaders: BTreeMap::new(),
            granted: BTreeMap::new(),
            prefixes: Prefixes::default(),
            committed: Vec::new(),
            reported: 0,
        }
    }

    /// The furthest index that is known to be committed anywhere.
    pub(super) fn commit(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// Whether this is the hash of what was committed up to `index` (V2).
    pub(super) fn is_history(&self, index: LogIndex, hash: u64) -> bool {
        self.committed.get(count(index.0).wrapping_sub(1)).is_some_and(|committed| committed.hash == hash)
    }

    /// Committed entries the workload has not seen yet.
    pub(super) fn unreported(&mut self) -> &[Committed] {
        let first = std::mem::replace(&mut self.reported, self.committed.len());
        &self.committed[first..]
    }

    /// Whether term and vote of a node are on its disk as it has them in memory: then it answers at once.
    pub(super) fn is_settled(&self, node: usize, durable: HardState) -> bool {
        let HardState { term, vote, .. } = self.members[node].hard_state;
        (durable.term, durable.vote) == (term, vote) && self.members[node].term == term
    }

    /// Who leads the latest term anyone was elected in.
    pub(super) fn latest_leader(&self) -> Option<(Term, NodeId)> {
        self.leaders.last_key_value().map(|(term, leader)| (*term, *leader))
    }

    /// E1: one leader per term, over the whole history.
    fn e1_one_leader_per_term(&mut self, term: Term, node: NodeId) -> Checked {
        let before = self.leaders.insert(term, node);
        check(before.is_none(), "E1", || format!("{node} was elected in term {term}, as was {before:?}"))
    }

    /// E2: a voter grants one candidate per term, over all its runs.
    fn e2_one_vote_per_term(&mut self, term: Term, voter: NodeId, candidate: NodeId) -> Checked {
        let first = *self.granted.entry((term, voter)).or_insert(candidate);
        check(first == candidate, "E2", || {
            format!("{voter} voted for {first} and {candidate} in term {term}")
        })
    }

    /// E11: within a term a node follows one leader, and one that was elected.
    fn e11_leader_set_once(&mut self, node: usize, term: Term, leader: NodeId) -> Checked {
        let elected = self.leaders.get(&term).copied();
        check(elected == Some(leader), "E11", || {
            format!("{} follows {leader} in term {term}, elected was {elected:?}", id(node))
        })?;
        let before = self.members[node].leader.replace((term, leader));
        check(before.is_none_or(|before| before.0 != term || before.1 == leader), "E11", || {
            format!("{} follows {leader} in term {term} after {before:?}", id(node))
        })
    }

    /// L1: the same index and term anywhere means the same history up to there.
    fn l1_log_matching(&mut self, node: NodeId, at: LogId, hash: u64) -> Checked {
        let known = self.prefixes.note(at, hash);
        check(known == hash, "L1", || {
            format!("{node} has {at} with a history that differs from the one known")
        })
    }

    /// C3: what is committed at an index never changes, and every node's log agrees up to its commit index.
    fn c3_state_machine_safety(&self, node: usize, index: LogIndex, hash: Option<u64>) -> Checked {
        let committed = self.committed.get(count(index.0).wrapping_sub(1)).map(|committed| committed.hash);
        check(hash.is_none() || committed.is_none() || hash == committed, "C3", || {
            format!("{} holds another history than what was committed up to {index}", id(node))
        })
    }

    /// C4: a new leader holds everything that was committed in earlier terms. Late votes may elect a leader of a term
    /// behind which a later one has committed more: that does not count.
    fn c4_leader_completeness(&self, node: usize) -> Checked {
        let member = &self.members[node];
        let Some(before) = self.committed.iter().rposition(|committed| committed.term < member.term) else {
            return Ok(());
        };
        let (index, log) = (LogIndex(before as u64 + 1), &member.log);
        let held = index < log.start().index || log.hash(index) == Some(self.committed[before].hash);
        check(held, "C4", || {
            format!("{} was elected with a log that ends at {} and lacks {index}", id(node), log.last())
        })
    }

    /// L8 and L9: a follower's commit index lies within its log and within what some leader has committed.
    fn l8_follower_commit(&mut self, node: usize) -> Checked {
        let member = &self.members[node];
        let commit = member.commit;
        if commit == member.checked_commit {
            return Ok(());
        }
        check(commit <= member.log.last().index, "L9", || {
            format!("{} has commit {commit}, its log ends at {}", id(node), member.log.last())
        })?;
        check(commit <= self.commit(), "L8", || {
            format!("{} has commit {commit}, the leaders have {}", id(node), self.commit())
        })?;
        self.c3_state_machine_safety(node, commit, member.log.hash(commit))?;
        self.members[node].checked_commit = commit;
        Ok(())
    }

    /// P4: a leader believes of a peer only what replies of this term and epoch told.
    fn p4_believes_only_current_replies(&self, message: &Message, prev: LogId) -> Checked {
        let member = &self.members[place(message.from)];
        if member.role != RoleKind::Leader || member.term != message.term {
            return Ok(());
        }
        let known = member.peers[place(message.to)];
        let proven = if known.term == message.term { known.proven } else { LogIndex::ZERO };
        check(prev.index <= proven, "P4", || {
            format!("{} believes {} to have {prev}, proven is {proven}", message.from, message.to)
        })
    }

    /// C1, C2 and C6: a leader commits only entries of its own term, counted by what its peers proved and by its own
    /// disk; a quorum of disks has them.
    fn c1_commit(
        &mut self,
        node: usize,
        commit: LogIndex,
        disks: &[Disk],
        coverage: &mut Coverage,
    ) -> Checked {
        let majority = disks.len() / 2 + 1;
        let member = &self.members[node];
        let term = member.log.term(commit);
        check(term == Some(member.term), "C1", || {
            format!("{} in term {} committed {commit} of term {term:?}", id(node), member.term)
        })?;
        let proven = member
            .peers
            .iter()
            .enumerate()
            .filter(|(peer, known)| *peer != node && known.term == member.term && known.proven >= commit)
            .count();
        let own = disks[node].durable.log.last().index >= commit;
        check(proven + 1 >= majority, "C1", || {
            format!("{} committed {commit}, which {proven} of {} peers proved", id(node), disks.len() - 1)
        })?;
        check(own || proven >= majority, "C2", || {
            format!("{} counted itself for {commit}, which its disk does not hold yet", id(node))
        })?;
        if !own {
            coverage.hit(Mark::CommitWithoutLeaderDisk);
        }
        let hash = member.log.hash(commit);
        let holding = disks
            .iter()
            .filter(|disk| {
                let log = &disk.durable.log;
                commit < log.start().index || log.hash(commit) == hash
            })
            .count();
        check(holding >= majority, "C6", || {
            format!("{} committed {commit}, which {holding} of {} disks hold", id(node), disks.len())
        })?;
        for index in self.committed.len() as u64 + 1..=commit.0 {
            let log = &self.members[node].log;
            let (Some(entry), Some(hash)) = (log.entry(LogIndex(index)), log.hash(LogIndex(index))) else {
                return check(false, "C4", || format!("{} lacks {index}, which it committed", id(node)));
            };
            let (entry, term) = (entry.clone(), self.members[node].term);
            self.committed.push(Committed { hash, term, entry });
        }
        self.members[node].checked_commit = commit;
        self.c3_state_machine_safety(node, commit, hash)
    }

    /// N4 and C3: work for the state machine comes in order, without a gap, each entry once, and is what was
    /// committed.
    fn n4_apply_in_order(&mut self, node: usize, apply: &Apply) -> Checked {
        match apply {
            Apply::Entries(entries) => {
                for entry in entries {
                    let member = &mut self.members[node];
                    let expected = member.handed.next();
                    check(entry.id.index == expected, "N4", || {
                        format!("{} was to apply {expected}, got {}", id(node), entry.id)
                    })?;
                    check(entry.id.index <= member.commit, "C3", || {
                        format!("{} was to apply {}, committed is {}", id(node), entry.id, member.commit)
                    })?;
                    member.handed = expected;
                    member.handed_hash = chain(member.handed_hash, entry);
                    let hash = member.handed_hash;
                    self.c3_state_machine_safety(node, expected, Some(hash))?;
                }
            }
            Apply::Restore(meta) => {
                let member = &mut self.members[node];
                check(meta.last.index > member.handed, "N4", || {
                    format!("{} was to go back from {} to snapshot {}", id(node), member.handed, meta.last)
                })?;
                let committed = self.committed.get(count(meta.last.index.0) - 1);
                let hash =
                    committed.filter(|committed| committed.entry.id == meta.last).map(|found| found.hash);
                check(hash.is_some(), "N3", || {
                    format!("{} was to restore {}, which was never committed", id(node), meta.last)
                })?;
                member.handed = meta.last.index;
                member.handed_hash = hash.unwrap_or_default();
            }
        }
        Ok(())
    }

    // --- What happens, in the order in which it does. ---

    /// A node starts from what its disk holds.
    pub(super) fn starts(&mut self, node: usize, image: &Image) {
        let nodes = self.members.len();
        self.members[node] = Member {
            term: image.hard_state.term,
            log: image.log.clone(),
            hard_state: image.hard_state,
            compacted: image.log.start().index,
            handed: image.snapshot.meta.last.index,
            handed_hash: image.snapshot.hash,
            peers: vec![Peer::default(); nodes],
            ..Member::default()
        };
    }

    /// A message is about to be handed to a node.
    pub(super) fn receives(&mut self, node: usize, message: &Message, now: Instant, coverage: &mut Coverage) {
        let min = self.election_timeout_min;
        let member = &mut self.members[node];
        let heard = member.contact.is_some_and(|contact| now.micros_since(contact) < min);
        let sticky = member.role == RoleKind::Follower && heard;
        let from = place(message.from);
        let ask = match message.body {
            Body::PreVote { campaign, next_term, last } => {
                if message.term < member.term {
                    coverage.hit(Mark::LowerTermPreVote);
                }
                Some(Ask { pre: true, term: next_term, candidate: message.from, campaign, last, sticky })
            }
            Body::RequestVote { campaign, last, transfer } => {
                let sticky = sticky && !transfer;
                Some(Ask { pre: false, term: message.term, candidate: message.from, campaign, last, sticky })
            }
            _ => None,
        };
        if let Some(ask) = ask {
            if ask.sticky {
                coverage.hit(Mark::StickyVoteRequest);
            }
            if ask.last < member.log.last() {
                coverage.hit(Mark::StaleCandidate);
            }
            if member.asks.len() >= ASKS_MAX {
                member.asks.remove(0);
            }
            member.asks.push(ask);
        }
        match &message.body {
            Body::AppendEntries { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. } => {
                if message.term >= member.term {
                    member.contact = Some(now);
                } else {
                    coverage.hit(Mark::LowerTermAppend);
                }
                match &message.body {
                    Body::AppendEntries { entries, .. }
                        if entries
                            .last()
                            .is_some_and(|last| member.log.term(last.id.index) == Some(last.id.term)) =>
                    {
                        coverage.hit(Mark::DuplicateAppend);
                    }
                    Body::InstallSnapshot { meta, .. } if meta.last.index <= member.commit => {
                        coverage.hit(Mark::StaleSnapshot);
                    }
                    _ => {}
                }
            }
            Body::RequestVoteReply { campaign, granted } => {
                if *granted {
                    member.campaign.count(message.term, *campaign, from);
                } else {
                    coverage.hit(Mark::VoteRefused);
                }
            }
            Body::PreVoteReply { campaign, granted } => {
                if *granted {
                    let term = member.pre_campaign.term;
                    member.pre_campaign.count(term, *campaign, from);
                } else {
                    coverage.hit(Mark::PreVoteRefused);
                }
            }
            Body::AppendReply { epoch, outcome, .. } => match outcome {
                AppendOutcome::Matched(index) => {
                    member.success(from, message.term, *epoch, *index, coverage);
                    member.note_old_term_on_quorum(node, coverage);
                }
                AppendOutcome::Rejected { .. } => coverage.hit(Mark::AppendRejected),
            },
            Body::HeartbeatReply { epoch, matched, .. } => {
                member.success(from, message.term, *epoch, *matched, coverage);
            }
            Body::PreVote { .. }
            | Body::RequestVote { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {}
        }
    }

    /// A node was told that its leader's process is gone: stickiness ends (E8).
    pub(super) fn leader_died(&mut self, node: usize, peer: NodeId) {
        let member = &mut self.members[node];
        if member.leader.is_some_and(|(_, leader)| leader == peer) {
            member.contact = None;
        }
    }

    /// A node has taken an input: compares what it shows with what it showed.
    pub(super) fn took(
        &mut self,
        node: usize,
        view: View,
        disks: &[Disk],
        coverage: &mut Coverage,
    ) -> Checked {
        let nodes = disks.len();
        let member = &mut self.members[node];
        member.inputs += 1;
        let before = (member.term, member.role, member.commit);
        if (view.term, view.role, view.commit) == before
            && view.leader == member.leader.filter(|(term, _)| *term == view.term).map(|(_, leader)| leader)
        {
            return Ok(());
        }
        let (old_term, old_role, old_commit) = before;
        check(view.term >= old_term, "E4", || {
            format!("{} went back from term {old_term} to {}", id(node), view.term)
        })?;
        c5_commit_never_falls(id(node), old_commit, view.commit)?;
        member.term = view.term;
        member.role = view.role;
        member.commit = view.commit;
        if view.term > old_term && view.leader.is_none() {
            member.contact = None;
        }
        if view.role == RoleKind::Candidate && old_role == RoleKind::PreCandidate && nodes > 1 {
            let granted = member.pre_campaign.granted;
            e7_majority_of_one_campaign(id(node), view.role, granted, nodes)?;
        }
        if view.role == RoleKind::Leader && (old_role != RoleKind::Leader || view.term != old_term) {
            let campaign = member.campaign;
            let granted = if campaign.term == view.term { campaign.granted } else { 1 << node };
            e7_majority_of_one_campaign(id(node), view.role, granted, nodes)?;
            let deposed = self.members.iter().enumerate().any(|(other, known)| {
                other != node && known.role == RoleKind::Leader && known.term < view.term
            });
            coverage.hit(Mark::LeaderElected);
            if deposed {
                coverage.hit(Mark::TwoLeadersOfDifferentTerms);
            }
            self.e1_one_leader_per_term(view.term, id(node))?;
            self.e2_one_vote_per_term(view.term, id(node), id(node))?;
            self.c4_leader_completeness(node)?;
        }
        if let Some(leader) = view.leader {
            self.e11_leader_set_once(node, view.term, leader)?;
        }
        if view.role == RoleKind::Leader && old_role == RoleKind::Leader && view.commit > old_commit {
            self.c1_commit(node, view.commit, disks, coverage)?;
        }
        Ok(())
    }

    /// A node hands out its work.
    pub(super) fn hands_out(
        &mut self,
        node: usize,
        ready: &Ready,
        snapshot: Option<u64>,
        durable: &Image,
        coverage: &mut Coverage,
    ) -> Checked {
        for event in &ready.events {
            self.no_alarm(node, event)?;
        }
        for message in &ready.messages {
            if let Body::PreVoteReply { campaign, granted: true } = message.body {
                let member = &self.members[node];
                let asks: Vec<Ask> =
                    member.asked(|ask| ask.pre && ask.candidate == message.to && ask.campaign == campaign);
                let cuts = ready.write.as_ref().is_some_and(|write| write.truncate_after.is_some());
                let last = if cuts { LogId::ZERO } else { member.log.last() };
                e5_e8_grant(id(node), last, message.to, &asks)?;
            }
        }
        if let Some(write) = &ready.write {
            self.writes(node, write, snapshot, coverage)?;
        }
        if let Some(index) = ready.compact {
            n2_compacted_behind_snapshot(id(node), index, durable)?;
            let member = &mut self.members[node];
            member.compacted = member.compacted.max(index);
            member.log.compact(index);
        }
        self.l8_follower_commit(node)?;
        for apply in &ready.apply {
            self.n4_apply_in_order(node, apply)?;
        }
        if !ready.apply.is_empty() && self.members[node].handed > durable.log.last().index {
            coverage.hit(Mark::AppliedAheadOfDisk);
        }
        let member = &mut self.members[node];
        member.inputs = 0;
        if member.role == RoleKind::Leader {
            for peer in &mut member.peers {
                peer.acked_before_drain = peer.acked_at_drain;
                peer.acked_at_drain = peer.acked;
            }
        }
        Ok(())
    }

    /// A message leaves.
    pub(super) fn sends(&mut self, message: &Message, disks: &[Disk], coverage: &mut Coverage) -> Checked {
        let node = place(message.from);
        let to = place(message.to);
        e12_no_term_zero(message)?;
        e3_durable_before_sent(message, &disks[node])?;
        match &message.body {
            Body::RequestVoteReply { granted: true, .. } => {
                coverage.hit(Mark::VoteGranted);
                self.e2_one_vote_per_term(message.term, message.from, message.to)?;
            }
            Body::RequestVote { campaign, .. } => {
                self.e2_one_vote_per_term(message.term, message.from, message.from)?;
                self.members[node].campaign.ask(message.term, *campaign, node);
            }
            Body::PreVote { campaign, next_term, .. } => {
                self.members[node].pre_campaign.ask(*next_term, *campaign, node);
            }
            Body::AppendReply { outcome: AppendOutcome::Matched(matched), .. }
            | Body::HeartbeatReply { matched, .. } => {
                l6_acknowledged_is_durable(message, *matched, &disks[node].durable, &self.members[to])?;
            }
            Body::Heartbeat { epoch, prev, .. } => {
                p1_match_is_true(message, *prev, &disks[to].durable)?;
                self.p4_believes_only_current_replies(message, *prev)?;
                if let Some(acked) = self.members[node].address(to, message.term, *epoch) {
                    check(prev.index >= acked, "P2", || {
                        format!("{} has forgotten that {} proved {acked}: {prev}", message.from, message.to)
                    })?;
                }
            }
            Body::AppendEntries { epoch, prev, entries, .. } => {
                let first = entries.first().map_or(prev.index.next(), |entry| entry.id.index);
                check(first == prev.index.next(), "L5", || {
                    format!("{} sent an append of {first} behind {prev}", message.from)
                })?;
                if let Some(acked) = self.members[node].address(to, message.term, *epoch) {
                    check(prev.index >= acked, "P3", || {
                        format!("{} sent {} what follows {prev}, proven is {acked}", message.from, message.to)
                    })?;
                }
            }
            Body::InstallSnapshot { epoch, .. } => {
                self.members[node].address(to, message.term, *epoch);
            }
            Body::RequestVoteReply { granted: false, .. }
            | Body::PreVoteReply { .. }
            | Body::AppendReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {}
        }
        Ok(())
    }

    /// What a core reports that cannot happen where no disk was wiped and no peer lies.
    fn no_alarm(&self, node: usize, event: &Event) -> Checked {
        match event {
            Event::Halted(reason) => {
                let rule = match reason {
                    HaltReason::SnapshotConflictsWithCommitted { .. } => "N3",
                    HaltReason::AppendConflictsWithCommitted { .. } | HaltReason::BadConfiguration(_) => "C3",
                    HaltReason::TwoLeaders { .. } => "E1",
                };
                check(false, rule, || format!("{} halted: {reason}", id(node)))
            }
            Event::PeerRegressed { peer, matched, now } => check(false, "P5", || {
                format!("{} reports that {peer} went back from {matched} to {now}", id(node))
            }),
            Event::RoleChanged { .. } | Event::ConfChanged { .. } => Ok(()),
        }
    }

    fn writes(
        &mut self,
        node: usize,
        write: &Write,
        snapshot: Option<u64>,
        coverage: &mut Coverage,
    ) -> Checked {
        let member = &self.members[node];
        let old = member.hard_state;
        let new = write.hard_state;
        e4_vote_kept_within_term(id(node), old, new)?;
        let vote = new.vote.filter(|vote| *vote != id(node) && (new.term > old.term || old.vote.is_none()));
        if let Some(candidate) = vote {
            // With several inputs since, the log at the moment of the vote lies between before and after.
            let asks: Vec<Ask> =
                member.asked(|ask| !ask.pre && ask.candidate == candidate && ask.term == new.term);
            let last = if write.truncate_after.is_some() { LogId::ZERO } else { member.log.last() };
            e5_e8_grant(id(node), last, candidate, &asks)?;
        }
        if let Some(after) = write.truncate_after {
            let cut = after < member.log.last().index;
            l2_leader_append_only(id(node), member.role, cut)?;
            let first = write.entries.first().map(|entry| entry.id);
            if cut && member.inputs <= 1 && write.snapshot.is_none() {
                coverage.hit(Mark::Truncated);
                l3_real_conflict(id(node), &member.log, after, member.checked_commit, first)?;
            }
            check(after >= member.checked_commit, "L3", || {
                format!("{} cut its log after {after}, committed is {}", id(node), member.checked_commit)
            })?;
        }
        let member = &mut self.members[node];
        member.hard_state = new;
        if let Some(after) = write.truncate_after {
            member.log.truncate_after(after);
        }
        if let Some(mark) = &write.snapshot {
            let last = mark.meta.last;
            let fits = member.log.start().index > last.index;
            if !fits || mark.resets_log {
                n2_suffix_kept_if_it_fits(id(node), &member.log, last, mark.resets_log)?;
            }
            if mark.received {
                n1_only_newer_snapshots(id(node), member.checked_commit, last)?;
            }
            if mark.resets_log {
                coverage.hit(Mark::SnapshotReplacedLog);
                member.log.reset(last, snapshot.unwrap_or_default());
            }
            check(snapshot.is_some(), "N2", || {
                format!("{} noted snapshot {last} without its file", id(node))
            })?;
            self.c3_state_machine_safety(node, last.index, snapshot)?;
        }
        for entry in &write.entries {
            let member = &mut self.members[node];
            l5_no_hole(id(node), member.log.last(), entry.id)?;
            l4_terms_rise(id(node), &member.log, entry, new.term)?;
            let hash = member.log.push(entry.clone());
            self.l1_log_matching(id(node), entry.id, hash)?;
        }
        let last = self.members[node].log.last().index;
        check(new.commit <= last, "C5", || {
            format!("{} wrote the commit hint {}, its log ends at {last}", id(node), new.commit)
        })
    }
}

impl Member {
    fn asked(&self, matching: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        self.asks.iter().filter(|ask| matching(ask)).copied().collect()
    }

    /// A reply tells that a peer has everything up to `index`.
    fn success(&mut self, peer: usize, term: Term, epoch: Epoch, index: LogIndex, coverage: &mut Coverage) {
        let known = &mut self.peers[peer];
        if self.role != RoleKind::Leader || term != self.term || known.term != term || known.epoch != epoch {
            coverage.hit(Mark::StaleReply);
            return;
        }
        if index < known.acked {
            coverage.hit(Mark::ReorderedSuccess);
        }
        known.acked = known.acked.max(index);
        known.proven = known.proven.max(index);
    }

    /// The leader speaks to a peer: what that peer surely had proven two drains ago, if that still counts.
    fn address(&mut self, peer: usize, term: Term, epoch: Epoch) -> Option<LogIndex> {
        if self.role != RoleKind::Leader || term != self.term {
            return None;
        }
        let known = &mut self.peers[peer];
        if known.term != term || known.epoch != epoch {
            let proven = if known.term == term { known.proven } else { LogIndex::ZERO };
            *known = Peer { term, epoch, proven, ..Peer::default() };
        }
        Some(known.acked_before_drain).filter(|acked| *acked > self.compacted)
    }

    fn note_old_term_on_quorum(&self, node: usize, coverage: &mut Coverage) {
        if self.role != RoleKind::Leader || self.log.last().term != self.term {
            return;
        }
        let mut proven: Vec<LogIndex> = self
            .peers
            .iter()
            .enumerate()
            .filter(|(peer, known)| *peer != node && known.term == self.term)
            .map(|(_, known)| known.proven)
            .collect();
        proven.sort_unstable_by(|one, other| other.cmp(one));
        let Some(quorum) = proven.get(self.peers.len() / 2 - 1) else { return };
        if *quorum > self.commit && self.log.term(*quorum).is_some_and(|term| term < self.term) {
            coverage.hit(Mark::OldTermOnQuorum);
        }
    }
}

impl Campaign {
    fn ask(&mut self, term: Term, number: CampaignId, node: usize) {
        if (self.term, self.number) != (term, number) {
            *self = Campaign { term, number, granted: 1 << node };
        }
    }

    fn count(&mut self, term: Term, number: CampaignId, voter: usize) {
        if (self.term, self.number) == (term, number) {
            self.granted |= 1 << voter;
        }
    }
}

impl Prefixes {
    /// Remembers the hash at `at` unless one is known; returns the one that counts.
    fn note(&mut self, at: LogId, hash: u64) -> u64 {
        let index = count(at.index.0) - 1;
        if self.first.len() <= index {
            self.first.resize(index + 1, (Term::ZERO, 0));
        }
        let first = &mut self.first[index];
        if first.0 == Term::ZERO {
            *first = (at.term, hash);
        }
        if first.0 == at.term { first.1 } else { *self.more.entry((at.index, at.term)).or_insert(hash) }
    }
}

/// Older requests for votes are forgotten: their answers have left long ago.
const ASKS_MAX: usize = 32;

/// The snapshot's hash that a stored write carries.
pub(super) fn snapshot_hash(stored: &Stored) -> Option<u64> {
    stored.snapshot.as_ref().map(|snapshot| snapshot.hash)
}

#[cfg(test)]
mod tests;
