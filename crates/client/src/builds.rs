//! Calls about builds.

use std::collections::BTreeMap;
use std::time::Duration;

use ashlar_core::BuildId;
use ashlar_core::journal::Entry;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::add_query;
use crate::submission::{RegistryAccess, SecretValue};
use crate::{Build, Client, Error, Listing, Page, Stop, Submission};

/// How often a submission whose answer was lost is sent again. All carry the same key, so the
/// build is made once.
const SUBMIT_ATTEMPTS: u32 = 5;
/// The wait before a call is sent again; doubled each time.
const BACKOFF: Duration = Duration::from_millis(200);

/// Which builds are listed.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Parameters: `q` in the grammar of queries, or one of its keys by itself.
    pub filters: Vec<(String, String)>,
    /// The most builds.
    pub limit: u32,
    /// Where an earlier page ended.
    pub cursor: Option<String>,
    /// The number of the page, from 1.
    pub page: Option<u64>,
}

/// How a build is repeated.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RetryAsk {
    /// Resolve images, branches and addresses anew.
    pub newest: bool,
    /// Build every step anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Values of all secrets that the build had.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretValue>,
    /// Logins at all registries that the build had some for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, RegistryAccess>,
    /// Makes a repetition of the request safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

#[derive(Deserialize)]
struct RawPage {
    entries: Vec<Value>,
    next: u64,
}

impl Client {
    /// Lists builds.
    ///
    /// # Errors
    /// [`Error::Refused`] names the filter that is wrong.
    pub fn list(&self, query: &ListQuery) -> Result<Listing, Error> {
        let mut parameters: Vec<(&str, String)> =
            query.filters.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        parameters.push(("limit", query.limit.to_string()));
        parameters.extend(query.cursor.clone().map(|c| ("cursor", c)));
        parameters.extend(query.page.map(|p| ("page", p.to_string())));
        self.get("builds", &["builds"], &parameters)
    }

    /// Returns the build that an id or the beginning of one means.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none, or several.
    pub fn build(&self, id: &str) -> Result<Build, Error> {
        self.get("the build", &["builds", id], &[])
    }

    /// Submits a build. A broken connection is no reason to submit it twice: the key in the
    /// submission makes the server see that it is the same.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Stopped`].
    pub fn submit(&self, submission: &Submission, stop: Stop<'_>) -> Result<Build, Error> {
        let url = self.url(&["builds"]);
        let send =
            || self.json("the build", self.request(Method::POST, url.clone()).json(submission));
        self.wait_unless(stop, async {
            let mut wait = BACKOFF;
            for _ in 1..SUBMIT_ATTEMPTS {
                match send().await {
                    Err(error) if error.may_pass() => tokio::time::sleep(wait).await,
                    other => return other,
                }
                wait *= 2;
            }
            send().await
        })
    }

    /// Asks a build to stop.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended.
    pub fn cancel(&self, build: BuildId, reason: Option<&str>) -> Result<Build, Error> {
        let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
        self.post("the build", &["builds", &build.to_string(), "cancel"], &body)
    }

    /// Builds again.
    ///
    /// # Errors
    /// [`Error::Refused`] while it runs, or when a secret is missing.
    pub fn retry(&self, build: BuildId, ask: &RetryAsk) -> Result<Build, Error> {
        self.post("the build", &["builds", &build.to_string(), "retry"], ask)
    }

    /// Keeps a build from being forgotten, or lets it be.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn pin(&self, build: BuildId, pinned: bool) -> Result<Build, Error> {
        let url = self.url(&["builds", &build.to_string()]);
        let request = self.request(Method::PATCH, url).json(&json!({ "pinned": pinned }));
        self.wait(self.json("the build", request))
    }

    /// Reads a journal from a number on, at most as much as the server gives at once.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn entries(&self, build: BuildId, from: u64) -> Result<Page, Error> {
        let page: RawPage = self.get(
            "the journal",
            &["builds", &build.to_string(), "events"],
            &[("from", from.to_string())],
        )?;
        let entries = page.entries.into_iter().filter_map(|v| entry(v).ok()).collect();
        Ok(Page { entries, next: page.next })
    }

    pub(crate) fn events_url(&self, build: BuildId, from: u64) -> Url {
        let mut url = self.url(&["builds", &build.to_string(), "events"]);
        add_query(&mut url, &[("from", from.to_string()), ("follow", "true".into())]);
        url
    }
}

/// Reads an entry. One that is of a kind which this program does not know is no error to readers:
/// a newer server says more than an older program can show.
pub(crate) fn entry(value: Value) -> Result<Entry, serde_json::Error> {
    serde_json::from_value(value)
}
