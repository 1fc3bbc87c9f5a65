//! `ashlar images`.

use std::path::PathBuf;

use ashlar_core::Platform;
use ashlar_core::graph::Network;
use clap::{Args, Subcommand, ValueEnum};

use super::JsonArgs;
use crate::values;

/// Commands about local images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// List local images, the newest first
    #[command(visible_alias = "ls")]
    List(JsonArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// Push a local image to a registry
    Push(PushArgs),
    /// Make a local image of a root file system (tar or directory), an OCI layout or a docker archive
    Import(ImportArgs),
    /// Write a local image to a file
    Export(ExportArgs),
    /// Run a local image in the sandbox; what it writes is thrown away
    Run(RunArgs),
    /// Remove names of local images, and images that have none left
    Rm(RmArgs),
    /// Give a local image another name
    Tag {
        /// Name, id or first digits of an id
        image: String,
        /// The new name
        name: String,
    },
}

/// Arguments of `images pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Name, e.g. debian:bookworm-slim
    pub(crate) name: String,
    /// Platform, e.g. linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Arguments of `images push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Name, id or first digits of an id
    pub(crate) image: String,
    /// Name to push to [default: the image's]
    pub(crate) name: Option<String>,
    /// Speak to the registry by plain http
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Arguments of `images import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Directory or archive
    pub(crate) path: PathBuf,
    /// Name of the image; images of a layout may bring their own
    pub(crate) name: Option<String>,
    /// Take it for a root file system, whatever is in it
    #[arg(long)]
    pub(crate) rootfs: bool,
    /// Platform of a root file system
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Forms of an exported image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportKind {
    /// An OCI layout as an archive
    Oci,
    /// What `docker load` takes
    Docker,
    /// The files as one tar
    Tar,
    /// The files in a directory
    Local,
}

/// Arguments of `images export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name, id or first digits of an id
    pub(crate) image: String,
    /// File or directory; - is standard output
    pub(crate) path: PathBuf,
    /// Form of the file
    #[arg(long = "type", value_name = "TYPE", default_value = "oci")]
    pub(crate) kind: ExportKind,
}

/// Arguments of `images run`.
#[derive(Debug, Args)]
#[command(override_usage = "ashlar images run [OPTIONS] IMAGE [ARG]...")]
pub(crate) struct RunArgs {
    /// Variable, NAME=VALUE (repeatable)
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE", value_parser = values::key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Network: none, isolated or host
    #[arg(long, value_name = "NET", default_value = "none", value_parser = values::network)]
    pub(crate) network: Network,
    /// Program in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Working directory in place of the image's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User in place of the image's
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Give it the terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) interactive: bool,
    /// Memory, e.g. 512m
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) memory: Option<u64>,
    /// Time, e.g. 30s
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Name, id or first digits of an id, then arguments in place of the image's command: all that
    /// stands behind the image is the program's
    // One list: what looks like a flag of ours behind the image would be taken for one else.
    #[arg(
        value_name = "IMAGE [ARG]",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    image_and_args: Vec<String>,
}

impl RunArgs {
    /// Returns the image, and what its program gets. One `--` between them belongs to neither.
    pub(crate) fn image_and_args(&self) -> (&str, &[String]) {
        let (image, args) = match self.image_and_args.as_slice() {
            [image, args @ ..] => (image.as_str(), args),
            [] => ("", [].as_slice()),
        };
        (image, args.strip_prefix(&["--".to_owned()]).unwrap_or(args))
    }
}

/// Arguments of `images rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names, ids or first digits of ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}
