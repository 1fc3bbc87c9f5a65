//! Images that a tenant has tagged, as bases of its later builds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ashlar_core::frontend::{Answers, Question};
use ashlar_core::{BuildId, TenantId};
use ashlar_oci::Reference;
use tokio::runtime::Handle;

use crate::artifacts::image_of;
use crate::recipe::image_name;
use crate::{Away, Error, Service};

/// What a tag has in place of a name that says none.
const TAG_DEFAULT: &str = "latest";

/// Finds builds by the tags of one tenant.
pub(crate) trait Tagged: Send + Sync {
    /// Returns the build that a tag leads to.
    ///
    /// # Errors
    /// With a text for the client, when that cannot be found out or the build's image is gone: to ask
    /// a registry outside then would give whoever has the name there the place of the tenant's own.
    fn build_of(&self, tag: &str) -> Result<Option<BuildId>, String>;
}

/// The tags of a tenant in the database.
pub(crate) struct TenantTags {
    pub(crate) service: Arc<Service>,
    pub(crate) tenant: TenantId,
    pub(crate) runtime: Handle,
    /// What did not answer when it was asked.
    pub(crate) away: Arc<OnceLock<Away>>,
}

impl Tagged for TenantTags {
    fn build_of(&self, tag: &str) -> Result<Option<BuildId>, String> {
        let found = self.runtime.block_on(async {
            let Some(build) = self.service.tagged(self.tenant, tag).await? else {
                return Ok(None);
            };
            let record = self.service.store().row(build).await?;
            if record.submission.tenant != self.tenant {
                return Ok(None);
            }
            if image_of(&record).is_none() {
                let text = format!(
                    "the image of build {build}, to which your tag '{tag}' leads, was removed; \
                     remove the tag or let it lead to another build"
                );
                return Err(Error::Conflict(text));
            }
            Ok(Some(build))
        });
        found.map_err(|error: Error| {
            if let Error::Away(what) = error {
                let _ = self.away.set(what);
            }
            error.public()
        })
    }
}

/// Puts images of the tenant's own builds in place of the names that the tenant gave them: what a
/// frontend asks by such a name is asked by the build's own one, which no later tag changes.
pub(crate) struct Renaming {
    tenant: TenantId,
    tags: Box<dyn Tagged>,
    /// By the frontend's question the one that is asked in its place.
    asked: Mutex<BTreeMap<Question, Question>>,
}

impl Renaming {
    pub(crate) fn new(tenant: TenantId, tags: Box<dyn Tagged>) -> Self {
        Self { tenant, tags, asked: Mutex::default() }
    }

    /// Returns the question that is asked in place of another one, if so.
    ///
    /// # Errors
    /// With a text for the client, when the tags cannot be read.
    pub(crate) fn rename(&self, question: &Question) -> Result<Option<Question>, String> {
        let asked = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = asked().get(question) {
            return Ok(Some(known.clone()));
        }
        let Question::Image { reference, platform } = question else { return Ok(None) };
        let Some(tag) = tag_of(reference) else { return Ok(None) };
        let Some(build) = self.tags.build_of(&tag)? else { return Ok(None) };
        let name = image_name(self.tenant, build).map_err(|error| error.public())?;
        let own = Question::Image { reference: name.to_string(), platform: platform.clone() };
        asked().insert(question.clone(), own.clone());
        Ok(Some(own))
    }

    /// Gives the frontend's questions the answers of those that were asked in their place.
    pub(crate) fn answer(&self, known: &mut Answers) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for (question, own) in &*asked {
            if let Some(answer) = known.get(own).cloned() {
                known.put(question.clone(), answer);
            }
        }
    }
}

/// Returns the tag that a name in a definition would be of; none for one that says a digest, or is
/// no tag.
fn tag_of(reference: &str) -> Option<String> {
    let reference: Reference = reference.parse().ok()?;
    if reference.digest().is_some() {
        return None;
    }
    let tag = reference.tag().unwrap_or(TAG_DEFAULT);
    let text = format!("{}:{tag}", reference.repository().familiar());
    crate::promote::check_tag(&text).is_ok().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::tag_of;

    #[test]
    fn names_are_those_that_were_given() {
        for (name, tag) in [
            ("app", Some("app:latest")),
            ("rev/base:1", Some("rev/base:1")),
            ("docker.io/rev/base:1", Some("rev/base:1")),
            ("ghcr.io/a/b:2", Some("ghcr.io/a/b:2")),
            ("localhost:5000/a:2", None),
            ("builds:1", None),
        ] {
            assert_eq!(tag_of(name).as_deref(), tag, "{name}");
        }
        assert_eq!(tag_of(&format!("app@sha256:{}", "0".repeat(64))), None);
    }
}
