//! Who a request comes from.

use ashlar_service::Actor;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Problem;
use crate::app::Shared;

/// Names the tenant that an admin acts for.
pub(crate) const TENANT_HEADER: &str = "ashlar-tenant";
const NO_TOKEN: &str = "send a token: 'Authorization: Bearer TOKEN'";

/// The actor of a request that came with a good token.
pub(crate) struct Caller(pub(crate) Actor);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let actor = match token(&parts.headers) {
            Some(token) => shared.service.authenticate(&token).await,
            None => Err(shared.service.unknown(NO_TOKEN)),
        }?;
        let actor = match parts.headers.get(TENANT_HEADER) {
            None => actor,
            Some(name) => {
                let name = name.to_str().map_err(|e| Problem::invalid(TENANT_HEADER, e))?;
                shared.service.act_for(&actor, name).await?
            }
        };
        Ok(Self(actor))
    }
}

/// Returns the token in a request's headers: `Bearer TOKEN`, `Token TOKEN`, or the password of
/// `Basic`, which is what registry clients send.
pub(crate) fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(rest.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        return text.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}
