//! A process that must come up on the result, as requests ask for it.

use std::collections::BTreeMap;

use ashlar_core::graph::{Probe, ProbeKind};
use ashlar_service::StartCommand;
use serde::Deserialize;

use crate::Problem;

/// A [`StartCommand`] in which every field is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartAsk {
    command: String,
    user: Option<String>,
    workdir: Option<String>,
    #[serde(default)]
    envs: BTreeMap<String, String>,
    readiness: Option<ReadinessAsk>,
}

/// How to see that it is ready. Which of the fields there have to be is `probe`'s matter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadinessAsk {
    probe: ProbeWord,
    port: Option<u16>,
    path: Option<String>,
    command: Option<String>,
    interval_ms: u64,
    grace_ms: u64,
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProbeWord {
    Tcp,
    Http,
    Command,
    Elapsed,
}

impl StartAsk {
    pub(super) fn checked(self) -> Result<StartCommand, Problem> {
        Ok(StartCommand {
            command: self.command,
            user: self.user,
            workdir: self.workdir,
            envs: self.envs,
            readiness: self.readiness.map(ReadinessAsk::checked).transpose()?,
        })
    }
}

impl ReadinessAsk {
    fn checked(self) -> Result<Probe, Problem> {
        let kind = match (self.probe, self.port, self.path, self.command) {
            (ProbeWord::Tcp, Some(port), None, None) => ProbeKind::Tcp { port },
            (ProbeWord::Http, Some(port), Some(path), None) => ProbeKind::Http { port, path },
            (ProbeWord::Command, None, None, Some(command)) => ProbeKind::Command { command },
            (ProbeWord::Elapsed, None, None, None) => ProbeKind::Elapsed,
            (probe, ..) => return Err(Problem::invalid("start.readiness", probe.wants())),
        };
        let (interval_ms, grace_ms, timeout_ms) =
            (self.interval_ms, self.grace_ms, self.timeout_ms);
        Ok(Probe { kind, interval_ms, grace_ms, timeout_ms })
    }
}

impl ProbeWord {
    const fn wants(self) -> &'static str {
        match self {
            Self::Tcp => "a tcp probe has 'port', and neither 'path' nor 'command'",
            Self::Http => "an http probe has 'port' and 'path', and no 'command'",
            Self::Command => "a command probe has 'command', and neither 'port' nor 'path'",
            Self::Elapsed => "an elapsed probe has none of 'port', 'path' and 'command'",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(readiness: &Value) -> Result<Probe, String> {
        let start = json!({ "command": "serve", "readiness": readiness });
        let asked: StartAsk = serde_json::from_value(start).map_err(|e| e.to_string())?;
        let checked = asked.checked().map_err(|problem| problem.detail)?;
        checked.readiness.ok_or_else(|| "none".into())
    }

    #[test]
    fn a_probe_has_the_fields_of_its_kind_and_is_the_one_that_builds_keep() {
        for (fields, known) in [
            (json!({ "probe": "tcp", "port": 80 }), true),
            (json!({ "probe": "http", "port": 80, "path": "/" }), true),
            (json!({ "probe": "command", "command": "true" }), true),
            (json!({ "probe": "elapsed" }), true),
            (json!({ "probe": "tcp" }), false),
            (json!({ "probe": "tcp", "port": 80, "path": "/" }), false),
            (json!({ "probe": "http", "port": 80 }), false),
            (json!({ "probe": "command", "command": "true", "port": 80 }), false),
            (json!({ "probe": "elapsed", "port": 80 }), false),
            (json!({ "probe": "elapsed", "timeout": 5 }), false),
        ] {
            let mut readiness = fields;
            for (name, ms) in [("interval_ms", 1), ("grace_ms", 2), ("timeout_ms", 3)] {
                readiness[name] = json!(ms);
            }
            match read(&readiness) {
                Ok(probe) => {
                    assert!(known, "{readiness}");
                    assert_eq!(probe, serde_json::from_value(readiness).unwrap());
                }
                Err(why) => assert!(!known, "{readiness}: {why}"),
            }
        }
    }
}
