//! Carries extended attributes over: those that belong to a layer.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The kernel's limits for the list of names and for a value.
const XATTR_BYTES_MAX: usize = 64 * 1024;
const FIRST_TRY_BYTES: usize = 1024;

/// File capabilities and users' attributes; overlayfs's own marks are not content.
fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Copies the attributes of an open file or directory. To be called after the owner was set, which
/// takes capabilities away.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut first = [0; FIRST_TRY_BYTES];
    let mut more = Vec::new();
    let names = match rustix::fs::flistxattr(from, &mut first[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        Ok(len) => &first[..len],
        Err(Errno::RANGE) => {
            more.resize(XATTR_BYTES_MAX, 0);
            let len = rustix::fs::flistxattr(from, &mut more[..])?;
            &more[..len]
        }
        Err(error) => return Err(error),
    };
    let names = names.split(|&b| b == 0).filter(|name| is_kept(name));
    for name in names {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0; XATTR_BYTES_MAX];
        let len = rustix::fs::fgetxattr(from, &name, &mut value[..])?;
        rustix::fs::fsetxattr(to, &name, &value[..len], XattrFlags::empty())?;
    }
    Ok(())
}
