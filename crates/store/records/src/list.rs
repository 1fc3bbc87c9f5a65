//! Lists of builds: filters, cursors, and pages by number with exact totals.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ashlar_core::journal::{BuildKind, Record};
use ashlar_core::state::State;
use ashlar_core::{BuildId, TenantId, Timestamp};
use sqlx::AssertSqlSafe;

use crate::db::{Arg, Row, Tx, args};
use crate::facets::{self, ALL, BLOCK, Facet, kind_word};
use crate::{Error, Store};

/// The most records of one page.
pub const PAGE_SIZE_MAX: u32 = 1000;
/// How far the clocks of two servers may differ: builds are listed in the order in which they were
/// accepted, and a range of times is cut with this much room.
const CLOCK_SKEW_MAX_NANOS: i64 = 600 * 1_000_000_000;

/// Which builds to list; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    /// Whose.
    pub tenant: Option<TenantId>,
    /// Of which scope; needs the tenant, since scopes are named within one.
    pub scope: Option<String>,
    /// Through which door they came.
    pub dialect: Option<String>,
    /// Where they are.
    pub state: Option<State>,
    /// What they are made from.
    pub source: Option<String>,
    /// The backend that was asked for.
    pub backend: Option<String>,
    /// What ran them.
    pub executor: Option<String>,
    /// Builds or runs of builds.
    pub kind: Option<BuildKind>,
    /// The run that they belong to.
    pub parent: Option<BuildId>,
    /// Labels that they have, by name and value.
    pub labels: BTreeMap<String, String>,
    /// Accepted at this time or later.
    pub created_from: Option<Timestamp>,
    /// Accepted before this time.
    pub created_until: Option<Timestamp>,
    /// Words of the name or of labels' values, in any order and case; needs the tenant.
    pub text: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page {
    /// How many records, 1 to [`PAGE_SIZE_MAX`].
    pub size: u32,
    /// Where.
    pub at: At,
    /// In which order.
    pub order: Order,
}

impl Page {
    /// The newest records.
    pub const fn newest(size: u32) -> Self {
        Self { size, at: At::Start, order: Order::NewestFirst }
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    /// At the beginning of the list.
    Start,
    /// After the record that a cursor points to.
    After(Cursor),
    /// At a page's number, from 1. The answer has the total.
    Number(u64),
}

/// The order of a list: that in which builds were accepted, one way or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// Newest first.
    #[default]
    NewestFirst,
    /// Oldest first.
    OldestFirst,
}

/// A place in any list; stays valid whatever is added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor; take one from an earlier page")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let position = i64::from_str_radix(text, 16).map_err(|_| CursorError)?;
        if position < 0 { Err(CursorError) } else { Ok(Self(position)) }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The records, with `null` for the definition, which may be large.
    pub records: Vec<Arc<Record>>,
    /// Where the next page begins; none on the last one.
    pub next: Option<Cursor>,
    /// How many records the whole list has, when the page was asked for by its number.
    pub total: Option<u64>,
}

impl Filter {
    /// Returns facets that all hold for exactly the builds that the filter lets through, but for
    /// the range of times.
    fn facets(&self) -> Vec<Facet> {
        let mut found = Vec::new();
        match (self.tenant, &self.scope, self.state) {
            (Some(t), Some(scope), Some(state)) => found.push(Facet::scope_state(t, scope, state)),
            (Some(t), Some(scope), None) => found.push(Facet::scope(t, scope)),
            (_, _, state) => {
                self.property(&mut found, "state", state.map(State::as_str));
            }
        }
        self.property(&mut found, "dialect", self.dialect.as_deref());
        self.property(&mut found, "source", self.source.as_deref());
        self.property(&mut found, "backend", self.backend.as_deref());
        self.property(&mut found, "executor", self.executor.as_deref());
        self.property(&mut found, "kind", self.kind.map(kind_word));
        found.extend(self.parent.map(Facet::parent));
        let labels = self.labels.iter();
        found.extend(labels.map(|(n, v)| Facet::label(self.tenant, n, Some(v))));
        if let (Some(tenant), Some(text)) = (self.tenant, &self.text) {
            found.extend(facets::words(text).map(|w| Facet::word(tenant, &w)));
        }
        let bound = found.len() > usize::from(self.parent.is_some());
        if let (Some(tenant), false) = (self.tenant, bound) {
            found.push(Facet::tenant(tenant));
        }
        found
    }

