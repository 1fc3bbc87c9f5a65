//! A private PostgreSQL for the tests of one process, on a socket of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use sqlx::{Connection, Executor, PgConnection};

const MISSING: &str = "PostgreSQL's server programs are missing: install Debian's package \
                       'postgresql-15' (any version from 15 on will do)";

struct Server {
    dir: PathBuf,
}

/// Makes an empty database and returns its address. The server ends with the process.
pub(crate) async fn fresh_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = tokio::task::spawn_blocking(server).await.unwrap();
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let url =
        |name: &str| format!("postgres://postgres@localhost/{name}?host={}", server.dir.display());
    let mut admin = PgConnection::connect(&url("postgres")).await.unwrap();
    // In an order of its own, as on most machines: not that of the bytes.
    let create =
        format!("CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'");
    admin.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
    admin.close().await.unwrap();
    url(&name)
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let bin = newest_programs();
    // A socket's path may have about a hundred bytes: straight below the temporary directory.
    let dir = std::env::temp_dir().join(format!("ashlar-pg-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let (uid, gid) = server_user();
    chown(&dir, Some(uid), Some(gid)).unwrap();
    let data = dir.join("data");
    let mut init = as_user(&bin.join("initdb"), uid, gid);
    run(init.args(["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "-D"]).arg(&data));
    // The watcher ends the server and removes its directory when this process is gone, however it
    // went: it waits for the end of a pipe that only this process holds.
    let script = r#"
        "$0" -D "$1" -k "$2" -c listen_addresses= -c fsync=off -c max_connections=200 >"$2/log" 2>&1 &
        server=$!
        cat >/dev/null
        kill -INT $server; wait $server; rm -rf "$2"
    "#;
    let mut watcher = as_user(Path::new("/bin/sh"), uid, gid);
    watcher.args(["-c", script]).arg(bin.join("postgres")).arg(&data).arg(&dir);
    let child =
        watcher.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The pipe must stay open until the process ends.
    std::mem::forget(child);
    wait_until_ready(&bin, &dir);
    Server { dir }
}

fn wait_until_ready(bin: &Path, dir: &Path) {
    for _ in 0..600 {
        let mut ready = Command::new(bin.join("pg_isready"));
        let done = ready.arg("-q").arg("-h").arg(dir).status().unwrap();
        if done.success() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("PostgreSQL does not start: {}", fs::read_to_string(dir.join("log")).unwrap());
}

fn newest_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect(MISSING);
    let found = versions.map(|v| v.unwrap().path().join("bin"));
    found.filter(|bin| bin.join("initdb").exists()).max().expect(MISSING)
}

/// Returns who runs the server: PostgreSQL refuses to be root.
fn server_user() -> (u32, u32) {
    let me = fs::metadata("/proc/self").unwrap();
    use std::os::unix::fs::MetadataExt;
    if me.uid() != 0 {
        return (me.uid(), me.gid());
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|l| l.starts_with("postgres:")).expect(MISSING);
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|n| n.parse().unwrap()).collect();
    (ids[0], ids[1])
}

fn as_user(program: &Path, uid: u32, gid: u32) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.uid(uid).gid(gid).current_dir("/").env("LC_ALL", "C.UTF-8");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
