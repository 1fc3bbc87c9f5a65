//! Commands against a server: `ashlar build --server`, and what others need for it.
//!
//! `bases` finds the images that a build stands on, `context` finds out what a context holds, `submission` says in the API's words what is wanted,
//! `build` uploads and submits, `follow` shows what happens, `outputs` brings results home.

mod bases;
mod build;
mod context;
mod follow;
mod identity;
mod outputs;
mod retry;
mod submission;

use anyhow::Result;
use ashlar_client::{Client, Settings as ClientSettings};

use super::builds::told_text;
use super::{Usage, usage};
use crate::cli::server::ServerArgs;
use crate::settings::Settings;

pub(super) use build::run as build;
pub(super) use identity::{tenants, token};
pub(super) use retry::retry;

/// Returns a client of the server that a command names; none when it names none.
///
/// # Errors
/// When the address or the token is none.
pub(super) fn connect(settings: &Settings, args: &ServerArgs) -> Result<Option<Client>> {
    // A variable that is set to nothing is not set.
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let Some(server) = given(&args.server) else { return Ok(None) };
    let Some(token) = given(&args.token) else {
        return usage(format!("--server {server} needs a token: set ASHLAR_TOKEN, or --token"));
    };
    let client = ClientSettings {
        server,
        token: token.trim().to_owned(),
        tenant: given(&args.tenant),
        ca_bundle: settings.ca_bundle.clone(),
    };
    Client::new(&client).map(Some).map_err(told)
}

/// Returns a client of the server that a command cannot do without.
///
/// # Errors
/// As [`connect`]; when no server is named.
fn needed(settings: &Settings, args: &ServerArgs) -> Result<Client> {
    match connect(settings, args)? {
        Some(client) => Ok(client),
        None => {
            usage("tokens and tenants are a server's: name it with --server URL or ASHLAR_SERVER")
        }
    }
}

/// Turns a client's error into the command's: what was typed wrongly has an exit code of its own.
pub(super) fn told(error: ashlar_client::Error) -> anyhow::Error {
    match error.is_usage() {
        true => Usage(told_text(&error)).into(),
        false => error.into(),
    }
}
