//! Carries file actions out on a tree.
