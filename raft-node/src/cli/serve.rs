//! `serve`: from the configuration to a running node.

use std::{io, net::SocketAddr};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::net::TcpListener;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::{args::ServeArgs, exit::Failure, load_config, signals::Signals};
use crate::config::{Config, LogFormat};

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = load_config(args)?;
    if let Some(parent) = args.parent {
        end_with(parent)?;
    }
    start_logging(&config);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
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
async fn run_node(_config: Config, listeners: Listeners, mut signals: Signals) -> Result<(), Failure> {
    let Listeners { resp: _resp, http: _http, peer: _peer } = listeners;
    let _asked = signals.next().await;
    Ok(())
}

/// The three listening sockets.
pub(super) struct Listeners {
    pub(super) resp: TcpListener,
    pub(super) http: TcpListener,
    pub(super) peer: TcpListener,
}

impl Listeners {
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
    let filter = EnvFilter::new(&config.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
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
