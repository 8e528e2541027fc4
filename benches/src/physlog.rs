//! `physlog`: the least a durable log can do. A zero-filled file, and for each batch a checksum over every payload, one
//! pwrite and one fdatasync. It cannot recover, rotate or find an entry again: it is what the disk allows.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::{Bytes, BytesMut};

/// The baseline.
#[derive(Debug)]
pub struct Physlog {
    file: File,
    bytes: u64,
    offset: u64,
    buffer: Vec<u8>,
}

/// Checksum and length in front of each payload.
const HEADER_BYTES: usize = 12;
/// Zeroes written at once. What the kernel keeps together for them it looks through at each later write: pieces of 1 MiB make
/// small appends slower by a fourteenth (`wal_direct`).
const ZEROES_BYTES: usize = 256 << 10;
/// Scans read this much at once.
const PIECE_BYTES: usize = 1 << 20;

impl Physlog {
    /// Makes the file `path` of `bytes` zeroes.
    #[must_use]
    pub fn create(path: &Path, bytes: u64) -> Physlog {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .expect("the directory takes a file");
        let zeros = vec![0; ZEROES_BYTES];
        for at in (0..bytes).step_by(ZEROES_BYTES) {
            file.write_all_at(&zeros, at).expect("there is room");
        }
        file.sync_all().expect("the disk works");
        Physlog { file, bytes, offset: 0, buffer: Vec::new() }
    }

    /// One durable batch. At the end of the file it begins at its start again.
    pub fn append(&mut self, payloads: &[Bytes]) {
        self.buffer.clear();
        for payload in payloads {
            self.buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
            self.buffer.extend_from_slice(&(payload.len() as u64).to_le_bytes());
            self.buffer.extend_from_slice(payload);
        }
        if self.offset + self.buffer.len() as u64 > self.bytes {
            self.offset = 0;
        }
        self.file.write_all_at(&self.buffer, self.offset).expect("the disk works");
        self.file.sync_data().expect("the disk works");
        self.offset += self.buffer.len() as u64;
    }

    /// Reads what was appended from front to back, checks every payload and hands it out; returns how many there were.
    pub fn scan(&self, mut each: impl FnMut(Bytes)) -> u64 {
        let (mut at, mut count) = (0, 0);
        while at < self.offset {
            let length = PIECE_BYTES.min(usize::try_from(self.offset - at).expect("a 64-bit machine"));
            let mut piece = BytesMut::zeroed(length);
            self.file.read_exact_at(&mut piece, at).expect("the disk works");
            let piece = piece.freeze();
            let mut position = 0;
            while let Some(header) = piece.get(position..position + HEADER_BYTES) {
                let (checksum, rest) = header.split_at(4);
                let bytes = u64::from_le_bytes(rest.try_into().expect("eight bytes"));
                let start = position + HEADER_BYTES;
                let end = start + usize::try_from(bytes).expect("a 64-bit machine");
                if end > length {
                    break;
                }
                let payload = piece.slice(start..end);
                assert_eq!(crc32fast::hash(&payload).to_le_bytes(), checksum, "the disk works");
                each(payload);
                count += 1;
                position = end;
            }
            at += position as u64;
        }
        count
    }

    /// One plain pread of a payload of `bytes`, all payloads being of that size.
    #[must_use]
    pub fn pread(&self, number: u64, bytes: usize) -> Vec<u8> {
        let mut payload = vec![0; bytes];
        let at = number * (HEADER_BYTES + bytes) as u64 + HEADER_BYTES as u64;
        self.file.read_exact_at(&mut payload, at).expect("the disk works");
        payload
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}
