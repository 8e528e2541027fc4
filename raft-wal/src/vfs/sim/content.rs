//! The bytes of one file, shared between copies until one of them changes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What the simulated disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
const SECTORS_PER_PAGE: u64 = (PAGE_BYTES / SECTOR_BYTES) as u64;

pub(super) type Sector = [u8; SECTOR_BYTES];

/// Pages; a missing one is all zeros. Bytes at or behind `length` exist only between a write and the sync that makes
/// the length durable too, and cannot be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<Page>>>,
    pub(super) length: u64,
}

/// A page, and its hash once somebody asked for it: 0 until then. Copies of a disk differ in few pages, so that telling
/// a million of them apart costs little.
#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    hash: AtomicU64,
}

impl Page {
    const fn zeros() -> Page {
        Page { bytes: [0; PAGE_BYTES], hash: AtomicU64::new(0) }
    }

    /// The same bytes, the same number; never 0.
    fn hash(&self) -> u64 {
        let known = self.hash.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let mut hash = 0;
        for word in self.bytes.chunks_exact(8) {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            hash = super::mix(hash ^ u64::from_le_bytes(eight));
        }
        self.hash.store(hash.max(1), Ordering::Relaxed);
        hash.max(1)
    }
}

/// The copy is about to be changed: it has no hash yet.
impl Clone for Page {
    fn clone(&self) -> Page {
        Page { bytes: self.bytes, hash: AtomicU64::new(0) }
    }
}

impl Content {
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        for_each_piece(offset, count, PAGE_BYTES, |page, within, range| match self.page(page) {
            Some(bytes) => buffer[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
            None => buffer[range].fill(0),
        });
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for_each_piece(offset, bytes.len(), PAGE_BYTES, |page, within, range| {
            let piece = &bytes[range];
            if self.page(page).is_some() || piece.iter().any(|byte| *byte != 0) {
                self.page_mut(page)[within..within + piece.len()].copy_from_slice(piece);
            }
        });
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    pub(super) fn sector(&self, sector: u64) -> Sector {
        let mut out = [0; SECTOR_BYTES];
        if let Some(page) = self.page(sector / SECTORS_PER_PAGE) {
            let within = at(sector % SECTORS_PER_PAGE) * SECTOR_BYTES;
            out.copy_from_slice(&page[within..within + SECTOR_BYTES]);
        }
        out
    }

    /// Changes no length.
    pub(super) fn put_sector(&mut self, sector: u64, bytes: &Sector) {
        let length = self.length;
        self.write(bytes, sector * SECTOR_BYTES as u64);
        self.length = length;
    }

    /// Forgets what lies behind the length, so that growing the file again shows zeros.
    pub(super) fn trim(&mut self) {
        let pages = at(self.length.div_ceil(PAGE_BYTES as u64));
        self.pages.truncate(pages);
        let used = at(self.length % PAGE_BYTES as u64);
        if used > 0
            && let Some(Some(page)) = self.pages.get(pages - 1)
            && page.bytes[used..].iter().any(|byte| *byte != 0)
        {
            self.page_mut(pages as u64 - 1)[used..].fill(0);
        }
    }

    /// Tells contents apart: the same bytes and length, the same number.
    pub(super) fn fingerprint(&self) -> u64 {
        static ZEROS: Page = Page::zeros();
        let zeros = ZEROS.hash();
        let pages = self.pages.iter().zip(0_u64..).filter_map(|(page, at)| {
            // A page of zeros and a missing one read the same.
            let hash = page.as_deref()?.hash();
            (hash != zeros).then(|| super::mix(super::mix(at) ^ hash))
        });
        pages.fold(super::mix(self.length), |all, page| all ^ page)
    }

    fn page(&self, page: u64) -> Option<&[u8; PAGE_BYTES]> {
        self.pages.get(at(page))?.as_deref().map(|page| &page.bytes)
    }

    fn page_mut(&mut self, page: u64) -> &mut [u8; PAGE_BYTES] {
        let page = at(page);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        let page = Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new(Page::zeros())));
        *page.hash.get_mut() = 0;
        &mut page.bytes
    }
}

/// The sectors that `count` bytes at `offset` touch.
pub(super) fn sectors(offset: u64, count: usize) -> std::ops::Range<u64> {
    let size = SECTOR_BYTES as u64;
    if count == 0 { 0..0 } else { offset / size..(offset + count as u64).div_ceil(size) }
}

fn for_each_piece(
    offset: u64,
    count: usize,
    size: usize,
    mut visit: impl FnMut(u64, usize, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < count {
        let place = offset + done as u64;
        let within = at(place % size as u64);
        let length = (size - within).min(count - done);
        visit(place / size as u64, within, done..done + length);
        done += length;
    }
}

fn at(value: u64) -> usize {
    usize::try_from(value).expect("simulated files fit in memory")
}
