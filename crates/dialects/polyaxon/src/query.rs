//! The query language of lists: `field:operation` joined by commas.
//!
//! Field names and refusals are those of the original's 0.5 parser. Two liberties: an expression is
//! cut at its first colon only, so that times of day work as its documents promise, and a date that
//! cannot be read is a plain refusal instead of a fault.

use ashlar_core::Timestamp;
use ashlar_core::state::State;
use ashlar_service::{Filter, Order};
use chrono::{NaiveDate, NaiveDateTime};

/// The longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// The most expressions of one query.
const EXPRESSIONS_MAX: usize = 100;

/// A query is wrong; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct QueryError(String);

/// What a query may ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Id,
    Name,
    Description,
    Status,
    Tags,
    /// By name.
    User,
    ProjectName,
    ProjectId,
    /// By name or number.
    Project,
    Commit,
    Backend,
    CreatedAt,
    UpdatedAt,
    StartedAt,
    FinishedAt,
}

/// How a field's operations are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Search,
    Time,
}

impl Field {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "id" => Self::Id,
            "name" => Self::Name,
            "description" => Self::Description,
            "status" => Self::Status,
            "tags" => Self::Tags,
            "user" | "user.username" | "user.id" => Self::User,
            "project" => Self::Project,
            "project.name" => Self::ProjectName,
            "project.id" => Self::ProjectId,
            "commit" => Self::Commit,
            "backend" => Self::Backend,
            "created_at" => Self::CreatedAt,
            "updated_at" => Self::UpdatedAt,
            "started_at" => Self::StartedAt,
            "finished_at" => Self::FinishedAt,
            _ => return None,
        })
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Name | Self::Description => Kind::Search,
            Self::CreatedAt | Self::UpdatedAt | Self::StartedAt | Self::FinishedAt => Kind::Time,
            _ => Kind::Value,
        }
    }
}

/// What a thing says of itself when a query asks.
pub(crate) trait Subject {
    /// Returns the texts of a field; one that is null has none.
    fn texts(&self, field: Field) -> Vec<String>;
    /// Returns the time of a field.
    fn time(&self, field: Field) -> Option<Timestamp>;
}

/// A query: all its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    field: Field,
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    AnyOf(Vec<String>),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Compare(Sign, Timestamp),
    Between(Timestamp, Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// Signs of comparisons as they are written, longer ones first.
const SIGNS: [(&str, Sign); 6] = [
    ("<=", Sign::AtMost),
    ("=<", Sign::AtMost),
    (">=", Sign::AtLeast),
    ("=>", Sign::AtLeast),
    ("<", Sign::Less),
    (">", Sign::More),
];

impl Query {
    /// Reads a query.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(QueryError(format!("The query is longer than {QUERY_BYTES_MAX} bytes.")));
        }
        let expressions: Vec<&str> =
            text.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
        if expressions.is_empty() {
            return Err(QueryError(format!("Query `{text}` is not valid: it has no expression.")));
        }
        if expressions.len() > EXPRESSIONS_MAX {
            return Err(QueryError(format!("A query has at most {EXPRESSIONS_MAX} expressions.")));
        }
        expressions.into_iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Sets what the store's lists can filter by themselves. Says whether that is all of the query;
    /// if not, what is listed still has to be looked at.
    pub(crate) fn narrow(&self, filter: &mut Filter) -> bool {
        // Each of them narrows, whatever the others do.
        self.0.iter().filter(|condition| !condition.narrow(filter)).count() == 0
    }

    /// Says whether a thing fits.
    pub(crate) fn matches(&self, subject: &impl Subject) -> bool {
        self.0.iter().all(|condition| condition.holds(subject) != condition.negated)
    }
}

