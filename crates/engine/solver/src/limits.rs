//! How much runs at once.

/// Processes that run at once on any machine. Builds wait on networks and disks more than they
/// compute, so the number of cores is the wrong bound: 20 stages of `sleep 0.5` take 0.55 s.
const EXEC_SLOTS_MIN: usize = 32;

/// Processes that run at once, by core, on machines with many.
const EXEC_SLOTS_PER_CORE: usize = 4;

/// File operations that run at once on any machine; they share one disk.
const IO_SLOTS_MIN: usize = 4;

/// Bounds on what runs at once, over all builds. Sources and look-ups take no slot: they wait on
/// networks, or are over at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolverLimits {
    /// Process trees; at least 1.
    pub exec_slots: usize,
    /// File operations and merges; at least 1.
    pub io_slots: usize,
}

impl SolverLimits {
    /// Returns the usual limits for a machine with that many cores.
    pub fn for_cores(cores: usize) -> Self {
        Self {
            exec_slots: EXEC_SLOTS_MIN.max(cores.saturating_mul(EXEC_SLOTS_PER_CORE)),
            io_slots: IO_SLOTS_MIN.max(cores),
        }
    }
}
