//! Settings of the C library's allocator, which serves the binary.
//!
//! Left alone it makes an arena for each thread, of which each keeps what the thread gave back, and it raises its
//! thresholds with the largest block it has seen, after which large blocks stay in its heap. A node at rest then holds a
//! fifth more than it uses.

/// Settles it, before there is a second thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn settle(cores: usize) {
    // Threads that allocate at the same time: about half of the cores.
    let arenas = i32::try_from(cores / 2).unwrap_or(i32::MAX).max(1);
    for (setting, value) in [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        (libc::M_TRIM_THRESHOLD, FREE_BYTES_KEPT),
    ] {
        // A setting it refuses stays as it is: no harm.
        #[allow(unsafe_code, reason = "the C library has no safe way to say this")]
        // SAFETY: takes two numbers, and nobody else uses the allocator meanwhile: there is one thread.
        unsafe {
            libc::mallopt(setting, value);
        }
    }
}

/// Other allocators have no such habits.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn settle(_cores: usize) {}

/// Gives free pages back to the system, also those that lie between blocks in use: it keeps them otherwise, and after a
/// burst of writes a leader is left with several megabytes of them. Takes about a millisecond.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() {
    #[allow(unsafe_code, reason = "the C library has no safe way to say this")]
    // SAFETY: takes a number, may be called at any time by any thread, and leaves blocks in use alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators see to it themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

/// Blocks from this size on are mapped alone and go back to the system when they are freed: long values, buffers of
/// bursts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: i32 = 96 << 10;

/// Free memory at the end of the heap that is kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_BYTES_KEPT: i32 = 128 << 10;
