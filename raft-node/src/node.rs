//! The library: start a node around a state machine and talk to it through a cloneable handle.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use raft_core::{
    ClusterId, Config, Incarnation, LogIndex, Member, NodeId, Proposal, Raft, StartNumber, Term,
};
use raft_net::{Addresses, LocalIdentity, NetEvents, NetOptions, PeerInfo, PeerStatus, Pin, Transport};
use raft_wal::{Options as WalOptions, Wal, vfs::OsVfs};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::warn;

use crate::{
    applier::{Applier, ReadFn},
    arrivals::Arrivals,
    budget::Budget,
    counts::{Counts, Totals},
    data_dir::DataDir,
    driver::{Clock, Driver, DriverInput, Waiter, peer_infos},
    error::{ClientError, StartError},
    founding::{found, random_u64, random_u128},
    inspection::{Inspection, Published},
    opened::Opened,
    replica::{Limits, Replica},
    scrub_watch,
    state_machine::StateMachine,
};

/// What a node is started with. Times are milliseconds, sizes bytes.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node; must not change for a data directory once used.
    pub id: NodeId,
    /// Where everything is kept; created if missing.
    pub data_dir: PathBuf,
    /// The founders and their peer addresses, this node among them; `None` founds a cluster of one.
    pub founders: Option<BTreeMap<NodeId, String>>,
    /// Where others reach this node.
    pub advertise: Addresses,
    /// See [`raft_core::Config::heartbeat_ms`].
    pub heartbeat_ms: u64,
    /// The shortest election timeout; the longest is twice that.
    pub election_timeout_ms: u64,
    /// Size of one log segment.
    pub segment_bytes: u64,
    /// A snapshot is taken when the log behind the last one exceeds this and twice that snapshot's size.
    pub snapshot_log_bytes: u64,
    /// The largest command.
    pub entry_bytes_max: usize,
    /// Bytes of commands that clients of this node may have waiting; beyond it they are refused as busy.
    pub client_bytes_max: usize,
    /// Bytes of large replies that clients of this node may have waiting; what finds no room beyond it is lost, and its
    /// client told [`ClientError::OutcomeUnknown`].
    pub reply_bytes_max: usize,
    /// Check every record of the log before starting.
    pub verify_on_open: bool,
}

impl NodeConfig {
    /// The product's defaults for a node with its data in `data_dir`.
    #[must_use]
    pub fn new(id: NodeId, data_dir: PathBuf) -> NodeConfig {
        NodeConfig {
            id,
            data_dir,
            founders: None,
            advertise: Addresses::default(),
            heartbeat_ms: 100,
            election_timeout_ms: 500,
            segment_bytes: 64 << 20,
            snapshot_log_bytes: 64 << 20,
            entry_bytes_max: 32 << 20,
            client_bytes_max: 64 << 20,
            reply_bytes_max: 512 << 20,
            verify_on_open: false,
        }
    }
}

/// A running node. Cloning it gives another handle to the same one.
pub struct Node<S> {
    inputs: mpsc::UnboundedSender<DriverInput<S>>,
    budget: Arc<Budget>,
    replies: Arc<Budget>,
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Ended>>,
}

impl<S> Clone for Node<S> {
    fn clone(&self) -> Node<S> {
        Node {
            inputs: self.inputs.clone(),
            budget: Arc::clone(&self.budget),
            replies: Arc::clone(&self.replies),
            shared: Arc::clone(&self.shared),
            ended: self.ended.clone(),
        }
    }
}

impl<S> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.shared.started.id).finish_non_exhaustive()
    }
}

struct Shared {
    counts: Arc<Counts>,
    published: Published,
    started: Started,
    wal: Arc<Wal>,
    transport: Transport,
    entry_bytes_max: usize,
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// It could not go on, and why.
    Failed(Arc<str>),
}

/// What a start found and decided.
#[derive(Clone, Debug)]
pub struct Started {
    /// This node.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its data directory's random id.
    pub incarnation: Incarnation,
    /// How often the directory has been opened.
    pub start: StartNumber,
    /// The term recovered from the log.
    pub term: Term,
    /// The last index recovered from the log.
    pub last: LogIndex,
    /// The newest snapshot's index, 0 if there is none.
    pub snapshot: LogIndex,
    /// Bytes of a torn tail that were set aside.
    pub torn_bytes: u64,
    /// Names in the data directory that are not ours.
    pub unknown_files: Vec<PathBuf>,
}

