//! The end of a sealed segment: its index, so that opening need not read the rest. FORMAT.md has the picture.

use raft_core::{LogId, LogIndex, Term, TermRun};

use crate::{
    fields::Fields,
    record::{self, Stamp},
    segment::index::{SegmentIndex, Slot},
};

/// The last bytes of the file: where the footer begins and what it must be.
pub(crate) const TRAILER_BYTES: usize = 64;
const FIXED_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"RWALFOOT";
const NONE: u64 = u64::MAX;

/// What a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) number: u64,
    pub(crate) salt: u128,
    pub(crate) body_bytes: u32,
    pub(crate) body_checksum: u32,
    pub(crate) seal_offset: u64,
}

/// Bytes of a footer with the trailer, for so many entries, term runs and configurations.
pub(crate) fn footer_bytes(slots: usize, runs: usize, confs: usize) -> usize {
    FIXED_BYTES + runs * 16 + confs * 16 + slots * 8 + TRAILER_BYTES
}

/// Body and trailer of a sealed segment; they are the file's last bytes.
pub(crate) fn encode(
    index: &SegmentIndex,
    number: u64,
    salt: u128,
    seal_offset: u64,
    file_bytes: u64,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(footer_bytes(index.slots.len(), index.runs.len(), index.confs.len()));
    let count = |count: usize| (count as u64).to_le_bytes();
    body.extend_from_slice(&index.first.0.to_le_bytes());
    body.extend_from_slice(&count(index.slots.len()));
    body.extend_from_slice(&index.prior_cut.map_or(NONE, |cut| cut.0).to_le_bytes());
    let reset = index.reset.unwrap_or(LogId { term: Term(NONE), index: LogIndex(NONE) });
    body.extend_from_slice(&reset.term.0.to_le_bytes());
    body.extend_from_slice(&reset.index.0.to_le_bytes());
    body.extend_from_slice(&index.mark_offset.to_le_bytes());
    body.extend_from_slice(&count(index.runs.len()));
    body.extend_from_slice(&count(index.confs.len()));
    for run in &index.runs {
        body.extend_from_slice(&run.first.0.to_le_bytes());
        body.extend_from_slice(&run.term.0.to_le_bytes());
    }
    for id in &index.confs {
        body.extend_from_slice(&id.term.0.to_le_bytes());
        body.extend_from_slice(&id.index.0.to_le_bytes());
    }
    for slot in &index.slots {
        body.extend_from_slice(&slot.offset.to_le_bytes());
        body.extend_from_slice(&slot.bytes.to_le_bytes());
    }
    let body_bytes = u32::try_from(body.len()).expect("a footer is smaller than its segment");
    let body_checksum = crc32fast::hash(&body);
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&MAGIC);
    trailer[12..16].copy_from_slice(&body_bytes.to_le_bytes());
    trailer[16..24].copy_from_slice(&number.to_le_bytes());
    trailer[24..40].copy_from_slice(&salt.to_le_bytes());
    trailer[40..48].copy_from_slice(&seal_offset.to_le_bytes());
    trailer[48..52].copy_from_slice(&body_checksum.to_le_bytes());
    let at = file_bytes - TRAILER_BYTES as u64;
    let checksum = Stamp::new(number, salt).checksum(at, &trailer, 8);
    trailer[8..12].copy_from_slice(&checksum.to_le_bytes());
    body.extend_from_slice(&trailer);
    body
}

impl Trailer {
    /// Reads the file's last bytes; `None` if they are no trailer.
    pub(crate) fn decode(bytes: &[u8], file_bytes: u64) -> Option<Trailer> {
        let mut fields = Fields::new(bytes);
        if bytes.len() != TRAILER_BYTES || fields.array() != Some(MAGIC) {
            return None;
        }
        let checksum = fields.u32()?;
        let body_bytes = fields.u32()?;
        let number = fields.u64()?;
        let salt = fields.u128()?;
        let trailer =
            Trailer { number, salt, body_bytes, seal_offset: fields.u64()?, body_checksum: fields.u32()? };
        let at = file_bytes.checked_sub(TRAILER_BYTES as u64)?;
        let fits = Stamp::new(number, salt).checksum(at, bytes, 8) == checksum
            && u64::from(body_bytes) <= at
            && trailer.seal_offset < at;
        fits.then_some(trailer)
    }

