//! Images that a Dockerfile builds on and that no daemon can have.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::{Answer, Answers, Frontend as _, Lowered, Question};
use ashlar_core::{Digest, Platform};
use ashlar_files::Root;
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request};
use ashlar_native::BuildRequest;
use ashlar_oci::{ImageStore, Images, Origin, Reference};

/// How often the frontend is answered: each time it may ask for what the last answers led to.
const ROUNDS_MAX: usize = 16;
/// The largest Dockerfile that is read, in bytes; of a larger one the daemon complains.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Says why no daemon can run a build whose base, by a name without a registry, is an image that was
/// made or imported here: a daemon would take what some registry has under that name.
pub fn unfit_base(
    request: &Request,
    contexts: &BTreeMap<String, PathBuf>,
    store: &ImageStore,
) -> Option<String> {
    let name = local_base(request, contexts, store)?;
    Some(format!("'{name}' is an image of this machine, which a BuildKit daemon cannot pull"))
}

/// Refuses such a build.
///
/// # Errors
/// Names the image, and what to do.
pub(crate) fn check(
    request: &Request,
    build: &BuildRequest,
    images: &Images,
) -> Result<(), Failure> {
    let Some(text) = unfit_base(request, &build.contexts, images.store()) else { return Ok(()) };
    let hint = "push it and write the name that it has at the registry, or build natively; if an image \
                of Docker Hub is meant, write docker.io/ before its name";
    Err(Failure::new(FailureKind::Definition, text).hint(hint))
}

fn local_base(
    request: &Request,
    contexts: &BTreeMap<String, PathBuf>,
    store: &ImageStore,
) -> Option<String> {
    let mut local = None;
    ask(request, contexts, |name, platform| {
        local = is_local(name, platform, store).then(|| name.to_owned());
        local.is_some()
    });
    local
}

/// Tells of all images that a definition names, until one is found. What is wrong with a definition
/// is the daemon's to say.
fn ask(
    request: &Request,
    contexts: &BTreeMap<String, PathBuf>,
    mut found: impl FnMut(&str, &Platform) -> bool,
) {
    let frontend = DockerfileFrontend::new(request.clone());
    let mut answers = Answers::new();
    for _ in 0..ROUNDS_MAX {
        let Ok(Lowered::Questions(questions)) = frontend.lower(&answers) else { return };
        for question in questions {
            let answer = match &question {
                Question::Image { reference, platform } if found(reference, platform) => return,
                Question::Image { reference, .. } => Answer::Image {
                    reference: reference.clone(),
                    manifest: Digest::of(reference),
                    config: Box::default(),
                },
                Question::File { context, path } => {
                    Answer::File { content: contexts.get(context).and_then(|dir| read(dir, path)) }
                }
                Question::Listing { .. } => Answer::Listing { names: None },
                Question::Exec { .. } => return,
            };
            answers.put(question, answer);
        }
    }
}

fn read(dir: &Path, path: &str) -> Option<Vec<u8>> {
    let file = Root::open(dir).ok()?.open_file(path.trim_start_matches("./").as_bytes()).ok()?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Says whether a name without a registry leads to an image that came from none. A store that cannot
/// be read has no say.
fn is_local(name: &str, platform: &Platform, store: &ImageStore) -> bool {
    let first = name.split_once('/').map(|(first, _)| first);
    if first.is_some_and(|host| host == "localhost" || host.contains(['.', ':'])) {
        return false;
    }
    let Ok(reference) = name.parse::<Reference>() else { return false };
    let found = store.find(&reference, platform).ok().flatten();
    found.is_some_and(|(_, image)| image.origin != Origin::Pulled)
}
