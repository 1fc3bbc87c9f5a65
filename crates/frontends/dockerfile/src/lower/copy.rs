//! `COPY` and `ADD`.

use ashlar_core::graph::{Copy, FileAction, Mode, NodeId, NodeMeta, Op, Owner};

use super::context::Ignored;
use super::git::{self, GitRef};
use super::stage::Work;
use super::state::Step;
use super::{Lowering, names, owner, paths};
use crate::expand::{self, Options};
use crate::limits::BODY_BYTES_MAX;
use crate::lint::Rule;
use crate::parse::ast::{Body, Copying, Instruction};
use crate::source::{Problem, Span, Word};

type Checked<T> = std::result::Result<T, Problem>;

/// An instruction with its variables filled in.
struct Filled {
    sources: Vec<Word>,
    bodies: Vec<(String, String)>,
    destination: String,
    /// The destination as it is written.
    shown_destination: String,
    chown: Option<String>,
    chmod: Option<String>,
    checksum: Option<Word>,
}

/// The file actions while they are collected.
struct Actions {
    inputs: Vec<NodeId>,
    actions: Vec<FileAction>,
    /// What all copies have in common.
    template: Copy,
}

impl Actions {
    fn input(&mut self, node: NodeId) -> usize {
        let known = self.inputs.iter().skip(1).position(|n| *n == node);
        known.map_or_else(
            || {
                self.inputs.push(node);
                self.inputs.len() - 1
            },
            |at| at + 1,
        )
    }

    /// Copies one thing.
    fn copy(&mut self, node: NodeId, source: String, change: impl FnOnce(&mut Copy)) {
        let input = self.input(node);
        let mut copy = Copy { input, sources: vec![source], ..self.template.clone() };
        change(&mut copy);
        // Sources of one tree that go into a directory are one action; where the destination may
        // be a file, each copy must see what the one before it made.
        let directory = copy.destination.ends_with('/');
        if let Some(FileAction::Copy(last)) = self.actions.last_mut()
            && directory
            && (Copy { sources: vec![], ..(**last).clone() })
                == (Copy { sources: vec![], ..copy.clone() })
        {
            last.sources.append(&mut copy.sources);
            return;
        }
        self.actions.push(FileAction::Copy(Box::new(copy)));
    }
}

