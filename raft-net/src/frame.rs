//! The layout of a frame.
//!
//! ```text
//!  0   4  length of all that follows this field, in bytes
//!  4   1  kind
//!  5   1  frame version, 1
//!  6   2  flags, none known
//!  8   4  group
//! 12   4  length of the header
//! 16   4  CRC-32 of the 16 bytes above and the header
//! 20      header (postcard), then the payload: raw bytes, each stretch with a checksum of its own in the header
//! ```
//! Numbers are little-endian. A length is believed only as far as the limit in force, and beyond the header only once
//! the header's checksum has confirmed it.

use raft_core::GroupId;

use crate::FrameError;

/// Bytes before the header.
pub const PRELUDE_BYTES: usize = 20;
/// The longest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 4 << 20;
/// The only frame version.
const FRAME_VERSION: u8 = 1;
/// Every flag this release knows.
const KNOWN_FLAGS: u16 = 0;
/// The part of the prelude the length field does not count.
const LENGTH_BYTES: usize = 4;

/// What a frame holds. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A node introduces itself.
    Hello = 1,
    /// A connection is refused.
    Refusal = 2,
    /// The dialler accepts the other side's hello.
    Ready = 3,
    /// Nothing to say, still here.
    KeepAlive = 4,
    /// A Raft message.
    Message = 5,
    /// A command for the leader.
    Forward = 6,
    /// Its answer.
    ForwardReply = 7,
    /// Between founders.
    Founding = 8,
    /// A snapshot is offered.
    SnapshotOffer = 9,
    /// It is wanted, from an offset on.
    SnapshotAccept = 10,
    /// It is not wanted, or was not kept.
    SnapshotRefuse = 11,
    /// Some of its bytes.
    SnapshotChunk = 12,
    /// All of them were sent.
    SnapshotDone = 13,
    /// All of them are on the receiver's disk.
    SnapshotAck = 14,
    /// The answer to a node that wants to join.
    JoinAnswer = 15,
}

impl FrameKind {
    /// Every kind.
    pub const ALL: [FrameKind; 15] = [
        FrameKind::Hello,
        FrameKind::Refusal,
        FrameKind::Ready,
        FrameKind::KeepAlive,
        FrameKind::Message,
        FrameKind::Forward,
        FrameKind::ForwardReply,
        FrameKind::Founding,
        FrameKind::SnapshotOffer,
        FrameKind::SnapshotAccept,
        FrameKind::SnapshotRefuse,
        FrameKind::SnapshotChunk,
        FrameKind::SnapshotDone,
        FrameKind::SnapshotAck,
        FrameKind::JoinAnswer,
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<FrameKind> {
        FrameKind::ALL.get(usize::from(value).checked_sub(1)?).copied()
    }

    /// Its name in logs and errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FrameKind::Hello => "hello",
            FrameKind::Refusal => "refusal",
            FrameKind::Ready => "ready",
            FrameKind::KeepAlive => "keep-alive",
            FrameKind::Message => "message",
            FrameKind::Forward => "forward",
            FrameKind::ForwardReply => "forward reply",
            FrameKind::Founding => "founding",
            FrameKind::SnapshotOffer => "snapshot offer",
            FrameKind::SnapshotAccept => "snapshot accept",
            FrameKind::SnapshotRefuse => "snapshot refuse",
            FrameKind::SnapshotChunk => "snapshot chunk",
            FrameKind::SnapshotDone => "snapshot done",
            FrameKind::SnapshotAck => "snapshot ack",
            FrameKind::JoinAnswer => "join answer",
        }
    }

    /// Whether it may come before the handshake is done.
    #[must_use]
    pub const fn opens(self) -> bool {
        matches!(self, FrameKind::Hello | FrameKind::Refusal | FrameKind::Ready)
    }
}

/// The fixed part of a frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prelude {
    pub(crate) kind: FrameKind,
    pub(crate) group: GroupId,
    /// Of the header.
    pub(crate) header_length: usize,
    /// Of the whole frame, this prelude included.
    pub(crate) total: usize,
}

