//! `ashlar token` and `ashlar tenants`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use ashlar_client::{NewToken, Principal, Token};
use ashlar_core::Timestamp;

use super::{needed, told};
use crate::cli::identity::{CreateTokenArgs, TenantsCommand, TokenCommand};
use crate::commands::usage;
use crate::output::{Table, ago, json, line, note};
use crate::settings::Settings;
use crate::values;

/// Runs `ashlar token`.
pub(in crate::commands) fn token(settings: &Settings, command: TokenCommand) -> Result<ExitCode> {
    match command {
        TokenCommand::Create(args) => create(settings, &args)?,
        TokenCommand::List(args) => {
            let client = needed(settings, &args.server)?;
            let tokens = client.tokens().map_err(told)?;
            if args.json.json {
                tokens.iter().try_for_each(json)?;
            } else {
                token_table(&tokens, &client.principals().map_err(told)?).print()?;
            }
        }
        TokenCommand::Revoke(args) => {
            needed(settings, &args.server)?.revoke_token(&args.id).map_err(told)?;
            note(format!("the token {} is revoked", args.id));
        }
        TokenCommand::Show(args) => {
            let whoami = needed(settings, &args.server)?.whoami().map_err(told)?;
            if args.json.json {
                json(&whoami)?;
            } else {
                line(format!("tenant     {}", whoami.tenant))?;
                line(format!("principal  {}", whoami.principal))?;
                line(format!("role       {}", whoami.role.as_str()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(settings: &Settings, args: &CreateTokenArgs) -> Result<()> {
    let new = NewToken {
        principal: args.principal.clone(),
        role: args.role,
        name: args.name.clone(),
        expires_at: args.expires.as_deref().map(end).transpose()?,
    };
    let token = needed(settings, &args.server)?.make_token(&new).map_err(told)?;
    if args.json.json {
        json(&token)?;
        return Ok(());
    }
    // Alone on standard output, so that it can be captured; it cannot be had again.
    line(token.token.as_deref().unwrap_or_default())?;
    note(format!("the token {} acts as {} ({})", token.id, args.principal, token.role.as_str()));
    Ok(())
}

/// Reads when a token ends.
fn end(text: &str) -> Result<Timestamp> {
    if let Some(time) = Timestamp::parse(text) {
        return Ok(time);
    }
    match values::duration(text) {
        Ok(time) => Ok(after(time)),
        Err(_) => usage(format!("--expires {text}: write e.g. 90d, or 2030-01-31T00:00:00Z")),
    }
}

fn after(time: Duration) -> Timestamp {
    let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(ashlar_records::now().nanos().saturating_add(nanos))
}

fn token_table(tokens: &[Token], principals: &[Principal]) -> Table {
    let mut table = Table::new(["TOKEN", "PRINCIPAL", "ROLE", "NAME", "CREATED", "STATE"]);
    let now = ashlar_records::now();
    for token in tokens {
        let state = match (token.revoked_at, token.expires_at) {
            (Some(at), _) => format!("revoked {}", ago(at)),
            (None, Some(at)) if at <= now => format!("expired {}", ago(at)),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "good".to_owned(),
        };
        let (role, name) = (token.role.as_str().to_owned(), token.name.clone());
        let whose = principals.iter().find(|p| p.id.to_string() == token.principal);
        let whose = whose.map_or(&token.principal, |p| &p.name).clone();
        table.row([token.id.clone(), whose, role, name, ago(token.created_at), state]);
    }
    table
}

/// Runs `ashlar tenants`.
pub(in crate::commands) fn tenants(
    settings: &Settings,
    command: TenantsCommand,
) -> Result<ExitCode> {
    match command {
        TenantsCommand::List(args) => {
            let tenants = needed(settings, &args.server)?.tenants().map_err(told)?;
            if args.json.json {
                tenants.iter().try_for_each(json)?;
            } else {
                let mut table = Table::new(["TENANT", "NAME"]);
                tenants.iter().for_each(|t| table.row([t.id.to_string(), t.name.clone()]));
                table.print()?;
            }
        }
        TenantsCommand::Create(args) => {
            let tenant = needed(settings, &args.server)?.make_tenant(&args.name).map_err(told)?;
            match args.json.json {
                true => json(&tenant)?,
                false => line(format!("{} {}", tenant.id, tenant.name))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
