//! Client sessions: a command of a session takes effect at most once, however often it is sent (SAFETY X3).

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use raft_core::{LogIndex, SessionSeq, Timestamp};

use super::{
    Reply,
    varint::{self, Reader},
};

/// The sessions that are open, part of the replicated state.
///
/// - A session is numbered by the entry that opened it.
/// - Invariant: a session remembers the reply to each of its commands above `floor`, and executes none at or below.
/// - It ends when replicated time has moved on by [`SESSION_IDLE_MILLIS_MAX`] without a command of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions(BTreeMap<u64, Session>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    last_seen: Timestamp,
    /// Replies up to this number are forgotten.
    floor: u64,
    replies: BTreeMap<u64, Bytes>,
    replies_bytes: usize,
}

/// What is to be done with a command of a session.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// Execute it, then [`Sessions::keep`] its reply.
    Execute,
    /// It was executed before, with this reply.
    Done(Bytes),
    /// It must not be executed.
    Refused(Reply),
}

impl Sessions {
    /// Opens a session and answers its number.
    pub(super) fn open(&mut self, index: LogIndex, now: Timestamp) -> Reply {
        if self.0.len() >= SESSIONS_MAX {
            self.0.retain(|_, session| !session.is_over(now));
        }
        if self.0.len() >= SESSIONS_MAX {
            return Reply::error("ERR too many sessions are open");
        }
        self.0.insert(index.0, Session { last_seen: now, ..Session::default() });
        Reply::Integer(i64::try_from(index.0).unwrap_or(i64::MAX))
    }

    /// Decides about a command of a session.
    pub(super) fn begin(&mut self, id: SessionSeq, now: Timestamp) -> Turn {
        let Some(session) = self.0.get_mut(&id.session).filter(|session| !session.is_over(now)) else {
            self.0.remove(&id.session);
            return Turn::Refused(Reply::error_text(format!(
                "NOSESSION session {} is unknown or has ended; the command was not executed",
                id.session
            )));
        };
        session.last_seen = now;
        if let Some(reply) = session.replies.get(&id.seq) {
            return Turn::Done(reply.clone());
        }
        if id.seq <= session.floor {
            return Turn::Refused(Reply::error_text(format!(
                "STALESEQ command {} of session {} is too old: whether it was executed is not known any more",
                id.seq, id.session
            )));
        }
        Turn::Execute
    }

    /// Remembers the reply to a command that was just executed.
    pub(super) fn keep(&mut self, id: SessionSeq, reply: &Bytes) {
        let Some(session) = self.0.get_mut(&id.session) else { return };
        let kept = if reply.len() > REPLY_BYTES_MAX { REPLY_TOO_LONG } else { reply };
        session.replies_bytes += kept.len();
        // A copy: a slice would pin the buffer the whole batch was answered from.
        session.replies.insert(id.seq, Bytes::copy_from_slice(kept));
        while session.replies.len() > REPLIES_MAX || session.replies_bytes > REPLIES_BYTES_MAX {
            let Some((seq, reply)) = session.replies.pop_first() else { break };
            session.floor = seq;
            session.replies_bytes -= reply.len();
        }
    }

    /// How many are open, or have ended without anybody noticing.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends all of it, as it stands in a snapshot.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        varint::put(self.0.len() as u64, out);
        for (id, session) in &self.0 {
            for number in [*id, session.last_seen.0, session.floor, session.replies.len() as u64] {
                varint::put(number, out);
            }
            for (seq, reply) in &session.replies {
                varint::put(*seq, out);
                varint::put_bytes(reply, out);
            }
        }
    }

    /// Reads what [`Sessions::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Sessions> {
        let mut reader = Reader(bytes);
        let mut sessions = BTreeMap::new();
        for _ in 0..reader.length().filter(|count| *count <= SESSIONS_MAX)? {
            let id = reader.number()?;
            let mut session = Session {
                last_seen: Timestamp(reader.number()?),
                floor: reader.number()?,
                ..Session::default()
            };
            for _ in 0..reader.length().filter(|count| *count <= REPLIES_MAX)? {
                let seq = reader.number().filter(|seq| *seq > session.floor)?;
                let reply = reader.bytes()?;
                session.replies_bytes += reply.len();
                if session.replies.insert(seq, Bytes::copy_from_slice(reply)).is_some() {
                    return None;
                }
            }
            if session.replies_bytes > REPLIES_BYTES_MAX || sessions.insert(id, session).is_some() {
                return None;
            }
        }
        reader.0.is_empty().then_some(Sessions(sessions))
    }
}

