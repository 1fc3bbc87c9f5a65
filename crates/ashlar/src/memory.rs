//! How the allocator keeps memory.

/// Heaps that all threads share. The C library would make one for each of many threads, and every
/// heap keeps what was freed in it: a third of the peak of a build with 50,000 files was that. Two
/// cost no measurable time, since the engine's threads wait for files far more than for memory.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: i32 = 2;

/// Limits the number of heaps; to be called before threads are started.
pub(crate) fn limit_heaps() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator has no other switch than this call")]
    // SAFETY: sets one number of the allocator; no other thread runs yet.
    unsafe {
        // A refusal leaves things as they were.
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
}
