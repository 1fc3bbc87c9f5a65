//! What a Dockerfile says, instruction by instruction.

use ashlar_core::image::Healthcheck;

use crate::lexer::{Directives, Heredoc, Line};
use crate::source::Word;

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Directives at the top.
    pub directives: Directives,
    /// `ARG` instructions before the first `FROM`.
    pub global_args: Vec<Instruction>,
    /// Stages in file order; at least one.
    pub stages: Vec<Stage>,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The line of the `FROM`.
    pub line: Line,
    /// The keyword as written.
    pub keyword: Word,
    /// What it starts from, variables not expanded.
    pub base: Word,
    /// Its name in lower case.
    pub name: Option<String>,
    /// Value of `--platform`, variables not expanded.
    pub platform: Option<Word>,
    /// The comment above that begins with the stage's name.
    pub description: Option<String>,
    /// The instructions, `FROM` left out.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Its line.
    pub line: Line,
    /// The keyword as written.
    pub keyword: Word,
    /// What it says.
    pub command: Command,
}

impl Instruction {
    /// Returns the instruction as it is written, on one line.
    pub fn code(&self) -> &str {
        self.line.text.trim()
    }
}

/// What an instruction says. Variables are not expanded yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Declares build arguments.
    Arg(Vec<ArgDefinition>),
    /// Copies from the context, a stage or an image; `ADD` from URLs too.
    Copy(Box<Copying>),
    /// Sets the default command.
    Cmd(CommandLine),
    /// Sets the default program.
    Entrypoint(CommandLine),
    /// Sets variables.
    Env(Vec<Pair>),
    /// Declares ports.
    Expose(Vec<Word>),
    /// Sets the health check.
    Healthcheck(Healthcheck),
    /// Sets labels.
    Label(Vec<Pair>),
    /// Sets the author.
    Maintainer(Word),
    /// Keeps an instruction for builds on top of the image.
    Onbuild(String),
    /// Runs a command.
    Run(Box<Run>),
    /// Sets the shell of shell forms.
    Shell(Vec<String>),
    /// Sets the signal that ends a container.
    StopSignal(Word),
    /// Sets the user.
    User(Word),
    /// Declares mount points.
    Volume(Vec<Word>),
    /// Sets the working directory.
    Workdir(Word),
}

/// `name=value` of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Left side.
    pub name: Word,
    /// Right side.
    pub value: Word,
    /// Whether it is written as `name value`.
    pub legacy: bool,
}

/// `name` or `name=value` of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// Its name.
    pub name: String,
    /// Its default.
    pub value: Option<Word>,
    /// The comment above that begins with the name.
    pub description: Option<String>,
}

/// A command in shell or exec form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// Arguments of the exec form, or one text of the shell form.
    pub args: Vec<String>,
    /// Whether the shell comes before it.
    pub shell: bool,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Bodies.
    pub heredocs: Vec<Heredoc>,
    /// Values of `--mount`, not read yet: they may hold variables.
    pub mounts: Vec<Word>,
    /// `from` of each of `mounts`, which may not hold variables.
    pub mount_sources: Vec<Option<Word>>,
    /// `--network`.
    pub network: RunNetwork,
    /// Whether `--security=insecure`.
    pub insecure: Option<Word>,
    /// `--device`, which no executor offers.
    pub devices: Vec<Word>,
}

/// `--network` of `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// As the build has it.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host(Word),
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copying {
    /// Whether it is `ADD`.
    pub add: bool,
    /// Paths and URLs, in order.
    pub sources: Vec<Word>,
    /// Files that are written out, in order.
    pub bodies: Vec<Body>,
    /// Where to.
    pub destination: Word,
    /// `--from`.
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<Word>,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// A heredoc as a source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The file's name: the heredoc's word.
    pub name: String,
    /// The file's content.
    pub content: String,
    /// Whether variables of the content are expanded.
    pub expand: bool,
}
