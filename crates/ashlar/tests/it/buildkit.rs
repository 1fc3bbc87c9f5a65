//! Builds on real BuildKit daemons (`scripts/peers`), by the command line and by a server.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Server, TOKEN};
use crate::world::{Said, World};

/// How long something may take that must come about.
const PATIENCE: Duration = Duration::from_secs(60);

fn home() -> PathBuf {
    std::env::var_os("ASHLAR_PEERS_DIR").unwrap_or("/var/tmp/ashlar-peers".into()).into()
}

fn script(args: &[&str], env: &[(&str, &str)]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/peers");
    let mut command = Command::new(&path);
    let done = command.args(args).envs(env.iter().copied()).output();
    let done = done.unwrap_or_else(|e| panic!("{}: {e}; install python3", path.display()));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "scripts/peers {args:?} (see scripts/setup test): {said}");
    done
}

/// Starts the registry and both daemons, once; they go on running, as for the other tests.
fn peers() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| drop(script(&["start", "registry", "store", "classic"], &[])));
}

/// Returns the address of a daemon of `scripts/peers`.
fn daemon(name: &str) -> String {
    peers();
    format!("unix://{}", home().join(name).join("docker.sock").display())
}

/// Returns the base image of these tests.
fn busybox() -> String {
    peers();
    let registry = std::env::var("ASHLAR_PEERS_REGISTRY");
    format!("{}/library/busybox", registry.unwrap_or_else(|_| "127.0.0.1:5077".into()))
}

/// Returns a word that no earlier run used, so that nothing is cached under it.
fn fresh() -> String {
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("{}-{time}", std::process::id())
}

/// Says whether a process has these words in its command line.
fn pid_of(words: &[&str]) -> Option<Pid> {
    let text = words.join("\0") + "\0";
    let has = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.starts_with(text.as_bytes())
    };
    let entry = fs::read_dir("/proc").unwrap().flatten().find(has)?;
    Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)
}

fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come about");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_daemon_builds_what_is_then_a_local_image() {
    for store in ["store", "classic"] {
        let world = World::empty();
        world.file("a.txt", "from the context\n");
        let (daemon, word) = (daemon(store), fresh());
        let text = format!(
            "FROM {}\nARG V\nENV WHO=me\nCOPY a.txt /a\nRUN echo {word} $V >/b && echo said $V\n\
             CMD [\"cat\", \"/a\", \"/b\"]\n",
            busybox()
        );
        let flags =
            ["--backend", "buildkit", "--buildkit", &daemon, "-t", "app:1", "--build-arg", "V=7"];
        let first = world.build(&text, &flags).ok();
        // A daemon may tell of its first step before it knows how many there are.
        for line in ["] FROM", "#2 [2/3] COPY a.txt /a", "#3 [3/3] RUN echo", "said 7"] {
            assert!(first.err.contains(line), "{line}: {first:?}");
        }
        assert!(!first.err.contains("#3 CACHED"), "{first:?}");
        let second = world.build(&text, &flags).ok();
        assert!(second.err.contains("#2 CACHED") && second.err.contains("#3 CACHED"), "{second:?}");

        let shown = &world.run(&["builds", "show", "--json"]).ok().json()[0];
        assert_eq!(
            (&shown["backend"], &shown["executor"]),
            (&"buildkit".into(), &"buildkit".into())
        );
        assert!(world.run(&["images", "list"]).ok().out.contains("app:1"));
        let ran = world.run(&["images", "run", "app:1"]).ok();
        assert_eq!(ran.out, format!("from the context\n{word} 7\n"));
        world.run(&["images", "export", "app:1", "app.tar"]).ok();
        assert!(fs::metadata(world.path("app.tar")).unwrap().len() > 0);

        // A native build goes on from there.
        let more = "FROM app:1\nRUN cat /a /b >/c && echo $WHO >>/c\n";
        let more = world.build(more, &["--backend", "native", "-o", "out"]).ok();
        let made = fs::read_to_string(world.path("out/c")).unwrap();
        assert_eq!(made, format!("from the context\n{word} 7\nme\n"), "{more:?}");
    }
}

