//! Answers every request with the bytes of a file, from memory: what `bench/serve` measures lists against.
//!
//! `cargo run --release -p ashlar-http --example same_bytes -- 127.0.0.1:7079 FILE`

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: same_bytes ADDRESS FILE".into());
    };
    let bytes = Bytes::from(std::fs::read(file)?);
    let answer = move || {
        let bytes = bytes.clone();
        async move { ([(CONTENT_TYPE, "application/json")], bytes) }
    };
    let listener = tokio::net::TcpListener::bind(&address).await?;
    axum::serve(listener, Router::new().fallback(answer)).await?;
    Ok(())
}
