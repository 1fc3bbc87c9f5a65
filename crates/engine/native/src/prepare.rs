//! From a definition to a plan whose sources are known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::{Answer, Answers, Lowered, Plan, Question};
use ashlar_core::journal::Event;
use ashlar_core::{Digest, graph::Op};
use ashlar_files::{Context, Ignore, IgnoreNothing, Patterns};
use ashlar_layers::Stop;
use ashlar_oci::Images;

use crate::engine::Shared;
use crate::error::{internal, source};
use crate::job::{ContextKey, check_context};
use crate::request::BuildRequest;
use crate::watch::Watch;

/// A frontend that asks for more rounds than this goes in circles.
const ROUNDS_MAX: usize = 64;

/// The longest file of a context that a frontend may ask for.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Lowers the definition, answering the frontend's questions.
pub(crate) fn lower(
    engine: &Arc<Shared>,
    request: &BuildRequest,
    view: &Images,
    stop: &AtomicBool,
) -> Result<Plan, Failure> {
    let mut answers = Answers::new();
    for _ in 0..ROUNDS_MAX {
        Watch { sink: &*request.sink, stop }.check()?;
        match request.frontend.lower(&answers).map_err(|d| Failure::from(*d))? {
            Lowered::Plan(plan) => return Ok(*plan),
            Lowered::Questions(questions) => {
                for (question, answer) in answer_all(engine, request, view, questions, stop)? {
                    record(request, &question, &answer)?;
                    answers.put(question, answer);
                }
            }
        }
    }
    Err(Failure::new(FailureKind::Internal, "the frontend asks without end"))
}

fn record(request: &BuildRequest, question: &Question, answer: &Answer) -> Result<(), Failure> {
    let question = serde_json::to_string(question).map_err(internal)?;
    let answer = Digest::of(serde_json::to_vec(answer).map_err(internal)?);
    request.sink.event(Event::Answered { question, answer });
    Ok(())
}

/// Answers questions side by side: most of them wait for a registry.
fn answer_all(
    engine: &Arc<Shared>,
    request: &BuildRequest,
    view: &Images,
    questions: Vec<Question>,
    stop: &AtomicBool,
) -> Result<Vec<(Question, Answer)>, Failure> {
    let answer_one = |question: Question| {
        let answer = match answer(engine, request, view, &question, stop) {
            Ok(answer) => answer,
            // That credentials were refused, or our own store is away, is said as it is; the rest is
            // the frontend's to word.
            Err(failure) if failure.kind == FailureKind::Auth || failure.store_away => {
                return Err(failure);
            }
            Err(failure) => Answer::Failed { message: failure.to_string() },
        };
        Ok((question, answer))
    };
    if questions.len() == 1 {
        return questions.into_iter().map(answer_one).collect();
    }
    std::thread::scope(|scope| {
        let start = |question| scope.spawn(move || answer_one(question));
        let threads: Vec<_> = questions.into_iter().map(start).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    })
}

fn answer(
    engine: &Arc<Shared>,
    request: &BuildRequest,
    view: &Images,
    question: &Question,
    stop: &AtomicBool,
) -> Result<Answer, Failure> {
    match question {
        Question::Image { reference, platform } => {
            let watch = Watch { sink: &*request.sink, stop };
            engine.resolve_image(view, reference, platform, request.pull, watch)
        }
        Question::File { context, path } => {
            let content = whole_context(engine, request, context)?.read(path, FILE_BYTES_MAX);
            Ok(Answer::File { content: content.map_err(source)? })
        }
        Question::Listing { context, path } => {
            let names = whole_context(engine, request, context)?.list(path);
            Ok(Answer::Listing { names: names.map_err(source)? })
        }
        Question::Exec { graph } => crate::detect::run(engine, request, graph),
    }
}

/// Opens a context without exclusions, for reading single files.
fn whole_context(engine: &Shared, request: &BuildRequest, name: &str) -> Result<Context, Failure> {
    open_context(engine, request, name, Arc::new(IgnoreNothing))
}

fn open_context(
    engine: &Shared,
    request: &BuildRequest,
    name: &str,
    ignore: Arc<dyn Ignore>,
) -> Result<Context, Failure> {
    let dir = request.contexts.get(name).ok_or_else(|| {
        Failure::new(FailureKind::Source, format!("the build has no context '{name}'"))
    })?;
    check_context(name, dir)?;
    let cache = engine.dir.cache().join("contexts");
    Context::open(dir, ignore, &cache, Stop::default()).map_err(source)
}

/// Opens all contexts that a plan copies from.
pub(crate) fn contexts(
    engine: &Shared,
    request: &BuildRequest,
    plan: &Plan,
) -> Result<BTreeMap<ContextKey, Arc<Context>>, Failure> {
    let mut contexts = BTreeMap::new();
    for id in plan.graph.needed(plan.target) {
        if let Op::Context { name, exclude } = &plan.graph.node(id).op {
            let key = ContextKey { name: name.clone(), exclude: exclude.clone() };
            let patterns = Patterns::new(exclude).map_err(source)?;
            let context = open_context(engine, request, name, Arc::new(patterns))?;
            contexts.insert(key, Arc::new(context));
        }
    }
    Ok(contexts)
}
