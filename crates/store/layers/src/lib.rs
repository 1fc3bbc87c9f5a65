//! Layer archives: deterministic tars of overlay upper directories, and their safe unpacking.
