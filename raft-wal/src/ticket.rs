//! The answer to one write, once it is durable.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::error::WalError;

/// Becomes ready when its write is durable, or never will be. A plain future for any runtime; [`wait`](Self::wait)
/// blocks instead. Dropping it changes nothing about the write.
#[derive(Debug)]
#[must_use = "a write is durable only once its ticket says so"]
pub struct Ticket(Arc<Slot>);

/// The writer's end of a [`Ticket`].
#[derive(Debug)]
pub(crate) struct Completion(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), WalError>>,
    /// Somebody blocks on it: waking costs a system call, which is saved for all others.
    blocked: bool,
    waker: Option<Waker>,
}

/// A ticket and its writer's end.
pub(crate) fn ticket() -> (Ticket, Completion) {
    let slot = Arc::new(Slot::default());
    (Ticket(Arc::clone(&slot)), Completion(slot))
}

impl Ticket {
    /// Blocks until the write is durable.
    ///
    /// # Errors
    /// Why it never will be.
    pub fn wait(self) -> Result<(), WalError> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state.blocked = true;
            state = self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the answer is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).outcome.is_some()
    }
}

impl Future for Ticket {
    type Output = Result<(), WalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Completion {
    /// Notes the outcome and returns whom to wake, so that one sweep wakes everybody after all outcomes are in place.
    pub(crate) fn complete(&self, outcome: Result<(), WalError>) -> Option<Waker> {
        if Arc::strong_count(&self.0) == 1 {
            return None; // The ticket was dropped: nobody asks.
        }
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        if state.blocked {
            self.0.done.notify_all();
        }
        state.waker.take()
    }
}

impl Drop for Completion {
    /// No waiter hangs: a write that is dropped unfinished says so.
    fn drop(&mut self) {
        if let Some(waker) = self.complete(Err(WalError::Closed)) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_ticket_is_woken_once_and_then_ready() {
        let (mut ticket, completion) = ticket();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
        assert!(!ticket.is_done());
        completion.complete(Ok(())).expect("somebody waits").wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(ticket.is_done());
        assert!(matches!(Pin::new(&mut ticket).poll(&mut context), Poll::Ready(Ok(()))));
        drop(completion);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_dropped_write_answers() {
        let (ticket, completion) = ticket();
        drop(completion);
        assert!(matches!(ticket.wait(), Err(WalError::Closed)));
    }

    #[test]
    fn waiting_blocks_until_done() {
        let (ticket, completion) = ticket();
        let waiter = std::thread::spawn(move || ticket.wait());
        let _ = completion.complete(Ok(()));
        assert!(waiter.join().expect("no panic").is_ok());
    }
}
