//! What the binary serves: the node and its store, as front ends, operators and the expirer see them.
//!
//! It is there before the node is: while a cluster is being founded, clients and operators are told what it waits for.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use raft_core::{ClusterId, LogIndex, NodeId, RoleKind, Term, Timestamp};
use raft_net::Addresses;
use tokio::sync::watch;

use crate::{
    Inspection, Node,
    applier::ReadFn,
    config::Config,
    error::ClientError,
    kv::{
        Kv, Reply,
        request::{self, Request},
        table::{self, Flags},
    },
    leader_time::{LeaderTime, Replicated},
    metrics::Metrics,
    reads::{BehindTime, Freshness},
    resp::{Backend, Consistency, Counters, ReadRequest, ReplyFuture},
    status::{MemberKind, MemberStatus, Role, Status, StatusSource},
    store::{Figures, NO_DEADLINE, Store},
};

/// See the module. Cloning it gives another handle.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

struct Inner {
    id: NodeId,
    addresses: Addresses,
    node: OnceLock<Node<Store>>,
    progress: watch::Receiver<String>,
    figures: Arc<Figures>,
    metrics: Metrics,
    /// What the front end counts, once it runs.
    clients: OnceLock<Arc<dyn Fn() -> ClientFigures + Send + Sync>>,
    memory_bytes_max: u64,
    behind_time: BehindTime,
    leader_time: Mutex<LeaderTime>,
    freshness: Freshness,
    /// When the disk was last looked at, in milliseconds after `started`, and whether it was full.
    disk_looked_at_ms: AtomicU64,
    disk_full: AtomicBool,
    started: Instant,
}

/// What the front end has counted.
pub(crate) struct ClientFigures {
    pub(crate) commands: u64,
    pub(crate) errors: u64,
    pub(crate) connections: u64,
    pub(crate) open: usize,
}

impl ClientFigures {
    pub(crate) fn of(counters: &Counters, open: usize) -> ClientFigures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientFigures {
            commands: get(&counters.commands),
            errors: get(&counters.errors),
            connections: get(&counters.connections),
            open,
        }
    }
}

impl Service {
    pub(crate) fn new(
        config: &Config,
        addresses: Addresses,
        figures: Arc<Figures>,
        progress: watch::Receiver<String>,
        started: Instant,
    ) -> Service {
        Service(Arc::new(Inner {
            id: config.id,
            addresses,
            node: OnceLock::new(),
            progress,
            figures,
            metrics: Metrics::new(),
            clients: OnceLock::new(),
            memory_bytes_max: config.memory_bytes_max(),
            behind_time: BehindTime::default(),
            leader_time: Mutex::default(),
            freshness: Freshness::new(),
            disk_looked_at_ms: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            started,
        }))
    }

    /// From now on requests go to `node`.
    pub(crate) fn set_node(&self, node: Node<Store>) {
        let _ = self.0.node.set(node);
    }

    /// Where to ask what the front end has counted.
    pub(crate) fn set_clients(&self, figures: impl Fn() -> ClientFigures + Send + Sync + 'static) {
        let _ = self.0.clients.set(Arc::new(figures));
    }

