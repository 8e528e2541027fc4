//! One record: a header with a checksum of its own, then a payload. FORMAT.md has the picture.
//!
//! Little-endian, aligned to 8 bytes, and never all zero. A header's checksum covers the segment's number and salt and
//! the record's place in the file, so that bytes of a former life of the file, shifted or misdirected bytes do not pass.

use raft_core::{
    ConfState, Entry, EntryKind, GroupId, HardState, LogId, LogIndex, NodeId, SessionSeq, SnapshotMeta, Term,
    Timestamp,
};

use crate::fields::Fields;

/// Records begin at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Bytes of the part that all headers share.
pub(crate) const BASE_BYTES: usize = 32;
/// Bytes of an entry's header, without and with a session.
pub(crate) const ENTRY_HEADER_BYTES: usize = BASE_BYTES + 24;
pub(crate) const ENTRY_SESSION_HEADER_BYTES: usize = ENTRY_HEADER_BYTES + 16;
pub(crate) const CUT_BYTES: usize = BASE_BYTES + 8;
pub(crate) const MARK_HEADER_BYTES: usize = BASE_BYTES + 16;
pub(crate) const COMMIT_BYTES: usize = BASE_BYTES + 8 + STATE_BYTES;
pub(crate) const SEAL_BYTES: usize = BASE_BYTES + 24 + STATE_BYTES;
pub(crate) const PAD_BYTES: usize = BASE_BYTES;
/// Bytes of an encoded [`State`].
pub(crate) const STATE_BYTES: usize = 128;

/// Entries, batches, segments and cuts are counted up one by one: no log gets this far, so that a larger number is not
/// believed, and counting on never overflows.
pub(crate) const COUNT_MAX: u64 = 1 << 56;

const KIND_ENTRY: u8 = 1;
// 2 was meant for a hard state of its own; each commit record carries it instead.
const KIND_CUT: u8 = 3;
const KIND_MARK: u8 = 4;
const KIND_COMMIT: u8 = 5;
const KIND_SEAL: u8 = 6;
const KIND_PAD: u8 = 7;

const FLAG_SESSION: u8 = 1;
const FLAG_RESETS_LOG: u8 = 1;
const FLAG_RESTATED: u8 = 2;

/// What ties a record to its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The first eight bytes of every record of the segment.
    pub(crate) tag: u64,
    seed: u32,
}

impl Stamp {
    pub(crate) fn new(number: u64, salt: u128) -> Stamp {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&salt.to_le_bytes());
        let [low, high] = [salt, salt >> 64].map(|half| u64::from_le_bytes(low_bytes(half)));
        // Never zero, so that zeroes are never a record.
        Stamp { tag: mix(low ^ mix(high ^ number)) | 1, seed: crc32fast::hash(&bytes) }
    }

    /// The checksum of `bytes` that stand at `offset`; the four bytes at `hole` count as zero.
    ///
    /// Headers are put together first: one pass over 64 bytes is several times as fast as four over parts of them.
    #[inline]
    pub(crate) fn checksum(&self, offset: u64, bytes: &[u8], hole: usize) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        let mut whole = [0; 8 + CHECKED_AT_ONCE];
        match whole.get_mut(8..8 + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                place[hole..hole + 4].fill(0);
                whole[..8].copy_from_slice(&offset.to_le_bytes());
                hasher.update(&whole[..8 + bytes.len()]);
            }
            None => {
                hasher.update(&offset.to_le_bytes());
                hasher.update(&bytes[..hole]);
                hasher.update(&[0; 4]);
                hasher.update(&bytes[hole + 4..]);
            }
        }
        hasher.finalize()
    }
}

/// Headers of entries are no longer than this.
const CHECKED_AT_ONCE: usize = ENTRY_SESSION_HEADER_BYTES;

fn low_bytes(value: u128) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&value.to_le_bytes()[..8]);
    out
}

