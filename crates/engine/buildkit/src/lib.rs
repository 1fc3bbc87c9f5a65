//! The second executor: Dockerfiles built by BuildKit daemons, their images taken in here.
//!
//! [`Buildkit`] holds the daemons that are configured ([`Address`]), picks one for a build (the one
//! that built the same thing last, else the one with the least work), drives it, and tries another
//! when it dies. A daemon is a `dockerd`, whose BuildKit is reached through upgraded connections, or
//! a `buildkitd`; which of both answers is found out.
//!
//! The way of one build, in `work`: a [`session`] is opened on which the daemon asks us for
//! files, secrets and logins; the `Solve` call runs BuildKit's own Dockerfile frontend; its progress
//! becomes journal entries ([`progress`]), its errors [`failure`]s; the image comes back as an
//! archive ([`image`]) and is kept among the local images as if it had been built here.
//!
//! What a daemon cannot do is said by [`unfit`] before a build is given to it.

mod address;
mod attrs;
mod bases;
mod build;
mod chain;
mod connect;
mod daemon;
mod dockerfile;
mod failure;
mod http;
mod image;
mod patience;
mod pool;
mod progress;
mod session;
mod stop;
mod sync;
mod tls;
mod trouble;
mod unfit;
mod work;

pub use address::{Address, AddressError};
pub use bases::unfit_base;
pub use build::{BUILDKIT_KEY, Buildkit, Job, Made};
pub use patience::Patience;
pub use sync::Sent;
pub use tls::{Certificates, TlsError};
pub use unfit::unfit;
