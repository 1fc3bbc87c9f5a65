//! Git over HTTP where builds may not go everywhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_oci::Egress;
use ashlar_sandbox::Cancel;
use support::World;

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.test"])
        .args(args)
        .current_dir(dir)
        .output()
        .expect("install Debian's package git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a repository with one file, and returns its commit.
fn repository(root: &Path, name: &str) -> String {
    let path = root.join(name);
    std::fs::create_dir(&path).unwrap();
    git(&path, &["init", "-q", "-b", "main"]);
    std::fs::write(path.join("file"), name).unwrap();
    git(&path, &["add", "."]);
    git(&path, &["commit", "-qm", "one"]);
    git(&path, &["rev-parse", "HEAD"])
}

/// Serves the repositories of a folder, and `/away/...` by a redirect; counts requests.
struct Forge {
    port: u16,
    served: Arc<AtomicUsize>,
}

impl Forge {
    fn start(root: &Path, away: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::new(AtomicUsize::new(0));
        let (root, count) = (root.to_owned(), served.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (root, away) = (root.clone(), away.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), root, &away));
            }
        });
        Self { port, served }
    }

    fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }
}

/// Answers one request with what `git http-backend` says.
fn serve(mut stream: &TcpStream, root: PathBuf, away: &str) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let method = line.split(' ').next().unwrap().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    if let Some(rest) = target.strip_prefix("/away/") {
        let redirect = "HTTP/1.1 301 Moved\r\nConnection: close\r\nContent-Length: 0\r\n";
        stream.write_all(format!("{redirect}Location: {away}/{rest}\r\n\r\n").as_bytes()).unwrap();
        return;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .envs([("GIT_PROJECT_ROOT", root.to_str().unwrap()), ("GIT_HTTP_EXPORT_ALL", "1")])
        .envs([("PATH_INFO", path), ("QUERY_STRING", query), ("REQUEST_METHOD", &method)])
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let answer = child.wait_with_output().unwrap().stdout;
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&answer).unwrap();
}

fn world(allowed: &[String]) -> World {
    let allowed: Vec<_> = allowed.iter().map(|text| text.parse().unwrap()).collect();
    World::with(|c| c.registries.egress = Egress::guarded(allowed))
}

fn check_out(world: &World, remote: &str) -> Result<String, String> {
    let cancel = Cancel::new().unwrap();
    let checkout = world.engine.checkout(remote, "main", "", &cancel);
    let checkout = checkout.map_err(|failure| failure.to_string())?;
    Ok(std::fs::read_to_string(checkout.path().join("file")).unwrap())
}

/// Asserts that nobody has connected.
fn assert_untouched(hidden: &TcpListener) {
    hidden.set_nonblocking(true).unwrap();
    assert_eq!(hidden.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_remote_of_this_machine_is_fetched_only_when_it_is_named() {
    let root = tempfile::tempdir().unwrap();
    repository(root.path(), "plain");
    let forge = Forge::start(root.path(), String::new());
    let remote = forge.url("plain/.git");
    for remote in [remote.clone(), remote.replace("127.0.0.1", "localhost")] {
        let refused = check_out(&world(&[]), &remote).unwrap_err();
        assert!(refused.contains("which builds do not reach"), "{refused}");
    }
    assert_eq!(forge.served.load(Ordering::SeqCst), 0);
    let named = world(&[format!("127.0.0.1:{}", forge.port)]);
    assert_eq!(check_out(&named, &remote).as_deref(), Ok("plain"));
    assert_eq!(check_out(&World::new(), &remote).as_deref(), Ok("plain"));
}

#[test]
fn neither_redirects_nor_submodules_lead_further_than_the_remote() {
    let root = tempfile::tempdir().unwrap();
    let commit = repository(root.path(), "plain");
    let hidden = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}", hidden.local_addr().unwrap());
    repository(root.path(), "outer");
    let outer = root.path().join("outer");
    let modules = format!("[submodule \"sub\"]\npath = sub\nurl = {away}/plain\n");
    std::fs::write(outer.join(".gitmodules"), modules).unwrap();
    git(&outer, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    git(&outer, &["add", ".gitmodules"]);
    git(&outer, &["commit", "-qm", "submodule"]);
    let forge = Forge::start(root.path(), away);
    let world = world(&[format!("127.0.0.1:{}", forge.port)]);
    for remote in ["away/plain/.git", "outer/.git"] {
        let refused = check_out(&world, &forge.url(remote)).unwrap_err();
        assert!(refused.contains("which builds do not reach"), "{remote}: {refused}");
    }
    assert!(forge.served.load(Ordering::SeqCst) > 2);
    assert_untouched(&hidden);
}
