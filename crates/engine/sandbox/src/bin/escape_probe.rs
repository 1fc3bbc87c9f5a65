//! Makes one system call inside a sandbox and prints what came of it: the hand that `tests/escape.rs` plays with.
//!
//! `call NUMBER ARG...` prints `= VALUE` or the error. An argument is a number, `s:text` for a string, or
//! `z:SIZE` for zeroed memory; `x:HEX` is memory with content. Other words are tricks that take several calls.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]

use std::ffi::CString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["call", number, ref rest @ ..] => println!("{}", call(number, rest)),
        ["connect-abstract", name] => {
            let address = SocketAddr::from_abstract_name(name).unwrap();
            match UnixStream::connect_addr(&address) {
                Ok(_) => println!("connected"),
                Err(error) => println!("{}", error.kind()),
            }
        }
        ["chroot-escape"] => println!("{}", chroot_escape()),
        ["int80"] => int80(),
        _ => println!("unknown trick {args:?}"),
    }
}

/// One call with up to six arguments.
fn call(number: &str, args: &[&str]) -> String {
    let mut keep: Vec<Vec<u8>> = Vec::new();
    let mut values = [0i64; 6];
    for (value, arg) in values.iter_mut().zip(args) {
        let memory = if let Some(text) = arg.strip_prefix("s:") {
            CString::new(text).unwrap().into_bytes_with_nul()
        } else if let Some(size) = arg.strip_prefix("z:") {
            vec![0; size.parse().unwrap()]
        } else if let Some(hex) = arg.strip_prefix("x:") {
            let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
        } else {
            *value = arg.parse().unwrap();
            continue;
        };
        *value = memory.as_ptr() as i64;
        keep.push(memory);
    }
    let [a, b, c, d, e, f] = values;
    // SAFETY: an adversary would not care; the memory named in the arguments is alive.
    #[expect(unsafe_code, reason = "tries any system call")]
    let result = unsafe { libc::syscall(number.parse().unwrap(), a, b, c, d, e, f) };
    if result == -1 {
        return std::io::Error::last_os_error().to_string();
    }
    format!("= {result}")
}

/// The classic: keep a directory outside of a second chroot and climb from there.
fn chroot_escape() -> String {
    let outside = std::fs::File::open("/").unwrap();
    std::fs::create_dir_all("/tmp/jail").unwrap();
    rustix::process::chroot("/tmp/jail").unwrap();
    rustix::process::fchdir(&outside).unwrap();
    for _ in 0..64 {
        rustix::process::chdir("..").unwrap();
    }
    rustix::process::chroot(".").unwrap();
    let mut names: Vec<_> = std::fs::read_dir("/")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.join(" ")
}

/// A call by the 32-bit gate, which a filter of 64-bit numbers would misjudge.
fn int80() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: getpid by its 32-bit number touches no memory.
    #[expect(unsafe_code, reason = "the gate can only be used from assembly")]
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20i64 => _, options(nostack));
    }
    println!("survived");
}