impl Prelude {
    /// Reads the start of a frame: `Ok(None)` if more bytes are needed to say anything. `limit` bounds the whole
    /// frame.
    pub(crate) fn parse(bytes: &[u8], limit: usize) -> Result<Option<Prelude>, FrameError> {
        let Some(length) = u32_at(bytes, 0) else { return Ok(None) };
        let total = length.saturating_add(LENGTH_BYTES);
        if total > limit {
            return Err(FrameError::TooLong { length: total, limit });
        }
        if total < PRELUDE_BYTES {
            return Err(FrameError::BadLength { length: total, header: 0 });
        }
        let Some(prelude) = bytes.first_chunk::<PRELUDE_BYTES>() else { return Ok(None) };
        if prelude[5] != FRAME_VERSION {
            return Err(FrameError::UnknownVersion(prelude[5]));
        }
        let unknown = u16::from_le_bytes([prelude[6], prelude[7]]) & !KNOWN_FLAGS;
        if unknown != 0 {
            let bit = u8::try_from(unknown.trailing_zeros()).unwrap_or(u8::MAX);
            return Err(FrameError::UnknownFlag { bit });
        }
        let kind = FrameKind::from_u8(prelude[4]).ok_or(FrameError::UnknownKind(prelude[4]))?;
        let group = u32::from_le_bytes([prelude[8], prelude[9], prelude[10], prelude[11]]);
        if GroupId(group) != GroupId::ROOT {
            return Err(FrameError::UnknownGroup(group));
        }
        let header_length = u32_at(prelude, 12).unwrap_or(usize::MAX);
        if header_length > HEADER_BYTES_MAX || header_length > total - PRELUDE_BYTES {
            return Err(FrameError::BadLength { length: total, header: header_length });
        }
        Ok(Some(Prelude { kind, group: GroupId(group), header_length, total }))
    }

    /// Where the header ends and the payload begins.
    pub(crate) fn header_end(&self) -> usize {
        PRELUDE_BYTES + self.header_length
    }

    /// Checks the header's checksum; `bytes` holds the prelude and the whole header.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<(), FrameError> {
        let stored = u32_at(bytes, 16);
        let header = bytes.get(PRELUDE_BYTES..self.header_end()).ok_or(FrameError::Truncated)?;
        if stored != Some(checksum(&bytes[..16], header) as usize) {
            return Err(FrameError::HeaderChecksum);
        }
        Ok(())
    }

    /// Writes the prelude of a frame over the room left for it at `at`; the header follows it in `out`.
    ///
    /// # Errors
    /// If the frame would not fit into its length fields.
    pub(crate) fn seal(
        kind: FrameKind,
        out: &mut [u8],
        at: usize,
        payload_length: usize,
    ) -> Result<usize, FrameError> {
        let (_, frame) = out.split_at_mut(at);
        let total = frame.len().saturating_add(payload_length);
        let header_length = frame.len() - PRELUDE_BYTES;
        let limit = u32::MAX as usize;
        let length =
            u32::try_from(total - LENGTH_BYTES).map_err(|_| FrameError::TooLong { length: total, limit })?;
        let header = u32::try_from(header_length)
            .ok()
            .filter(|_| header_length <= HEADER_BYTES_MAX)
            .ok_or(FrameError::TooLong { length: header_length, limit: HEADER_BYTES_MAX })?;
        frame[0..4].copy_from_slice(&length.to_le_bytes());
        frame[4] = kind as u8;
        frame[5] = FRAME_VERSION;
        frame[6..8].copy_from_slice(&KNOWN_FLAGS.to_le_bytes());
        frame[8..12].copy_from_slice(&GroupId::ROOT.0.to_le_bytes());
        frame[12..16].copy_from_slice(&header.to_le_bytes());
        let sum = checksum(&frame[..16], &frame[PRELUDE_BYTES..]);
        frame[16..20].copy_from_slice(&sum.to_le_bytes());
        Ok(total)
    }
}

fn checksum(prelude: &[u8], header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prelude);
    hasher.update(header);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_numbers() {
        for kind in FrameKind::ALL {
            assert_eq!(FrameKind::from_u8(kind as u8), Some(kind));
        }
        assert_eq!(FrameKind::from_u8(0), None);
        assert_eq!(FrameKind::from_u8(16), None);
    }

    fn keep_alive() -> Vec<u8> {
        let mut out = vec![0; PRELUDE_BYTES];
        Prelude::seal(FrameKind::KeepAlive, &mut out, 0, 0).unwrap();
        out
    }

    #[test]
    fn unknown_bits_are_named() {
        let mut bytes = keep_alive();
        bytes[7] = 0x10;
        assert!(matches!(Prelude::parse(&bytes, 4096), Err(FrameError::UnknownFlag { bit: 12 })));
        let mut bytes = keep_alive();
        bytes[5] = 2;
        assert!(matches!(Prelude::parse(&bytes, 4096), Err(FrameError::UnknownVersion(2))));
        let mut bytes = keep_alive();
        bytes[8] = 3;
        assert!(matches!(Prelude::parse(&bytes, 4096), Err(FrameError::UnknownGroup(3))));
        let mut bytes = keep_alive();
        bytes[4] = 99;
        assert!(matches!(Prelude::parse(&bytes, 4096), Err(FrameError::UnknownKind(99))));
    }

    #[test]
    fn a_length_bomb_is_refused_at_its_fourth_byte() {
        let bomb = (1_u32 << 30).to_le_bytes();
        assert!(matches!(Prelude::parse(&bomb, 4096), Err(FrameError::TooLong { .. })));
        assert!(matches!(Prelude::parse(&bomb[..3], 4096), Ok(None)));
        assert!(matches!(Prelude::parse(&[0; 4], 4096), Err(FrameError::BadLength { .. })));
    }
}
