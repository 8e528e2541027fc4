//! The bytes of a snapshot file, as FORMAT.md draws them.

use std::path::Path;

use crc32fast::Hasher;
use raft_core::{CONF_STATE_BYTES_MAX, ClusterId, ConfState, LogId, LogIndex, SnapshotMeta, Term, Timestamp};

use super::{GROUP, SnapshotDamage, SnapshotFileError};
use crate::fields::Fields;

pub(super) const MAGIC: [u8; 8] = *b"RAFTSNAP";
pub(super) const FORMAT_VERSION: u32 = 1;
/// Up to the configuration.
pub(super) const HEADER_FIXED_BYTES: usize = 96;
/// No header is longer.
pub(super) const HEADER_BYTES_MAX: usize = HEADER_FIXED_BYTES + CONF_STATE_BYTES_MAX + 8 + 8;
/// The payload of each chunk but the last.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// No chunk we read may be longer, so that no file makes us allocate more.
pub(super) const CHUNK_BYTES_MAX: u32 = 4 << 20;
/// Length and checksum before each chunk's payload.
pub(super) const CHUNK_HEADER_BYTES: usize = 8;
pub(super) const TRAILER_BYTES: usize = 32;
/// Stands where a chunk's length would: no chunk is that long.
const TRAILER_MARK: u32 = u32::MAX;

/// Everything before the first chunk.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) meta: SnapshotMeta,
    pub(super) chunk_bytes_max: u32,
    pub(super) length: usize,
    /// The header's own checksum. It salts every chunk's, so that no chunk of another snapshot fits.
    pub(super) checksum: u32,
}

pub(super) fn encode_header(cluster: ClusterId, meta: &SnapshotMeta) -> Vec<u8> {
    let conf = meta.conf.encode();
    let length = (HEADER_FIXED_BYTES + conf.len()).next_multiple_of(8) + 8;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&as_u32(length).to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes()); // feature bits: none yet
    out.extend_from_slice(&cluster.0.to_le_bytes());
    out.extend_from_slice(&GROUP.0.to_le_bytes());
    out.extend_from_slice(&as_u32(CHUNK_BYTES).to_le_bytes());
    out.extend_from_slice(&meta.last.term.0.to_le_bytes());
    out.extend_from_slice(&meta.last.index.0.to_le_bytes());
    out.extend_from_slice(&meta.time.0.to_le_bytes());
    out.extend_from_slice(&meta.conf_id.term.0.to_le_bytes());
    out.extend_from_slice(&meta.conf_id.index.0.to_le_bytes());
    out.extend_from_slice(&as_u32(conf.len()).to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_FIXED_BYTES);
    out.extend_from_slice(&conf);
    out.resize(length - 4, 0);
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Tells from the first [`HEADER_FIXED_BYTES`] how long the header is.
pub(super) fn header_length(path: &Path, start: &[u8]) -> Result<usize, SnapshotFileError> {
    let damaged = |offset, kind| SnapshotFileError::damaged(path, offset, kind);
    let short = || damaged(start.len() as u64, SnapshotDamage::Truncated);
    let mut fields = Fields::new(start);
    if fields.array().ok_or_else(short)? != MAGIC {
        return Err(damaged(0, SnapshotDamage::Magic));
    }
    // Before any checksum: a newer format may keep its own elsewhere.
    let version = fields.u32().ok_or_else(short)?;
    if version != FORMAT_VERSION {
        return Err(SnapshotFileError::NewerFormat { path: path.to_owned(), version, known: FORMAT_VERSION });
    }
    let length = fields.u32().ok_or_else(short)? as usize;
    if !(HEADER_FIXED_BYTES + 8..=HEADER_BYTES_MAX).contains(&length) || !length.is_multiple_of(8) {
        return Err(damaged(12, SnapshotDamage::Length));
    }
    Ok(length)
}

