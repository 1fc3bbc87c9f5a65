//! The main context and ignore files.

use std::collections::BTreeSet;

use ashlar_core::frontend::{Answer, Question};
use ashlar_core::graph::{NodeId, NodeMeta, Op};

use super::git::GitRef;
use super::state::{StageIndex, Step};
use super::{Lowering, git};
use crate::ignore::{self, IgnoreMatcher};
use crate::parse::ast::Command;
use crate::request::{NamedContext, Source};
use crate::source::Problem;

type Checked<T> = std::result::Result<T, Problem>;

/// What an ignore file says.
#[derive(Debug)]
pub(super) struct Ignored {
    pub(super) patterns: Vec<String>,
    pub(super) matcher: IgnoreMatcher,
}

impl Lowering<'_> {
    /// Returns the node of the main context.
    pub(super) fn context_node(&mut self) -> Checked<NodeId> {
        if let Some(node) = self.context {
            return Ok(node);
        }
        let op = match self.request.named_contexts.get(&self.request.context) {
            Some(NamedContext::Git(url)) => {
                let problem = || Problem::new(format!("the context {url} is not a git URL"));
                let git = GitRef::parse(url).ok_or_else(problem)?;
                let git = git.map_err(|why| Problem::new(format!("invalid context: {why}")))?;
                let (keep, checksum) = (git.keep_git_dir.unwrap_or(false), git.checksum.clone());
                git.op(keep, checksum)
            }
            Some(NamedContext::Image(reference)) => {
                let message = format!("the image {reference} can't be the main context");
                return Err(Problem::new(message).hint("copy from it with COPY --from"));
            }
            named => {
                let name = match named {
                    Some(NamedContext::Directory(name)) => name.clone(),
                    _ => self.request.context.clone(),
                };
                let exclude = self.main_ignored()?.map(|i| i.patterns.clone()).unwrap_or_default();
                Op::Context { name, exclude }
            }
        };
        let meta = NodeMeta { name: "[internal] load build context".into(), ..NodeMeta::default() };
        let node = self.node(op, vec![], meta)?;
        self.context = Some(node);
        Ok(node)
    }

    /// Returns what the main context leaves out; nothing while that is asked for.
    pub(super) fn main_ignored(&self) -> Checked<Option<&Ignored>> {
        if self.ignored.get().is_none()
            && let Some(patterns) = self.main_ignore_patterns()?
        {
            let matcher = IgnoreMatcher::new(&patterns).map_err(|e| Problem::new(e.to_string()))?;
            let _ = self.ignored.set(Ignored { patterns, matcher });
        }
        Ok(self.ignored.get())
    }

    fn main_ignore_patterns(&self) -> Checked<Option<Vec<String>>> {
        if self.request.no_ignore_files {
            return Ok(Some(Vec::new()));
        }
        let replaced = self.request.named_contexts.get(&self.request.context);
        match replaced {
            Some(NamedContext::Directory(name)) => {
                return self.ignore_patterns(name, &[".dockerignore".into()]);
            }
            Some(_) => return Ok(Some(Vec::new())),
            None => {}
        }
        let own = match &self.request.source {
            Source::Context { context, path } => Some((context.clone(), path.clone())),
            Source::Text(_) => {
                let name = &self.request.file_name;
                let inside = !name.starts_with('/') && !name.split('/').any(|p| p == "..");
                (inside && name != "-").then(|| (self.request.context.clone(), name.clone()))
            }
        };
        let main = self.request.context.clone();
        match own {
            Some((context, path)) if context == main => self
                .ignore_patterns(&main, &[format!("{path}.dockerignore"), ".dockerignore".into()]),
            Some((context, path)) => {
                let first = self.ignore_file(&context, &format!("{path}.dockerignore"));
                let second = self.ignore_file(&main, ".dockerignore");
                patterns([first, second])
            }
            None => self.ignore_patterns(&main, &[".dockerignore".into()]),
        }
    }

    /// Returns the patterns of the first of these files that exists.
    pub(super) fn ignore_patterns(
        &self,
        context: &str,
        paths: &[String],
    ) -> Checked<Option<Vec<String>>> {
        let files: Vec<_> = paths.iter().map(|path| self.ignore_file(context, path)).collect();
        patterns(files)
    }

    /// Asks for an ignore file.
    fn ignore_file(&self, context: &str, path: &str) -> (String, Option<&Answer>) {
        let question = Question::File { context: context.to_owned(), path: path.to_owned() };
        (path.to_owned(), self.ask(question))
    }

    /// Asks for the ignore file early when it is certain that the context is used, so that it
    /// costs no round of its own.
    pub(super) fn ask_for_ignore_file(&self, needed: &BTreeSet<StageIndex>) {
        if self.request.named_contexts.contains_key(&self.request.context) {
            return;
        }
        let uses = |s: &Step| match &s.instruction.command {
            Command::Copy(copying) => {
                let local =
                    |w: &str| !w.starts_with('$') && !git::is_http(w) && GitRef::parse(w).is_none();
                copying.from.is_none() && copying.sources.iter().any(|w| local(&w.text))
            }
            _ => false,
        };
        if needed.iter().any(|i| self.states[*i].commands.iter().any(uses)) {
            // What is wrong with the file is said when it is used.
            let _ = self.main_ignored();
        }
    }
}

/// Reads the first file that exists, once all of them are known.
fn patterns<'a>(
    files: impl IntoIterator<Item = (String, Option<&'a Answer>)>,
) -> Checked<Option<Vec<String>>> {
    let files: Vec<_> = files.into_iter().collect();
    if files.iter().any(|(_, answer)| answer.is_none()) {
        return Ok(None);
    }
    for (path, answer) in files {
        match answer {
            Some(Answer::File { content: Some(bytes) }) => {
                let fail = |e: ignore::PatternError| Problem::new(format!("{path}: {e}"));
                let patterns = ignore::read_file(bytes).map_err(fail)?;
                ignore::IgnoreMatcher::new(&patterns).map_err(fail)?;
                return Ok(Some(patterns));
            }
            Some(Answer::Failed { message }) => {
                return Err(Problem::new(format!("{path} can't be read: {message}")));
            }
            _ => {}
        }
    }
    Ok(Some(Vec::new()))
}
