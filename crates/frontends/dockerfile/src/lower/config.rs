//! Instructions that change the image's config only.

use ashlar_core::image::Healthcheck;
use serde_json::{Value, json};

use super::stage::Work;
use super::{Lowering, names, owner, ports};
use crate::expand::{self, Options};
use crate::limits::PORTS_MAX;
use crate::lint::Rule;
use crate::parse::ast::{ArgDefinition, CommandLine, Instruction, Pair};
use crate::source::{Problem, Word};

type Checked<T> = std::result::Result<T, Problem>;

/// Arguments that no `RUN` sees.
const HIDDEN_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Lowering<'_> {
    pub(super) fn env(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        pairs: &[Pair],
    ) -> Checked<()> {
        let pairs = self.expanded(work, instruction, pairs)?;
        let mut text = String::from("ENV");
        for (name, value) in &pairs {
            self.check_secret(work, instruction, "ENV", name);
            text.push_str(&format!(" {name}={value}"));
            self.set_variable(work, name, value)?;
            work.at.config.config.set_env(name, value);
        }
        self.commit(work, text, false)
    }

    pub(super) fn label(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        pairs: &[Pair],
    ) -> Checked<()> {
        let mut text = String::from("LABEL");
        for (name, value) in self.expanded(work, instruction, pairs)? {
            text.push_str(&format!(" {name}={value}"));
            work.at.config.config.labels.insert(name, value);
        }
        self.commit(work, text, false)
    }

    /// Expands both sides of all pairs, with the variables as they are before the instruction.
    fn expanded(
        &self,
        work: &Work,
        instruction: &Instruction,
        pairs: &[Pair],
    ) -> Checked<Vec<(String, String)>> {
        let mut all = Vec::with_capacity(pairs.len());
        for pair in pairs {
            if pair.legacy {
                let keyword = &instruction.keyword.text;
                let text = format!(
                    "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key \
                     value\" format"
                );
                work.lint.warn(Rule::LegacyKeyValueFormat, &instruction.line, &self.source, text);
            }
            let name = self.word(work, instruction, &pair.name)?;
            let value = self.word(work, instruction, &pair.value)?;
            self.spend(name.len() + value.len())?;
            all.push((name, value));
        }
        Ok(all)
    }

    fn check_secret(&self, work: &Work, instruction: &Instruction, keyword: &str, name: &str) {
        const DENIED: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const ALLOWED: [&str; 3] = ["public", "file", "version"];
        let lower = name.to_ascii_lowercase();
        let has = |list: &[&str]| lower.split('_').any(|part| list.contains(&part));
        if has(&DENIED) && !has(&ALLOWED) {
            let text = format!(
                "Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})"
            );
            work.lint.warn(Rule::SecretsUsedInArgOrEnv, &instruction.line, &self.source, text);
        }
    }

    pub(super) fn arg(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        args: &[ArgDefinition],
    ) -> Checked<()> {
        let mut text = String::from("ARG");
        for arg in args {
            self.check_secret(work, instruction, "ARG", &arg.name);
            let given = self.request.build_args.get(&arg.name).cloned();
            let value = match (given, &arg.value) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.word(work, instruction, default)?),
                (None, None) => expand::Variables::value(&self.globals, &arg.name).map(Into::into),
            };
            if let Some(value) = value.as_ref().filter(|_| !HIDDEN_ARGS.contains(&&*arg.name)) {
                self.set_variable(work, &arg.name, value)?;
            }
            let shown = value.as_ref().map(|v| format!("={v}")).unwrap_or_default();
            text.push_str(&format!(" {}{shown}", arg.name));
            self.spend(text.len())?;
            work.at.args.push((arg.name.clone(), value));
        }
        self.commit(work, text, false)
    }

    /// Puts the shell before a command in shell form.
    pub(super) fn with_shell(&self, work: &Work, line: &CommandLine) -> Vec<String> {
        if !line.shell {
            return line.args.clone();
        }
        let shell = work.at.config.config.shell.clone().filter(|s| !s.is_empty());
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        let mut args = shell.unwrap_or_else(default);
        args.push(line.args.join(" "));
        args
    }

    fn check_shell_form(&self, work: &Work, instruction: &Instruction, line: &CommandLine) {
        let has_shell = work.at.config.config.shell.as_ref().is_some_and(|s| !s.is_empty());
        if line.shell && !has_shell {
            let text = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS \
                 signals",
                instruction.keyword.text
            );
            work.lint.warn(Rule::JSONArgsRecommended, &instruction.line, &self.source, text);
        }
    }

    /// Warns at the earlier one of two instructions of which only the last counts.
    fn check_once(&self, work: &Work, before: Option<Instruction>, now: &Instruction) {
        if let Some(before) = before {
            let text = format!(
                "Multiple {} instructions should not be used in the same stage because only the \
                 last one will be used",
                now.keyword.text
            );
            let rule = Rule::MultipleInstructionsDisallowed;
            work.lint.warn(rule, &before.line, &self.source, text);
        }
    }

    pub(super) fn cmd(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        line: &CommandLine,
    ) -> Checked<()> {
        let before = work.cmd.replace(instruction.clone());
        self.check_once(work, before, instruction);
        self.check_shell_form(work, instruction, line);
        let args = self.with_shell(work, line);
        let text = format!("CMD {}", names::quoted_list(&args));
        let config = &mut work.at.config.config;
        config.cmd = (!args.is_empty()).then_some(args);
        config.other.insert("ArgsEscaped".into(), Value::Bool(true));
        self.commit(work, text, false)
    }

    pub(super) fn entrypoint(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        line: &CommandLine,
    ) -> Checked<()> {
        let before = work.entrypoint.replace(instruction.clone());
        self.check_once(work, before, instruction);
        self.check_shell_form(work, instruction, line);
        let args = self.with_shell(work, line);
        let text = format!("ENTRYPOINT {}", names::quoted_list(&args));
        let config = &mut work.at.config.config;
        config.entrypoint = (!args.is_empty()).then_some(args);
        if work.cmd.is_none() {
            // An inherited command was made for another program.
            config.cmd = None;
        }
        self.commit(work, text, false)
    }

    pub(super) fn healthcheck(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        check: &Healthcheck,
    ) -> Checked<()> {
        let before = work.healthcheck.replace(instruction.clone());
        self.check_once(work, before, instruction);
        work.at.config.config.healthcheck = Some(check.clone());
        self.commit(work, names::health(check), false)
    }

    pub(super) fn expose(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        words: &[Word],
    ) -> Checked<()> {
        let mut all = Vec::new();
        for word in words {
            let options = Options::new(self.file.directives.escape);
            let expanded = expand::expand(&word.text, &work.at.env, &options);
            let expanded = expanded.map_err(|e| Problem::new(e.to_string()).at(word.span))?;
            for text in &expanded.words {
                let parsed = ports::parse(text).map_err(|e| {
                    let problem = Problem::new(e).at(word.span);
                    problem.hint("write EXPOSE port, port/udp or first-last")
                })?;
                self.check_port(work, instruction, text, &parsed);
                all.extend(parsed.ports);
                if all.len() > PORTS_MAX {
                    return Err(Problem::new(format!("EXPOSE names more than {PORTS_MAX} ports")));
                }
            }
        }
        let text = format!("EXPOSE {}", names::plain_list(&all));
        let exposed = &mut work.at.config.config.exposed_ports;
        exposed.extend(all.into_iter().map(|p| (p, json!({}))));
        self.commit(work, text, false)
    }

    fn check_port(
        &self,
        work: &Work,
        instruction: &Instruction,
        text: &str,
        parsed: &ports::Ports,
    ) {
        let (line, source) = (&instruction.line, &self.source);
        if parsed.odd_case {
            let said =
                format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
            work.lint.warn(Rule::ExposeProtoCasing, line, source, said);
        }
        if parsed.maps {
            let said = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found \
                 '{text}'"
            );
            work.lint.warn(Rule::ExposeInvalidFormat, line, source, said);
        }
    }

    pub(super) fn volume(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        words: &[Word],
    ) -> Checked<()> {
        let volumes = self.words(work, instruction, words)?;
        if let Some(at) = volumes.iter().position(String::is_empty) {
            let message = "VOLUME specified can not be an empty string";
            return Err(Problem::new(message).at(words[at].span));
        }
        let text = format!("VOLUME {}", names::plain_list(&volumes));
        let config = &mut work.at.config.config.volumes;
        config.extend(volumes.into_iter().map(|v| (v, json!({}))));
        self.commit(work, text, false)
    }

    pub(super) fn stop_signal(
        &self,
        work: &mut Work,
        instruction: &Instruction,
        signal: &Word,
    ) -> Checked<()> {
        let text = self.word(work, instruction, signal)?;
        if !owner::is_signal(&text) {
            let problem = Problem::new(format!("Invalid signal: {text}")).at(signal.span);
            return Err(problem.hint("name it as in SIGTERM, or give its number"));
        }
        work.at.config.config.stop_signal = Some(text.clone());
        self.commit(work, format!("STOPSIGNAL {text}"), false)
    }
}
