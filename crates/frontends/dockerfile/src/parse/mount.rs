//! `--mount` of `RUN`.
//!
//! The value is comma-separated `key=value` with CSV quoting; values may hold variables, but for
//! `from`, which says what the stage needs before any variable is known.

use ashlar_core::graph::CacheSharing;

use super::health::parse_bool;
use crate::source::{Problem, Word};
use crate::suggest;

/// Kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, k)| *k == self).map_or("", |(n, _)| n)
    }
}

/// What one `--mount` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mount {
    pub(crate) kind: Kind,
    pub(crate) from: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) size: Option<u64>,
    pub(crate) id: String,
    pub(crate) sharing: Option<CacheSharing>,
    pub(crate) required: bool,
    pub(crate) env: Option<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Returns `from` of a mount.
pub(super) fn source(word: &Word) -> Result<Option<Word>, Problem> {
    let mut from = None;
    for field in fields(&word.text).map_err(|m| Problem::new(m).at(word.span))? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| at + 1 != value.len()) {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            let problem = Problem::new(message).at(word.span);
            return Err(problem.hint("add FROM $VARIABLE AS name and mount from name"));
        }
        from = (!value.is_empty()).then(|| Word::new(value, word.span));
    }
    Ok(from)
}

/// Reads a mount, its values expanded by `expand`.
pub(crate) fn parse(
    word: &Word,
    expand: &mut dyn FnMut(&str) -> Result<String, Problem>,
) -> Result<Mount, Problem> {
    let mut mount = Mount::default();
    let mut read_only = None;
    for field in fields(&word.text).map_err(Problem::new)? {
        let Some((key, value)) = field.split_once('=') else {
            bare(&field, &mut mount, &mut read_only)?;
            continue;
        };
        let value = expand(value)?;
        set(&key.to_ascii_lowercase(), value, &field, &mut mount, &mut read_only)?;
    }
    mount.read_only = read_only.unwrap_or(!matches!(mount.kind, Kind::Cache | Kind::Tmpfs));
    check(&mount)?;
    Ok(mount)
}

/// A field without `=`.
fn bare(field: &str, mount: &mut Mount, read_only: &mut Option<bool>) -> Result<(), Problem> {
    match field.to_ascii_lowercase().as_str() {
        "readonly" | "ro" => *read_only = Some(true),
        "readwrite" | "rw" => *read_only = Some(false),
        "required" if takes_required(mount.kind) => mount.required = true,
        "required" => return Err(unexpected("required", mount.kind)),
        _ => {
            let message = format!("invalid field '{field}' must be a key=value pair");
            return Err(Problem::new(message).maybe_hint(suggest::hint(field, KEYS)));
        }
    }
    Ok(())
}

fn takes_required(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::Ssh)
}

fn unexpected(key: &str, kind: Kind) -> Problem {
    let problem = Problem::new(format!("unexpected key '{key}' for mount type '{}'", kind.name()));
    problem.hint("write type= before the other keys")
}

fn set(
    key: &str,
    value: String,
    field: &str,
    mount: &mut Mount,
    read_only: &mut Option<bool>,
) -> Result<(), Problem> {
    let invalid = || Problem::new(format!("invalid value for {key}: {value}"));
    let number = |radix| {
        u32::from_str_radix(&value, radix)
            .ok()
            .filter(|_| !value.starts_with('+'))
            .ok_or_else(|| Problem::new(format!("invalid value {value} for {key}")))
    };
    let boolean = || parse_bool(&value).ok_or_else(invalid);
    match key {
        "type" => mount.kind = kind(&value)?,
        "from" => mount.from = value,
        "source" | "src" => mount.source = value,
        "target" | "dst" | "destination" => mount.target = value,
        "readonly" | "ro" => *read_only = Some(boolean()?),
        "readwrite" | "rw" => *read_only = Some(!boolean()?),
        "required" if takes_required(mount.kind) => mount.required = boolean()?,
        "size" if mount.kind == Kind::Tmpfs => {
            mount.size = Some(size(&value).ok_or_else(invalid)?);
        }
        "required" | "size" => return Err(unexpected(key, mount.kind)),
        "id" => mount.id = value,
        "sharing" => mount.sharing = Some(sharing(&value)?),
        "mode" => mount.mode = Some(number(8)?),
        "uid" => mount.uid = Some(number(10)?),
        "gid" => mount.gid = Some(number(10)?),
        "env" => mount.env = Some(value),
        _ => {
            let problem = Problem::new(format!("unexpected key '{key}' in '{field}'"));
            return Err(problem.maybe_hint(suggest::hint(key, KEYS)));
        }
    }
    Ok(())
}

