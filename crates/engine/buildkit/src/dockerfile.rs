//! Where the daemon gets the Dockerfile and the contexts from, and what its `# syntax=` line wants.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_files::Root;
use ashlar_frontend_dockerfile::{NamedContext, Request, Source, lexer};
use ashlar_native::BuildRequest;

/// The names that BuildKit's frontend has for the main context and the Dockerfile's directory.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
/// The file's name when its text came with the request.
const FILE_NAME: &str = "Dockerfile";
/// Bytes at the start of a Dockerfile in which a `# syntax=` line is looked for.
const HEAD_BYTES: u64 = 16 << 10;
/// Images of BuildKit's own frontend, which every daemon has built in.
const KNOWN_SYNTAX: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// The files of a build, by the names that the daemon asks for.
pub(crate) struct Inputs {
    /// Directories to be sent.
    pub(crate) directories: BTreeMap<String, PathBuf>,
    /// The Dockerfile's path in the directory `dockerfile`.
    pub(crate) file: String,
    /// Attributes of the frontend that name contexts.
    pub(crate) attributes: BTreeMap<String, String>,
    /// The image that the Dockerfile's `# syntax=` line names, if it is one that can be done without.
    pub(crate) known_syntax: Option<String>,
    /// Holds a Dockerfile whose text came with the request, and stands for a context that is none.
    _own: tempfile::TempDir,
}

impl Inputs {
    /// Lays out the inputs of a build.
    pub(crate) fn of(request: &Request, build: &BuildRequest) -> Result<Self, Failure> {
        let failed = |e: io::Error| {
            Failure::new(FailureKind::Internal, format!("cannot lay out a Dockerfile: {e}"))
        };
        let own = tempfile::tempdir().map_err(failed)?;
        let (own_file, empty) = (own.path().join("file"), own.path().join("empty"));
        std::fs::create_dir(&own_file).map_err(failed)?;
        std::fs::create_dir(&empty).map_err(failed)?;
        let directory = |name: &str| match build.contexts.get(name) {
            Some(place) => Ok(place.clone()),
            None => Err(Failure::new(
                FailureKind::Definition,
                format!("there is no context named '{name}'"),
            )),
        };
        let mut directories = BTreeMap::new();
        let mut attributes = BTreeMap::new();
        let file = match &request.source {
            Source::Text(text) => {
                std::fs::write(own_file.join(FILE_NAME), text).map_err(failed)?;
                directories.insert(DOCKERFILE.to_owned(), own_file);
                FILE_NAME.to_owned()
            }
            Source::Context { context, path } => {
                directories.insert(DOCKERFILE.to_owned(), directory(context)?);
                path.clone()
            }
        };
        let main = build.contexts.get(&request.context).cloned().unwrap_or(empty);
        directories.insert(CONTEXT.to_owned(), main);
        for (number, (name, context)) in request.named_contexts.iter().enumerate() {
            let place = match context {
                NamedContext::Directory(key) if *name == request.context => {
                    directories.insert(CONTEXT.to_owned(), directory(key)?);
                    continue;
                }
                NamedContext::Directory(key) => {
                    let local = format!("named-{number}");
                    directories.insert(local.clone(), directory(key)?);
                    format!("local:{local}")
                }
                NamedContext::Git(url) if *name == request.context => {
                    attributes.insert(CONTEXT.to_owned(), url.clone());
                    continue;
                }
                NamedContext::Git(url) => url.clone(),
                NamedContext::Image(reference) if reference == "scratch" => reference.clone(),
                NamedContext::Image(reference) => format!("docker-image://{reference}"),
            };
            attributes.insert(format!("context:{name}"), place);
        }
        let known_syntax = directories.get(DOCKERFILE).and_then(|dir| head_of(dir, &file));
        let known_syntax = known_syntax.and_then(|head| known(&head));
        Ok(Self { directories, file, attributes, known_syntax, _own: own })
    }
}

/// Reads the start of the Dockerfile; one that cannot be read is the daemon's to complain of.
fn head_of(dir: &Path, file: &str) -> Option<String> {
    let opened = Root::open(dir).ok()?.open_file(file.trim_start_matches("./").as_bytes()).ok()?;
    let mut head = Vec::new();
    opened.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Returns the image of a `# syntax=` line if it is BuildKit's own frontend, whatever its version.
fn known(head: &str) -> Option<String> {
    let syntax = lexer::syntax(head)?;
    let image = syntax.split_whitespace().next()?;
    let name = image.split('@').next().unwrap_or(image);
    let name =
        name.rsplit_once(':').map_or(name, |(n, tag)| if tag.contains('/') { name } else { n });
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    KNOWN_SYNTAX.contains(&name).then(|| image.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_buildkits_own_frontend_is_known() {
        let table = [
            ("# syntax=docker/dockerfile:1\nFROM x", Some("docker/dockerfile:1")),
            (
                "#syntax = docker.io/docker/dockerfile:1.7-labs\n",
                Some("docker.io/docker/dockerfile:1.7-labs"),
            ),
            ("# escape=`\n# syntax=docker/dockerfile\n", Some("docker/dockerfile")),
            (
                "# syntax=docker/dockerfile-upstream:master@sha256:aa\n",
                Some("docker/dockerfile-upstream:master@sha256:aa"),
            ),
            ("# syntax=registry:5000/docker/dockerfile:1\n", None),
            ("# syntax=example/own:1\n", None),
            ("FROM x\n# syntax=docker/dockerfile:1\n", None),
            ("", None),
        ];
        for (text, want) in table {
            assert_eq!(known(text).as_deref(), want, "{text}");
        }
    }
}
