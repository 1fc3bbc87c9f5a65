//! Which contents of context files a tenant's builds have had, for telling hits from misses.
//!
//! One file a tenant, of rows that are appended to: the first half of each content's digest. What two
//! builds add while a third one shortens the file may be lost; it then counts as a miss once more.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ashlar_core::{Digest, Hasher};

/// Bytes of a row. By half a digest nobody is misled but who looks for 2^64 files to do it to himself.
const ROW_BYTES: usize = 16;

/// The most rows of a tenant; when there are more, the older half is forgotten.
const ROWS_MAX: usize = 1 << 16;

type Row = [u8; ROW_BYTES];

/// The contents that tenants have had, in a folder.
#[derive(Debug, Clone)]
pub(super) struct Contents(PathBuf);

impl Contents {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Returns which of these contents a tenant has had before, and remembers them all.
    pub(super) fn meet(&self, tenant: &str, contents: &[Digest]) -> io::Result<HashSet<Digest>> {
        let mut name = Hasher::new();
        name.field(b"ashlar.contents.v1").field(tenant);
        let path = self.0.join(name.finish().hex());
        let rows = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        // A torn file is one that a full disk or a power cut left: no row of it is where it should be.
        let (rows, torn) = rows.as_chunks::<ROW_BYTES>();
        let (rows, whole) = if torn.is_empty() { (rows, true) } else { (&[][..], false) };
        let asked: HashSet<Row> = contents.iter().map(row).collect();
        let found: HashSet<Row> = rows.iter().filter(|r| asked.contains(*r)).copied().collect();
        let new: Vec<Row> = asked.difference(&found).copied().collect();
        if !new.is_empty() {
            if whole && rows.len() + new.len() <= ROWS_MAX {
                self.append(&path, &new)?;
            } else {
                let kept = &rows[rows.len().saturating_sub(ROWS_MAX / 2)..];
                self.replace(&path, &[kept, &new].concat())?;
            }
        }
        Ok(contents.iter().filter(|c| found.contains(&row(c))).copied().collect())
    }

    fn append(&self, path: &Path, rows: &[Row]) -> io::Result<()> {
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let mut file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.0)?;
                open()
            }
            other => other,
        }?;
        file.write_all(rows.as_flattened())
    }

    fn replace(&self, path: &Path, rows: &[Row]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(rows.as_flattened())?;
        file.persist(path)?;
        Ok(())
    }
}

fn row(content: &Digest) -> Row {
    let mut row = [0; ROW_BYTES];
    row.copy_from_slice(&content.as_bytes()[..ROW_BYTES]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(range: std::ops::Range<usize>) -> Vec<Digest> {
        range.map(|i| Digest::of(i.to_string())).collect()
    }

    #[test]
    fn contents_are_known_from_the_second_time_on_and_to_their_tenant_alone() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::new(dir.path().join("contents"));
        let meet = |tenant: &str, asked: &[Digest]| contents.meet(tenant, asked).unwrap().len();
        let (three, four) = (many(0..3), many(0..4));
        assert_eq!((meet("one", &three), meet("one", &three)), (0, 3));
        assert_eq!((meet("one", &four), meet("two", &four)), (3, 0));
    }

    #[test]
    fn the_newest_are_kept_and_a_torn_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::new(dir.path().to_owned());
        let meet = |asked: &[Digest]| contents.meet("t", asked).unwrap().len();
        meet(&many(0..ROWS_MAX));
        let more = many(ROWS_MAX..ROWS_MAX + 10);
        assert_eq!((meet(&more), meet(&more)), (0, 10));
        assert_eq!(meet(&many(0..ROWS_MAX)), ROWS_MAX / 2);
        let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let length = fs::metadata(&file).unwrap().len();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
        assert_eq!((meet(&more), meet(&more)), (0, 10));
    }
}
