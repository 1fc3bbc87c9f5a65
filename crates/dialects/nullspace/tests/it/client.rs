//! The vendor's SDK and CLI, unmodified, against a listening server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use crate::registries::Closed;
use crate::support::World;

/// What is installed from PyPI.
const REQUIREMENT: &str = "nullspace-sdk[cli]==1.0.3";

/// Returns the directory of a Python environment with the client, made once.
fn client() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nullspace-sdk-1.0.3");
    let done = dir.join(".done");
    if done.exists() {
        return dir;
    }
    let run = |command: &mut Command| {
        let output = command.output().expect("install Debian's packages python3 and python3-venv");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "cannot install {REQUIREMENT}: {text}");
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir));
    let pip = ["install", "-q", "--disable-pip-version-check", REQUIREMENT];
    run(Command::new(dir.join("bin/pip")).args(pip));
    std::fs::write(done, "").unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_unmodified_sdk_and_cli_build_follow_cancel_retry_promote_and_list() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // A prefix, as `ashlar serve` has it.
    let base = format!("http://{}/nullspace", listener.local_addr().unwrap());
    let router = Router::new()
        .nest("/nullspace", ashlar_dialect_nullspace::router(Arc::clone(&world.service)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (owner, stranger) = (world.owner.clone(), world.stranger.clone());
    let closed = Closed::start();
    let image = closed.image();
    let ran = tokio::task::spawn_blocking(move || {
        let dir = client();
        let home = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/drive.py");
        Command::new(dir.join("bin/python"))
            .arg(script)
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("NULLSPACE_API_URL", base)
            .env("NULLSPACE_API_KEY", owner)
            .env("STRANGER_KEY", stranger)
            .env("PRIVATE_IMAGE", image)
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .output()
            .unwrap()
    });
    let output = ran.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    assert!(said.contains("all well"), "{said}\n{wrong}");
}
