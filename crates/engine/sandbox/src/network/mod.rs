//! What a step can reach.
//!
//! - `none`: a fresh namespace with its own loopback and nothing else.
//! - `host`: the host's network; only for builds that were allowed to.
//! - `isolated`: a namespace with one link to the host, from where packets are forwarded and translated by nftables.
//!   The rules (`rules`) are on the host's side of the link, so no raw packet of a step gets around them.

mod isolated;
mod loopback;
mod netlink;
mod resolvers;
mod rules;
mod tools;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::SandboxError;
use crate::error::During;
pub(crate) use isolated::Isolated;

/// Settings of isolated networks.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Addresses and networks (such as `10.0.0.0/8`) that isolated steps can't reach, besides those never reachable.
    pub deny: Vec<String>,
    /// Resolvers of isolated steps, reachable on port 53 whatever the deny list says; empty takes the host's.
    pub resolvers: Vec<IpAddr>,
    /// Namespaces kept ready once the first isolated step has run.
    pub pool: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { deny: Vec::new(), resolvers: Vec::new(), pool: 2 }
    }
}

/// How one sandbox is attached.
pub(crate) enum Attachment {
    /// The host's network.
    Host,
    /// A namespace still to be made.
    Loopback,
    /// A prepared namespace and the resolvers that can be reached from it.
    Prepared(OwnedFd, Vec<IpAddr>),
}

impl Attachment {
    /// Moves the calling thread there; for `Loopback` it is in the fresh namespace already.
    pub(crate) fn enter(&self) -> Result<(), SandboxError> {
        match self {
            Self::Host => Ok(()),
            Self::Loopback => loopback::configure().during("bringing up the loopback device"),
            Self::Prepared(namespace, _) => {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .during("entering the prepared network namespace")
            }
        }
    }

    /// Resolvers for `/etc/resolv.conf`.
    pub(crate) fn resolvers(&self) -> &[IpAddr] {
        match self {
            Self::Prepared(_, resolvers) => resolvers,
            _ => &[],
        }
    }
}