#[test]
fn a_daemon_hands_back_failures_secrets_and_outputs() {
    let world = World::empty();
    let daemon = daemon("store");
    let flags = ["--buildkit", &daemon];
    let text = format!("FROM {}\nRUN echo before; exit 3\n", busybox());
    let failed = world.build(&text, &flags);
    assert_eq!(failed.code, Some(1));
    for text in ["Dockerfile:2", "RUN echo before", "exit code: 3", "builds logs"] {
        assert!(failed.err.contains(text), "{text}: {}", failed.err);
    }
    let wrong = world.build(&format!("FROM {}\nRUNN x\n", busybox()), &flags);
    assert!(wrong.code == Some(1) && wrong.err.contains("Dockerfile:2"), "{wrong:?}");

    fs::write(world.path("token"), "s3cr3t-needle").unwrap();
    let text = format!(
        "FROM {}\nRUN --mount=type=secret,id=t cat /run/secrets/t; echo {}; wc -c </run/secrets/t >/n\n",
        busybox(),
        fresh()
    );
    let secret = ["--secret", "id=t,src=token"];
    let flags = [&flags[..], &secret].concat();
    world.build(&text, &[&flags[..], &["-o", "out"]].concat()).ok();
    assert_eq!(fs::read_to_string(world.path("out/n")).unwrap().trim(), "13");
    let log = world.run(&["builds", "logs"]).ok().out;
    assert!(log.contains("***") && !log.contains("needle"), "{log}");
    let quiet = world.build(&text, &[&flags[..], &["-q", "--iidfile", "iid"]].concat()).ok();
    assert_eq!(fs::read_to_string(world.path("iid")).unwrap(), quiet.out.trim());
}

#[test]
fn what_no_daemon_can_do_is_said() {
    let world = World::new();
    let none = world.build("FROM scratch\nCOPY . /\n", &["--backend", "buildkit"]);
    assert_eq!(none.code, Some(2));
    assert!(none.err.contains("no daemon is named; add --buildkit unix://"), "{none:?}");
    let nowhere = ["--buildkit", "unix:///nowhere/docker.sock"];
    let gone = world.build("FROM scratch\nCOPY . /\n", &nowhere);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("daemon 1: nothing answers"), "{gone:?}");

    // So is a base that only this machine has.
    let base = "FROM base\nRUN echo hi\n";
    let native = world.build(base, &nowhere).ok();
    assert!(native.err.contains("'base' is an image of this machine"), "{native:?}");
    let refused = world.build(base, &[&nowhere[..], &["--backend", "buildkit"]].concat());
    assert!(refused.code == Some(2) && refused.err.contains("of this machine"), "{refused:?}");

    // Limits are for the native engine, which is told, unless it is not asked.
    let limited = [&nowhere[..], &["--memory", "64m"]].concat();
    let native = world.build("FROM base\nRUN echo hi\n", &limited).ok();
    assert!(native.err.contains("limits of steps cannot be given"), "{native:?}");
    let shown = &world.run(&["builds", "show", "--json"]).ok().json()[0];
    assert_eq!((&shown["backend"], &shown["executor"]), (&"buildkit".into(), &"native".into()));
    let refused = world.build("FROM base\n", &[&limited[..], &["--backend", "buildkit"]].concat());
    assert!(refused.code == Some(2) && refused.err.contains("limits of steps"), "{refused:?}");
}

/// Sends a request to a server with curl, whose answer must be JSON.
#[track_caller]
fn send(server: &Server, method: &str, path: &str, body: Option<&Value>) -> Value {
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "-X", method, "-H"]);
    command.arg(format!("authorization: Bearer {TOKEN}"));
    if let Some(body) = body {
        command.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
    }
    let done = command.arg(format!("{}{path}", server.url)).output();
    let said = Said::of(done.expect("install Debian's package curl")).ok();
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{path}: {e}: {}", said.out))
}

/// Makes a build at a server and waits until it has succeeded.
#[track_caller]
fn built(server: &Server, ask: &Value) -> Value {
    let shown = ended(server, ask);
    assert_eq!(shown["state"], "succeeded", "{shown:#}");
    shown
}

/// Makes a build at a server and waits for its end.
#[track_caller]
fn ended(server: &Server, ask: &Value) -> Value {
    let made = send(server, "POST", "/api/v1/builds", Some(ask));
    let id = made["id"].as_str().unwrap_or_else(|| panic!("{made:#}"));
    wait_for("the build's end", || {
        let shown = send(server, "GET", &format!("/api/v1/builds/{id}"), None);
        ["succeeded", "failed"].contains(&shown["state"].as_str().unwrap()).then_some(shown)
    })
}

fn serve(world: &World, daemons: &[&str]) -> Server {
    let mut server = Server::start(world);
    let args: Vec<&str> = daemons.iter().flat_map(|d| ["--buildkit", d]).collect();
    server.restart_with(world, &args);
    server
}

fn log(server: &Server, world: &World, build: &Value) -> String {
    server.run(world, &["builds", "logs", build["id"].as_str().unwrap()]).ok().out
}

