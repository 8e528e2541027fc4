//! What the log carries for the key-value store: one request an entry.
//!
//! ```text
//! byte 0      version (high four bits, now 1) and kind (low four bits)
//! command     words
//! exec        count, then per watched key: length, key, modification index
//!             count, then per command: words
//! tick        nothing
//! session     nothing
//! words       count, then per word: length, bytes
//! ```
//! Numbers are LEB128. `SET k v` takes seven bytes more than its words. A request is read without copying, and with
//! every length checked: what lies in a log is trusted no more than what comes from a network.
//!
//! Nodes of different versions must do the same with one entry, so a new kind may be proposed only when every member
//! understands it (feature bits of the handshake); a node that meets one it does not know answers an error.

use bytes::{BufMut, Bytes, BytesMut};
use raft_core::LogIndex;

use super::varint::{self, Reader};

/// One request, borrowed from the entry that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// One command: its name and arguments.
    Command(Vec<&'a [u8]>),
    /// A transaction: all of the commands under one index, or none if a watched key has changed.
    Exec {
        /// Each watched key, with the modification index it had when it was watched.
        watched: Vec<(&'a [u8], LogIndex)>,
        /// The commands, in order. Writes and reads.
        commands: Vec<Vec<&'a [u8]>>,
    },
    /// Only the entry's time counts: what is due expires.
    Tick,
    /// Opens a client session; the reply is its number.
    OpenSession,
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`] if the payload is not exactly one request of a known version and kind.
    pub fn decode(payload: &'a [u8]) -> Result<Request<'a>, RequestError> {
        let mut reader = Reader(payload);
        let head = reader.byte().ok_or(RequestError::Malformed)?;
        if head >> 4 != VERSION {
            return Err(RequestError::Version(head >> 4));
        }
        let request = match head & 0x0f {
            COMMAND => Request::Command(words(&mut reader)?),
            EXEC => {
                let count = count(&mut reader)?;
                let mut watched = Vec::with_capacity(count.min(RESERVED_MAX));
                for _ in 0..count {
                    let key = reader.bytes().ok_or(RequestError::Malformed)?;
                    watched.push((key, LogIndex(reader.number().ok_or(RequestError::Malformed)?)));
                }
                let count = self::count(&mut reader)?;
                let mut commands = Vec::with_capacity(count.min(RESERVED_MAX));
                for _ in 0..count {
                    commands.push(words(&mut reader)?);
                }
                Request::Exec { watched, commands }
            }
            TICK => Request::Tick,
            OPEN_SESSION => Request::OpenSession,
            kind => return Err(RequestError::Kind(kind)),
        };
        if reader.0.is_empty() { Ok(request) } else { Err(RequestError::Malformed) }
    }
}

/// The payload for one command.
pub fn encode_command<A: AsRef<[u8]>>(args: &[A]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + words_size(args));
    out.put_u8(head(COMMAND));
    put_words(args, &mut out);
    out.freeze()
}

/// The payload for a transaction.
pub fn encode_exec<K: AsRef<[u8]>, A: AsRef<[u8]>>(watched: &[(K, LogIndex)], commands: &[Vec<A>]) -> Bytes {
    let keys: usize = watched.iter().map(|(key, _)| key.as_ref().len() + 12).sum();
    let words: usize = commands.iter().map(|args| words_size(args)).sum();
    let mut out = BytesMut::with_capacity(16 + keys + words);
    out.put_u8(head(EXEC));
    varint::put(watched.len() as u64, &mut out);
    for (key, index) in watched {
        varint::put_bytes(key.as_ref(), &mut out);
        varint::put(index.0, &mut out);
    }
    varint::put(commands.len() as u64, &mut out);
    for args in commands {
        put_words(args, &mut out);
    }
    out.freeze()
}

/// The payload of an entry that only brings time.
#[must_use]
pub fn encode_tick() -> Bytes {
    const TICK_PAYLOAD: [u8; 1] = [head(TICK)];
    Bytes::from_static(&TICK_PAYLOAD)
}

/// The payload that opens a session.
#[must_use]
pub fn encode_open_session() -> Bytes {
    const OPEN_PAYLOAD: [u8; 1] = [head(OPEN_SESSION)];
    Bytes::from_static(&OPEN_PAYLOAD)
}

/// Why a payload is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Written by a version this one does not know.
    #[error("a request of version {0}, which this node does not know")]
    Version(u8),
    /// A kind this version does not know.
    #[error("a request of kind {0}, which this node does not know")]
    Kind(u8),
    /// It ends too early, goes on too long, or holds a number out of range.
    #[error("a malformed request")]
    Malformed,
}

/// How many words a command may have, and how many commands or watched keys a transaction (as Redis limits it).
pub const WORDS_MAX: usize = 1024 * 1024;

const VERSION: u8 = 1;
const COMMAND: u8 = 1;
const EXEC: u8 = 2;
const TICK: u8 = 3;
const OPEN_SESSION: u8 = 4;

/// What a count may reserve before its items are seen.
const RESERVED_MAX: usize = 64;

const fn head(kind: u8) -> u8 {
    VERSION << 4 | kind
}

fn words_size<A: AsRef<[u8]>>(args: &[A]) -> usize {
    let words: usize =
        args.iter().map(|arg| varint::size(arg.as_ref().len() as u64) + arg.as_ref().len()).sum();
    varint::size(args.len() as u64) + words
}

fn put_words<A: AsRef<[u8]>>(args: &[A], out: &mut BytesMut) {
    varint::put(args.len() as u64, out);
    for arg in args {
        varint::put_bytes(arg.as_ref(), out);
    }
}

fn words<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, RequestError> {
    let count = count(reader)?;
    let mut words = Vec::with_capacity(count.min(RESERVED_MAX));
    for _ in 0..count {
        words.push(reader.bytes().ok_or(RequestError::Malformed)?);
    }
    Ok(words)
}

fn count(reader: &mut Reader<'_>) -> Result<usize, RequestError> {
    reader.length().filter(|count| *count <= WORDS_MAX).ok_or(RequestError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_costs_seven_bytes_more_than_its_words() {
        let payload = encode_command(&[&b"SET"[..], b"key", &[b'v'; 100]]);
        assert_eq!(payload.len(), 3 + 3 + 100 + 5);
        let payload = encode_command(&[&b"SET"[..], &[b'k'; 16], &[b'v'; 256]]);
        assert_eq!(payload.len(), 3 + 16 + 256 + 6);
        let Request::Command(words) = Request::decode(&payload).unwrap() else { panic!() };
        assert_eq!(words[0], b"SET");
        assert_eq!(words[2], [b'v'; 256]);
    }

    #[test]
    fn ticks_and_sessions_are_one_byte() {
        assert_eq!(Request::decode(&encode_tick()), Ok(Request::Tick));
        assert_eq!(Request::decode(&encode_open_session()), Ok(Request::OpenSession));
        assert_eq!(encode_tick().len(), 1);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(Request::decode(&[]), Err(RequestError::Malformed));
        assert_eq!(Request::decode(&[0x21]), Err(RequestError::Version(2)));
        assert_eq!(Request::decode(&[0x1f]), Err(RequestError::Kind(15)));
        assert_eq!(Request::decode(&[0x13, 0]), Err(RequestError::Malformed));
        // A count far beyond what follows allocates little and fails.
        assert_eq!(Request::decode(&[0x11, 0xff, 0xff, 0x3f]), Err(RequestError::Malformed));
        assert_eq!(Request::decode(&[0x11, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(RequestError::Malformed));
    }

    fn any_words() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)
    }

    proptest! {
        #[test]
        fn requests_survive(
            words in any_words(),
            watched in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..20), any::<u64>()), 0..4),
            commands in proptest::collection::vec(any_words(), 0..4),
        ) {
            let payload = encode_command(&words);
            let Ok(Request::Command(decoded)) = Request::decode(&payload) else { panic!() };
            prop_assert_eq!(decoded, words);

            let watched: Vec<_> = watched.into_iter().map(|(key, index)| (key, LogIndex(index))).collect();
            let payload = encode_exec(&watched, &commands);
            let Ok(Request::Exec { watched: seen, commands: decoded }) = Request::decode(&payload) else { panic!() };
            prop_assert!(seen.iter().copied().eq(watched.iter().map(|(key, index)| (key.as_slice(), *index))));
            prop_assert_eq!(decoded, commands);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 1u8..5) {
            let _ = Request::decode(&bytes);
            let _ = Request::decode(&[&[0x10 | kind][..], &bytes].concat());
        }
    }
}
