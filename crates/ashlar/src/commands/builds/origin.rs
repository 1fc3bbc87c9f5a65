//! Where records are: in this machine's data directory, or at a server.

use anyhow::{Context as _, Result, bail};
use ashlar_client::{Client, End, Followed, ListQuery};
use ashlar_core::BuildId;
use ashlar_core::journal::Entry;
use ashlar_records::blocking::LocalHistory;
use ashlar_records::{At, Filter, Order, Page};

use super::view::BuildView;
use crate::cli::server::ServerArgs;
use crate::commands::remote::{connect, told};
use crate::commands::usage;
use crate::output::note;
use crate::settings::Settings;

/// Journal entries that are read at once.
const ENTRIES_AT_ONCE: usize = 1000;
/// How often a running local build's journal is read.
const POLL: std::time::Duration = std::time::Duration::from_millis(200);

/// Where records are.
pub(super) enum Origin {
    /// In the data directory.
    Here(LocalHistory),
    /// At a server.
    There(Client),
}

/// What a list is asked for.
pub(super) struct Asked {
    /// Parts of the query, each `(key, value)`; the key `q` has a text in the grammar of queries.
    pub(super) parts: Vec<(String, String)>,
    pub(super) limit: u32,
    pub(super) cursor: Option<String>,
    pub(super) tenant: Option<String>,
}

impl Origin {
    pub(super) fn open(settings: &Settings, server: &ServerArgs) -> Result<Self> {
        match connect(settings, server)? {
            Some(client) => Ok(Self::There(client)),
            None => Ok(Self::Here(settings.history()?)),
        }
    }

    /// Finds the build that a text names: an id, the start of one, `latest` or `^N`.
    ///
    /// # Errors
    /// When there is none, or several.
    pub(super) fn find(&self, text: &str) -> Result<BuildId> {
        let back = match text {
            "latest" => Some(0),
            _ => text.strip_prefix('^').and_then(|n| n.parse::<u64>().ok()),
        };
        match (self, back) {
            (Self::Here(history), None) => by_prefix(history, text),
            (Self::There(client), None) => Ok(client.build(text).map_err(told)?.id),
            (_, Some(back)) => {
                let (found, total) = self.nth(back)?;
                match found {
                    Some(build) => Ok(build),
                    None if back == 0 => {
                        bail!("there are no builds yet; start with: ashlar build CONTEXT")
                    }
                    None => bail!("there are only {total} builds"),
                }
            }
        }
    }

    /// Returns the build with so many newer ones, and how many there are.
    fn nth(&self, back: u64) -> Result<(Option<BuildId>, u64)> {
        let number = back.saturating_add(1);
        match self {
            Self::Here(history) => {
                let page = Page { size: 1, at: At::Number(number), order: Order::NewestFirst };
                let listed = history.list(&Filter::default(), &page)?;
                let build = listed.records.first().map(|r| r.submission.build);
                Ok((build, listed.total.unwrap_or(0)))
            }
            Self::There(client) => {
                let query = ListQuery { limit: 1, page: Some(number), ..ListQuery::default() };
                let listed = client.list(&query).map_err(told)?;
                Ok((listed.builds.first().map(|b| b.id), listed.total.unwrap_or(0)))
            }
        }
    }

    /// Returns a build.
    pub(super) fn get(&self, build: BuildId) -> Result<BuildView> {
        match self {
            Self::Here(history) => match history.get(build)? {
                Some(record) => Ok(BuildView::from(&record)),
                None => bail!("the build {build} has been removed"),
            },
            Self::There(client) => Ok(client.build(&build.to_string()).map_err(told)?.into()),
        }
    }

    /// Lists builds; returns where the next page begins as well.
    pub(super) fn list(&self, asked: &Asked) -> Result<(Vec<BuildView>, Option<String>)> {
        match self {
            Self::Here(history) => list_here(history, asked),
            Self::There(client) => {
                let query = ListQuery {
                    filters: asked.parts.clone(),
                    limit: asked.limit,
                    cursor: asked.cursor.clone(),
                    page: None,
                };
                let listed = client.list(&query).map_err(told)?;
                Ok((listed.builds.into_iter().map(BuildView::from).collect(), listed.next))
            }
        }
    }