    /// Reads the body that this trailer announces; `None` if it is not that.
    pub(crate) fn decode_body(&self, body: &[u8]) -> Option<SegmentIndex> {
        if crc32fast::hash(body) != self.body_checksum {
            return None;
        }
        let mut fields = Fields::new(body);
        let first = record::index(&mut fields)?;
        let slots = usize::try_from(fields.u64()?).ok()?;
        let prior_cut = Some(fields.u64()?).filter(|cut| *cut != NONE).map(LogIndex);
        let reset = LogId { term: Term(fields.u64()?), index: LogIndex(fields.u64()?) };
        let mark_offset = fields.u64()?;
        let runs = usize::try_from(fields.u64()?).ok()?;
        let confs = usize::try_from(fields.u64()?).ok()?;
        // No count is believed beyond the bytes that are there, so nothing large is allocated.
        let rest = fields.rest().len();
        if [slots, runs, confs].iter().any(|count| *count > rest)
            || slots * 8 + runs * 16 + confs * 16 != rest
        {
            return None;
        }
        let mut index = SegmentIndex::new(first.prev());
        index.first = first;
        index.prior_cut = prior_cut;
        index.reset = Some(reset).filter(|id| id.index.0 != NONE);
        if index.reset.is_some_and(|reset| reset.index.0 > record::COUNT_MAX) {
            return None;
        }
        index.mark_offset = mark_offset;
        for _ in 0..runs {
            index.runs.push(TermRun { first: LogIndex(fields.u64()?), term: Term(fields.u64()?) });
        }
        for _ in 0..confs {
            index.confs.push(LogId { term: Term(fields.u64()?), index: LogIndex(fields.u64()?) });
        }
        index.slots = Vec::with_capacity(slots);
        for _ in 0..slots {
            index.slots.push(Slot { offset: fields.u32()?, bytes: fields.u32()? });
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SegmentIndex {
        SegmentIndex {
            first: LogIndex(6),
            slots: vec![Slot { offset: 4096, bytes: 100 }, Slot { offset: 4200, bytes: 56 }],
            runs: vec![TermRun { first: LogIndex(6), term: Term(2) }],
            confs: vec![LogId::new(2, 7)],
            prior_cut: Some(LogIndex(5)),
            reset: None,
            mark_offset: 0,
        }
    }

    #[test]
    fn a_footer_survives_encoding() {
        let bytes = encode(&index(), 3, 99, 5000, 65536);
        assert_eq!(bytes.len(), footer_bytes(2, 1, 1));
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        let trailer = Trailer::decode(trailer, 65536).unwrap();
        assert_eq!((trailer.number, trailer.salt, trailer.seal_offset), (3, 99, 5000));
        assert_eq!(trailer.decode_body(body), Some(index()));
    }

    #[test]
    fn no_flipped_bit_passes() {
        let bytes = encode(&index(), 3, 99, 5000, 65536);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
            let trailer = Trailer::decode(trailer, 65536);
            // The trailer's last 12 bytes are spare; they are covered all the same.
            assert!(trailer.and_then(|trailer| trailer.decode_body(body)).is_none(), "bit {bit}");
        }
    }

    /// A trailer for this body, whatever it says.
    fn body(change: impl FnOnce(&mut Vec<u8>)) -> Option<SegmentIndex> {
        let bytes = encode(&index(), 3, 99, 5000, 65536);
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        let mut body = body.to_vec();
        change(&mut body);
        let trailer = Trailer::decode(trailer, 65536).unwrap();
        Trailer { body_checksum: crc32fast::hash(&body), ..trailer }.decode_body(&body)
    }

    #[test]
    fn a_body_whose_checksum_fits_is_not_believed_beyond_its_bytes() {
        assert_eq!(body(|_| ()), Some(index()));
        assert_eq!(body(|body| body.extend([0; 8])), None);
        assert_eq!(body(|body| body.truncate(body.len() - 8)), None);
        let reset = |index: u64| body(|body| body[32..40].copy_from_slice(&index.to_le_bytes()));
        assert!(reset(record::COUNT_MAX).is_some());
        assert_eq!(reset(record::COUNT_MAX + 1), None);
        assert_eq!(reset(NONE - 1), None);
    }

    #[test]
    fn a_seal_stands_before_the_trailer() {
        let at = |seal_offset| {
            let bytes = encode(&index(), 3, 99, seal_offset, 65536);
            Trailer::decode(&bytes[bytes.len() - TRAILER_BYTES..], 65536).is_some()
        };
        let trailer_at = 65536 - TRAILER_BYTES as u64;
        assert!(at(trailer_at - 1) && !at(trailer_at));
    }
}
