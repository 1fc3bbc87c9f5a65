//! The few requests of rtnetlink(7) that make the link of a step: a pair of devices, addresses, a route.
//!
//! One message each, answered at once: a program for it would take longer to start than the whole step to run. The
//! numbers are those of `linux/netlink.h`, `rtnetlink.h`, `if_link.h`, `if_addr.h` and `veth.h`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Each attribute and message begins at a multiple of this.
const ALIGNMENT: usize = 4;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Longer than any answer to a request of ours: an error with the request itself in it.
const ANSWER_BYTES_MAX: usize = 1024;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x2;

const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// A socket that speaks of the devices of one network namespace, whichever thread uses it.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one for the namespace that the calling thread is in.
    pub(crate) fn open() -> io::Result<Self> {
        // The protocol that is none stands for NETLINK_ROUTE, which is 0.
        let kind = SocketType::RAW;
        Ok(Self(socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, None)?))
    }

    /// Makes the device `link` here, joined to `eth0` in the namespace `there`.
    pub(crate) fn add_pair(&self, link: &str, there: &OwnedFd) -> io::Result<()> {
        let mut request = Request::link(0, 0, NLM_F_CREATE | NLM_F_EXCL);
        request.name(link);
        request.nest(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.0.extend([0; 16]);
                    peer.name("eth0");
                    peer.attribute(IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.ask(request)
    }

    /// The number of a device.
    pub(crate) fn index(&self, link: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.0, link)?)
    }

    /// Keeps a device from giving itself IPv6 addresses, which it would do once it is up.
    pub(crate) fn no_own_addresses(&self, index: u32) -> io::Result<()> {
        let mut request = Request::link(index, 0, 0);
        request.nest(IFLA_AF_SPEC, |families| {
            families.nest(AddressFamily::INET6.as_raw(), |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
        self.ask(request)
    }

    /// Brings a device up.
    pub(crate) fn up(&self, index: u32) -> io::Result<()> {
        self.ask(Request::link(index, libc::IFF_UP as u32, 0))
    }

    /// Gives a device an address; nobody else can have it, so nobody is asked.
    pub(crate) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let (family, bytes) = parts(address);
        let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
        request.0.extend([family, prefix, flags, 0]);
        request.0.extend(index.to_ne_bytes());
        request.attribute(IFA_LOCAL, &bytes);
        request.attribute(IFA_ADDRESS, &bytes);
        self.ask(request)
    }

    /// Sends everything that has no nearer way to `gateway`.
    pub(crate) fn add_default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let (family, bytes) = parts(gateway);
        let mut request = Request::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
        request.0.extend([family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
        request.0.extend(0_u32.to_ne_bytes());
        request.attribute(RTA_GATEWAY, &bytes);
        request.attribute(RTA_OIF, &index.to_ne_bytes());
        self.ask(request)
    }

    /// Sends a request and waits for the kernel's word on it.
    fn ask(&self, request: Request) -> io::Result<()> {
        let message = request.finish();
        send(&self.0, &message, SendFlags::empty())?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let length = loop {
            match recv(&self.0, &mut answer, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => break received?.0,
            }
        };
        match error_of(&answer[..length.min(ANSWER_BYTES_MAX)]) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::Error::other("the kernel gave an answer that is none")),
        }
    }
}

/// The code in an answer: 0 or a negative error number.
fn error_of(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(HEADER_BYTES..HEADER_BYTES + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR && code <= 0).then_some(code)
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AddressFamily::INET.as_raw() as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::INET6.as_raw() as u8, address.octets().to_vec()),
    }
}

/// A message in the making.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        // Length and sequence number come last and never.
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        Self(bytes)
    }

    /// A request about a device, with the flags of `struct ifinfomsg` that it shall get.
    fn link(index: u32, device_flags: u32, flags: u16) -> Self {
        let mut request = Self::new(RTM_NEWLINK, flags);
        request.0.extend([0; 4]);
        for word in [index, device_flags, device_flags] {
            request.0.extend(word.to_ne_bytes());
        }
        request
    }

    fn name(&mut self, name: &str) {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(IFLA_IFNAME, &bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inside| inside.0.extend(value));
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        // All of ours together have a few hundred bytes.
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_nested_and_padded() {
        let mut request = Request::new(RTM_NEWADDR, 0);
        request.nest(7, |inside| inside.attribute(9, b"abcde"));
        let bytes = request.finish();
        assert_eq!(bytes.len(), HEADER_BYTES + 4 + 12);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), bytes.len() as u32);
        let halves: Vec<u16> = bytes[HEADER_BYTES..HEADER_BYTES + 8]
            .chunks(2)
            .map(|half| u16::from_ne_bytes(half.try_into().unwrap()))
            .collect();
        assert_eq!(halves, [16, 7, 9, 9], "outer length and kind, inner ones without the padding");
        assert_eq!(&bytes[HEADER_BYTES + 8..], b"abcde\0\0\0");
    }

    #[test]
    fn the_kernel_s_refusal_is_an_error() {
        let netlink = Netlink::open().unwrap();
        let error = netlink.up(u32::MAX >> 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(netlink.index("ash-no-such").is_err());
    }

    #[test]
    fn an_odd_answer_is_no_success() {
        assert_eq!(error_of(&[]), None);
        assert_eq!(error_of(&[0; 20]), None, "not an answer to a request");
    }
}
