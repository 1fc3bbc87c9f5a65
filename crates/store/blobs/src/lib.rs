//! Content-addressed blobs in the data directory.
