//! Compiles the seccomp table into the filter that `native::child` installs.
//!
//! Guarantee: a call that the table does not allow never reaches the kernel's implementation. Calls of another
//! architecture (32-bit programs on x86-64) kill the process. Filters survive exec and can't be removed.
//!
//! The program is a binary search over ranges of call numbers, about 150 instructions. The kernel runs a new filter
//! once for each system call there is (to cache the verdicts) and compiles it to machine code: for the chain of
//! comparisons that filter libraries make of the same table, some 1,600 instructions, that alone takes 0.9 ms a step.

use libc::sock_filter;

use super::seccomp_table::{
    ALLOWED, ALLOWED_HERE, ALLOWED_NEWER, CLONE_NAMESPACES, LAST_KNOWN, PERSONALITIES,
};
use crate::SandboxError;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;

/// Offsets in the kernel's `seccomp_data`; of the first argument, the low half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// EPERM.
    Refuse,
    /// ENOSYS: the C library tries an older call then.
    Unknown,
    Clone,
    Socket,
    Personality,
}

/// The compiled profile.
pub(crate) struct Profile(pub(crate) Vec<sock_filter>);

impl Profile {
    /// Compiles the default profile.
    pub(crate) fn compile() -> Result<Self, SandboxError> {
        let mut program = vec![
            op(LOAD, 0, 0, ARCHITECTURE),
            op(IF_EQUAL, 1, 0, ARCH),
            op(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
            op(LOAD, 0, 0, NUMBER),
        ];
        program.extend(search(&ranges()).ok_or_else(|| {
            SandboxError::Invalid("the seccomp profile is too long for its jumps".into())
        })?);
        Ok(Self(program))
    }
}

/// What the table says about one call.
fn verdict(number: u32) -> Verdict {
    let call = libc::c_long::from(number);
    let listed = |table: &[(&str, libc::c_long)]| table.iter().any(|(_, allowed)| *allowed == call);
    match call {
        libc::SYS_clone => Verdict::Clone,
        libc::SYS_clone3 => Verdict::Unknown,
        libc::SYS_socket => Verdict::Socket,
        libc::SYS_personality => Verdict::Personality,
        _ if number > LAST_KNOWN => Verdict::Unknown,
        _ if listed(ALLOWED) || listed(ALLOWED_HERE) || listed(ALLOWED_NEWER) => Verdict::Allow,
        _ => Verdict::Refuse,
    }
}

/// The verdicts of all numbers as ranges: first number and verdict; the last range has no end.
fn ranges() -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=LAST_KNOWN + 1 {
        let verdict = verdict(number);
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    }
    ranges
}

/// Emits a binary search; `None` when a jump would be too long.
fn search(ranges: &[(u32, Verdict)]) -> Option<Vec<sock_filter>> {
    let (lower, upper) = match ranges {
        [] => return Some(Vec::new()),
        [(_, verdict)] => return Some(decide(*verdict)),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let below = search(lower)?;
    let jump = u8::try_from(below.len()).ok()?;
    let mut program = vec![op(IF_AT_LEAST, jump, 0, upper[0].0)];
    program.extend(below);
    program.extend(search(upper)?);
    Some(program)
}

/// Emits one verdict.
fn decide(verdict: Verdict) -> Vec<sock_filter> {
    let allow = op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let refuse = op(RETURN, 0, 0, REFUSED);
    let argument = op(LOAD, 0, 0, FIRST_ARGUMENT);
    match verdict {
        Verdict::Allow => vec![allow],
        Verdict::Refuse => vec![refuse],
        Verdict::Unknown => vec![op(RETURN, 0, 0, UNKNOWN)],
        Verdict::Clone => vec![argument, op(IF_ANY_BIT, 0, 1, CLONE_NAMESPACES), refuse, allow],
        Verdict::Socket => {
            vec![argument, op(IF_EQUAL, 0, 1, libc::AF_VSOCK as u32), refuse, allow]
        }
        Verdict::Personality => {
            let mut program = vec![argument];
            for (index, domain) in PERSONALITIES.iter().enumerate() {
                let to_allow = (PERSONALITIES.len() - index) as u8;
                program.push(op(IF_EQUAL, to_allow, 0, *domain));
            }
            program.extend([refuse, allow]);
            program
        }
    }
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(program: &[sock_filter], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let op = &program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { op.jt } else { op.jf });
            match op.code {
                LOAD => {
                    value = match op.k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        FIRST_ARGUMENT => argument,
                        other => panic!("loads from {other}"),
                    }
                }
                IF_AT_LEAST => at += jump(value >= op.k),
                IF_EQUAL => at += jump(value == op.k),
                IF_ANY_BIT => at += jump(value & op.k != 0),
                RETURN => return op.k,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    fn profile(number: libc::c_long, argument: u64) -> u32 {
        let program = Profile::compile().unwrap().0;
        run(&program, ARCH, number as u32, argument as u32)
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_table() {
        let program = Profile::compile().unwrap().0;
        assert!(program.len() < 300, "{} instructions", program.len());
        let tables = [ALLOWED, ALLOWED_HERE, ALLOWED_NEWER];
        let special = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_socket, libc::SYS_personality];
        for number in 0..1000 {
            let call = libc::c_long::from(number);
            if special.contains(&call) {
                continue;
            }
            let listed = tables.iter().any(|table| table.iter().any(|(_, n)| *n == call));
            let expected = match (number > LAST_KNOWN, listed) {
                (true, _) => UNKNOWN,
                (false, true) => libc::SECCOMP_RET_ALLOW,
                (false, false) => REFUSED,
            };
            assert_eq!(run(&program, ARCH, number, 0), expected, "call {number}");
        }
        // The x32 calls of x86-64 have a bit set and must not be taken for others.
        assert_eq!(run(&program, ARCH, 0x4000_0000, 0), UNKNOWN);
    }

    #[test]
    fn arguments_decide_where_the_table_says_so() {
        let allow = libc::SECCOMP_RET_ALLOW;
        assert_eq!(profile(libc::SYS_clone, libc::CLONE_VM as u64), allow);
        assert_eq!(profile(libc::SYS_clone, libc::CLONE_NEWUSER as u64), REFUSED);
        assert_eq!(profile(libc::SYS_clone, libc::CLONE_NEWNS as u64), REFUSED);
        assert_eq!(profile(libc::SYS_clone3, 0), UNKNOWN);
        assert_eq!(profile(libc::SYS_socket, libc::AF_INET as u64), allow);
        assert_eq!(profile(libc::SYS_socket, libc::AF_VSOCK as u64), REFUSED);
        assert_eq!(profile(libc::SYS_personality, 0xFFFF_FFFF), allow);
        assert_eq!(profile(libc::SYS_personality, 0x2_0008), allow);
        assert_eq!(profile(libc::SYS_personality, 0x40_0000), REFUSED);
    }

    #[test]
    fn calls_of_another_architecture_kill() {
        let program = Profile::compile().unwrap().0;
        assert_eq!(run(&program, 0x4000_0003, 1, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn the_table_names_no_call_twice() {
        let all = [ALLOWED, ALLOWED_HERE, ALLOWED_NEWER].concat();
        let mut numbers: Vec<_> = all.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
