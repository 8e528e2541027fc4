//! Bytes to packets and back: tokio-util's codec traits over [`frame`](crate::frame) and [`wire`](crate::wire), and
//! the reader that every connection uses.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::{Decoder, Encoder};

use crate::{FrameError, HANDSHAKE_FRAME_BYTES_MAX, Packet, frame::Prelude};

/// Reads and writes frames.
///
/// Invariant: no more room is made in the buffer than the limit in force, and none beyond the header before the
/// header's checksum has confirmed the lengths. A stranger can make us hold 4 KiB, a flipped bit nothing at all.
///
/// After an error the stream is out of step: the connection must be closed.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    limit: usize,
    opening: bool,
    /// The length of the frame at the front of the buffer, once its header was verified.
    verified: Option<Prelude>,
}

impl FrameCodec {
    /// For a connection whose handshake is not done: 4 KiB a frame, and only the frames of a handshake.
    #[must_use]
    pub fn opening() -> FrameCodec {
        FrameCodec { limit: HANDSHAKE_FRAME_BYTES_MAX, opening: true, verified: None }
    }

    /// For a connection whose other side is known: frames of up to `limit` bytes.
    #[must_use]
    pub fn established(limit: usize) -> FrameCodec {
        FrameCodec { limit, opening: false, verified: None }
    }
}

impl Decoder for FrameCodec {
    type Item = Packet;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Packet>, FrameError> {
        let prelude = match self.verified {
            Some(prelude) => prelude,
            None => {
                let Some(prelude) = Prelude::parse(src, self.limit)? else { return Ok(None) };
                if self.opening && !prelude.kind.opens() {
                    return Err(FrameError::BeforeHandshake(prelude.kind.name()));
                }
                if src.len() < prelude.header_end() {
                    src.reserve(prelude.header_end() - src.len());
                    return Ok(None);
                }
                prelude.verify(src)?;
                prelude
            }
        };
        if src.len() < prelude.total {
            self.verified = Some(prelude);
            src.reserve(prelude.total - src.len());
            return Ok(None);
        }
        self.verified = None;
        let end = prelude.header_end();
        let header = crate::frame::PRELUDE_BYTES..end;
        if prelude.total == end {
            let packet = Packet::decode(prelude.kind, &src[header], Bytes::new());
            src.advance(end);
            packet.map(Some)
        } else {
            let frame = src.split_to(prelude.total).freeze();
            Packet::decode(prelude.kind, &frame[header], frame.slice(end..)).map(Some)
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Packet>, FrameError> {
        match self.decode(src)? {
            Some(packet) => Ok(Some(packet)),
            None if src.is_empty() => Ok(None),
            None => Err(FrameError::Truncated),
        }
    }
}

impl Encoder<&Packet> for FrameCodec {
    type Error = FrameError;

    /// Copies the whole frame into `dst`. Connections write payloads from where they lie instead; see
    /// [`Packet::encode_head`].
    fn encode(&mut self, packet: &Packet, dst: &mut BytesMut) -> Result<(), FrameError> {
        let mut head = Vec::new();
        let total = packet.encode_head(&mut head)?;
        if total > self.limit {
            return Err(FrameError::TooLong { length: total, limit: self.limit });
        }
        dst.reserve(total);
        dst.extend_from_slice(&head);
        for payload in packet.payloads() {
            dst.extend_from_slice(payload);
        }
        Ok(())
    }
}

/// A stream read frame by frame.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    io: R,
    codec: FrameCodec,
    buffer: BytesMut,
    /// Room made for each read.
    read_bytes: usize,
    received: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn opening(io: R) -> FrameReader<R> {
        FrameReader {
            io,
            codec: FrameCodec::opening(),
            buffer: BytesMut::new(),
            read_bytes: OPENING_READ_BYTES,
            received: 0,
        }
    }

    /// The handshake is done: larger frames, and reads of `read_bytes` at a time. Bytes already here are kept.
    pub(crate) fn establish(&mut self, limit: usize, read_bytes: usize) {
        self.codec = FrameCodec::established(limit);
        self.read_bytes = read_bytes;
    }

    /// Takes exactly these bytes off the front of the stream.
    pub(crate) async fn expect(&mut self, magic: &[u8]) -> Result<Magic, FrameError> {
        loop {
            let have = self.buffer.len().min(magic.len());
            if self.buffer[..have] != magic[..have] {
                return Ok(Magic::Other(guess(&self.buffer)));
            }
            if have == magic.len() {
                self.buffer.advance(have);
                return Ok(Magic::Ours);
            }
            if self.fill().await? == 0 {
                return Err(FrameError::Truncated);
            }
        }
    }

    /// The next packet; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Packet>, FrameError> {
        loop {
            if let Some(packet) = self.codec.decode(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            if self.fill().await? == 0 {
                return self.codec.decode_eof(&mut self.buffer);
            }
        }
    }

    /// Bytes received since the last call.
    pub(crate) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    async fn fill(&mut self) -> Result<usize, FrameError> {
        // A nearly full buffer is replaced: reads of a few bytes each would cost more than the copy of its rest.
        if self.buffer.capacity() - self.buffer.len() < self.read_bytes / 8 {
            self.buffer.reserve(self.read_bytes);
        }
        let count = self.io.read_buf(&mut self.buffer).await?;
        self.received += count as u64;
        Ok(count)
    }
}

/// What a connection began with.
pub(crate) enum Magic {
    /// Our protocol.
    Ours,
    /// Something else; the text guesses what.
    Other(&'static str),
}

/// Room for a read before the handshake is done.
const OPENING_READ_BYTES: usize = 1 << 10;

fn guess(bytes: &[u8]) -> &'static str {
    const VERBS: [&[u8]; 5] = [b"GET ", b"POST", b"HEAD", b"PUT ", b"HTTP"];
    if bytes.first() == Some(&0x16) {
        " (it looks like TLS)"
    } else if VERBS.iter().any(|verb| bytes.starts_with(verb)) {
        " (it looks like HTTP)"
    } else if bytes.first() == Some(&b'*') || bytes.starts_with(b"PING") {
        " (it looks like a Redis client)"
    } else if bytes.starts_with(b"raftnet") {
        " (it speaks another generation of it)"
    } else {
        ""
    }
}

#[cfg(test)]
pub(crate) mod tests;
