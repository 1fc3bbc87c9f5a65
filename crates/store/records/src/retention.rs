//! Forgets builds that have ended, with all that is kept about them.

use ashlar_core::BuildId;

use crate::builds::{self, Loaded};
use crate::db::{Tx, args};
use crate::{Error, Store, facets};

/// Builds that one call forgets at most: a bound on how long it keeps others waiting.
pub const FORGET_AT_ONCE: usize = 100;

impl Store {
    /// Forgets builds: their rows, journals, documents and names. Those that have not ended, are
    /// pinned, or are gone already are left alone. Returns the ids that were forgotten; call it
    /// with at most [`FORGET_AT_ONCE`] ids, more are not looked at.
    ///
    /// Which builds are due is the caller's to say: a list, oldest first, with a filter on the
    /// scope and the time shows the candidates, one of the newest succeeded ones the exempt.
    ///
    /// # Errors
    /// When the database fails; what was forgotten before stays so.
    pub async fn forget(&self, wanted: &[BuildId]) -> Result<Vec<BuildId>, Error> {
        let mut forgotten = Vec::new();
        for build in wanted.iter().take(FORGET_AT_ONCE) {
            let mut tx = self.db.write().await?;
            let loaded = match builds::load(&mut tx, *build).await {
                Err(Error::NoSuchBuild(_)) => continue,
                other => other?,
            };
            if loaded.record.state.is_terminal() && !loaded.record.pinned {
                remove(&mut tx, &loaded).await?;
                tx.commit().await?;
                forgotten.push(*build);
            }
        }
        Ok(forgotten)
    }
}

async fn remove(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    const BY_POSITION: [&str; 4] = [
        "DELETE FROM entries WHERE build = $1",
        "DELETE FROM definitions WHERE build = $1",
        "DELETE FROM build_secrets WHERE build = $1",
        "DELETE FROM builds WHERE position = $1",
    ];
    const BY_ID: [&str; 3] = [
        "DELETE FROM document_keys WHERE position IN \
         (SELECT position FROM documents WHERE build = $1)",
        "DELETE FROM documents WHERE build = $1",
        "DELETE FROM aliases WHERE target = $1",
    ];
    for sql in BY_ID {
        tx.run(sql, args![loaded.record.submission.build]).await?;
    }
    for sql in BY_POSITION {
        tx.run(sql, args![loaded.position]).await?;
    }
    let mut changes = facets::Changes::default();
    changes.forget(loaded.position, &facets::of(&loaded.record));
    changes.write(tx).await
}
