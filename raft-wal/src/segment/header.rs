//! The first 4 KiB of a segment: whose it is, which one, and what was true when it began.

use std::path::Path;

use raft_core::{ClusterId, NodeId};

use crate::{
    error::WalError,
    fields::Fields,
    record::{COUNT_MAX, STATE_BYTES, Stamp, State},
};

/// Bytes in front of the first record.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Where the second copy stands, in a sector of its own.
const COPY_OFFSET: usize = 2048;
/// Bytes of one copy: it never crosses a sector.
const COPY_BYTES: usize = 104 + STATE_BYTES;
const MAGIC: [u8; 8] = *b"RAFTWAL\n";
/// The newest format this release writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Feature bits this release knows.
const FEATURES_KNOWN: u64 = 0;
const FLAG_REPAIR: u64 = 1;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) number: u64,
    pub(crate) salt: u128,
    pub(crate) segment_bytes: u64,
    /// Begun after damage was accepted: the log is cut back to `state.last`, and the segments before need no seal.
    pub(crate) repair: bool,
    /// Where the seal of the segment before ends; 0 for the first and after damage.
    pub(crate) previous_length: u64,
    /// What was true when the segment began.
    pub(crate) state: State,
}

/// What stands where a header should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a few of these live for the time of an open")]
pub(crate) enum Found {
    /// A header, and where in the file its other copy stands if that one does not fit.
    Live { header: SegmentHeader, unfit: Option<u64> },
    /// Nothing but zeroes: a prepared file.
    Blank,
    /// Something else.
    Unreadable,
}

impl SegmentHeader {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::new(self.number, self.salt)
    }

    /// All [`HEADER_BYTES`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let copy = self.encode_copy();
        let mut out = vec![0; HEADER_BYTES];
        out[..COPY_BYTES].copy_from_slice(&copy);
        out[COPY_OFFSET..COPY_OFFSET + COPY_BYTES].copy_from_slice(&copy);
        out
    }

    /// One of the two copies.
    pub(crate) fn encode_copy(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(COPY_BYTES);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy.extend_from_slice(&[0; 4]);
        copy.extend_from_slice(&FEATURES_KNOWN.to_le_bytes());
        copy.extend_from_slice(&self.cluster.0.to_le_bytes());
        copy.extend_from_slice(&self.node.0.to_le_bytes());
        copy.extend_from_slice(&self.number.to_le_bytes());
        copy.extend_from_slice(&self.salt.to_le_bytes());
        copy.extend_from_slice(&self.segment_bytes.to_le_bytes());
        copy.extend_from_slice(&if self.repair { FLAG_REPAIR } else { 0 }.to_le_bytes());
        copy.extend_from_slice(&self.previous_length.to_le_bytes());
        copy.extend_from_slice(&[0; 8]);
        copy.extend_from_slice(&self.state.encode());
        let checksum = checksum(&copy);
        copy[12..16].copy_from_slice(&checksum.to_le_bytes());
        copy
    }

    /// Reads a header out of a segment's first bytes.
    ///
    /// # Errors
    /// [`WalError::NewerFormat`] or [`WalError::UnknownFeatures`] of an intact header.
    pub(crate) fn find(path: &Path, bytes: &[u8]) -> Result<Found, WalError> {
        let copy = |at: usize| match bytes.get(at..at + COPY_BYTES) {
            Some(copy) => decode(path, copy),
            None => Ok(None),
        };
        Ok(match (copy(0)?, copy(COPY_OFFSET)?) {
            (Some(header), other) => {
                let unfit = other.is_none_or(|other| other != header).then_some(COPY_OFFSET as u64);
                Found::Live { header, unfit }
            }
            (None, Some(header)) => Found::Live { header, unfit: Some(0) },
            (None, None) if bytes.iter().all(|byte| *byte == 0) => Found::Blank,
            (None, None) => Found::Unreadable,
        })
    }
}

fn checksum(copy: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&copy[..12]);
    hasher.update(&copy[16..]);
    hasher.finalize()
}

fn decode(path: &Path, copy: &[u8]) -> Result<Option<SegmentHeader>, WalError> {
    let mut fields = Fields::new(copy);
    if fields.array() != Some(MAGIC) {
        return Ok(None);
    }
    let (Some(version), Some(found)) = (fields.u32(), fields.u32()) else { return Ok(None) };
    // Magic, version, checksum and features keep their places in every version to come.
    if checksum(copy) != found {
        return Ok(None);
    }
    if version > FORMAT_VERSION {
        let path = path.to_owned();
        return Err(WalError::NewerFormat { path, version, known: FORMAT_VERSION });
    }
    let unknown = fields.u64().unwrap_or(0) & !FEATURES_KNOWN;
    if unknown != 0 {
        return Err(WalError::UnknownFeatures { path: path.to_owned(), bits: unknown });
    }
    Ok(decode_rest(&mut fields))
}

fn decode_rest(fields: &mut Fields<'_>) -> Option<SegmentHeader> {
    Some(SegmentHeader {
        cluster: ClusterId(fields.u128()?),
        node: NodeId(fields.u64()?),
        number: Some(fields.u64()?).filter(|number| *number <= COUNT_MAX)?,
        salt: fields.u128()?,
        segment_bytes: fields.u64()?,
        repair: fields.u64()? & FLAG_REPAIR != 0,
        previous_length: fields.u64()?,
        state: {
            let _reserved = fields.u64()?;
            State::decode(fields)?
        },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn header() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId(7),
            node: NodeId(1),
            number: 3,
            salt: 0x1234_5678_9abc_def0_1122_3344_5566_7788,
            segment_bytes: 64 << 10,
            repair: false,
            previous_length: 5000,
            state: State::NEW,
        }
    }

    #[test]
    fn a_header_survives_encoding() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        let found = SegmentHeader::find(Path::new("x"), &bytes).unwrap();
        assert_eq!(found, Found::Live { header: header(), unfit: None });
    }

    #[test]
    fn one_copy_is_enough_and_no_flipped_bit_passes() {
        let bytes = header().encode();
        for bit in 0..COPY_BYTES * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = SegmentHeader::find(Path::new("x"), &bytes).unwrap();
            assert_eq!(found, Found::Live { header: header(), unfit: Some(0) }, "bit {bit}");
            bytes[COPY_OFFSET + 20] ^= 1;
            let found = SegmentHeader::find(Path::new("x"), &bytes).unwrap();
            assert_eq!(found, Found::Unreadable, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = SegmentHeader::find(Path::new("x"), &bytes).unwrap();
            assert_eq!(found, Found::Live { header: header(), unfit: Some(COPY_OFFSET as u64) });
        }
    }

    #[test]
    fn newer_versions_and_unknown_features_are_refused_by_name() {
        let forge = |at: usize, value: u8| {
            let mut bytes = header().encode();
            bytes[at] = value;
            let checksum = checksum(&bytes[..COPY_BYTES]);
            bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
            SegmentHeader::find(Path::new("x"), &bytes)
        };
        assert!(matches!(forge(8, 2), Err(WalError::NewerFormat { version: 2, .. })));
        assert!(matches!(forge(16, 4), Err(WalError::UnknownFeatures { bits: 4, .. })));
    }

    #[test]
    fn zeroes_are_a_prepared_file_and_short_files_are_unreadable() {
        assert_eq!(SegmentHeader::find(Path::new("x"), &[0; HEADER_BYTES]).unwrap(), Found::Blank);
        assert_eq!(SegmentHeader::find(Path::new("x"), b"RAFTWAL").unwrap(), Found::Unreadable);
    }
}
