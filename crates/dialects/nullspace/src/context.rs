//! The files that a build copies from: descriptors, inline content and blobs.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_core::Digest;
use ashlar_service::frontends::declarative::Step;
use ashlar_service::{Actor, ContextFile, ContextManifest, EntryKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::app::App;
use crate::blobs::BlobId;
use crate::documents::{AttemptFiles, FileUse, NamedBlob};
use crate::errors::{Answer, ApiError};
use crate::fields::Fields;
use crate::wire::ContextSummary;

/// Entries that one context may have: each file is an entry of the build's log.
const FILES_MAX: usize = 20_000;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// A context whose descriptors are right.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) manifest: ContextManifest,
    /// The blob of each file, in the manifest's order.
    files: Vec<(String, BlobId)>,
    /// Content that came with the request.
    inline: BTreeMap<Digest, Vec<u8>>,
}

impl Context {
    /// Reads a context's descriptors.
    pub(crate) fn read(files: &Value) -> Answer<Self> {
        let list = files.as_array().map(Vec::as_slice).unwrap_or_default();
        if list.len() > FILES_MAX {
            let what = format!("the context has more than {FILES_MAX} entries");
            return Err(ApiError::upload("preflight", "too_many_files", what));
        }
        let mut context = Self::default();
        for (i, value) in list.iter().enumerate() {
            let place = format!("build_context.files[{i}]");
            context.add(&Fields::new(place, value)?)?;
        }
        context.manifest.check().map_err(|e| {
            ApiError::upload("preflight", "invalid_context", format!("build_context.{e}"))
        })?;
        Ok(context)
    }

    fn add(&mut self, f: &Fields<'_>) -> Answer<()> {
        let path = f.text_needed("path")?;
        check_path(&path)?;
        let mode = read_mode(f)?;
        let kind = f.one_of("entry_type", &["file", "dir"])?.unwrap_or("file");
        let (blob, inline) = (f.text("blob_id")?, f.text("content_base64")?);
        let wrong = |reason, message: &str| {
            let message = format!("'{path}': {message}");
            ApiError::upload("preflight", reason, message).about("path", &path)
        };
        let kind = match (kind, blob, inline) {
            ("dir", None, None) => EntryKind::Dir,
            ("dir", _, _) => return Err(wrong("invalid_entry", "a directory has no content")),
            (_, Some(text), None) => {
                let unknown = || wrong("unknown_blob", "there is no such blob; upload it first");
                let blob = BlobId::parse(&text).ok_or_else(unknown)?;
                self.file(&path, blob)
            }
            (_, None, Some(text)) => {
                let bytes = STANDARD.decode(text.as_bytes());
                let bytes =
                    bytes.map_err(|_| wrong("invalid_content", "content_base64 is no base64"))?;
                let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
                self.inline.insert(digest, bytes);
                self.file(&path, BlobId { digest, size, generation: None })
            }
            (_, None, None) => {
                return Err(wrong("missing_content", "needs blob_id or content_base64"));
            }
            (_, Some(_), Some(_)) => {
                return Err(wrong("invalid_entry", "has blob_id and content_base64; give one"));
            }
        };
        self.manifest.files.push(ContextFile { path, kind, mode });
        Ok(())
    }

    fn file(&mut self, path: &str, blob: BlobId) -> EntryKind {
        self.files.push((path.to_owned(), blob));
        EntryKind::File { digest: blob.digest, size: Some(blob.size) }
    }

