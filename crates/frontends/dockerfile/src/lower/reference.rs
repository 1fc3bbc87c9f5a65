//! Image references, as far as a frontend must read them (distribution/reference's grammar).

/// A reference with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `docker.io/library/busybox`.
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

const DOCKER_HUB: &str = "docker.io";

impl Reference {
    /// Reads a reference.
    ///
    /// The error is a sentence's end: why the text is none.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, digest) = text.split_once('@').map_or((text, None), |(r, d)| (r, Some(d)));
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err("the name is empty");
        }
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err("the tag has characters that tags can't have");
        }
        if digest.is_some_and(|d| !is_digest(d)) {
            return Err("the digest is malformed");
        }
        let name = full_name(path)?;
        Ok(Self { name, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }

    /// Returns the short form without `:latest`, under which contexts stand in for images.
    pub(super) fn familiar(&self) -> String {
        let hub = self.name.strip_prefix("docker.io/");
        let short = hub.map_or(self.name.as_str(), |n| n.strip_prefix("library/").unwrap_or(n));
        let tag = self.tag.as_deref().filter(|t| *t != "latest" || self.digest.is_some());
        let tag = tag.map(|t| format!(":{t}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|d| format!("@{d}")).unwrap_or_default();
        format!("{short}{tag}{digest}")
    }
}

fn full_name(path: &str) -> Result<String, &'static str> {
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => (DOCKER_HUB, path),
    };
    let host = if host == "index.docker.io" { DOCKER_HUB } else { host };
    if rest.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    if rest.is_empty() || !rest.split('/').all(is_component) {
        return Err("the name has characters that names can't have");
    }
    let library = host == DOCKER_HUB && !rest.contains('/');
    Ok(format!("{host}/{}{rest}", if library { "library/" } else { "" }))
}

/// The first part is a host when it looks like one: a dot, a port, `localhost`, or capitals.
fn is_host(text: &str) -> bool {
    let plausible = text.contains(['.', ':']) || text == "localhost";
    let capitals = text.chars().any(|c| c.is_ascii_uppercase());
    (plausible || capitals)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c))
}

fn is_component(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alnum)
        && text.ends_with(alnum)
        && text.chars().all(|c| alnum(c) || "._-".contains(c))
        && !text.contains("..")
        && !text.contains("___")
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || ".-".contains(c))
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_shortened() {
        let all = [
            ("busybox", "busybox"),
            ("docker.io/library/busybox:latest", "busybox"),
            ("index.docker.io/a/b:1", "a/b:1"),
            ("ghcr.io/a/b", "ghcr.io/a/b"),
            ("localhost:5000/x", "localhost:5000/x"),
        ];
        for (text, familiar) in all {
            assert_eq!(Reference::parse(text).unwrap().familiar(), familiar, "{text}");
        }
        for bad in ["", "Busybox", "a b", "a:b c", "a//b", "a@b", "-x", ":x"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
