//! Permission bits as chmod(1) takes them.

use ashlar_core::graph::Mode;

/// Permission bits cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a mode; write octal digits such as 0755, or changes such as u+x,go-w")]
pub struct ModeError(String);

/// Changes of permission bits, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    Bits(u32),
    Steps(Vec<Step>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Of `ugo`: 0700, 0070 and 0007 added up.
    who: u32,
    operator: char,
    /// Read, write, execute: 4, 2, 1.
    permissions: u32,
    /// Execute only for directories and what can be executed by somebody already.
    execute_if: bool,
    /// `s` and `t`.
    set_id: bool,
    sticky: bool,
    /// Takes the permissions that user (6), group (3) or others (0) have: a shift.
    copy_of: Option<u32>,
}

impl ModeChange {
    /// Reads a mode.
    pub(crate) fn new(mode: &Mode) -> Result<Self, ModeError> {
        match mode {
            Mode::Bits(bits) => Ok(Self::Bits(bits & 0o7777)),
            Mode::Symbolic(text) => {
                let fail = || ModeError(text.chars().take(100).collect());
                let clauses = text.split(',').map(clause).collect::<Option<Vec<_>>>();
                Ok(Self::Steps(clauses.ok_or_else(fail)?.concat()))
            }
        }
    }

    /// Returns the bits that a file with `mode` gets.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Steps(steps) => steps.iter().fold(mode, |mode, step| step.apply(mode, is_dir)),
        }
    }

    /// Returns the bits of directories that are only made on the way. A BuildKit runs with a umask
    /// of 022, and symbolic changes do not touch these.
    pub(crate) fn of_parents(change: Option<&Self>) -> u32 {
        match change {
            Some(Self::Bits(bits)) => bits & 0o755,
            Some(Self::Steps(_)) | None => 0o755,
        }
    }
}

fn clause(text: &str) -> Option<Vec<Step>> {
    let operator = |c: char| matches!(c, '+' | '-' | '=');
    let at = text.find(operator)?;
    let who = text[..at].chars().try_fold(0, |who, c| {
        Some(
            who | match c {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            },
        )
    })?;
    let who = if who == 0 { 0o777 } else { who };
    let mut steps = Vec::new();
    let mut rest = &text[at..];
    while let Some(first) = rest.chars().next() {
        let end = rest[1..].find(operator).map_or(rest.len(), |at| at + 1);
        steps.push(step(who, first, &rest[1..end])?);
        rest = &rest[end..];
    }
    Some(steps)
}

fn step(who: u32, operator: char, permissions: &str) -> Option<Step> {
    let mut step = Step {
        who,
        operator,
        permissions: 0,
        execute_if: false,
        set_id: false,
        sticky: false,
        copy_of: None,
    };
    if let "u" | "g" | "o" = permissions {
        step.copy_of = Some(match permissions {
            "u" => 6,
            "g" => 3,
            _ => 0,
        });
        return Some(step);
    }
    for c in permissions.chars() {
        match c {
            'r' => step.permissions |= 4,
            'w' => step.permissions |= 2,
            'x' => step.permissions |= 1,
            'X' => step.execute_if = true,
            's' => step.set_id = true,
            't' => step.sticky = true,
            _ => return None,
        }
    }
    Some(step)
}

impl Step {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let mut permissions = self.copy_of.map_or(self.permissions, |shift| mode >> shift & 7);
        if self.execute_if && (is_dir || mode & 0o111 != 0) {
            permissions |= 1;
        }
        let mut bits = (permissions * 0o111) & self.who;
        if self.set_id {
            bits |= if self.who & 0o700 != 0 { 0o4000 } else { 0 };
            bits |= if self.who & 0o070 != 0 { 0o2000 } else { 0 };
        }
        // Without saying who, or for others, the sticky bit is everybody's.
        bits |= if self.sticky { 0o1000 } else { 0 };
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.cleared() | bits,
        }
    }

    /// What `=` takes away first.
    fn cleared(self) -> u32 {
        let user = if self.who & 0o700 != 0 { 0o4000 } else { 0 };
        let group = if self.who & 0o070 != 0 { 0o2000 } else { 0 };
        let others = if self.who == 0o777 { 0o1000 } else { 0 };
        self.who | user | group | others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_bits() {
        let table = [
            ("u+x", 0o644, false, 0o744),
            ("go-w", 0o666, false, 0o644),
            ("a=rX", 0o644, false, 0o444),
            ("a=rX", 0o700, false, 0o555),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("+x", 0o644, false, 0o755),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("+t", 0o777, true, 0o1777),
            ("g=u", 0o750, false, 0o770),
            ("o=", 0o777, false, 0o770),
            ("u-x+w", 0o555, false, 0o655),
            ("=", 0o7777, false, 0),
        ];
        for (text, mode, is_dir, want) in table {
            let change = ModeChange::new(&Mode::Symbolic(text.into())).unwrap();
            assert_eq!(change.apply(mode, is_dir), want, "{text} of {mode:o}");
        }
        for bad in ["", "u", "x+r", "u+q", "u+x,", "u+ug", "7+x"] {
            assert!(ModeChange::new(&Mode::Symbolic(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn bits_replace_and_leave_parents_masked() {
        let change = ModeChange::new(&Mode::Bits(0o1777)).unwrap();
        assert_eq!(change.apply(0o600, false), 0o1777);
        assert_eq!(ModeChange::of_parents(Some(&change)), 0o755);
        assert_eq!(ModeChange::of_parents(Some(&ModeChange::Bits(0o700))), 0o700);
    }
}