/// Spreads the bits of `value` (the finaliser of splitmix64).
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Adds one header's checksum to the chain that ties all records of the log together.
pub(crate) fn chain(value: u64, header_checksum: u32) -> u64 {
    (value.rotate_left(23) ^ u64::from(header_checksum)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Everything a node must still know when entries are lost: it stands in every commit record, every seal and every
/// segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The number of the last batch. Grows, and is never used twice in one directory.
    pub(crate) batch: u64,
    /// The chain over the checksums of all record headers up to here.
    pub(crate) chain: u64,
    pub(crate) hard_state: HardState,
    /// The last entry, `log_start` if there is none.
    pub(crate) last: LogId,
    /// The entry before the first one kept.
    pub(crate) log_start: LogId,
    /// The oldest segment that still belongs to the log.
    pub(crate) first_segment: u64,
    /// The newest marked snapshot; [`LogId::ZERO`] before the first.
    pub(crate) mark: LogId,
    /// While a hole is being refilled: what had been acknowledged before. Otherwise [`LogId::ZERO`].
    pub(crate) promised: LogId,
    /// How often this segment cut the log back, and the lowest index it cut to: if one of those records is lost, this
    /// tells which entries may no longer be believed.
    pub(crate) cuts: u64,
    pub(crate) cut_min: LogIndex,
}

impl State {
    /// Of a log that was never written.
    pub(crate) const NEW: State = State {
        batch: 0,
        chain: 0,
        hard_state: HardState { term: Term::ZERO, vote: None, commit: LogIndex::ZERO },
        last: LogId::ZERO,
        log_start: LogId::ZERO,
        first_segment: 1,
        mark: LogId::ZERO,
        promised: LogId::ZERO,
        cuts: 0,
        cut_min: LogIndex(u64::MAX),
    };

    pub(crate) fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        let words = [
            self.batch,
            self.chain,
            self.hard_state.term.0,
            self.hard_state.vote.map_or(0, |id| id.0),
            self.hard_state.commit.0,
            self.last.term.0,
            self.last.index.0,
            self.log_start.term.0,
            self.log_start.index.0,
            self.first_segment,
            self.mark.term.0,
            self.mark.index.0,
            self.promised.term.0,
            self.promised.index.0,
            self.cuts,
            self.cut_min.0,
        ];
        for (place, word) in out.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// `None` if there are too few bytes, or a count is beyond [`COUNT_MAX`].
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<State> {
        let state = State {
            batch: fields.u64()?,
            chain: fields.u64()?,
            hard_state: HardState {
                term: Term(fields.u64()?),
                vote: Some(NodeId(fields.u64()?)).filter(|id| id.0 != 0),
                commit: LogIndex(fields.u64()?),
            },
            last: log_id(fields)?,
            log_start: log_id(fields)?,
            first_segment: fields.u64()?,
            mark: log_id(fields)?,
            promised: log_id(fields)?,
            cuts: fields.u64()?,
            cut_min: LogIndex(fields.u64()?),
        };
        [state.batch, state.first_segment, state.cuts]
            .iter()
            .all(|count| *count <= COUNT_MAX)
            .then_some(state)
    }
}

fn log_id(fields: &mut Fields<'_>) -> Option<LogId> {
    Some(LogId { term: Term(fields.u64()?), index: index(fields)? })
}

/// An entry's index that somebody can have counted to.
pub(crate) fn index(fields: &mut Fields<'_>) -> Option<LogIndex> {
    Some(fields.u64()?).filter(|index| *index <= COUNT_MAX).map(LogIndex)
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// The payload is the entry's, its checksum too.
    Entry { id: LogId, time: Timestamp, session: Option<SessionSeq>, kind: EntryKind },
    /// Every entry behind `after` is forgotten.
    Cut { after: LogIndex },
    /// A snapshot; the payload has its configuration.
    Mark {
        last: LogId,
        resets_log: bool,
        /// Repeated at the head of a segment, so that older ones may go.
        restated: bool,
    },
    /// Closes a batch. `watermark` is the last batch known durable when this was written.
    Commit { watermark: u64, state: State },
    /// Closes a segment: everything before is durable, and the next one has this number and salt.
    Seal { next_number: u64, next_salt: u128, state: State },
    /// Fills the space up to the next record.
    Pad,
}

/// A record as it stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) header_checksum: u32,
    pub(crate) payload: &'a [u8],
    pub(crate) payload_checksum: u32,
    /// Bytes of header and payload.
    pub(crate) bytes: usize,
}

