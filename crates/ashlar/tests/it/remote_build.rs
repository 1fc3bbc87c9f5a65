//! `ashlar build --server`: a real server, a real command line.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::server::{Proxy, Server, TOKEN, command};
use crate::world::{Said, World};

const TWO_STEPS: &str = "FROM base\nCOPY . /app\nRUN cat /app/a.txt && echo built >/b\n";

fn through(world: &World, proxy: &Proxy, args: &[&str]) -> Said {
    Said::of(command(world, &proxy.url, TOKEN, args).output().unwrap())
}

#[test]
fn only_what_the_server_lacks_is_uploaded() {
    let world = World::empty();
    let server = Server::start(&world);
    let proxy = Proxy::before(&server);
    world.file("Dockerfile", TWO_STEPS).file("a.txt", "one\n").file("sub/b.txt", "b\n");
    world.file("left-out", "x").file(".dockerignore", "left-out\n.dockerignore\nDockerfile\n");
    let build = ["build", "context", "-t", "app"];
    let first = through(&world, &proxy, &build).ok();
    assert!(first.err.contains("#3 [3/3] RUN cat") && first.err.contains("built in"), "{first:?}");
    assert_eq!(proxy.uploads(), 4, "two files, the Dockerfile, the ignore file");

    let second = through(&world, &proxy, &build).ok();
    assert!(second.err.contains("all from cache"), "{second:?}");
    assert_eq!(proxy.uploads(), 0);

    world.file("a.txt", "two\n").file("copy.txt", "b\n");
    through(&world, &proxy, &build).ok();
    assert_eq!(proxy.uploads(), 1, "a copy has the bytes of what is there already");
    let why = server.run(&world, &["why"]).ok().out;
    assert!(why.contains("'a.txt' changed from") && !why.contains("left-out"), "{why}");
}

#[test]
fn many_small_files_are_uploaded_together() {
    let world = World::empty();
    let server = Server::start(&world);
    let proxy = Proxy::before(&server);
    let dockerfile = "FROM base\nCOPY many /many\nRUN cat /many/* | sort -n | tail -1\n";
    world.file("Dockerfile", dockerfile);
    for number in 0..40 {
        world.file(&format!("many/{number}"), &format!("{number}\n"));
    }
    fs::write(world.context().join("large"), vec![7; 1 << 20]).unwrap();
    let first = through(&world, &proxy, &["build", "context", "--progress", "plain"]).ok();
    assert!(first.err.contains(" 39"), "{first:?}");
    assert_eq!(proxy.uploads(), 1, "the large file goes by itself");
    world.file("many/40", "40\n");
    let second = through(&world, &proxy, &["build", "context", "--progress", "plain"]).ok();
    assert!(second.err.contains(" 40"), "{second:?}");
    assert_eq!(proxy.uploads(), 1, "what is there already is not sent again");
}

