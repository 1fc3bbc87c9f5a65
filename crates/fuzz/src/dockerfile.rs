//! Reads and lowers any bytes as a Dockerfile, with canned answers.

use ashlar_core::Digest;
use ashlar_core::frontend::{Answer, Answers, Frontend, Lowered, Question};
use ashlar_core::image::{History, ImageConfig};
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request, Source};

fn answer(question: &Question, file: &[u8]) -> Answer {
    match question {
        Question::Image { reference, platform } => {
            let mut config = ImageConfig::scratch(platform);
            config.history = vec![History::default()];
            if reference.contains("onbuild") {
                config.config.on_build = vec!["RUN x".into(), "COPY --from=other a b".into()];
            }
            Answer::Image {
                reference: format!("docker.io/library/{reference}:latest"),
                manifest: Digest::of(reference),
                config: Box::new(config),
            }
        }
        Question::File { path, .. } if path == "Dockerfile" => {
            Answer::File { content: Some(file.to_vec()) }
        }
        Question::File { .. } => Answer::File { content: Some(b"*\n!a\n".to_vec()) },
        _ => Answer::Failed { message: "unknown".into() },
    }
}

/// Any bytes as a Dockerfile: it is lowered or refused after a bounded number of questions.
///
/// # Panics
/// When it never stops asking, or the image's history lacks a layer.
pub fn dockerfile(file: &[u8]) {
    let source = Source::Context { context: "context".into(), path: "Dockerfile".into() };
    let frontend = DockerfileFrontend::new(Request::new(source));
    let mut answers = Answers::new();
    for _ in 0..32 {
        match frontend.lower(&answers) {
            Ok(Lowered::Questions(questions)) => {
                for question in questions {
                    let answer = answer(&question, file);
                    answers.put(question, answer);
                }
            }
            Ok(Lowered::Plan(plan)) => {
                let layers = plan.config.history.iter().filter(|h| !h.empty_layer).count();
                assert!(layers >= plan.layer_nodes.len());
                return;
            }
            Err(error) => {
                let _ = error.to_string();
                return;
            }
        }
    }
    panic!("the frontend never stops asking");
}