#[test]
fn a_server_keeps_serves_and_builds_on_what_a_daemon_made() {
    let world = World::empty();
    let server = serve(&world, &[&daemon("store")]);
    let word = fresh();
    let text = format!("FROM {}\nRUN echo {word} >/q && echo said\n", busybox());
    let runtime = json!({"envs": {"PORT": "80"}, "workdir": "/srv"});
    let ask = json!({"dockerfile": text, "backend": "buildkit", "runtime": runtime});
    let made = built(&server, &ask);
    assert_eq!(
        (&made["requested_backend"], &made["executor"]),
        (&json!("buildkit"), &json!("buildkit"))
    );
    let id = made["id"].as_str().unwrap();
    assert!(log(&server, &world, &made).contains("said"));
    let manifest = send(&server, "GET", &format!("/v2/default/builds/manifests/{id}"), None);
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2, "{manifest:#}");
    let bytes: u64 = layers.iter().map(|l| l["size"].as_u64().unwrap()).sum();
    let kept = send(&server, "GET", &format!("/api/v1/builds/{id}/artifacts"), None);
    assert_eq!(kept["artifacts"][0]["bytes"], bytes, "{kept:#}");
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = send(&server, "GET", &format!("/v2/default/builds/blobs/{config}"), None);
    assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("PORT=80")), "{config:#}");
    assert_eq!(config["config"]["WorkingDir"], "/srv");

    let steps = json!([{"action": "run", "command": "echo $(cat /q) $PORT"}]);
    let on = built(&server, &json!({"base_build": id, "steps": steps}));
    assert_eq!(on["executor"], "native");
    let said = log(&server, &world, &on);
    assert!(said.contains(&format!("{word} 80")), "{said}");
}

#[test]
fn a_start_command_runs_on_what_a_daemon_made() {
    let world = World::empty();
    let server = serve(&world, &[&daemon("classic")]);
    let text = format!("FROM {}\nRUN echo {} >/q\n", busybox(), fresh());
    let readiness = json!({"probe": "command", "command": "test -e /up", "interval_ms": 50,
                           "grace_ms": 0, "timeout_ms": 30000});
    let start =
        json!({"command": "echo up with $PORT >/up; cat /up; sleep 600", "readiness": readiness});
    let ask = json!({"dockerfile": text, "start": start, "runtime": {"envs": {"PORT": "80"}}});
    let made = built(&server, &ask);
    assert_eq!(made["executor"], "buildkit");
    assert_eq!(made["steps"]["total"], 3, "{made:#}");
    assert!(log(&server, &world, &made).contains("up with 80"));
    // What it wrote stays, and so do the variables.
    let steps = json!([{"action": "run", "command": "cat /up; test -s /q; echo now $PORT"}]);
    let on = built(&server, &json!({"base_build": made["id"], "steps": steps}));
    let said = log(&server, &world, &on);
    assert!(said.contains("up with 80") && said.contains("now 80"), "{said}");
}

#[test]
fn a_start_command_that_fails_is_the_step_that_failed() {
    let world = World::empty();
    let server = serve(&world, &[&daemon("classic")]);
    let text = format!("FROM {}\nRUN echo {} >/q\n", busybox(), fresh());
    let readiness = json!({"probe": "command", "command": "test -e /up", "interval_ms": 50,
                           "grace_ms": 0, "timeout_ms": 30000});
    let start = json!({"command": "echo broken; exit 3", "readiness": readiness});
    let failed = ended(&server, &json!({"dockerfile": text, "start": start}));
    assert_eq!(failed["state"], "failed", "{failed:#}");
    let steps = failed["steps"]["total"].as_u64().unwrap();
    assert_eq!((steps, &failed["failure"]["step"]), (3, &json!(3)), "{failed:#}");
}

#[test]
fn what_a_daemon_does_not_take_a_server_builds_itself_and_says_so() {
    let world = World::empty();
    let server = serve(&world, &[&daemon("store")]);
    for backend in [json!("buildkit"), Value::Null] {
        let ask = json!({"dockerfile": "FROM base\nRUN echo hi\n", "backend": backend,
                         "limits": {"memory_bytes": 64 << 20}});
        let made = built(&server, &ask);
        assert_eq!((&made["requested_backend"], &made["executor"]), (&backend, &json!("native")));
        let said = log(&server, &world, &made);
        assert!(said.contains("limits of steps cannot be given to a BuildKit daemon"), "{said}");
    }
    let native = built(&server, &json!({"dockerfile": "FROM base\n", "backend": "native"}));
    assert_eq!(native["executor"], "native");
    assert!(!log(&server, &world, &native).contains("BuildKit"));
}

