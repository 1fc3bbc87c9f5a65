//! A bound on the requests of a tenant, and of an address that comes without a good token: a bucket
//! that refills. Every door asks [`Service::authenticate`] who comes, so none can forget it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::TenantId;

use crate::{ClientInfo, Error, Service};

/// Seconds of requests that may come at once.
const BURST_SECONDS: f64 = 5.0;
/// Buckets that are kept at most; full ones are forgotten first.
const BUCKETS_MAX: usize = 10_000;

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Tenant(TenantId),
    /// Those of an IPv6 network count as one: whoever has one address there has all of them.
    Network(IpAddr),
}

/// The buckets of all tenants and addresses.
#[derive(Debug)]
pub(crate) struct Rates {
    per_second: Option<f64>,
    buckets: Mutex<HashMap<Who, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(crate) fn new(per_second: Option<NonZeroU32>) -> Self {
        let per_second = per_second.map(|n| f64::from(n.get()));
        Self { per_second, buckets: Mutex::default() }
    }

    /// Takes one request out of a tenant's bucket.
    pub(crate) fn check(&self, tenant: TenantId) -> Result<(), Error> {
        let Some(rate) = self.per_second else { return Ok(()) };
        self.check_at(Who::Tenant(tenant), rate, Instant::now())
    }

    /// Takes one request out of the bucket of an address that came without a good token: guessing
    /// is slow.
    pub(crate) fn check_address(&self, address: Option<IpAddr>) -> Result<(), Error> {
        let (Some(rate), Some(address)) = (self.per_second, address) else { return Ok(()) };
        self.check_at(Who::Network(network(address)), rate, Instant::now())
    }

    /// Puts a request back: it was somebody else's.
    fn give_back(&self, tenant: TenantId) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&Who::Tenant(tenant)) {
            bucket.left += 1.0;
        }
    }

    fn check_at(&self, who: Who, rate: f64, now: Instant) -> Result<(), Error> {
        let full = rate * BURST_SECONDS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            let filled = |b: &Bucket| b.left + (now - b.at).as_secs_f64() * rate >= full;
            buckets.retain(|_, b| !filled(b));
        }
        let bucket = buckets.entry(who).or_insert(Bucket { left: full, at: now });
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

impl Service {
    /// Counts a request without a good token, and returns the answer to it:
    /// [`Error::Unauthorized`] with the text, or [`Error::RateLimited`] when too many come from
    /// its address. For doors that see no token at all; what [`Service::authenticate`] refuses is
    /// counted there.
    pub fn unknown(&self, text: &'static str) -> Error {
        let address = ClientInfo::current().address;
        self.rates().check_address(address).err().unwrap_or(Error::Unauthorized(text))
    }

    /// Counts a request as that of the tenant that an admin acts for, and not of the admin's own.
    pub(crate) fn count_for(&self, own: TenantId, other: TenantId) -> Result<(), Error> {
        self.rates().give_back(own);
        self.rates().check(other)
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_slowed_down_alone_and_for_a_while() {
        let rates = Rates::new(NonZeroU32::new(2));
        let tenant = |n| Who::Tenant(TenantId::from_parts(1, [n; 10]));
        let (one, two) = (tenant(1), tenant(2));
        let start = Instant::now();
        let many = (0..20).filter(|_| rates.check_at(one, 2.0, start).is_ok()).count();
        assert_eq!(many, 10);
        assert!(rates.check_at(two, 2.0, start).is_ok());
        assert!(rates.check_at(one, 2.0, start + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn addresses_of_one_network_are_slowed_down_together() {
        let rates = Rates::new(Some(NonZeroU32::MIN));
        let address = |n: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]));
        let many = (0..20).filter(|n| rates.check_address(address(*n)).is_ok()).count();
        assert!((5..20).contains(&many), "{many}");
        assert!(rates.check_address(Some([10, 0, 0, 1].into())).is_ok());
        assert!(rates.check_address(None).is_ok());
    }
}
