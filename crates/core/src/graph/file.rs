//! Actions of a file operation.

use serde::{Deserialize, Serialize};

/// One change of a file tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum FileAction {
    /// Copies from another input.
    Copy(Box<Copy>),
    /// Writes a file.
    Mkfile {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Content.
        #[serde(with = "bytes_text")]
        data: Vec<u8>,
        /// Owner.
        owner: Owner,
    },
    /// Makes a directory; one that exists is left as it is.
    Mkdir {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Whether missing parents are made too (mode 0755).
        parents: bool,
        /// Owner.
        owner: Owner,
    },
    /// Removes a file or a directory with all below it.
    Remove {
        /// Absolute path.
        path: String,
        /// Whether a missing path is fine.
        missing_ok: bool,
    },
    /// Makes a symbolic link.
    Symlink {
        /// What it points at.
        target: String,
        /// Absolute path of the link.
        path: String,
    },
}

/// Copying as `COPY` and `ADD` do it (Dockerfile reference, "COPY" and "ADD").
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Copy {
    /// Index into the node's inputs.
    pub input: usize,
    /// Paths or patterns relative to the root of that input. `..` stops at the root.
    pub sources: Vec<String>,
    /// Absolute path in the tree; a trailing `/` makes it a directory.
    pub destination: String,
    /// Owner of all that is copied; `None` keeps 0:0 for contexts and the source's for trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Whether names of the owner that the tree lacks fail the operation; otherwise root takes
    /// their place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_owner: bool,
    /// Permission bits of all that is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Patterns of files below each source that are not copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Whether the directories above a source are made below the destination (`--parents`). A
    /// `/./` in a source says where those begin: only what follows it is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parents: bool,
    /// Whether local archives are unpacked (`ADD`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpack: bool,
    /// Whether a directory source is copied itself rather than its contents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_directory: bool,
    /// Whether a source without wildcards that is missing is fine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing_ok: bool,
    /// Whether `sources` are taken literally, without wildcards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub literal: bool,
}

/// Owner and group of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub user: OwnerPart,
    /// Group; the user's own group when a name was given without one, else as the user's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<OwnerPart>,
}

/// A user or group as a number, or as a name to be looked up in the tree that is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerPart {
    /// A number.
    Id(u32),
    /// A name in `/etc/passwd` or `/etc/group`.
    Name(String),
}

impl Default for OwnerPart {
    fn default() -> Self {
        Self::Id(0)
    }
}

/// Permission bits to set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All twelve bits.
    Bits(u32),
    /// Symbolic, as chmod(1) takes it, for example `u+x,go-w`.
    Symbolic(String),
}

/// Bytes as text where they are UTF-8, else as a list: digests need only be stable.
mod bytes_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(data: &[u8], s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(data) {
            Ok(text) => s.serialize_str(text),
            Err(_) => data.serialize(s),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Form::deserialize(d)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        })
    }
}
