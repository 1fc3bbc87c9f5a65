//! The system calls that rustix does not wrap, each behind a safe or narrowly unsafe function.
//!
//! Nothing here allocates, so that all of it may be called between `clone3` and `execve`.

use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Flags of `clone3` that don't fit the C library crate's type.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What `clone3` returned.
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: pid and pidfd of the new process.
    Parent(i32, OwnedFd),
}

/// Turns a raw return value into a result.
pub(crate) fn check(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value == -1 { Err(last_errno()) } else { Ok(value) }
}

fn last_errno() -> Errno {
    // SAFETY: returns the calling thread's errno slot, which is always valid.
    #[expect(unsafe_code, reason = "errno of a raw system call")]
    let code = unsafe { *libc::__errno_location() };
    Errno::from_raw_os_error(code)
}

/// Makes a process with a copy of this one's memory, a pidfd, and default handlers for all handled signals.
///
/// # Safety
/// As after fork in a threaded program: the child may only make system calls on data that exists already, must not
/// allocate, lock or panic, and must end in exec or exit.
#[expect(unsafe_code, reason = "returns twice")]
pub(crate) unsafe fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // SAFETY: `clone_args` is plain data for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | into | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: the structure outlives the call and has the size given; no new stack is asked for, so the child goes on
    // with a copy of this one. The caller promises the rest.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Cloned::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Sets attributes on a mount, and on those below it when `recursive`.
pub(crate) fn mount_setattr(mount: impl AsFd, set: u64, recursive: bool) -> Result<(), Errno> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let attr = MountAttr { set, clear: 0, propagation: 0, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty C string and a structure of the size given, both alive during the call.
    #[expect(unsafe_code, reason = "not in rustix")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// Marks every descriptor from `first` on as closed at exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: changes descriptor flags only.
    #[expect(unsafe_code, reason = "not in rustix")]
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result).map(drop)
}

/// Gives every signal its default action; Rust programs ignore SIGPIPE, and exec keeps ignored signals ignored.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        set_action(signal, libc::SIG_DFL);
    }
}

/// Lets the kernel reap children by itself; kept across exec.
pub(crate) fn ignore_children() {
    set_action(libc::SIGCHLD, libc::SIG_IGN);
}

/// Sets a signal's action to one that needs no handler. SIGKILL and SIGSTOP refuse, which is as well.
fn set_action(signal: i32, action: libc::sighandler_t) {
    // The kernel's structure: handler, flags, restorer, mask. The C library's call would refuse its own two signals.
    let action: [u64; 4] = [action as u64, 0, 0, 0];
    // SAFETY: the structure is alive during the call and at least as long as the kernel's.
    #[expect(unsafe_code, reason = "not in rustix")]
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
    }
}

/// Blocks all signals of the calling thread, or none.
pub(crate) fn block_signals(block: bool) {
    // The kernel's signal set is 64 bits; the C library's wrapper would keep its own two signals unblocked.
    let set: u64 = if block { u64::MAX } else { 0 };
    // SAFETY: the set is alive during the call and has the size given.
    #[expect(unsafe_code, reason = "not in rustix")]
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
    }
}

/// Adds a seccomp filter to the calling thread. Needs CAP_SYS_ADMIN or no_new_privs.
pub(crate) fn add_filter(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads, and copies the program during the call.
    #[expect(unsafe_code, reason = "not in rustix")]
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    check(result).map(drop)
}

/// Replaces the process image; returns only on failure.
///
/// # Safety
/// `argv` and `env` are arrays of pointers to C strings that end with a null pointer.
#[expect(unsafe_code, reason = "raw pointers")]
pub(crate) unsafe fn execve(
    path: &CStr,
    argv: *const *const c_char,
    env: *const *const c_char,
) -> Errno {
    // SAFETY: promised by the caller.
    unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv, env) };
    last_errno()
}

/// Replaces the process image by the program behind a descriptor, with no environment; returns only on failure.
pub(crate) fn fexec(program: BorrowedFd<'_>, name: &CStr) -> Errno {
    let argv = [name.as_ptr(), std::ptr::null()];
    let env = [std::ptr::null::<c_char>()];
    // SAFETY: the arrays end with null and are alive during the call.
    #[expect(unsafe_code, reason = "not in rustix")]
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// Ends the process without running any destructor.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    #[expect(unsafe_code, reason = "rustix has no exit")]
    unsafe {
        libc::_exit(code)
    }
}

/// How a child ended, and its processor time in microseconds.
pub(crate) struct Waited {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) cpu_micros: u64,
}

/// Reaps a child that is known to have ended or soon will.
pub(crate) fn wait(pid: i32) -> Result<Waited, Errno> {
    let mut status = 0;
    // SAFETY: plain data, zero is valid.
    #[expect(unsafe_code, reason = "out parameter")]
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both out parameters are alive during the call.
        #[expect(unsafe_code, reason = "rustix has no rusage with wait")]
        let result = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        match check(result.into()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Ok(Waited {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu_micros: micros(usage.ru_utime) + micros(usage.ru_stime),
    })
}

/// Kills a process group by its leader, which must not have been reaped yet.
pub(crate) fn kill_group(leader: i32) {
    // SAFETY: sends a signal; a group that is gone already is not an error here.
    #[expect(unsafe_code, reason = "keeps the raw pid type")]
    unsafe {
        libc::kill(-leader, libc::SIGKILL);
    }
}

/// Makes the descriptor `number` a copy of `fd` that stays open at exec. Atomic even when both are the same number.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    // SAFETY: only the new process calls this, for its standard streams, which nothing in it owns.
    #[expect(unsafe_code, reason = "the standard streams have no owner")]
    let result = unsafe {
        if fd.as_raw_fd() == number {
            libc::fcntl(number, libc::F_SETFD, 0)
        } else {
            libc::syscall(libc::SYS_dup3, fd.as_raw_fd(), number, 0) as i32
        }
    };
    check(result.into()).map(drop)
}
