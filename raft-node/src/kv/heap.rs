//! Memory for records: pages that are filled from front to back.
//!
//! An allocation per record costs a header, reference counts and rounding each: a fifth of a value of 256 bytes. In a
//! page a record costs its bytes alone. What is removed or written anew leaves a hole; the page with the largest holes
//! is cleared by moving what is left in it, as a log-structured file system does, so that holes stay below an eighth of
//! all pages. A long record has a page of its own and leaves no hole.

use std::sync::Arc;

use super::{
    page::Page,
    record::{Draft, Record},
};

/// The records of one bank.
///
/// - A page that a clone of the heap shares is not changed; one that is still being filled is copied first.
/// - Invariant: `live` of a page is the room of its records that were not discarded; `dead` is the rest of what was
///   written to all pages, `allocated` what all pages take.
#[derive(Clone, Debug, Default)]
pub(super) struct Heap {
    pages: Vec<Option<Slot>>,
    /// Positions in `pages` that hold none.
    vacant: Vec<usize>,
    /// The page that is being filled.
    open: Option<usize>,
    dead: usize,
    allocated: usize,
}

#[derive(Clone, Debug)]
struct Slot {
    page: Arc<Page>,
    live: usize,
}

/// Where a record lies: the page's position and the offset in it, in steps of [`STEP_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Heap {
    /// The record at a place that [`Heap::write`] named and that was not discarded since.
    pub(super) fn record(&self, place: Place) -> Record<'_> {
        Record::at(&self.slot(place.page()).page, place.start())
    }

    /// Writes a record.
    pub(super) fn write(&mut self, draft: &Draft<'_>) -> Place {
        self.append(draft.size(), |mut to| draft.write(&mut to))
    }

    /// Writes a record over another one, if it has the same size and nobody shares the page. Returns whether it did.
    pub(super) fn overwrite(&mut self, place: Place, draft: &Draft<'_>) -> bool {
        let (start, size) = (place.start(), draft.size());
        if self.record(place).bytes().len() != size {
            return false;
        }
        let slot = self.slot_mut(place.page());
        let Some(page) = Arc::get_mut(&mut slot.page) else { return false };
        draft.write(&mut &mut page.filled_mut()[start..start + size]);
        true
    }

    /// Gives up a record.
    pub(super) fn discard(&mut self, place: Place) {
        let number = place.page();
        let room = room(self.record(place).bytes().len());
        self.slot_mut(number).live -= room;
        self.dead += room;
        self.drop_if_empty(number);
    }

    /// Moves a record to the end. `page` is the one it lies in.
    pub(super) fn relocate(&mut self, place: Place, record: Record<'_>) -> Place {
        let bytes = record.bytes();
        // The copy comes first: the old page's position is not given away while it is being cleared.
        let moved = self.append(bytes.len(), |to| to.copy_from_slice(bytes));
        self.discard(place);
        moved
    }

    /// A page to clear now, if holes take too much.
    pub(super) fn victim(&self) -> Option<Victim> {
        if self.dead * HOLES_DIVISOR <= self.allocated {
            return None;
        }
        let holes = |slot: &Slot| slot.page.len() - slot.live;
        let slots = self.pages.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        let closed = slots.filter(|(number, _)| self.open != Some(*number));
        let (number, slot) = closed.max_by_key(|(_, slot)| holes(slot))?;
        // While they are in the open page, or in crumbs everywhere, copying would gain next to nothing.
        (holes(slot) >= HOLES_CLEARED_MIN).then(|| Victim { number, page: Arc::clone(&slot.page) })
    }

    /// The memory of all pages, but for what is not filled yet.
    pub(super) fn used_bytes(&self) -> usize {
        let free = self.open.map_or(0, |open| PAGE_BYTES - self.slot(open).page.len());
        self.allocated - free
    }

    fn append(&mut self, size: usize, write: impl FnOnce(&mut [u8])) -> Place {
        if size >= LONG_BYTES_MIN {
            let mut page = Page::own(size);
            write(page.fill(size));
            let number = self.add(Slot { page: Arc::new(page), live: size });
            return Place::new(number, 0);
        }
        let number = self.page_with(room(size));
        let slot = self.slot_mut(number);
        let page = unshared(&mut slot.page);
        let start = page.len();
        write(&mut page.fill(room(size))[..size]);
        slot.live += room(size);
        Place::new(number, start)
    }

    /// The page that is being filled, another one if there is no such room in it.
    fn page_with(&mut self, room: usize) -> usize {
        if let Some(open) = self.open {
            if self.slot(open).page.len() + room <= PAGE_BYTES {
                return open;
            }
            self.open = None;
            self.drop_if_empty(open);
        }
        let number = self.add(Slot { page: Arc::new(Page::shared(PAGE_BYTES)), live: 0 });
        self.open = Some(number);
        number
    }

    fn add(&mut self, slot: Slot) -> usize {
        self.allocated += slot.page.capacity();
        if let Some(number) = self.vacant.pop() {
            self.pages[number] = Some(slot);
            number
        } else {
            self.pages.push(Some(slot));
            self.pages.len() - 1
        }
    }

    fn drop_if_empty(&mut self, number: usize) {
        if self.open == Some(number) || self.slot(number).live > 0 {
            return;
        }
        if let Some(Slot { page, .. }) = self.pages[number].take() {
            self.dead -= page.len();
            self.allocated -= page.capacity();
            self.vacant.push(number);
        }
    }

    fn slot(&self, number: usize) -> &Slot {
        self.pages[number].as_ref().expect("a page stays while a record in it is in use")
    }

    fn slot_mut(&mut self, number: usize) -> &mut Slot {
        self.pages[number].as_mut().expect("a page stays while a record in it is in use")
    }
}

