//! What every HTTP door shares and none of them should know twice: where a request came from
//! ([`Origin`], behind proxies too), a listener whose connections end ([`serve()`]), and the
//! numbers of requests ([`Requests`]).

mod body;
mod forwarded;
mod origin;
mod proxies;
mod public;
mod requests;
mod server;

pub use body::discard;
pub use origin::{Origin, Scheme};
pub use proxies::{ProxyError, TrustedProxies};
pub use public::{PublicUrl, PublicUrlError};
pub use requests::Requests;
pub use server::{Patience, serve, serve_with};
