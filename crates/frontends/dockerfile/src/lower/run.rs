//! `RUN`.

use ashlar_core::graph::Security;
use ashlar_core::graph::{Exec, FileAction, Mount, MountKind, Network, NodeMeta, Op, Owner};

use super::mounts::Mounted;
use super::stage::Work;
use super::state::Step;
use super::{Lowering, names};
use crate::expand::{Options, Variables};
use crate::lexer::heredoc;
use crate::parse::ast::{CommandLine, Run, RunNetwork};
use crate::request::Entitlement;
use crate::source::Problem;

type Checked<T> = std::result::Result<T, Problem>;

/// Where a script that a heredoc holds is mounted.
const SCRIPTS: &str = "/dev/pipes/";
/// Build arguments that every `RUN` gets without being declared, in any letter case.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// What a `RUN` with heredocs comes to.
struct Prepared {
    line: CommandLine,
    /// Name and content of a script to mount.
    script: Option<(String, String)>,
    /// What the step's name says of it.
    note: String,
}

impl Lowering<'_> {
    pub(super) fn exec(&mut self, work: &mut Work, step: &Step, run: &Run) -> Checked<()> {
        if let Some(device) = run.devices.first() {
            let problem = Problem::new("RUN --device is not supported").at(device.span);
            return Err(problem.hint("no executor gives devices to steps"));
        }
        let prepared = prepare(run)?;
        let args = self.with_shell(work, &prepared.line);
        if args.is_empty() {
            let problem = Problem::new("RUN [] names no program");
            return Err(problem.hint("write RUN [\"program\", \"argument\"]"));
        }
        let mut mounted = self.mounts(work, step, run)?;
        if let Some((name, content)) = prepared.script {
            self.mount_script(&mut mounted, name, content)?;
        }
        let network = self.network(&run.network)?;
        let security = self.security(run)?;
        let meta = self.run_meta(work, step, &mounted, &prepared.note);
        let env = self.run_env(work, &mounted);
        let size: usize = args.iter().map(String::len).sum();
        let env_size: usize = env.iter().map(|(n, v)| n.len() + v.len() + 48).sum();
        self.spend(size + env_size)?;
        let history = names::run(&args, &work.at.args, &work.at.env);
        let config = &work.at.config.config;
        let exec = Exec {
            args,
            env,
            cwd: if config.working_dir.is_empty() {
                "/".into()
            } else {
                config.working_dir.clone()
            },
            user: config.user.clone(),
            mounts: mounted.mounts,
            network,
            security,
            extra_hosts: self.request.extra_hosts.clone(),
            hostname: self.hostname(),
            shm_bytes: self.request.shm_bytes,
            ulimits: self.request.ulimits.clone(),
            ..Exec::default()
        };
        self.advance(work, Op::Exec(Box::new(exec)), mounted.inputs, meta)?;
        self.commit(work, format!("RUN {history} # buildkit"), true)
    }

    fn hostname(&self) -> String {
        let argument = self.request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let own = &self.request.hostname;
        if own.is_empty() { argument.cloned().unwrap_or_default() } else { own.clone() }
    }

    fn run_meta(&self, work: &mut Work, step: &Step, mounted: &Mounted, note: &str) -> NodeMeta {
        let options = Options {
            raw_quotes: true,
            keep_unset: true,
            ..Options::new(self.file.directives.escape)
        };
        let code = format!("{}{note}", step.instruction.code());
        let masked = Masked { env: &work.at.env, secrets: &mounted.secret_variables };
        let text = names::shown(&code, &masked, &options);
        let mut meta = self.step_meta(work, step, &text);
        meta.unkeyed_env = self.proxies();
        meta
    }

    /// Returns proxy settings in both letter cases.
    fn proxies(&self) -> Vec<(String, String)> {
        let given = |proxy: &str| {
            let named = |n: &&String| n.eq_ignore_ascii_case(proxy);
            self.request.build_args.keys().rfind(named).map(|n| self.request.build_args[n].clone())
        };
        let both = |(name, value): (&str, String)| {
            [(name.to_ascii_uppercase(), value.clone()), (name.to_owned(), value)]
        };
        PROXIES.iter().filter_map(|p| given(p).map(|v| (*p, v))).flat_map(both).collect()
    }

    fn run_env(&self, work: &Work, mounted: &Mounted) -> Vec<(String, String)> {
        let mut env = work.at.env.list();
        for (name, value) in &self.request.build_envs {
            env.retain(|(n, _)| n != name);
            env.push((name.clone(), value.clone()));
        }
        if let Some(socket) = &mounted.ssh_socket
            && work.at.env.value("SSH_AUTH_SOCK").is_none()
        {
            env.push(("SSH_AUTH_SOCK".into(), socket.clone()));
        }
        env
    }

    fn mount_script(&mut self, mounted: &mut Mounted, name: String, data: String) -> Checked<()> {
        self.spend(data.len())?;
        let scratch = self.node(Op::Scratch, vec![], NodeMeta::default())?;
        let destination = format!("{SCRIPTS}{name}");
        let file = FileAction::Mkfile {
            path: format!("/{name}"),
            mode: 0o755,
            data: data.into_bytes(),
            owner: Owner::default(),
        };
        let meta =
            NodeMeta { name: "[internal] preparing inline document".into(), ..NodeMeta::default() };
        let node = self.node(Op::File { actions: vec![file] }, vec![scratch], meta)?;
        let input = mounted.input(node);
        debug_assert!(destination.starts_with(SCRIPTS));
        let kind = MountKind::Bind { input, source: "/".into(), writable: false };
        mounted.mounts.insert(0, Mount { destination: SCRIPTS.trim_end_matches('/').into(), kind });
        Ok(())
    }

    fn network(&self, wanted: &RunNetwork) -> Checked<Network> {
        let network = match wanted {
            RunNetwork::Default => self.request.network,
            RunNetwork::None => Network::None,
            RunNetwork::Host(_) => Network::Host,
        };
        if network == Network::Host && !self.request.allow.contains(&Entitlement::NetworkHost) {
            let problem = refused("the host's network", Entitlement::NetworkHost);
            return Err(match wanted {
                RunNetwork::Host(word) => problem.at(word.span),
                _ => problem,
            });
        }
        Ok(network)
    }

    fn security(&self, run: &Run) -> Checked<Security> {
        let Some(word) = &run.insecure else { return Ok(Security::Sandbox) };
        let entitlement = Entitlement::SecurityInsecure;
        if !self.request.allow.contains(&entitlement) {
            return Err(refused("RUN --security=insecure", entitlement).at(word.span));
        }
        Ok(Security::Insecure)
    }
}

