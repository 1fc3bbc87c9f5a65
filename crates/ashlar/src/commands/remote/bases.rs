//! Which images a build stands on, so that the logins for their registries can go with it.

use std::fs::File;
use std::io::Read as _;

use ashlar_core::frontend::{Answer, Answers, Frontend as _, Lowered, Question};
use ashlar_frontend_dockerfile::DockerfileFrontend;
use ashlar_oci::Reference;

use crate::commands::build::Definition;

/// Rounds of questions until the frontend asks for images: one for the Dockerfile, one for more.
const ROUNDS_MAX: usize = 4;
/// The largest Dockerfile that is read, in bytes; the server refuses a larger one.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Returns the images that the stages of a definition begin with, copy from and mount, with
/// variables filled in. A Dockerfile that is wrong has none: the server says what is wrong with it.
pub(super) fn of(definition: &Definition) -> Vec<Reference> {
    let frontend = DockerfileFrontend::new(definition.request.clone());
    let mut answers = Answers::new();
    for _ in 0..ROUNDS_MAX {
        let Ok(Lowered::Questions(questions)) = frontend.lower(&answers) else { break };
        // All images that are known to be needed are asked for at once.
        let images: Vec<Reference> = questions.iter().filter_map(image).collect();
        if !images.is_empty() {
            return images;
        }
        for question in questions {
            let answer = answer(definition, &question);
            answers.put(question, answer);
        }
    }
    Vec::new()
}

fn image(question: &Question) -> Option<Reference> {
    match question {
        Question::Image { reference, .. } => reference.parse().ok(),
        _ => None,
    }
}

fn answer(definition: &Definition, question: &Question) -> Answer {
    match question {
        Question::File { context, path } => {
            Answer::File { content: file(definition, context, path) }
        }
        _ => Answer::Failed { message: "it is found out at the server".into() },
    }
}

fn file(definition: &Definition, context: &str, path: &str) -> Option<Vec<u8>> {
    let file = File::open(definition.contexts.get(context)?.join(path)).ok()?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some(content)
}