fn condition(expression: &str) -> Result<Condition, QueryError> {
    let wrong = |why: &str| QueryError(format!("Expression `{expression}` is not valid: {why}."));
    let (name, operation) = expression
        .split_once(':')
        .ok_or_else(|| wrong("it must be of the form `field:operation`"))?;
    let (name, operation) = (name.trim(), operation.trim());
    if name.is_empty() || operation.is_empty() {
        return Err(wrong("field and operation must not be empty"));
    }
    let field = Field::parse(name)
        .ok_or_else(|| wrong(&format!("`{name}` is no field that can be asked for")))?;
    let negated = operation.starts_with('~');
    let body = operation.strip_prefix('~').unwrap_or(operation).trim();
    if body.is_empty() {
        return Err(wrong("the operation is empty"));
    }
    let test = match field.kind() {
        Kind::Time => time_test(body),
        Kind::Search => search_test(body),
        Kind::Value => value_test(body),
    };
    let test = test.map_err(|why| wrong(&why))?;
    if let (Field::Id | Field::ProjectId, Test::AnyOf(values)) = (field, &test)
        && let Some(bad) = values.iter().find(|v| v.parse::<u64>().is_err())
    {
        return Err(wrong(&format!("`{bad}` is not a number")));
    }
    Ok(Condition { field, negated, test })
}

fn value_test(body: &str) -> Result<Test, String> {
    if body.contains("..") {
        return Err("a range is for times only".into());
    }
    if body.starts_with(['<', '>', '=']) {
        return Err("a comparison is for times only".into());
    }
    if !body.contains('|') {
        return Ok(Test::AnyOf(vec![body.to_owned()]));
    }
    let values: Vec<String> =
        body.split('|').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect();
    if values.len() < 2 {
        return Err("`|` needs a value on both sides".into());
    }
    Ok(Test::AnyOf(values))
}

fn search_test(body: &str) -> Result<Test, String> {
    let test = value_test(body)?;
    let Test::AnyOf(values) = &test else { return Ok(test) };
    let [value] = values.as_slice() else { return Ok(test) };
    let (front, back) = (value.strip_prefix('%'), value.strip_suffix('%'));
    Ok(match (front, back) {
        (Some(_), Some(_)) if value.len() > 1 => {
            Test::Contains(value[1..value.len() - 1].to_lowercase())
        }
        (Some(end), _) if !end.is_empty() => Test::EndsWith(end.to_lowercase()),
        (_, Some(start)) if !start.is_empty() => Test::StartsWith(start.to_lowercase()),
        _ => test,
    })
}

fn time_test(body: &str) -> Result<Test, String> {
    if body.contains('|') {
        return Err("`|` is not for times".into());
    }
    if let Some((from, to)) = body.split_once("..") {
        return Ok(Test::Between(time(from)?, time(to)?));
    }
    for (text, sign) in SIGNS {
        if let Some(rest) = body.strip_prefix(text) {
            return Ok(Test::Compare(sign, time(rest)?));
        }
    }
    Ok(Test::Compare(Sign::Equal, time(body)?))
}

fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let read = |t: NaiveDateTime| t.and_utc().timestamp_nanos_opt().map(Timestamp::from_nanos);
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let with_time = || {
        let forms =
            ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f"];
        forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
    };
    Timestamp::parse(text).or_else(|| day().or_else(with_time).and_then(read)).ok_or_else(|| {
        format!("`{text}` is no date; write YYYY-MM-DD, with HH:MM or HH:MM:SS if need be")
    })
}

impl Condition {
    fn narrow(&self, filter: &mut Filter) -> bool {
        match (self.field, &self.test) {
            _ if self.negated => false,
            (Field::CreatedAt, Test::Compare(sign, time)) => {
                let (from, until) = sign.range(*time);
                narrow_created(filter, from, until)
            }
            (Field::CreatedAt, Test::Between(from, to)) => {
                narrow_created(filter, Some(*from), Some(after(*to)))
            }
            (Field::Status, Test::AnyOf(values)) => match values.as_slice() {
                [value] => narrow_state(filter, value),
                _ => false,
            },
            _ => false,
        }
    }

    fn holds(&self, subject: &impl Subject) -> bool {
        match &self.test {
            Test::AnyOf(values) => {
                subject.texts(self.field).iter().any(|text| values.contains(text))
            }
            Test::StartsWith(t) => self.like(subject, |text| text.starts_with(t.as_str())),
            Test::EndsWith(t) => self.like(subject, |text| text.ends_with(t.as_str())),
            Test::Contains(t) => self.like(subject, |text| text.contains(t.as_str())),
            Test::Compare(sign, bound) => {
                subject.time(self.field).is_some_and(|time| sign.holds(time, *bound))
            }
            Test::Between(from, to) => {
                subject.time(self.field).is_some_and(|time| (*from..=*to).contains(&time))
            }
        }
    }

