//! A process in the form that the new process needs it: C strings and pointers, made before `clone3`.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};

use super::sys;
use crate::mounts::CA_VARIABLES;
use crate::{CA_BUNDLE_PATH, Process, SandboxError, Security, Spec, UlimitKind};

/// Soft and hard limit on open files, as newer Docker services set them.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// What to execute, as whom, under which resource limits.
pub(crate) struct Image {
    candidates: Vec<CString>,
    argv: Pointers,
    env: Pointers,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) rlimits: Vec<(Resource, Rlimit)>,
    pub(crate) insecure: bool,
}

impl Image {
    /// Prepares a process of the sandbox described by `spec`.
    pub(crate) fn new(spec: &Spec, process: &Process) -> Result<Self, SandboxError> {
        let program =
            process.args.first().filter(|program| !program.is_empty()).ok_or_else(|| {
                SandboxError::Invalid(
                    "the step has no program to run: its argument list is empty".into(),
                )
            })?;
        let mut env: Vec<CString> = Vec::with_capacity(process.env.len());
        for (name, value) in &process.env {
            let mut pair = name.as_bytes().to_vec();
            pair.push(b'=');
            pair.extend(value.as_bytes());
            env.push(c_string(&pair, "an environment variable")?);
        }
        if spec.ca_bundle.is_some() {
            for name in CA_VARIABLES {
                if !process.env.iter().any(|(own, _)| own == name) {
                    env.push(c_string(format!("{name}={CA_BUNDLE_PATH}").as_bytes(), name)?);
                }
            }
        }
        let argv = process.args.iter().map(|arg| c_string(arg.as_bytes(), "an argument"));
        Ok(Self {
            candidates: candidates(program, &process.env)?,
            argv: Pointers::new(argv.collect::<Result<_, _>>()?),
            env: Pointers::new(env),
            uid: Uid::from_raw(process.user.uid),
            gid: Gid::from_raw(process.user.gid),
            groups: process.user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
            rlimits: rlimits(spec),
            insecure: spec.security == Security::Insecure,
        })
    }

    /// Executes the first candidate that can be; returns why none could. Does not allocate.
    pub(crate) fn exec(&self) -> Errno {
        let mut worst = Errno::NOENT;
        for path in &self.candidates {
            // SAFETY: `Pointers` are null-terminated arrays into strings that live as long as `self`.
            #[expect(unsafe_code, reason = "raw pointers prepared before clone3")]
            let error = unsafe { sys::execve(path, self.argv.as_ptr(), self.env.as_ptr()) };
            match error {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => worst = error,
                _ => return error,
            }
        }
        worst
    }
}

/// A null-terminated array of pointers to C strings.
struct Pointers {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _strings: strings }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// The paths to try, looked up inside the sandbox by the new process itself, with the step's own rights.
fn candidates(
    program: &OsStr,
    env: &[(std::ffi::OsString, std::ffi::OsString)],
) -> Result<Vec<CString>, SandboxError> {
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(program.as_bytes(), "the program")?]);
    }
    let path =
        env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let path = path.unwrap_or(OsStr::new(crate::PATH_DEFAULT));
    let directories = path.as_bytes().split(|byte| *byte == b':');
    let full = directories.map(|directory| {
        let mut full = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
        full.push(b'/');
        full.extend(program.as_bytes());
        c_string(&full, "the program")
    });
    full.collect()
}

fn c_string(bytes: &[u8], what: &str) -> Result<CString, SandboxError> {
    CString::new(bytes)
        .map_err(|_| SandboxError::Invalid(format!("{what} of the step contains a zero byte")))
}

/// The limits that differ from what the engine itself runs under.
fn rlimits(spec: &Spec) -> Vec<(Resource, Rlimit)> {
    let own = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = OPEN_FILES.1.min(own);
    let mut limits = vec![
        (Resource::Core, Rlimit { current: Some(0), maximum: None }),
        (Resource::Nofile, Rlimit { current: Some(OPEN_FILES.0.min(hard)), maximum: Some(hard) }),
    ];
    for wish in &spec.ulimits {
        let limit = Rlimit { current: wish.soft, maximum: wish.hard };
        limits.push((resource(wish.resource), limit));
    }
    limits
}

fn resource(kind: UlimitKind) -> Resource {
    match kind {
        UlimitKind::Core => Resource::Core,
        UlimitKind::Cpu => Resource::Cpu,
        UlimitKind::Data => Resource::Data,
        UlimitKind::Fsize => Resource::Fsize,
        UlimitKind::Locks => Resource::Locks,
        UlimitKind::Memlock => Resource::Memlock,
        UlimitKind::Msgqueue => Resource::Msgqueue,
        UlimitKind::Nice => Resource::Nice,
        UlimitKind::Nofile => Resource::Nofile,
        UlimitKind::Nproc => Resource::Nproc,
        UlimitKind::Rss => Resource::Rss,
        UlimitKind::Rtprio => Resource::Rtprio,
        UlimitKind::Sigpending => Resource::Sigpending,
        UlimitKind::Stack => Resource::Stack,
    }
}

/// Name of the pid 1 of sessions in process lists.
pub(crate) const INIT_NAME: &CStr = c"ashlar-init";
