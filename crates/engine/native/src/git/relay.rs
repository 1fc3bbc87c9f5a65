//! A SOCKS server (RFC 1928) on loopback for one run of `git`: it makes `git`'s connections, and
//! only those that builds may make.
//!
//! `git` follows redirects and fetches submodules by itself. Whatever it wants to reach, by
//! whichever name, comes by here, where the name is resolved and judged.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ashlar_oci::RegistrySettings;
use ashlar_oci::registry::{EgressError, EgressRefused};

/// How long a client may take to say where it wants to go.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long the server's own end may take.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const CONNECT: u8 = 1;
const TO_IPV4: u8 = 1;
const TO_NAME: u8 = 3;
const TO_IPV6: u8 = 4;

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Connected = 0,
    NotAllowed = 2,
    Unreachable = 4,
    Refused = 5,
    NoSuchCommand = 7,
}

/// The server; it takes no more connections once it is dropped.
pub(super) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    settings: RegistrySettings,
    refused: Mutex<Option<EgressRefused>>,
    is_over: AtomicBool,
    open: AtomicUsize,
}

impl Relay {
    /// Listens at a port of its own.
    pub(super) fn start(settings: RegistrySettings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            settings,
            refused: Mutex::default(),
            is_over: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let of_thread = Arc::clone(&state);
        let run = move || serve(&listener, &of_thread);
        thread::Builder::new().name("git relay".into()).spawn(run)?;
        Ok(Self { address, state })
    }

    /// Returns the address as a proxy's that resolves names.
    pub(super) fn url(&self) -> String {
        format!("socks5h://{}", self.address)
    }

    /// Returns what was refused last.
    pub(super) fn refused(&self) -> Option<EgressRefused> {
        self.state.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
        // Wakes the thread; if it cannot be reached it has ended.
        drop(TcpStream::connect_timeout(&self.address, STOP_TIME_MAX));
    }
}

fn serve(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.is_over.load(Ordering::Acquire) {
            return;
        }
        let client = match stream {
            Ok(client) => client,
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            // `git` is told that there is no proxy.
            Err(_) => return,
        };
        if state.open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            state.open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let of_thread = Arc::clone(state);
        let run = move || {
            // A connection that breaks is `git`'s to report.
            let _ = session(&client, &of_thread);
            of_thread.open.fetch_sub(1, Ordering::AcqRel);
        };
        if thread::Builder::new().name("git relay".into()).spawn(run).is_err() {
            state.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn session(client: &TcpStream, state: &State) -> io::Result<()> {
    client.set_read_timeout(Some(GREETING_TIME_MAX))?;
    let Some((host, port)) = wish(client)? else {
        return answer(client, Reply::NoSuchCommand);
    };
    match connect(state, &host, port) {
        Ok(server) => {
            answer(client, Reply::Connected)?;
            client.set_read_timeout(None)?;
            both_ways(client, &server)
        }
        Err(reply) => answer(client, reply),
    }
}

/// Reads where a client wants to go; none when it wants something else than a connection.
fn wish(mut client: &TcpStream) -> io::Result<Option<(String, u16)>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let [version, methods] = read(client)?;
    if version != VERSION {
        return Err(bad());
    }
    client.read_exact(&mut vec![0; usize::from(methods)])?;
    client.write_all(&[VERSION, NO_AUTHENTICATION])?;
    let [_, command, _, kind] = read(client)?;
    let host = match kind {
        TO_IPV4 => IpAddr::from(Ipv4Addr::from(read::<4>(client)?)).to_string(),
        TO_IPV6 => IpAddr::from(Ipv6Addr::from(read::<16>(client)?)).to_string(),
        TO_NAME => {
            let [length] = read(client)?;
            let mut name = vec![0; usize::from(length)];
            client.read_exact(&mut name)?;
            String::from_utf8(name).map_err(|_| bad())?
        }
        _ => return Ok(None),
    };
    let port = u16::from_be_bytes(read(client)?);
    Ok((command == CONNECT).then_some((host, port)))
}

fn read<const N: usize>(mut from: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn answer(mut client: &TcpStream, reply: Reply) -> io::Result<()> {
    // The address that the connection is made from is nobody's business.
    client.write_all(&[VERSION, reply as u8, 0, TO_IPV4, 0, 0, 0, 0, 0, 0])
}

fn connect(state: &State, host: &str, port: u16) -> Result<TcpStream, Reply> {
    let addresses = state.settings.addresses(host, port).map_err(|error| match error {
        EgressError::Refused(refused) => {
            *state.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
            Reply::NotAllowed
        }
        EgressError::Resolve { .. } => Reply::Unreachable,
    })?;
    let limit = state.settings.connect_timeout;
    let mut tries = addresses.iter().map(|a| TcpStream::connect_timeout(a, limit));
    tries.find_map(Result::ok).ok_or(Reply::Refused)
}

/// Copies until one side ends.
fn both_ways(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let one_way = |mut from: &TcpStream, mut to: &TcpStream| {
        // Either end ends both.
        let copied = io::copy(&mut from, &mut to);
        drop((client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both)));
        copied
    };
    thread::scope(|scope| {
        let up = thread::Builder::new().spawn_scoped(scope, || one_way(client, server))?;
        let down = one_way(server, client);
        drop(up.join());
        down.map(drop)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use ashlar_oci::Egress;

    use super::*;

    fn relay(allowed: &[&str]) -> Relay {
        let allowed = allowed.iter().map(|text| text.parse().unwrap());
        let egress = Egress::guarded(allowed);
        Relay::start(RegistrySettings { egress, ..RegistrySettings::default() }).unwrap()
    }

    /// Asks for a connection by name; returns the stream with the relay's reply.
    fn ask(relay: &Relay, host: &str, port: u16) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(relay.address).unwrap();
        stream.write_all(&[5, 1, 0]).unwrap();
        let mut hello = [0; 2];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello, [5, 0]);
        let mut wish = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
        wish.extend_from_slice(host.as_bytes());
        wish.extend_from_slice(&port.to_be_bytes());
        stream.write_all(&wish).unwrap();
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).unwrap();
        (stream, reply[1])
    }

    #[test]
    fn connections_are_made_where_they_may_go_and_nowhere_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let guarded = relay(&[]);
        for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0"] {
            assert_eq!(ask(&guarded, host, port).1, Reply::NotAllowed as u8, "{host}");
            assert!(guarded.refused().unwrap().host.starts_with(host));
        }
        let allowing = relay(&[&format!("127.0.0.1:{port}")]);
        assert_eq!(ask(&allowing, "127.0.0.1", port + 1).1, Reply::NotAllowed as u8);
        let (mut client, reply) = ask(&allowing, "127.0.0.1", port);
        assert_eq!(reply, Reply::Connected as u8);
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"ping").unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).unwrap();
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"pong");
        drop(client);
        assert_eq!(server.read(&mut heard).unwrap(), 0, "the end is passed on");
    }

    #[test]
    fn what_is_no_wish_for_a_connection_is_refused() {
        let relay = relay(&[]);
        let mut stream = TcpStream::connect(relay.address).unwrap();
        // BIND, to an address.
        stream.write_all(&[5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, 0, 80]).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said[..4], [5, 0, 5, Reply::NoSuchCommand as u8]);
        let mut stream = TcpStream::connect(relay.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut said = Vec::new();
        // Bytes that nobody read may reset the connection.
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty());
    }
}
