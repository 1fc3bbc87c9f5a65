//! A file with a random key, made at the first start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Returns the 32 bytes of the key file, making it (mode 0600) when it is new.
pub(crate) fn load(path: &Path) -> io::Result<[u8; 32]> {
    loop {
        match fs::read(path) {
            Ok(bytes) => {
                return bytes.try_into().map_err(|_| {
                    io::Error::other(format!("{} is damaged; remove it", path.display()))
                });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(path)?,
            Err(e) => return Err(e),
        }
    }
}

/// Two processes may start at once: the first one's key counts.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; 32];
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = dir.join(format!(".hash.key.{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&key)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}