    /// Calls `visit` with all entries of a journal.
    pub(super) fn each_entry(
        &self,
        build: BuildId,
        mut visit: impl FnMut(&Entry) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Here(history) => each_here(history, build, 0, &mut visit).map(drop),
            Self::There(client) => {
                let mut next = 0;
                loop {
                    let page = client.entries(build, next).map_err(told)?;
                    page.entries.iter().try_for_each(&mut visit)?;
                    if page.next == next {
                        return Ok(());
                    }
                    next = page.next;
                }
            }
        }
    }

    /// Calls `visit` with all entries of a journal, and with those that come until the build has
    /// ended.
    pub(super) fn follow(
        &self,
        build: BuildId,
        mut visit: impl FnMut(&Entry) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Here(history) => {
                let mut next = 0;
                loop {
                    // Asked before reading, so that what came just before the end is not missed.
                    let ended = history.get(build)?.is_none_or(|r| r.state.is_terminal());
                    next = each_here(history, build, next, &mut visit)?;
                    if ended {
                        return Ok(());
                    }
                    std::thread::sleep(POLL);
                }
            }
            Self::There(client) => follow_there(client, build, visit),
        }
    }
}

fn follow_there(
    client: &Client,
    build: BuildId,
    mut visit: impl FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let failed = std::sync::OnceLock::new();
    let mut tell = |followed: Followed<'_>| match followed {
        Followed::Entry(entry) => {
            if let Err(error) = visit(entry) {
                // The first one counts; what follows it is not read any more.
                let _ = failed.set(error);
            }
        }
        Followed::Lost(error) => note(format!("{:#}; trying again", told_text(error))),
        Followed::Back => note("the server is there again"),
    };
    let mut next = 0;
    let ended = client.follow(build, &mut next, &|| failed.get().is_some(), &mut tell);
    match failed.into_inner() {
        Some(error) => Err(error),
        None => match ended.map_err(told)? {
            End::Ended(_) | End::Stopped => Ok(()),
        },
    }
}

/// Returns an error with its causes in one line.
pub(in crate::commands) fn told_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn by_prefix(history: &LocalHistory, text: &str) -> Result<BuildId> {
    match history.find(text)?.as_slice() {
        [] => bail!("no build '{text}'; `ashlar builds list` shows what there is"),
        [one] => Ok(*one),
        many => {
            let ids: Vec<String> = many.iter().map(BuildId::to_string).collect();
            usage(format!("'{text}' is the start of several builds: {}", ids.join(", ")))
        }
    }
}

fn list_here(history: &LocalHistory, asked: &Asked) -> Result<(Vec<BuildView>, Option<String>)> {
    let at = match asked.cursor.as_deref().map(str::parse) {
        None => At::Start,
        Some(Ok(cursor)) => At::After(cursor),
        Some(Err(e)) => return usage(format!("--cursor: {e}")),
    };
    let mut query = ashlar_service::Query::default();
    for (key, value) in &asked.parts {
        let set = match key.as_str() {
            "q" => ashlar_service::Query::parse(value).map(|q| query = q),
            key => query.set(key, value, value).map(drop),
        };
        if let Err(error) = set {
            return usage(format!("{key}: {error}"));
        }
    }
    let mut filter = query.filter;
    filter.tenant = match &asked.tenant {
        Some(name) => match history.tenant_named(name)? {
            Some(tenant) => Some(tenant),
            None => return usage(format!("--tenant {name}: there is no such tenant here")),
        },
        // Scopes and words are a tenant's own; without one those of this machine are meant.
        None => (filter.scope.is_some() || filter.text.is_some()).then(|| history.tenant()),
    };
    let page = Page { size: asked.limit, at, order: Order::NewestFirst };
    let listed = history.list(&filter, &page).context("the history")?;
    let next = listed.next.map(|c| c.to_string());
    Ok((listed.records.iter().map(|record| BuildView::from(&**record)).collect(), next))
}

/// Reads a journal from a number on; returns the next number.
fn each_here(
    history: &LocalHistory,
    build: BuildId,
    from: u64,
    visit: &mut impl FnMut(&Entry) -> Result<()>,
) -> Result<u64> {
    let mut next = from;
    loop {
        let entries = history.journal(build, next, ENTRIES_AT_ONCE)?;
        let Some(last) = entries.last() else { return Ok(next) };
        next = last.number + 1;
        entries.iter().try_for_each(&mut *visit)?;
    }
}
