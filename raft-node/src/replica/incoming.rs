//! The snapshot a leader is sending to this node, from the first byte to the log's mark.

use raft_core::{Body, LogId, Message, Write, WriteId};

/// Where it stands. Its file has one temporary name until the log renames it, so one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Nothing,
    /// On its way.
    Arriving,
    /// Whole, and with the core, which has not said yet whether it needs it.
    Arrived(LogId),
    /// This write renames the file and marks it.
    Marking(WriteId),
    /// The core did not need it: the file is being removed.
    Discarding,
}

impl Incoming {
    pub(super) fn accept(&mut self) -> bool {
        let free = *self == Incoming::Nothing;
        if free {
            *self = Incoming::Arriving;
        }
        free
    }

    pub(super) fn arrived(&mut self, message: &Message) {
        if let Body::InstallSnapshot { meta, .. } = &message.body {
            *self = Incoming::Arrived(meta.last);
        }
    }

    pub(super) fn written(&mut self, write: &Write) {
        let marked = write.snapshot.as_ref().filter(|mark| mark.received).map(|mark| mark.meta.last);
        if let Incoming::Arrived(last) = *self
            && marked == Some(last)
        {
            *self = Incoming::Marking(write.id);
        }
    }

    pub(super) fn persisted(&mut self, id: WriteId) {
        if let Incoming::Marking(write) = *self
            && id >= write
        {
            *self = Incoming::Nothing;
        }
    }

    /// Everything the core had to say has been taken: what it did not mark it does not need.
    pub(super) fn settle(&mut self) -> Option<LogId> {
        let Incoming::Arrived(last) = *self else { return None };
        *self = Incoming::Discarding;
        Some(last)
    }
}
