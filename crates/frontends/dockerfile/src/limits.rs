//! Bounds on what a hostile definition can cost. Each error names the bound that was hit.

/// The most bytes that a Dockerfile may have.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most stages that a Dockerfile may have.
pub const STAGES_MAX: usize = 1_000;
/// The most instructions that a Dockerfile may have, `FROM` included.
pub const INSTRUCTIONS_MAX: usize = 20_000;
/// The most patterns that an ignore file may have.
pub const IGNORE_PATTERNS_MAX: usize = 10_000;
/// The most bytes that one expanded word may have: the kernel takes no longer argument or
/// variable (`MAX_ARG_STRLEN`), and doubling definitions grow without bound otherwise.
pub const WORD_BYTES_MAX: usize = 128 << 10;
/// The most bytes that the expanded body of a heredoc may have.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// How deep expansions may be nested (`${a:-${b:-...}}`).
pub const EXPANSION_DEPTH_MAX: usize = 64;
/// The most bytes of command lines, environments, file bodies and history in one graph.
pub const GRAPH_BYTES_MAX: usize = 64 << 20;
/// How many rounds of `ONBUILD` triggers may bring in new stages.
pub const TRIGGER_ROUNDS_MAX: usize = 16;
/// The most ports that one `EXPOSE` may name, ranges counted in full.
pub const PORTS_MAX: usize = 65_536;
