//! What lies around every route of every listener: where the request came from, its id, a span and
//! a line in the log, numbers, and a net under panics.

use std::net::IpAddr;
use std::sync::Arc;

use ashlar_http::{Origin, Requests, TrustedProxies};
use ashlar_service::{ClientInfo, Error, Service};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::problem;

/// The header with a request's id; a client may bring one.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids of clients are replaced, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What all listeners share.
#[derive(Clone)]
pub(crate) struct Around {
    requests: Requests,
    proxies: TrustedProxies,
    /// Prefixes below which dialects have routes of their own.
    doors: Arc<[&'static str]>,
}

impl Around {
    pub(crate) fn new(
        service: &Service,
        proxies: TrustedProxies,
        doors: Vec<&'static str>,
    ) -> Result<Self, Error> {
        let requests = Requests::new(service.metrics_registry()).map_err(Error::internal)?;
        Ok(Self { requests, proxies, doors: doors.into() })
    }

    /// Puts it around the routes of the main listener.
    pub(crate) fn all(&self, router: Router) -> Router {
        self.wrap(router, None)
    }

    /// Puts it around a dialect at the root of its own listener.
    pub(crate) fn door(&self, word: &'static str, router: Router) -> Router {
        self.wrap(router, Some(word))
    }

    fn wrap(&self, router: Router, door: Option<&'static str>) -> Router {
        let nosniff = HeaderValue::from_static("nosniff");
        let options = HeaderName::from_static("x-content-type-options");
        let (this, proxies) = (self.clone(), self.proxies.clone());
        router
            .layer(CatchPanicLayer::custom(problem::panicked))
            .layer(SetResponseHeaderLayer::if_not_present(options, nosniff))
            .layer(from_fn(move |request, next| this.clone().watched(door, request, next)))
            .layer(from_fn(move |request, next| proxies.clone().mark(request, next)))
    }

    async fn watched(
        self,
        door: Option<&'static str>,
        mut request: Request,
        next: Next,
    ) -> Response {
        let id = request_id(&mut request);
        let client = request.extensions().get::<Origin>().and_then(|o| o.client);
        let counted = match door {
            Some(word) => self.requests.begin_below(request.method(), word),
            None => self.requests.begin(request.method(), request.extensions(), &self.doors),
        };
        let info = client_info(&request, client, &id);
        // The path only: queries may hold what logs must not.
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
        async move {
            let mut response = info.scope(next.run(request)).await;
            let status = response.status();
            let millis = counted.answered(status).as_secs_f64() * 1000.0;
            let client = client.map(tracing::field::display);
            tracing::info!(
                target: "ashlar::access", %method, path, status = status.as_u16(), millis, client,
                "answered"
            );
            response.headers_mut().insert(REQUEST_ID, id);
            response
        }
        .instrument(span)
        .await
    }
}

fn client_info(request: &Request, address: Option<IpAddr>, id: &HeaderValue) -> ClientInfo {
    let mut parents = request.headers().get_all("traceparent").iter();
    // Two headers are none: nobody can say which is meant.
    let parent = match (parents.next(), parents.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    let request = id.to_str().ok().map(str::to_owned);
    ClientInfo::new(address, request).with_trace_parent(parent)
}

/// Returns the id of a request: the client's when it is short and plain, else a new one.
fn request_id(request: &mut Request) -> HeaderValue {
    let plain = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    if let Some(id) = request.headers().get(REQUEST_ID).filter(plain) {
        return id.clone();
    }
    let new = Uuid::new_v4().to_string();
    // A UUID is plain text.
    let id = HeaderValue::from_str(&new).unwrap_or_else(|_| HeaderValue::from_static("-"));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    id
}