#[test]
fn a_template_of_nullspace_is_built_by_a_daemon() {
    let world = World::empty();
    let server = serve(&world, &[&daemon("store")]);
    let word = fresh();
    let text = format!("FROM {}\nRUN echo {word}\n", busybox());
    let path = "/nullspace/v1/templates/builds";
    let made = send(&server, "POST", path, Some(&json!({"name": "df", "dockerfile": text})));
    let id = made["build_id"].as_str().unwrap_or_else(|| panic!("{made:#}"));
    let path = format!("{path}/{id}");
    let build = wait_for("the build's end", || {
        let status = send(&server, "GET", &path, None);
        let build = &status["build"];
        assert_ne!(build["status"], "error", "{status:#}");
        (build["status"] == "ready").then(|| build.clone())
    });
    assert_eq!(build["build_backend"], "buildkit");
    let shown = &server.run(&world, &["builds", "show", "--json"]).ok().json()[0];
    assert_eq!((&shown["backend"], &shown["executor"]), (&"buildkit".into(), &"buildkit".into()));
    assert!(server.run(&world, &["builds", "logs"]).ok().out.contains(&word));
}

/// A daemon that is this test's own.
struct OwnDaemon {
    dir: TempDir,
    registry: String,
    root: PathBuf,
}

impl OwnDaemon {
    fn start() -> Self {
        peers();
        let root = std::env::var_os("ASHLAR_PEERS_ROOT");
        let root = root.map_or_else(|| home().join("root"), PathBuf::from);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = TempDir::with_prefix_in("own-", "/var/tmp").unwrap();
        let own = Self { dir, registry: format!("127.0.0.1:{port}"), root };
        own.script(&["start", "classic"]);
        own
    }

    fn script(&self, args: &[&str]) {
        let env = [
            ("ASHLAR_PEERS_DIR", self.dir.path().to_str().unwrap()),
            ("ASHLAR_PEERS_ROOT", self.root.to_str().unwrap()),
            ("ASHLAR_PEERS_REGISTRY", &self.registry),
        ];
        script(args, &env);
    }

    fn address(&self) -> String {
        format!("unix://{}", self.dir.path().join("classic/docker.sock").display())
    }

    fn kill(&self) {
        let path = self.dir.path().join("pids/dockerd-classic");
        let text = fs::read_to_string(path).unwrap();
        let pid = text.split_whitespace().next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        self.script(&["stop", "--wipe"]);
    }
}

/// Finds a name such that builds of it come to a daemon, one of several: where steps run shows in their
/// mounts.
fn name_that_comes_to(own: &OwnDaemon, server: &Server, world: &World) -> String {
    const NAMES_MAX: usize = 30;
    let place = own.dir.path().file_name().unwrap().to_str().unwrap();
    let comes = |name: &String| {
        let text = format!("FROM {}\nRUN echo {}; cat /proc/self/mountinfo\n", busybox(), fresh());
        let made = built(server, &json!({"name": name, "dockerfile": text}));
        log(server, world, &made).contains(place)
    };
    let mut names = (0..NAMES_MAX).map(|number| format!("name-{number}"));
    names.find(comes).unwrap_or_else(|| panic!("none of {NAMES_MAX} builds came to {place}"))
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_is_replaced_by_another() {
    let own = OwnDaemon::start();
    let world = World::empty();
    let server = serve(&world, &[&own.address(), &daemon("classic")]);
    let name = name_that_comes_to(&own, &server, &world);
    let seconds = format!("3{}", std::process::id());
    let text = format!(
        "FROM {}\nRUN echo {} >/m; sleep {seconds} || true\nRUN echo on >/on\n",
        busybox(),
        fresh()
    );
    let ask = json!({"name": name, "dockerfile": text});
    let words = ["sleep", seconds.as_str()];
    let made = thread::scope(|scope| {
        let building = scope.spawn(|| built(&server, &ask));
        let first = wait_for("the sleep", || pid_of(&words));
        own.kill();
        // What a killed daemon was doing may go on; the other one's sleep is another process.
        let ends = |pid| pid_of(&words).filter(|p| *p != pid);
        let second = wait_for("the second sleep", || {
            let _ = kill_process(first, Signal::KILL);
            ends(first)
        });
        kill_process(second, Signal::KILL).unwrap();
        building.join().unwrap()
    });
    assert_eq!(made["executor"], "buildkit");
    let said = log(&server, &world, &made);
    assert!(said.contains("BuildKit daemon 1 was lost"), "{said}");
    let id = made["id"].as_str().unwrap();
    send(&server, "GET", &format!("/v2/default/builds/manifests/{id}"), None);
}
