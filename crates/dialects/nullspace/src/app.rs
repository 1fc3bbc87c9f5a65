//! What all routes share.

use std::sync::Arc;

use ashlar_core::Timestamp;
use ashlar_service::{Actor, DialectStore, Service};

use crate::DIALECT;
use crate::errors::Answer;
use crate::logs::Positions;

/// How often a change of a document is tried again that somebody else changed meanwhile.
pub(crate) const CHANGE_TRIES_MAX: usize = 32;

/// The dialect over a service.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) service: Arc<Service>,
    pub(crate) objects: DialectStore,
    pub(crate) positions: Positions,
}

impl App {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        let objects = service.dialect(DIALECT);
        Self { service, objects, positions: Positions::default() }
    }

    /// Returns who sent a request.
    pub(crate) async fn authenticate(&self, header: Option<&str>) -> Answer<Actor> {
        let token = header.and_then(|h| {
            let (scheme, token) = h.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token.filter(|t| !t.is_empty()) {
            Some(token) => Ok(self.service.authenticate(token).await?),
            None => {
                Err(self.service.unknown("send an API key: 'Authorization: Bearer <key>'").into())
            }
        }
    }
}

/// Returns the time now.
pub(crate) fn now() -> Timestamp {
    ashlar_service::now()
}
