//! Running an exec operation in the sandbox.

use std::net::{IpAddr, Ipv4Addr};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Exec, ExtraHost, Network, Security};
use ashlar_core::journal::{Event, Level, LogLine, LogText, Stream};
use ashlar_files::ops::lookup::Ids;
use ashlar_layers::KnownFiles;
use ashlar_sandbox::{
    Cancel, Exit, Io, Limits, Process, Rootfs, SandboxError, Spec, Stdin, Ulimit, UlimitKind,
    remove_leftovers,
};
use ashlar_snapshots::{Draft, Tree};
use ashlar_solver::Job;

use super::{BuildJob, base_tree};
use crate::debug::{FailedRoot, KeptMount};
use crate::error::internal;
use crate::log::{LineCutter, Tail};
use crate::output::Output;

/// The name by which `--add-host NAME:host-gateway` asks for the host's own address.
const HOST_GATEWAY: &str = "host-gateway";

impl BuildJob {
    pub(super) fn run_exec(
        &self,
        job: &Job<Output>,
        exec: &Exec,
        cancel: &Cancel,
    ) -> Result<Output, Failure> {
        self.check_entitlements(exec)?;
        self.engine.expect_step(self.sandbox_network(exec));
        let base = base_tree(&job.inputs)?;
        self.materialise(base)?;
        let snapshots = &self.engine.snapshots;
        let _lease = snapshots.hold(base).map_err(internal)?;
        let draft = snapshots.begin(base).map_err(internal)?;
        let user = self.user(base, &exec.user)?;
        let mounts = self.mounts(exec, &job.inputs, cancel)?;
        let mut spec = self.spec(exec, base, &draft, &user)?;
        let unkeyed = &self.node(job.node).meta.unkeyed_env;
        spec.process.env.extend(unkeyed.iter().map(|(n, v)| (n.into(), v.into())));
        spec.mounts = mounts.mounts();
        spec.process.env.extend(mounts.env());
        spec.disk_paths.extend(mounts.disk_paths());
        if exec.effect
            && let Some(step) = self.node(job.node).meta.step
        {
            self.request.sink.event(Event::EffectBegan { step });
        }
        let mut tail = Tail::default();
        let exit = self.run_spec(job, exec, &spec, &mut tail, cancel)?;
        remove_leftovers(draft.upper(), &exit.created_mountpoints).map_err(internal)?;
        let made = exit.created_mountpoints.iter().map(|m| m.path.as_path());
        draft.drop_copied_up(base, made).map_err(internal)?;
        {
            let mut notes = self.notes();
            let note = notes.entry(job.vertex).or_default();
            note.peak_memory = exit.peak_memory;
            note.cpu_nanos = u64::try_from(exit.cpu_time.as_nanos()).ok();
        }
        if let Some(failure) = failure_of(exec, &exit, tail) {
            if !exit.cancelled {
                self.keep_failed((job, exec), mounts.kept(), base, draft);
            }
            return Err(failure);
        }
        self.take_returns(exec, base, &draft)?;
        self.commit(&job.inputs, draft, &KnownFiles::default())
    }

    /// Runs the spec and passes on what it writes, line by line.
    fn run_spec(
        &self,
        job: &Job<Output>,
        exec: &Exec,
        spec: &Spec,
        tail: &mut Tail,
        cancel: &Cancel,
    ) -> Result<Exit, Failure> {
        let mut out = LineCutter::new(&self.masker, None, Stream::Stdout);
        let mut err = LineCutter::new(&self.masker, None, Stream::Stderr);
        let mut tell = |text: LogText| {
            tail.push(&text);
            for (worker, node) in self.engine.scheduler.users(job.vertex) {
                worker.log(node, &text);
            }
        };
        let mut output = |stream, bytes: &[u8]| {
            let cutter = match stream {
                ashlar_sandbox::Stream::Stdout => &mut out,
                ashlar_sandbox::Stream::Stderr => &mut err,
            };
            cutter.push(bytes, &mut tell);
        };
        let io = Io { stdin: Stdin::Null, output: &mut output };
        let exit = if exec.background.is_empty() {
            self.engine.sandbox.run(spec, io, cancel).map_err(|e| sandbox_failure(&e))
        } else {
            self.run_with_background(exec, spec, io, cancel)
        };
        out.finish(&mut tell);
        err.finish(&mut tell);
        if let Ok(Exit { limit_survived: Some(limit), .. }) = &exit {
            // Its code decides, as it does for every container; the reader of its log should know.
            let text =
                format!("a process of this step was killed: {limit}; the step ended with 0\n");
            let (stream, level) = (Stream::Service, Level::Warn);
            tell(LogText { step: None, stream, level, bytes: text.into_bytes(), partial: false });
        }
        exit
    }

