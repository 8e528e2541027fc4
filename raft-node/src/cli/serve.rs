//! `serve`: from the configuration to a running node.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use raft_net::Addresses;
use raft_wal::vfs::OsVfs;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::{net::TcpListener, sync::watch};
use tracing::{info, warn};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{
    args::ServeArgs,
    banner::{self, Recovery},
    exit::{Failure, print},
    load_config,
    signals::Signals,
};
use crate::{
    Ended, Node, NodeConfig,
    config::{Config, LogFormat},
    resp::FrontEnd,
    service::{ClientFigures, Service},
    store::Store,
};

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = load_config(args)?;
    if let Some(parent) = args.parent {
        end_with(parent)?;
    }
    start_logging(&config);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    crate::allocator::settle(cores);
    // On one or two cores a second thread would only add hand-overs: the log's writer has one of its own already.
    let mut builder = if cores <= 2 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder
        .enable_all()
        .thread_name("raft-node")
        .build()
        .map_err(|error| Failure::new(format_args!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let signals = Signals::install()
            .map_err(|error| Failure::new(format_args!("cannot listen for signals: {error}")))?;
        // Before anything is touched on disk: a port in use leaves no trace.
        let listeners = Listeners::bind(&config).await?;
        run_node(config, listeners, signals).await
    })
}

/// Everything is checked and bound: runs the node until it ends or is told to.
async fn run_node(config: Config, listeners: Listeners, mut signals: Signals) -> Result<(), Failure> {
    let addresses = listeners.addresses(&config)?;
    let started = std::time::Instant::now();
    let store = Store::new(started);
    let (progress, watched) = watch::channel(String::new());
    let service = Service::new(&config, addresses.clone(), store.figures(), watched, started);
    // Operators and clients are answered from the first moment, if only with what this node waits for.
    tokio::spawn(crate::http::serve(listeners.http, Arc::new(service.clone())));
    let front_options = crate::resp::Options {
        password: config.requirepass.as_ref().map(|secret| secret.reveal().to_owned()),
        ..crate::resp::Options::default()
    };
    let front = FrontEnd::start(listeners.resp, service.clone(), front_options)
        .map_err(|error| Failure::new(format_args!("cannot serve clients: {error}")))?;
    service.set_clients(front.watch(ClientFigures::of));

    let node_config = node_config(&config, addresses.clone());
    let node = tokio::select! {
        node = Node::start(node_config, store, listeners.peer, &progress) => {
            node.map_err(|error| Failure::new(sentence(&error)))?
        }
        signal = signals.next() => {
            info!(signal, "asked to end before the node was up");
            return Ok(());
        }
    };
    service.set_node(node.clone());
    let expirer = tokio::spawn(service.clone().expire());
    tokio::spawn(service.clone().give_back_memory());
    print(banner(&config, &node, &addresses).await)?;
    let announce = tokio::spawn(announce(service, node.clone()));

    let outcome = tokio::select! {
        ended = node.ended() => ended,
        signal = signals.next() => {
            info!(signal, "leaving");
            // The operating system may not be there to be told.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            tokio::select! {
                ended = leave(&node, front) => ended,
                _ = signals.next() => Ended::Asked,
            }
        }
    };
    expirer.abort();
    announce.abort();
    match outcome {
        Ended::Asked => Ok(()),
        Ended::Failed(reason) => Err(Failure::new(format_args!("{reason}; the node has ended"))),
    }
}

/// Leadership first, so that clients elsewhere go on at once; then the clients of this node get their answers from the
/// new leader; then the log is closed.
async fn leave(node: &Node<Store>, front: FrontEnd<Service>) -> Ended {
    node.hand_over().await;
    front.shutdown(CLIENTS_LEAVE).await;
    node.shutdown().await;
    node.ended().await
}

/// How long clients of a leaving node may wait for the answers under way.
const CLIENTS_LEAVE: Duration = Duration::from_millis(500);