impl Session {
    fn is_over(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.last_seen.0) >= SESSION_IDLE_MILLIS_MAX
    }
}

/// How many sessions may be open.
pub const SESSIONS_MAX: usize = 10_000;
/// A session without a command for this long ends.
pub const SESSION_IDLE_MILLIS_MAX: u64 = 60 * 60 * 1000;
/// How many replies a session remembers: a client may have that many commands outstanding.
pub const REPLIES_MAX: usize = 64;

const REPLIES_BYTES_MAX: usize = 16 * 1024;
/// Longer replies are not remembered, only that the command was executed.
const REPLY_BYTES_MAX: usize = 4 * 1024;
const REPLY_TOO_LONG: &[u8] = b"-REPLYGONE the command was executed; its reply was too long to be kept\r\n";

/// The most that the sessions of a snapshot may take.
pub(super) const SESSIONS_BYTES_MAX: usize = SESSIONS_MAX * (REPLIES_BYTES_MAX + REPLIES_MAX * 20 + 64);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn id(seq: u64) -> SessionSeq {
        SessionSeq { session: 7, seq }
    }

    fn open() -> Sessions {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.open(LogIndex(7), NOW), Reply::Integer(7));
        sessions
    }

    #[test]
    fn a_command_is_executed_once_and_answered_as_often_as_asked() {
        let mut sessions = open();
        let reply = Bytes::from_static(b":1\r\n");
        assert_eq!(sessions.begin(id(1), NOW), Turn::Execute);
        sessions.keep(id(1), &reply);
        assert_eq!(sessions.begin(id(1), NOW), Turn::Done(reply));
        // Commands may arrive out of order.
        sessions.keep(id(5), &Bytes::new());
        assert_eq!(sessions.begin(id(3), NOW), Turn::Execute);
    }

    #[test]
    fn what_is_forgotten_is_refused_not_executed() {
        let mut sessions = open();
        for seq in 1..=REPLIES_MAX as u64 + 1 {
            assert_eq!(sessions.begin(id(seq), NOW), Turn::Execute);
            sessions.keep(id(seq), &Bytes::from_static(b"+OK\r\n"));
        }
        assert!(matches!(sessions.begin(id(1), NOW), Turn::Refused(_)));
        assert!(matches!(sessions.begin(id(2), NOW), Turn::Done(_)));
    }

    #[test]
    fn sessions_end_by_replicated_time_and_are_bounded() {
        let mut sessions = open();
        let later = Timestamp(NOW.0 + SESSION_IDLE_MILLIS_MAX);
        assert!(matches!(sessions.begin(id(1), later), Turn::Refused(_)));
        assert!(matches!(sessions.begin(SessionSeq { session: 8, seq: 1 }, NOW), Turn::Refused(_)));
        for index in 0..SESSIONS_MAX as u64 {
            assert!(!sessions.open(LogIndex(100 + index), NOW).is_error());
        }
        assert!(sessions.open(LogIndex(1), NOW).is_error());
        assert!(!sessions.open(LogIndex(1), later).is_error());
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn sessions_survive_a_snapshot() {
        let mut sessions = open();
        sessions.open(LogIndex(9), NOW);
        for seq in 1..100 {
            sessions.keep(id(seq), &Bytes::from(vec![b'x'; 1000]));
        }
        let mut bytes = BytesMut::new();
        sessions.encode(&mut bytes);
        assert_eq!(Sessions::decode(&bytes), Some(sessions));
        for length in 0..bytes.len() {
            assert_eq!(Sessions::decode(&bytes[..length]), None);
        }
    }
}
