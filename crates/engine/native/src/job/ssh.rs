//! Forwards an ssh agent to one step.
//!
//! The step gets a socket of its own, with the owner and the mode that it asked for, and everything said there is passed
//! on to the agent's socket by a thread of the engine. The agent's own socket is never shown: its owner is the user who
//! runs Ashlar, and agents refuse peers with another user id.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections forwarded at the same time; further ones wait until one of them ends.
const CONNECTIONS_MAX: usize = 32;
/// Bytes held for one direction of a connection; whoever sends more waits.
const CHUNK: usize = 16 * 1024;
/// Pause after a connection could not be taken, for example for want of descriptors.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The owner and mode of the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A forwarded agent. Dropping it ends all connections and removes the socket.
#[derive(Debug)]
pub(super) struct Forward {
    socket: PathBuf,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Forward {
    /// Makes the socket in a directory of its own below `scratch` and begins to listen.
    ///
    /// # Errors
    /// When nobody listens at `agent`, or the socket cannot be made.
    pub(super) fn start(agent: &Path, scratch: &Path, access: Access) -> io::Result<Self> {
        connect(agent)?;
        let dir = tempfile::tempdir_in(scratch)?;
        let socket = dir.path().join("agent");
        let listener = listen(dir.path())?;
        chown(&socket, Some(access.uid), Some(access.gid))?;
        fs::set_permissions(&socket, Permissions::from_mode(access.mode & 0o777))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let agent = agent.to_owned();
        let thread = std::thread::Builder::new()
            .name("ssh-forward".into())
            .spawn(move || serve(&listener, &agent, stopped.as_fd()))?;
        Ok(Self { socket, stop, thread: Some(thread), _dir: dir })
    }

    /// Where the step's socket is on the host.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // Adding one to a fresh counter never blocks or fails.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Listens at `agent` in a directory whose own path may be longer than the 107 bytes that an address holds.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    let open = fs::File::open(dir)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/agent", open.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the agent without ever waiting: one whose queue is full refuses.
fn connect(agent: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(agent)?)?;
    Ok(socket.into())
}

/// Forwards connections until told to stop.
fn serve(listener: &UnixListener, agent: &Path, stop: BorrowedFd<'_>) {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut resting = false;
    loop {
        let listening = !resting && pairs.len() < CONNECTIONS_MAX;
        let accepting = if listening { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), accepting),
        ];
        fds.extend(pairs.iter().flat_map(Pair::interests));
        let waited = poll(&mut fds, resting.then_some(&RETRY));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        resting = match waited {
            Ok(_) if ready[0] => return,
            // Without a poll there is nothing to do but to try again later.
            Err(errno) => errno != rustix::io::Errno::INTR,
            Ok(_) if listening && ready[1] => match accept(listener, agent) {
                Ok(pair) => {
                    pairs.extend(pair);
                    false
                }
                Err(_) => true,
            },
            Ok(_) => false,
        };
        pairs.retain_mut(Pair::advance);
    }
}

/// Takes one connection; one that the agent does not take is closed, as a dead agent would.
fn accept(listener: &UnixListener, agent: &Path) -> io::Result<Option<Pair>> {
    match listener.accept() {
        Ok((client, _)) => {
            client.set_nonblocking(true)?;
            let agent = connect(agent).ok();
            Ok(agent.map(|agent| Pair { client, agent, there: Flow::new(), back: Flow::new() }))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted => Ok(None),
            _ => Err(error),
        },
    }
}

/// One forwarded connection.
struct Pair {
    client: UnixStream,
    agent: UnixStream,
    there: Flow,
    back: Flow,
}