impl Record<'_> {
    /// Bytes up to the next record.
    pub(crate) fn padded_bytes(&self) -> usize {
        self.bytes.next_multiple_of(ALIGN)
    }

    pub(crate) fn payload_is_intact(&self) -> bool {
        matches!(self.header, Header::Pad) || crc32fast::hash(self.payload) == self.payload_checksum
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// They do not begin with this segment's tag.
    Untagged,
    /// They do, but do not fit their checksum or their place.
    Damaged,
}

/// Reads the record at `position` of `bytes`, which stand at `base` in their segment.
pub(crate) fn parse<'a>(
    bytes: &'a [u8],
    base: u64,
    position: usize,
    stamp: &Stamp,
) -> Result<Record<'a>, NoRecord> {
    let here = bytes.get(position..).ok_or(NoRecord::Untagged)?;
    let mut fields = Fields::new(here);
    if fields.u64() != Some(stamp.tag) {
        return Err(NoRecord::Untagged);
    }
    parse_tagged(here, base + position as u64, stamp).ok_or(NoRecord::Damaged)
}

/// How many bytes the commit record or seal takes of which all but the tag stands at `position`.
///
/// A tag is the same at every place of a segment. Where a torn write lost the sector that a tag ended, the next write to
/// that place would bring the tag back, and the old record with it. An entry would not matter: it needs a commit record.
pub(crate) fn beheaded(bytes: &[u8], position: usize, stamp: &Stamp) -> Option<usize> {
    let rest = bytes.get(position..)?;
    let mut record = rest.get(..SEAL_BYTES.max(COMMIT_BYTES)).unwrap_or(rest).to_vec();
    record.get_mut(..8)?.copy_from_slice(&stamp.tag.to_le_bytes());
    parse_tagged(&record, position as u64, stamp).map(|record| record.padded_bytes())
}

fn parse_tagged<'a>(here: &'a [u8], offset: u64, stamp: &Stamp) -> Option<Record<'a>> {
    let mut fields = Fields::new(here.get(8..BASE_BYTES)?);
    let header_checksum = fields.u32()?;
    let payload_bytes = usize::try_from(fields.u32()?).ok()?;
    let [kind, words, sub, flags] = fields.array()?;
    let payload_checksum = fields.u32()?;
    let group = GroupId(fields.u32()?);
    let reserved = fields.u32()?;
    let header_bytes = usize::from(words) * 8;
    let header = here.get(..header_bytes).filter(|header| header.len() >= BASE_BYTES)?;
    if stamp.checksum(offset, header, 8) != header_checksum || reserved != 0 || group != GroupId::ROOT {
        return None;
    }
    // From here on the header is believed; the payload's length still has to lie inside.
    let payload = here[header_bytes..].get(..payload_bytes)?;
    let mut fields = Fields::new(&header[BASE_BYTES..]);
    let header = match kind {
        KIND_ENTRY => Header::Entry {
            id: log_id(&mut fields)?,
            time: Timestamp(fields.u64()?),
            session: match flags {
                0 => None,
                FLAG_SESSION => Some(SessionSeq { session: fields.u64()?, seq: fields.u64()? }),
                _ => return None,
            },
            kind: EntryKind::from_u8(sub)?,
        },
        KIND_CUT => Header::Cut { after: index(&mut fields)? },
        KIND_MARK => Header::Mark {
            last: log_id(&mut fields)?,
            resets_log: flags & FLAG_RESETS_LOG != 0,
            restated: flags & FLAG_RESTATED != 0,
        },
        KIND_COMMIT => Header::Commit { watermark: fields.u64()?, state: State::decode(&mut fields)? },
        KIND_SEAL => Header::Seal {
            next_number: Some(fields.u64()?).filter(|number| *number <= COUNT_MAX)?,
            next_salt: fields.u128()?,
            state: State::decode(&mut fields)?,
        },
        KIND_PAD => Header::Pad,
        _ => return None,
    };
    let known_flags = match kind {
        KIND_ENTRY => FLAG_SESSION,
        KIND_MARK => FLAG_RESETS_LOG | FLAG_RESTATED,
        _ => 0,
    };
    if !fields.rest().is_empty() || flags & !known_flags != 0 {
        return None;
    }
    Some(Record { header, header_checksum, payload, payload_checksum, bytes: header_bytes + payload_bytes })
}

/// Bytes an entry takes in a segment.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    (entry_header_bytes(entry) + entry.payload.len()).next_multiple_of(ALIGN)
}

