//! Hears from the kernel that a write was refused.
//!
//! A program that is refused often removes what it has written so far before it gives up, so usage alone does not tell
//! why it failed. The kernel multicasts each refusal (generic netlink family `VFS_DQUOT`, linux/quota.h).

use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::kernel::PROJECT;

/// Number of the family and of its only multicast group; the kernel keeps both fixed (linux/genetlink.h).
const VFS_DQUOT: u16 = 17;
/// Lengths of the netlink and of the generic netlink header.
const HEADERS: usize = 16 + 4;
/// Attributes of a message.
const QUOTA_TYPE: u16 = 1;
const EXCEEDED_ID: u16 = 2;
const WARNING: u16 = 3;
/// The hard limit on blocks refused a request.
const BLOCKS_HARD: u64 = 3;
/// Longest message; the kernel's have about 80 bytes.
const MESSAGE_MAX: usize = 512;
/// Messages read at once, so that a flood by others holds nobody up.
const MESSAGES_MAX: usize = 1024;

/// A subscription to the refusals of all projects.
#[derive(Debug)]
pub(super) struct Refusals(OwnedFd);

impl Refusals {
    /// Subscribes. In a network namespace other than the first one nothing will ever come.
    pub(super) fn subscribe() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(GENERIC))?;
        bind(&socket, &SocketAddrNetlink::new(0, 1 << (VFS_DQUOT - 1)))?;
        Ok(Self(socket))
    }

    /// Reads what has come and tells whether a write of `project` was refused.
    pub(super) fn read(&self, project: u32) -> bool {
        let mut buffer = [0u8; MESSAGE_MAX];
        let mut found = false;
        for _ in 0..MESSAGES_MAX {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => found |= is_refusal(&buffer[..length], project),
                // Lost messages: the next ones still count, and so does the usage.
                Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(_) => break,
            }
        }
        found
    }
}

/// Tells whether a message says that the hard limit on blocks refused a request of `project`.
fn is_refusal(message: &[u8], project: u32) -> bool {
    let Some((headers, mut rest)) = message.split_at_checked(HEADERS) else { return false };
    if headers[4..6] != VFS_DQUOT.to_ne_bytes() {
        return false;
    }
    let (mut kind, mut id, mut warning) = (None, None, None);
    while let Some((name, value, after)) = attribute(rest) {
        match name {
            QUOTA_TYPE => kind = Some(value),
            EXCEEDED_ID => id = Some(value),
            WARNING => warning = Some(value),
            _ => {}
        }
        rest = after;
    }
    (kind, id, warning) == (Some(PROJECT.into()), Some(project.into()), Some(BLOCKS_HARD))
}

/// Cuts off one attribute: name, value, and what follows. Values that are no numbers read as zero.
fn attribute(bytes: &[u8]) -> Option<(u16, u64, &[u8])> {
    let (header, _) = bytes.split_at_checked(4)?;
    let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
    let name = u16::from_ne_bytes([header[2], header[3]]);
    let value = match *bytes.get(4..length)? {
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    };
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((name, value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u32, id: u64, warning: u32) -> Vec<u8> {
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&VFS_DQUOT.to_ne_bytes());
        let mut add = |name: u16, value: &[u8]| {
            message.extend((4 + value.len() as u16).to_ne_bytes());
            message.extend(name.to_ne_bytes());
            message.extend(value);
        };
        add(QUOTA_TYPE, &kind.to_ne_bytes());
        add(7, &[]);
        add(EXCEEDED_ID, &id.to_ne_bytes());
        add(WARNING, &warning.to_ne_bytes());
        message
    }

    #[test]
    fn only_a_refusal_of_the_project_counts() {
        assert!(is_refusal(&message(2, 77, 3), 77));
        assert!(!is_refusal(&message(2, 78, 3), 77), "another project");
        assert!(!is_refusal(&message(0, 77, 3), 77), "a user's quota");
        assert!(!is_refusal(&message(2, 77, 5), 77), "a soft limit");
    }

    #[test]
    fn malformed_messages_are_nothing() {
        let whole = message(2, 77, 3);
        for length in 0..whole.len() {
            assert!(!is_refusal(&whole[..length], 77), "{length}");
        }
        let mut endless = whole.clone();
        endless[HEADERS..HEADERS + 2].copy_from_slice(&0u16.to_ne_bytes());
        assert!(!is_refusal(&endless, 77));
        let mut other = whole;
        other[4] ^= 1;
        assert!(!is_refusal(&other, 77));
    }

    #[test]
    fn subscribing_works_on_this_kernel() {
        assert!(!Refusals::subscribe().unwrap().read(1));
    }
}