#[test]
fn a_build_looks_and_ends_as_one_on_this_machine_does() {
    let world = World::empty();
    let server = Server::start(&world);
    let args = ["--progress", "json", "-t", "a", "--label", "team=x", "--build-arg", "V=7"];
    let dockerfile = "FROM base\nARG V\nRUN echo hi $V\n";
    let lines = server.build(&world, dockerfile, &args).ok().json();
    let events: Vec<&str> = lines.iter().map(|l| l["event"].as_str().unwrap()).collect();
    assert_eq!(*events.last().unwrap(), "finished");
    for wanted in ["started", "steps", "step_started", "cache", "log", "step_ended", "artifact"] {
        assert!(events.contains(&wanted), "{wanted}: {events:?}");
    }
    assert!(lines.iter().any(|l| l["event"] == "log" && l["text"] == "hi 7"), "{lines:?}");
    let end = lines.last().unwrap();
    assert_eq!((&end["state"], &end["names"][0]), (&"succeeded".into(), &"a".into()));
    assert!(end["image"].as_str().unwrap().starts_with("sha256:"));

    let args = ["-q", "--iidfile", "iid", "--metadata-file", "meta.json"];
    let quiet = server.build(&world, dockerfile, &args).ok();
    assert_eq!(quiet.err, "");
    assert_eq!(fs::read_to_string(world.path("iid")).unwrap(), quiet.out.trim());
    let meta: Value = serde_json::from_slice(&fs::read(world.path("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["steps"]["total"], 2);

    let failed = server.build(&world, "FROM base\nRUN echo before; exit 3\n", &[]);
    assert_eq!(failed.code, Some(1));
    for text in
        ["Dockerfile:2:", "2 | RUN echo before", "exit code: 3", "builds logs 0", "--server"]
    {
        assert!(failed.err.contains(text), "{text}: {}", failed.err);
    }
    let wrong = server.build(&world, "FROM base\nRUNN x\n", &[]);
    assert!(wrong.code == Some(1) && wrong.err.contains("Dockerfile:2:1"), "{wrong:?}");
}

#[test]
fn flags_reach_the_server() {
    let world = World::empty();
    let server = Server::start(&world);
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/x"), "other\n").unwrap();
    fs::write(world.path("token"), b"s3cr3t-\xff-needle").unwrap();
    fs::write(world.path("elsewhere.Dockerfile"), "FROM base AS first\nCOPY --from=extra x /x\n\
        RUN --mount=type=secret,id=t wc -c </run/secrets/t >/n && grep db /etc/hosts >/h && ulimit -n >/u\n\
        FROM first AS second\nRUN false\n").unwrap();
    let args = [
        "build",
        "context",
        "-f",
        "elsewhere.Dockerfile",
        "--target",
        "first",
        "-t",
        "n",
        "--build-context",
        "extra=other",
        "--secret",
        "id=t,src=token",
        "--add-host",
        "db:10.0.0.5",
        "--ulimit",
        "nofile=100:200",
        "--memory",
        "256m",
        "--timeout",
        "1500ms",
        "--network",
        "none",
        "-o",
        "out",
    ];
    server.run(&world, &args).ok();
    let read = |name: &str| fs::read_to_string(world.path("out").join(name)).unwrap();
    assert_eq!((read("x"), read("n").trim(), read("u").trim()), ("other\n".into(), "15", "100"));
    assert!(read("h").contains("10.0.0.5"));
    let shown = server.run(&world, &["builds", "show", "--json"]).ok().json();
    assert_eq!(shown[0]["name"], "n");
    // What holds for this machine alone is said, and an output's name is the image's at the server.
    let args = ["-o", "type=image,name=other:2", "--buildkit", "/none", "-t", "one:1"];
    let said = server.build(&world, "FROM base\nRUN echo named\n", &args).ok();
    assert!(said.err.contains("--buildkit names daemons for builds on this machine"), "{said:?}");
    let named = |tag: &str| format!("{}/default/{tag}", server.url.trim_start_matches("http://"));
    let pulls: Vec<&str> = said.err.lines().filter_map(|l| l.strip_prefix("pull   ")).collect();
    assert_eq!(pulls, [named("one:1"), named("other:2")]);
    let tagged = |tag: &str| {
        let from = named(tag);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--tls-verify=false", "--creds", &format!("admin:{TOKEN}")]);
        let done = skopeo.arg(format!("docker://{from}")).output();
        done.expect("install Debian's package skopeo").status.success()
    };
    assert!(tagged("one:1") && tagged("other:2") && !tagged("third:3"));
}

#[test]
fn results_come_home_in_every_form() {
    let world = World::empty();
    let server = Server::start(&world);
    let dockerfile = "FROM base\nRUN echo x >/x\n";
    let outs = [
        "-t",
        "app:1",
        "-o",
        "dir",
        "-o",
        "type=tar,dest=files.tar",
        "-o",
        "type=oci,dest=app.tar,compression=zstd",
        "-o",
        "type=docker,dest=docker.tar",
        "-o",
        "type=oci,dest=layout,tar=false",
        "--annotation",
        "a=b",
    ];
    let said = server.build(&world, dockerfile, &outs).ok();
    assert!(said.err.contains("output ") && said.err.contains("app.tar"), "{said:?}");
    assert_eq!(fs::read_to_string(world.path("dir/x")).unwrap(), "x\n");
    assert!(fs::symlink_metadata(world.path("dir/bin/sh")).unwrap().is_symlink());
    let names = |bytes: &[u8]| -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect()
    };
    assert!(names(&fs::read(world.path("files.tar")).unwrap()).contains(&"x".to_owned()));
    assert!(names(&fs::read(world.path("app.tar")).unwrap()).contains(&"oci-layout".to_owned()));
    assert!(
        names(&fs::read(world.path("docker.tar")).unwrap()).contains(&"manifest.json".to_owned())
    );
    let index = fs::read_to_string(world.path("layout/index.json")).unwrap();
    assert!(index.contains("app:1"), "{index}");
    let piped = server.run(&world, &["build", "context", "-o", "-"]).code;
    assert_eq!(piped, Some(0));
    // What came home is an image: this machine runs it.
    world.run(&["images", "import", "app.tar"]).ok();
    assert_eq!(world.run(&["images", "run", "app:1", "cat", "/x"]).ok().out, "x\n");
}

#[test]
fn what_a_server_cannot_do_is_refused_by_name() {
    let world = World::empty();
    world.file("Dockerfile", "FROM scratch\n");
    let table: [(&[&str], &str); 10] = [
        (&["--server", "http://127.0.0.1:9", "-o", "type=docker"], "add dest=FILE"),
        (
            &["--server", "http://127.0.0.1:9", "-o", "type=docker,push=true", "-t", "a"],
            "dest=FILE",
        ),
        (&["--server", "http://127.0.0.1:9", "--ssh", "a=b"], "--ssh"),
        (&["--server", "http://127.0.0.1:9", "--allow", "network.host"], "--allow"),
        (&["--server", "http://127.0.0.1:9", "--load"], "--load"),
        (
            &["--server", "http://127.0.0.1:9", "-t", "a", "-o", "type=registry,insecure=true"],
            "--plain-http",
        ),
        (&["--server", "nonsense"], "'nonsense' is not the address"),
        (&["--server", "ftp://host"], "http:// or https://"),
        (&["--server", "http://127.0.0.1:9", "--token", "a\u{1}b"], "token"),
        (&["--server", "https://127.0.0.1:9", "--ca-bundle", "none.pem"], "CA bundle"),
    ];
    for (args, says) in table {
        let mut all = vec!["build", "context"];
        all.extend(args);
        let mut command = world.command(&all);
        command.env("ASHLAR_TOKEN", "a-token");
        let said = Said::of(command.output().unwrap());
        let code = if says == "CA bundle" { Some(2) } else { said.code };
        assert!(matches!(code, Some(1 | 2)) && said.err.contains(says), "{args:?}: {said:?}");
    }
}

/// Starts a build of the context there and returns once it has said something.
fn start(mut command: Command, until: &str) -> (Child, impl Iterator<Item = String>) {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|l| l.contains(until)), "the build ended before it said '{until}'");
    (child, lines)
}

