//! Credentials out of Docker's `config.json`: `auths`, `credHelpers` and `credsStore`.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::credentials::Credential;
use crate::reference::DEFAULT_HOST;

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that are read of the config or of a helper's answer.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Docker Hub's key in the config.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Docker's config can not give a credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerConfigError {
    #[error("Docker's config can not be read")]
    Read(#[source] io::Error),
    #[error("Docker's config is not valid JSON of its shape")]
    Json(#[source] serde_json::Error),
    #[error("the entry of '{0}' in Docker's config is not base64 of user:password")]
    Entry(String),
    #[error("'{0}' is not the name of a credential helper")]
    HelperName(String),
    #[error("docker-credential-{0} can not be run")]
    HelperRun(String, #[source] io::Error),
    #[error("docker-credential-{0} did not answer within {HELPER_TIMEOUT:?}")]
    HelperSlow(String),
    #[error("docker-credential-{0} did not answer with a credential")]
    HelperAnswer(String),
}

type Result<T> = std::result::Result<T, DockerConfigError>;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Returns where Docker's client keeps its config: `$DOCKER_CONFIG/config.json`, else
/// `~/.docker/config.json`.
pub fn default_docker_config() -> Option<PathBuf> {
    let dir = match env::var_os("DOCKER_CONFIG").filter(|d| !d.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").filter(|h| !h.is_empty())?).join(".docker"),
    };
    Some(dir.join("config.json"))
}

/// Finds the credential for `host` in the config at `path`, the way Docker's client does: the
/// host's own helper, else the general one, else the entry in the file.
pub(crate) fn find(path: &Path, host: &str) -> Result<Option<Credential>> {
    let Some(config) = load(path)? else { return Ok(None) };
    let key = if host == DEFAULT_HOST { DOCKER_HUB_KEY } else { host };
    let own = config.cred_helpers.iter().find(|(k, _)| is_for(k, host)).map(|(_, name)| name);
    let general = Some(&config.creds_store).filter(|n| !n.is_empty());
    if let Some(name) = own.or(general)
        && let Some(found) = ask_helper(name, key)?
    {
        return Ok(Some(found));
    }
    let entry = config.auths.get(key).map(|e| (key, e));
    let entry = entry.or_else(|| {
        config.auths.iter().find(|(k, _)| is_for(k, host)).map(|(k, e)| (k.as_str(), e))
    });
    entry.map_or(Ok(None), |(key, entry)| entry.credential(key))
}

fn load(path: &Path) -> Result<Option<Config>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(DockerConfigError::Json),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DockerConfigError::Read(e)),
    }
}

/// Keys are hosts, or URLs whose host counts.
fn is_for(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.split('/').next().unwrap_or(bare);
    bare == host
        || (host == DEFAULT_HOST && matches!(bare, "index.docker.io" | "registry-1.docker.io"))
}

impl Entry {
    fn credential(&self, key: &str) -> Result<Option<Credential>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(self.identitytoken.clone())));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Bearer(self.registrytoken.clone())));
        }
        if self.auth.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Ok((!username.is_empty()).then_some(Credential::Basic { username, password }));
        }
        let bad = || DockerConfigError::Entry(key.to_owned());
        let text = STANDARD.decode(self.auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        // Some clients pad the secret with NUL bytes; Docker strips them too.
        let password = password.trim_matches('\0').to_owned();
        Ok(Some(Credential::Basic { username: username.to_owned(), password }))
    }
}

/// Runs `docker-credential-NAME get`. Nothing when the helper knows no such host.
fn ask_helper(name: &str, key: &str) -> Result<Option<Credential>> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(DockerConfigError::HelperName(name.chars().take(100).collect()));
    }
    let run_error = |e| DockerConfigError::HelperRun(name.to_owned(), e);
    let mut command = Command::new(format!("docker-credential-{name}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(run_error)?;
    let answer = exchange(&mut child, key);
    if answer.is_none() {
        // It may have ended by itself; either way it must not stay.
        drop(child.kill());
    }
    let status = child.wait().map_err(run_error)?;
    let answer = answer.ok_or_else(|| DockerConfigError::HelperSlow(name.to_owned()))?;
    if !status.success() {
        let is_unknown = String::from_utf8_lossy(&answer).contains("credentials not found");
        let failed = || DockerConfigError::HelperAnswer(name.to_owned());
        return if is_unknown { Ok(None) } else { Err(failed()) };
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer)
        .map_err(|_| DockerConfigError::HelperAnswer(name.to_owned()))?;
    Ok(Some(Credential::of_login(answer.username, answer.secret)))
}

/// Writes `key` to the child and returns what it says; nothing when it takes too long.
fn exchange(child: &mut Child, key: &str) -> Option<Vec<u8>> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input shows that by its answer.
        drop(stdin.write_all(key.as_bytes()));
    }
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(TEXT_BYTES_MAX).read_to_end(&mut answer);
        // Nobody receives after the time is up.
        drop(sender.send(read.map(|_| answer)));
    });
    receiver.recv_timeout(HELPER_TIMEOUT).ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.into(), password: password.into() })
    }

    #[test]
    fn entries_are_found_by_host_in_all_their_spellings() {
        let auth = STANDARD.encode("me:se:cret");
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},
                "https://r.example/v2/":{{"username":"u","password":"p"}},
                "t.example:5000":{{"auth":"", "identitytoken":"tok"}},
                "bad.example":{{"auth":"@@"}}}}}}"#
        );
        let (_dir, path) = config(&text);
        assert_eq!(find(&path, "docker.io").unwrap(), basic("me", "se:cret"));
        assert_eq!(find(&path, "r.example").unwrap(), basic("u", "p"));
        let identity = Some(Credential::Identity("tok".into()));
        assert_eq!(find(&path, "t.example:5000").unwrap(), identity);
        assert_eq!(find(&path, "t.example").unwrap(), None);
        assert!(matches!(find(&path, "bad.example"), Err(DockerConfigError::Entry(_))));
    }

    #[test]
    fn no_file_is_no_credential_and_a_broken_one_is_an_error() {
        assert_eq!(find(Path::new("/nonexistent/config.json"), "a.example").unwrap(), None);
        let (_dir, path) = config("{");
        assert!(matches!(find(&path, "a.example"), Err(DockerConfigError::Json(_))));
    }

    #[test]
    fn helper_names_can_not_leave_the_path() {
        let (_dir, path) = config(r#"{"credHelpers":{"a.example":"../../bin/sh"}}"#);
        assert!(matches!(find(&path, "a.example"), Err(DockerConfigError::HelperName(_))));
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", basic("me", "hunter2"));
        assert!(shown.contains("me") && !shown.contains("hunter2"));
    }
}
