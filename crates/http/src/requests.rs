//! Numbers of requests, in a registry of Prometheus' own client library.

use std::time::{Duration, Instant};

use axum::extract::MatchedPath;
use axum::http::{Extensions, Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// Bounds of the histogram, in seconds: from an answer out of memory to a slow export.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// The route of requests that led nowhere: paths are the clients' words and without bound.
const NO_ROUTE: &str = "none";

/// Counts the requests of all listeners.
#[derive(Debug, Clone)]
pub struct Requests {
    answered: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
}

/// One request at work; counts as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    requests: Requests,
    method: &'static str,
    route: String,
    begun: Instant,
}

impl Requests {
    /// Makes the numbers and hands them to a registry.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let answered = Opts::new(
            "ashlar_http_requests_total",
            "Requests answered, by method, route and status.",
        );
        let seconds = HistogramOpts::new(
            "ashlar_http_request_duration_seconds",
            "Time until an answer began, by method and route.",
        );
        let requests = Self {
            answered: IntCounterVec::new(answered, &["method", "route", "status"])?,
            seconds: HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["method", "route"])?,
            in_flight: IntGauge::new(
                "ashlar_http_requests_in_flight",
                "Requests whose answer has not begun.",
            )?,
        };
        registry.register(Box::new(requests.answered.clone()))?;
        registry.register(Box::new(requests.seconds.clone()))?;
        registry.register(Box::new(requests.in_flight.clone()))?;
        Ok(requests)
    }

    /// Notes that a request came in at a door that has its own listener.
    pub fn begin_below(&self, method: &Method, door: &str) -> InFlight {
        self.start(method, format!("/{door}"))
    }

    /// Notes that a request came in. `doors` are prefixes below which routes are not the router's
    /// but a door's own; they count together.
    pub fn begin(&self, method: &Method, extensions: &Extensions, doors: &[&str]) -> InFlight {
        self.start(method, route(extensions, doors))
    }

    fn start(&self, method: &Method, route: String) -> InFlight {
        self.in_flight.inc();
        let (requests, begun) = (self.clone(), Instant::now());
        InFlight { requests, method: known(method), route, begun }
    }
}

impl InFlight {
    /// Counts the answer; returns how long it took.
    pub fn answered(self, status: StatusCode) -> Duration {
        let took = self.begun.elapsed();
        let labels = [self.method, &self.route, status.as_str()];
        self.requests.answered.with_label_values(&labels).inc();
        self.requests.seconds.with_label_values(&labels[..2]).observe(took.as_secs_f64());
        took
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.requests.in_flight.dec();
    }
}

/// Methods are the clients' words too.
fn known(method: &Method) -> &'static str {
    let all = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    all.into_iter().find(|m| *m == method.as_str()).unwrap_or("other")
}

fn route(extensions: &Extensions, doors: &[&str]) -> String {
    let Some(path) = extensions.get::<MatchedPath>().map(MatchedPath::as_str) else {
        return NO_ROUTE.to_owned();
    };
    let below = |door: &&&str| {
        let rest = path.strip_prefix('/').and_then(|p| p.strip_prefix(**door));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    doors.iter().find(below).map_or_else(|| path.to_owned(), |door| format!("/{door}"))
}
