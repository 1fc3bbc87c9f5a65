//! Names of templates: the grammar of references, and paths that hold them.

use std::fmt;

use ashlar_core::BuildId;
use ashlar_service::Tenant;
use uuid::Uuid;

use crate::ids::{self, BUILD_PREFIX, TEMPLATE_PREFIX};

/// The namespace of templates that come with the server. There are none so far, but clients know
/// the name, so that no tenant's namespace may be called so.
pub(crate) const SYSTEM_NAMESPACE: &str = "nullspace";
/// The tag of a reference that names none.
pub(crate) const TAG_DEFAULT: &str = "default";
/// What the SDK makes of a bare name; falls back to [`TAG_DEFAULT`].
pub(crate) const TAG_LATEST: &str = "latest";
/// The longest name or tag, in bytes.
const WORD_BYTES_MAX: usize = 128;
/// The longest namespace, in bytes.
const SLUG_BYTES_MAX: usize = 128;

/// A text is no reference to a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}' is no template reference: {why}")]
pub(crate) struct RefError {
    shown: String,
    why: &'static str,
}

/// A reference to a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateRef {
    /// By id, known or not.
    Id(String),
    /// By name.
    Name {
        /// The namespace; the caller's own when absent.
        namespace: Option<String>,
        /// The name, or an earlier one.
        name: String,
        /// Which build of it.
        qualifier: Option<Qualifier>,
    },
}

/// Which build of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Qualifier {
    /// The one that a tag points at.
    Tag(String),
    /// Exactly this one; none when the id is no id of ours, so leads nowhere.
    Build(Option<BuildId>),
}

impl TemplateRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// When it is outside of the grammar.
    pub(crate) fn parse(text: &str) -> Result<Self, RefError> {
        let wrong = |why| RefError { shown: text.chars().take(100).collect(), why };
        let (path, qualifier) = match text.split_once(':') {
            Some((path, qualifier)) => (path, Some(qualifier)),
            None => (text, None),
        };
        if path.starts_with(TEMPLATE_PREFIX) && !path.contains('/') {
            return match qualifier {
                None => Ok(Self::Id(path.to_owned())),
                Some(_) => Err(wrong("an id takes no tag")),
            };
        }
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, path),
        };
        if namespace.is_some_and(|n| !is_slug(n)) {
            return Err(wrong("a namespace has lower-case letters, digits and single hyphens"));
        }
        if !is_name(name) {
            return Err(wrong("a name has letters, digits, '.', '_' and '-', at most 128"));
        }
        let qualifier = match qualifier {
            None => None,
            Some(id) if id.starts_with(BUILD_PREFIX) => {
                if !is_word(id) {
                    return Err(wrong("a build id has letters, digits and '_'"));
                }
                Some(Qualifier::Build(ids::read_build(id)))
            }
            Some(tag) if is_tag(tag) => Some(Qualifier::Tag(tag.to_owned())),
            Some(_) => {
                return Err(wrong("a tag has letters, digits, '_', '.' and '-', at most 128"));
            }
        };
        let (namespace, name) = (namespace.map(str::to_owned), name.to_owned());
        Ok(Self::Name { namespace, name, qualifier })
    }

    /// Returns which build of the template is meant.
    pub(crate) fn qualifier(&self) -> Option<&Qualifier> {
        match self {
            Self::Id(_) => None,
            Self::Name { qualifier, .. } => qualifier.as_ref(),
        }
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => f.write_str(id),
            Self::Name { namespace, name, qualifier } => {
                if let Some(namespace) = namespace {
                    write!(f, "{namespace}/")?;
                }
                f.write_str(name)?;
                match qualifier {
                    None => Ok(()),
                    Some(Qualifier::Tag(tag)) => write!(f, ":{tag}"),
                    Some(Qualifier::Build(Some(id))) => write!(f, ":{}", ids::build(*id)),
                    Some(Qualifier::Build(None)) => write!(f, ":{BUILD_PREFIX}?"),
                }
            }
        }
    }
}

/// Says whether a text fits as the name of a template: one segment.
pub(crate) fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.len() <= WORD_BYTES_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(inner)
        && !text.starts_with(TEMPLATE_PREFIX)
}

/// Says whether a text fits as a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    is_word(text) && !text.starts_with(BUILD_PREFIX)
}

fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= WORD_BYTES_MAX
        && text.bytes().next().is_some_and(first)
        && text.bytes().all(inner)
}

/// Says whether a text fits as a namespace: words with single hyphens, which a UUID is too.
pub(crate) fn is_slug(text: &str) -> bool {
    let word =
        |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= SLUG_BYTES_MAX && text.split('-').all(word)
}

