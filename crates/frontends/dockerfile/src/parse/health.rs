//! `HEALTHCHECK`, and Go's durations and booleans.

use ashlar_core::image::Healthcheck;

use super::flags::{Flags, Takes};
use super::{Json, json};
use crate::lexer::split::Split;
use crate::source::{Problem, Span, Word};

const FLAGS: [(&str, Takes); 5] = [
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];

pub(super) fn parse(split: &Split) -> Result<Healthcheck, Problem> {
    let rest = &split.rest;
    let end = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
    let kind = Word::new(&rest.text[..end], Span::new(rest.span.start, rest.span.start + end));
    let args = rest.text[end..].trim_start();
    let args = Word::new(args, Span::new(rest.span.end - args.len(), rest.span.end));
    match kind.text.to_ascii_uppercase().as_str() {
        "" => {
            let problem = Problem::new("HEALTHCHECK requires at least one argument");
            Err(problem.at(split.keyword.span).hint("write HEALTHCHECK CMD command or NONE"))
        }
        "NONE" if args.text.is_empty() => {
            Ok(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() })
        }
        "NONE" => Err(Problem::new("HEALTHCHECK NONE takes no arguments").at(args.span)),
        "CMD" => command(&Flags::read(split, &FLAGS)?, &args, kind.span),
        other => {
            Flags::read(split, &FLAGS)?;
            let problem = Problem::new(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"));
            Err(problem.at(kind.span))
        }
    }
}

fn command(flags: &Flags, args: &Word, cmd: Span) -> Result<Healthcheck, Problem> {
    let test = match json(args)? {
        Json::Strings(list) if !list.is_empty() => {
            std::iter::once("CMD".to_owned()).chain(list).collect()
        }
        Json::No if !args.text.is_empty() => vec!["CMD-SHELL".to_owned(), args.text.clone()],
        _ => return Err(Problem::new("Missing command after HEALTHCHECK CMD").at(cmd)),
    };
    Ok(Healthcheck {
        test,
        interval: interval(flags, "interval")?,
        timeout: interval(flags, "timeout")?,
        start_period: interval(flags, "start-period")?,
        start_interval: interval(flags, "start-interval")?,
        retries: retries(flags)?,
    })
}

fn retries(flags: &Flags) -> Result<Option<i64>, Problem> {
    let Some(word) = flags.filled("retries") else { return Ok(None) };
    match word.text.parse::<i32>() {
        Ok(n) if n < 0 => {
            Err(Problem::new(format!("--retries cannot be negative ({n})")).at(word.span))
        }
        Ok(n) => Ok((n != 0).then_some(i64::from(n))),
        Err(_) => {
            Err(Problem::new(format!("--retries is not a number: {:?}", word.text)).at(word.span))
        }
    }
}

/// The shortest time of a health check, in nanoseconds.
const INTERVAL_NANOS_MIN: i64 = 1_000_000;

fn interval(flags: &Flags, name: &str) -> Result<Option<i64>, Problem> {
    let Some(word) = flags.filled(name) else { return Ok(None) };
    match duration_nanos(&word.text) {
        None => {
            let problem = Problem::new(format!("invalid duration {:?}", word.text)).at(word.span);
            Err(problem.hint("write it with a unit, for example 30s or 1m30s"))
        }
        Some(0) => Ok(None),
        Some(nanos) if nanos < INTERVAL_NANOS_MIN => {
            Err(Problem::new(format!("Interval {name:?} cannot be less than 1ms")).at(word.span))
        }
        Some(nanos) => Ok(Some(nanos)),
    }
}

/// Reads a duration as Go's `time.ParseDuration` does: `1h2m3.5s`, `300ms`, `-1us`, `0`.
fn duration_nanos(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("\u{b5}s", 1e3),
        ("\u{3bc}s", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    while {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        rest = &rest[end..];
        nanos += number * unit;
        !rest.is_empty()
    } {}
    (nanos < 9.2e18).then_some((sign * nanos) as i64)
}

/// Writes a duration as Go does: `1m30s`, `1.5s`, `300ms`, `0s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let fraction = |value: i64, unit: i64, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".into(),
        n if n < 0 => format!("-{}", duration_text(n.saturating_neg())),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => fraction(n, 1_000, "\u{b5}s"),
        n if n < 1_000_000_000 => fraction(n, 1_000_000, "ms"),
        n => {
            let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let all = [
            ("30s", 30_000_000_000, "30s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("300ms", 300_000_000, "300ms"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("1us", 1_000, "1\u{b5}s"),
            ("0", 0, "0s"),
        ];
        for (text, nanos, shown) in all {
            assert_eq!(duration_nanos(text), Some(nanos), "{text}");
            assert_eq!(duration_text(nanos), shown);
        }
        for bad in ["", "1", "s", "1x", "1.2.3s", "--1s"] {
            assert_eq!(duration_nanos(bad), None, "{bad}");
        }
    }
}