    /// Waits until this node serves.
    pub(crate) async fn ready(&self) {
        while !Backend::status(self).ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Has what is due expire while this node leads: time only passes in the store when an entry says so.
    ///
    /// Sleeps for as long as no key has a deadline.
    pub(crate) async fn expire(self) {
        loop {
            let deadline = self.0.figures.deadline_ms.load(Ordering::Relaxed);
            let changed = self.0.figures.deadline_changed.notified();
            if deadline == NO_DEADLINE {
                changed.await;
                continue;
            }
            let wait = deadline.saturating_sub(self.leaders_time().0);
            if wait > 0 {
                // Leaders change, so no single wait is long.
                let wait = Duration::from_millis(wait.min(EXPIRE_WAIT_MAX_MS));
                let _ = tokio::time::timeout(wait, changed).await;
                continue;
            }
            if let Some(node) = self.0.node.get()
                && node.inspect().role == RoleKind::Leader
                && self.tell_time(node).await.is_ok()
            {
                // More may be due than one entry removes. If nothing was, it is known now how long to wait.
                continue;
            }
            let _ = tokio::time::timeout(EXPIRE_RETRY, changed).await;
        }
    }

    /// Has an entry made that tells the time.
    async fn tell_time(&self, node: &Node<Store>) -> Result<(), ClientError> {
        let (term, asked) = (node.inspect().term, Instant::now());
        // The store of this node may not have it yet, if somebody else leads.
        let reply = node.propose(request::encode_tick()).await?;
        if let Ok(Reply::Integer(millis)) = Reply::decode(&reply) {
            let time = Timestamp(u64::try_from(millis).unwrap_or(0));
            lock(&self.0.leader_time).tell(term, time, asked);
        }
        Ok(())
    }

    /// The leader's clock, as far as this node can tell.
    fn leaders_time(&self) -> Timestamp {
        let Inner { figures, started, .. } = &*self.0;
        let term = self.0.node.get().map_or(Term::ZERO, |node| node.inspect().term);
        let time = Timestamp(figures.time_ms.load(Ordering::Acquire));
        let at = *started + Duration::from_millis(figures.time_at_ms.load(Ordering::Acquire));
        lock(&self.0.leader_time).now(term, Timestamp(wall_ms()), Replicated { time, at }, Instant::now())
    }

    /// Gives memory back once nothing has been written for a while. Sleeps for as long as nothing is.
    pub(crate) async fn give_back_memory(self) {
        let applied = || self.0.figures.entries_applied.load(Ordering::Relaxed);
        let mut quiet = QUIET_AFTER_START;
        loop {
            self.0.figures.applied.notified().await;
            let mut before = None;
            while before.replace(applied()) != Some(applied()) {
                tokio::time::sleep(quiet).await;
            }
            crate::allocator::give_back();
            quiet = QUIET;
        }
    }

    fn not_started(&self) -> String {
        let doing = self.0.progress.borrow().clone();
        if doing.is_empty() { "starting".to_owned() } else { doing }
    }

    fn is_over_memory(&self, payload: &[u8]) -> bool {
        let used = self.0.figures.size_bytes.load(Ordering::Relaxed);
        used > self.0.memory_bytes_max && needs_memory(payload)
    }

    /// Whether the only disk that could take this has no room for the log's next file. What is left of the present one is
    /// for deletes. With other voters, one of them leads when this node's disk is full.
    fn has_no_disk(&self, node: &Node<Store>, payload: &[u8]) -> bool {
        self.disk_is_full(node) && node.inspect().conf.voters.len() == 1 && needs_memory(payload)
    }

    /// Looks now and then only.
    fn disk_is_full(&self, node: &Node<Store>) -> bool {
        let inner = &*self.0;
        let now = u64::try_from(inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= inner.disk_looked_at_ms.load(Ordering::Relaxed).saturating_add(DISK_LOOKS_APART_MS) {
            inner.disk_looked_at_ms.store(now, Ordering::Relaxed);
            inner.disk_full.store(node.log_stats().full, Ordering::Relaxed);
        }
        inner.disk_full.load(Ordering::Relaxed)
    }
}

/// How old the answer to whether the disk is full may be, in milliseconds.
const DISK_LOOKS_APART_MS: u64 = 10;

/// A leader's clock that is further off is worth a word, in milliseconds.
const CLOCK_AHEAD_MS_MAX: u64 = 1000;
/// A wait for a deadline is cut here, in milliseconds.
const EXPIRE_WAIT_MAX_MS: u64 = 10_000;
/// The log behind the snapshot has been applied, which takes a lot of memory for a moment.
const QUIET_AFTER_START: Duration = Duration::from_millis(50);
/// Nothing applied for this long: nobody is hurt by a pause of a millisecond.
const QUIET: Duration = Duration::from_secs(1);
/// A deadline has passed, and somebody else leads, or nobody, or the entry that says so was not taken.
const EXPIRE_RETRY: Duration = Duration::from_millis(100);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a request may make the store grow.
fn needs_memory(payload: &[u8]) -> bool {
    let grows = |words: &[&[u8]]| {
        let spec = words.first().and_then(|name| table::lookup(name));
        spec.is_some_and(|spec| spec.flags.contains(Flags::DENYOOM))
    };
    match Request::decode(payload) {
        Ok(Request::Command(words)) => grows(&words),
        Ok(Request::Exec { commands, .. }) => commands.iter().any(|words| grows(words)),
        Ok(Request::Tick | Request::OpenSession) | Err(_) => false,
    }
}

impl Backend for Service {
    fn propose(&self, payload: Bytes) -> ReplyFuture {
        let Some(node) = self.0.node.get() else { return ReplyFuture::ready(Err(ClientError::NoLeader)) };
        if self.is_over_memory(&payload) {
            return ReplyFuture::ready(Err(ClientError::OutOfMemory));
        }
        if self.has_no_disk(node, &payload) {
            return ReplyFuture::ready(Err(ClientError::DiskFull));
        }
        ReplyFuture::write(node.submit(payload))
    }

    fn read(&self, consistency: Consistency, read: ReadRequest) {
        let Some(node) = self.0.node.get() else { return read(Err(ClientError::NoLeader)) };
        match consistency {
            Consistency::Linearizable | Consistency::Lease => self.read_linearizable(node, read),
            Consistency::Stale { lag_max: Some(lag) } => {
                let now = Instant::now();
                if self.0.freshness.is_within(lag, now) {
                    node.submit_read_stale(on_kv(read));
                } else {
                    let service = self.clone();
                    let prove = move |kv: Result<&Kv, ClientError>| {
                        if kv.is_ok() {
                            service.0.freshness.prove(now);
                        }
                        read(kv);
                    };
                    self.read_linearizable(node, Box::new(prove));
                }
            }
            Consistency::Stale { lag_max: None } => node.submit_read_stale(on_kv(read)),
        }
    }

    fn time(&self) -> Timestamp {
        self.leaders_time()
    }

    fn log_is_full(&self) -> bool {
        self.0.node.get().is_some_and(|node| self.disk_is_full(node))
    }

    fn status(&self) -> Status {
        let inner = &*self.0;
        let figures = &inner.figures;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Some(node) = inner.node.get() else {
            return Status {
                not_ready_reason: Some(self.not_started()),
                uptime_s: inner.started.elapsed().as_secs(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..empty(inner.id)
            };
        };
        let now = node.inspect();
        let log = node.log_stats();
        let started = node.started();
        // A leader without room can still answer reads; whoever follows without room falls behind.
        let cannot_follow = log.full && now.role != RoleKind::Leader;
        let ready = now.leader.is_some() && now.applied >= now.commit && !cannot_follow;
        let mut problems = Vec::new();
        if log.full {
            problems.push(format!("{}: no space left for the log", inner.id));
        }
        if now.snapshot_lost {
            problems.push(format!("{}: its snapshot is damaged, it waits for one of the leader", inner.id));
        }
        let scrubbed = node.scrub_report();
        if let Some((first, _)) = scrubbed.errors.first() {
            let count = scrubbed.errors.len();
            let help = crate::scrub_watch::HELP;
            problems.push(format!(
                "{}: {count} damaged entries in the log, the first is {first}: {help}",
                inner.id
            ));
        }
        if now.clock_ahead_ms.unsigned_abs() > CLOCK_AHEAD_MS_MAX {
            let (off, way) = (
                now.clock_ahead_ms.unsigned_abs() / 1000,
                if now.clock_ahead_ms > 0 { "ahead of" } else { "behind" },
            );
            problems.push(format!("{}: the leader's clock is {off} s {way} those of the others", inner.id));
        }
        let members = self.members(node, &now, &mut problems);
        Status {
            cluster_id: started.cluster,
            role: role_of(&now, inner.id),
            leader: now.leader,
            term: now.term,
            commit: now.commit,
            applied: now.applied,
            first_index: now.first,
            last_index: now.last,
            snapshot_index: now.snapshot,
            ready,
            not_ready_reason: cannot_follow.then(|| "no space left for the log".to_owned()),
            uptime_s: inner.started.elapsed().as_secs(),
            fsync_p50_us: log.fsync_p50_us,
            fsync_p99_us: log.fsync_p99_us,
            members,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_number: started.start,
            incarnation: started.incarnation,
            keys: Some(count(&figures.keys)),
            expiring: Some(count(&figures.expiring)),
            memory_bytes: Some(count(&figures.size_bytes)),
            memory_bytes_max: Some(inner.memory_bytes_max),
            segments: Some(log.segments),
            log_bytes: Some(log.segment_bytes),
            log_full: log.full,
            problems,
            ..empty(inner.id)
        }
    }
}

/// A read of the store as the node knows it.
fn on_kv(read: ReadRequest) -> ReadFn<Store> {
    Box::new(move |store: Result<&Store, ClientError>| read(store.map(Store::kv)))
}

impl Service {
    fn read_linearizable(&self, node: &Node<Store>, read: ReadRequest) {
        let service = self.clone();
        node.submit_read(Box::new(move |store| match store.map(Store::kv) {
            Ok(kv) if kv.earliest_deadline().is_some() && kv.is_behind(service.leaders_time()) => {
                service.read_behind_time(read)
            }
            kv => read(kv),
        }));
    }

    /// Serves a read behind an entry that is yet to tell the time. By the leader's clock: if that is behind what we took it
    /// for, the entry may not be late enough for us, but it is for the cluster.
    fn read_behind_time(self, read: ReadRequest) {
        if self.0.behind_time.add(read) {
            tokio::spawn(async move {
                let Some(node) = self.0.node.get() else { return };
                while let Some(reads) = self.0.behind_time.take() {
                    let told = self.tell_time(node).await;
                    for read in reads {
                        match &told {
                            Ok(()) => node.submit_read(on_kv(read)),
                            // A read has changed nothing, whatever became of the entry.
                            Err(ClientError::OutcomeUnknown) => read(Err(ClientError::NoLeader)),
                            Err(error) => read(Err(error.clone())),
                        }
                    }
                }
            });
        }
    }

    fn members(&self, node: &Node<Store>, now: &Inspection, problems: &mut Vec<String>) -> Vec<MemberStatus> {
        let links = node.peers_status();
        let me = self.0.id;
        let leads = now.role == RoleKind::Leader;
        let member = |id: NodeId, address: &str| {
            let kind = if now.conf.is_voter(id) { MemberKind::Voter } else { MemberKind::Learner };
            let matched = if id == me { Some(now.last) } else { now.matched.get(&id).copied() };
            let link = links.get(&id);
            let told = link.and_then(|link| link.hello.as_ref()).map(|hello| &hello.addresses);
            let addresses = if id == me { Some(&self.0.addresses) } else { told };
            MemberStatus {
                id,
                kind,
                resp: addresses.map(|a| a.resp.clone()).unwrap_or_default(),
                http: addresses.map(|a| a.http.clone()).unwrap_or_default(),
                peer: address.to_owned(),
                matched: matched.filter(|_| leads),
                lag: matched.filter(|_| leads).map(|matched| now.last.distance(matched)),
                connected: id == me || link.is_some_and(|link| link.control_connected),
            }
        };
        let members: Vec<MemberStatus> =
            now.conf.members.iter().map(|(id, known)| member(*id, &known.address)).collect();
        for member in members.iter().filter(|member| !member.connected) {
            let why = links.get(&member.id).and_then(|link| link.last_error.clone());
            problems.push(format!(
                "{} is not connected: {}",
                member.id,
                why.unwrap_or_else(|| "connecting".to_owned())
            ));
        }
        members
    }
}

fn role_of(now: &Inspection, me: NodeId) -> Role {
    match now.role {
        RoleKind::Leader => Role::Leader,
        RoleKind::Follower if now.conf.is_learner(me) => Role::Learner,
        RoleKind::Follower => Role::Follower,
        RoleKind::PreCandidate | RoleKind::Candidate => Role::Candidate,
    }
}

/// Before anything is known.
fn empty(id: NodeId) -> Status {
    Status {
        cluster_id: ClusterId(0),
        id,
        role: Role::Follower,
        leader: None,
        term: Term::ZERO,
        commit: LogIndex::ZERO,
        applied: LogIndex::ZERO,
        first_index: LogIndex::ZERO,
        last_index: LogIndex::ZERO,
        snapshot_index: LogIndex::ZERO,
        ready: false,
        not_ready_reason: None,
        uptime_s: 0,
        fsync_p50_us: 0,
        fsync_p99_us: 0,
        members: Vec::new(),
        version: String::new(),
        start_number: raft_core::StartNumber(0),
        incarnation: raft_core::Incarnation::UNKNOWN,
        keys: None,
        expiring: None,
        memory_bytes: None,
        memory_bytes_max: None,
        segments: None,
        log_bytes: None,
        log_full: false,
        problems: Vec::new(),
    }
}

impl StatusSource for Service {
    fn status(&self) -> Status {
        Backend::status(self)
    }

    fn metrics(&self) -> &Metrics {
        let metrics = &self.0.metrics;
        raise(&metrics.entries_applied, self.0.figures.entries_applied.load(Ordering::Relaxed));
        if let Some(node) = self.0.node.get() {
            let log = node.log_stats();
            raise(&metrics.fsyncs, log.fsyncs);
            raise(&metrics.log_bytes_written, log.written_bytes);
            let counts = node.counts();
            raise(&metrics.proposals, counts.proposals);
            raise(&metrics.forwards, counts.forwards);
            raise(&metrics.reads, counts.reads);
            raise(&metrics.elections, counts.elections);
            raise(&metrics.leader_changes, counts.leader_changes);
            raise(&metrics.snapshots, counts.snapshots);
            raise(&metrics.snapshots_received, counts.snapshots_received);
        }
        if let Some(clients) = self.0.clients.get() {
            let clients = clients();
            raise(&metrics.commands, clients.commands);
            raise(&metrics.command_errors, clients.errors);
            raise(&metrics.connections, clients.connections);
            metrics.connections_open.set(i64::try_from(clients.open).unwrap_or(i64::MAX));
        }
        metrics
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
