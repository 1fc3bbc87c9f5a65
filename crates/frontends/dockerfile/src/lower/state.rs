//! Stages on their way to nodes.

use ashlar_core::Platform;
use ashlar_core::graph::NodeId;
use ashlar_core::image::ImageConfig;

use super::env::Env;
use crate::lexer::Line;
use crate::parse::ast::{Instruction, Stage};
use crate::request::NamedContext;
use crate::source::{Span, Word};

/// The place of a stage among all of them; images that are only copied from come last.
pub(super) type StageIndex = usize;

/// A stage, or an image that some instruction copies or mounts from.
#[derive(Debug)]
pub(super) struct State {
    /// Name in lower case.
    pub(super) name: Option<String>,
    /// What step names show; nothing when there is only one stage.
    pub(super) shown: String,
    /// The line that brought it in.
    pub(super) line: Line,
    /// What it starts from, expanded.
    pub(super) base_name: String,
    /// Where that is named in the line.
    pub(super) span: Span,
    /// The stage that it starts from.
    pub(super) base: Option<StageIndex>,
    /// What stands in for the whole stage.
    pub(super) stand_in: Option<NamedContext>,
    /// Value of `--platform`.
    pub(super) platform: Option<Platform>,
    /// Its instructions, triggers of the base first.
    pub(super) commands: Vec<Step>,
    /// Stages and images that it copies or mounts from.
    pub(super) needs: Vec<StageIndex>,
    /// Whether it is an image without a `FROM`.
    pub(super) external: bool,
    /// Number of steps that its names count up to.
    pub(super) total: usize,
    /// Whether the base's triggers were put in.
    pub(super) triggers_in: bool,
    /// What the base image is, when it is one.
    pub(super) resolved: Option<Resolved>,
    /// What came out.
    pub(super) outcome: Option<Outcome>,
}

/// An instruction with what it copies or mounts from.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) instruction: Instruction,
    /// Source of a copy, or of each mount in order.
    pub(super) sources: Vec<Option<StageIndex>>,
    /// Whether it is a trigger of the base.
    pub(super) trigger: bool,
}

impl State {
    pub(super) fn of_stage(stage: &Stage, base_name: String, index: usize) -> Self {
        Self {
            name: stage.name.clone(),
            shown: stage.name.clone().unwrap_or_else(|| format!("stage-{index}")),
            line: stage.line.clone(),
            base_name,
            span: stage.base.span,
            base: None,
            stand_in: None,
            platform: None,
            commands: Vec::new(),
            needs: Vec::new(),
            external: false,
            total: 0,
            triggers_in: false,
            resolved: None,
            outcome: None,
        }
    }

    pub(super) fn of_image(reference: &Word, line: &Line) -> Self {
        Self {
            name: None,
            shown: String::new(),
            line: line.clone(),
            base_name: reference.text.clone(),
            span: reference.span,
            base: None,
            stand_in: None,
            platform: None,
            commands: Vec::new(),
            needs: Vec::new(),
            external: true,
            total: 0,
            triggers_in: true,
            resolved: None,
            outcome: None,
        }
    }
}

/// What a stage starts from when that is no stage.
#[derive(Debug, Clone)]
pub(super) enum Resolved {
    /// The empty tree; with the config of an image that has no layers.
    Scratch(Option<Box<ImageConfig>>),
    /// An image.
    Image {
        reference: String,
        manifest: ashlar_core::Digest,
        config: Box<ImageConfig>,
        platform: Platform,
    },
    /// A directory of the client with its ignore patterns.
    Directory { name: String, exclude: Vec<String> },
    /// A git repository.
    Git(Box<super::git::GitRef>),
}

/// A stage as far as it was lowered.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) node: NodeId,
    pub(super) config: ImageConfig,
    pub(super) env: Env,
    pub(super) platform: Platform,
    pub(super) layer_nodes: Vec<NodeId>,
    /// Declared arguments in order, with their values where they have one.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) workdir_set: bool,
}
