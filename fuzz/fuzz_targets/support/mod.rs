//! Makes changed bytes fit their checksums again, so that the fuzzer gets past them: after raft-wal/FORMAT.md.

const HEADER_BYTES: usize = 4096;
const COPY_BYTES: usize = 232;
const COPIES: [usize; 2] = [0, 2048];
const STATE_IN_HEADER: usize = 104;

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Both copies of a segment's header.
pub fn refit_header(bytes: &mut [u8]) {
    for at in COPIES {
        let Some(copy) = bytes.get(at..at + COPY_BYTES) else { return };
        let checksum = crc32fast::hash(&[&copy[..12], &copy[16..]].concat());
        put(bytes, at + 12, &checksum.to_le_bytes());
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn bound(number: u64, salt: &[u8], offset: usize, bytes: &[u8]) -> u32 {
    let seed = crc32fast::hash(&[&number.to_le_bytes(), salt].concat());
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(&bytes[..8]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[12..]);
    hasher.finalize()
}

/// A whole segment, whose chain begins with `chain` (`None`: as its header says). Returns where the chain ends.
#[allow(dead_code, reason = "not every target has segments")]
pub fn refit_segment(bytes: &mut [u8], chain: Option<u64>) -> Option<u64> {
    let number = u64_at(bytes, 48)?;
    let salt: [u8; 16] = bytes.get(56..72)?.try_into().ok()?;
    let mut chain = match chain {
        Some(chain) => {
            COPIES.iter().for_each(|at| put(bytes, at + STATE_IN_HEADER + 8, &chain.to_le_bytes()));
            chain
        }
        None => u64_at(bytes, STATE_IN_HEADER + 8)?,
    };
    refit_header(bytes);
    let (low, high) = (u64_at(&salt, 0)?, u64_at(&salt, 8)?);
    let tag = mix(low ^ mix(high ^ number)) | 1;
    let mut at = HEADER_BYTES;
    while u64_at(bytes, at) == Some(tag) {
        let payload_bytes = usize::try_from(u64_at(bytes, at + 8)? >> 32).ok()?;
        let header_bytes = usize::from(*bytes.get(at + 17)?) * 8;
        let end = at + header_bytes + payload_bytes;
        if header_bytes < 32 || end > bytes.len() {
            break;
        }
        match bytes[at + 16] {
            5 if header_bytes >= 56 => put(bytes, at + 48, &chain.to_le_bytes()),
            6 if header_bytes >= 72 => put(bytes, at + 64, &chain.to_le_bytes()),
            _ => {}
        }
        let payload = crc32fast::hash(&bytes[at + header_bytes..end]);
        put(bytes, at + 20, &payload.to_le_bytes());
        let checksum = bound(number, &salt, at, &bytes[at..at + header_bytes]);
        put(bytes, at + 8, &checksum.to_le_bytes());
        chain = (chain.rotate_left(23) ^ u64::from(checksum)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        at = end.next_multiple_of(8);
    }
    let trailer = bytes.len().checked_sub(64)?;
    if bytes[trailer..].starts_with(b"RWALFOOT") {
        let body = (u64_at(bytes, trailer + 8)? >> 32) as usize;
        if let Some(body) = trailer.checked_sub(body).map(|from| crc32fast::hash(&bytes[from..trailer])) {
            put(bytes, trailer + 48, &body.to_le_bytes());
        }
        let checksum = bound(number, &salt, trailer, &bytes[trailer..]);
        put(bytes, trailer + 8, &checksum.to_le_bytes());
    }
    Some(chain)
}

/// A snapshot file.
#[allow(dead_code, reason = "not every target has snapshots")]
pub fn refit_snapshot(bytes: &mut [u8]) {
    let Some(header) = u64_at(bytes, 8).map(|word| (word >> 32) as usize) else { return };
    if header < 4 || header > bytes.len() {
        return;
    }
    let of_header = crc32fast::hash(&bytes[..header - 4]);
    put(bytes, header - 4, &of_header.to_le_bytes());
    let mut at = header;
    while let Some(word) = u64_at(bytes, at) {
        let length = word as u32 as usize;
        let Some(payload) = bytes.get(at + 8..at + 8 + length) else { break };
        let of_chunk = crc32fast::hash(
            &[
                &of_header.to_le_bytes()[..],
                &(at as u64).to_le_bytes(),
                &(length as u32).to_le_bytes(),
                payload,
            ]
            .concat(),
        );
        put(bytes, at + 4, &of_chunk.to_le_bytes());
        at += 8 + length;
    }
    let Some(trailer) = bytes.len().checked_sub(32) else { return };
    let of_file = crc32fast::hash(&bytes[..trailer]);
    put(bytes, trailer + 4, &of_file.to_le_bytes());
    put(bytes, trailer + 24, &of_header.to_le_bytes());
    let own = crc32fast::hash(&bytes[trailer..trailer + 28]);
    put(bytes, trailer + 28, &own.to_le_bytes());
}
