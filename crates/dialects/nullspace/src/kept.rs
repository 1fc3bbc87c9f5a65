//! What the store says of artifacts: whether they are there, and when they may go.

use ashlar_core::state::State;
use ashlar_service::{Actor, Record};

use crate::DIALECT;
use crate::app::App;
use crate::errors::Answer;
use crate::ids;
use crate::templates::Found;
use crate::views::Kept;

/// What holds for all builds of a template.
pub(crate) struct Keeping {
    /// Whether anything ever goes.
    bound: bool,
}

impl App {
    /// Says whether the build's artifact is there.
    pub(crate) fn is_available(&self, record: &Record) -> bool {
        record.state == State::Succeeded && self.service.image_is_kept(record)
    }

    /// Looks up what holds for a template's builds.
    pub(crate) async fn keeping(&self, actor: &Actor, found: &Found) -> Answer<Keeping> {
        let scope = ids::template(found.id);
        let retention = self.service.retention(actor, &scope, DIALECT).await?;
        Ok(Keeping { bound: retention.is_bound() })
    }

    /// Says what is known of a build's artifact. Those that a tag holds never go, which the store
    /// knows by the tag's name.
    pub(crate) async fn kept(&self, record: &Record, keeping: &Keeping) -> Answer<Kept> {
        let available = self.is_available(record);
        let expires_at = if available && keeping.bound {
            let expiry = self.service.expiry(record).await?;
            [expiry.artifacts, expiry.record].into_iter().flatten().map(|due| due.at).min()
        } else {
            None
        };
        Ok(Kept { available, expires_at })
    }
}
