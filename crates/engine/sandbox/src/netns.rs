//! Connections into a sandbox from outside, for probes of what runs there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Connects to a port on the loopback address of a network namespace, within `timeout`.
///
/// A thread of its own enters the namespace and ends there: a thread that came back could carry
/// something over.
///
/// # Errors
/// When the namespace cannot be entered or nothing accepts.
pub fn connect_in(namespace: &OwnedFd, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let enter = || -> io::Result<TcpStream> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect_timeout(&address, timeout)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(enter).join();
        thread.unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked")))
    })
}
