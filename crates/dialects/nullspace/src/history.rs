//! The history of a template: all attempts, newest first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ashlar_core::Timestamp;
use ashlar_core::state::State;
use ashlar_service::{Actor, At, Cursor, Filter, Page, Record};
use uuid::Uuid;

use crate::DIALECT;
use crate::app::App;
use crate::documents::Attempt;
use crate::errors::{Answer, ApiError};
use crate::ids;
use crate::templates::Found;
use crate::views;
use crate::wire::BuildList;

/// Rows of a page when the request does not say.
const LIMIT_DEFAULT: u32 = 50;
/// Rows of a page at most.
const LIMIT_MAX: u32 = 100;
/// Builds at work that are looked at for the status `building`.
const AT_WORK_MAX: u32 = 1000;

/// Which part of a history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HistoryQuery {
    status: Option<&'static str>,
    backend: Option<String>,
    source: Option<String>,
    limit: u32,
    cursor: Option<Place>,
}

/// Where a page goes on. Builds at work are three states of ours, so that their list is put
/// together here, and its place is that of the last row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Listed(Cursor),
    AtWork(Timestamp, Uuid),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listed(cursor) => write!(f, "l{cursor}"),
            Self::AtWork(time, id) => write!(f, "w{}-{}", time.nanos(), id.simple()),
        }
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let place = match text.split_at_checked(1)? {
            ("l", cursor) => Self::Listed(cursor.parse().ok()?),
            ("w", rest) => {
                let (nanos, id) = rest.split_once('-')?;
                let id = Uuid::try_parse(id).ok()?;
                Self::AtWork(Timestamp::from_nanos(nanos.parse().ok()?), id)
            }
            _ => return None,
        };
        (place.to_string() == text).then_some(place)
    }
}

impl HistoryQuery {
    /// Reads the query of a request.
    pub(crate) fn read(query: &BTreeMap<String, String>) -> Answer<Self> {
        let one_of = |name: &str, words: &[&'static str]| -> Answer<Option<&'static str>> {
            let Some(text) = query.get(name) else { return Ok(None) };
            let found = words.iter().find(|w| *w == text).copied();
            let wrong = || ApiError::invalid(format!("{name}: is none of {}", words.join(", ")));
            found.map(Some).ok_or_else(wrong)
        };
        let limit = match query.get("limit") {
            None => LIMIT_DEFAULT,
            Some(text) => {
                let wrong = || {
                    ApiError::invalid(format!("limit: must be an integer from 1 to {LIMIT_MAX}"))
                };
                let limit = text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
                limit.ok_or_else(wrong)?
            }
        };
        let statuses = ["waiting", "building", "ready", "error", "cancelled"];
        let status = one_of("status", &statuses)?;
        let cursor = match query.get("cursor") {
            None => None,
            Some(text) => {
                let wrong = || ApiError::invalid("cursor: take one from an earlier page");
                let place = Place::parse(text).ok_or_else(wrong)?;
                let fits = matches!(place, Place::AtWork(..)) == (status == Some("building"));
                Some(if fits { place } else { return Err(wrong()) })
            }
        };
        let sources = ["declarative", "dockerfile", "oci_import", "template_base"];
        Ok(Self {
            status,
            backend: one_of("backend", &["native", "buildkit"])?.map(str::to_owned),
            source: one_of("source_type", &sources)?.map(str::to_owned),
            limit,
            cursor,
        })
    }

    fn filter(&self, found: &Found, state: Option<State>) -> Filter {
        Filter {
            tenant: Some(found.tenant),
            scope: Some(ids::template(found.id)),
            dialect: Some(DIALECT.to_owned()),
            state,
            source: self.source.clone(),
            backend: self.backend.clone(),
            ..Filter::default()
        }
    }
}

impl App {
    /// Lists a template's builds.
    pub(crate) async fn history(
        &self,
        actor: &Actor,
        found: &Found,
        query: &HistoryQuery,
    ) -> Answer<BuildList> {
        if !found.own {
            // Builds are seen by their own namespace only.
            return Ok(BuildList { builds: Vec::new(), next_cursor: None });
        }
        let (records, next) = match query.status {
            Some("building") => self.at_work(actor, found, query).await?,
            status => self.listed(actor, found, query, status).await?,
        };
        let ids: Vec<Uuid> = records.iter().map(|r| r.submission.build.uuid()).collect();
        let attempts = self.objects.documents_of::<Attempt>(Some(found.tenant), &ids).await?;
        let mut attempts: HashMap<Uuid, _> = attempts.into_iter().map(|d| (d.id, d)).collect();
        let kept = self.all_kept(&records).await?;
        let mut builds = Vec::with_capacity(records.len());
        for (record, kept) in records.iter().zip(kept) {
            // None: forgotten meanwhile.
            if let Some(attempt) = attempts.remove(&record.submission.build.uuid()) {
                let attempt = attempt.value;
                let cache = self.cache(actor, found, &attempt, record).await?;
                builds.push(views::summary(found, record, &attempt, cache, kept));
            }
        }
        Ok(BuildList { builds, next_cursor: next.map(|p| p.to_string()) })
    }

