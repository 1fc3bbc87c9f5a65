//! One build.

use ashlar_core::BuildId;
use ashlar_core::identity::Role;
use ashlar_core::journal::Record;

use crate::{Actor, Error, Service};

impl Service {
    /// Returns a build with its definition.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn show(&self, actor: &Actor, build: BuildId) -> Result<Record, Error> {
        let record = self.store().get(build).await?;
        let record = record.ok_or_else(|| Error::not_found("build", build))?;
        actor.sees_build(&record)?;
        Ok(record)
    }

    /// Returns a build without its definition: cheaper than [`Service::show`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn row(&self, actor: &Actor, build: BuildId) -> Result<Record, Error> {
        let record = self.store().row(build).await?;
        actor.sees_build(&record)?;
        Ok(record)
    }

    /// Returns a build that the actor may change.
    pub(crate) async fn own(&self, actor: &Actor, build: BuildId) -> Result<Record, Error> {
        let record = self.row(actor, build).await?;
        actor.needs(Role::Developer)?;
        Ok(record)
    }

    /// Returns the build that a text means: a whole id, or the beginning of one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when several builds begin so.
    pub async fn find(&self, actor: &Actor, text: &str) -> Result<BuildId, Error> {
        if let Ok(build) = text.parse() {
            return self.row(actor, build).await.map(|_| build);
        }
        let mut seen = Vec::new();
        for build in self.store().find(text).await? {
            if self.row(actor, build).await.is_ok() {
                seen.push(build);
            }
        }
        match seen.as_slice() {
            [] => Err(Error::not_found("build", text)),
            [one] => Ok(*one),
            _ => Err(Error::invalid("build", "several builds begin so; give more digits")),
        }
    }
}
