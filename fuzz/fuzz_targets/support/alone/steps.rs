//! Carries out the steps of a plan.

use bytes::Bytes;
use raft_core::{
    Apply, ConfChange, Entry, Epoch, Fetch, FetchId, Input, Lease, LogIndex, NodeId, Proposal, ReadToken,
    RoleKind, SnapshotMeta, Term, WriteId,
};

use super::{
    World, forge,
    plan::{Answer, AnyTerm, FeedTerm, Step, Write},
    rules::{View, changed},
};

impl World {
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Say { from, astray, term, words } => {
                let message = self.forge().message(*from, *astray, term, words);
                self.tell(Input::Message(message));
            }
            Step::Feed { from, term, back, entries, commit } => {
                let term = match term {
                    FeedTerm::Own => AnyTerm::Own,
                    FeedTerm::Next => AnyTerm::Next,
                };
                let message = self.forge().append(*from, &term, *back, *entries, commit);
                self.tell(Input::Message(message));
            }
            Step::Beat { from, back, commit } => {
                let message = self.forge().heartbeat(*from, *back, commit);
                self.tell(Input::Message(message));
            }
            Step::Agree => self.agree(),
            Step::Elect => self.elect(),
            Step::Answer { which, yes, index } => {
                let Some(asked) = pick(self.said.make_contiguous(), *which).cloned() else { return };
                let index = self.forge().place(index);
                if let Some(message) = self.forge().answer(&asked, *yes, index) {
                    self.tell(Input::Message(message));
                }
            }
            Step::Repeat { which } => {
                if let Some(message) = pick(&self.was_told, *which).cloned() {
                    self.tell(Input::Message(message));
                }
            }
            Step::Wait { ms } => self.wait(u64::from(*ms)),
            Step::WaitForDeadline => {
                if let Some(deadline) = self.raft.next_deadline() {
                    let micros = deadline.micros_since(self.now.instant);
                    self.wait(micros.div_ceil(1000));
                }
            }
            Step::ClockBack { ms } => {
                let mut earlier = self.now;
                earlier.instant.0 = earlier.instant.0.saturating_sub(u64::from(*ms) * 1000);
                earlier.wall.0 = earlier.wall.0.saturating_sub(u64::from(*ms));
                self.tell_at(earlier, Input::Tick);
            }
            Step::Work => self.work(),
            Step::Persisted(write) => self.persisted(write),
            Step::Applied(place) => {
                let index = self.forge().place(place);
                self.tell(Input::Applied(index));
            }
            Step::Fetched { which, answer } => {
                let Some(fetch) = pick(&self.fetches, *which).copied() else { return };
                let entries = self.fetched(&fetch, answer);
                self.tell(Input::Fetched { id: fetch.id, entries });
            }
            Step::FetchFailed { which } => self.tell(Input::FetchFailed { id: FetchId(u64::from(*which)) }),
            Step::SnapshotTaken { id, voters } => {
                let forge = self.forge();
                let last = forge.id(id, Term::ZERO);
                let meta = SnapshotMeta { last, conf: forge::conf(*voters), ..SnapshotMeta::default() };
                self.tell(Input::SnapshotTaken(Box::new(meta)));
            }
            Step::SnapshotFailed { to, epoch } => {
                let epoch = Epoch(forge::number(epoch, 1));
                self.tell(Input::SnapshotFailed { to: NodeId(u64::from(*to)), epoch });
            }
            Step::SnapshotProgress { to, epoch } => {
                let epoch = Epoch(forge::number(epoch, 1));
                self.tell(Input::SnapshotProgress { to: NodeId(u64::from(*to)), epoch });
            }
            Step::PeerDied(peer) => self.tell(Input::PeerDied(NodeId(u64::from(peer % 8)))),
            Step::PeerConnected(peer) => self.tell(Input::PeerConnected(NodeId(u64::from(peer % 8)))),
            Step::Propose { bytes } => self.propose(*bytes),
            Step::Read => self.read(),
            Step::Transfer { to } => {
                let before = View::of(&self.raft);
                if self.raft.transfer_leadership(self.now, NodeId(u64::from(to % 8))).is_ok() {
                    assert_eq!(before.role, RoleKind::Leader, "X1: a transfer by who does not lead");
                    assert_eq!(before.transfer, None, "X1: two transfers at a time");
                }
            }
            Step::Change { voters, learners, force, twice } => {
                self.change(&wanted(*voters, *learners, *force, *twice));
            }
            Step::Lease { ms, drift_ppm } => {
                let lease = Lease { timeout_ms: u32::from(*ms), drift_ppm: *drift_ppm };
                let before = View::of(&self.raft);
                let done = self.raft.set_lease(self.now, Some(lease).filter(|_| *ms > 0));
                changed(&self.raft, &before, done);
            }
            Step::Crash(crash) => self.crash(crash),
        }
    }

    /// Everybody says yes to the latest of what they were asked.
    fn agree(&mut self) {
        for asked in self.said.clone() {
            if let Some(message) = self.forge().agreement(&asked) {
                self.tell(Input::Message(message));
            }
        }
    }

    fn elect(&mut self) {
        for _ in 0..3 {
            if self.raft.role() == RoleKind::Leader {
                return;
            }
            self.step(&Step::WaitForDeadline);
            for _ in 0..2 {
                self.work();
                self.agree();
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.instant = self.now.instant.plus_millis(ms);
        self.now.wall.0 = self.now.wall.0.saturating_add(ms);
        self.tell(Input::Tick);
        self.take();
        let (deadline, now) = (self.raft.next_deadline(), self.now.instant);
        assert!(
            deadline.is_none_or(|at| at > now),
            "V6: it wants to be woken at {deadline:?}, it is {now:?}"
        );
    }

    /// The caller does what it was asked for, and all that follows from it.
    fn work(&mut self) {
        for _ in 0..8 {
            self.take();
            for fetch in std::mem::take(&mut self.fetches) {
                let entries = self.disk.read(&fetch);
                self.tell(Input::Fetched { id: fetch.id, entries });
            }
            if self.disk.persisted < self.disk.issued {
                self.report(self.disk.issued);
            }
            for work in std::mem::take(&mut self.apply) {
                let index = match work {
                    Apply::Entries(entries) => entries.last().map_or(LogIndex::ZERO, |entry| entry.id.index),
                    Apply::Restore(meta) => meta.last.index,
                };
                self.tell(Input::Applied(index));
            }
        }
    }

    fn persisted(&mut self, write: &Write) {
        let (persisted, issued) = (self.disk.persisted.0, self.disk.issued.0);
        match *write {
            Write::Next(more) => {
                self.report(WriteId(persisted.saturating_add(u64::from(more) + 1).min(issued)))
            }
            Write::Before(back) => self.report(WriteId(persisted.saturating_sub(u64::from(back)))),
            Write::Unknown(ahead) => {
                self.tell(Input::Persisted(WriteId(issued.saturating_add(ahead.max(1)))))
            }
        }
    }

    fn report(&mut self, id: WriteId) {
        self.disk.persist(id);
        self.tell(Input::Persisted(id));
    }

    fn fetched(&self, fetch: &Fetch, answer: &Answer) -> Vec<Entry> {
        let told = |first: LogIndex, count| {
            let indexes = (first.0..).map(LogIndex);
            indexes.map_while(|index| self.disk.told.entry(index)).take(count).cloned().collect::<Vec<_>>()
        };
        let asked = usize::try_from(fetch.last.distance(fetch.first)).expect("a short log") + 1;
        match *answer {
            Answer::Prefix(count) => told(fetch.first, usize::from(count).clamp(1, asked)),
            Answer::TooMuch => told(fetch.first, usize::MAX),
            Answer::Nothing => Vec::new(),
            Answer::Shifted(by) => {
                told(LogIndex(fetch.first.0.saturating_add_signed(i64::from(by) | 1)), asked)
            }
            Answer::OtherTerm => {
                let mut entries = told(fetch.first, asked);
                entries.iter_mut().for_each(|entry| entry.id.term = entry.id.term.next());
                entries
            }
        }
    }

    fn propose(&mut self, bytes: u8) {
        let before = View::of(&self.raft);
        let proposal = Proposal::new(Bytes::from(vec![bytes; usize::from(bytes)]));
        if let Ok(id) = self.raft.propose(self.now, proposal) {
            assert_eq!(
                (before.role, before.transfer),
                (RoleKind::Leader, None),
                "X1: proposals go on in a transfer"
            );
            assert_eq!(
                (id.term, id.index),
                (before.term, before.last.index.next()),
                "a proposal is not the next entry"
            );
        }
    }

    fn read(&mut self) {
        self.tokens += 1;
        let (token, before) = (ReadToken(self.tokens), View::of(&self.raft));
        if self.raft.read(self.now, token).is_ok() {
            // What a leader elsewhere answers is its own business.
            let leads = before.role == RoleKind::Leader;
            self.reads.insert(token, if leads { before.commit } else { LogIndex::ZERO });
        }
    }

    fn change(&mut self, wanted: &ConfChange) {
        let before = View::of(&self.raft);
        let done = self.raft.change_membership(self.now, wanted);
        changed(&self.raft, &before, done);
    }
}

fn wanted(voters: u8, learners: u8, force: bool, twice: bool) -> ConfChange {
    let (mut voters, learners) = (forge::ids(voters), forge::ids(learners & !voters));
    let named = voters.iter().chain(&learners);
    let members = named.map(|id| (*id, forge::member(*id, false))).collect();
    if twice {
        voters.extend(voters.first().copied());
    }
    ConfChange { voters, learners, members, force }
}

fn pick<T>(items: &[T], which: u8) -> Option<&T> {
    // Counted from the latest.
    items.len().checked_sub(1).map(|last| &items[last - usize::from(which) % items.len()])
}
