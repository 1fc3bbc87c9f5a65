//! Sets up the loopback device of the network namespace that the calling thread is in.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Brings `lo` up. The thread sees its own namespace in `/proc/sys/net`, where ping and low ports are then opened to
/// every user, as in Docker's containers.
pub(crate) fn configure() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: plain data for which zero is valid.
    #[expect(unsafe_code, reason = "structure of an ioctl")]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which is alive during the call.
    #[expect(unsafe_code, reason = "rustix has no interface ioctls")]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}