    /// Checks that copies name what is in the context, which may be missing: not even `.` is there
    /// then.
    pub(crate) fn check_sources(context: Option<&Self>, steps: &[Step]) -> Answer<()> {
        let mut known: BTreeSet<&str> = BTreeSet::new();
        if context.is_some() {
            known.extend(["", "."]);
        }
        for file in context.iter().flat_map(|c| &c.manifest.files) {
            known.insert(&file.path);
            known.extend(file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
        }
        for (i, step) in steps.iter().enumerate() {
            for source in step.copies().iter().flat_map(|c| &c.sources) {
                let path = source.trim_end_matches('/');
                let path = path.strip_prefix("./").unwrap_or(path);
                if !known.contains(path) {
                    let shown: String = source.chars().take(200).collect();
                    let what = format!("steps[{i}].sources: '{shown}' is not in the context");
                    return Err(ApiError::invalid(what));
                }
            }
        }
        Ok(())
    }

    /// Returns the content of a file that came with the request, or where it is.
    pub(crate) fn file_named(&self, path: &str) -> Option<Result<&[u8], Digest>> {
        let path = path.strip_prefix("./").unwrap_or(path);
        let (_, blob) = self.files.iter().find(|(p, _)| p == path)?;
        Some(self.inline.get(&blob.digest).map(Vec::as_slice).ok_or(blob.digest))
    }

    /// Returns the digest of the context: of paths, modes and contents.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = ashlar_core::Hasher::new();
        let mut files: Vec<&ContextFile> = self.manifest.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in files {
            hasher.field(&file.path).field(file.mode.unwrap_or(0).to_be_bytes());
            match &file.kind {
                EntryKind::File { digest, .. } => hasher.field("file").field(digest.as_bytes()),
                _ => hasher.field("dir"),
            };
        }
        hasher.finish().to_string()
    }

    /// Returns the context in short.
    pub(crate) fn summary(&self) -> ContextSummary {
        let digest = self.digest();
        ContextSummary {
            context_manifest_id: digest.replace("sha256:", "ctx_"),
            context_digest: digest,
            file_count: self.files.len() as u64,
        }
    }
}

/// How a context's files were known, with the notes that say so to later builds.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    pub(crate) manifest: Option<Digest>,
    pub(crate) files: AttemptFiles,
    pub(crate) named: BTreeMap<uuid::Uuid, NamedBlob>,
    /// The blob of each file by path.
    pub(crate) blobs: Vec<(String, String)>,
}

impl App {
    /// Checks that the content of every file is here or came with the request.
    pub(crate) async fn check_content(&self, actor: &Actor, context: &Context) -> Answer<()> {
        let stored = context.files.iter().filter(|(_, b)| !context.inline.contains_key(&b.digest));
        let blobs: BTreeSet<BlobId> = stored.map(|(_, b)| *b).collect();
        let blobs: Vec<BlobId> = blobs.into_iter().collect();
        let Some(missing) = self.missing(actor, &blobs).await?.first().copied() else {
            return Ok(());
        };
        let path = context.files.iter().find(|(_, b)| *b == missing);
        let path = path.map_or("", |(path, _)| path.as_str());
        let what = format!("'{path}': its content was never uploaded");
        Err(ApiError::upload("preflight", "missing_blob", what)
            .about("path", path)
            .about("blob_id", &missing.to_string()))
    }

    /// Keeps a context, and finds out how its files were known.
    pub(crate) async fn bind(&self, actor: &Actor, context: Context) -> Answer<Bound> {
        let mut bound = Bound::default();
        for (path, blob) in &context.files {
            let known = self.known(actor, blob, &mut bound).await?;
            bound.files.files.push((path.clone(), known));
            bound.blobs.push((path.clone(), blob.to_string()));
        }
        for (digest, bytes) in context.inline {
            self.service.put_blob(actor, Some(digest), bytes).await?;
        }
        let kept = self.service.put_context(actor, context.manifest).await;
        bound.manifest = Some(kept.map_err(|e| match e.kind() {
            ashlar_service::ErrorKind::Invalid => {
                ApiError::upload("preflight", "invalid_context", e.public())
            }
            _ => e.into(),
        })?);
        Ok(bound)
    }

    async fn known(&self, actor: &Actor, blob: &BlobId, bound: &mut Bound) -> Answer<FileUse> {
        let id = blob.note_id();
        let tenant = Some(actor.tenant.id);
        if bound.named.contains_key(&id)
            || self.objects.document::<NamedBlob>(tenant, id).await?.is_some()
        {
            return Ok(FileUse::Known);
        }
        bound.named.insert(id, NamedBlob { blob_id: blob.to_string() });
        Ok(if blob.generation.is_some() { FileUse::Forced } else { FileUse::New })
    }
}

