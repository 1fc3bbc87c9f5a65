//! The native executor: cache, context, file operations and exec steps.
