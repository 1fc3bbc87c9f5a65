//! Which server a command speaks to.

use clap::Args;

/// The server that is asked in place of this machine.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Ashlar server to ask in place of this machine, e.g. http://127.0.0.1:7070
    #[arg(long, value_name = "URL", env = "ASHLAR_SERVER")]
    pub(crate) server: Option<String>,
    /// Token for the server; set the variable, since everybody sees command lines
    #[arg(long, value_name = "TOKEN", env = "ASHLAR_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Tenant that an admin acts for [default: the token's own]
    #[arg(long, value_name = "NAME", env = "ASHLAR_TENANT")]
    pub(crate) tenant: Option<String>,
}
