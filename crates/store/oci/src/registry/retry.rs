//! Trying again: which failures, how often, how long to wait; and going from one endpoint to the next.

use std::time::{Duration, SystemTime};

use super::Registry;
use super::endpoint::Endpoint;
use super::error::{EndpointFailure, Failure, RegistryError};
use super::runtime;
use crate::transfer::Transfer;

/// Longest wait between two tries, whatever the registry asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest wait that we choose ourselves.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How often a mirror is tried: there is another endpoint after it.
const MIRROR_ATTEMPTS: u32 = 2;
/// A try that moved so many bytes counts as success: the count of tries starts again. This bounds
/// the tries of one blob even when each connection breaks.
pub(crate) const PROGRESS_MIN: u64 = 1 << 20;

impl Registry {
    /// Tries `attempt` at each endpoint in turn, and again where that may help. It is told the
    /// endpoint, and returns the bytes that it moved beside a failure.
    pub(crate) fn try_endpoints<T>(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint>,
        transfer: &Transfer<'_>,
        what: impl Fn() -> String,
        mut attempt: impl FnMut(&Endpoint) -> Result<T, (Failure, u64)>,
    ) -> Result<T, RegistryError> {
        let mut failures = Vec::new();
        for endpoint in endpoints {
            match self.try_endpoint(&endpoint, transfer, &mut attempt) {
                Ok(done) => return Ok(done),
                Err(Failure::Cancelled) => return Err(RegistryError::Cancelled),
                Err(Failure::Store(error)) => return Err(RegistryError::Store(error)),
                Err(failure) => {
                    tracing::debug!(endpoint = endpoint.name(), %failure, "endpoint failed");
                    failures.push(EndpointFailure { endpoint: endpoint.name(), failure });
                }
            }
        }
        Err(RegistryError::Endpoints { what: what(), failures })
    }

    fn try_endpoint<T>(
        &self,
        endpoint: &Endpoint,
        transfer: &Transfer<'_>,
        attempt: &mut impl FnMut(&Endpoint) -> Result<T, (Failure, u64)>,
    ) -> Result<T, Failure> {
        let settings = self.settings();
        let most = settings.attempts.max(1);
        let most = if endpoint.is_mirror { most.min(MIRROR_ATTEMPTS) } else { most };
        let mut tries = 0;
        loop {
            let (failure, moved) = match attempt(endpoint) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            tries = if moved >= PROGRESS_MIN { 1 } else { tries + 1 };
            if tries >= most || failure.is_final() || !failure.is_transient() {
                return Err(failure);
            }
            runtime::wait(transfer, pause(settings.backoff, tries, &failure))?;
        }
    }
}

/// Returns how long to wait after the failed try number `tries`.
fn pause(backoff: Duration, tries: u32, failure: &Failure) -> Duration {
    let doubled = backoff.saturating_mul(1 << (tries - 1).min(10)).min(BACKOFF_MAX);
    // Clients that failed together must not come back together; the clock is chance enough.
    let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos();
    let jitter = doubled.mul_f64(f64::from(nanos % 1000) / 4000.0);
    let asked = match failure {
        Failure::Status { retry_after, .. } => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    (doubled + jitter).max(asked.min(WAIT_MAX))
}

/// Reads `Retry-After`: seconds or a date.
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    Some(SystemTime::from(at).duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_heed_the_server_within_bounds() {
        let base = Duration::from_millis(100);
        let network = Failure::Network(String::new());
        assert!(pause(base, 1, &network) >= base);
        assert!(pause(base, 3, &network) >= base * 4);
        assert!(pause(base, 30, &network) <= BACKOFF_MAX * 2);
        let asked = |seconds| Failure::Status {
            status: 429,
            message: None,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(pause(base, 1, &asked(7)), Duration::from_secs(7));
        assert_eq!(pause(base, 1, &asked(86_400)), WAIT_MAX);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }
}
