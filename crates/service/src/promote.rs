//! Tags: names such as `app:latest` that lead to a build and can be moved.

use std::collections::BTreeSet;

use ashlar_core::journal::Record;
use ashlar_core::state::State;
use ashlar_core::{BuildId, TenantId};
use ashlar_records::{Namespace, NewAlias};
use serde_json::json;

use crate::{Actor, Error, Service};

/// Tags that one request may set.
const TAGS_MAX: usize = 100;
/// The longest name of a repository, in bytes.
const NAME_MAX: usize = 200;
/// The longest tag, in bytes.
const TAG_MAX: usize = 128;
/// Tags that are read at once, at least and at most, to find those of images.
const TAGS_AT_ONCE: (usize, usize) = (50, 500);
/// Tags that one page looks at, most of which may lead to images that are gone.
const LOOKED_AT_MAX: usize = 10_000;
/// The repository that has every build under its id.
pub const BUILDS: &str = "builds";

fn namespace(tenant: TenantId) -> Namespace {
    Namespace::new("native", Some(tenant), "tag")
}

pub(crate) fn alias(tenant: TenantId, tag: &str) -> NewAlias {
    NewAlias::protecting(namespace(tenant), tag.to_owned())
}

/// A tag that one build has for itself.
pub(crate) fn own_alias(tenant: TenantId, tag: &str) -> NewAlias {
    NewAlias::own(namespace(tenant), tag.to_owned())
}

/// Checks a tag of the form `name:tag`, as the distribution spec has them.
pub(crate) fn check_tag(text: &str) -> Result<(), Error> {
    let shown: String = text.chars().take(100).collect();
    let bad = |why: &str| Err(Error::invalid("tags", format!("'{shown}' {why}")));
    let Some((name, tag)) = text.split_once(':') else { return bad("must be NAME:TAG") };
    let part = |p: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = |b: u8| plain(b) || matches!(b, b'.' | b'_' | b'-');
        !p.is_empty()
            && p.bytes().all(fits)
            && p.bytes().next().is_some_and(plain)
            && p.bytes().last().is_some_and(plain)
    };
    if name.len() > NAME_MAX || !name.split('/').all(part) {
        return bad("has a name that is no repository's: lower-case letters, digits, . _ - /");
    }
    if name == BUILDS {
        return bad("takes the place of the builds themselves; choose another name");
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if tag.is_empty()
        || tag.len() > TAG_MAX
        || !tag.bytes().all(word)
        || tag.starts_with(['.', '-'])
    {
        return bad("has a tag that is none: letters, digits, _ . -");
    }
    Ok(())
}

/// Tags of a repository, a page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryTags {
    /// The tags, without the repository's name, in their order.
    pub tags: Vec<String>,
    /// The tag after which the next page begins; none when there is no more.
    pub next: Option<String>,
}

impl Service {
    /// Lets tags lead to a build, wherever they led before; all or none.
    ///
    /// # Errors
    /// [`Error::Conflict`] unless the build has succeeded and its image is still there.
    pub async fn promote(
        &self,
        actor: &Actor,
        build: BuildId,
        tags: &[String],
    ) -> Result<Record, Error> {
        let record = self.own(actor, build).await?;
        if tags.is_empty() || tags.len() > TAGS_MAX {
            return Err(Error::invalid("tags", format!("1 to {TAGS_MAX} tags can be set")));
        }
        tags.iter().try_for_each(|t| check_tag(t))?;
        let tenant = record.submission.tenant;
        let names: Vec<NewAlias> = tags.iter().map(|t| alias(tenant, t)).collect();
        // Looked at where nobody can take the image away in between.
        let fits = |record: &Record| {
            record.state == State::Succeeded && crate::artifacts::image_of(record).is_some()
        };
        let promoted = self.store().promote(build, &names, fits).await?;
        let record =
            promoted.ok_or_else(|| Error::Conflict("the build has no image to promote".into()))?;
        self.audit(actor, "build.promote", build, json!({ "tags": tags })).await?;
        Ok(record)
    }

