//! The admin's token: given, or made at the first start and kept in a file for its owner only.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ashlar_records::TokenText;

use crate::Error;

/// The longest token file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// Shorter tokens could be guessed.
const TOKEN_BYTES_MIN: usize = 8;

/// Returns where the token is kept.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("token")
}

/// Returns the given token, or the one in the file, which is made when it is missing.
pub(crate) fn load(data_dir: &Path, given: Option<TokenText>) -> Result<TokenText, Error> {
    if let Some(token) = given {
        return checked(token.expose(), "ASHLAR_TOKEN");
    }
    let path = path(data_dir);
    let failed = |e: std::io::Error| {
        let why = format!("cannot read or make the token file {}: {e}", path.display());
        Error::internal(why)
    };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let token = TokenText::random()?;
            writeln!(file, "{}", token.expose()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(token)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let mut text = String::new();
            let file = File::open(&path).map_err(failed)?;
            file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
            checked(text.trim(), &path.display().to_string())
        }
        Err(e) => Err(failed(e)),
    }
}

fn checked(text: &str, place: &str) -> Result<TokenText, Error> {
    if text.len() < TOKEN_BYTES_MIN || text.contains(char::is_whitespace) {
        let why = format!(
            "the admin's token has {TOKEN_BYTES_MIN} bytes or more and no blanks; \
             set another one, or none to have one made"
        );
        return Err(Error::invalid(place, why));
    }
    Ok(TokenText::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(dir.path(), None).unwrap();
        assert_eq!(load(dir.path(), None).unwrap(), first);
        let mode = std::fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let given = TokenText::new("a-given-token".into());
        assert_eq!(load(dir.path(), Some(given.clone())).unwrap(), given);
        for bad in ["short", "with a blank in it"] {
            let error = load(dir.path(), Some(TokenText::new(bad.into()))).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            let text = error.public();
            assert!(text.starts_with("ASHLAR_TOKEN: ") && text.contains("8 bytes"), "{text}");
        }
        std::fs::write(path(dir.path()), "short").unwrap();
        let text = load(dir.path(), None).unwrap_err().public();
        assert!(text.starts_with(path(dir.path()).to_str().unwrap()), "{text}");
    }
}
