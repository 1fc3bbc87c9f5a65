//! How a definition becomes a graph: pure, resumable lowering.
//!
//! A frontend is called again and again with the answers so far until it has no more questions.
//! It never reads a file or a registry itself, so a lowering can be replayed from a journal.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, NodeId, StepId};
use crate::image::ImageConfig;
use crate::{Digest, Platform};

/// Turns one definition into a graph.
pub trait Frontend: Send + Sync {
    /// The frontend's name in records, for example `dockerfile`.
    fn name(&self) -> &'static str;

    /// Lowers the definition as far as `answers` allow.
    ///
    /// # Errors
    /// When the definition is wrong; the diagnostic says where and what to do.
    fn lower(&self, answers: &Answers) -> Result<Lowered, Box<Diagnostic>>;
}

/// What a lowering came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Lowered {
    /// Everything is known.
    Plan(Box<Plan>),
    /// These must be answered first; never empty, and none of them was answered already.
    Questions(Vec<Question>),
}

/// A graph with what shall come out of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The operations.
    pub graph: Graph,
    /// The node whose tree is the result.
    pub target: NodeId,
    /// The result's image config, complete but for `rootfs.diff_ids` and `created`. Its history has
    /// one entry without `empty_layer` for every node that may add a layer, base layers included.
    pub config: ImageConfig,
    /// For each history entry that is not marked empty and not the base's: the node that makes it.
    /// An entry whose layer turns out empty is marked empty at export.
    pub layer_nodes: Vec<NodeId>,
    /// The steps in the order in which people count them.
    pub steps: Vec<Step>,
    /// What was odd but not wrong.
    pub warnings: Vec<Diagnostic>,
}

/// One step as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its number, from 1.
    pub id: StepId,
    /// For example `[build 2/5] RUN make`.
    pub name: String,
    /// Where it stands in the definition.
    pub location: Option<Location>,
    /// The node that does it, when it does anything.
    pub node: Option<NodeId>,
}

/// Something that a frontend must know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// The config of an image.
    Image {
        /// The reference as the user wrote it.
        reference: String,
        /// The platform that is wanted.
        platform: Platform,
    },
    /// The bytes of a file in a context.
    File {
        /// Name of the context.
        context: String,
        /// Path relative to its root.
        path: String,
    },
    /// The names in a directory of a context.
    Listing {
        /// Name of the context.
        context: String,
        /// Path relative to its root.
        path: String,
    },
    /// What an exec node of a graph returns (buildpack detection).
    Exec {
        /// The graph's JSON: its last node is the exec. Text, so that questions can be map keys.
        graph: String,
    },
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// An image.
    Image {
        /// The reference, normalised (`docker.io/library/busybox:latest`).
        reference: String,
        /// The digest of the platform's manifest.
        manifest: Digest,
        /// Its config.
        config: Box<ImageConfig>,
    },
    /// A file; `None` when it does not exist.
    File {
        /// The bytes.
        content: Option<Vec<u8>>,
    },
    /// A directory's names, sorted, directories with a trailing `/`; `None` when it does not exist.
    Listing {
        /// The names.
        names: Option<Vec<String>>,
    },
    /// An exec node's outcome.
    Exec {
        /// Its exit code.
        exit_code: i32,
        /// The files that it returned, by name.
        files: BTreeMap<String, Vec<u8>>,
    },
    /// The question has no answer, and this is why.
    Failed {
        /// A text for the user.
        message: String,
    },
}

/// Answers by question.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers(BTreeMap<Question, Answer>);

impl Answers {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records an answer; the first one stays.
    pub fn put(&mut self, question: Question, answer: Answer) {
        self.0.entry(question).or_insert(answer);
    }

    /// Returns the answer to a question.
    pub fn get(&self, question: &Question) -> Option<&Answer> {
        self.0.get(question)
    }

    /// Returns all of them, in the questions' order.
    pub fn iter(&self) -> impl Iterator<Item = (&Question, &Answer)> {
        self.0.iter()
    }
}

/// A place in a definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The file as the user named it.
    pub file: String,
    /// First line, from 1.
    pub line: u32,
    /// Last line, from 1.
    pub end_line: u32,
    /// First column, from 1, in characters; 0 when only the line is known.
    pub column: u32,
    /// Column after the last, from 1; equal to `column` when only a point is known.
    pub end_column: u32,
}

/// A message about a definition, with the line it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// What is wrong, one sentence.
    pub message: String,
    /// Where.
    pub location: Option<Location>,
    /// The text of the location's first line.
    pub source_line: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Makes a message that names no place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), location: None, source_line: None, hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place and the text of its first line.
    #[must_use]
    pub fn at(mut self, location: Location, source_line: impl Into<String>) -> Self {
        self.location = Some(location);
        self.source_line = Some(source_line.into());
        self
    }
}

/// Shows `file:line:column: message`, the line with a caret, and the hint.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(l) if l.column > 0 => {
                write!(f, "{}:{}:{}: {}", l.file, l.line, l.column, self.message)?;
            }
            Some(l) => write!(f, "{}:{}: {}", l.file, l.line, self.message)?,
            None => f.write_str(&self.message)?,
        }
        if let (Some(l), Some(text)) = (&self.location, &self.source_line) {
            write_excerpt(f, l, text)?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

/// The longest excerpt of a line that is shown, in characters.
const EXCERPT_MAX: usize = 160;

fn write_excerpt(f: &mut fmt::Formatter<'_>, at: &Location, text: &str) -> fmt::Result {
    let column = at.column.max(1) as usize - 1;
    let skipped = column.saturating_sub(EXCERPT_MAX / 2);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = text.chars().skip(skipped).take(EXCERPT_MAX).map(clean).collect();
    write!(f, "\n{:>5} | {}", at.line, shown.trim_end())?;
    if at.column == 0 {
        return Ok(());
    }
    let room = shown.chars().count().saturating_sub(column - skipped).max(1);
    let width = (at.end_column.saturating_sub(at.column) as usize).clamp(1, room);
    write!(f, "\n      | {}{}", " ".repeat(column - skipped), "^".repeat(width))
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostic_points_at_the_word() {
        let location =
            Location { file: "Dockerfile".into(), line: 2, end_line: 2, column: 1, end_column: 5 };
        let d = Diagnostic::new("unknown instruction: RUNN")
            .at(location, "RUNN make\n")
            .hint("did you mean RUN?");
        let want = "Dockerfile:2:1: unknown instruction: RUNN\n    2 | RUNN make\n      | ^^^^\n\
                    hint: did you mean RUN?";
        assert_eq!(d.to_string(), want);
    }
}
