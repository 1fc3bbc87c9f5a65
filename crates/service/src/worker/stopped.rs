//! Why an attempt came to nothing, and what is tried again before it does.

use std::time::Duration;

use ashlar_core::BuildId;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_layers::Stop;
use ashlar_records::Error as StoreError;
use tokio::time::{Instant, sleep};

use super::POLL;
use crate::Error;
use crate::error::{Away, chain};

/// How long a database that does not answer is asked again, where a build hangs on the answer.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The build failed.
    Failed(Failure),
    /// By no fault of its own: what the service needs did not answer.
    Away(Away),
}

impl Stopped {
    /// Says that the worker could not even begin.
    pub(super) fn broken(error: Error) -> Self {
        match error {
            Error::Away(what) => Self::Away(what),
            other => Failure::new(FailureKind::Internal, other.internal_text()).into(),
        }
    }

    /// Says that the build was told to stop.
    pub(super) fn told() -> Self {
        Failure::new(FailureKind::Interrupted, "the build was stopped").into()
    }

    /// Fails once the build is told to stop.
    pub(crate) fn check(stop: &Stop) -> Result<(), Self> {
        if stop.is_stopped() { Err(Self::told()) } else { Ok(()) }
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        match failure.store_away {
            true => Self::Away(Away::BlobStore),
            false => Self::Failed(failure),
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Away(_) | Error::Internal(_) => Self::broken(error),
            other => Failure::new(FailureKind::Source, other.public()).into(),
        }
    }
}

/// Asks a database again that does not answer, for a while.
pub(super) async fn retried<T, F>(
    build: BuildId,
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let until = Instant::now() + RETRY_MAX;
    loop {
        match ask().await {
            Err(error) if error.is_transient() && Instant::now() < until => {
                tracing::warn!(%build, error = chain(&error), "asking the database again");
                sleep(POLL).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ashlar_records::DatabaseError;

    use super::*;

    #[tokio::test]
    async fn a_fault_that_passes_is_no_answer_and_another_one_is() {
        let build = BuildId::from_parts(1, [1; 10]);
        let asked = Cell::new(0);
        let ask = |last: fn() -> Result<u8, StoreError>| {
            asked.set(asked.get() + 1);
            let transient = || Err(StoreError::Database(DatabaseError::Busy));
            let answer = if asked.get() < 3 { transient() } else { last() };
            async move { answer }
        };
        assert_eq!(retried(build, || ask(|| Ok(7))).await.unwrap(), 7);
        assert_eq!(asked.replace(0), 3);
        let lasting = retried(build, || {
            ask(|| Err(StoreError::NoSuchBuild(BuildId::from_parts(1, [1; 10]))))
        });
        assert!(matches!(lasting.await, Err(StoreError::NoSuchBuild(_))));
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn what_is_away_is_no_failure() {
        let away = Stopped::from(Error::Away(Away::Database));
        assert!(matches!(away, Stopped::Away(Away::Database)));
        assert!(matches!(Stopped::from(Error::internal("x")), Stopped::Failed(_)));
    }
}