/// A page whose records are to be moved elsewhere.
pub(super) struct Victim {
    number: usize,
    page: Arc<Page>,
}

impl Victim {
    /// Its records in order, discarded ones among them.
    pub(super) fn records(&self) -> impl Iterator<Item = (Place, Record<'_>)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            (start < self.page.len()).then(|| {
                let record = Record::at(&self.page, start);
                let place = Place::new(self.number, start);
                start += room(record.bytes().len());
                (place, record)
            })
        })
    }
}

impl Place {
    fn new(page: usize, start: usize) -> Place {
        let place = page * STEPS_PER_PAGE + start / STEP_BYTES;
        Place(u32::try_from(place).expect("a bank has room for 8 GiB of short records, or 65,536 long ones"))
    }

    fn page(self) -> usize {
        self.0 as usize / STEPS_PER_PAGE
    }

    fn start(self) -> usize {
        self.0 as usize % STEPS_PER_PAGE * STEP_BYTES
    }
}

/// The bytes of a page that may be changed, copied if a clone of the heap has them too.
fn unshared(page: &mut Arc<Page>) -> &mut Page {
    if Arc::get_mut(page).is_none() {
        let mut copy = Page::shared(PAGE_BYTES);
        copy.fill(page.len()).copy_from_slice(page);
        *page = Arc::new(copy);
    }
    Arc::get_mut(page).expect("nobody else has a copy made here")
}

/// What a record of this size takes in a page.
pub(super) const fn room(size: usize) -> usize {
    if size >= LONG_BYTES_MIN { size } else { size.next_multiple_of(STEP_BYTES) }
}

/// The size of a page that many records share.
pub(super) const PAGE_BYTES: usize = 128 * 1024;

/// Records begin at multiples of this, so that a [`Place`] has room for a large store.
const STEP_BYTES: usize = 2;
const STEPS_PER_PAGE: usize = PAGE_BYTES / STEP_BYTES;

/// A record of this size has a page of its own.
const LONG_BYTES_MIN: usize = PAGE_BYTES / 8;
const _: () =
    assert!(LONG_BYTES_MIN <= super::record::SHARED_VALUE_BYTES_MIN, "a shared value shares no page");

/// Holes may take this part of all pages.
const HOLES_DIVISOR: usize = 8;

