//! The front end as a whole: takes connections, counts them, and ends them in good order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Shared,
    backend::Backend,
    clients::{Clients, Counters, Stop},
    connection::Connection,
    options::Options,
};

/// A running front end. Dropping it ends all connections at once.
#[derive(Debug)]
pub struct FrontEnd<B> {
    shared: Arc<Shared<B>>,
    leave: Option<oneshot::Sender<Duration>>,
    accepting: JoinHandle<()>,
}

impl<B: Backend> FrontEnd<B> {
    /// Serves whoever connects to `listener`, in tasks of the current runtime.
    ///
    /// # Errors
    /// If the listener does not know its own address.
    pub fn start(listener: TcpListener, backend: B, options: Options) -> io::Result<FrontEnd<B>> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { backend, options, clients: Arc::new(Clients::default()), address });
        let (leave, left) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), left));
        Ok(FrontEnd { shared, leave: Some(leave), accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.shared.clients.count()
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.clients.counters
    }

    /// Tells at any time what has been counted and how many clients are connected, also while the front end leaves.
    pub(crate) fn watch<T, F: Fn(&Counters, usize) -> T + Send + Sync>(
        &self,
        figures: F,
    ) -> impl Fn() -> T + Send + Sync + use<T, F, B> {
        let shared = Arc::clone(&self.shared);
        move || figures(&shared.clients.counters, shared.clients.count())
    }

    /// Takes no more connections and no more commands, answers what is under way, and ends what is left after
    /// `deadline`.
    pub async fn shutdown(mut self, deadline: Duration) {
        if let Some(leave) = self.leave.take() {
            // If the task is gone there is nothing to leave.
            let _ = leave.send(deadline);
        }
        let _ = (&mut self.accepting).await;
    }
}

impl<B> Drop for FrontEnd<B> {
    fn drop(&mut self) {
        // The connections' tasks are owned by this one.
        self.accepting.abort();
    }
}

async fn accept<B: Backend>(
    listener: TcpListener,
    shared: Arc<Shared<B>>,
    mut left: oneshot::Receiver<Duration>,
) {
    let mut connections = JoinSet::new();
    let deadline = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => take(stream, peer, &shared, &mut connections),
                Err(error) => {
                    // Out of file descriptors, most likely: waiting is all that helps.
                    warn!(%error, "cannot take a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            deadline = &mut left => match deadline {
                Ok(deadline) => break deadline,
                Err(_) => return,
            },
        }
    };
    drop(listener);
    shared.clients.stop_all(Stop::Drain);
    let drained = timeout(deadline, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        debug!(left = connections.len(), "connections did not end in time");
    }
}

fn take<B: Backend>(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared<B>>,
    connections: &mut JoinSet<()>,
) {
    let local = stream.local_addr().unwrap_or(shared.address);
    // Replies are sent whole: nothing is gained by holding back the last packet.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let limit = shared.options.clients_max;
    match shared.clients.join(peer.to_string(), local.to_string(), limit) {
        Some((membership, stop)) => {
            connections.spawn(Connection::new(stream, Arc::clone(shared), membership, stop).run());
        }
        None => {
            // A new socket has room for one line.
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
