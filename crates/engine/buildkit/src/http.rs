//! The few calls of Docker's own HTTP API that are needed: upgrades to gRPC, and images.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, BodyStream, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;

use crate::connect::{ConnectError, Link};

/// Most bytes of a refusal's text that are read.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// Sends one request on a connection of its own.
async fn send(
    link: Link,
    method: Method,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<Response<Incoming>, ConnectError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(link)).await?;
    // It ends with the answer's body, or becomes the upgraded stream.
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "docker");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let refused = |e: hyper::http::Error| ConnectError::Refused {
        path: path.to_owned(),
        status: 0,
        text: e.to_string(),
    };
    let request = request.body(Empty::<Bytes>::new()).map_err(refused)?;
    Ok(sender.send_request(request).await?)
}

/// Turns a connection into one that carries gRPC.
pub(crate) async fn upgrade(
    link: Link,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<Link, ConnectError> {
    let mut all = vec![("connection", "Upgrade".to_owned()), ("upgrade", "h2c".to_owned())];
    all.extend_from_slice(headers);
    let response = send(link, Method::POST, path, &all).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(path, response).await);
    }
    Ok(Link::new(TokioIo::new(hyper::upgrade::on(response).await?)))
}

/// Returns the archive of an image in the daemon's store, as `docker save` writes it.
pub(crate) async fn save(
    link: Link,
    image: &str,
) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, ConnectError> {
    let path = format!("/images/{image}/get");
    let response = send(link, Method::GET, &path, &[]).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(&path, response).await);
    }
    Ok(BodyStream::new(response.into_body()).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(e) => Some(Err(io::Error::other(e))),
        }
    }))
}

/// Takes a name off an image in the daemon's store; the image goes when it has no other.
pub(crate) async fn untag(link: Link, image: &str) -> Result<(), ConnectError> {
    let path = format!("/images/{image}");
    let response = send(link, Method::DELETE, &path, &[]).await?;
    match response.status() {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
        _ => Err(refusal(&path, response).await),
    }
}

async fn refusal(path: &str, response: Response<Incoming>) -> ConnectError {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned());
    let text = text.unwrap_or_default().trim().chars().take(500).collect();
    ConnectError::Refused { path: path.to_owned(), status, text }
}
