//! Pid 1 of a session: a program of a few instructions that waits for ever.
//!
//! The processes of a session come and go, so none of them can be pid 1. What is needed is a process that does nothing
//! and holds no memory of the engine, hence a program of its own and not a copy of ours. It ignores SIGCHLD (set before
//! exec, kept across it), so the kernel reaps orphans by itself. It runs with no capability.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const ADDRESS: u64 = 0x40_0000;

/// `loop { pause() }`
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34 (pause)
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the start
];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

/// `loop { ppoll(NULL, 0, NULL, NULL) }`
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, // mov x0, #0
    0x01, 0x00, 0x80, 0xd2, // mov x1, #0
    0x02, 0x00, 0x80, 0xd2, // mov x2, #0
    0x03, 0x00, 0x80, 0xd2, // mov x3, #0
    0x28, 0x09, 0x80, 0xd2, // mov x8, #73 (ppoll)
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0xfa, 0xff, 0xff, 0x17, // b to the start
];
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Makes the program in a sealed memory file.
pub(crate) fn program() -> rustix::io::Result<OwnedFd> {
    let file = memfd_create(c"ashlar-init", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let image = image();
    let mut rest = image.as_slice();
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// Writes the program to a file, for runtimes that take only paths.
pub(crate) fn write(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o755).open(path)?;
    std::io::Write::write_all(&mut file, &image())
}

/// An ELF file with one read-only executable segment.
fn image() -> Vec<u8> {
    let size = (HEADER + PROGRAM_HEADER + CODE.len()) as u64;
    let entry = ADDRESS + (HEADER + PROGRAM_HEADER) as u64;
    let mut out = Vec::with_capacity(size as usize);
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bit, little endian, version 1
    out.extend(2u16.to_le_bytes()); // executable
    out.extend(MACHINE.to_le_bytes());
    out.extend(1u32.to_le_bytes()); // version
    out.extend(entry.to_le_bytes());
    out.extend((HEADER as u64).to_le_bytes()); // program headers
    out.extend(0u64.to_le_bytes()); // no sections
    out.extend(0u32.to_le_bytes()); // flags
    for half in [HEADER as u16, PROGRAM_HEADER as u16, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes()); // PT_LOAD
    out.extend(5u32.to_le_bytes()); // read, execute
    for word in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out.extend(CODE);
    out
}