/// Refuses paths that are not plainly inside of a context.
pub(crate) fn check_path(path: &str) -> Answer<()> {
    let wrong = |why: &str| {
        let shown: String = path.escape_debug().take(200).collect();
        let message = format!("the path '{shown}' {why}");
        Err(ApiError::upload("preflight", "invalid_path", message).about("path", &shown))
    };
    if path.is_empty() {
        wrong("is empty")
    } else if path.len() > PATH_BYTES_MAX {
        wrong("is too long")
    } else if path.starts_with('/') {
        wrong("must be relative")
    } else if path.contains('\0') {
        wrong("holds a NUL")
    } else if path.split('/').any(|part| part == "..") {
        wrong("leaves the context")
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        wrong("has empty parts or '.'")
    } else {
        Ok(())
    }
}

/// Reads permission bits: octal digits, or the value itself.
pub(crate) fn read_mode(f: &Fields<'_>) -> Answer<Option<u32>> {
    let Some(value) = f.get("mode") else { return Ok(None) };
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let bits = match value {
        Value::String(text) if digits(text) => u32::from_str_radix(text, 8).ok(),
        Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    match bits {
        Some(bits) if bits <= 0o7777 => Ok(Some(bits)),
        // Clients may send the type of the file too.
        Some(bits) if bits <= 0o177_777 => Ok(Some(bits & 0o7777)),
        _ => Err(ApiError::invalid(format!("{}: is no mode; write it as \"0755\"", f.key("mode")))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_descriptors_are_refused_in_phase_preflight() {
        let b64 = "aGVsbG8=";
        for bad in [
            json!([{ "path": "../x", "entry_type": "file", "content_base64": b64 }]),
            json!([{ "path": "/x", "entry_type": "file", "content_base64": b64 }]),
            json!([{ "path": "", "entry_type": "dir" }]),
            json!([{ "path": "a/./b", "entry_type": "dir" }]),
            json!([{ "path": "a\u{0}b", "entry_type": "dir" }]),
            json!([{ "path": "x", "entry_type": "file" }]),
            json!([{ "path": "x", "entry_type": "file", "content_base64": "?" }]),
            json!([{ "path": "x", "entry_type": "file", "blob_id": "nope" }]),
            json!([{ "path": "x", "entry_type": "dir" },
                   { "path": "x", "entry_type": "file", "content_base64": b64 }]),
            json!([{ "path": "x", "entry_type": "file", "content_base64": b64, "blob_id": "y" }]),
        ] {
            let error = Context::read(&bad).unwrap_err();
            assert_eq!(error.code, "file_upload_error", "{bad}");
            assert_eq!(error.detail.unwrap().phase, "preflight", "{bad}");
        }
    }

    #[test]
    fn copies_must_name_what_is_there() {
        let files = json!([
            { "path": "a/b/c", "entry_type": "file", "content_base64": "" },
            { "path": "d", "entry_type": "dir" },
        ]);
        let context = Context::read(&files).unwrap();
        assert_eq!(context.file_named("./a/b/c"), Some(Ok(&b""[..])));
        let steps = |source: &str| {
            let steps = json!([{ "action": "copy", "sources": [source], "dst": "/x" }]);
            ashlar_service::frontends::declarative::parse_steps(&steps).unwrap().steps
        };
        for good in ["a/b/c", "a/b", "a/", "d", ".", "./a"] {
            assert!(Context::check_sources(Some(&context), &steps(good)).is_ok(), "{good}");
        }
        for bad in ["b", "a/b/c/d", "e"] {
            assert!(Context::check_sources(Some(&context), &steps(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_digest_is_that_of_paths_modes_and_contents() {
        let read = |files: Value| Context::read(&files).unwrap().digest();
        let a = json!({ "path": "a", "entry_type": "file", "content_base64": "" });
        let b = json!({ "path": "b", "entry_type": "dir" });
        assert_eq!(read(json!([a, b])), read(json!([b, a])));
        let other =
            json!({ "path": "a", "entry_type": "file", "content_base64": "", "mode": "0700" });
        assert_ne!(read(json!([a])), read(json!([other])));
    }
}
