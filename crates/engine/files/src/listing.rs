//! What a directory holds, for those who send it elsewhere: nothing is hashed, nothing is read.

use std::fs::File;
use std::io;

use ashlar_layers::Stop;
use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fgetxattr, flistxattr};
use rustix::io::Errno;

use crate::entry::Entry;
use crate::error::ContextError;
use crate::pattern::Patterns;
use crate::root::{Root, file_type};
use crate::walk::{Walk, list};

/// Most bytes of the names of one file's attributes, and of one value: the kernel's own limits.
const ATTRIBUTE_NAMES_BYTES: usize = 64 << 10;
const ATTRIBUTE_BYTES: usize = 64 << 10;

impl Root {
    /// Lists what lies below the root in [`ashlar_layers::path_order`], the root itself left out:
    /// what `include` selects (everything when it is empty) and `exclude` does not. Directories
    /// above something selected are in the list too. Owners are 0.
    ///
    /// # Errors
    /// When a directory cannot be read, a limit is passed, or `stop` was called.
    pub fn list_selected(
        &self,
        include: &Patterns,
        exclude: &Patterns,
        stop: &Stop,
    ) -> Result<Vec<Entry>, ContextError> {
        let (root, ignore, digester) = (self, None, None);
        let walk = Walk { root, top: b"", ignore, exclude, include, digester, owners: false, stop };
        let mut entries = walk.run()?;
        entries.retain(|e| !e.path.is_empty());
        Ok(entries)
    }

    /// Opens the file at a clean path for reading. A link anywhere in the path is an error, and so
    /// is what is no regular file: opening a pipe would wait for its writer.
    ///
    /// # Errors
    /// When there is no regular file.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let fd = self.open_plain(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(Errno::INVAL.into());
        }
        Ok(file)
    }

    /// Returns the text of the link at a clean path; none when there is no link.
    pub fn link_target(&self, path: &[u8]) -> Option<Vec<u8>> {
        let stat = self.stat(path).ok()?;
        let is_link = file_type(&stat) == rustix::fs::FileType::Symlink;
        is_link.then(|| self.read_link(path).ok()).flatten()
    }

    /// Returns the extended attributes that travel with the file or directory at a clean path:
    /// `user.` and `security.capability`. What has none, or is gone, gives none.
    pub fn attributes(&self, path: &[u8]) -> Vec<(String, Vec<u8>)> {
        let Ok(fd) = self.open_plain(path, OFlags::RDONLY | OFlags::NONBLOCK) else {
            return Vec::new();
        };
        let mut names = Vec::with_capacity(ATTRIBUTE_NAMES_BYTES);
        if flistxattr(&fd, spare_capacity(&mut names)).is_err() {
            return Vec::new();
        }
        let names = names.split(|&b| b == 0).filter_map(|n| std::str::from_utf8(n).ok());
        let travels = |n: &&str| n.starts_with("user.") || *n == "security.capability";
        let read = |name: &str| {
            let mut value = Vec::with_capacity(ATTRIBUTE_BYTES);
            fgetxattr(&fd, name, spare_capacity(&mut value)).ok()?;
            Some((name.to_owned(), value))
        };
        names.filter(travels).filter_map(read).collect()
    }

    /// Returns the names in the directory at a clean path; none when there is no directory.
    pub fn names_in(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let listed = self.open_dir(path).and_then(|dir| list(&dir));
        listed.unwrap_or_default().into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn patterns(list: &[&str]) -> Patterns {
        let owned: Vec<String> = list.iter().map(|p| (*p).to_owned()).collect();
        Patterns::new(&owned).unwrap()
    }

    #[test]
    fn selected_files_come_with_the_directories_above_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b", "empty"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["a/b/f", "a/b/g.log", "top"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        symlink("a/b/f", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let list = |include: &[&str], exclude: &[&str]| {
            let found =
                root.list_selected(&patterns(include), &patterns(exclude), &Stop::default());
            let text = |e: &Entry| String::from_utf8(e.path.clone()).unwrap();
            found.unwrap().iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(list(&["a/b"], &["**/*.log"]), ["a", "a/b", "a/b/f"]);
        assert_eq!(list(&["gone"], &[]), Vec::<String>::new());
        assert_eq!(
            list(&[], &["a/b/f"]),
            ["a", "a/b", "a/b/g.log", "empty", "link", "top"],
            "everything when nothing is included by name"
        );
    }

    #[test]
    fn only_regular_files_are_opened_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        symlink("f", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(root.open_file(b"f").is_ok());
        assert!(root.open_file(b"link").is_err() && root.open_file(b"").is_err());
        assert_eq!(root.link_target(b"link").as_deref(), Some(b"f".as_slice()));
        assert_eq!((root.link_target(b"f"), root.link_target(b"gone")), (None, None));
    }
}
