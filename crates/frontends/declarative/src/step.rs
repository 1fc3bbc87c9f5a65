//! The kinds of steps.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::parse::parse_step;

/// One step. Paths are inside the image and relative ones are below the working directory; sources
/// of copies are in the context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Step {
    /// Installs Debian packages.
    AptInstall {
        /// Names, as apt takes them. None: nothing is done.
        packages: Vec<String>,
    },
    /// Installs Python packages.
    PipInstall {
        /// Requirements, as pip takes them. None: nothing is done.
        packages: Vec<String>,
        /// Whether for all users rather than below the user's home.
        g: bool,
    },
    /// Installs Node packages by npm.
    NpmInstall {
        /// Packages, as npm takes them. None: nothing is done.
        packages: Vec<String>,
        /// Whether globally rather than in the working directory.
        g: bool,
    },
    /// Installs Node packages by Bun.
    BunInstall {
        /// Packages, as Bun takes them. None: nothing is done.
        packages: Vec<String>,
        /// Whether globally rather than in the working directory.
        g: bool,
    },
    /// Runs a shell command.
    Run {
        /// Text for `/bin/sh -c`.
        command: String,
        /// Who runs this one command, its expansions included; the current user when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Changes the working directory of what follows; it is made when missing.
    Workdir {
        /// The directory.
        path: String,
    },
    /// Changes the user of what follows.
    User {
        /// `name|uid[:group|gid]`.
        user: String,
    },
    /// Copies from the context.
    Copy(CopyItem),
    /// Copies several times from the context, as one layer.
    CopyItems {
        /// In order.
        items: Vec<CopyItem>,
    },
    /// Removes a file, or a directory.
    Remove {
        /// What.
        path: String,
        /// Whether a directory goes with all that is in it.
        recursive: bool,
        /// Whether a missing path is fine.
        force: bool,
    },
    /// Moves a file or directory.
    Rename {
        /// From here.
        src: String,
        /// To there.
        dst: String,
        /// Whether it replaces without asking.
        force: bool,
    },
    /// Makes a directory and those above it.
    MakeDir {
        /// The directory.
        path: String,
        /// Its permission bits; as the umask says when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<FileMode>,
    },
    /// Makes a symbolic link.
    MakeSymlink {
        /// What it points at.
        target: String,
        /// The link.
        path: String,
    },
    /// Clones a git repository.
    GitClone {
        /// Its address.
        url: String,
        /// The directory of the checkout.
        path: String,
        /// Branch or tag; the default branch when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// How many commits of history; all when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        depth: Option<u64>,
    },
    /// What follows must not be taken from the cache.
    SkipCache,
}

/// One copy from the context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyItem {
    /// Literal paths in the context. Of a directory its contents are copied.
    pub sources: Vec<String>,
    /// Where to; a directory when there are several sources or it ends in `/`.
    pub dst: String,
    /// Owner as `name|uid[:group|gid]`; 0:0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Permission bits; as in the context when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Whether the client was to send the files though the server has them. That has happened
    /// before a build begins, and a copy's cache key sees only contents: nothing to lower.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_upload: bool,
}

/// Permission bits, at most 0o7777.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(u32);

impl FileMode {
    /// Wraps permission bits; `None` when there are more than twelve.
    pub const fn new(bits: u32) -> Option<Self> {
        if bits <= 0o7777 { Some(Self(bits)) } else { None }
    }

    /// Returns the bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Four octal digits, as chmod(1) takes them.
impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The same reading as [`crate::parse_steps`], so that there is one set of rules.
impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = parse_step("step", &value, &mut Vec::new());
        parsed.map_err(|d| serde::de::Error::custom(d.message))
    }
}

impl Step {
    /// Returns the copies that the step makes.
    pub fn copies(&self) -> &[CopyItem] {
        match self {
            Self::Copy(item) => std::slice::from_ref(item),
            Self::CopyItems { items } => items,
            _ => &[],
        }
    }
}