    fn spec(&self, exec: &Exec, base: &Tree, draft: &Draft, user: &Ids) -> Result<Spec, Failure> {
        let lowers = self.engine.snapshots.lowers(base).map_err(internal)?;
        let rootfs = Rootfs::Overlay {
            lowers,
            upper: draft.upper().to_owned(),
            work: draft.work().to_owned(),
            volatile: true,
        };
        let mut process = process(exec, user);
        self.reveal(&mut process);
        let mut spec = Spec { process, ..Spec::new(rootfs, Vec::<String>::new()) };
        if !exec.hostname.is_empty() {
            spec.hostname.clone_from(&exec.hostname);
        }
        spec.network = self.sandbox_network(exec);
        if exec.security == Security::Insecure {
            spec.security = ashlar_sandbox::Security::Insecure;
        }
        if let Some(bytes) = exec.shm_bytes {
            spec.shm_bytes = bytes;
        }
        spec.extra_hosts = self.extra_hosts(exec)?;
        spec.ulimits = ulimits(exec)?;
        spec.limits = self.limits();
        spec.ca_bundle.clone_from(&self.engine.config.ca_bundle);
        spec.disk_paths = vec![draft.upper().to_owned()];
        Ok(spec)
    }

    fn sandbox_network(&self, exec: &Exec) -> ashlar_sandbox::Network {
        match self.network(exec) {
            Network::None => ashlar_sandbox::Network::None,
            Network::Host => ashlar_sandbox::Network::Host,
            Network::Isolated | Network::Default => ashlar_sandbox::Network::Isolated,
        }
    }

    /// Puts hidden values where their stand-ins are.
    fn reveal(&self, process: &mut Process) {
        if self.request.hidden.is_empty() {
            return;
        }
        for (_, value) in &mut process.env {
            if let Some(real) = value.to_str().and_then(|v| self.request.hidden.get(v)) {
                *value = real.into();
            }
        }
    }

    fn limits(&self) -> Limits {
        let wanted = &self.request.limits;
        let usual = Limits::default();
        Limits {
            memory_bytes: wanted.memory_bytes,
            cpus: wanted.cpus,
            pids: wanted.pids.or(usual.pids),
            disk_bytes: wanted.disk_bytes,
            disk_free_bytes: Some(self.engine.config.disk_free_bytes),
            timeout: wanted.timeout,
            output_bytes: wanted.output_bytes,
        }
    }

    fn extra_hosts(&self, exec: &Exec) -> Result<Vec<(String, IpAddr)>, Failure> {
        let network = self.sandbox_network(exec);
        let parse = |host: &ExtraHost| {
            let address = if host.address == HOST_GATEWAY {
                host_gateway(&host.host, network)?
            } else {
                Some(host.address.trim_matches(['[', ']']).parse().map_err(|_| {
                    let text = format!("'{}' is not an address for '{}'", host.address, host.host);
                    Failure::new(FailureKind::Definition, text)
                        .hint("write --add-host NAME:ADDRESS with an IPv4 or IPv6 address")
                })?)
            };
            Ok(address.map(|address| (host.host.clone(), address)))
        };
        exec.extra_hosts.iter().filter_map(|host| parse(host).transpose()).collect()
    }

    fn check_entitlements(&self, exec: &Exec) -> Result<(), Failure> {
        let wanted = [
            ("network.host", self.network(exec) == Network::Host),
            ("security.insecure", exec.security == Security::Insecure),
        ];
        let granted = &self.request.entitlements;
        match wanted.iter().find(|(name, wants)| *wants && !granted.contains(*name)) {
            None => Ok(()),
            Some((name, _)) => Err(Failure::new(
                FailureKind::Definition,
                format!("the step needs the entitlement '{name}', which was not granted"),
            )
            .hint(format!("build with --allow {name} if you trust the definition"))),
        }
    }

    fn keep_failed(
        &self,
        (job, exec): (&Job<Output>, &Exec),
        mounts: &[KeptMount],
        base: &Tree,
        draft: Draft,
    ) {
        let node = self.node(job.node);
        let failed = FailedRoot {
            build: self.request.build.clone(),
            step: node.meta.step,
            name: node.meta.name.clone(),
            tree: base.0.clone(),
            exec: exec.clone(),
            mounts: mounts.to_vec(),
        };
        if let Err(e) = failed.keep(&self.engine, draft) {
            let text = format!("the failed step could not be kept for `ashlar debug`: {e}");
            let line = LogLine::service(Level::Debug, text);
            self.request.sink.event(Event::Log(line));
        }
    }
}

/// Returns the host's own address as a step sees it: only in the host's network there is one. A step
/// without any network has no use for it.
fn host_gateway(name: &str, network: ashlar_sandbox::Network) -> Result<Option<IpAddr>, Failure> {
    match network {
        ashlar_sandbox::Network::Host => Ok(Some(Ipv4Addr::LOCALHOST.into())),
        ashlar_sandbox::Network::None => Ok(None),
        ashlar_sandbox::Network::Isolated => {
            let text = format!(
                "the step cannot reach the host as '{name}': its network is its own, and all \
                 addresses of the host are out of reach"
            );
            Err(Failure::new(FailureKind::Definition, text).hint(
                "build with --network host --allow network.host if you trust the definition, or \
                 give the address of another machine: --add-host NAME:ADDRESS",
            ))
        }
    }
}

