//! What the store says of artifacts: whether they are there, and when they may go.

use std::borrow::Borrow;

use ashlar_core::state::State;
use ashlar_service::{Expiry, Record};

use crate::app::App;
use crate::errors::Answer;
use crate::views::Kept;

impl App {
    /// Says whether the build's artifact is there.
    pub(crate) fn is_available(&self, record: &Record) -> bool {
        record.state == State::Succeeded && self.service.image_is_kept(record)
    }

    /// Says what is known of a build's artifact.
    pub(crate) async fn kept(&self, record: &Record) -> Answer<Kept> {
        let kept = self.all_kept(std::slice::from_ref(record)).await?;
        Ok(kept.into_iter().next().unwrap_or(Kept { available: false, expires_at: None }))
    }

    /// Says what is known of the artifacts of a template's builds, in their order. Those that a tag
    /// holds never go, which the store knows by the tag's name.
    pub(crate) async fn all_kept<R>(&self, records: &[R]) -> Answer<Vec<Kept>>
    where
        R: Borrow<Record> + Sync,
    {
        let expiries = self.service.expiries(records).await?;
        let kept = |(record, expiry): (&R, Expiry)| {
            let record = record.borrow();
            let available = self.is_available(record);
            let due = [expiry.artifacts, expiry.record].into_iter().flatten().map(|due| due.at);
            Kept { available, expires_at: due.min().filter(|_| available) }
        };
        Ok(records.iter().zip(expiries).map(kept).collect())
    }
}
