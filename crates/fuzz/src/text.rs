//! Documents and short texts.

use ashlar_core::frontend::{Answers, Frontend};
use ashlar_frontend_declarative::{Base, Declarative, Definition, parse_steps, render_dockerfile};
use ashlar_oci::{Document, Reference};
use ashlar_service::{ContextManifest, Query};

/// Any bytes as JSON steps: reading, rendering and lowering never panic, and what was read is
/// read again from what is written.
///
/// # Panics
/// When that does not hold.
pub fn declarative(data: &[u8]) {
    let Ok(json) = serde_json::from_slice(data) else { return };
    let Ok(parsed) = parse_steps(&json) else { return };
    let written = serde_json::to_value(&parsed.steps);
    let again = written.ok().and_then(|json| parse_steps(&json).ok());
    assert_eq!(Some(&parsed.steps), again.as_ref().map(|a| &a.steps));
    render_dockerfile("scratch", &parsed.steps);
    let definition = Definition::new(Base::Image("scratch".into()), parsed.steps);
    assert!(Declarative(definition).lower(&Answers::new()).is_ok(), "well-formed steps lower");
}

/// Any bytes as a manifest or index, with and without the header that says which.
pub fn manifest(data: &[u8]) {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    for content_type in [None, Some(INDEX)] {
        if let Err(error) = Document::parse(data, content_type) {
            let _ = error.to_string();
        }
    }
}

/// Any text as an image reference: what is written is read as the same.
///
/// # Panics
/// When it is not.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(read) = text.parse::<Reference>() else { return };
    for form in [read.to_string(), read.familiar()] {
        assert_eq!(form.parse::<Reference>().ok().as_ref(), Some(&read), "{text} as {form}");
    }
}

/// Any bytes as the manifest of a context: one that passes names nothing outside of it.
///
/// # Panics
/// When it does.
pub fn context(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<ContextManifest>(data) else { return };
    if manifest.check().is_err() {
        return;
    }
    for file in &manifest.files {
        let outside = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        assert!(!file.path.split('/').any(outside), "{:?} leads out", file.path);
    }
}

/// Any text as a query for builds.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Query::parse(text) {
        let _ = error.to_string();
    }
}