impl<S: StateMachine> Node<S> {
    /// Opens the data directory, founds or finds the cluster, and starts taking part in it.
    ///
    /// Founding waits for the other founders, for as long as it takes; `progress` tells in words what for. `machine`
    /// must be empty; it is restored from the newest snapshot, and the log behind it is applied once it is known to
    /// be committed. Must be called within a tokio runtime. Cancelling it leaves a directory that can be started again.
    ///
    /// # Errors
    /// Anything that stands against starting; nothing that was on disk is lost.
    pub async fn start(
        config: NodeConfig,
        machine: S,
        listener: TcpListener,
        progress: &watch::Sender<String>,
    ) -> Result<Node<S>, StartError> {
        let (dir, id) = (config.data_dir.clone(), config.id);
        let fresh = Incarnation(random_u64());
        let mut data_dir = blocking(move || DataDir::open(Arc::new(OsVfs), &dir, id, fresh)).await??;
        let identity = LocalIdentity {
            id: config.id,
            cluster: data_dir.pin().filter(|_| data_dir.is_founded()).map(|pin| pin.cluster),
            incarnation: data_dir.incarnation(),
            start: data_dir.start(),
            addresses: config.advertise.clone(),
            founders: config.founders.clone(),
            election_timeout_ms: config.election_timeout_ms,
        };
        let net_options = NetOptions { entry_bytes_max: config.entry_bytes_max, ..NetOptions::default() };
        let (transport, mut net) =
            Transport::start(net_options, identity, listener).map_err(StartError::Listener)?;
        let pin = match (data_dir.pin(), &config.founders) {
            (Some(pin), list) if data_dir.is_founded() => {
                check_founders(&config.data_dir, &pin, list.as_ref())?;
                pin.clone()
            }
            (_, Some(list)) => {
                transport.set_peers(founder_infos(list, config.id));
                found(&mut data_dir, list, &transport, &mut net, progress).await?
            }
            (Some(pin), None) => pin.clone(),
            (None, None) => {
                let pin = lone_pin(&config, data_dir.incarnation());
                data_dir.store_pin(&pin)?;
                pin
            }
        };
        transport.set_cluster(pin.cluster);
        progress.send_replace("opening the log".to_owned());
        let (incarnation, start) = (data_dir.incarnation(), data_dir.start());
        let opened = blocking({
            let config = config.clone();
            let pin = pin.clone();
            move || open_disk(&config, &pin, data_dir, machine)
        })
        .await??;
        let started = Started {
            id: config.id,
            cluster: pin.cluster,
            incarnation,
            start,
            term: opened.recovered.hard_state.term,
            last: opened.recovered.last,
            snapshot: opened.recovered.snapshot.last.index,
            torn_bytes: opened.torn_bytes,
            unknown_files: opened.unknown_files.clone(),
        };
        Self::launch(&config, started, opened, transport, net)
    }

    fn launch(
        config: &NodeConfig,
        started: Started,
        opened: Opened<Wal, S>,
        transport: Transport,
        net: NetEvents,
    ) -> Result<Node<S>, StartError> {
        let Opened { log: wal, recovered, machine, snapshots, snapshot_bytes, .. } = opened;
        let clock = Clock::start();
        let defaults = Config::new(config.id, random_u64());
        let core_config = Config {
            // A frame is as long as the largest entry may be, and a little: a longer append is never sent.
            append_bytes_max: defaults.append_bytes_max.min(config.entry_bytes_max),
            incarnation: started.incarnation,
            start: started.start,
            heartbeat_ms: config.heartbeat_ms,
            election_timeout_min_ms: config.election_timeout_ms,
            election_timeout_max_ms: config.election_timeout_ms.saturating_mul(2),
            ..defaults
        };
        let raft = Raft::new(core_config, recovered, clock.now()).map_err(StartError::Core)?;
        transport.set_conf_index(raft.conf_id().index);
        transport.set_peers(peer_infos(raft.conf(), config.id));
        let limits = Limits {
            snapshot_log_bytes: config.snapshot_log_bytes,
            successor_heard_ms: config.heartbeat_ms.saturating_mul(7) / 2,
            ..Limits::default()
        };
        let counts = Arc::new(Counts::default());
        let published = Published::new(Inspection::of(&raft));
        let replica = Replica::new(raft, limits, machine.position().last.index, snapshot_bytes);

        let (inputs_tx, inputs) = mpsc::unbounded_channel();
        let (jobs_tx, jobs) = mpsc::unbounded_channel();
        let observer = inputs_tx.clone();
        wal.set_observer(Box::new(move |outcome| {
            let _ = observer.send(DriverInput::Persisted(outcome));
        }));
        let wal = Arc::new(wal);
        let applier = Applier::new(machine, Arc::clone(&snapshots), inputs_tx.clone(), jobs);
        let applier = tokio::spawn(applier.run());
        let driver = Driver {
            replica,
            inputs,
            inputs_tx: inputs_tx.clone(),
            net,
            transport: transport.clone(),
            entry_bytes_max: config.entry_bytes_max,
            jobs: jobs_tx,
            wal: Arc::clone(&wal),
            snapshots,
            arrivals: Arrivals::default(),
            cluster: started.cluster,
            published: published.clone(),
            counts: Arc::clone(&counts),
            clock,
        };
        let (ended_tx, ended) = watch::channel(None);
        tokio::spawn(scrub_watch::watch(Arc::downgrade(&wal)));
        tokio::spawn(run(driver, applier, Arc::clone(&wal), transport.clone(), ended_tx));
        let shared =
            Shared { counts, published, started, wal, transport, entry_bytes_max: config.entry_bytes_max };
        Ok(Node {
            inputs: inputs_tx,
            budget: Budget::new(config.client_bytes_max),
            replies: Budget::new(config.reply_bytes_max),
            shared: Arc::new(shared),
            ended,
        })
    }