impl Lowering<'_> {
    pub(super) fn copy(&mut self, work: &mut Work, step: &Step, copying: &Copying) -> Checked<()> {
        let instruction = &step.instruction;
        let filled = self.fill(work, instruction, copying)?;
        check_checksum(&filled)?;
        let mode = filled.chmod.as_deref().map(|text| mode(text, copying)).transpose()?;
        let options = Options::new(self.file.directives.escape);
        let text = names::shown(instruction.code(), &work.at.env, &options);
        let meta = self.step_meta(work, step, &text);
        // Links are made without regard to what lies below; BuildKit does not link with --chmod.
        let link = copying.link && mode.is_none();
        let below =
            if link { self.node(Op::Scratch, vec![], NodeMeta::default())? } else { work.at.node };
        let mut actions = Actions {
            inputs: vec![below],
            actions: Vec::new(),
            template: Copy {
                destination: filled.destination.clone(),
                owner: filled.chown.as_deref().map(owner::owner),
                mode,
                exclude: copying.exclude.iter().map(|w| w.text.clone()).collect(),
                ..Copy::default()
            },
        };
        self.add_sources(work, step, copying, &filled, &mut actions, &meta)?;
        for (name, content) in &filled.bodies {
            self.spend(content.len())?;
            let node = self.inline_file(name, content)?;
            actions.copy(node, format!("/{name}"), |c| c.literal = true);
        }
        let history = history(copying, &filled);
        self.spend(history.len() * 2)?;
        let op = Op::File { actions: actions.actions };
        if link {
            let lower = work.at.node;
            self.advance(work, op, actions.inputs, meta.clone())?;
            let merge = NodeMeta { step: None, counted: false, bypass: None, ..meta };
            work.at.node = self.node(Op::Merge, vec![lower, work.at.node], merge)?;
        } else {
            self.advance(work, op, actions.inputs, meta)?;
        }
        self.commit(work, format!("{history} # buildkit"), true)
    }

    fn fill(&self, work: &Work, instruction: &Instruction, copying: &Copying) -> Checked<Filled> {
        let flag = |word: &Option<Word>| -> Checked<Option<String>> {
            let text = word.as_ref().map(|w| self.word(work, instruction, w)).transpose()?;
            Ok(text.filter(|t| !t.is_empty()))
        };
        let chown = flag(&copying.chown)?;
        let chmod = flag(&copying.chmod)?;
        let span = copying.checksum.as_ref().map_or(Span::default(), |w| w.span);
        let checksum = flag(&copying.checksum)?.map(|text| Word::new(text, span));
        let texts = self.words(work, instruction, &copying.sources)?;
        let spans = copying.sources.iter().map(|w| w.span);
        let sources = texts.into_iter().zip(spans).map(|(t, s)| Word::new(t, s)).collect();
        let shown_destination = self.word(work, instruction, &copying.destination)?;
        let destination =
            paths::destination(&work.at.config.config.working_dir, &shown_destination);
        let body = |body: &Body| self.body(work, instruction, body);
        let bodies = copying.bodies.iter().map(body).collect::<Checked<_>>()?;
        Ok(Filled { sources, bodies, destination, shown_destination, chown, chmod, checksum })
    }

    /// Fills in the variables of a heredoc; quotes in it are nothing special.
    fn body(
        &self,
        work: &Work,
        instruction: &Instruction,
        body: &Body,
    ) -> Checked<(String, String)> {
        if body.name.contains('/') || matches!(body.name.as_str(), "." | "..") {
            let message = format!("a heredoc can't be named {:?}: it names the file", body.name);
            return Err(Problem::new(message));
        }
        if !body.expand {
            return Ok((body.name.clone(), body.content.clone()));
        }
        let options =
            Options { ignore_quotes: true, bytes_max: BODY_BYTES_MAX, ..Options::new('\\') };
        let expanded = expand::expand(&body.content, &work.at.env, &options)
            .map_err(|e| Problem::new(format!("heredoc {}: {e}", body.name)))?;
        self.check_undefined(work, instruction, &expanded);
        Ok((body.name.clone(), expanded.text))
    }

    fn inline_file(&mut self, name: &str, content: &str) -> Checked<NodeId> {
        let scratch = self.node(Op::Scratch, vec![], NodeMeta::default())?;
        let file = FileAction::Mkfile {
            path: format!("/{name}"),
            mode: 0o644,
            data: content.as_bytes().to_vec(),
            owner: Owner::default(),
        };
        let meta =
            NodeMeta { name: "[internal] preparing inline document".into(), ..NodeMeta::default() };
        self.node(Op::File { actions: vec![file] }, vec![scratch], meta)
    }

    fn add_sources(
        &mut self,
        work: &Work,
        step: &Step,
        copying: &Copying,
        filled: &Filled,
        actions: &mut Actions,
        meta: &NodeMeta,
    ) -> Checked<()> {
        let fetched = NodeMeta {
            name: meta.name.clone(),
            location: meta.location.clone(),
            ..NodeMeta::default()
        };
        for word in &filled.sources {
            let source = word.text.as_str();
            if let Some(parsed) = GitRef::parse(source) {
                let git = parsed.map_err(|e| Problem::new(e).at(word.span))?;
                let op = git_op(git, copying, filled).map_err(|p| p.at(word.span))?;
                let node = self.node(op, vec![], fetched.clone())?;
                actions.copy(node, "/".into(), |c| c.literal = true);
            } else if git::is_http(source) {
                if !copying.add {
                    return Err(only_add("a URL", word));
                }
                let filename = git::http_file_name(source);
                let op = Op::Http {
                    url: source.to_owned(),
                    checksum: http_checksum(filled)?,
                    filename: filename.clone(),
                };
                let node = self.node(op, vec![], fetched.clone())?;
                actions.copy(node, format!("/{filename}"), |c| {
                    c.literal = true;
                    c.unpack = copying.unpack.unwrap_or(false);
                });
            } else {
                let node = self.source_tree(work, step, copying)?;
                if copying.from.is_none() {
                    self.check_ignored(work, step, copying, source)?;
                }
                let path = local_source(source, copying.parents);
                actions.copy(node, path, |c| {
                    c.parents = copying.parents;
                    c.unpack = copying.unpack.unwrap_or(copying.add);
                });
            }
        }
        Ok(())
    }

    fn source_tree(&mut self, work: &Work, step: &Step, copying: &Copying) -> Checked<NodeId> {
        let Some(Some(index)) = step.sources.first() else { return self.context_node() };
        let from = copying.from.as_ref();
        let outcome = self.states[*index].outcome.as_ref();
        outcome.map(|o| o.node).ok_or_else(|| {
            let message = format!(
                "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
                from.map_or("", |w| w.text.as_str()),
                self.states[work.index].shown
            );
            let problem = Problem::new(message).hint("move that stage up in the file");
            from.map_or(problem.clone(), |w| problem.at(w.span))
        })
    }

    /// Warns of a source that the ignore file leaves out. With negations nothing can be said.
    fn check_ignored(
        &self,
        work: &Work,
        step: &Step,
        copying: &Copying,
        source: &str,
    ) -> Checked<()> {
        let Some(Ignored { patterns, matcher }) = self.main_ignored()? else { return Ok(()) };
        if patterns.is_empty() || patterns.iter().any(|p| p.starts_with('!')) {
            return Ok(());
        }
        let path = paths::clean(source);
        let all = ["*", "**", "**/*"];
        let root = path == "/" && patterns.iter().any(|p| all.contains(&p.as_str()));
        if root || (path != "/" && matcher.matches(&path[1..])) {
            let verb = if copying.add { "Add" } else { "Copy" };
            let shown = if root { "." } else { &path[1..] };
            let text =
                format!("Attempting to {verb} file {shown:?} that is excluded by .dockerignore");
            work.lint.warn(Rule::CopyIgnoredFile, &step.instruction.line, &self.source, text);
        }
        Ok(())
    }
}

