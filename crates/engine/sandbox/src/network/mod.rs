//! What a step can reach.
//!
//! - `none`: a fresh namespace with its own loopback and nothing else.
//! - `host`: the host's network; only for builds that were allowed to.
//! - `isolated`: a namespace with one link to the host, from where packets are forwarded and translated, see
//!   [`isolated`]. The rules are outside of the namespace, so that no raw packet gets around them.

mod loopback;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::SandboxError;
use crate::error::During;

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
