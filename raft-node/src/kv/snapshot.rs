//! The store as a stream of bytes.
//!
//! ```text
//! 4 bytes      format: "RKV" and a version, big end first
//! numbers      replicated time, last applied index
//! section      sessions: length, bytes
//! per shard    deletion index, number of records
//!   record     length, bytes as in memory, in the order of key hashes; see `record`
//! number       all records, once more
//! ```
//! Numbers are LEB128. Equal states make equal streams. Whoever keeps the stream adds checksums; here it is checked
//! that what was read makes sense, and that nothing is allocated that was not read.

use std::io::{self, Read as _};

use bytes::{BufMut as _, BytesMut};
use raft_core::{LogIndex, Timestamp};

use super::{
    KEY_BYTES_MAX, VALUE_BYTES_MAX,
    bank::{Bank, SHARDS, SHARDS_PER_BANK, shard_of},
    hash::hash,
    record::View,
    sessions::{SESSIONS_BYTES_MAX, Sessions},
    store::Store,
    varint::{self, Reader, VARINT_BYTES_MAX},
};
use crate::state_machine::{RestoreError, SnapshotView};

/// The state at one index, shared with the store that goes on.
pub(super) struct Frozen {
    pub(super) time: Timestamp,
    pub(super) applied: LogIndex,
    pub(super) sessions: Sessions,
    pub(super) banks: Vec<Bank>,
}

impl SnapshotView for Frozen {
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()> {
        let mut out = BytesMut::with_capacity(2 * FLUSH_BYTES);
        out.put_u32(FORMAT);
        varint::put(self.time.0, &mut out);
        varint::put(self.applied.0, &mut out);
        let mut sessions = BytesMut::new();
        self.sessions.encode(&mut sessions);
        varint::put_bytes(&sessions, &mut out);
        let mut records = 0u64;
        // Each bank is let go as soon as it is written, so that the store need not copy its parts any more.
        for (bank, first) in self.banks.into_iter().zip((0..SHARDS).step_by(SHARDS_PER_BANK)) {
            for shard in first..first + SHARDS_PER_BANK {
                let sorted = bank.sorted(shard);
                varint::put(bank.deleted(shard).0, &mut out);
                varint::put(sorted.len() as u64, &mut out);
                records += sorted.len() as u64;
                for (_, record) in sorted {
                    out.put_slice(record.bytes());
                    if out.len() >= FLUSH_BYTES {
                        to.write_all(&out)?;
                        out.clear();
                    }
                }
            }
        }
        varint::put(records, &mut out);
        to.write_all(&out)
    }
}

/// What a snapshot held.
pub(super) struct Thawed {
    pub(super) time: Timestamp,
    pub(super) applied: LogIndex,
    pub(super) sessions: Sessions,
    pub(super) store: Store,
}

impl Thawed {
    /// Reads a whole stream, to its end.
    pub(super) fn read(from: &mut dyn io::Read) -> Result<Thawed, RestoreError> {
        let mut input = Input { from: io::BufReader::with_capacity(FLUSH_BYTES, from), buffer: Vec::new() };
        let mut format = [0; 4];
        input.from.read_exact(&mut format)?;
        let format = u32::from_be_bytes(format);
        if format != FORMAT {
            return Err(RestoreError::Format(format));
        }
        let time = Timestamp(input.number()?);
        let applied = LogIndex(input.number()?);
        let sessions = Sessions::decode(input.bytes(SESSIONS_BYTES_MAX)?)
            .ok_or(RestoreError::Damaged("its sessions make no sense"))?;
        let mut store = Store::new();
        let mut records = 0u64;
        for shard in 0..SHARDS {
            let deleted = LogIndex(input.number()?);
            if deleted > applied {
                return Err(RestoreError::Damaged("a deletion lies beyond its last index"));
            }
            store.restore_deleted(shard, deleted);
            for _ in 0..input.number()? {
                let view = View::read(input.bytes(RECORD_BYTES_MAX)?)
                    .ok_or(RestoreError::Damaged("a record is cut short"))?;
                if view.key.len() > KEY_BYTES_MAX || view.value.len() > VALUE_BYTES_MAX {
                    return Err(RestoreError::Damaged("a key or value is too long"));
                }
                if view.meta.modified > applied {
                    return Err(RestoreError::Damaged("a change lies beyond its last index"));
                }
                if shard_of(hash(view.key)) != shard {
                    return Err(RestoreError::Damaged("a key lies in the wrong shard"));
                }
                if !store.restore_record(view) {
                    return Err(RestoreError::Damaged("a key occurs twice"));
                }
                records += 1;
            }
        }
        if input.number()? != records {
            return Err(RestoreError::Damaged("records are missing"));
        }
        if input.from.read(&mut [0])? != 0 {
            return Err(RestoreError::Damaged("bytes follow its end"));
        }
        Ok(Thawed { time, applied, sessions, store })
    }
}

struct Input<'a> {
    from: io::BufReader<&'a mut dyn io::Read>,
    buffer: Vec<u8>,
}

impl Input<'_> {
    fn number(&mut self) -> Result<u64, RestoreError> {
        let mut bytes = [0; VARINT_BYTES_MAX];
        for at in 0..VARINT_BYTES_MAX {
            self.from.read_exact(&mut bytes[at..=at])?;
            if bytes[at] & 0x80 == 0 {
                break;
            }
        }
        Reader(&bytes).number().ok_or(RestoreError::Damaged("a number is out of range"))
    }

    fn bytes(&mut self, length_max: usize) -> Result<&[u8], RestoreError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > length_max {
            return Err(RestoreError::Damaged("a length is out of range"));
        }
        self.buffer.clear();
        // Reads in steps: a length that is a lie ends at the end of the stream, not in a large allocation.
        let read = (&mut self.from).take(length as u64).read_to_end(&mut self.buffer)?;
        if read < length {
            return Err(RestoreError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(&self.buffer)
    }
}

/// "RKV", version 1.
const FORMAT: u32 = 0x524B_5601;

const RECORD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 3 * VARINT_BYTES_MAX;

/// What is put together before it is written.
const FLUSH_BYTES: usize = 256 * 1024;
