//! Documents that have names: both are written together or not at all, so that a name never leads
//! elsewhere than its document says.

use ashlar_core::Timestamp;
use uuid::Uuid;

use crate::aliases::{self, NewAlias, or_all};
use crate::db::{Tx, args};
use crate::documents::{self, NewDocument};
use crate::finish::put_alias;
use crate::store::retried;
use crate::{Error, Store};

/// A document that is made with a build and stays when the build goes, and new names for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// The document.
    pub document: NewDocument,
    /// Names that lead to it; one that is in use refuses the whole.
    pub names: Vec<NewAlias>,
}

/// A name that a change of a document moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedName {
    /// The name.
    pub alias: NewAlias,
    /// Where it leads from now on; none when it is taken away.
    pub target: Option<Uuid>,
}

pub(crate) async fn insert(tx: &mut Tx, new: &NewObject, now: Timestamp) -> Result<(), Error> {
    documents::insert(tx, &new.document, None, now).await?;
    for name in &new.names {
        aliases::insert(tx, name, new.document.id()).await?;
    }
    Ok(())
}

async fn move_name(tx: &mut Tx, name: &MovedName) -> Result<(), Error> {
    let Some(target) = name.target else {
        let n = &name.alias.namespace;
        let sql = "DELETE FROM aliases WHERE dialect = $1 AND tenant = $2 AND kind = $3 \
                   AND alias = $4";
        let values = args![&n.dialect, or_all(n.tenant), &n.kind, &name.alias.alias];
        return tx.run(sql, values).await.map(drop);
    };
    put_alias(tx, &name.alias, target).await
}

impl Store {
    /// Replaces a document and moves names with it, if nobody changed the document since it had
    /// `version`; says whether it did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_document_with_names(
        &self,
        new: &NewDocument,
        version: u64,
        names: &[MovedName],
        now: Timestamp,
    ) -> Result<bool, Error> {
        // Builds that end move names too, in an order of their own.
        retried(|| self.replace_with_names_once(new, version, names, now)).await
    }

    async fn replace_with_names_once(
        &self,
        new: &NewDocument,
        version: u64,
        names: &[MovedName],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.db.write().await?;
        if !documents::replace(&mut tx, new, version, now).await? {
            return Ok(false);
        }
        for name in names {
            move_name(&mut tx, name).await?;
        }
        tx.commit().await.map(|()| true)
    }
}