    fn like(&self, subject: &impl Subject, test: impl Fn(&str) -> bool) -> bool {
        subject.texts(self.field).iter().any(|text| test(&text.to_lowercase()))
    }
}

/// Returns the next moment.
const fn after(time: Timestamp) -> Timestamp {
    Timestamp::from_nanos(time.nanos().saturating_add(1))
}

fn narrow_created(filter: &mut Filter, from: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    if let Some(from) = from {
        filter.created_from = Some(filter.created_from.map_or(from, |f| f.max(from)));
    }
    if let Some(until) = until {
        filter.created_until = Some(filter.created_until.map_or(until, |u| u.min(until)));
    }
    true
}

/// Narrows to the one state in which builds of a status are, if there is one. Says whether builds of
/// that state have no other status.
fn narrow_state(filter: &mut Filter, status: &str) -> bool {
    let (state, exact) = match status {
        "succeeded" => (State::Succeeded, true),
        "stopped" => (State::Cancelled, true),
        "skipped" => (State::Skipped, true),
        "failed" | "upstream_failed" => (State::Failed, false),
        _ => return false,
    };
    match filter.state {
        // Both can never hold; a look at each build says so.
        Some(other) if other != state => return false,
        _ => filter.state = Some(state),
    }
    exact
}

impl Sign {
    /// Returns the times that fit: from one on, and before another.
    const fn range(self, bound: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        match self {
            Self::Less => (None, Some(bound)),
            Self::AtMost => (None, Some(after(bound))),
            Self::Equal => (Some(bound), Some(after(bound))),
            Self::AtLeast => (Some(bound), None),
            Self::More => (Some(after(bound)), None),
        }
    }

    fn holds(self, time: Timestamp, bound: Timestamp) -> bool {
        match self {
            Self::Less => time < bound,
            Self::AtMost => time <= bound,
            Self::Equal => time == bound,
            Self::AtLeast => time >= bound,
            Self::More => time > bound,
        }
    }
}

/// What a list may be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SortKey {
    field: Field,
    descending: bool,
}

/// Reads `sort`: unknown names are dropped, and with nothing left the newest change comes first.
pub(crate) fn sort_keys(text: &str) -> Vec<SortKey> {
    let key = |name: &str| {
        let name = name.trim();
        let field = Field::parse(name.trim_start_matches('-'))?;
        let descending = name.starts_with('-');
        (field.kind() == Kind::Time).then_some(SortKey { field, descending })
    };
    let mut keys: Vec<SortKey> = text.split(',').take(EXPRESSIONS_MAX).filter_map(key).collect();
    if keys.is_empty() {
        keys.push(SortKey { field: Field::UpdatedAt, descending: true });
    }
    keys
}

/// How a list is sorted, as far as the store is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sorting {
    /// In the order in which builds were made, as the store has them.
    Creation(Order),
    /// The newest change first: what a list has when nobody says otherwise.
    Change,
    /// In a way for which builds have to be looked at.
    Other,
}

/// Says how keys sort. No two builds are made in one moment, so nothing after that key matters.
pub(crate) fn sorting(keys: &[SortKey]) -> Sorting {
    match keys.first() {
        Some(SortKey { field: Field::CreatedAt, descending: true }) => {
            Sorting::Creation(Order::NewestFirst)
        }
        Some(SortKey { field: Field::CreatedAt, descending: false }) => {
            Sorting::Creation(Order::OldestFirst)
        }
        Some(SortKey { field: Field::UpdatedAt, descending: true }) => Sorting::Change,
        _ => Sorting::Other,
    }
}

/// Compares two things as a list shows them. Nulls lie where PostgreSQL puts them: last ascending,
/// first descending.
pub(crate) fn compare<S: Subject>(keys: &[SortKey], a: &S, b: &S) -> std::cmp::Ordering {
    let of = |key: &SortKey| {
        let rank = |time: Option<Timestamp>| (time.is_none(), time);
        let order = rank(a.time(key.field)).cmp(&rank(b.time(key.field)));
        if key.descending { order.reverse() } else { order }
    };
    keys.iter().map(of).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