fn refused(what: &str, entitlement: Entitlement) -> Problem {
    let name = entitlement.name();
    Problem::new(format!("{what} needs the entitlement {name}, which this build does not have"))
        .hint(format!("allow it with --allow {name}"))
}

/// Variables, those that come from secrets masked.
struct Masked<'a> {
    env: &'a super::Env,
    secrets: &'a [String],
}

impl Variables for Masked<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let secret = self.secrets.iter().any(|s| s == name);
        if secret { Some("****") } else { self.env.value(name) }
    }
}

/// Puts heredocs where they belong. One that is the whole command is a script when it begins with
/// `#!`, else the text that the shell gets; with anything else the shell reads them itself.
fn prepare(run: &Run) -> Checked<Prepared> {
    let line = run.command.clone();
    let Some(first) = run.heredocs.first() else {
        return Ok(Prepared { line, script: None, note: String::new() });
    };
    let ([command], true) = (line.args.as_slice(), line.shell) else {
        return Err(Problem::new("a heredoc cannot stand in JSON form"));
    };
    let shell = |text: String| CommandLine { args: vec![text], shell: true };
    if heredoc::of_word(command).is_none() {
        let mut text = command.clone();
        for heredoc in &run.heredocs {
            text = format!("{text}\n{}{}", heredoc.content, heredoc.name);
        }
        return Ok(Prepared { line: shell(text), script: None, note: String::new() });
    }
    let body = first.body();
    let note = format!(" ({})", names::summary(&first.content));
    if body.starts_with("#!") {
        let line = shell(format!("{SCRIPTS}{}", first.name));
        return Ok(Prepared { line, script: Some((first.name.clone(), body)), note });
    }
    Ok(Prepared { line: shell(body), script: None, note })
}