    fn property(&self, found: &mut Vec<Facet>, name: &str, value: Option<&str>) {
        found.extend(value.map(|v| Facet::property(self.tenant, name, v.as_bytes())));
    }

    /// Says whether the filter asks for something that needs a tenant and has none.
    fn lacks_tenant(&self) -> bool {
        self.tenant.is_none() && (self.scope.is_some() || self.text.is_some())
    }
}

/// The part of a list that a query reads.
struct Span {
    /// The rarest facet, which the query walks; then those that it checks.
    facets: Vec<Facet>,
    created: Option<(i64, i64)>,
    /// Positions that may be in it, both included.
    low: i64,
    high: i64,
    order: Order,
}

/// Whether a query reads the builds that it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Builds {
    Read,
    Skipped,
}

impl Span {
    /// Writes the query's text after `SELECT …`, with its values. Builds themselves are looked at
    /// where they are wanted, or their times.
    fn tables_and_conditions(&self, wanted: Builds) -> (String, Vec<Arg>) {
        let mut values = args![self.low, self.high];
        let builds = wanted == Builds::Read || self.created.is_some();
        let mut text = match self.facets.first() {
            Some(facet) => {
                values.extend(args![facet.0]);
                // The planners keep the order or know better by their counts.
                let (table, row) = match builds {
                    true => (" CROSS JOIN builds b", " AND b.position = f.position"),
                    false => ("", ""),
                };
                format!(
                    "FROM facets f{table} WHERE f.facet = $3 AND f.position >= $1 \
                     AND f.position <= $2{row}"
                )
            }
            None => "FROM builds b WHERE b.position >= $1 AND b.position <= $2".to_owned(),
        };
        for facet in self.facets.iter().skip(1) {
            values.extend(args![facet.0]);
            text += &format!(
                " AND EXISTS (SELECT 1 FROM facets x WHERE x.facet = ${} AND x.position = {})",
                values.len(),
                self.position()
            );
        }
        if let Some((from, until)) = self.created {
            values.extend(args![from, until]);
            let (f, u) = (values.len() - 1, values.len());
            text += &format!(" AND b.created_at >= ${f} AND b.created_at < ${u}");
        }
        (text, values)
    }

