//! The bytes of one file, shared between copies until one of them changes.

use std::sync::Arc;

/// What the simulated disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
const SECTORS_PER_PAGE: u64 = (PAGE_BYTES / SECTOR_BYTES) as u64;

pub(super) type Sector = [u8; SECTOR_BYTES];

/// Pages; a missing one is all zeros. Bytes at or behind `length` exist only between a write and the sync that makes
/// the length durable too, and cannot be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    pub(super) length: u64,
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
            && let Some(Some(page)) = self.pages.get_mut(pages - 1)
            && page[used..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(page)[used..].fill(0);
        }
    }

    fn page(&self, page: u64) -> Option<&[u8; PAGE_BYTES]> {
        self.pages.get(at(page))?.as_deref()
    }

    fn page_mut(&mut self, page: u64) -> &mut [u8; PAGE_BYTES] {
        let page = at(page);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES])))
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