/// Says that the node serves, once it does.
async fn announce(service: Service, node: Node<Store>) {
    service.ready().await;
    // Without anybody to read it, the line is lost and nothing else.
    let _ = print(banner::ready_line(node.started().id, node.inspect().leader) + "\n");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

async fn banner(config: &Config, node: &Node<Store>, addresses: &Addresses) -> String {
    let started = node.started();
    let recovery = Recovery {
        id: started.id,
        cluster: started.cluster,
        start: started.start,
        term: started.term,
        last: started.last,
        snapshot: started.snapshot,
        torn_bytes: started.torn_bytes,
    };
    let mut text = recovery.line(&config.data_dir) + "\n";
    for name in &started.unknown_files {
        text += &format!("left alone, not ours: {}\n", config.data_dir.join(name).display());
    }
    let dir = config.data_dir.clone();
    if let Ok(Ok(times)) = tokio::task::spawn_blocking(move || banner::measure_syncs(&OsVfs, &dir)).await {
        text += &(times.line() + "\n");
    }
    text + &banner::addresses_line(&addresses.resp, &addresses.http, &addresses.peer) + "\n"
}

fn node_config(config: &Config, advertise: Addresses) -> NodeConfig {
    NodeConfig {
        founders: config.initial_cluster.clone(),
        advertise,
        heartbeat_ms: config.heartbeat_ms,
        election_timeout_ms: config.election_timeout_ms,
        segment_bytes: config.segment_bytes,
        snapshot_log_bytes: config.snapshot_log_bytes,
        entry_bytes_max: config.entry_bytes_max,
        verify_on_open: config.verify_on_open,
        ..NodeConfig::new(config.id, config.data_dir.clone())
    }
}

/// An error with its causes, none twice.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The three listening sockets.
pub(super) struct Listeners {
    pub(super) resp: TcpListener,
    pub(super) http: TcpListener,
    pub(super) peer: TcpListener,
}

impl Listeners {
    /// Where others reach this node: what the configuration says, else where it listens.
    fn addresses(&self, config: &Config) -> Result<Addresses, Failure> {
        let bound = |listener: &TcpListener| {
            listener
                .local_addr()
                .map(|address| address.to_string())
                .map_err(|error| Failure::new(format_args!("cannot tell where this node listens: {error}")))
        };
        let listed = config.initial_cluster.as_ref().and_then(|list| list.get(&config.id));
        Ok(Addresses {
            resp: config.advertise_resp.clone().map_or_else(|| bound(&self.resp), Ok)?,
            http: config.advertise_http.clone().map_or_else(|| bound(&self.http), Ok)?,
            peer: config.advertise_peer.as_ref().or(listed).cloned().map_or_else(|| bound(&self.peer), Ok)?,
        })
    }

    /// Binds all three or none.
    async fn bind(config: &Config) -> Result<Listeners, Failure> {
        Ok(Listeners {
            resp: bind("--resp", config.resp).await?,
            http: bind("--http", config.http).await?,
            peer: bind("--peer", config.peer).await?,
        })
    }
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let kind = error.kind();
        Failure::new(if kind == io::ErrorKind::AddrInUse {
            format!("{address} is in use: stop what listens there or give another {flag}")
        } else if kind == io::ErrorKind::AddrNotAvailable {
            format!("{address} is no address of this machine: give another {flag}")
        } else {
            format!("cannot listen at {address} ({flag}): {error}")
        })
    })
}

/// Log lines go to standard error; standard output is for what a start prints.
fn start_logging(config: &Config) {
    // Checked when the configuration was read.
    let filter: Targets = config.log_level.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log_format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).init();
        }
        LogFormat::Json => registry.with(lines.json()).init(),
    }
}

/// Has the kernel kill this process when `parent` ends, however it ends: a demonstration leaves nothing running.
fn end_with(parent: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new(format_args!("cannot follow process {parent}: {error}")))?;
    // It may have ended before the kernel knew.
    let still_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if still_there { Ok(()) } else { Err(Failure::new(format_args!("process {parent} has ended"))) }
}
