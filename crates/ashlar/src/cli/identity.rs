//! `ashlar token` and `ashlar tenants`: who may use a server.

use ashlar_core::identity::Role;
use clap::{Args, Subcommand};

use super::JsonArgs;
use super::server::ServerArgs;

/// Commands about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its text is printed once
    Create(CreateTokenArgs),
    /// List the tenant's tokens, without their texts
    #[command(visible_alias = "ls")]
    List(PlainArgs),
    /// Revoke a token for good
    Revoke(RevokeTokenArgs),
    /// Say whose token is used
    Show(PlainArgs),
}

/// Commands about tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// List the tenants that the token may know of
    #[command(visible_alias = "ls")]
    List(PlainArgs),
    /// Make a tenant
    Create(CreateTenantArgs),
}

/// Nothing but the server.
#[derive(Debug, Args)]
pub(crate) struct PlainArgs {
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
#[command(after_help = "Example: ashlar token create ci --role developer --expires 90d")]
pub(crate) struct CreateTokenArgs {
    /// Who acts with it; made when new
    pub(crate) principal: String,
    /// What it allows: reader, developer, owner or admin
    #[arg(long, value_name = "ROLE", default_value = "developer", value_parser = role)]
    pub(crate) role: Role,
    /// A name for people
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) name: String,
    /// When it ends: after a TIME (e.g. 90d), or at an RFC 3339 time [default: never]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<String>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeTokenArgs {
    /// The token's id, as `token list` shows it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `tenants create`.
#[derive(Debug, Args)]
pub(crate) struct CreateTenantArgs {
    /// Its name: letters, digits, _ and -
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Role::ALL.iter().map(|r| r.as_str()).collect();
        format!("there is no role '{text}'; use {}", all.join(", "))
    })
}
