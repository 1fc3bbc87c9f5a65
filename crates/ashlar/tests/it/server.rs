//! A real `ashlar serve`, a proxy that counts and cuts, and a command line that speaks to them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{Said, World, rootfs};

/// The admin's token.
pub(crate) const TOKEN: &str = "admin-token-of-the-tests";

/// How long a server may take to listen, on a machine that does much else.
const START_MAX: Duration = Duration::from_secs(60);

/// A server that lives as long as the test, with the image `base`.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a command that serves the world's folder `server` on an address. Builds may reach
/// loopback, where the registries of tests are.
fn serve(world: &World, listen: &str) -> Command {
    let mut command = serve_guarded(world, listen);
    command.args(["--egress-allow", "127.0.0.1"]);
    command
}

/// Does so as it is without settings.
fn serve_guarded(world: &World, listen: &str) -> Command {
    let dir = world.path("server");
    let dir = dir.to_str().unwrap();
    let mut command = world.command(&["serve", "--data-dir", dir, "--listen", listen]);
    command.env("ASHLAR_TOKEN", TOKEN).env_remove("ASHLAR_NETWORK").stderr(Stdio::piped());
    command
}

impl Server {
    /// Starts a server with the image `base`.
    pub(crate) fn start(world: &World) -> Self {
        let (dir, rootfs) = (world.path("server"), rootfs());
        let args = ["--data-dir", dir.to_str().unwrap()];
        let import = ["images", "import", rootfs.to_str().unwrap(), "base"];
        world.run(&[&import[..], &args].concat()).ok();
        Self::start_bare(world)
    }

    /// Starts a server with no image.
    pub(crate) fn start_bare(world: &World) -> Self {
        let mut server = Self { child: None, url: String::new() };
        server.spawn(serve(world, "127.0.0.1:0"));
        server
    }

    /// Starts a server with no image whose builds go where they go by default.
    pub(crate) fn start_guarded(world: &World, args: &[&str]) -> Self {
        let mut server = Self { child: None, url: String::new() };
        let mut command = serve_guarded(world, "127.0.0.1:0");
        command.args(args);
        server.spawn(command);
        server
    }

    /// Kills the process and starts another on the same address.
    pub(crate) fn restart(&mut self, world: &World) {
        self.restart_with(world, &[]);
    }

    /// Does so with more settings.
    pub(crate) fn restart_with(&mut self, world: &World, args: &[&str]) {
        self.kill();
        let listen = self.url.trim_start_matches("http://").to_owned();
        let mut command = serve(world, &listen);
        command.args(args);
        self.spawn(command);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn spawn(&mut self, mut command: Command) {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let begun = Instant::now();
        let mut said = Vec::new();
        self.child = Some(child);
        while let Some(Ok(line)) = lines.next() {
            assert!(begun.elapsed() < START_MAX, "{said:?}");
            if let Some(url) = line.strip_prefix("listening on ") {
                self.url = url.trim().to_owned();
                // Its log is read on, so that it never waits for a reader.
                thread::spawn(move || lines.for_each(drop));
                return;
            }
            said.push(line);
        }
        panic!("the server ended: {said:#?}");
    }

    /// Returns the binary with the settings of somebody who uses this server as its admin.
    pub(crate) fn command(&self, world: &World, args: &[&str]) -> Command {
        command(world, &self.url, TOKEN, args)
    }

    pub(crate) fn run(&self, world: &World, args: &[&str]) -> Said {
        Said::of(self.command(world, args).output().unwrap())
    }

    /// Builds the world's context there.
    pub(crate) fn build(&self, world: &World, dockerfile: &str, args: &[&str]) -> Said {
        world.file("Dockerfile", dockerfile);
        self.run(world, &[&["build", "context"], args].concat())
    }
}

/// Returns the binary with the settings of somebody who uses a server.
pub(crate) fn command(world: &World, url: &str, token: &str, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env("ASHLAR_SERVER", url).env("ASHLAR_TOKEN", token);
    command
}

/// Stands between clients and a server: counts requests, and cuts connections when it is told to.
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    uploads: AtomicUsize,
    refusing: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let (there, ours) = (server.url.trim_start_matches("http://").to_owned(), shared.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (there, ours) = (there.clone(), ours.clone());
                thread::spawn(move || ours.pass(client, &there));
            }
        });
        Self { url, shared }
    }

    /// Returns how many blobs were uploaded since the last look.
    pub(crate) fn uploads(&self) -> usize {
        self.shared.uploads.swap(0, Ordering::SeqCst)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        let mut open = self.shared.open.lock().unwrap();
        open.drain(..).for_each(|s| drop(s.shutdown(Shutdown::Both)));
    }

    /// Refuses new connections, or takes them again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }
}

impl Shared {
    fn pass(&self, mut client: TcpStream, there: &str) {
        if self.refusing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut server) = TcpStream::connect(there) else { return };
        self.open
            .lock()
            .unwrap()
            .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Both));
        });
        let mut buffer = [0; 64 << 10];
        let mut tail = Vec::new();
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            const WORD: &[u8] = b"PUT /api/v1/blobs/";
            tail.extend_from_slice(&buffer[..n]);
            let found = tail.windows(WORD.len()).filter(|w| *w == WORD).count();
            self.uploads.fetch_add(found, Ordering::SeqCst);
            let keep = tail.len().min(WORD.len() - 1);
            tail.drain(..tail.len() - keep);
            if server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        drop(server.shutdown(Shutdown::Both));
    }
}
