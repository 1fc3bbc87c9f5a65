//! Lowers declarative build steps to graphs.
