//! A dialect's own objects: names, counters, documents. No SQL, and nothing of another dialect.

use ashlar_core::{BuildId, TenantId};
use ashlar_records::{
    Document, DocumentType, MovedName, Namespace, NewAlias, NewDocument, Store, now,
};
use uuid::Uuid;

use crate::{Error, Service};

/// The objects of one dialect. All calls are the dialect's own responsibility as to who may make
/// them; a tenant's names and documents are found by that tenant only.
#[derive(Debug, Clone)]
pub struct DialectStore {
    store: Store,
    dialect: &'static str,
}

impl Service {
    /// Returns the objects of a dialect.
    pub fn dialect(&self, dialect: &'static str) -> DialectStore {
        DialectStore { store: self.store().clone(), dialect }
    }
}

impl DialectStore {
    /// Returns the namespace of a tenant's names (none: of all tenants) of a kind.
    pub fn namespace(&self, tenant: Option<TenantId>, kind: &str) -> Namespace {
        Namespace::new(self.dialect, tenant, kind)
    }

    /// Returns what a name stands for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resolve(
        &self,
        tenant: Option<TenantId>,
        kind: &str,
        alias: &str,
    ) -> Result<Option<Uuid>, Error> {
        Ok(self.store.resolve(&self.namespace(tenant, kind), alias).await?)
    }

    /// Returns the build that a name stands for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resolve_build(
        &self,
        tenant: Option<TenantId>,
        kind: &str,
        alias: &str,
    ) -> Result<Option<BuildId>, Error> {
        Ok(self.resolve(tenant, kind, alias).await?.map(BuildId::from_uuid))
    }

    /// Gives a thing a name.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is in use.
    pub async fn add_alias(
        &self,
        tenant: Option<TenantId>,
        kind: &str,
        alias: &str,
        target: Uuid,
    ) -> Result<(), Error> {
        let new = NewAlias::own(self.namespace(tenant, kind), alias.to_owned());
        Ok(self.store.add_alias(&new, target).await?)
    }

    /// Lets names lead to a thing, all or none, wherever they led before. A build that they lead to
    /// is spared by retention.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_aliases(
        &self,
        tenant: Option<TenantId>,
        kind: &str,
        aliases: &[String],
        target: Uuid,
    ) -> Result<(), Error> {
        let namespace = self.namespace(tenant, kind);
        let new = |alias: &String| NewAlias::protecting(namespace.clone(), alias.clone());
        let moved: Vec<NewAlias> = aliases.iter().map(new).collect();
        Ok(self.store.move_aliases(&moved, target).await?)
    }

    /// Takes a name away; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_alias(
        &self,
        tenant: Option<TenantId>,
        kind: &str,
        alias: &str,
    ) -> Result<bool, Error> {
        Ok(self.store.remove_alias(&self.namespace(tenant, kind), alias).await?)
    }

    /// Returns the names that the dialect has given a thing, by kind.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn aliases_of(&self, target: Uuid) -> Result<Vec<(String, String)>, Error> {
        Ok(self.store.aliases_of(self.dialect, target).await?)
    }

    /// Draws the next number of a counter, from 1. No number is drawn twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_number(&self, tenant: Option<TenantId>, counter: &str) -> Result<u64, Error> {
        Ok(self.store.next_number(&self.namespace(tenant, counter)).await?)
    }

    /// Writes a new document.
    ///
    /// # Errors
    /// [`Error::Conflict`] when its id is in use; [`Error::TooLarge`].
    pub async fn add_document<T: DocumentType + Sync>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
        value: &T,
    ) -> Result<(), Error> {
        let new = NewDocument::new(tenant, id, value)?;
        Ok(self.store.add_document(&new, now()).await?)
    }

    /// Replaces a document, unless somebody changed it since it had `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody did.
    pub async fn replace_document<T: DocumentType + Sync>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
        version: u64,
        value: &T,
    ) -> Result<(), Error> {
        self.replace_document_with_names(tenant, id, version, value, &[]).await
    }

    /// Replaces a document and moves names with it, both or none, unless somebody changed the
    /// document since it had `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody did.
    pub async fn replace_document_with_names<T: DocumentType + Sync>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
        version: u64,
        value: &T,
        names: &[MovedName],
    ) -> Result<(), Error> {
        let new = NewDocument::new(tenant, id, value)?;
        if self.store.replace_document_with_names(&new, version, names, now()).await? {
            return Ok(());
        }
        Err(Error::Conflict("it was changed by somebody else meanwhile; try again".into()))
    }

    /// Returns a document.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn document<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
    ) -> Result<Option<Document<T>>, Error> {
        Ok(self.store.document(tenant, id).await?)
    }

    /// Returns those of these documents that there are, in no order: one look for a whole page.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn documents_of<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        ids: &[Uuid],
    ) -> Result<Vec<Document<T>>, Error> {
        Ok(self.store.documents_of(tenant, ids).await?)
    }

    /// Lists documents of a type in the order in which they were made, after a position.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn documents<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Document<T>>, Error> {
        Ok(self.store.documents(tenant, after, limit).await?)
    }

    /// Lists those documents that have a value in a declared index.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn documents_by<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        (index, value): (&str, &str),
        after: i64,
        limit: u32,
    ) -> Result<Vec<Document<T>>, Error> {
        Ok(self.store.documents_by(tenant, (index, value), after, limit).await?)
    }

    /// Removes a document; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_document<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
    ) -> Result<bool, Error> {
        Ok(self.store.remove_document::<T>(tenant, id).await?)
    }
}
