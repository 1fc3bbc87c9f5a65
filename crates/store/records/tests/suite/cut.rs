//! A way to the tests' PostgreSQL that can be cut.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every suite needs every fault")]
#[allow(clippy::allow_attributes, reason = "an expectation fails where all is used")]
pub(crate) enum Way {
    /// It arrives.
    Open,
    /// It is lost, and nobody is told: the cable is out.
    Silent,
    /// Connections are closed, and new ones at once: the server starts anew.
    Closed,
}

/// A port that leads to the socket of a private PostgreSQL.
pub(crate) struct Cut {
    /// The address of the database by this way.
    pub(crate) url: String,
    way: watch::Sender<Way>,
    refused: Arc<AtomicUsize>,
}

impl Cut {
    /// Opens a way to a database whose address names the directory of its socket.
    pub(crate) async fn before(url: &str) -> Self {
        let (base, dir) = url.split_once("?host=").unwrap();
        let socket = PathBuf::from(dir).join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = base.rsplit_once('/').unwrap().1;
        let url = format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
        let (way, watched) = watch::channel(Way::Open);
        let refused = Arc::new(AtomicUsize::new(0));
        tokio::spawn(accept(listener, socket, watched, Arc::clone(&refused)));
        Self { url, way, refused }
    }

    /// Changes what happens to what is sent from now on.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Returns how many connections were closed before they led anywhere.
    #[allow(dead_code, reason = "not every suite needs it")]
    #[allow(clippy::allow_attributes, reason = "an expectation fails where it is used")]
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    socket: PathBuf,
    way: watch::Receiver<Way>,
    refused: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if *way.borrow() == Way::Closed {
            refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        tokio::spawn(carry(client, socket.clone(), way.clone()));
    }
}

/// Carries what two sides say until the way is closed; holds both in silence when it is silent.
async fn carry(mut client: TcpStream, socket: PathBuf, mut way: watch::Receiver<Way>) {
    if *way.borrow() == Way::Open {
        let Ok(mut server) = UnixStream::connect(&socket).await else { return };
        let changed = tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            changed = way.wait_for(|w| *w != Way::Open) => changed.map(|w| *w),
        };
        if changed.is_ok_and(|w| w == Way::Closed) {
            return;
        }
        // The server's side stays too: it must not learn of the cut either.
        let _ = way.wait_for(|w| *w == Way::Closed).await;
        return;
    }
    let _ = way.wait_for(|w| *w == Way::Closed).await;
}