/// Cleans a source, counted from the root; with `--parents` what stands before `/./` is kept apart.
fn local_source(source: &str, parents: bool) -> String {
    match source.split_once("/./").filter(|_| parents) {
        Some((above, kept)) => {
            let (above, kept) = (paths::clean(above), paths::clean(kept));
            format!("{}/.{kept}", above.trim_end_matches('/'))
        }
        None => paths::clean(source),
    }
}

fn only_add(what: &str, word: &Word) -> Problem {
    let problem = Problem::new(format!("source can't be {what} for COPY")).at(word.span);
    problem.hint("use ADD")
}

fn mode(text: &str, copying: &Copying) -> Checked<Mode> {
    let span = copying.chmod.as_ref().map_or(Span::default(), |w| w.span);
    owner::mode(text).map_err(|e| Problem::new(e).at(span))
}

fn check_checksum(filled: &Filled) -> Checked<()> {
    let Some(checksum) = &filled.checksum else { return Ok(()) };
    let fail = |m: &str| Err(Problem::new(m).at(checksum.span));
    match filled.sources.as_slice() {
        [one] if git::is_http(&one.text) || GitRef::parse(&one.text).is_some() => Ok(()),
        [_] => fail("checksum requires HTTP(S) or Git sources"),
        _ => fail("checksum can't be specified for multiple sources"),
    }
}

fn http_checksum(filled: &Filled) -> Checked<Option<ashlar_core::Digest>> {
    let Some(word) = &filled.checksum else { return Ok(None) };
    word.text.parse().map(Some).map_err(|_| {
        let problem = Problem::new(format!("invalid checksum {:?}", word.text)).at(word.span);
        problem.hint("write it as sha256: and 64 hexadecimal digits")
    })
}

fn git_op(git: GitRef, copying: &Copying, filled: &Filled) -> Checked<Op> {
    if !copying.add {
        return Err(Problem::new("source can't be a git ref for COPY").hint("use ADD"));
    }
    if let (Some(flag), Some(url)) = (copying.keep_git_dir, git.keep_git_dir)
        && flag != url
    {
        return Err(Problem::new("inconsistent keep-git-dir configuration"));
    }
    let flag = filled.checksum.as_ref().map(|w| w.text.clone());
    if let (Some(flag), Some(url)) = (&flag, &git.checksum)
        && flag != url
    {
        return Err(Problem::new(format!("checksum mismatch {flag:?} != {url:?}")));
    }
    let keep = git.keep_git_dir.or(copying.keep_git_dir).unwrap_or(false);
    let checksum = git.checksum.clone().or(flag);
    Ok(git.op(keep, checksum))
}

/// Returns the history text, without what BuildKit leaves out: `--from`, `--link`, `--exclude`.
fn history(copying: &Copying, filled: &Filled) -> String {
    let mut words = vec![if copying.add { "ADD" } else { "COPY" }.to_owned()];
    words.extend(copying.parents.then(|| "--parents".to_owned()));
    words.extend(filled.chown.as_ref().map(|v| format!("--chown={v}")));
    words.extend(filled.chmod.as_ref().map(|v| format!("--chmod={v}")));
    words.extend(filled.sources.iter().map(|w| w.text.clone()));
    words.extend(filled.bodies.iter().map(|(name, _)| format!("<<{name}")));
    words.push(filled.shown_destination.clone());
    words.join(" ")
}