    async fn listed(
        &self,
        actor: &Actor,
        found: &Found,
        query: &HistoryQuery,
        status: Option<&str>,
    ) -> Answer<(Vec<Arc<Record>>, Option<Place>)> {
        let state = match status {
            Some("waiting") => Some(State::Queued),
            Some("ready") => Some(State::Succeeded),
            Some("error") => Some(State::Failed),
            Some("cancelled") => Some(State::Cancelled),
            _ => None,
        };
        let at = match query.cursor {
            Some(Place::Listed(cursor)) => At::After(cursor),
            _ => At::Start,
        };
        let page = Page { at, ..Page::newest(query.limit) };
        let listed = self.service.list(actor, &query.filter(found, state), &page).await?;
        let mut records = listed.records.clone();
        if status == Some("waiting") {
            // One that waits again is being built for clients.
            records.retain(|r| r.attempt == 0);
        }
        Ok((records, listed.next.map(Place::Listed)))
    }

    async fn at_work(
        &self,
        actor: &Actor,
        found: &Found,
        query: &HistoryQuery,
    ) -> Answer<(Vec<Arc<Record>>, Option<Place>)> {
        let mut all = Vec::new();
        for state in [State::Queued, State::Preparing, State::Running, State::Exporting] {
            let filter = query.filter(found, Some(state));
            let listed = self.service.list(actor, &filter, &Page::newest(AT_WORK_MAX)).await?;
            let building = |r: &&Arc<Record>| views::status_of(r) == "building";
            all.extend(listed.records.iter().filter(building).cloned());
        }
        let key = |r: &Record| (r.created_at, r.submission.build.uuid());
        all.sort_by_key(|r| std::cmp::Reverse(key(r)));
        // One that moved on between two looks was seen twice.
        all.dedup_by_key(|r| r.submission.build);
        if let Some(Place::AtWork(time, id)) = query.cursor {
            all.retain(|r| key(r) < (time, id));
        }
        let more = all.len() > query.limit as usize;
        all.truncate(query.limit as usize);
        let last = all.last().filter(|_| more).map(|r| key(r));
        Ok((all, last.map(|(time, id)| Place::AtWork(time, id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Answer<HistoryQuery> {
        let query = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        HistoryQuery::read(&query.collect())
    }

    #[test]
    fn queries_are_strict() {
        assert_eq!(read(&[]).unwrap().limit, LIMIT_DEFAULT);
        assert!(read(&[("limit", "100"), ("status", "ready"), ("backend", "native")]).is_ok());
        for bad in [
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "x"),
            ("limit", "1.0"),
            ("limit", "-1"),
            ("status", "queued"),
            ("backend", "docker"),
            ("source_type", "x"),
            ("cursor", "x"),
            ("cursor", ""),
            ("cursor", "l-1"),
            ("cursor", "w1-2"),
            ("status", ""),
        ] {
            assert_eq!(read(&[bad]).unwrap_err().code, "invalid_request", "{bad:?}");
        }
    }

    #[test]
    fn places_have_one_spelling_and_fit_their_list() {
        let place = Place::AtWork(Timestamp::from_nanos(5), Uuid::now_v7());
        let text = place.to_string();
        assert_eq!(Place::parse(&text), Some(place));
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        assert!(read(&[("status", "building"), ("cursor", &text)]).is_ok());
        assert!(read(&[("cursor", &text)]).is_err());
        assert!(read(&[("status", "building"), ("cursor", "l1f")]).is_err());
        assert!(read(&[("cursor", "l1f")]).is_ok());
    }
}
