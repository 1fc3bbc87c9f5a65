//! A registry in this process that does whatever a test tells it to, and small images for it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ashlar_blobs::BlobStore;
use ashlar_core::Digest;
use ashlar_oci::manifest::Descriptor;
use ashlar_oci::{ImageStore, Images, Registry, RegistrySettings, media_type as mt};
use serde_json::{Value, json};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer, honest or not.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Say that there are so many bytes, whatever there are.
    pub(crate) announced: Option<usize>,
    /// Hold still for so long before the body's last byte.
    pub(crate) stall: Option<Duration>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![], announced: None, stall: None }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(200) }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Announces the whole body and sends the first `len` bytes.
    pub(crate) fn cut(mut self, len: usize) -> Self {
        self.announced = Some(self.body.len());
        self.body.truncate(len);
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server; it ends with the process.
pub(crate) struct Fake {
    pub(crate) host: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), log.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, seen) = (handler.clone(), seen.clone());
                thread::spawn(move || serve(stream, &*handler, &seen));
            }
        });
        Self { host, log }
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Counts the requests of that method whose path has `part`.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.log().iter().filter(|r| r.method == method && r.path.contains(part)).count()
    }
}

fn serve(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = read_request(&mut reader) else { return };
    log.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    // A client that went away is part of some tests.
    drop(write_reply(&stream, &request, &reply));
    drop(stream.shutdown(Shutdown::Both));
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

fn write_reply(mut out: &TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    let length = reply.announced.unwrap_or(reply.body.len());
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    if reply.status != 204 {
        head += &format!("content-length: {length}\r\n");
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    out.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    if let Some(stall) = reply.stall {
        let (most, last) = reply.body.split_at(reply.body.len().saturating_sub(1));
        out.write_all(most)?;
        thread::sleep(stall);
        return out.write_all(last);
    }
    out.write_all(&reply.body)
}

/// An honest registry's content: manifests and blobs by what they are asked for.
#[derive(Default, Clone)]
pub(crate) struct Content {
    pub(crate) manifests: HashMap<String, (String, Vec<u8>)>,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
}

impl Content {
    pub(crate) fn manifest(&mut self, tag: &str, media_type: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        for name in [tag.to_owned(), digest.to_string()] {
            self.manifests.insert(name, (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest.to_string(), bytes.to_vec());
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// Adds an image with these layers under `tag`; returns its manifest's digest and its layers.
    pub(crate) fn image(
        &mut self,
        tag: &str,
        platform: &str,
        layers: &[&[u8]],
    ) -> (Digest, Vec<Descriptor>) {
        let layers: Vec<_> = layers.iter().map(|l| self.blob(mt::OCI_LAYER, l)).collect();
        let config = self.blob(mt::OCI_CONFIG, config(platform, &layers).to_string().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": mt::OCI_MANIFEST,
            "config": config, "layers": layers });
        let bytes = manifest.to_string().into_bytes();
        (self.manifest(tag, mt::OCI_MANIFEST, bytes), layers)
    }

    pub(crate) fn index(&mut self, tag: &str, entries: &[(Digest, &str)]) -> Digest {
        let entry = |(digest, platform): &(Digest, &str)| {
            let (os, architecture) = platform.split_once('/').unwrap();
            let (media_type, bytes) = &self.manifests[&digest.to_string()];
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len(),
                "platform": { "os": os, "architecture": architecture } })
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": mt::OCI_INDEX, "manifests": entries });
        self.manifest(tag, mt::OCI_INDEX, index.to_string().into_bytes())
    }

    /// Answers honestly, ranges too.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        if request.path.contains("/manifests/") {
            let Some((media_type, bytes)) = self.manifests.get(name) else {
                return Reply::new(404);
            };
            let digest = Digest::of(bytes).to_string();
            return Reply::ok(bytes.clone())
                .header("content-type", media_type.clone())
                .header("docker-content-digest", digest);
        }
        let Some(bytes) = self.blobs.get(name) else { return Reply::new(404) };
        let range = request.header("range").and_then(|r| r.strip_prefix("bytes="));
        let from = range.and_then(|r| r.split('-').next()).and_then(|s| s.parse::<usize>().ok());
        match from {
            None => Reply::ok(bytes.clone()),
            Some(from) => Reply { status: 206, ..Reply::ok(&bytes[from..]) }.header(
                "content-range",
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            ),
        }
    }
}

pub(crate) fn config(platform: &str, layers: &[Descriptor]) -> Value {
    let (os, architecture) = platform.split_once('/').unwrap();
    let ids: Vec<_> = layers.iter().map(|l| l.digest).collect();
    json!({ "os": os, "architecture": architecture, "config": { "Env": ["A=1"] },
        "rootfs": { "type": "layers", "diff_ids": ids } })
}

/// Stores in a directory of their own, and a client that does not wait long.
pub(crate) struct Local {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) images: Images,
}

pub(crate) fn settings() -> RegistrySettings {
    RegistrySettings {
        stall_timeout: Duration::from_secs(3),
        backoff: Duration::from_millis(5),
        ..RegistrySettings::default()
    }
}

impl Local {
    pub(crate) fn new() -> Self {
        Self::with(settings())
    }

    pub(crate) fn with(settings: RegistrySettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path()).unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let images = Images::new(blobs, store, Registry::new(settings));
        Self { dir, images }
    }
}

/// Bytes that do not repeat soon.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}