impl Pair {
    /// What to wait for on either side. A side of which nothing is wanted would report its end again and again, so the
    /// kernel is asked about it only while something is.
    fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let client = self.there.reads() | self.back.writes();
        let agent = self.back.reads() | self.there.writes();
        [(&self.client, client), (&self.agent, agent)]
            .into_iter()
            .filter(|(_, flags)| !flags.is_empty())
            .map(|(stream, flags)| PollFd::from_borrowed_fd(stream.as_fd(), flags))
    }

    /// Moves what can be moved; says whether anything is left to do.
    fn advance(&mut self) -> bool {
        let there = self.there.advance(&self.client, &self.agent);
        let back = self.back.advance(&self.agent, &self.client);
        // An agent that has gone answers nothing more; a client that only stopped sending still gets its answer.
        there.is_ok() && back.is_ok() && !self.back.done
    }
}

/// One direction of a connection.
struct Flow {
    held: Vec<u8>,
    ended: bool,
    done: bool,
}

impl Flow {
    fn new() -> Self {
        Self { held: Vec::new(), ended: false, done: false }
    }

    fn reads(&self) -> PollFlags {
        if self.held.is_empty() && !self.ended { PollFlags::IN } else { PollFlags::empty() }
    }

    fn writes(&self) -> PollFlags {
        if self.held.is_empty() { PollFlags::empty() } else { PollFlags::OUT }
    }

    /// Reads when nothing is held, writes what is held, and passes the end on.
    fn advance(&mut self, mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
        if self.held.is_empty() && !self.ended {
            let mut buffer = [0; CHUNK];
            match later(from.read(&mut buffer))? {
                Some(0) => self.ended = true,
                Some(length) => self.held.extend_from_slice(&buffer[..length]),
                None => {}
            }
        }
        if !self.held.is_empty()
            && let Some(length) = later(to.write(&self.held))?
        {
            self.held.drain(..length);
        }
        if self.ended && self.held.is_empty() && !self.done {
            self.done = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

/// Turns "not now" into nothing.
fn later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Access = Access { mode: 0o640, uid: 7, gid: 8 };

    /// An agent that answers each connection with what it was sent, until its end.
    fn echo(at: &Path) {
        let listener = UnixListener::bind(at).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
    }

    #[test]
    fn everything_is_passed_on_whatever_its_size() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        // Longer than an address can be.
        let scratch = dir.path().join("x".repeat(120));
        fs::create_dir(&scratch).unwrap();
        let agent = dir.path().join("agent");
        echo(&agent);
        let forward = Forward::start(&agent, &scratch, ACCESS).unwrap();
        let stat = fs::metadata(forward.socket()).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o640, 7, 8));
        let short = dir.path().join("short");
        std::os::unix::fs::symlink(forward.socket().parent().unwrap(), &short).unwrap();
        let clients: Vec<_> = (0..CONNECTIONS_MAX + 5)
            .map(|i| {
                let path = short.join("agent");
                std::thread::spawn(move || {
                    let mut stream = UnixStream::connect(path).unwrap();
                    let sent: Vec<u8> = (0..300_000_usize).map(|n| (n * (i + 1)) as u8).collect();
                    let mut writer = stream.try_clone().unwrap();
                    let copy = sent.clone();
                    let writing = std::thread::spawn(move || {
                        writer.write_all(&copy).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).unwrap();
                    writing.join().unwrap();
                    assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let socket = forward.socket().to_owned();
        drop(forward);
        assert!(!socket.exists() && fs::read_dir(&scratch).unwrap().next().is_none());
    }

    #[test]
    fn the_end_of_the_step_ends_open_connections() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        echo(&agent);
        let forward = Forward::start(&agent, dir.path(), ACCESS).unwrap();
        let mut stream = UnixStream::connect(forward.socket()).unwrap();
        stream.write_all(b"a").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        drop(forward);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn an_agent_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Forward::start(&dir.path().join("none"), dir.path(), ACCESS).is_err());
        let dead = dir.path().join("dead");
        drop(UnixListener::bind(&dead).unwrap());
        assert!(Forward::start(&dead, dir.path(), ACCESS).is_err());
    }
}
