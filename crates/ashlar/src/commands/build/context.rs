//! Where a build's files are: a directory, a checkout, standard input.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ashlar_frontend_dockerfile::Source;
use ashlar_layers::{UnpackOptions, decompress, unpack_tar};
use tempfile::TempDir;

use crate::cli::build::BuildArgs;
use crate::commands::usage;
use crate::settings::Settings;
use crate::values::{self, GitAddress};

/// The name of the main context.
const MAIN: &str = "context";
/// The name of the Dockerfile's own context, when the main one does not have it.
const OTHER: &str = "dockerfile";
/// The longest Dockerfile that is read from standard input, in bytes.
const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes that tell a tar from a Dockerfile.
const PEEK_BYTES: u64 = 512;
/// Bytes of an archive that are read at once.
const READ_BYTES: usize = 256 << 10;

/// Directories that live as long as the build.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    _unpacked: Option<TempDir>,
}

/// What was found.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) file_name: Option<String>,
    pub(super) contexts: BTreeMap<String, PathBuf>,
    pub(super) git: Option<GitAddress>,
    pub(super) once: bool,
    pub(super) inputs: Inputs,
}

impl Found {
    fn new(source: Source, main: PathBuf) -> Self {
        let contexts = BTreeMap::from([(MAIN.to_owned(), main)]);
        let inputs = Inputs::default();
        Self { source, file_name: None, contexts, git: None, once: false, inputs }
    }
}

/// Finds the context and the Dockerfile.
///
/// # Errors
/// When one of them is not there.
pub(super) fn find(settings: &Settings, args: &BuildArgs) -> Result<Found> {
    let file = args.file.as_deref();
    if args.context == "-" {
        return from_stdin(settings, file);
    }
    if values::is_git(&args.context) {
        let git = values::git_address(&args.context);
        let source = inside(file.unwrap_or("Dockerfile").to_owned());
        // The checkout's directory is put in when the build runs.
        let found = Found::new(source, PathBuf::new());
        return Ok(Found { git: Some(git), ..found });
    }
    if args.context.starts_with("http://") || args.context.starts_with("https://") {
        return usage(format!(
            "'{0}' is no git address (which ends in .git, or has #REF), and archives are not fetched: \
             curl -fsSL {0} | ashlar build -",
            args.context
        ));
    }
    if args.context.contains("://") {
        return usage(format!(
            "'{}' is no context: give a directory, a git address (ending in .git, or with #REF), or -",
            args.context
        ));
    }
    let Ok(dir) = Path::new(&args.context).canonicalize() else {
        return usage(format!("the context '{}' does not exist; give a directory", args.context));
    };
    if !dir.is_dir() {
        return usage(format!(
            "the context '{}' is not a directory; a Dockerfile is named with -f FILE",
            args.context
        ));
    }
    in_directory(dir, file)
}

fn inside(path: String) -> Source {
    Source::Context { context: MAIN.into(), path }
}

fn in_directory(dir: PathBuf, file: Option<&str>) -> Result<Found> {
    let Some(file) = file else {
        let lower = !dir.join("Dockerfile").exists() && dir.join("dockerfile").exists();
        let name = if lower { "dockerfile" } else { "Dockerfile" };
        return Ok(Found::new(inside(name.into()), dir));
    };
    if file == "-" {
        let text = read_text(io::stdin().lock())?;
        let found = Found::new(Source::Text(text), dir);
        return Ok(Found { once: true, ..found });
    }
    let path = match (Path::new(file).canonicalize(), dir.join(file).canonicalize()) {
        (Ok(path), _) | (Err(_), Ok(path)) => path,
        (Err(_), Err(_)) => return usage(format!("--file {file}: there is no such file")),
    };
    if path.is_dir() {
        return usage(format!("--file {file}: it is a directory"));
    }
    if let Some(relative) = path.strip_prefix(&dir).ok().and_then(Path::to_str) {
        return Ok(Found::new(inside(relative.to_owned()), dir));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return usage(format!("--file {file}: its name is not UTF-8"));
    };
    let source = Source::Context { context: OTHER.into(), path: name.to_owned() };
    let mut found = Found::new(source, dir);
    found.contexts.insert(OTHER.into(), parent.to_owned());
    Ok(found)
}

fn read_text(input: impl io::Read) -> Result<String> {
    let mut bytes = Vec::new();
    input.take(DOCKERFILE_BYTES_MAX + 1).read_to_end(&mut bytes).context("standard input")?;
    if bytes.len() as u64 > DOCKERFILE_BYTES_MAX {
        return usage("the Dockerfile from standard input is longer than 4 MiB");
    }
    String::from_utf8(bytes).context("the Dockerfile from standard input is not UTF-8")
}

/// Reads a tar, compressed or not, or a Dockerfile with an empty context.
fn from_stdin(settings: &Settings, file: Option<&str>) -> Result<Found> {
    if file == Some("-") {
        return usage("the context and --file cannot both be standard input");
    }
    let mut input = io::stdin();
    let mut head = Vec::new();
    input.by_ref().take(PEEK_BYTES).read_to_end(&mut head).context("standard input")?;
    let parent = ashlar_native::DataDir::open(settings.dir()?)?.scratch();
    let dir = TempDir::with_prefix_in("context-", parent)?;
    let main = dir.path().to_owned();
    let whole = io::Cursor::new(head.clone()).chain(input);
    let source = if is_archive(&head) {
        let target = std::fs::File::open(dir.path())?;
        let (_, plain) = decompress(whole).context("standard input")?;
        let options = UnpackOptions::archive(Vec::new());
        let plain = io::BufReader::with_capacity(READ_BYTES, plain);
        unpack_tar(plain, target.as_fd(), &options).context("the context on standard input")?;
        inside(file.unwrap_or("Dockerfile").to_owned())
    } else if file.is_some() {
        return usage("--file names a file of the context, but standard input is no tar archive");
    } else {
        Source::Text(read_text(whole)?)
    };
    let found = Found::new(source, main);
    Ok(Found { once: true, inputs: Inputs { _unpacked: Some(dir) }, ..found })
}

/// Says whether bytes begin a tar, or one that is compressed.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    let tar = head.get(257..262) == Some(b"ustar");
    tar || MAGIC.iter().any(|m| head.starts_with(m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(b"\x1f\x8b\x08"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(b""));
    }

    #[test]
    fn a_dockerfile_elsewhere_gets_a_context_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("app")).unwrap();
        std::fs::write(root.join("other.Dockerfile"), "FROM scratch").unwrap();
        std::fs::write(root.join("app/Mine"), "FROM scratch").unwrap();
        let outside = root.join("other.Dockerfile");
        let found = in_directory(root.join("app"), outside.to_str()).unwrap();
        assert_eq!(found.contexts[OTHER], root);
        let found = in_directory(root.join("app"), Some("Mine")).unwrap();
        assert_eq!(found.source, inside("Mine".into()));
        assert!(in_directory(root.join("app"), Some("none")).is_err());
    }
}
