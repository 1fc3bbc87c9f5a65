//! Layer directories on disk and the overlay mounts made of them.