    /// Takes a tag away.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_tag(&self, actor: &Actor, tag: &str) -> Result<(), Error> {
        actor.needs(crate::Role::Developer)?;
        if !self.store().remove_alias(&namespace(actor.tenant.id), tag).await? {
            return Err(Error::not_found("tag", tag));
        }
        self.audit(actor, "tag.remove", tag, serde_json::Value::Null).await
    }

    /// Returns the build that a tag of the actor's tenant leads to.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn resolve_tag(&self, actor: &Actor, tag: &str) -> Result<BuildId, Error> {
        let found = self.tagged(actor.tenant.id, tag).await?;
        found.ok_or_else(|| Error::not_found("tag", tag))
    }

    /// Returns the build that a tenant's tag leads to.
    pub(crate) async fn tagged(
        &self,
        tenant: TenantId,
        tag: &str,
    ) -> Result<Option<BuildId>, Error> {
        Ok(self.store().resolve(&namespace(tenant), tag).await?.map(BuildId::from_uuid))
    }

    /// Returns the tags that lead to a build.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tags_of(&self, actor: &Actor, build: BuildId) -> Result<Vec<String>, Error> {
        self.row(actor, build).await?;
        let names = self.store().aliases_of("native", build.uuid()).await?;
        Ok(names.into_iter().filter(|(kind, _)| kind == "tag").map(|(_, tag)| tag).collect())
    }

    /// Lists tags of the actor's tenant that begin with a text, with their builds, after a tag.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tags(
        &self,
        actor: &Actor,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, BuildId)>, Error> {
        let tags =
            self.store().aliases_from(&namespace(actor.tenant.id), prefix, after, limit).await?;
        Ok(tags.into_iter().map(|(tag, id)| (tag, BuildId::from_uuid(id))).collect())
    }
}

impl Service {
    /// Lists those tags of a repository of the actor's tenant that lead to an image, after a tag.
    /// Returns none when there is no such repository.
    ///
    /// A tag whose image was removed stays a tag of its build, which [`Service::tags`] lists; it is
    /// just no image's name until it is moved.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn repository_tags(
        &self,
        actor: &Actor,
        name: &str,
        after: &str,
        limit: u32,
    ) -> Result<Option<RepositoryTags>, Error> {
        let (prefix, most) = (format!("{name}:"), limit as usize);
        if self.tags(actor, &prefix, "", 1).await?.is_empty() {
            return Ok(None);
        }
        let (mut tags, mut looked_at) = (Vec::new(), 0);
        let mut last = if after.is_empty() { String::new() } else { format!("{prefix}{after}") };
        // One more than is wanted says whether there is another page.
        while tags.len() <= most && looked_at < LOOKED_AT_MAX {
            let (least, at_once) = TAGS_AT_ONCE;
            let wanted = (most + 1 - tags.len()).clamp(least, at_once);
            let found = self.tags(actor, &prefix, &last, wanted as u32).await?;
            let Some((tag, _)) = found.last() else { break };
            last.clone_from(tag);
            looked_at += found.len();
            tags.extend(self.of_images(found).await?);
        }
        let is_cut = tags.len() > most;
        let is_open = looked_at >= LOOKED_AT_MAX;
        tags.truncate(most);
        let next = if is_cut { tags.last().cloned() } else { is_open.then_some(last) };
        let plain = |tag: String| tag.strip_prefix(&prefix).map(str::to_owned);
        let next = next.and_then(plain);
        Ok(Some(RepositoryTags { tags: tags.into_iter().filter_map(plain).collect(), next }))
    }

    /// Returns those of these tags whose builds have an image still.
    async fn of_images(&self, tags: Vec<(String, BuildId)>) -> Result<Vec<String>, Error> {
        let builds: BTreeSet<BuildId> = tags.iter().map(|(_, build)| *build).collect();
        let rows = self.store().rows(&builds.into_iter().collect::<Vec<_>>()).await?;
        let with_image = rows.iter().filter(|row| crate::artifacts::image_of(row).is_some());
        let with_image: BTreeSet<BuildId> = with_image.map(|row| row.submission.build).collect();
        let of_image = |(tag, build)| with_image.contains(&build).then_some(tag);
        Ok(tags.into_iter().filter_map(of_image).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::check_tag;

    #[test]
    fn tags_are_those_of_registries() {
        for good in ["app:latest", "team/app-1:v1.2_3", "a:1"] {
            assert!(check_tag(good).is_ok(), "{good}");
        }
        for bad in ["app", "App:x", "app:", ":x", "a//b:x", "../x:1", "a:.x", "builds:x", "a:b:c"] {
            assert!(check_tag(bad).is_err(), "{bad}");
        }
    }
}
