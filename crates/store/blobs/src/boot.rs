//! Notices that the machine went down since the store was last used.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use crate::error::{At as _, Result};
use crate::layout::{Layout, MODE_FRESH, MODE_SUSPECT};
use crate::sweep::for_each_blob;

/// The kernel makes a new one at each start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Marks blobs that were not flushed before the last boot as suspect, once per boot.
///
/// Without a readable boot id every open counts as a new boot, which costs hashing, not safety.
pub(crate) fn note_boot(layout: &Layout) -> Result<()> {
    let current = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let marker = layout.root().join("boot");
    let seen = || !current.is_empty() && fs::read_to_string(&marker).is_ok_and(|b| b == current);
    if seen() {
        return Ok(());
    }
    let lock_path = layout.root().join("lock");
    let lock = File::create(&lock_path).at("create", &lock_path)?;
    lock.lock().at("lock", &lock_path)?;
    if seen() {
        return Ok(());
    }
    for_each_blob(layout, |path, _, meta| {
        if meta.permissions().mode() & 0o777 == MODE_FRESH {
            fs::set_permissions(path, Permissions::from_mode(MODE_SUSPECT)).at("mark", path)?;
        }
        Ok(())
    })?;
    let next = layout.root().join("boot.new");
    let mut file = File::create(&next).at("create", &next)?;
    file.write_all(current.as_bytes()).at("write", &next)?;
    file.sync_all().at("flush", &next)?;
    fs::rename(&next, &marker).at("rename", &next)
}
