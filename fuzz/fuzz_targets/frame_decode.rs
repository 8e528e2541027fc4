//! Any stream of bytes from a peer, in any pieces: `cargo fuzz run frame_decode`. What is decoded is encoded to the same
//! frame; no more room is made than the limit allows.
#![no_main]

#[path = "support/frames.rs"]
mod frames;

use arbitrary::Arbitrary;
use bytes::BytesMut;
use frames::Piece;
use libfuzzer_sys::fuzz_target;
use raft_net::FrameCodec;
use tokio_util::codec::{Decoder as _, Encoder as _};

const LIMIT: usize = 64 << 10;

#[derive(Debug, Arbitrary)]
struct Plan {
    opening: bool,
    piece: u8,
    pieces: Vec<Piece>,
}

fuzz_target!(|plan: Plan| {
    let stream = frames::stream(&plan.pieces);
    let new = || if plan.opening { FrameCodec::opening() } else { FrameCodec::established(LIMIT) };
    let whole = decode(new(), &stream, stream.len().max(1));
    let pieces = decode(new(), &stream, usize::from(plan.piece) + 1);
    assert_eq!(whole, pieces, "it matters in which pieces a stream arrives");
});

fn decode(mut codec: FrameCodec, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(packet)) => {
                    let mut encoded = BytesMut::new();
                    FrameCodec::established(2 * LIMIT)
                        .encode(&packet, &mut encoded)
                        .expect("what came in a frame fits one");
                    let again = FrameCodec::established(2 * LIMIT).decode(&mut encoded.clone());
                    let again = again.expect("our own frame").expect("a whole frame");
                    assert_eq!(again, packet, "a frame changes its meaning when it is sent on");
                    out.push(encoded.to_vec());
                }
                Ok(None) => break,
                Err(error) => return (out, Some(error.to_string())),
            }
        }
        assert!(buffer.capacity() <= 2 * LIMIT + 2 * stream.len(), "{} bytes held", buffer.capacity());
    }
    (out, None)
}
