//! The memory of records: what one page is.

use std::ops::Deref;

use memmap2::MmapMut;

/// Bytes that are filled from front to back.
#[derive(Debug)]
pub(super) struct Page {
    memory: Memory,
    filled: usize,
}

/// Both are zero where nothing was written.
#[derive(Debug)]
enum Memory {
    /// Fresh from the system: what is not filled yet takes no memory. A block that the allocator kept from somebody else
    /// would take all of it at once, in each bank.
    Mapped(MmapMut),
    Allocated(Vec<u8>),
}

impl Page {
    /// A page of this size that records share.
    pub(super) fn shared(bytes: usize) -> Page {
        // There may be as many maps as the system allows; the allocator has its own ways then.
        let map = MmapMut::map_anon(bytes);
        let memory = map.map_or_else(|_| Memory::Allocated(vec![0; bytes]), Memory::Mapped);
        Page { memory, filled: 0 }
    }

    /// A page of just this size, for one long record.
    pub(super) fn own(bytes: usize) -> Page {
        Page { memory: Memory::Allocated(vec![0; bytes]), filled: 0 }
    }

    /// The next `bytes` of it, to be written. There must be room for them.
    pub(super) fn fill(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += bytes;
        &mut self.memory_mut()[start..start + bytes]
    }

    /// Bytes that were filled before, to be written again.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        let filled = self.filled;
        &mut self.memory_mut()[..filled]
    }

    /// How much it holds in all.
    pub(super) fn capacity(&self) -> usize {
        self.memory().len()
    }

    fn memory(&self) -> &[u8] {
        match &self.memory {
            Memory::Mapped(map) => map,
            Memory::Allocated(bytes) => bytes,
        }
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Mapped(map) => map,
            Memory::Allocated(bytes) => bytes,
        }
    }
}

/// What is filled.
impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory()[..self.filled]
    }
}