/// Reads a whole header, of the length that [`header_length`] told.
pub(super) fn decode_header(
    path: &Path,
    cluster: ClusterId,
    bytes: &[u8],
) -> Result<Header, SnapshotFileError> {
    let damaged = |offset, kind| SnapshotFileError::damaged(path, offset, kind);
    let short = || damaged(bytes.len() as u64, SnapshotDamage::Truncated);
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or_else(short)?;
    let checksum = u32::from_le_bytes(*checksum);
    if crc32fast::hash(body) != checksum {
        return Err(damaged(body.len() as u64, SnapshotDamage::Header));
    }
    let mut fields = Fields::new(body);
    fields.take(16).ok_or_else(short)?; // magic, version and length: `header_length` has seen to them
    let features = fields.u64().ok_or_else(short)?;
    if features != 0 {
        return Err(SnapshotFileError::UnknownFeatures { path: path.to_owned(), bits: features });
    }
    let found = ClusterId(fields.u128().ok_or_else(short)?);
    if found != cluster {
        return Err(SnapshotFileError::Foreign { path: path.to_owned(), found, expected: cluster });
    }
    let group = fields.u32().ok_or_else(short)?;
    if group != GROUP.0 {
        return Err(SnapshotFileError::ForeignGroup { path: path.to_owned(), found: group });
    }
    let chunk_bytes_max = fields.u32().ok_or_else(short)?;
    if !(1..=CHUNK_BYTES_MAX).contains(&chunk_bytes_max) {
        return Err(damaged(44, SnapshotDamage::Length));
    }
    let last = log_id(&mut fields).ok_or_else(short)?;
    let time = Timestamp(fields.u64().ok_or_else(short)?);
    let conf_id = log_id(&mut fields).ok_or_else(short)?;
    let conf_length = fields.u32().ok_or_else(short)? as usize;
    fields.u32().ok_or_else(short)?;
    let conf = fields.take(conf_length).ok_or_else(|| damaged(88, SnapshotDamage::Length))?;
    let conf = ConfState::decode(conf)
        .map_err(|_| damaged(HEADER_FIXED_BYTES as u64, SnapshotDamage::Configuration))?;
    let meta = SnapshotMeta { last, time, conf, conf_id };
    Ok(Header { meta, chunk_bytes_max, length: bytes.len(), checksum })
}

fn log_id(fields: &mut Fields<'_>) -> Option<LogId> {
    let term = Term(fields.u64()?);
    Some(LogId { term, index: LogIndex(fields.u64()?) })
}

/// The checksum of a chunk: bound to its snapshot and to its place in the file, so that a chunk that was swapped or
/// written elsewhere does not fit.
pub(super) fn chunk_checksum(header_checksum: u32, offset: u64, payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&header_checksum.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&as_u32(payload.len()).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Everything behind the last chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) content_bytes: u64,
    pub(super) file_bytes: u64,
    /// Of all bytes before the trailer.
    pub(super) checksum: u32,
}

pub(super) fn encode_trailer(header_checksum: u32, trailer: &Trailer) -> [u8; TRAILER_BYTES] {
    let mut out = [0; TRAILER_BYTES];
    out[0..4].copy_from_slice(&TRAILER_MARK.to_le_bytes());
    out[4..8].copy_from_slice(&trailer.checksum.to_le_bytes());
    out[8..16].copy_from_slice(&trailer.content_bytes.to_le_bytes());
    out[16..24].copy_from_slice(&trailer.file_bytes.to_le_bytes());
    out[24..28].copy_from_slice(&header_checksum.to_le_bytes());
    let checksum = crc32fast::hash(&out[..28]);
    out[28..32].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// `None` if the bytes are not the trailer of the snapshot with this header.
pub(super) fn decode_trailer(header_checksum: u32, bytes: &[u8; TRAILER_BYTES]) -> Option<Trailer> {
    let mut fields = Fields::new(bytes);
    let mark = fields.u32()?;
    let checksum = fields.u32()?;
    let trailer = Trailer { content_bytes: fields.u64()?, file_bytes: fields.u64()?, checksum };
    let of_header = fields.u32()?;
    let own = fields.u32()?;
    let fits = mark == TRAILER_MARK && of_header == header_checksum && crc32fast::hash(&bytes[..28]) == own;
    fits.then_some(trailer)
}

pub(super) fn as_u32(length: usize) -> u32 {
    u32::try_from(length).expect("headers and chunks are bounded far below 4 GiB")
}
