//! What clients do, and what they were told: each command gets exactly one answer, and the answer is true (X2); a
//! read sees every write that was committed before it was asked (R1, R2).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    clock::Time,
    coverage::{Coverage, Mark},
    disk::count,
    network::id,
    rules::{Checked, Committed, check, r1_read_is_current},
};
use crate::{EntryKind, LogId, LogIndex, Proposal, ReadOutcome, ReadToken, Term};

/// All commands and reads of a run.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    commands: Vec<Command>,
    /// Per node: what it took and has not answered, in the order of the log. One index may have several, of
    /// different terms.
    waiting: Vec<BTreeMap<(LogIndex, Term), usize>>,
    reads: BTreeMap<ReadToken, Read>,
    asked: u64,
}

/// One command.
#[derive(Clone, Copy, Debug, Default)]
struct Command {
    answer: Answer,
    committed: Option<LogIndex>,
}

/// What its client was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet.
    #[default]
    Waiting,
    /// It is applied.
    Committed,
    /// It will never be applied.
    Rejected,
    /// It may be applied or not.
    Unknown,
}

/// One read that waits.
#[derive(Clone, Copy, Debug)]
struct Read {
    node: usize,
    floor: LogIndex,
    asked: Time,
    /// Once known: what must be applied first.
    index: Option<LogIndex>,
}

impl Workload {
    pub(super) fn new(nodes: usize) -> Workload {
        Workload {
            commands: Vec::new(),
            waiting: vec![BTreeMap::new(); nodes],
            reads: BTreeMap::new(),
            asked: 0,
        }
    }

    /// The next command, `padding` bytes longer than it must be.
    pub(super) fn command(&mut self, padding: usize) -> (usize, Proposal) {
        let command = self.commands.len();
        self.commands.push(Command::default());
        let mut payload = (command as u64).to_le_bytes().to_vec();
        payload.resize(payload.len() + padding, 0);
        (command, Proposal::new(Bytes::from(payload)))
    }

    /// A node took it and put it there.
    pub(super) fn taken(&mut self, node: usize, command: usize, at: LogId) {
        self.waiting[node].insert((at.index, at.term), command);
    }

    /// A node did not take it.
    pub(super) fn refused(&mut self, command: usize) {
        self.commands[command].answer = Answer::Rejected;
    }

    pub(super) fn answer(&self, command: usize) -> Answer {
        self.commands[command].answer
    }

    /// Where a command was committed.
    pub(super) fn committed(&self, command: usize) -> Option<LogIndex> {
        self.commands[command].committed
    }

    /// X2: an entry was committed: its command for the first time, and not after its client was told that it is lost.
    pub(super) fn x2_committed_once(&mut self, committed: &Committed) -> Checked {
        let Some(number) = command_of(committed) else { return Ok(()) };
        let index = committed.entry.id.index;
        let Some(command) = self.commands.get_mut(number) else {
            return check(false, "X2", || {
                format!("command {number}, which nobody gave, is committed at {index}")
            });
        };
        let before = command.committed.replace(index);
        let answer = command.answer;
        check(before.is_none(), "X2", || format!("command {number} is committed at {before:?} and {index}"))?;
        check(answer != Answer::Rejected, "X2", || {
            format!("command {number} is committed at {index}, its client was told that it is lost")
        })
    }

    /// A node has applied up to here: answers who waited for it. What an earlier term put further on is lost as well: no
    /// leader to come has it behind this entry.
    pub(super) fn applied(&mut self, node: usize, entry: LogId, coverage: &mut Coverage) -> Checked {
        while let Some(last) = self.waiting[node].last_entry()
            && last.key().0 > entry.index
            && last.key().1 < entry.term
        {
            let ((index, term), number) = last.remove_entry();
            self.give_up(node, LogId { term, index }, number, coverage)?;
        }
        while let Some(first) = self.waiting[node].first_entry()
            && first.key().0 <= entry.index
        {
            let ((index, term), number) = first.remove_entry();
            let at = LogId { term, index };
            let command = &mut self.commands[number];
            if at == entry {
                coverage.hit(Mark::ProposalCommitted);
                command.answer = Answer::Committed;
                let committed = command.committed;
                check(committed == Some(at.index), "X2", || {
                    format!("{} applied command {number} at {at}, committed is {committed:?}", id(node))
                })?;
            } else {
                self.give_up(node, at, number, coverage)?;
            }
        }
        Ok(())
    }

    fn give_up(&mut self, node: usize, at: LogId, number: usize, coverage: &mut Coverage) -> Checked {
        coverage.hit(Mark::ProposalLost);
        let command = &mut self.commands[number];
        command.answer = Answer::Rejected;
        let committed = command.committed;
        check(committed.is_none(), "X2", || {
            format!("{} gave up command {number} at {at}, committed is {committed:?}", id(node))
        })
    }

    /// How many commands were given.
    pub(super) fn given(&self) -> usize {
        self.commands.len()
    }

