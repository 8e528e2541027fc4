//! Three openraft nodes on one tokio runtime, with a log and a state machine in memory and calls in place of a network.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io::Cursor,
    ops::RangeBounds,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    Config, Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, RaftNetwork,
    RaftNetworkFactory, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StoredMembership, Vote,
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
    storage::{LogFlushed, RaftLogStorage, RaftStateMachine},
};
use tokio::runtime::Runtime;

use crate::{Cluster, MEMORY_ENTRIES, NODES};

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Bytes,
        R = (),
        Node = (),
);

type Raft = openraft::Raft<Types>;
type Failed = StorageError<u64>;

#[derive(Default)]
struct LogData {
    entries: BTreeMap<u64, Entry<Types>>,
    purged: Option<LogId<u64>>,
    vote: Option<Vote<u64>>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogData>>);

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, Failed> {
        let data = self.0.lock().expect("no panic under the lock");
        Ok(data.entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failed> {
        let data = self.0.lock().expect("no panic under the lock");
        let last = data.entries.last_key_value().map(|(_, entry)| entry.log_id).or(data.purged);
        Ok(LogState { last_purged_log_id: data.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failed> {
        self.0.lock().expect("no panic under the lock").vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failed> {
        Ok(self.0.lock().expect("no panic under the lock").vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        self.0.lock().expect("no panic under the lock").entries.extend(entries);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), Failed> {
        self.0.lock().expect("no panic under the lock").entries.split_off(&from.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), Failed> {
        let mut data = self.0.lock().expect("no panic under the lock");
        data.entries = data.entries.split_off(&(upto.index + 1));
        data.purged = Some(upto);
        Ok(())
    }
}

/// Counts commands. Its snapshot is nothing but its position.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<MachineData>>);

#[derive(Default)]
struct MachineData {
    last: Option<LogId<u64>>,
    membership: StoredMembership<u64, ()>,
    applied: u64,
}

impl Machine {
    fn applied(&self) -> u64 {
        self.0.lock().expect("no panic under the lock").applied
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failed> {
        let data = self.0.lock().expect("no panic under the lock");
        let meta = SnapshotMeta {
            last_log_id: data.last,
            last_membership: data.membership.clone(),
            snapshot_id: format!("{:?}", data.last),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(Vec::new())) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, ()>), Failed> {
        let data = self.0.lock().expect("no panic under the lock");
        Ok((data.last, data.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut data = self.0.lock().expect("no panic under the lock");
        let mut replies = Vec::new();
        for entry in entries {
            data.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal(_) => data.applied += 1,
                EntryPayload::Membership(membership) => {
                    data.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
                EntryPayload::Blank => {}
            }
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, ()>,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failed> {
        let mut data = self.0.lock().expect("no panic under the lock");
        data.last = meta.last_log_id;
        data.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failed> {
        Ok(None)
    }
}

type Peers = Arc<OnceLock<Vec<Raft>>>;

#[derive(Clone)]
struct Network(Peers);

struct Link {
    peers: Peers,
    to: u64,
}

impl Link {
    fn peer(&self) -> &Raft {
        let peers = self.peers.get().expect("messages flow once all nodes are there");
        &peers[usize::try_from(self.to - 1).expect("a small id")]
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &()) -> Link {
        Link { peers: Arc::clone(&self.0), to: target }
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, (), RaftError<u64>>> {
        let reply = self.peer().append_entries(rpc).await;
        reply.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, (), RaftError<u64, InstallSnapshotError>>> {
        let reply = self.peer().install_snapshot(rpc).await;
        reply.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, (), RaftError<u64>>> {
        let reply = self.peer().vote(rpc).await;
        reply.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
    }
}

pub(crate) struct Openraft {
    runtime: Runtime,
    nodes: Vec<Raft>,
    machines: Vec<Machine>,
}

impl Openraft {
    pub(crate) fn new() -> Openraft {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (nodes, machines) = runtime.block_on(start());
        Openraft { runtime, nodes, machines }
    }
}

async fn start() -> (Vec<Raft>, Vec<Machine>) {
    let config = Config {
        heartbeat_interval: 500,
        election_timeout_min: 5000,
        election_timeout_max: 10_000,
        max_payload_entries: 4096,
        max_in_snapshot_log_to_keep: MEMORY_ENTRIES as u64,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("the settings fit"));
    let peers = Peers::default();
    let (mut nodes, mut machines) = (Vec::new(), Vec::new());
    for id in 1..=NODES {
        let machine = Machine::default();
        let network = Network(Arc::clone(&peers));
        let node = Raft::new(id, Arc::clone(&config), network, Log::default(), machine.clone()).await;
        nodes.push(node.expect("an empty log can be started from"));
        machines.push(machine);
    }
    assert!(peers.set(nodes.clone()).is_ok(), "set once");
    nodes[0]
        .initialize((1..=NODES).map(|id| (id, ())).collect::<BTreeMap<_, _>>())
        .await
        .expect("fresh nodes");
    let wait = nodes[0].wait(Some(Duration::from_secs(20)));
    wait.current_leader(1, "the first node is elected").await.expect("it is alone to ask");
    (nodes, machines)
}

impl Cluster for Openraft {
    fn replicate(&mut self, payload: &Bytes, batch: usize, batches: usize) {
        let goal = self.machines[0].applied() + (batch * batches) as u64;
        self.runtime.block_on(async {
            for _ in 0..batches {
                let mut answers = Vec::with_capacity(batch);
                for _ in 0..batch {
                    answers.push(self.nodes[0].client_write_ff(payload.clone()).await.expect("it leads"));
                }
                for answer in answers {
                    answer.await.expect("it is answered").expect("it is committed");
                }
            }
            while self.machines.iter().any(|machine| machine.applied() < goal) {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
    }
}
