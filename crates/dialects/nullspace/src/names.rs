//! Names in the store: what templates are called, and tags, which keep builds.
//!
//! The store lets no build go that somebody's name leads to, so that every tag is such a name,
//! `TEMPLATE:TAG`. It is moved twice: by the worker together with the build's success, before
//! anybody has looked at the template, and together with each change of the template's document,
//! whose word is the last one.

use ashlar_service::{MovedName, NameOnSuccess, NewAlias};
use uuid::Uuid;

use crate::DIALECT;
use crate::app::App;
use crate::documents::Template;
use crate::ids;
use crate::templates::Found;

/// The kind of name that leads from a template's name to it.
pub(crate) const NAME: &str = "name";
/// The kind of name that leads from a template's tag to a build.
const TAG: &str = "tag";

fn tag_name(template: Uuid, tag: &str) -> String {
    format!("{}:{tag}", ids::template(template))
}

/// Returns the names that lead to a build of a template as soon as it has succeeded.
pub(crate) fn on_success(template: Uuid, tags: &[String]) -> Vec<NameOnSuccess> {
    let name = |tag: &String| NameOnSuccess {
        dialect: DIALECT.to_owned(),
        kind: TAG.to_owned(),
        alias: tag_name(template, tag),
    };
    tags.iter().map(name).collect()
}

impl App {
    /// Returns the names that a change of a template takes away, those of the tags that it moves,
    /// and of others, with where they lead after it.
    pub(crate) fn moved_names(
        &self,
        before: &Found,
        after: &Template,
        others: &[String],
    ) -> Vec<MovedName> {
        let tenant = Some(before.tenant);
        let names = self.objects.namespace(tenant, NAME);
        let gone = before.template.names().filter(|name| !after.is_called(name));
        let gone = gone.map(|name| MovedName {
            alias: NewAlias::own(names.clone(), name.to_owned()),
            target: None,
        });
        let namespace = self.objects.namespace(tenant, TAG);
        let moved = |tag: &String| {
            after.tag(tag) != before.template.tag(tag) || others.iter().any(|o| o == tag)
        };
        // A tag that was taken away is still in the document, so none is missed.
        let tags = after.tags.iter().filter(|(tag, _)| moved(tag));
        let name = |(tag, state): (&String, &crate::documents::TagState)| MovedName {
            alias: NewAlias::protecting(namespace.clone(), tag_name(before.id, tag)),
            target: state.build.map(|build| build.uuid()),
        };
        gone.chain(tags.map(name)).collect()
    }
}
