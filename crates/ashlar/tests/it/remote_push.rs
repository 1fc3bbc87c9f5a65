//! Pushes to a real registry (Debian's docker-registry) as outputs of a server's builds.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::Server;
use crate::world::{Said, World};

/// The user `ci` with the password `secret`, as `htpasswd -B` writes it.
const USERS: &str = "ci:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// The same login in Docker's config.
const LOGIN: &str = "Y2k6c2VjcmV0";

struct Registry {
    host: String,
    child: Child,
    dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Registry {
    fn start(with_users: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let place = dir.path().display();
        fs::write(dir.path().join("users"), USERS).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {place}/users}}}}\n");
        let auth = if with_users { auth } else { String::new() };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n\
             http: {{addr: '{host}'}}\n{auth}"
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.path().join("config.yml"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("install Debian's package docker-registry");
        let registry = Self { host, child, dir };
        let begun = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "docker-registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn holds(&self, repository: &str, tag: &str) -> bool {
        let place =
            format!("data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}");
        self.dir.path().join(place).exists()
    }
}

const DOCKERFILE: &str = "FROM base\nRUN echo pushed >/x\n";

/// Writes the login of a registry's user into a folder that is Docker's.
fn log_in(world: &World, registry: &Registry) {
    fs::create_dir(world.path("docker")).unwrap();
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"{LOGIN}"}}}}}}"#, registry.host);
    fs::write(world.path("docker/config.json"), config).unwrap();
}

/// Builds at a server with the user's logins.
fn build_logged_in(world: &World, server: &Server, dockerfile: &str, args: &[&str]) -> Said {
    world.file("Dockerfile", dockerfile);
    let mut command = server.command(world, &[&["build", "context"], args].concat());
    Said::of(command.env("DOCKER_CONFIG", world.path("docker")).output().unwrap())
}

#[test]
fn an_image_is_pushed_and_can_be_pulled() {
    let world = World::empty();
    let (server, registry) = (Server::start(&world), Registry::start(false));
    let name = format!("{}/team/app:1", registry.host);
    let output = format!("type=registry,name={}/team/other:2,compression=zstd", registry.host);
    let args = ["-t", &name, "--push", "-o", &output, "--progress", "json"];
    let lines = server.build(&world, DOCKERFILE, &args).ok().json();
    let pushed =
        |l: &&Value| l["event"] == "log" && l["text"].as_str().unwrap().starts_with("pushed ");
    assert_eq!(lines.iter().filter(pushed).count(), 2, "{lines:?}");
    let end = lines.last().unwrap();
    assert_eq!(end["outputs"].as_array().unwrap().len(), 2, "{end}");
    assert!(registry.holds("team/app", "1") && registry.holds("team/other", "2"));
    world.run(&["images", "pull", &name]).ok();
    assert_eq!(world.run(&["images", "run", &name, "cat", "/x"]).ok().out, "pushed\n");
    let shown = server.run(&world, &["builds", "show"]).ok().out;
    assert!(shown.contains("push ") && shown.contains(&name), "{shown}");
}

#[test]
fn logins_come_from_the_user_and_a_refused_push_fails_the_build() {
    let world = World::empty();
    let (server, registry) = (Server::start(&world), Registry::start(true));
    let name = format!("{}/team/app:1", registry.host);
    let args = ["-t", &name, "--push"];
    let failed = server.build(&world, DOCKERFILE, &args);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed.err.contains("cannot push") && failed.err.contains("docker login"),
        "{failed:?}"
    );
    let shown = server.run(&world, &["builds", "show", "--json"]).ok().json().remove(0);
    assert_eq!((&shown["state"], &shown["failure"]["kind"]), (&"failed".into(), &"auth".into()));
    assert_eq!(shown["artifacts"][0]["kind"], "image", "what was built is kept");

    log_in(&world, &registry);
    build_logged_in(&world, &server, DOCKERFILE, &args).ok();
    assert!(registry.holds("team/app", "1"));
    // The password is in no file of the server.
    let found = Command::new("grep").args(["-rl", "--", LOGIN]).arg(world.path("server")).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
}

#[test]
fn logins_for_base_images_come_from_the_user_too() {
    let world = World::empty();
    let (server, registry) = (Server::start(&world), Registry::start(true));
    log_in(&world, &registry);
    let name = format!("{}/team/private:1", registry.host);
    build_logged_in(&world, &server, DOCKERFILE, &["-t", &name, "--push"]).ok();

    // Through a variable, in a copy, and in the place of another image.
    let dockerfile = format!(
        "ARG FROM={}\nFROM $FROM/team/private:1 AS a\nRUN cat /x >/a\n\
         FROM base\nCOPY --from=a /a /a\nCOPY --from={name} /x /b\nCOPY --from=named /x /c\n\
         RUN cat /a /b /c\n",
        registry.host
    );
    let context = format!("named=docker-image://{name}");
    let args = ["--build-context", &context, "--progress", "plain"];
    let refused = server.build(&world, &dockerfile, &args);
    assert_eq!(refused.code, Some(1), "without a login: {refused:?}");
    let said = build_logged_in(&world, &server, &dockerfile, &args).ok();
    assert_eq!(said.err.lines().filter(|l| l.ends_with(" pushed")).count(), 3, "{said:?}");
    let found = Command::new("grep").args(["-rl", "--", LOGIN]).arg(world.path("server")).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
}

#[test]
fn a_pull_passes_over_what_the_server_has() {
    let world = World::empty();
    let (server, registry) = (Server::start(&world), Registry::start(false));
    let name = format!("{}/team/app:1", registry.host);
    server.build(&world, DOCKERFILE, &["-t", &name, "--push"]).ok();
    let (dir, rootfs) = (world.path("server"), crate::world::rootfs());
    let import = ["images", "import", rootfs.to_str().unwrap(), &name];
    world.run(&[&import[..], &["--data-dir", dir.to_str().unwrap()]].concat()).ok();

    let dockerfile = format!("FROM {name}\nRUN cat /x\n");
    let old = server.build(&world, &dockerfile, &[]);
    assert_eq!(old.code, Some(1), "the imported image has no /x: {old:?}");
    server.build(&world, &dockerfile, &["--pull"]).ok();
}

#[test]
fn a_registry_on_the_servers_machine_is_read_from_and_written_to() {
    let world = World::empty();
    let registry = Registry::start(false);
    let local = Server::start(&world);
    let base = format!("{}/library/base:1", registry.host);
    local.build(&world, DOCKERFILE, &["-t", &base, "--push"]).ok();
    drop(local);

    let other = World::empty();
    let mirror = format!("docker.io=http://{}", registry.host);
    let server = Server::start_guarded(&other, &["--registry-mirror", &mirror]);
    for from in ["base:1", &*base] {
        let dockerfile = format!("FROM {from}\nRUN cat /x\n");
        server.build(&other, &dockerfile, &["--no-cache"]).ok();
    }
    let name = format!("{}/team/app:1", registry.host);
    server.build(&other, "FROM base:1\nRUN true\n", &["-t", &name, "--push"]).ok();
    assert!(registry.holds("team/app", "1"));
}
