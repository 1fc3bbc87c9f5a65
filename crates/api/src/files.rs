//! Files as bodies, whole or from an offset on.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio_util::io::ReaderStream;

use crate::Problem;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Answers with a file; a request for `bytes=N-` or `bytes=N-M` gets that range (RFC 9110, 14.2).
pub(crate) fn answer(
    mut file: File,
    size: u64,
    kind: &str,
    headers: &HeaderMap,
    with_body: bool,
) -> Result<Response, Problem> {
    let range =
        headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| range(v, size));
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let kind = HeaderValue::from_str(kind).map_err(ashlar_service::Error::internal)?;
    out.insert(header::CONTENT_TYPE, kind);
    let (from, until) = range.unwrap_or((0, size));
    if from > until || (range.is_some() && from >= size) {
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        let all = HeaderValue::from_str(&format!("bytes */{size}"));
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, all.map_err(ashlar_service::Error::internal)?);
        return Ok(response);
    }
    if range.is_some() {
        let part = format!("bytes {from}-{}/{size}", until - 1);
        let part = HeaderValue::from_str(&part).map_err(ashlar_service::Error::internal)?;
        response.headers_mut().insert(header::CONTENT_RANGE, part);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(until - from));
    if with_body {
        file.seek(SeekFrom::Start(from)).map_err(ashlar_service::Error::internal)?;
        let file = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), until - from);
        *response.body_mut() = Body::from_stream(ReaderStream::with_capacity(file, PIECE_BYTES));
    }
    Ok(response)
}

/// Reads a range: the first byte and the one after the last. What is no single range of bytes is
/// none, and the whole file is sent.
fn range(value: &str, size: u64) -> Option<(u64, u64)> {
    let (from, until) = value.strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        let last: u64 = until.parse().ok()?;
        return Some((size.saturating_sub(last), size));
    }
    let from = from.parse().ok()?;
    match until {
        "" => Some((from, size.max(from))),
        until => {
            let until: u64 = until.parse().ok()?;
            (until >= from).then(|| (from, until.saturating_add(1).min(size).max(from)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_are_cut_to_the_file() {
        assert_eq!(range("bytes=0-", 10), Some((0, 10)));
        assert_eq!(range("bytes=3-4", 10), Some((3, 5)));
        assert_eq!(range("bytes=3-99", 10), Some((3, 10)));
        assert_eq!(range("bytes=-4", 10), Some((6, 10)));
        for bad in ["bytes=5-4", "bytes=a-", "items=1-2", "bytes=1-2,4-5"] {
            assert_eq!(range(bad, 10), None, "{bad}");
        }
    }
}
