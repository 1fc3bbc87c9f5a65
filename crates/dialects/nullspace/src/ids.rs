//! Ids as they go over the wire: a prefix and the 32 hexadecimal digits of ours.

use ashlar_core::BuildId;
use uuid::Uuid;

/// What ids of builds begin with; a qualifier that begins so names a build.
pub(crate) const BUILD_PREFIX: &str = "tb_";
/// What ids of templates begin with.
pub(crate) const TEMPLATE_PREFIX: &str = "tmpl_";
/// What ids of artifacts begin with.
pub(crate) const ARTIFACT_PREFIX: &str = "art_";

/// Returns a build's id.
pub(crate) fn build(id: BuildId) -> String {
    format!("{BUILD_PREFIX}{}", id.uuid().simple())
}

/// Returns a template's id.
pub(crate) fn template(id: Uuid) -> String {
    format!("{TEMPLATE_PREFIX}{}", id.simple())
}

/// Returns the id of what a build made.
pub(crate) fn artifact(build: BuildId) -> String {
    format!("{ARTIFACT_PREFIX}{}", build.uuid().simple())
}

/// Reads a build's id.
pub(crate) fn read_build(text: &str) -> Option<BuildId> {
    read(BUILD_PREFIX, text).map(BuildId::from_uuid)
}

/// Reads a template's id.
pub(crate) fn read_template(text: &str) -> Option<Uuid> {
    read(TEMPLATE_PREFIX, text)
}

/// Reads an artifact's id: the build that made it.
pub(crate) fn read_artifact(text: &str) -> Option<BuildId> {
    read(ARTIFACT_PREFIX, text).map(BuildId::from_uuid)
}

/// One text an id: other spellings of the same UUID are refused.
fn read(prefix: &str, text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?;
    let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if digits.len() != 32 || !digits.bytes().all(plain) {
        return None;
    }
    Uuid::try_parse(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = BuildId::from_parts(7, [9; 10]);
        let text = build(id);
        assert_eq!(read_build(&text), Some(id));
        for bad in [&text[3..], &text.to_uppercase(), &format!("tb_{id}"), &text[..34], "tb_"] {
            assert_eq!(read_build(bad), None, "{bad}");
        }
        assert_eq!(read_template(&text), None);
    }
}