    const fn position(&self) -> &'static str {
        if self.facets.is_empty() { "b.position" } else { "f.position" }
    }

    async fn records(&self, tx: &mut Tx, limit: u64, skip: u64) -> Result<Vec<Row>, Error> {
        let builds = if skip > 0 { Builds::Skipped } else { Builds::Read };
        let (text, mut values) = self.tables_and_conditions(builds);
        let way = match self.order {
            Order::NewestFirst => "DESC",
            Order::OldestFirst => "ASC",
        };
        values.extend(args![limit, skip]);
        let (l, s) = (values.len() - 1, values.len());
        let position = self.position();
        let part = format!("{text} ORDER BY {position} {way} LIMIT ${l} OFFSET ${s}");
        let sql = match builds {
            Builds::Read => format!("SELECT b.position, b.record {part}"),
            // Rows that are skipped are not read for it.
            Builds::Skipped => format!(
                "SELECT b.position, b.record FROM (SELECT {position} AS position {part}) w \
                 CROSS JOIN builds b WHERE b.position = w.position ORDER BY b.position {way}"
            ),
        };
        tx.all(AssertSqlSafe(sql), values).await
    }

    async fn count(&self, tx: &mut Tx) -> Result<u64, Error> {
        let (text, values) = self.tables_and_conditions(Builds::Skipped);
        tx.one(AssertSqlSafe(format!("SELECT COUNT(*) {text}")), values).await?.count(0)
    }

    /// Moves the span's beginning behind as many records as blocks of counts can skip, and returns
    /// how many are left to skip and how many there are in all.
    async fn skip_blocks(&mut self, tx: &mut Tx, skip: u64) -> Result<(u64, u64), Error> {
        let mut blocks = facets::blocks(tx, self.facets.first().copied().unwrap_or(ALL)).await?;
        let total = blocks.iter().map(|(_, n)| n).sum();
        if self.order == Order::OldestFirst {
            blocks.reverse();
        }
        let mut left = skip;
        for (block, n) in blocks {
            if left < n {
                match self.order {
                    Order::NewestFirst => self.high = (block + 1) * BLOCK - 1,
                    Order::OldestFirst => self.low = block * BLOCK,
                }
                return Ok((left, total));
            }
            left -= n;
        }
        // Beyond the end: an empty span.
        (self.low, self.high) = (1, 0);
        Ok((0, total))
    }

    /// As [`Span::skip_blocks`], where no counts are kept: counts the span part by part, so that the
    /// records that are skipped are not looked at a second time, but for those of one part.
    async fn skip_parts(&mut self, tx: &mut Tx, skip: u64) -> Result<(u64, u64), Error> {
        let blocks = facets::blocks(tx, self.facets.first().copied().unwrap_or(ALL)).await?;
        let (low, high) = (self.low, self.high);
        let mut parts = parts(&blocks);
        if self.order == Order::OldestFirst {
            parts.reverse();
        }
        let (mut total, mut begin) = (0, None);
        for part in parts {
            (self.low, self.high) = (low.max(part.0), high.min(part.1));
            if self.low > self.high {
                continue;
            }
            let n = self.count(tx).await?;
            if begin.is_none() && skip < total + n {
                begin = Some((self.low, self.high, skip - total));
            }
            total += n;
        }
        let Some((first, last, left)) = begin else {
            (self.low, self.high) = (1, 0);
            return Ok((0, total));
        };
        // The page may go on into the next part.
        (self.low, self.high) = match self.order {
            Order::NewestFirst => (low, last),
            Order::OldestFirst => (first, high),
        };
        Ok((left, total))
    }
}

/// Into how many parts a list is cut to be counted, at most.
const PARTS: u64 = 16;

/// Joins blocks, the newest first, to spans of positions with about as many records each.
fn parts(blocks: &[(i64, u64)]) -> Vec<(i64, i64)> {
    let all: u64 = blocks.iter().map(|(_, n)| n).sum();
    let most = all.div_ceil(PARTS);
    let (mut parts, mut records) = (Vec::new(), u64::MAX);
    for (block, n) in blocks {
        let (first, last) = (block * BLOCK, (block + 1) * BLOCK - 1);
        match parts.last_mut() {
            Some((low, _)) if records < most => (*low, records) = (first, records + n),
            _ => {
                parts.push((first, last));
                records = *n;
            }
        }
    }
    parts
}

impl Store {
    /// Lists builds. The same page is the same in memory, as long as none of its tenant's builds
    /// has changed.
    ///
    /// # Errors
    /// When the page's size is out of bounds or the database fails.
    pub async fn list(&self, filter: &Filter, page: &Page) -> Result<Arc<Listed>, Error> {
        if page.size == 0 || page.size > PAGE_SIZE_MAX {
            return Err(Error::PageSize { max: PAGE_SIZE_MAX });
        }
        if filter.lacks_tenant() {
            return Ok(Arc::new(Listed { records: Vec::new(), next: None, total: Some(0) }));
        }
        let tenant = filter.tenant.filter(|_| self.db.is_sqlite());
        let Some(tenant) = tenant else {
            let mut tx = self.db.snapshot().await?;
            let (listed, _) = self.read_list(&mut tx, filter, page).await?;
            tx.commit().await?;
            return Ok(Arc::new(listed));
        };
        let asked = (filter.clone(), *page);
        let version = version_of(self.db.maybe(VERSION, args![tenant]).await?)?;
        if let Some(known) = self.pages.get(&asked, version) {
            return Ok(known);
        }
        let mut tx = self.db.snapshot().await?;
        // Of the moment that the list is of, which may be a later one.
        let version = version_of(tx.maybe(VERSION, args![tenant]).await?)?;
        let (listed, bytes) = self.read_list(&mut tx, filter, page).await?;
        tx.commit().await?;
        let listed = Arc::new(listed);
        self.pages.put(asked, version, &listed, bytes);
        Ok(listed)
    }

