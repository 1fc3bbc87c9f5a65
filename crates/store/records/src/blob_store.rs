//! Which blob store belongs to the database: a mark that lies in both.

use ashlar_core::Digest;

use crate::db::{Tx, args};
use crate::kept::Held;
use crate::{Error, Store};

impl Store {
    /// Returns the blob whose presence says that a blob store is the database's own; none when no
    /// server with a blob store has used the database yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn blob_store_mark(&self) -> Result<Option<Digest>, Error> {
        self.db.maybe(READ, args![]).await?.map(|row| row.digest(0)).transpose()
    }

    /// Makes a blob the mark of the database's blob store, unless there is one, and returns the mark.
    /// From then on the blob is needed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_blob_store_mark(&self, mark: Digest) -> Result<Digest, Error> {
        let mut tx = self.db.write().await?;
        let sql = "INSERT INTO blob_store (id, mark) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
        let mark = match tx.run(sql, args![mark]).await? {
            0 => tx.one(READ, args![]).await?.digest(0)?,
            _ => {
                hold(&mut tx, mark).await?;
                mark
            }
        };
        tx.commit().await.map(|()| mark)
    }
}

const READ: &str = "SELECT mark FROM blob_store WHERE id = 1";

/// Writes that a blob is needed, by neither a build nor a document.
async fn hold(tx: &mut Tx, mark: Digest) -> Result<(), Error> {
    let sql = "INSERT INTO holds (digest, build, document, context) VALUES ($1, 0, 0, $2) \
               ON CONFLICT DO NOTHING";
    tx.run(sql, args![mark, Held::Plain.number()]).await.map(drop)
}
