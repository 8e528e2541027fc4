//! Frames whose lengths and header checksum fit, whatever they hold: after the picture in raft-net/src/frame.rs.

use arbitrary::Arbitrary;

#[derive(Debug, Arbitrary)]
pub enum Piece {
    Frame { kind: u8, header: Vec<u8>, payload: Vec<u8> },
    Raw(Vec<u8>),
}

pub fn stream(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces.iter().take(16) {
        match piece {
            Piece::Frame { kind, header, payload } => {
                let mut prelude = [0; 20];
                let length = (16 + header.len() + payload.len()) as u32;
                prelude[..4].copy_from_slice(&length.to_le_bytes());
                prelude[4..6].copy_from_slice(&[kind % 20, 1]);
                prelude[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
                let checksum = crc32fast::hash(&[&prelude[..16], header].concat());
                prelude[16..].copy_from_slice(&checksum.to_le_bytes());
                out.extend([&prelude[..], header, payload].concat());
            }
            Piece::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }
    out
}