    /// Reads a page, and says how many bytes its rows have.
    async fn read_list(
        &self,
        tx: &mut Tx,
        filter: &Filter,
        page: &Page,
    ) -> Result<(Listed, usize), Error> {
        let mut span = span(tx, filter, page.order).await?;
        let size = u64::from(page.size);
        let (skip, total) = match page.at {
            At::Start => (0, None),
            At::After(Cursor(position)) => {
                match page.order {
                    Order::NewestFirst => span.high = span.high.min(position - 1),
                    Order::OldestFirst => span.low = span.low.max(position.saturating_add(1)),
                }
                (0, None)
            }
            At::Number(number) => {
                let skip = number.saturating_sub(1).saturating_mul(size);
                if span.facets.len() <= 1 && span.created.is_none() {
                    let (left, total) = span.skip_blocks(tx, skip).await?;
                    (left, Some(total))
                } else {
                    let (left, total) = span.skip_parts(tx, skip).await?;
                    (left, Some(total))
                }
            }
        };
        let rows = span.records(tx, size + 1, skip).await?;
        self.listed(&rows, page.size as usize, total)
    }

    fn listed(
        &self,
        rows: &[Row],
        size: usize,
        total: Option<u64>,
    ) -> Result<(Listed, usize), Error> {
        let shown = &rows[..rows.len().min(size)];
        let more = rows.len() > size;
        let next = shown.last().filter(|_| more).map(|row| row.int(0).map(Cursor)).transpose()?;
        let mut bytes = 0;
        let record = |row: &Row| {
            let text = row.str(1)?;
            bytes += text.len();
            self.recent.read(row.int(0)?, text, "a build")
        };
        let records = shown.iter().map(record).collect::<Result<_, _>>()?;
        Ok((Listed { records, next, total }, bytes))
    }
}

/// Asks how often a tenant's builds have changed.
const VERSION: &str = "SELECT version FROM list_versions WHERE tenant = $1";

/// Reads that number: none before the first build.
fn version_of(row: Option<Row>) -> Result<i64, Error> {
    row.map_or(Ok(0), |row| row.int(0))
}

async fn span(tx: &mut Tx, filter: &Filter, order: Order) -> Result<Span, Error> {
    let mut wanted = filter.facets();
    if wanted.len() > 1 {
        let mut counted = Vec::with_capacity(wanted.len());
        for facet in wanted {
            counted.push((facets::total(tx, facet).await?, facet));
        }
        counted.sort_unstable();
        wanted = counted.into_iter().map(|(_, facet)| facet).collect();
    }
    let mut span = Span { facets: wanted, created: None, low: 0, high: i64::MAX, order };
    if filter.created_from.is_some() || filter.created_until.is_some() {
        let from = filter.created_from.map_or(i64::MIN, Timestamp::nanos);
        let until = filter.created_until.map_or(i64::MAX, Timestamp::nanos);
        span.created = Some((from, until));
        (span.low, span.high) = positions(tx, from, until).await?;
    }
    Ok(span)
}

/// Returns the positions between which all builds accepted in a range of times lie: what is older
/// by more than clocks differ comes before them, what is as much younger after them.
async fn positions(tx: &mut Tx, from: i64, until: i64) -> Result<(i64, i64), Error> {
    let sql = "SELECT position FROM builds WHERE created_at < $1 ORDER BY created_at DESC LIMIT 1";
    let before = tx.maybe(sql, args![from.saturating_sub(CLOCK_SKEW_MAX_NANOS)]).await?;
    let sql = "SELECT position FROM builds WHERE created_at >= $1 ORDER BY created_at LIMIT 1";
    let after = tx.maybe(sql, args![until.saturating_add(CLOCK_SKEW_MAX_NANOS)]).await?;
    let low = before.map_or(Ok(0), |row| row.int(0).map(|p| p + 1))?;
    let high = after.map_or(Ok(i64::MAX), |row| row.int(0).map(|p| p - 1))?;
    Ok((low, high))
}
