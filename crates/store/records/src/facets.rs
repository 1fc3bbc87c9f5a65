//! What lists filter by.
//!
//! Each property of a build that a list can ask for is a *facet*: a hash of the property's text. A
//! row in `facets` says that the build at a position has it, a row in `counts` how many builds of a
//! block of positions do. So a list by any property walks one index in order, a list by several
//! starts from the rarest (whose count is known exactly), and a page at any depth is found by
//! summing blocks. Properties that are asked for together have facets of their own.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_core::journal::{BuildKind, Record};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Hasher, TenantId};
use sqlx::AssertSqlSafe;

use crate::Error;
use crate::db::{Arg, Tx, args, pieces, placeholders};

/// Positions in one block of counts. A deep page sums a million builds' 489 blocks and then walks
/// at most one block.
pub(crate) const BLOCK: i64 = 2048;
/// On PostgreSQL writers count in one of so many rows, so that they rarely wait for each other.
const SHARDS: u8 = 8;
/// Words of a build's name and labels that text search finds.
const WORDS_MAX: usize = 32;
/// The facet of every build; it has counts only.
pub(crate) const ALL: Facet = Facet(0);

/// The hash of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Facet(pub(crate) i64);

impl Facet {
    fn of(name: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = Hasher::new();
        hasher.field(name);
        for part in parts {
            hasher.field(part);
        }
        let digest = hasher.finish();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest.as_bytes()[..8]);
        // Never 0, which is ALL.
        Self(i64::from_le_bytes(bytes) | 1)
    }

    pub(crate) fn tenant(tenant: TenantId) -> Self {
        Self::of("tenant", &[tenant.uuid().as_bytes()])
    }

    pub(crate) fn scope(tenant: TenantId, scope: &str) -> Self {
        Self::of("scope", &[tenant.uuid().as_bytes(), scope.as_bytes()])
    }

    pub(crate) fn parent(parent: BuildId) -> Self {
        Self::of("parent", &[parent.uuid().as_bytes()])
    }

    pub(crate) fn scope_state(tenant: TenantId, scope: &str, state: State) -> Self {
        let tenant = tenant.uuid();
        Self::of("scope+state", &[tenant.as_bytes(), scope.as_bytes(), state.as_str().as_bytes()])
    }

    /// A property with its value, of all tenants' builds or of one's.
    pub(crate) fn property(tenant: Option<TenantId>, name: &str, value: &[u8]) -> Self {
        match tenant {
            Some(tenant) => {
                Self::of("tenant+", &[tenant.uuid().as_bytes(), name.as_bytes(), value])
            }
            None => Self::of("any+", &[name.as_bytes(), value]),
        }
    }

    pub(crate) fn label(tenant: Option<TenantId>, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => {
                let mut both = name.as_bytes().to_vec();
                both.push(0);
                both.extend_from_slice(value.as_bytes());
                Self::property(tenant, "label=", &both)
            }
            None => Self::property(tenant, "label", name.as_bytes()),
        }
    }

    pub(crate) fn word(tenant: TenantId, word: &str) -> Self {
        Self::property(Some(tenant), "word", word.as_bytes())
    }
}

/// Returns the words of a text that search finds: runs of letters and digits, in lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// Returns the word for a kind of build.
pub(crate) const fn kind_word(kind: BuildKind) -> &'static str {
    match kind {
        BuildKind::Build => "build",
        BuildKind::Workflow => "workflow",
    }
}

/// Returns all facets of a build.
pub(crate) fn of(record: &Record) -> BTreeSet<Facet> {
    let s = &record.submission;
    let mut facets = BTreeSet::from([
        Facet::tenant(s.tenant),
        Facet::scope(s.tenant, &s.scope),
        Facet::scope_state(s.tenant, &s.scope, record.state),
    ]);
    let mut both = |name: &str, value: &str| {
        facets.insert(Facet::property(None, name, value.as_bytes()));
        facets.insert(Facet::property(Some(s.tenant), name, value.as_bytes()));
    };
    both("state", record.state.as_str());
    both("dialect", &s.dialect);
    both("source", &s.source);
    both("kind", kind_word(s.kind));
    s.backend.iter().for_each(|b| both("backend", b));
    record.executor.iter().for_each(|e| both("executor", e));
    facets.extend(s.parent.map(Facet::parent));
    for (name, value) in &record.labels {
        facets.insert(Facet::label(Some(s.tenant), name, None));
        facets.insert(Facet::label(Some(s.tenant), name, Some(value)));
        facets.insert(Facet::label(None, name, Some(value)));
    }
    let texts = std::iter::once(&record.name).chain(record.labels.values());
    let found: BTreeSet<String> = texts.flat_map(|t| words(t)).take(WORDS_MAX).collect();
    facets.extend(found.iter().map(|w| Facet::word(s.tenant, w)));
    facets
}

