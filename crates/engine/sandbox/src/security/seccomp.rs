//! Compiles the seccomp table once into the two filters that `native::child` installs.
//!
//! Guarantee: a call that the table does not allow never reaches the kernel's implementation. Calls of another
//! architecture (32-bit programs on x86-64) kill the process. Filters survive exec and can't be removed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::seccomp_table::{
    ALLOWED, ALLOWED_HERE, ALLOWED_NEWER, CLONE_NAMESPACES, LAST_KNOWN, PERSONALITIES,
};
use crate::SandboxError;

#[cfg(target_arch = "x86_64")]
const ARCH: seccompiler::TargetArch = seccompiler::TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: seccompiler::TargetArch = seccompiler::TargetArch::aarch64;

/// The compiled profile.
pub(crate) struct Profile {
    /// Allow list; everything else is EPERM.
    pub(crate) main: BpfProgram,
    /// ENOSYS for `clone3` and for calls newer than the profile; stacked on the first.
    pub(crate) unknown: BpfProgram,
}

impl Profile {
    /// Compiles the default profile.
    pub(crate) fn compile() -> Result<Self, SandboxError> {
        let invalid = |error: seccompiler::BackendError| {
            SandboxError::Invalid(format!("the seccomp profile does not compile: {error}"))
        };
        let filter = SeccompFilter::new(
            rules().map_err(invalid)?,
            SeccompAction::Errno(libc::EPERM as u32),
            SeccompAction::Allow,
            ARCH,
        );
        let main = filter.and_then(TryInto::try_into).map_err(invalid)?;
        Ok(Self { main, unknown: unknown_calls() })
    }
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let plain = ALLOWED.iter().chain(ALLOWED_HERE).chain(ALLOWED_NEWER);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        plain.map(|(_, number)| (*number, Vec::new())).collect();
    // The second filter turns this into ENOSYS; refused here it would be EPERM, which C libraries take as final.
    rules.insert(libc::SYS_clone3, Vec::new());
    let masked = SeccompCmpOp::MaskedEq(CLONE_NAMESPACES);
    rules.insert(libc::SYS_clone, vec![first_argument(SeccompCmpArgLen::Qword, masked, 0)?]);
    let vsock = libc::AF_VSOCK as u64;
    let not_vsock = first_argument(SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, vsock)?;
    rules.insert(libc::SYS_socket, vec![not_vsock]);
    let personalities = PERSONALITIES
        .iter()
        .map(|domain| first_argument(SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *domain));
    rules.insert(libc::SYS_personality, personalities.collect::<Result<_, _>>()?);
    Ok(rules)
}

fn first_argument(
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, length, operator, value)?])
}

/// `if nr > LAST_KNOWN || nr == clone3 { ENOSYS } else { ALLOW }`: seccompiler knows no ranges of calls.
fn unknown_calls() -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        op(LOAD, 0, 0, 0), // seccomp_data.nr
        op(JUMP_GREATER, 2, 0, LAST_KNOWN),
        op(JUMP_EQUAL, 1, 0, libc::SYS_clone3 as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}
