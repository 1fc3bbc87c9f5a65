//! Many small files in one request: a request each would cost more than their bytes.
//!
//! They go as the tar archive of a context that nobody asks for. The server names what it stores by
//! its digest itself, so nothing can come in under the name of something else.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use reqwest::{Method, header};
use serde::de::IgnoredAny;
use tokio::time::sleep;

use crate::upload::{ATTEMPTS, BACKOFF};
use crate::{Client, Error, Upload};

/// Files up to this size go together.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// From so many small files on.
const FILES_MIN: usize = 16;
/// The most files of one archive.
const FILES_MAX: usize = 4096;
/// The most bytes of one archive's files.
const BYTES_MAX: u64 = 16 << 20;

/// Splits files into archives of small ones, and what goes by itself.
pub(crate) fn bundles<'a>(files: &[&'a Upload]) -> (Vec<Vec<&'a Upload>>, Vec<&'a Upload>) {
    let (small, large): (Vec<&Upload>, Vec<&Upload>) =
        files.iter().copied().partition(|f| f.bytes <= SMALL_BYTES_MAX);
    if small.len() < FILES_MIN {
        return (Vec::new(), files.to_vec());
    }
    let (mut bundles, mut bytes) = (vec![Vec::new()], 0);
    for file in small {
        bytes += file.bytes;
        match bundles.last_mut() {
            Some(last) if last.len() < FILES_MAX && bytes <= BYTES_MAX => last.push(file),
            _ => {
                bytes = file.bytes;
                bundles.push(vec![file]);
            }
        }
    }
    (bundles, large)
}

/// Makes the archive. Of a file that is longer than it was the beginning goes, and one that is
/// shorter goes as it is: either way it has another digest then, which is found out later.
fn archive(files: &[(String, u64, PathBuf)]) -> Result<Vec<u8>, Error> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, size, path) in files {
        let failed = |source| Error::File { action: "read", path: path.clone(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(*size).read_to_end(&mut bytes).map_err(failed)?;
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice()).map_err(failed)?;
    }
    archive.into_inner().map_err(|source| {
        let path = files.first().map(|(.., path)| path.clone()).unwrap_or_default();
        Error::File { action: "read", path, source }
    })
}

impl Client {
    /// Uploads small files together. Which of them have arrived the server knows: one that has
    /// changed since it was hashed has not.
    pub(crate) async fn upload_bundle(
        &self,
        files: &[&Upload],
        sent: &impl Fn(u64),
    ) -> Result<(), Error> {
        let named = files.iter().map(|f| (f.digest.hex(), f.bytes, f.path.clone())).collect();
        let named: Vec<(String, u64, PathBuf)> = named;
        let made = tokio::task::spawn_blocking(move || archive(&named)).await;
        let body = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let mut wait = BACKOFF;
        for attempt in 1.. {
            let url = self.url(&["contexts"]);
            let request = self.request(Method::POST, url).body(body.clone());
            let request = request.header(header::CONTENT_TYPE, "application/x-tar");
            match self.json::<IgnoredAny>("the files", request).await {
                Err(error) if error.may_pass() && attempt < ATTEMPTS => sleep(wait).await,
                other => {
                    sent(files.iter().map(|f| f.bytes).sum());
                    return other.map(drop);
                }
            }
            wait *= 2;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ashlar_core::Digest;

    use super::*;

    fn files(sizes: impl IntoIterator<Item = u64>) -> Vec<Upload> {
        let upload = |(n, bytes): (usize, u64)| Upload {
            digest: Digest::of(n.to_string()),
            bytes,
            path: format!("/{n}").into(),
        };
        sizes.into_iter().enumerate().map(upload).collect()
    }

    #[test]
    fn many_small_files_go_together_within_bounds() {
        let few = files([1; FILES_MIN - 1]);
        let all: Vec<&Upload> = few.iter().collect();
        assert_eq!(bundles(&all), (Vec::new(), all.clone()));

        let many = files([1; FILES_MAX + 1].into_iter().chain([SMALL_BYTES_MAX + 1]));
        let (together, alone) = bundles(&many.iter().collect::<Vec<_>>());
        assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [FILES_MAX, 1]);
        assert_eq!(alone.len(), 1);

        let heavy = files([SMALL_BYTES_MAX; 200]);
        let (together, _) = bundles(&heavy.iter().collect::<Vec<_>>());
        let bytes = |files: &Vec<&Upload>| files.iter().map(|f| f.bytes).sum::<u64>();
        assert!(together.len() > 1 && together.iter().all(|files| bytes(files) <= BYTES_MAX));
        assert_eq!(together.iter().map(Vec::len).sum::<usize>(), heavy.len());
    }

    #[test]
    fn an_archive_has_what_the_files_have_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "longer than it was").unwrap();
        let made = archive(&[("name".into(), 6, path.clone())]).unwrap();
        let mut read = tar::Archive::new(made.as_slice());
        let mut entry = read.entries().unwrap().next().unwrap().unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), entry.path().unwrap().to_str()), ("longer", Some("name")));
        assert!(archive(&[("name".into(), 6, dir.path().join("none"))]).is_err());
    }
}
