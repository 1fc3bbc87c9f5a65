//! What a sandboxed process may do: the tables that a reviewer reads first.

pub(crate) mod caps;
pub(crate) mod paths;
pub(crate) mod seccomp;
pub(crate) mod seccomp_table;
