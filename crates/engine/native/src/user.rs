//! Users of a tree, by its own accounts.

use ashlar_core::failure::Failure;
use ashlar_files::ops::lookup::{Ids, resolve_user_by};
use ashlar_snapshots::{SnapshotStore, Tree};

use crate::error::{internal, step};

/// The longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;

/// Looks `name|uid[:group|gid]` up in the tree; root when the text is empty.
pub(crate) fn look_up(snapshots: &SnapshotStore, tree: &Tree, text: &str) -> Result<Ids, Failure> {
    let read = |path: &str| {
        let bytes = snapshots.read(tree, path.as_bytes(), ACCOUNTS_BYTES_MAX);
        bytes.map_err(internal).map(Option::unwrap_or_default)
    };
    resolve_user_by(&read("/etc/passwd")?, &read("/etc/group")?, text).map_err(step)
}

/// Returns the identity that the sandbox takes.
pub(crate) fn identity(ids: &Ids) -> ashlar_sandbox::User {
    ashlar_sandbox::User { uid: ids.uid, gid: ids.gid, groups: ids.groups.clone() }
}