/// Changes of facets that one transaction makes. Written at its end and in a fixed order, so that
/// two transactions never wait for each other in a circle, nor long.
#[derive(Default)]
pub(crate) struct Changes {
    add: Vec<(Facet, i64)>,
    remove: Vec<(Facet, i64)>,
    counts: BTreeMap<(Facet, i64), i64>,
}

impl Changes {
    pub(crate) fn accept(&mut self, position: i64, now: &BTreeSet<Facet>) {
        self.count(ALL, position, 1);
        self.change(position, &BTreeSet::new(), now);
    }

    pub(crate) fn forget(&mut self, position: i64, before: &BTreeSet<Facet>) {
        self.count(ALL, position, -1);
        self.change(position, before, &BTreeSet::new());
    }

    pub(crate) fn change(
        &mut self,
        position: i64,
        before: &BTreeSet<Facet>,
        now: &BTreeSet<Facet>,
    ) {
        for facet in now.difference(before) {
            self.add.push((*facet, position));
            self.count(*facet, position, 1);
        }
        for facet in before.difference(now) {
            self.remove.push((*facet, position));
            self.count(*facet, position, -1);
        }
    }

    fn count(&mut self, facet: Facet, position: i64, by: i64) {
        *self.counts.entry((facet, position.div_euclid(BLOCK))).or_default() += by;
    }

    pub(crate) async fn write(self, tx: &mut Tx) -> Result<(), Error> {
        for piece in pieces(&self.remove) {
            let rows = placeholders(1, piece.len(), 2);
            let sql = format!("DELETE FROM facets WHERE (facet, position) IN (VALUES {rows})");
            tx.run(AssertSqlSafe(sql), pairs(piece)).await?;
        }
        for piece in pieces(&self.add) {
            let rows = placeholders(1, piece.len(), 2);
            let sql = format!("INSERT INTO facets (facet, position) VALUES {rows}");
            tx.run(AssertSqlSafe(sql), pairs(piece)).await?;
        }
        self.write_counts(tx).await
    }

    async fn write_counts(&self, tx: &mut Tx) -> Result<(), Error> {
        let shard = if tx.is_postgres() { i64::from(crate::random::byte()? % SHARDS) } else { 0 };
        let counts: Vec<_> = self.counts.iter().filter(|(_, n)| **n != 0).collect();
        for piece in pieces(&counts) {
            let rows = placeholders(1, piece.len(), 4);
            let sql = format!(
                "INSERT INTO counts (facet, block, shard, n) VALUES {rows} \
                 ON CONFLICT (facet, block, shard) DO UPDATE SET n = counts.n + excluded.n"
            );
            let values = piece.iter().flat_map(|((f, b), n)| args![f.0, *b, shard, **n]);
            tx.run(AssertSqlSafe(sql), values.collect()).await?;
        }
        Ok(())
    }
}

fn pairs(piece: &[(Facet, i64)]) -> Vec<Arg> {
    piece.iter().flat_map(|(facet, position)| args![facet.0, *position]).collect()
}

/// Returns how many builds have a facet, newest block first.
pub(crate) async fn blocks(tx: &mut Tx, facet: Facet) -> Result<Vec<(i64, u64)>, Error> {
    let sql = "SELECT block, CAST(SUM(n) AS BIGINT) FROM counts WHERE facet = $1 \
               GROUP BY block ORDER BY block DESC";
    let rows = tx.all(sql, args![facet.0]).await?;
    rows.iter().map(|row| Ok((row.int(0)?, row.count(1)?))).collect()
}

/// Returns how many builds have a facet.
pub(crate) async fn total(tx: &mut Tx, facet: Facet) -> Result<u64, Error> {
    let sql = "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM counts WHERE facet = $1";
    tx.one(sql, args![facet.0]).await?.count(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facets_of_different_properties_differ() {
        let tenant = TenantId::from_parts(1, [1; 10]);
        let all = [
            Facet::tenant(tenant),
            Facet::scope(tenant, "a"),
            Facet::scope_state(tenant, "a", State::Queued),
            Facet::property(Some(tenant), "state", b"queued"),
            Facet::property(None, "state", b"queued"),
            Facet::label(Some(tenant), "a", Some("b")),
            Facet::label(Some(tenant), "a", None),
            Facet::label(Some(tenant), "ab", Some("")),
            Facet::word(tenant, "a"),
            ALL,
        ];
        assert_eq!(BTreeSet::from(all).len(), all.len());
    }

    #[test]
    fn words_are_found_in_lower_case() {
        let found: Vec<String> = words("My-App_12 (ünï)").collect();
        assert_eq!(found, ["my", "app", "12", "ünï"]);
    }
}
