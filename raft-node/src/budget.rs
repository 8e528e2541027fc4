//! How many bytes clients may have this node hold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use crate::error::ClientError;

/// Bytes that clients of this node hold: of the commands they wait for, or of replies they have not taken. A command
/// beyond the bound is refused at once. A reply beyond it is lost, and its client told that the outcome is not known:
/// a command of a few bytes may be answered with megabytes, and its client may have many under way.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// A share of the [`Budget`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), limit })
    }

    pub(crate) fn acquire(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit { budget: Arc::clone(self), bytes };
        // A single command always fits an idle node.
        if before > 0 && before.saturating_add(bytes) > self.limit { None } else { Some(permit) }
    }

    /// A reply that holds its share for as long as it is kept.
    pub(crate) fn lend(self: &Arc<Self>, reply: Bytes) -> Result<Bytes, ClientError> {
        if reply.len() < LENT_BYTES_MIN {
            return Ok(reply);
        }
        let permit = self.acquire(reply.len()).ok_or(ClientError::OutcomeUnknown)?;
        Ok(Bytes::from_owner(Lent { reply, _permit: permit }))
    }
}

/// Smaller replies are not counted: there are only so many commands under way.
const LENT_BYTES_MIN: usize = 16 << 10;

struct Lent {
    reply: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_nobody_takes_are_bounded_and_make_room_when_they_are_taken() {
        let budget = Budget::new(3 * LENT_BYTES_MIN);
        let reply = || budget.lend(Bytes::from(vec![b'x'; LENT_BYTES_MIN]));
        let held: Vec<Bytes> = (0..3).map(|_| reply().unwrap()).collect();
        assert_eq!(held[0].len(), LENT_BYTES_MIN);
        assert_eq!(reply(), Err(ClientError::OutcomeUnknown));
        assert!(budget.lend(Bytes::from_static(b"+OK")).is_ok(), "small ones always fit");
        drop(held);
        assert!(reply().is_ok());
    }
}