fn kind(value: &str) -> Result<Kind, Problem> {
    let lower = value.to_ascii_lowercase();
    Kind::ALL.iter().find(|(n, _)| *n == lower).map(|(_, k)| *k).ok_or_else(|| {
        let near = suggest::hint(value, Kind::ALL.map(|(n, _)| n));
        let hint = near.unwrap_or("it is bind, cache, tmpfs, secret or ssh".into());
        Problem::new(format!("unsupported mount type {value:?}")).hint(hint)
    })
}

fn sharing(value: &str) -> Result<CacheSharing, Problem> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "shared" => CacheSharing::Shared,
        "private" => CacheSharing::Private,
        "locked" => CacheSharing::Locked,
        _ => {
            let near = suggest::hint(value, ["shared", "private", "locked"]);
            let hint = near.unwrap_or("it is shared, private or locked".into());
            return Err(Problem::new(format!("unsupported sharing value {value:?}")).hint(hint));
        }
    })
}

fn check(mount: &Mount) -> Result<(), Problem> {
    let fail = |m: String| Err(Problem::new(m));
    if !matches!(mount.kind, Kind::Secret | Kind::Ssh | Kind::Cache) {
        let given = [
            ("mode", mount.mode.is_some()),
            ("uid", mount.uid.is_some()),
            ("gid", mount.gid.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
            return fail(format!("{key} not allowed for {:?} type mounts", mount.kind.name()));
        }
    }
    if mount.kind == Kind::Secret {
        if !mount.from.is_empty() {
            return fail("secret mount should not have a from".into());
        }
        if mount.sharing.is_some() {
            return fail("secret mount should not define sharing".into());
        }
        if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
            return fail("invalid secret mount. one of source, target required".into());
        }
        if !mount.source.is_empty() && !mount.id.is_empty() {
            return fail("both source and id can't be set".into());
        }
    }
    if mount.kind == Kind::Ssh && !mount.source.is_empty() {
        return fail("ssh does not support source".into());
    }
    if mount.sharing.is_some() && mount.kind != Kind::Cache {
        return fail(format!("invalid cache sharing set for {} mount", mount.kind.name()));
    }
    Ok(())
}

/// Splits comma-separated fields; a field may stand in double quotes (RFC 4180).
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a quoted field of --mount has no end".into()),
                }
            }
            if chars.peek().is_some_and(|c| *c != ',') {
                return Err("a quoted field of --mount is followed by more text".into());
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err("a field of --mount has a quote in its middle".into());
                }
                field.push(c);
            }
        }
        fields.push(field);
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

/// Reads a size such as `64m`, `1.5GiB` or `1048576`; units are powers of 1024.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_ascii_lowercase();
    let power = match unit.strip_suffix('b').unwrap_or(&unit).trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    (bytes.is_finite() && bytes < 9e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_csv() {
        assert_eq!(fields(r#"a=1,"b=2,3",c"#).unwrap(), ["a=1", "b=2,3", "c"]);
        assert_eq!(fields(r#""a=""x""""#).unwrap(), [r#"a="x""#]);
        assert!(fields(r#"a="x""#).is_err());
        assert!(fields(r#""a"#).is_err());
    }

    #[test]
    fn sizes_have_units() {
        let all = [("1", 1), ("10k", 10240), ("1.5GiB", 1610612736), ("2 mb", 2097152)];
        for (text, bytes) in all {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        assert_eq!([size("x"), size("1x"), size("")], [None, None, None]);
    }
}
