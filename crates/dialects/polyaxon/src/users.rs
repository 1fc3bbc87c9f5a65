//! Users: who am I, and a token for a password.

use ashlar_service::{Actor, Role, Service};
use axum::http::StatusCode;
use serde_json::json;

use crate::auth;
use crate::body::Fields;
use crate::error::{Answer, Refusal, reply};

/// Says who a token stands for. The CLI takes the name for the owner in later paths.
pub(crate) fn who_am_i(actor: &Actor) -> Answer {
    let principal = &actor.principal;
    let body = json!({
        "username": principal.name,
        "email": principal.email,
        "is_superuser": actor.role == Role::Admin,
    });
    Ok(reply(StatusCode::OK, &body))
}

/// Gives a token for a name and a password: the password is the token.
pub(crate) async fn log_in(service: &Service, fields: &Fields) -> Answer {
    let text =
        |name| fields.text(name)?.filter(|t| !t.is_empty()).ok_or_else(|| Refusal::required(name));
    let (username, password) = (text("username")?, text("password")?);
    let wrong = || Refusal::general("Unable to log in with provided credentials.");
    let actor = match auth::authenticate(service, &password).await {
        Err(Refusal::Unauthorized(_)) => return Err(wrong()),
        other => other?,
    };
    if actor.principal.name != username && actor.tenant.name != username {
        return Err(wrong());
    }
    Ok(reply(StatusCode::OK, &json!({ "token": password })))
}
