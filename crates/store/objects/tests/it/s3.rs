//! A real S3 server (`s3s-fs`) for the tests of one process, on a directory of its own.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// The bucket that the server has.
pub(crate) const BUCKET: &str = "ashlar";
const KEY: &str = "key-of-the-tests";
const SECRET: &str = "secret-of-the-tests";

/// The server; it ends with this.
pub(crate) struct S3 {
    pub(crate) dir: TempDir,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl S3 {
    /// Starts a server with an empty bucket.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let mut server = Self { dir, address: ([127, 0, 0, 1], 0).into(), runtime: None };
        server.resume();
        server
    }

    /// Stops answering; what is stored stays.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Answers again, at the same address.
    pub(crate) fn resume(&mut self) {
        let files = s3s_fs::FileSystem::new(self.dir.path()).unwrap();
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let router = Router::new().fallback(move |request: Request| async move {
            let answer = service.clone().oneshot(request).await;
            answer
                .map(|a| a.map(Body::new))
                .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, format!("{e:?}")))
        });
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        self.runtime = Some(runtime);
    }

    /// Returns what `--blob-store` says for a prefix of the bucket.
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint=http://{}", self.address)
    }

    /// Returns the variables with the credentials.
    pub(crate) fn variables(&self) -> [(String, String); 3] {
        [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", "us-east-1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}