/// Returns the process of an exec. Like every container runtime, it gets the user's home when the
/// definition sets none.
pub(crate) fn process(exec: &Exec, ids: &Ids) -> Process {
    let mut env: Vec<(std::ffi::OsString, std::ffi::OsString)> =
        exec.env.iter().map(|(n, v)| (n.into(), v.into())).collect();
    if !exec.env.iter().any(|(name, _)| name == "HOME") {
        let home = ids.home.as_deref().filter(|h| !h.is_empty());
        env.push(("HOME".into(), home.unwrap_or(if ids.uid == 0 { "/root" } else { "/" }).into()));
    }
    Process {
        args: exec.args.iter().map(Into::into).collect(),
        env,
        cwd: if exec.cwd.is_empty() { "/".into() } else { (&exec.cwd).into() },
        user: crate::user::identity(ids),
    }
}

fn ulimits(exec: &Exec) -> Result<Vec<Ulimit>, Failure> {
    let convert = |u: &ashlar_core::graph::Ulimit| {
        let resource = UlimitKind::from_name(&u.name).ok_or_else(|| {
            Failure::new(FailureKind::Definition, format!("there is no ulimit '{}'", u.name))
                .hint("the names are those of `docker build --ulimit`, for example nofile")
        })?;
        let value = |v: i64| u64::try_from(v).ok();
        Ok(Ulimit { resource, soft: value(u.soft), hard: value(u.hard) })
    };
    exec.ulimits.iter().map(convert).collect()
}

/// Returns why an exit counts as a failure.
fn failure_of(exec: &Exec, exit: &Exit, tail: Tail) -> Option<Failure> {
    let command = command_line(&exec.args);
    let mut failure = if exit.cancelled {
        Failure::new(FailureKind::Step, format!("`{command}` was stopped"))
    } else if let Some(limit) = &exit.limit_hit {
        let mut failure = Failure::new(FailureKind::Limit, format!("`{command}`: {limit}"));
        failure.limit = Some(limit_word(limit).into());
        failure
    } else {
        match (exit.code, exit.signal) {
            (Some(code), _) if code == 0 || exec.accepted_codes.contains(&code) => return None,
            (Some(code), _) => {
                let text = format!("`{command}` exited with code {code}");
                Failure { hint: hint_for(code), ..Failure::new(FailureKind::Step, text) }
            }
            (None, Some(signal)) => Failure::new(
                FailureKind::Step,
                format!("`{command}` was killed by signal {signal}"),
            ),
            (None, None) => Failure::new(FailureKind::Step, format!("`{command}` did not end")),
        }
    };
    failure.exit_code = exit.code;
    failure.command = Some(command);
    failure.peak_memory_bytes = exit.peak_memory;
    failure.last_lines = tail.into_lines();
    Some(failure)
}

/// Returns what may mend a step that ended with a code. `ashlar debug` is no part of it: the engine
/// does not know whether the one who reads it has the machine where the step failed.
fn hint_for(code: i32) -> Option<String> {
    let hint = match code {
        126 => "the program was found but may not be run: check its mode and its #! line",
        127 => "the program was not found in the image: check its name and PATH",
        _ => return None,
    };
    Some(hint.into())
}

const fn limit_word(limit: &ashlar_sandbox::LimitHit) -> &'static str {
    use ashlar_sandbox::LimitHit;
    match limit {
        LimitHit::Memory { .. } => "memory",
        LimitHit::Pids { .. } => "pids",
        LimitHit::Disk { .. } | LimitHit::DiskFree { .. } => "disk",
        LimitHit::Time { .. } => "timeout",
        LimitHit::Output { .. } => "output",
    }
}

/// The longest command that a message quotes, in characters.
const COMMAND_CHARS_MAX: usize = 300;

fn command_line(args: &[String]) -> String {
    let text = args.join(" ");
    let mut short: String = text.chars().take(COMMAND_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Turns an error of the sandbox into a failure: a program or mount that is not there is the
/// step's own mistake, all else ours.
pub(crate) fn sandbox_failure(error: &SandboxError) -> Failure {
    let text = crate::error::chain(error);
    match error {
        SandboxError::Exec { code, .. } => Failure {
            exit_code: Some(*code),
            hint: hint_for(*code),
            ..Failure::new(FailureKind::Step, text)
        },
        SandboxError::Mount { .. } | SandboxError::Invalid(_) | SandboxError::Cancelled => {
            Failure::new(FailureKind::Step, text)
        }
        SandboxError::MissingTool { .. }
        | SandboxError::Tool { .. }
        | SandboxError::Setup { .. } => Failure::new(FailureKind::Internal, text),
    }
}

#[cfg(test)]
mod tests {
    use super::hint_for;

    #[test]
    fn hints_are_true_wherever_the_build_ran() {
        assert!(hint_for(127).is_some_and(|hint| hint.contains("PATH")));
        assert_eq!(hint_for(1), None);
    }
}
