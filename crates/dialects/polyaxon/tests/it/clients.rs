//! The real CLI and Python client of both eras, unmodified, against a listening server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::support::World;

/// What both eras need, in the versions that run on Python 3.11.
const BOTH: &str = "raven==6.7.0 tabulate==0.8.2 pathlib==1.0.1 six==1.12.0 Jinja2==2.10.1 \
    MarkupSafe==1.1.1 numpy==1.26.4 psutil==5.9.8 python-dateutil==2.8.2 pytz==2023.3 \
    PyYAML==6.0.1 requests==2.28.2 requests-toolbelt==1.0.0 urllib3==1.26.18 idna==3.4 \
    certifi==2023.7.22 charset-normalizer==3.1.0 websocket-client==0.59.0 packaging==23.1";
const ERA_A: &str = "polyaxon-cli==0.2.9 polyaxon-client==0.2.9 polyaxon-schemas==0.2.9 \
    hestia==0.1.1 rhea==0.4.0 marshmallow==2.16.1 Click==6.7 clint==0.5.1 args==0.1.0";
const ERA_C: &str = "polyaxon-cli==0.5.6 polyaxon-client==0.5.6 polyaxon-schemas==0.5.6 \
    polyaxon-deploy==0.5.6 polyaxon-dockerizer==0.0.9 polystores==0.2.4 hestia==0.3.1 rhea==0.5.4 \
    marshmallow==3.0.0rc5 Click==7.0 click-completion==0.5.1 shellingham==1.5.4 Unipath==1.1 \
    docker==4.0.2";
/// No client file is changed: the interpreter gives back names that Python 3.10 took out of
/// `collections`.
const NAMES: &str = "import collections, collections.abc\n\
    for n in collections.abc.__all__:\n    \
    hasattr(collections, n) or setattr(collections, n, getattr(collections.abc, n))\n";

fn run(command: &mut Command) -> String {
    let output = command.output().expect("install Debian's packages python3 and python3-venv");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "cannot install the client: {text}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the directory of a Python environment with a client, made once.
fn client(era: &str, pins: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("polyaxon-{era}"));
    let done = dir.join(".done");
    if done.exists() {
        return dir;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir));
    let pip = |args: &[&str]| {
        let quiet = ["install", "-q", "--disable-pip-version-check"];
        run(Command::new(dir.join("bin/pip")).args(quiet).args(args));
    };
    pip(&["setuptools==65.5.0", "wheel==0.38.4"]);
    let mut args = vec!["--no-deps", "--no-build-isolation"];
    args.extend(pins.split_whitespace().chain(BOTH.split_whitespace()));
    pip(&args);
    let ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])";
    let site = run(Command::new(dir.join("bin/python")).args(["-c", ask]));
    std::fs::write(Path::new(&site).join("given_back_names.py"), NAMES).unwrap();
    std::fs::write(Path::new(&site).join("given_back_names.pth"), "import given_back_names\n")
        .unwrap();
    std::fs::write(done, "").unwrap();
    dir
}

async fn drive(era: &'static str, pins: &'static str) {
    let world = World::running().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = ashlar_dialect_polyaxon::router(Arc::clone(&world.service));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = world.admin();
    let ran = tokio::task::spawn_blocking(move || {
        let dir = client(era, pins);
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/drive.py");
        Command::new(dir.join("bin/python"))
            .arg(script)
            .current_dir(&work)
            .envs([("ADDR", address.as_str()), ("TOKEN", &token), ("ERA", era)])
            .envs([("IMAGE", "busybox"), ("LC_ALL", "C.UTF-8"), ("LANG", "C.UTF-8")])
            .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")])
            .env("PYTHONWARNINGS", "ignore")
            .env("HOME", home.path())
            .output()
            .unwrap()
    });
    let output = ran.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    assert!(said.contains("all well"), "{said}\n{wrong}");
    assert!(world.data.path().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_unmodified_cli_and_client_of_0_5_6() {
    drive("c", ERA_C).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_unmodified_cli_and_client_of_0_2_9() {
    drive("a", ERA_A).await;
}
