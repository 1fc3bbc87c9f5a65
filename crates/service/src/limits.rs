//! Which limits can be asked for.

use crate::{Error, Limits};

/// More processors than any machine has.
const CPUS_MAX: f64 = 4096.0;
/// The most processes that Linux can have (`PID_MAX_LIMIT`); it refuses larger bounds.
const PIDS_MAX: u64 = 4_194_304;
/// The longest time that a step or a build may be given: ten years. Clocks reach further.
const SECONDS_MAX: u64 = 315_360_000;

impl Limits {
    /// Refuses limits that no step can be held to, and those that would let none begin. For doors,
    /// before a build is accepted; what was accepted once is taken as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the limit's name.
    pub fn check(&self) -> Result<(), Error> {
        for (name, value, most) in [
            ("memory_bytes", self.memory_bytes, u64::MAX),
            ("pids", self.pids, PIDS_MAX),
            ("disk_bytes", self.disk_bytes, u64::MAX),
            ("step_seconds", self.step_seconds, SECONDS_MAX),
            ("build_seconds", self.build_seconds, SECONDS_MAX),
            ("log_bytes", self.log_bytes, u64::MAX),
        ] {
            if value.is_some_and(|value| !(1..=most).contains(&value)) {
                let why = match most {
                    u64::MAX => "must be 1 or more".to_owned(),
                    most => format!("must lie between 1 and {most}"),
                };
                return Err(Error::invalid(format!("limits.{name}"), why));
            }
        }
        // What is too little for the kernel to count is raised where it is set.
        if self.cpus.is_some_and(|cpus| !(cpus > 0.0 && cpus <= CPUS_MAX)) {
            let why = format!("must be more than 0, and {CPUS_MAX} at most");
            return Err(Error::invalid("limits.cpus", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_a_number_above_none() {
        let check = |cpus| Limits { cpus: Some(cpus), ..Limits::default() }.check();
        for good in [f64::MIN_POSITIVE, 0.5, 4096.0] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [0.0, -0.0, -1.0, 4096.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
