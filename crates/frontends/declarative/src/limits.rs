//! Bounds on what a hostile definition can cost. Each error names the bound that was hit.

/// The most steps that a build may have.
pub const STEPS_MAX: usize = 5_000;

/// The most packages, sources or items that one list may have.
pub const ITEMS_MAX: usize = 5_000;

/// The most bytes that a step's command may have: the kernel takes no longer argument
/// (`MAX_ARG_STRLEN`, which counts the ending NUL).
pub const COMMAND_BYTES_MAX: usize = (128 << 10) - 1;

/// The most bytes that any text of a step may have.
pub(crate) const TEXT_BYTES_MAX: usize = COMMAND_BYTES_MAX;

/// The most variables of one kind.
pub(crate) const VARIABLES_MAX: usize = 1_000;

/// The most bytes that environments may take in a graph, where every command holds its own.
pub(crate) const ENVIRONMENT_BYTES_MAX: usize = 256 << 20;

/// The most errors that are listed for one list of steps.
pub(crate) const ERRORS_MAX: usize = 50;
