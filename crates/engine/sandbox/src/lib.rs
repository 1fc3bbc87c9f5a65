//! Runs one step in namespaces, cgroups and a seccomp profile of its own.
