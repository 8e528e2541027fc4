//! Who is connected: what `CLIENT LIST` shows, whom `CLIENT KILL` ends, and what is counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::kv::{Protocol, Verb};

/// All connections of one front end.
#[derive(Debug, Default)]
pub(super) struct Clients {
    next_id: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// What happened since the start, or since `CONFIG RESETSTAT`.
    pub(super) counters: Counters,
    /// Bytes in large buffers, see [`Allowance`].
    buffers_bytes: AtomicUsize,
}

/// Running totals, for metrics and `INFO`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections refused because there were too many.
    pub connections_rejected: AtomicU64,
    /// Commands read.
    pub commands: AtomicU64,
    /// Replies that were errors made by the front end itself.
    pub errors: AtomicU64,
    /// Bytes received.
    pub bytes_in: AtomicU64,
    /// Bytes sent.
    pub bytes_out: AtomicU64,
}

/// One connection, as others see it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) address: String,
    pub(super) local_address: String,
    connected: Instant,
    /// Milliseconds after `connected`.
    active_ms: AtomicU64,
    last_verb: AtomicUsize,
    facts: Mutex<Facts>,
    stop: Mutex<Option<oneshot::Sender<Stop>>>,
}

/// What changes rarely.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) name: Bytes,
    pub(super) library_name: Bytes,
    pub(super) library_version: Bytes,
    pub(super) protocol: Protocol,
    /// Commands queued since `MULTI`.
    pub(super) queued: Option<usize>,
    pub(super) watched: usize,
    pub(super) read_only: bool,
    pub(super) no_evict: bool,
    pub(super) no_touch: bool,
}

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Close at once.
    Kill,
    /// Take no more requests, answer those taken, close.
    Drain,
}

impl Clients {
    /// Registers a connection; `None` if there are `limit` already.
    pub(super) fn join(
        self: &Arc<Self>,
        address: String,
        local_address: String,
        limit: usize,
    ) -> Option<(Membership, oneshot::Receiver<Stop>)> {
        let mut connected = lock(&self.connected);
        if connected.len() >= limit {
            self.counters.connections_rejected.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (stop, stopped) = oneshot::channel();
        let client = Arc::new(Client {
            id,
            address,
            local_address,
            connected: Instant::now(),
            active_ms: AtomicU64::new(0),
            last_verb: AtomicUsize::new(usize::MAX),
            facts: Mutex::default(),
            stop: Mutex::new(Some(stop)),
        });
        connected.insert(id, Arc::clone(&client));
        Some((Membership { clients: Arc::clone(self), client }, stopped))
    }

    /// Everyone, by id.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        lock(&self.connected).values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.connected).len()
    }

    /// Tells every connection to end.
    pub(super) fn stop_all(&self, stop: Stop) {
        for client in self.all() {
            client.stop(stop);
        }
    }
}

impl Client {
    /// A look at, or a change of, the facts.
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    /// Tells the connection to end. Only the first order counts.
    pub(super) fn stop(&self, stop: Stop) {
        if let Some(sender) = lock(&self.stop).take() {
            // It may have ended by itself.
            let _ = sender.send(stop);
        }
    }

    /// It has sent a command.
    pub(super) fn ran(&self, verb: Verb) {
        self.last_verb.store(verb as usize, Ordering::Relaxed);
    }

    /// It has sent something.
    pub(super) fn was_active(&self) {
        let now = u64::try_from(self.connected.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(now, Ordering::Relaxed);
    }

    pub(super) fn age(&self) -> Duration {
        self.connected.elapsed()
    }

    pub(super) fn idle(&self) -> Duration {
        self.age().saturating_sub(Duration::from_millis(self.active_ms.load(Ordering::Relaxed)))
    }

    /// The name of its last command, `NULL` if there was none.
    pub(super) fn last_command(&self) -> &'static str {
        crate::kv::table::COMMANDS
            .get(self.last_verb.load(Ordering::Relaxed))
            .map_or("NULL", |spec| spec.name)
    }
}

/// A connection's place among the clients, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.clients.connected).remove(&self.client.id);
    }
}

/// How much of the memory that all large buffers share one connection has taken.
#[derive(Debug)]
pub(super) struct Allowance {
    clients: Arc<Clients>,
    bytes: usize,
}

impl Allowance {
    pub(super) const fn new(clients: Arc<Clients>) -> Allowance {
        Allowance { clients, bytes: 0 }
    }

    /// Changes what is held to `bytes`. False, and nothing changes, if that is more than is left.
    pub(super) fn resize(&mut self, bytes: usize, limit: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.clients.buffers_bytes.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > limit {
                self.clients.buffers_bytes.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            self.clients.buffers_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.clients.buffers_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What these locks guard is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_is_shared_and_given_back() {
        let clients = Arc::new(Clients::default());
        let mut one = Allowance::new(Arc::clone(&clients));
        let mut two = Allowance::new(Arc::clone(&clients));
        assert!(one.resize(60, 100));
        assert!(!two.resize(50, 100));
        assert!(one.resize(40, 100) && two.resize(50, 100));
        drop(one);
        assert!(two.resize(100, 100));
        drop(two);
        assert_eq!(clients.buffers_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn clients_come_and_go() {
        let clients = Arc::new(Clients::default());
        let (first, _) = clients.join("a".into(), "l".into(), 1).unwrap();
        assert!(clients.join("b".into(), "l".into(), 1).is_none());
        drop(first);
        let (second, mut stopped) = clients.join("b".into(), "l".into(), 1).unwrap();
        assert_eq!(second.client.id, 2);
        clients.stop_all(Stop::Drain);
        clients.stop_all(Stop::Kill);
        assert_eq!(stopped.try_recv(), Ok(Stop::Drain));
    }
}