    /// X2: no command before that one which a member took is still without an answer.
    pub(super) fn x2_every_command_is_answered(&self, members: &[usize], before: usize) -> Checked {
        let silent = members.iter().find_map(|n| {
            self.waiting[*n].iter().find(|(_, command)| **command < before).map(|at| (id(*n), at))
        });
        check(silent.is_none(), "X2", || format!("nobody told what became of {silent:?}"))
    }

    /// A node jumped over entries by a snapshot: nobody there can tell what became of what waited.
    pub(super) fn restored(&mut self, node: usize, last: LogIndex, coverage: &mut Coverage) {
        while let Some(first) = self.waiting[node].first_entry()
            && first.key().0 <= last
        {
            coverage.hit(Mark::ProposalUnknown);
            self.commands[first.remove()].answer = Answer::Unknown;
        }
    }

    /// A node's process is gone, with everything that waited there.
    pub(super) fn crashed(&mut self, node: usize, coverage: &mut Coverage) {
        self.restored(node, LogIndex(u64::MAX), coverage);
        self.reads.retain(|_, read| read.node != node);
    }

    /// The token of a new read that must see everything up to `floor`.
    pub(super) fn read(&mut self, node: usize, floor: LogIndex, now: Time) -> ReadToken {
        self.asked += 1;
        let token = ReadToken(self.asked);
        self.reads.insert(token, Read { node, floor, asked: now, index: None });
        token
    }

    /// The node did not take the read.
    pub(super) fn read_refused(&mut self, token: ReadToken) {
        self.reads.remove(&token);
    }

    /// The node says when the read may be served.
    pub(super) fn read_answered(
        &mut self,
        node: usize,
        outcome: ReadOutcome,
        leads: bool,
        coverage: &mut Coverage,
    ) -> Checked {
        let read =
            self.reads.get_mut(&outcome.token).filter(|read| read.node == node && read.index.is_none());
        let Some(read) = read else {
            return check(false, "R2", || format!("{} answered a read nobody asked: {outcome:?}", id(node)));
        };
        let Some(index) = outcome.index else {
            coverage.hit(Mark::ReadUnconfirmed);
            self.reads.remove(&outcome.token);
            return Ok(());
        };
        coverage.hit(if leads { Mark::ReadAtLeader } else { Mark::ReadAtFollower });
        read.index = Some(index);
        r1_read_is_current(id(node), index, read.floor)
    }

    /// R2: reads whose index is applied are served, and see what they must.
    pub(super) fn serve_reads(&mut self, node: usize, applied: LogIndex) {
        if self.reads.is_empty() {
            return;
        }
        self.reads.retain(|_, read| read.node != node || read.index.is_none_or(|index| index > applied));
    }

    /// R2: no read that a member was asked before `since` still waits for its index.
    pub(super) fn r2_reads_are_answered(&self, members: &[usize], since: Time) -> Checked {
        let forgotten = self.reads.values().find(|read| read.asked < since && members.contains(&read.node));
        check(forgotten.is_none(), "R2", || format!("a read was never answered: {forgotten:?}"))
    }
}

/// The command in an entry.
fn command_of(committed: &Committed) -> Option<usize> {
    if committed.entry.kind != EntryKind::Command {
        return None;
    }
    let number = committed.entry.payload.first_chunk::<8>()?;
    Some(count(u64::from_le_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Timestamp};

    fn committed(command: u64, index: u64) -> Committed {
        let payload = Bytes::from(command.to_le_bytes().to_vec());
        let entry = Entry {
            id: LogId::new(1, index),
            time: Timestamp(0),
            session: None,
            kind: EntryKind::Command,
            checksum: Entry::checksum_of(&payload),
            payload,
        };
        Committed { hash: 0, term: Term(1), entry }
    }

    #[track_caller]
    fn names(rule: &str, checked: Checked) {
        assert_eq!(checked.expect_err("the history breaks a rule").rule, rule);
    }

    #[test]
    fn x2_names_a_command_committed_twice_after_its_loss_or_never_given() {
        let mut workload = Workload::new(1);
        workload.command(0);
        workload.command(0);
        workload.x2_committed_once(&committed(0, 1)).expect("the first time");
        names("X2", workload.x2_committed_once(&committed(0, 2)));
        workload.refused(1);
        names("X2", workload.x2_committed_once(&committed(1, 3)));
        names("X2", workload.x2_committed_once(&committed(9, 4)));
    }

    #[test]
    fn x2_names_a_true_command_that_is_given_up() {
        let mut workload = Workload::new(1);
        let (command, _) = workload.command(0);
        workload.taken(0, command, LogId::new(1, 1));
        workload.x2_committed_once(&committed(0, 1)).expect("the first time");
        names("X2", workload.applied(0, LogId::new(2, 1), &mut Coverage::default()));
    }

    #[test]
    fn r2_names_a_read_without_answer_or_answered_twice() {
        let mut workload = Workload::new(1);
        let token = workload.read(0, LogIndex(1), 5);
        names("R2", workload.r2_reads_are_answered(&[0], 6));
        let outcome = ReadOutcome { token, index: None };
        workload.read_answered(0, outcome, true, &mut Coverage::default()).expect("asked");
        names("R2", workload.read_answered(0, outcome, true, &mut Coverage::default()));
    }
}
