//! A real ssh agent, and steps that reach it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ashlar_core::failure::FailureKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::world::{STORES, World, fresh, registry};

/// How long an agent may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the agent for its keys and writes out what it answers. Images of tests have no ssh client.
const ASK: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, getenv("SSH_AUTH_SOCK"), sizeof to.sun_path - 1);
    int agent = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(agent, (struct sockaddr *)&to, sizeof to)) return 1;
    if (write(agent, "\0\0\0\1\13", 5) != 5) return 2;
    unsigned char head[4], answer[4096];
    for (int n = 0, got; n < 4; n += got) if ((got = read(agent, head + n, 4 - n)) <= 0) return 3;
    int size = head[2] << 8 | head[3];
    for (int n = 0, got; n < size; n += got)
        if ((got = read(agent, answer + n, size - n)) <= 0) return 4;
    return write(1, answer, size) != size;
}
"#;

fn run(command: &mut Command, package: &str) {
    let done = command.stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|e| panic!("{command:?}: {e}; install Debian's {package}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An agent that holds one key.
struct Agent {
    child: Child,
    dir: TempDir,
}

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, key) = (dir.path().join("agent"), dir.path().join("key"));
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{e}; install openssh-client"));
        let agent = Self { child, dir };
        let end = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < end, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut keygen = Command::new("ssh-keygen");
        run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), "openssh-client");
        let mut add = Command::new("ssh-add");
        run(add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket), "openssh-client");
        agent
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// Returns the public key as agents tell it.
    fn public_key(&self) -> Vec<u8> {
        let text = std::fs::read_to_string(self.dir.path().join("key.pub")).unwrap();
        STANDARD.decode(text.split(' ').nth(1).unwrap()).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_step_reaches_an_ssh_agent_that_it_mounts() {
    let agent = Agent::start();
    for store in STORES {
        let mut world = World::on(store);
        world.build.ssh.insert("default".into(), agent.socket());
        world.file("ask.c", ASK);
        let context = world.path("context");
        let mut compile = Command::new("gcc");
        compile.args(["-static", "-O1", "-o", "ask", "ask.c"]).current_dir(context);
        run(&mut compile, "gcc and libc6-dev");
        let text = |mount: &str| {
            let base = registry();
            format!(
                "FROM {base}/library/busybox\nCOPY ask /ask\nRUN --mount={mount} echo {}; \
                 /ask >/answer\n",
                fresh()
            )
        };
        let made = world.build(&text("type=ssh"));
        let (answer, key) = (world.files(&made)["answer"].clone(), agent.public_key());
        assert!(answer.windows(key.len()).any(|w| w == key), "{store}: {answer:?}");
        let failure = world.try_build(&text("type=ssh,id=other,required")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Definition, "{store}: {failure:?}");
        assert!(failure.message.contains("unset ssh forward key other"), "{failure:?}");
    }
}
