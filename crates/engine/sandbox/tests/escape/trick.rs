//! What a row of the table is.

/// One way out, and what should come of it.
pub(crate) struct Trick {
    pub(crate) name: &'static str,
    /// Runs by `/bin/sh` of busybox as root; `/probe` makes single system calls.
    pub(crate) script: &'static str,
    pub(crate) expect: Expect,
}

/// What is expected.
#[derive(Debug)]
pub(crate) enum Expect {
    /// There is output, and each line has one of these words.
    Refused(&'static [&'static str]),
    /// It works and does no harm.
    Harmless {
        /// The exact output, trimmed.
        output: &'static str,
        /// Why it does no harm.
        why: &'static str,
    },
    /// The process is killed by the filter.
    Killed,
}
