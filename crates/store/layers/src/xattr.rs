//! Which extended attributes belong to a layer, and reading them.

use std::ffi::{CStr, CString};

use rustix::io::Errno;

use crate::entry::Xattrs;

/// Marks a directory whose lower content is hidden (Linux, overlayfs documentation).
pub(crate) const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// The kernel's own limits for a list of names and for one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 * 1024;
const FIRST_TRY_BYTES: usize = 1024;

/// Attributes of one path.
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) kept: Xattrs,
    pub(crate) opaque: bool,
}

/// Whether the attribute is content: file capabilities and `user.*`.
///
/// A name with `=` cannot be written to a tar (PAX separates by it) and is left out.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.contains(&b'='))
}

/// Reads the attributes of the file at `path` itself, not of what it may link to.
pub(crate) fn read(path: &CStr) -> rustix::io::Result<Listed> {
    let mut first = [0_u8; FIRST_TRY_BYTES];
    let mut more = Vec::new();
    let names = match rustix::fs::llistxattr(path, &mut first[..]) {
        Ok(len) => &first[..len],
        Err(Errno::RANGE) => {
            more.resize(XATTR_BYTES_MAX, 0);
            let len = rustix::fs::llistxattr(path, &mut more[..])?;
            &more[..len]
        }
        Err(Errno::NOTSUP) => return Ok(Listed::default()),
        Err(error) => return Err(error),
    };
    let mut listed = Listed::default();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let is_opaque = name == OPAQUE.to_bytes();
        if !is_opaque && !is_kept(name) {
            continue;
        }
        let value = value(path, name)?;
        if is_opaque {
            listed.opaque = value == b"y";
        } else {
            listed.kept.push((name.to_vec(), value));
        }
    }
    listed.kept.sort_unstable();
    Ok(listed)
}

fn value(path: &CStr, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let mut value = vec![0; FIRST_TRY_BYTES];
    let len = match rustix::fs::lgetxattr(path, &name, &mut value[..]) {
        Err(Errno::RANGE) => {
            value.resize(XATTR_BYTES_MAX, 0);
            rustix::fs::lgetxattr(path, &name, &mut value[..])?
        }
        other => other?,
    };
    value.truncate(len);
    Ok(value)
}
