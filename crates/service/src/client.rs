//! What is known of the request that a use case is called for, beside its actor.
//!
//! Every door wraps the handling of a request in [`ClientInfo::scope`], so that the audit log and
//! traces know it without each call handing it on.

use std::net::IpAddr;

use serde_json::{Value, json};

tokio::task_local! {
    static CLIENT: ClientInfo;
}

/// Bytes of a W3C trace parent: `00-<32 hex>-<16 hex>-<2 hex>`.
const TRACE_PARENT_BYTES: usize = 55;

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The client's address, behind trusted proxies too.
    pub address: Option<IpAddr>,
    /// The request's id, as the log has it.
    pub request: Option<String>,
    trace_parent: Option<String>,
}

impl ClientInfo {
    /// Returns what is known of a request that belongs to no trace.
    pub fn new(address: Option<IpAddr>, request: Option<String>) -> Self {
        Self { address, request, trace_parent: None }
    }

    /// Sets the trace that the request belongs to, from the header `traceparent`. What is none
    /// is left out, as the specification says.
    ///
    /// Source: W3C Trace Context, section 3.2.
    #[must_use]
    pub fn with_trace_parent(mut self, header: Option<&str>) -> Self {
        self.trace_parent = header.filter(|h| is_trace_parent(h)).map(str::to_owned);
        self
    }

    /// Does the work of a request.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CLIENT.scope(self, work).await
    }

    /// Returns the one of the request at work; an empty one outside of requests.
    ///
    /// A task that a door spawns for a request has to be given it again, by
    /// [`ClientInfo::scope`].
    pub fn current() -> Self {
        CLIENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Says whether there is a request at work.
    pub(crate) fn is_request() -> bool {
        CLIENT.try_with(|_| ()).is_ok()
    }

    pub(crate) fn trace_parent(&self) -> Option<&str> {
        self.trace_parent.as_deref()
    }

    /// Adds address and request to an audit entry's details.
    pub(crate) fn add_to(&self, detail: Value) -> Value {
        let mut detail = match detail {
            Value::Null => json!({}),
            other => other,
        };
        if let (Some(address), Value::Object(fields)) = (self.address, &mut detail) {
            fields.insert("client".into(), address.to_string().into());
        }
        if let (Some(request), Value::Object(fields)) = (&self.request, &mut detail) {
            fields.insert("request".into(), request.as_str().into());
        }
        detail
    }
}

fn is_trace_parent(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let ids = text.split('-').skip(1).take(2);
    text.len() == TRACE_PARENT_BYTES
        && lengths == [2, 32, 16, 2]
        && text.split('-').all(hex)
        && !text.starts_with("ff")
        && ids.clone().all(|id| id.bytes().any(|b| b != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_trace_parents_are_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_trace_parent(good));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031-9cb7ad6b7169203331-011",
        ] {
            assert!(!is_trace_parent(bad), "{bad}");
        }
    }
}
