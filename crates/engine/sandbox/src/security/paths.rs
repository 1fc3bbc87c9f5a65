//! Kernel files that a sandbox hides or shows read only, as Docker does.

use std::ffi::CStr;

/// Files below `/proc` replaced by `/dev/null`.
pub(crate) const PROC_MASKED_FILES: [&CStr; 7] = [
    c"interrupts",
    c"kcore",
    c"keys",
    c"latency_stats",
    c"sched_debug",
    c"timer_list",
    c"timer_stats",
];

/// Directories below `/proc` replaced by an empty one.
pub(crate) const PROC_MASKED_DIRS: [&CStr; 3] = [c"acpi", c"asound", c"scsi"];

/// Places below `/proc` that can't be written; the rest of `/proc` is about the step's own processes.
pub(crate) const PROC_READONLY: [&CStr; 5] = [c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];

/// Directories below `/sys` replaced by an empty one; all of `/sys` is read only.
pub(crate) const SYS_MASKED_DIRS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Devices of `/dev`: nothing else can be opened, whatever node a step makes, because all other mounts are `nodev`.
pub(crate) const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
