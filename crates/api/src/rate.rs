//! A bound on the requests of a tenant: a bucket that refills.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::TenantId;
use ashlar_service::Error;

/// Seconds of requests that may come at once.
const BURST_SECONDS: f64 = 5.0;
/// Buckets that are kept at most; full ones are forgotten first.
const BUCKETS_MAX: usize = 10_000;

/// The buckets of all tenants.
pub(crate) struct Rates {
    per_second: Option<f64>,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        Self { per_second: per_second.map(f64::from), buckets: Mutex::default() }
    }

    /// Takes one request out of a tenant's bucket.
    pub(crate) fn check(&self, tenant: TenantId) -> Result<(), Error> {
        let Some(rate) = self.per_second else { return Ok(()) };
        self.check_at(tenant, rate, Instant::now())
    }

    fn check_at(&self, tenant: TenantId, rate: f64, now: Instant) -> Result<(), Error> {
        let full = rate * BURST_SECONDS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            let filled = |b: &Bucket| b.left + (now - b.at).as_secs_f64() * rate >= full;
            buckets.retain(|_, b| !filled(b));
        }
        let bucket = buckets.entry(tenant).or_insert(Bucket { left: full, at: now });
        bucket.left = (bucket.left + (now - bucket.at).as_secs_f64() * rate).min(full);
        bucket.at = now;
        if bucket.left < 1.0 {
            let wait = (1.0 - bucket.left) / rate;
            return Err(Error::RateLimited { retry_after: Duration::from_secs_f64(wait) });
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_slowed_down_alone_and_for_a_while() {
        let rates = Rates::new(Some(2));
        let (one, two) = (TenantId::from_parts(1, [1; 10]), TenantId::from_parts(1, [2; 10]));
        let start = Instant::now();
        let many = (0..20).filter(|_| rates.check_at(one, 2.0, start).is_ok()).count();
        assert_eq!(many, 10);
        assert!(rates.check_at(two, 2.0, start).is_ok());
        assert!(rates.check_at(one, 2.0, start + Duration::from_secs(1)).is_ok());
    }
}