fn entry_header_bytes(entry: &Entry) -> usize {
    if entry.session.is_some() { ENTRY_SESSION_HEADER_BYTES } else { ENTRY_HEADER_BYTES }
}

/// Appends records to a buffer that will be written at `base`, and keeps the chain.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) base: u64,
    pub(crate) stamp: Stamp,
    pub(crate) chain: &'a mut u64,
}

impl Encoder<'_> {
    /// Where the next record will stand, and its length without padding, are returned by `entry`.
    pub(crate) fn entry(&mut self, entry: &Entry) -> (u64, usize) {
        let mut fields = [0; ENTRY_SESSION_HEADER_BYTES - BASE_BYTES];
        fields[..8].copy_from_slice(&entry.id.term.0.to_le_bytes());
        fields[8..16].copy_from_slice(&entry.id.index.0.to_le_bytes());
        fields[16..24].copy_from_slice(&entry.time.0.to_le_bytes());
        let mut flags = 0;
        if let Some(session) = entry.session {
            flags = FLAG_SESSION;
            fields[24..32].copy_from_slice(&session.session.to_le_bytes());
            fields[32..40].copy_from_slice(&session.seq.to_le_bytes());
        }
        let fields = &fields[..entry_header_bytes(entry) - BASE_BYTES];
        let at = self.put(KIND_ENTRY, entry.kind as u8, flags, fields, &entry.payload, entry.checksum);
        (at, BASE_BYTES + fields.len() + entry.payload.len())
    }

    pub(crate) fn cut(&mut self, after: LogIndex) {
        self.put(KIND_CUT, 0, 0, &after.0.to_le_bytes(), &[], 0);
    }

    /// Returns where it stands.
    pub(crate) fn mark(&mut self, meta: &SnapshotMeta, resets_log: bool, restated: bool) -> u64 {
        let flags = if resets_log { FLAG_RESETS_LOG } else { 0 } | if restated { FLAG_RESTATED } else { 0 };
        let mut fields = [0; 16];
        fields[..8].copy_from_slice(&meta.last.term.0.to_le_bytes());
        fields[8..].copy_from_slice(&meta.last.index.0.to_le_bytes());
        let payload = encode_meta(meta);
        self.put(KIND_MARK, 0, flags, &fields, &payload, crc32fast::hash(&payload))
    }

    /// Closes a batch with `state`, whose chain is filled in; returns it as written, then counts itself in.
    pub(crate) fn commit(&mut self, watermark: u64, mut state: State) -> State {
        state.chain = *self.chain;
        let mut fields = [0; COMMIT_BYTES - BASE_BYTES];
        fields[..8].copy_from_slice(&watermark.to_le_bytes());
        fields[8..].copy_from_slice(&state.encode());
        self.put(KIND_COMMIT, 0, 0, &fields, &[], 0);
        state
    }

    pub(crate) fn seal(&mut self, next_number: u64, next_salt: u128, mut state: State) {
        state.chain = *self.chain;
        let mut fields = [0; SEAL_BYTES - BASE_BYTES];
        fields[..8].copy_from_slice(&next_number.to_le_bytes());
        fields[8..24].copy_from_slice(&next_salt.to_le_bytes());
        fields[24..].copy_from_slice(&state.encode());
        self.put(KIND_SEAL, 0, 0, &fields, &[], 0);
    }

    /// Fills up to the next multiple of `block`.
    pub(crate) fn pad_to(&mut self, block: usize) {
        self.pad_to_before(block, 0);
    }

    /// Fills so far that `bytes` more end at a multiple of `block`.
    pub(crate) fn pad_to_before(&mut self, block: usize, bytes: usize) {
        let (at, bytes) = (self.at(), bytes as u64);
        let end = (at + PAD_BYTES as u64 + bytes).next_multiple_of(block as u64) - bytes;
        let fill = usize::try_from(end - at).expect("less than a block and a header") - PAD_BYTES;
        self.put(KIND_PAD, 0, 0, &[], &vec![0; fill], 0);
    }

    fn at(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    fn put(
        &mut self,
        kind: u8,
        sub: u8,
        flags: u8,
        fields: &[u8],
        payload: &[u8],
        payload_checksum: u32,
    ) -> u64 {
        let at = self.at();
        assert!(at.is_multiple_of(ALIGN as u64), "a record would begin at {at}, which is not aligned");
        let start = self.buffer.len();
        let header_bytes = BASE_BYTES + fields.len();
        let words = u8::try_from(header_bytes / 8).expect("every header is far below 2 KiB");
        let payload_bytes = u32::try_from(payload.len()).expect("the writer refused larger payloads");
        self.buffer.reserve(header_bytes + payload.len() + ALIGN);
        self.buffer.extend_from_slice(&self.stamp.tag.to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&payload_bytes.to_le_bytes());
        self.buffer.extend_from_slice(&[kind, words, sub, flags]);
        self.buffer.extend_from_slice(&payload_checksum.to_le_bytes());
        self.buffer.extend_from_slice(&GroupId::ROOT.0.to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(fields);
        let checksum = self.stamp.checksum(at, &self.buffer[start..], 8);
        self.buffer[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
        self.buffer.extend_from_slice(payload);
        self.buffer.resize(self.buffer.len().next_multiple_of(ALIGN), 0);
        *self.chain = chain(*self.chain, checksum);
        at
    }
}

/// Bytes a mark takes in a segment.
pub(crate) fn mark_bytes(meta: &SnapshotMeta) -> usize {
    (MARK_HEADER_BYTES + encode_meta(meta).len()).next_multiple_of(ALIGN)
}

/// A mark's payload: replicated time, the configuration's entry, the configuration.
fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let conf = meta.conf.encode();
    let mut out = Vec::with_capacity(24 + conf.len());
    out.extend_from_slice(&meta.time.0.to_le_bytes());
    out.extend_from_slice(&meta.conf_id.term.0.to_le_bytes());
    out.extend_from_slice(&meta.conf_id.index.0.to_le_bytes());
    out.extend_from_slice(&conf);
    out
}

/// Reads a mark's payload; `None` if it is none.
pub(crate) fn decode_meta(last: LogId, payload: &[u8]) -> Option<SnapshotMeta> {
    let mut fields = Fields::new(payload);
    let time = Timestamp(fields.u64()?);
    let conf_id = log_id(&mut fields)?;
    let conf = ConfState::decode(fields.rest()).ok()?;
    Some(SnapshotMeta { last, time, conf, conf_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_its_parts_whatever_the_length() {
        let stamp = Stamp::new(7, 0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let bytes: Vec<u8> = (1..=200).collect();
        for (length, hole) in
            [(12, 8), (32, 8), (56, 8), (72, 8), (73, 8), (168, 8), (200, 8), (64, 0), (64, 60)]
        {
            let mut parts = crc32fast::Hasher::new_with_initial(stamp.seed);
            parts.update(&4096_u64.to_le_bytes());
            parts.update(&bytes[..hole]);
            parts.update(&[0; 4]);
            parts.update(&bytes[hole + 4..length]);
            assert_eq!(stamp.checksum(4096, &bytes[..length], hole), parts.finalize(), "{length} bytes");
        }
    }

    /// The bytes of one record, made to fit the checksum of its header after `change`.
    fn record(encode: impl FnOnce(&mut Encoder<'_>), change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, Stamp) {
        let (mut buffer, mut chain, stamp) = (Vec::new(), 0, Stamp::new(7, 8));
        encode(&mut Encoder { buffer: &mut buffer, base: 0, stamp, chain: &mut chain });
        change(&mut buffer);
        let header = usize::from(buffer[17]) * 8;
        let checksum = stamp.checksum(0, &buffer[..header], 8);
        buffer[8..12].copy_from_slice(&checksum.to_le_bytes());
        (buffer, stamp)
    }

    // A later release may mean something by them that this one would get wrong.
    #[test]
    fn flags_that_are_not_known_and_fields_that_are_too_many_are_refused() {
        let fits = |change: fn(&mut Vec<u8>)| {
            let (bytes, stamp) = record(|encoder| encoder.cut(LogIndex(5)), change);
            parse(&bytes, 0, 0, &stamp).is_ok()
        };
        assert!(fits(|_| {}));
        assert!(!fits(|bytes| bytes[19] = 1));
        assert!(!fits(|bytes| {
            bytes[17] += 1;
            bytes.extend([0; 8]);
        }));
    }
}
