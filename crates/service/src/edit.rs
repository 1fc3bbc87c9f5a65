//! What may still change about a build: labels, name, pins, bookmarks, a dialect's notes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::identity::Role;
use ashlar_core::journal::{Event, Record};
use ashlar_records::{Stamped, Writer, now};
use serde_json::{Value, json};

use crate::{Actor, Error, Service};

/// Labels that one build may have.
pub(crate) const LABELS_MAX: usize = 64;
/// The longest name of a label, in bytes.
pub(crate) const LABEL_NAME_MAX: usize = 128;
/// The longest value of a label, in bytes.
pub(crate) const LABEL_VALUE_MAX: usize = 1024;
/// The longest name of a build, in bytes.
pub(crate) const NAME_MAX: usize = 255;

impl Service {
    /// Sets labels (`Some`) and removes them (`None`).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`].
    pub async fn set_labels(
        &self,
        actor: &Actor,
        build: BuildId,
        changes: BTreeMap<String, Option<String>>,
    ) -> Result<Record, Error> {
        let record = self.own(actor, build).await?;
        let set = changes.iter().filter_map(|(n, v)| Some((n, v.as_ref()?)));
        check_labels(set, record.labels.len())?;
        self.change(actor, build, "build.labels", Event::Labels { changes }).await
    }

    /// Gives a build another name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`].
    pub async fn rename(&self, actor: &Actor, build: BuildId, name: &str) -> Result<Record, Error> {
        self.own(actor, build).await?;
        check_name("name", name)?;
        let event = Event::Renamed { name: name.to_owned() };
        self.change(actor, build, "build.rename", event).await
    }

    /// Keeps a build from being forgotten, or no longer.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn pin(&self, actor: &Actor, build: BuildId, pinned: bool) -> Result<Record, Error> {
        self.own(actor, build).await?;
        self.change(actor, build, "build.pin", Event::Pinned { pinned }).await
    }

    /// Marks a build for the actor, or unmarks it. Readers may do that too.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn bookmark(
        &self,
        actor: &Actor,
        build: BuildId,
        bookmarked: bool,
    ) -> Result<Record, Error> {
        self.row(actor, build).await?;
        let event = Event::Bookmarked { by: actor.principal.id, bookmarked };
        self.change(actor, build, "build.bookmark", event).await
    }

    /// Writes a dialect's own note into a build's journal.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn note(
        &self,
        actor: &Actor,
        build: BuildId,
        dialect: &str,
        value: Value,
    ) -> Result<Record, Error> {
        self.own(actor, build).await?;
        let event = Event::Note { dialect: dialect.to_owned(), value };
        Ok(self.store().append(build, Writer::Service, [Stamped::new(now(), event)]).await?)
    }

    /// Forgets a build that has ended: its record, journal, names and documents. One that runs is
    /// cancelled first and forgotten later, when asked again; a pinned one stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`]; [`Error::Conflict`] when it is pinned or runs.
    pub async fn delete(self: &Arc<Self>, actor: &Actor, build: BuildId) -> Result<(), Error> {
        let pinned = || Error::Conflict("the build is pinned; unpin it first".into());
        let record = self.own(actor, build).await?;
        if record.pinned {
            return Err(pinned());
        }
        if !record.state.is_terminal() {
            return Err(Error::Conflict("the build has not ended; cancel it first".into()));
        }
        if self.store().forget(&[build]).await?.is_empty() {
            // It was pinned meanwhile, and its image is needed; or somebody else has deleted it.
            self.own(actor, build).await?;
            return Err(pinned());
        }
        self.audit(actor, "build.delete", build, json!({ "name": record.name })).await?;
        self.drop_image(record.submission.tenant, build).await
    }

    async fn change(
        &self,
        actor: &Actor,
        build: BuildId,
        action: &str,
        event: Event,
    ) -> Result<Record, Error> {
        let detail = serde_json::to_value(&event).map_err(Error::internal)?;
        let stamped = [Stamped::new(now(), event)];
        let record = self.store().append(build, Writer::Service, stamped).await?;
        self.audit(actor, action, build, detail).await?;
        Ok(record)
    }

    /// Fails unless the actor manages its tenant.
    pub(crate) fn manages(actor: &Actor) -> Result<(), Error> {
        actor.needs(Role::Owner)
    }
}

/// Checks a build's name: one line of text.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let why = format!("must be 1 to {NAME_MAX} bytes without control characters");
        return Err(Error::invalid(field, why));
    }
    Ok(())
}

/// Checks labels that are about to be set on a build that has some already.
pub(crate) fn check_labels<'a>(
    set: impl Iterator<Item = (&'a String, &'a String)>,
    present: usize,
) -> Result<(), Error> {
    let mut count = present;
    for (name, value) in set {
        count += 1;
        let field = || format!("labels.{}", name.chars().take(60).collect::<String>());
        if name.is_empty() || name.len() > LABEL_NAME_MAX || name.chars().any(char::is_control) {
            let why = format!("a label's name has 1 to {LABEL_NAME_MAX} bytes");
            return Err(Error::invalid(field(), why));
        }
        if value.len() > LABEL_VALUE_MAX {
            let why = format!("a label's value has at most {LABEL_VALUE_MAX} bytes");
            return Err(Error::invalid(field(), why));
        }
    }
    if count > LABELS_MAX {
        return Err(Error::invalid("labels", format!("a build has at most {LABELS_MAX} labels")));
    }
    Ok(())
}
