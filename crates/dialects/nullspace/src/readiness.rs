//! Readiness probes: between the wire and the engine.

use ashlar_core::graph::{Probe, ProbeKind};
use ashlar_core::image::Healthcheck;
use serde_json::{Value, json};

use crate::errors::{Answer, ApiError};
use crate::fields::Fields;

/// What the SDK fills in.
const TIMEOUT_SECS_DEFAULT: u64 = 30;
/// As above.
const INTERVAL_MS_DEFAULT: u64 = 500;
/// As above.
const GRACE_SECS_DEFAULT: u64 = 2;
/// The longest time that a build waits for a process, in seconds.
const TIMEOUT_SECS_MAX: u64 = 3600;
/// The longest command of a probe, in bytes.
const COMMAND_BYTES_MAX: usize = 64 << 10;

/// A probe as it runs and as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Readiness {
    pub(crate) probe: Probe,
    pub(crate) wire: Value,
}

/// Reads a probe.
pub(crate) fn read_readiness(f: &Fields<'_>) -> Answer<Readiness> {
    let kind = f.one_of("kind", &["tcp", "http", "command", "timeout"])?;
    let kind = kind.ok_or_else(|| ApiError::invalid(format!("{}: is missing", f.key("kind"))))?;
    if kind == "timeout" {
        return read_timeout(f);
    }
    let bounded = |name: &str, default: u64, max: u64| -> Answer<u64> {
        let value = f.number(name)?.unwrap_or(default);
        if value > max {
            return Err(ApiError::invalid(format!("{}: is more than {max}", f.key(name))));
        }
        Ok(value)
    };
    let timeout = bounded("timeout_secs", TIMEOUT_SECS_DEFAULT, TIMEOUT_SECS_MAX)?;
    let interval = bounded("interval_ms", INTERVAL_MS_DEFAULT, TIMEOUT_SECS_MAX * 1000)?;
    let grace = bounded("startup_grace_secs", GRACE_SECS_DEFAULT, TIMEOUT_SECS_MAX)?;
    let (probe, mut wire) = match kind {
        "tcp" => {
            let port = read_port(f)?;
            (ProbeKind::Tcp { port }, json!({ "kind": "tcp", "port": port }))
        }
        "http" => {
            let (port, path) = (read_port(f)?, f.text_needed("path")?);
            if !path.starts_with('/') || path.chars().any(|c| c.is_control() || c == ' ') {
                let what = "must begin with '/' and hold no blanks";
                return Err(ApiError::invalid(format!("{}: {what}", f.key("path"))));
            }
            let wire = json!({ "kind": "http", "port": port, "path": path });
            (ProbeKind::Http { port, path }, wire)
        }
        _ => {
            let command = f.text_needed("command")?;
            if command.is_empty() || command.contains('\0') || command.len() > COMMAND_BYTES_MAX {
                let what = "must not be empty, hold a NUL or be longer than 64 KiB";
                return Err(ApiError::invalid(format!("{}: {what}", f.key("command"))));
            }
            let wire = json!({ "kind": "command", "command": command });
            (ProbeKind::Command { command }, wire)
        }
    };
    wire["timeout_secs"] = timeout.into();
    wire["interval_ms"] = interval.into();
    wire["startup_grace_secs"] = grace.into();
    // A probe is tried at least once, however short its time is.
    let timeout_ms = (timeout * 1000).max(1);
    let probe =
        Probe { kind: probe, interval_ms: interval.max(1), grace_ms: grace * 1000, timeout_ms };
    Ok(Readiness { probe, wire })
}

fn read_timeout(f: &Fields<'_>) -> Answer<Readiness> {
    let key = f.key("timeout_ms");
    let timeout = f.number("timeout_ms")?;
    let timeout = timeout.ok_or_else(|| ApiError::invalid(format!("{key}: is missing")))?;
    if timeout > TIMEOUT_SECS_MAX * 1000 {
        return Err(ApiError::invalid(format!("{key}: is more than {}", TIMEOUT_SECS_MAX * 1000)));
    }
    let probe = Probe {
        kind: ProbeKind::Elapsed,
        interval_ms: timeout.max(1),
        grace_ms: 0,
        timeout_ms: timeout.max(1),
    };
    Ok(Readiness { probe, wire: json!({ "kind": "timeout", "timeout_ms": timeout }) })
}

fn read_port(f: &Fields<'_>) -> Answer<u16> {
    let key = f.key("port");
    let port = f.number("port")?;
    let port = port.ok_or_else(|| ApiError::invalid(format!("{key}: is missing")))?;
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ApiError::invalid(format!("{key}: must lie between 1 and 65535"))),
    }
}

/// Returns the probe that does what a health check does, when it is a plain command.
pub(crate) fn of_healthcheck(check: &Healthcheck) -> Option<Value> {
    let command = match check.test.split_first() {
        Some((kind, [command])) if kind == "CMD-SHELL" => command.clone(),
        Some((kind, args)) if kind == "CMD" && !args.is_empty() => {
            let quoted: Vec<String> = args
                .iter()
                .map(|a| ashlar_service::frontends::declarative::shell_quote(a).to_string())
                .collect();
            quoted.join(" ")
        }
        _ => return None,
    };
    if command.contains('\0') || command.len() > COMMAND_BYTES_MAX {
        return None;
    }
    let nanos = |value: Option<i64>, default: u64, unit: u64| {
        let given = value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
        given.map_or(default, |v| (v / unit).max(1))
    };
    Some(json!({
        "kind": "command",
        "command": command,
        "timeout_secs": nanos(check.timeout, TIMEOUT_SECS_DEFAULT, 1_000_000_000),
        "interval_ms": nanos(check.interval, 30_000, 1_000_000),
        "startup_grace_secs": nanos(check.start_period, 0, 1_000_000_000),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Answer<Readiness> {
        read_readiness(&Fields::new("readiness", &value)?)
    }

    #[test]
    fn defaults_are_the_sdks() {
        let probe = read(json!({ "kind": "tcp", "port": 80 })).unwrap();
        let want = Probe {
            kind: ProbeKind::Tcp { port: 80 },
            interval_ms: 500,
            grace_ms: 2000,
            timeout_ms: 30_000,
        };
        assert_eq!(probe.probe, want);
        assert_eq!(probe.wire["startup_grace_secs"], 2);
    }

    #[test]
    fn wrong_probes_are_refused() {
        for bad in [
            json!({}),
            json!({ "kind": "udp", "port": 1 }),
            json!({ "kind": "tcp" }),
            json!({ "kind": "tcp", "port": 0 }),
            json!({ "kind": "tcp", "port": 65536 }),
            json!({ "kind": "tcp", "port": 1.5 }),
            json!({ "kind": "http", "port": 1, "path": "x" }),
            json!({ "kind": "command", "command": "" }),
            json!({ "kind": "timeout" }),
            json!({ "kind": "timeout", "timeout_ms": -1 }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_health_check_that_is_a_command_maps() {
        let check = |test: &[&str]| Healthcheck {
            test: test.iter().map(|t| (*t).to_owned()).collect(),
            interval: Some(5_000_000_000),
            ..Healthcheck::default()
        };
        let mapped = of_healthcheck(&check(&["CMD", "test", "-e", "/a b"])).unwrap();
        assert_eq!(mapped["command"], "test -e '/a b'");
        assert_eq!(mapped["interval_ms"], 5000);
        assert_eq!(of_healthcheck(&check(&["NONE"])), None);
    }
}