    /// What the start found.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.shared.started
    }

    /// Hands in a command and returns at once; the reply is the state machine's, from this node or the leader.
    ///
    /// Commands of one caller enter the log in the order of the calls as long as the leader stays. Dropping the
    /// receiver does not take the command back. A receiver whose sender is gone means
    /// [`ClientError::OutcomeUnknown`].
    #[must_use]
    pub fn submit(&self, payload: Bytes) -> oneshot::Receiver<Result<Bytes, ClientError>> {
        let (reply, receiver) = oneshot::channel();
        let limit = self.shared.entry_bytes_max;
        if payload.len() > limit {
            let _ = reply.send(Err(ClientError::TooLarge { limit }));
            return receiver;
        }
        let Some(permit) = self.budget.acquire(payload.len()) else {
            let _ = reply.send(Err(ClientError::Busy));
            return receiver;
        };
        let waiter = Waiter::Local { reply, permit, replies: Arc::clone(&self.replies) };
        let input = DriverInput::Propose(Proposal::new(payload), waiter);
        if let Err(mpsc::error::SendError(DriverInput::Propose(_, waiter))) = self.inputs.send(input) {
            waiter.answer(Err(ClientError::ShuttingDown));
        }
        receiver
    }

    /// Proposes a command and waits for its reply. Every call ends in exactly one of: the reply (committed and
    /// applied), [`ClientError::OutcomeUnknown`], or another error (certainly not applied, now or later).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn propose(&self, payload: Bytes) -> Result<Bytes, ClientError> {
        self.submit(payload).await.unwrap_or(Err(ClientError::OutcomeUnknown))
    }

    /// Has `read` run on the state machine by its owner once the read is linearizable: the state holds every command
    /// that anybody was answered before this call (dissertation 6.4). Returns at once; `read` answers for itself.
    pub fn submit_read(&self, read: ReadFn<S>) {
        self.submit_read_input(DriverInput::Read(read));
    }

    /// As [`submit_read`](Self::submit_read), on whatever this node has applied.
    pub fn submit_read_stale(&self, read: ReadFn<S>) {
        self.submit_read_input(DriverInput::ReadStale(read));
    }

    fn submit_read_input(&self, input: DriverInput<S>) {
        if let Err(mpsc::error::SendError(DriverInput::Read(read) | DriverInput::ReadStale(read))) =
            self.inputs.send(input)
        {
            read(Err(ClientError::ShuttingDown));
        }
    }

    /// A linearizable read. See [`submit_read`](Self::submit_read).
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::OutcomeUnknown`].
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&S) -> T + Send + 'static,
    ) -> Result<T, ClientError> {
        let (reply, receiver) = oneshot::channel();
        self.submit_read(Box::new(move |machine| {
            let _ = reply.send(machine.map(read));
        }));
        receiver.await.unwrap_or(Err(ClientError::ShuttingDown))
    }

    /// Waits until everything committed before the call is applied on this node.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn barrier(&self) -> Result<(), ClientError> {
        self.read(|_| ()).await
    }

    /// Asks for a snapshot now; no effect while one is being taken.
    pub fn snapshot(&self) {
        let _ = self.inputs.send(DriverInput::RequestSnapshot);
    }

    /// The consensus side of this node, at most some milliseconds old.
    #[must_use]
    pub fn inspect(&self) -> Arc<Inspection> {
        self.shared.published.latest()
    }

    /// Figures of the log.
    #[must_use]
    pub fn log_stats(&self) -> raft_wal::Stats {
        self.shared.wal.stats()
    }

    /// What the log's scrub has found since the start.
    pub fn scrub_report(&self) -> raft_wal::ScrubReport {
        self.shared.wal.scrub_report()
    }

    /// The links to the peers.
    #[must_use]
    pub fn peers_status(&self) -> BTreeMap<NodeId, PeerStatus> {
        self.shared.transport.peers_status()
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counts(&self) -> Totals {
        self.shared.counts.totals()
    }

    /// If this node leads, has another voter take over; returns once that one leads, or after half a second. The node
    /// goes on as a follower.
    pub async fn hand_over(&self) {
        let (done, finished) = oneshot::channel();
        if self.inputs.send(DriverInput::HandOver(done)).is_ok() {
            let _ = finished.await;
        }
    }

    /// Ends what waits and closes the log. Returns once that is done; calling it again is fine. Call
    /// [`hand_over`](Self::hand_over) before, so that clients need not wait for an election.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        if self.inputs.send(DriverInput::Shutdown(done)).is_ok() {
            let _ = finished.await;
        }
        self.ended().await;
    }

    /// Waits until the node has ended, and says how.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.map(|how| how.clone());
        outcome.ok().flatten().unwrap_or(Ended::Asked)
    }
}

fn open_disk<S: StateMachine>(
    config: &NodeConfig,
    pin: &Pin,
    data_dir: DataDir,
    state: S,
) -> Result<Opened<Wal, S>, StartError> {
    let options = WalOptions {
        segment_bytes: config.segment_bytes,
        entry_bytes_max: config.entry_bytes_max,
        verify_on_open: config.verify_on_open,
        ..WalOptions::new(pin.cluster, config.id, pin.conf_state())
    };
    Opened::open(data_dir, options, Wal::open_locked, |wal| wal.begin_repair(), state)
}

/// Runs the driver to its end and tidies up behind it.
async fn run<S: StateMachine>(
    driver: Driver<S>,
    applier: JoinHandle<()>,
    wal: Arc<Wal>,
    transport: Transport,
    ended: watch::Sender<Option<Ended>>,
) {
    let outcome = driver.run().await;
    transport.shutdown(DRAIN).await;
    // The driver is gone, so the applier's queue is closed: it ends once that is empty.
    if tokio::time::timeout(DRAIN, applier).await.is_err() {
        warn!("the state machine is still busy");
    }
    let closed = blocking(move || wal.close()).await;
    let how = match (outcome, closed) {
        (Err(error), _) => Ended::Failed(error.to_string().into()),
        (Ok(()), Ok(Err(error))) => Ended::Failed(error.to_string().into()),
        (Ok(()), _) => Ended::Asked,
    };
    ended.send_replace(Some(how));
}

/// How long the way out may take at each of its steps.
const DRAIN: Duration = Duration::from_millis(500);

fn founder_infos(list: &BTreeMap<NodeId, String>, me: NodeId) -> BTreeMap<NodeId, PeerInfo> {
    list.iter()
        .filter(|(id, _)| **id != me)
        .map(|(id, address)| (*id, PeerInfo { address: address.clone(), incarnation: Incarnation::UNKNOWN }))
        .collect()
}

/// Whether a founded directory is one of the cluster that is asked for. It never is where other nodes founded it: a node
/// that has served alone would otherwise go on alone, while its operator takes it for one of three.
fn check_founders(path: &Path, pin: &Pin, list: Option<&BTreeMap<NodeId, String>>) -> Result<(), StartError> {
    let Some(list) = list else { return Ok(()) };
    let names = |ids: Vec<&NodeId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if pin.founders.keys().ne(list.keys()) {
        return Err(StartError::OtherFounders {
            path: path.to_owned(),
            founders: names(pin.founders.keys().collect()),
            given: names(list.keys().collect()),
        });
    }
    for (id, member) in &pin.founders {
        if let Some(address) = list.get(id).filter(|address| **address != member.address) {
            warn!(%id, %address, founded = member.address, "an address in --initial-cluster is not used");
        }
    }
    Ok(())
}

/// A cluster of one founds itself.
fn lone_pin(config: &NodeConfig, incarnation: Incarnation) -> Pin {
    let member = Member { incarnation, address: config.advertise.peer.clone() };
    Pin { cluster: ClusterId(random_u128()), founders: BTreeMap::from([(config.id, member)]) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StartError::Interrupted)
}
