//! Names that lead to a build which has to be there.

use ashlar_core::BuildId;
use ashlar_core::journal::Record;

use crate::aliases::NewAlias;
use crate::finish::put_alias;
use crate::store::retried;
use crate::{Error, Store, builds};

impl Store {
    /// Lets names lead to a build, wherever they led before: all of them, provided that the build
    /// is as it should be. It stays so until the names are written, and those that protect it hold
    /// for whoever wants to let something of it go afterwards. Returns the build's row; none, and
    /// nothing is written, when it is otherwise.
    ///
    /// # Errors
    /// When there is no such build or the database fails.
    pub async fn promote(
        &self,
        build: BuildId,
        names: &[NewAlias],
        fits: impl Fn(&Record) -> bool + Send + Sync,
    ) -> Result<Option<Record>, Error> {
        retried(|| self.promote_once(build, names, &fits)).await
    }

    async fn promote_once(
        &self,
        build: BuildId,
        names: &[NewAlias],
        fits: &(impl Fn(&Record) -> bool + Send + Sync),
    ) -> Result<Option<Record>, Error> {
        let mut tx = self.db.write().await?;
        let loaded = builds::load(&mut tx, build).await?;
        if !fits(&loaded.record) {
            return Ok(None);
        }
        for name in names {
            put_alias(&mut tx, name, build.uuid()).await?;
        }
        tx.commit().await?;
        Ok(Some(loaded.record))
    }
}
