//! `--chown`, `--chmod` and `STOPSIGNAL` values.

use ashlar_core::graph::{Mode, Owner, OwnerPart};

/// Reads `user[:group]`, names or numbers.
pub(super) fn owner(text: &str) -> Owner {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    Owner { user: part(user), group: group.map(part) }
}

fn part(text: &str) -> OwnerPart {
    match text.parse() {
        _ if text == "root" => OwnerPart::Id(0),
        Ok(id) => OwnerPart::Id(id),
        Err(_) => OwnerPart::Name(text.to_owned()),
    }
}

/// Reads octal or symbolic permission bits.
pub(super) fn mode(text: &str) -> Result<Mode, String> {
    let numeric = || {
        format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        )
    };
    match u32::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o7777 && !text.starts_with('+') => Ok(Mode::Bits(bits)),
        Ok(_) => Err(numeric()),
        Err(_) if text.chars().all(|c| c.is_ascii_digit()) => Err(numeric()),
        Err(_) if text.split(',').all(is_symbolic) => Ok(Mode::Symbolic(text.to_owned())),
        Err(_) => Err(format!(
            "invalid chmod parameter: '{text}'. it should be octal, such as 755, or symbolic, such \
             as u+x,go-w"
        )),
    }
}

/// Whether a text is `[ugoa]*` and then one or more of `[-+=]` with permissions.
fn is_symbolic(clause: &str) -> bool {
    let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let mut actions = rest.split_inclusive(['-', '+', '=']);
    let Some(first) = actions.next() else { return false };
    let permissions = |s: &str| {
        let s = s.trim_end_matches(['-', '+', '=']);
        s.chars().all(|c| "rwxXst".contains(c)) || ["u", "g", "o"].contains(&s)
    };
    ["-", "+", "="].contains(&first) && actions.all(permissions)
}

const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "UNUSED",
];

/// Whether a text names a signal: a number other than 0, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix, max: u8| {
        name.strip_prefix(prefix).is_some_and(|n: &str| {
            !n.starts_with('0') && n.parse::<u8>().is_ok_and(|n| n > 0 && n <= max)
        })
    };
    SIGNALS.contains(&name)
        || ["RTMIN", "RTMAX"].contains(&name)
        || offset("RTMIN+", 15)
        || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(mode("755"), Ok(Mode::Bits(0o755)));
        for good in ["u+x", "a=rX", "u+x,go-w", "+x", "g=u", "u=rwx,g=rx,o=", "u+s+t"] {
            assert_eq!(mode(good), Ok(Mode::Symbolic(good.into())), "{good}");
        }
        for bad in ["", "8", "10000", "u", "u+y", "x+r", "u+x,", "+755"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn owners() {
        assert_eq!(owner("1:2").group, Some(OwnerPart::Id(2)));
        assert_eq!(owner("root").user, OwnerPart::Id(0));
        assert_eq!(owner("app").user, OwnerPart::Name("app".into()));
    }

    #[test]
    fn signals() {
        assert!(["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX-1"].into_iter().all(is_signal));
        assert!(!["0", "FOO", "", "SIGRTMIN+99", "SIG"].into_iter().any(is_signal));
    }
}
