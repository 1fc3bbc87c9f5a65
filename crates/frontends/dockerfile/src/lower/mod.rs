//! From instructions to a graph: stages, variables, configs and history.
//!
//! Each call starts anew with the answers so far. Stages are set up ([`stages`]), what they start
//! from is resolved ([`resolve`]), and the needed ones are lowered in file order ([`stage`]).

mod checks;
mod config;
mod context;
mod copy;
mod env;
mod git;
mod mounts;
mod names;
mod owner;
mod paths;
mod platform;
mod ports;
mod reference;
mod resolve;
mod run;
mod stage;
mod stages;
mod state;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;

use ashlar_core::Timestamp;
use ashlar_core::frontend::{
    Answer, Answers, Diagnostic, Lowered, Plan, Question, Step as PlanStep,
};
use ashlar_core::graph::{Graph, GraphError, NodeId, NodeMeta, Op};

use context::Ignored;
use env::Env;
use state::{Outcome, State};

use crate::lexer::Line;
use crate::limits::GRAPH_BYTES_MAX;
use crate::lint::Lint;
use crate::parse::{self, ast::File};
use crate::request::{Request, Source};
use crate::source::{Problem, SourceText};

/// What `COPY --from` and everything else works on.
struct Lowering<'a> {
    request: &'a Request,
    answers: &'a Answers,
    source: SourceText,
    lint: Lint,
    file: File,
    /// Arguments before the first `FROM`, predefined ones included.
    globals: Env,
    states: Vec<State>,
    /// Number of entries of `states` that are stages of the file.
    stage_count: usize,
    graph: Graph,
    steps: Vec<PlanStep>,
    created: Option<String>,
    /// What must be known before the next call; in the order in which it came up.
    questions: RefCell<Vec<Question>>,
    spent: Cell<usize>,
    /// The node of the main context, once it is made.
    context: Option<NodeId>,
    /// What the main context's ignore file says, once it is known.
    ignored: OnceCell<Ignored>,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Lowers a request as far as the answers allow.
pub(crate) fn lower(request: &Request, answers: &Answers) -> Result<Lowered> {
    let text = match text(request, answers)? {
        Ok(text) => text,
        Err(question) => return Ok(Lowered::Questions(vec![question])),
    };
    let source = SourceText::new(&request.file_name, &text);
    let mut lint = Lint::new(request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").cloned());
    let file = parse::file(&text, &source, &mut lint)?;
    let epoch = stages::epoch(request)?;
    let mut lowering = Lowering {
        request,
        answers,
        source,
        lint,
        file,
        globals: Env::default(),
        states: Vec::new(),
        stage_count: 0,
        graph: Graph::new(),
        steps: Vec::new(),
        created: epoch.map(|s| Timestamp::from_nanos(s.saturating_mul(1_000_000_000)).rfc3339()),
        questions: RefCell::new(Vec::new()),
        spent: Cell::new(0),
        context: None,
        ignored: OnceCell::new(),
    };
    lowering.run()
}

/// Returns the Dockerfile's text, or the question that asks for it.
fn text(request: &Request, answers: &Answers) -> Result<std::result::Result<String, Question>> {
    let (context, path) = match &request.source {
        Source::Text(text) => return Ok(Ok(text.clone())),
        Source::Context { context, path } => (context, path),
    };
    let question = Question::File { context: context.clone(), path: path.clone() };
    let fail = |m: String| Box::new(Diagnostic::new(m));
    match answers.get(&question) {
        None => Ok(Err(question)),
        Some(Answer::File { content: Some(bytes) }) => decode(bytes, &request.file_name).map(Ok),
        Some(Answer::File { content: None }) => {
            let message = format!("{path} was not found in the context");
            Err(Box::new(fail(message).hint("name another Dockerfile with --file")))
        }
        Some(Answer::Failed { message }) => Err(fail(format!("{path} can't be read: {message}"))),
        Some(_) => Err(fail(format!("the answer to a question about {path} is no file"))),
    }
}

/// Reads UTF-8; other bytes are let pass in comments only, where they change nothing.
fn decode(bytes: &[u8], name: &str) -> Result<String> {
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let comment = line.trim_ascii_start().starts_with(b"#");
        if std::str::from_utf8(line).is_err() && !comment {
            let source = SourceText::new(name, &String::from_utf8_lossy(bytes));
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let problem = Problem::new("the line is not UTF-8 text").hint("save the file as UTF-8");
            return Err(source.diagnose_lines(number, number, problem));
        }
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

impl Lowering<'_> {
    fn run(&mut self) -> Result<Lowered> {
        self.check_syntax();
        self.read_globals()?;
        self.make_states()?;
        let target = self.find_target()?;
        self.link()?;
        let needed = self.resolve(target)?;
        if let Some(needed) = needed {
            // Images that are copied from come after the stages in the list, but before them here.
            let (stages, images): (Vec<_>, Vec<_>) =
                needed.into_iter().partition(|i| *i < self.stage_count);
            for index in images.into_iter().chain(stages) {
                self.lower_stage(index)?;
            }
        }
        let questions = self.questions.take();
        if !questions.is_empty() {
            return Ok(Lowered::Questions(questions));
        }
        self.finish(target)
    }

    fn finish(&mut self, target: usize) -> Result<Lowered> {
        let missing = || Box::new(Diagnostic::new("the target stage was not lowered"));
        let outcome = self.states[target].outcome.take().ok_or_else(missing)?;
        let Outcome { node, mut config, layer_nodes, .. } = outcome;
        let labels = self.request.labels.iter().map(|(k, v)| (k.clone(), v.clone()));
        config.config.labels.extend(labels);
        if let Some(platform) = &self.request.platform {
            let same = config.os == platform.os && config.architecture == platform.architecture;
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            if platform.variant.is_some() || !same {
                config.variant.clone_from(&platform.variant);
            }
        }
        config.created.clone_from(&self.created);
        let warnings = std::mem::take(&mut self.lint).finish()?;
        Ok(Lowered::Plan(Box::new(Plan {
            graph: std::mem::take(&mut self.graph),
            target: node,
            config,
            layer_nodes,
            steps: std::mem::take(&mut self.steps),
            warnings,
        })))
    }

    /// Returns the answer to a question, noting the question when there is none yet.
    fn ask(&self, question: Question) -> Option<&Answer> {
        let answer = self.answers.get(&question);
        if answer.is_none() {
            let mut questions = self.questions.borrow_mut();
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        answer
    }

    /// Counts what a node, a config or a history keeps.
    fn spend(&self, bytes: usize) -> std::result::Result<(), Problem> {
        self.spent.set(self.spent.get().saturating_add(bytes));
        if self.spent.get() > GRAPH_BYTES_MAX {
            let message = format!(
                "command lines, variables and files of this build come to more than \
                 {GRAPH_BYTES_MAX} bytes"
            );
            return Err(Problem::new(message).hint("split it into several builds"));
        }
        Ok(())
    }

    fn node(
        &mut self,
        op: Op,
        inputs: Vec<NodeId>,
        meta: NodeMeta,
    ) -> std::result::Result<NodeId, Problem> {
        self.graph.add(op, inputs, meta).map_err(|e: GraphError| Problem::new(e.to_string()))
    }

    /// Gives a problem its place in the file.
    fn place<T>(&self, line: &Line, result: std::result::Result<T, Problem>) -> Result<T> {
        result.map_err(|problem| self.source.diagnose(line, problem))
    }

    /// Returns the names of all stages.
    fn stage_names(&self) -> BTreeSet<&str> {
        self.states[..self.stage_count].iter().filter_map(|s| s.name.as_deref()).collect()
    }
}