/// Returns a tenant's namespace: its name where clients take it for one, else its id.
pub(crate) fn slug_of(tenant: &Tenant) -> String {
    if is_slug(&tenant.name) && tenant.name != SYSTEM_NAMESPACE {
        return tenant.name.clone();
    }
    tenant.id.to_string()
}

/// Returns the tenant id that a namespace spells out.
pub(crate) fn slug_id(slug: &str) -> Option<Uuid> {
    Uuid::try_parse(slug).ok()
}

/// Says whether a text is an image reference: `[host[:port]/]path[:tag][@sha256:...]`.
pub(crate) fn is_image(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let hex = |d: &str| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit());
    if digest.is_some_and(|d| !d.strip_prefix("sha256:").is_some_and(hex)) {
        return false;
    }
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[last..].split_once(':') {
        Some((name, tag)) => (&rest[..last + name.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|t| !is_word(t)) {
        return false;
    }
    let mut segments: Vec<&str> = path.split('/').collect();
    if segments.len() > 1 && is_host(segments[0]) {
        segments.remove(0);
    }
    text.len() <= 512 && segments.iter().all(|s| is_repository_part(s))
}

fn is_host(text: &str) -> bool {
    if !(text.contains('.') || text.contains(':') || text == "localhost") {
        return false;
    }
    let (name, port) = text.split_once(':').unwrap_or((text, "0"));
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    name.split('.').all(part) && port.parse::<u16>().is_ok()
}

fn is_repository_part(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| plain(b) || matches!(b, b'.' | b'_' | b'-');
    text.bytes().next().is_some_and(plain)
        && text.bytes().last().is_some_and(plain)
        && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(namespace: Option<&str>, name: &str, tag: Option<&str>) -> TemplateRef {
        TemplateRef::Name {
            namespace: namespace.map(str::to_owned),
            name: name.into(),
            qualifier: tag.map(|t| Qualifier::Tag(t.into())),
        }
    }

    #[test]
    fn references_follow_the_grammar() {
        let build = BuildId::from_parts(1, [2; 10]);
        for (text, want) in [
            ("app", named(None, "app", None)),
            ("app:v1", named(None, "app", Some("v1"))),
            ("acme/App_1.x", named(Some("acme"), "App_1.x", None)),
            ("a-b/app:_x", named(Some("a-b"), "app", Some("_x"))),
            ("tmpl_x", TemplateRef::Id("tmpl_x".into())),
        ] {
            assert_eq!(TemplateRef::parse(text).unwrap(), want, "{text}");
        }
        let exact = TemplateRef::parse(&format!("app:{}", ids::build(build))).unwrap();
        assert_eq!(exact.qualifier(), Some(&Qualifier::Build(Some(build))));
        let nowhere = TemplateRef::parse("app:tb_1").unwrap();
        assert_eq!(nowhere.qualifier(), Some(&Qualifier::Build(None)));
    }

    #[test]
    fn what_is_outside_of_the_grammar_is_refused() {
        let long = "x".repeat(129);
        for bad in [
            "",
            ":",
            "app:",
            ":v1",
            "a/b/c",
            "/app",
            "acme/",
            "Acme/app",
            "a--b/app",
            "-a/app",
            "app:v1:v2",
            "app@sha256:x",
            "app name",
            ".app",
            "tmpl_x:v1",
            "app:tb_/",
            "ä",
            "a\0",
            &long,
        ] {
            assert!(TemplateRef::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_namespace_is_a_slug_or_an_id() {
        let tenant = |name: &str| Tenant {
            id: ashlar_core::TenantId::from_parts(1, [1; 10]),
            name: name.into(),
        };
        assert_eq!(slug_of(&tenant("acme-2")), "acme-2");
        for name in ["nullspace", "Acme", "a_b"] {
            let slug = slug_of(&tenant(name));
            assert!(is_slug(&slug) && slug_id(&slug).is_some(), "{slug}");
        }
    }

    #[test]
    fn images_are_told_from_nonsense() {
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        for good in [
            "busybox",
            "busybox:latest",
            "library/busybox",
            "127.0.0.1:5000/a/b:1",
            "localhost/x",
            "ghcr.io/Org".to_lowercase().as_str(),
            &digest,
            "scratch",
        ] {
            assert!(is_image(good), "{good}");
        }
        for bad in [
            "",
            "UPPER",
            "a//b",
            "a:",
            "a:b:c",
            "a@sha256:1",
            "a b",
            "../x",
            "a/..",
            "http://x/y",
            "-x",
            "x/",
        ] {
            assert!(!is_image(bad), "{bad}");
        }
    }
}