/// A page with smaller holes is not worth clearing.
const HOLES_CLEARED_MIN: usize = PAGE_BYTES / 16;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::LogIndex;

    use super::*;
    use crate::kv::record::Meta;

    fn write(heap: &mut Heap, key: &[u8], value: &[u8]) -> Place {
        heap.write(&draft(key, &[value]))
    }

    fn draft<'a>(key: &'a [u8], value: &'a [&'a [u8]]) -> Draft<'a> {
        Draft { key, meta: Meta { modified: LogIndex(5), deadline: None }, value }
    }

    /// The sums, counted anew.
    fn check(heap: &Heap) {
        let slots = || heap.pages.iter().flatten();
        assert_eq!(heap.dead, slots().map(|slot| slot.page.len() - slot.live).sum::<usize>());
        assert_eq!(heap.allocated, slots().map(|slot| slot.page.capacity()).sum::<usize>());
        assert_eq!(heap.vacant.len(), heap.pages.iter().filter(|slot| slot.is_none()).count());
    }

    #[test]
    fn short_records_share_pages_and_long_ones_do_not() {
        let mut heap = Heap::default();
        let sizes = [0, 1, 200, 4000, LONG_BYTES_MIN, 100_000];
        let places: Vec<Place> =
            (0..100).flat_map(|_| sizes).map(|size| write(&mut heap, b"key", &vec![7; size])).collect();
        for (place, size) in places.iter().zip((0..100).flat_map(|_| sizes)) {
            assert_eq!(heap.record(*place).view().value, vec![7; size]);
            assert_eq!(heap.record(*place).value_bytes(), vec![7; size]);
        }
        check(&heap);
        for place in places {
            heap.discard(place);
            check(&heap);
        }
        assert_eq!(heap.allocated, PAGE_BYTES, "the open page alone is left");
    }

    #[test]
    fn a_record_is_overwritten_only_when_nobody_shares_it() {
        let mut heap = Heap::default();
        let place = write(&mut heap, b"k", b"old");
        assert!(heap.overwrite(place, &draft(b"k", &[b"n", b"ew"])));
        assert_eq!(heap.record(place).view().value, b"new");
        assert!(!heap.overwrite(place, &draft(b"k", &[b"longer"])));
        let view = heap.clone();
        assert!(!heap.overwrite(place, &draft(b"k", &[b"abc"])));
        // What is being filled is copied, then it is nobody else's.
        let other = write(&mut heap, b"l", b"1");
        assert!(heap.overwrite(place, &draft(b"k", &[b"abc"])));
        assert_eq!((view.record(place).view().value, heap.record(other).key()), (&b"new"[..], &b"l"[..]));
        let long = write(&mut heap, b"long", &[1; 20_000]);
        let value: Bytes = heap.record(long).value_bytes();
        assert!(!heap.overwrite(long, &draft(b"long", &[&[2; 20_000]])));
        assert_eq!(value, vec![1; 20_000]);
        check(&heap);
    }

    #[test]
    fn clearing_pages_keeps_holes_below_an_eighth() {
        let mut heap = Heap::default();
        let mut live: Vec<Place> =
            (0..8000_u32).map(|key| write(&mut heap, &key.to_le_bytes(), &[9; 250])).collect();
        for key in 0..60_000_u32 {
            let at = key as usize * 7919 % live.len();
            heap.discard(live[at]);
            live[at] = write(&mut heap, &key.to_le_bytes(), &vec![9; 200 + key as usize % 100]);
            if let Some(victim) = heap.victim() {
                for (place, record) in victim.records() {
                    if let Some(owner) = live.iter_mut().find(|owner| **owner == place) {
                        *owner = heap.relocate(place, record);
                    }
                }
            }
            assert!(
                heap.dead <= heap.allocated / HOLES_DIVISOR + 2 * PAGE_BYTES,
                "{} of {}",
                heap.dead,
                heap.allocated
            );
        }
        check(&heap);
        let used: usize = live.iter().map(|place| heap.record(*place).bytes().len()).sum();
        assert!(heap.used_bytes() < used * 8 / 7 + 2 * PAGE_BYTES, "{} for {used}", heap.used_bytes());
    }
}
