//! Writes a spec as the configuration of an OCI runtime (runtime-spec 1.0): the same tables as the native sandbox.

use serde_json::{Value, json};

use super::Shared;
use crate::mounts::CA_VARIABLES;
use crate::security::caps;
use crate::security::paths::{PROC_MASKED_DIRS, PROC_MASKED_FILES, PROC_READONLY, SYS_MASKED_DIRS};
use crate::security::seccomp_table::{
    ALLOWED, ALLOWED_HERE, ALLOWED_NEWER, CLONE_NAMESPACES, PERSONALITIES,
};
use crate::{CA_BUNDLE_PATH, Network, Process, SandboxError, Security, Spec, User};

/// Path of the idle pid 1 inside, in the sandbox's own `/dev`.
const INIT_PATH: &str = "/dev/ashlar/init";
/// Length of the window in which a processor quota holds, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The configuration of a bundle. `session` has the idle init as its process.
pub(crate) fn bundle(
    shared: &Shared,
    spec: &Spec,
    id: &str,
    network: Option<String>,
    session: bool,
) -> Result<Value, SandboxError> {
    let idle = Process { user: User::default(), ..Process::new([INIT_PATH]) };
    let insecure = spec.security == Security::Insecure;
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process(spec, if session { &idle } else { &spec.process })?,
        "root": { "path": shared.staging.root, "readonly": false },
        "hostname": spec.hostname,
        "mounts": mounts(shared, spec, session),
        "linux": {
            "namespaces": namespaces(spec, network),
            "cgroupsPath": format!("{}/{id}", crate::cgroup::RUNTIME_PARENT),
            "resources": resources(spec),
        },
    });
    if !insecure {
        let proc = |name: &&std::ffi::CStr| format!("/proc/{}", name.to_string_lossy());
        let masked = PROC_MASKED_FILES.iter().chain(&PROC_MASKED_DIRS).map(proc);
        let masked: Vec<_> =
            masked.chain(SYS_MASKED_DIRS.iter().map(|name| format!("/sys/{name}"))).collect();
        config["linux"]["maskedPaths"] = json!(masked);
        config["linux"]["readonlyPaths"] =
            json!(PROC_READONLY.iter().map(proc).collect::<Vec<_>>());
        config["linux"]["seccomp"] = seccomp();
    }
    Ok(config)
}

/// One process, for a bundle or for `exec`.
pub(crate) fn process(spec: &Spec, process: &Process) -> Result<Value, SandboxError> {
    let text = |value: &std::ffi::OsStr| {
        value.to_str().map(str::to_owned).ok_or_else(|| {
            SandboxError::Invalid(format!("OCI runtimes take UTF-8 only, and {value:?} is not"))
        })
    };
    let args = process.args.iter().map(|arg| text(arg)).collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::new();
    for (name, value) in &process.env {
        env.push(format!("{}={}", text(name)?, text(value)?));
    }
    if spec.ca_bundle.is_some() {
        let missing =
            CA_VARIABLES.iter().filter(|name| !process.env.iter().any(|(n, _)| n == *name));
        env.extend(missing.map(|name| format!("{name}={CA_BUNDLE_PATH}")));
    }
    let names: Vec<_> = match spec.security {
        Security::Sandboxed => caps::ROOT_NAMES.to_vec(),
        Security::Insecure => caps::ALL_NAMES.to_vec(),
    };
    let own: &[&str] = if process.user.uid == 0 { &names } else { &[] };
    Ok(json!({
        "terminal": false,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": process.user.groups,
            "umask": 0o022,
        },
        "args": args,
        "env": env,
        "cwd": text(process.cwd.as_os_str())?,
        "capabilities": { "bounding": names, "effective": own, "permitted": own },
        "rlimits": rlimits(spec),
        "noNewPrivileges": process.user.uid != 0,
        "oomScoreAdj": 500,
    }))
}

fn rlimits(spec: &Spec) -> Value {
    let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let limits = spec.ulimits.iter().map(|limit| {
        let name = format!("RLIMIT_{}", format!("{:?}", limit.resource).to_uppercase());
        json!({ "type": name, "soft": value(limit.soft), "hard": value(limit.hard) })
    });
    json!(limits.collect::<Vec<_>>())
}

fn namespaces(spec: &Spec, network: Option<String>) -> Value {
    let mut list: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind })).to_vec();
    match (spec.network, network) {
        (Network::Host, _) => {}
        (_, Some(path)) => list.push(json!({ "type": "network", "path": path })),
        (_, None) => list.push(json!({ "type": "network" })),
    }
    json!(list)
}

fn resources(spec: &Spec) -> Value {
    let mut resources = json!({});
    if spec.security == Security::Sandboxed {
        // The runtime adds the harmless devices itself.
        resources["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "access": "m" },
            { "allow": true, "type": "b", "access": "m" },
        ]);
    }
    if let Some(bytes) = spec.limits.memory_bytes {
        resources["memory"] = json!({ "limit": bytes });
    }
    if let Some(pids) = spec.limits.pids {
        resources["pids"] = json!({ "limit": pids });
    }
    if let Some(cpus) = spec.limits.cpus {
        let quota = (cpus * CPU_PERIOD_MICROS as f64) as u64;
        resources["cpu"] = json!({ "quota": quota, "period": CPU_PERIOD_MICROS });
    }
    resources
}

fn mounts(shared: &Shared, spec: &Spec, session: bool) -> Value {
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": source, "options": options });
    let shm = format!("size={}", spec.shm_bytes);
    let sys: &[&str] = match spec.security {
        Security::Sandboxed => &["nosuid", "noexec", "nodev", "ro"],
        Security::Insecure => &["nosuid", "noexec", "nodev"],
    };
    let devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &devpts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", sys),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let read_only = ["bind", "ro", "nosuid", "nodev"];
    if let Some(bundle) = &spec.ca_bundle {
        list.push(mount(CA_BUNDLE_PATH, "bind", &bundle.to_string_lossy(), &read_only));
    }
    if session {
        list.push(mount(INIT_PATH, "bind", &shared.init.to_string_lossy(), &read_only));
    }
    json!(list)
}

/// The seccomp table in the runtime's words.
fn seccomp() -> Value {
    let names = [ALLOWED, ALLOWED_HERE, ALLOWED_NEWER].concat();
    let names: Vec<_> =
        names.iter().map(|(name, _)| name.strip_prefix("SYS_").unwrap_or(name)).collect();
    let first =
        |value: u32, operator: &str| json!([{ "index": 0, "value": value, "op": operator }]);
    let allow = |name: &str, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
    let masked = json!([{ "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]);
    let mut calls = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }),
        allow("clone", masked),
        allow("socket", first(libc::AF_VSOCK as u32, "SCMP_CMP_NE")),
    ];
    calls.extend(
        PERSONALITIES.iter().map(|domain| allow("personality", first(*domain, "SCMP_CMP_EQ"))),
    );
    let arch = if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": [arch],
        "syscalls": calls,
    })
}