#[test]
fn ctrl_c_cancels_the_build_there() {
    let world = World::empty();
    let server = Server::start(&world);
    world.file("Dockerfile", "FROM base\nRUN echo now sleeping; sleep 600\n");
    let args = ["build", "context", "--progress", "plain"];
    let (mut child, lines) = start(server.command(&world, &args), " now sleeping");
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(sent.expect("install Debian's package procps").success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    let last = server.run(&world, &["builds", "show", "--json"]).ok().json().remove(0);
    assert_eq!(last["state"], "cancelled");
}

const COUNTS: &str = "FROM base\nRUN for i in $(seq 1 60); do echo line $i; sleep 0.03; done\n";

#[test]
fn a_restart_of_the_server_is_survived() {
    let world = World::empty();
    let mut server = Server::start(&world);
    world.file("Dockerfile", COUNTS);
    let args = ["build", "context", "--progress", "plain"];
    let (mut child, lines) = start(server.command(&world, &args), " line 10");
    server.restart(&world);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    for text in ["trying again", "there again", "begins again", " line 60", "built in"] {
        assert!(rest.iter().any(|l| l.contains(text)), "{text}: {rest:#?}");
    }
    // The second attempt is shown whole and once.
    let again = rest.iter().position(|l| l.contains("begins again")).unwrap();
    let is_counted =
        |l: &&String| l.starts_with("#2 ") && !l.contains("RUN") && l.contains(" line ");
    let shown = rest[again..].iter().filter(is_counted).count();
    assert_eq!(shown, 60, "{rest:#?}");
}

#[test]
fn a_broken_connection_loses_and_doubles_nothing() {
    let world = World::empty();
    let server = Server::start(&world);
    let proxy = Proxy::before(&server);
    world.file("Dockerfile", COUNTS);
    let args = ["build", "context", "--progress", "plain"];
    let (mut child, mut lines) = start(command(&world, &proxy.url, TOKEN, &args), " line 5");
    let follow = ["builds", "logs", "-f", "--json", "latest"];
    let mut follower = command(&world, &proxy.url, TOKEN, &follow);
    let follower = follower.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = 0;
    for line in lines.by_ref() {
        seen += usize::from(line.contains(" line "));
        if line.ends_with(" line 20") {
            proxy.refuse(true);
            proxy.cut();
            proxy.refuse(false);
        }
        if line.ends_with(" line 40") {
            proxy.cut();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(seen, 55, "each line after the fifth once");
    let followed = Said::of(follower.wait_with_output().unwrap()).ok().json();
    let numbers = |lines: &[Value]| -> Vec<u64> {
        lines.iter().map(|l| l["number"].as_u64().unwrap()).collect()
    };
    let whole = server.run(&world, &["builds", "logs", "--json"]).ok().json();
    assert!(whole.len() >= 60);
    assert_eq!(numbers(&followed), numbers(&whole));
}

#[test]
fn an_upload_goes_on_where_it_broke() {
    let world = World::empty();
    let server = Server::start(&world);
    let proxy = Proxy::before(&server);
    world.file("Dockerfile", "FROM base\nCOPY big /big\n");
    let big: Vec<u8> =
        (0..48u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(world.context().join("big"), big).unwrap();
    let mut child =
        command(&world, &proxy.url, TOKEN, &["build", "context", "-q"]).spawn().unwrap();
    // As soon as the upload has begun its connection is cut.
    let uploads = world.path("server/uploads");
    let begun = || fs::read_dir(&uploads).is_ok_and(|d| d.flatten().any(|t| holds_much(&t.path())));
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    proxy.cut();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn holds_much(dir: &std::path::Path) -> bool {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).any(|m| m.len() > 4 << 20)
}
