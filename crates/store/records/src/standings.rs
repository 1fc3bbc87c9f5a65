//! What bounds go by for all builds of a page: the answers of [`Store::standing`] in a few queries.

use std::collections::{BTreeMap, HashMap};

use ashlar_core::{BuildId, Timestamp};
use sqlx::AssertSqlSafe;

use crate::db::{Arg, Row, Tx, args, pieces, placeholders};
use crate::kept::Exempt;
use crate::retention::{NEWER_MAX, Place, Standing};
use crate::{Error, Store};

/// A build of the page.
struct Asked {
    build: BuildId,
    position: i64,
    ended_at: i64,
    exempt: Option<Exempt>,
    sizes: [Option<i64>; 3],
}

/// A scope's number and a dialect.
type Group = (i64, String);

/// The page's builds by group.
type Groups = BTreeMap<Group, Vec<Asked>>;

/// Counts and bytes of each of [`crate::What::ALL`].
type Sums = [(u64, u64); 3];

impl Store {
    /// Returns what bounds go by for those of some builds that have ended. Newer builds are counted
    /// only if that is wanted: bounds on ages alone do not ask for them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standings(
        &self,
        builds: &[BuildId],
        counted: bool,
    ) -> Result<HashMap<BuildId, Standing>, Error> {
        let mut tx = self.db.snapshot().await?;
        let mut found = HashMap::with_capacity(builds.len());
        for (group, mut asked) in groups(&mut tx, builds).await? {
            asked.sort_unstable_by_key(|a| std::cmp::Reverse((a.ended_at, a.position)));
            let newer = match (counted, asked.last()) {
                (true, Some(oldest)) => Newer::read(&mut tx, &group, oldest.ended_at).await?,
                _ => Newer::default(),
            };
            found.extend(newer.standings(&asked));
        }
        tx.commit().await?;
        Ok(found)
    }
}

async fn groups(tx: &mut Tx, builds: &[BuildId]) -> Result<Groups, Error> {
    let mut groups = Groups::new();
    for piece in pieces(builds) {
        let sql = format!(
            "SELECT b.id, k.build, k.scope, k.dialect, k.ended_at, k.log_bytes, k.artifact_bytes, \
             k.spared_until, \
             CAST(CASE \
             WHEN EXISTS (SELECT 1 FROM aliases a WHERE a.target = b.id AND a.promoted = 1) THEN 1 \
             WHEN (SELECT 1 FROM needs n JOIN builds w ON w.position = n.build \
             WHERE n.needed = b.id AND w.finished_at IS NULL LIMIT 1) IS NOT NULL THEN 3 \
             WHEN k.build = (SELECT g.build FROM kept g WHERE g.scope = k.scope \
             AND g.good = k.good ORDER BY g.lost, g.ended_at DESC, g.build DESC LIMIT 1) THEN 2 \
             ELSE 0 END AS BIGINT) \
             FROM builds b JOIN kept k ON k.build = b.position WHERE b.id IN (VALUES {})",
            placeholders(1, piece.len(), 1)
        );
        let values = piece.iter().map(|b| Arg::from(*b)).collect();
        for row in tx.all(AssertSqlSafe(sql), values).await? {
            let group = (row.int(2)?, row.text(3)?);
            groups.entry(group).or_default().push(asked(&row)?);
        }
    }
    Ok(groups)
}

fn asked(row: &Row) -> Result<Asked, Error> {
    let exempt = match (row.int(7)? == i64::MAX, row.int(8)?) {
        (true, _) => Some(Exempt::Pinned),
        (false, 1) => Some(Exempt::Promoted),
        (false, 2) => Some(Exempt::LastGood),
        (false, 3) => Some(Exempt::Needed),
        (false, _) => None,
    };
    let (log, artifacts) = (row.maybe_int(5)?, row.maybe_int(6)?);
    Ok(Asked {
        build: row.build(0)?,
        position: row.int(1)?,
        ended_at: row.int(4)?,
        exempt,
        sizes: [Some(log.unwrap_or(0)), log, artifacts],
    })
}

/// A build that may be newer than some of the page.
struct Other {
    ended_at: i64,
    position: i64,
    sizes: [Option<i64>; 3],
}

/// Builds of a group from a time on, newest first; of very many only some.
#[derive(Default)]
struct Newer {
    counting: Vec<Other>,
    /// Those that bounds pass over; whoever is older has them before it as any other.
    spared: Vec<Other>,
}

impl Newer {
    async fn read(tx: &mut Tx, group: &Group, from: i64) -> Result<Self, Error> {
        let counting = others(tx, group, "= 0", from).await?;
        Ok(Self { counting, spared: others(tx, group, "> 0", from).await? })
    }

    /// Walks builds of the page, newest first, beside the others.
    fn standings(&self, asked: &[Asked]) -> Vec<(BuildId, Standing)> {
        let mut counting = self.counting.iter().peekable();
        let mut spared = self.spared.iter().peekable();
        let mut sums = Sums::default();
        let mut all = Vec::with_capacity(asked.len());
        for one in asked {
            let own = (one.ended_at, one.position);
            while let Some(other) = counting.next_if(|o| (o.ended_at, o.position) > own) {
                add(&mut sums, other);
            }
            while let Some(other) = spared.next_if(|o| o.ended_at > one.ended_at) {
                add(&mut sums, other);
            }
            all.push((one.build, standing(one, &sums)));
        }
        all
    }
}

async fn others(
    tx: &mut Tx,
    (scope, dialect): &Group,
    spared: &str,
    from: i64,
) -> Result<Vec<Other>, Error> {
    let sql = format!(
        "SELECT k.ended_at, k.build, k.log_bytes, k.artifact_bytes FROM kept k \
         WHERE k.scope = $1 AND k.dialect = $2 AND k.spared_until {spared} \
         AND k.ended_at >= $3 ORDER BY k.ended_at DESC, k.build DESC LIMIT $4"
    );
    let values = args![*scope, dialect, from, NEWER_MAX];
    tx.all(AssertSqlSafe(sql), values).await?.iter().map(other).collect()
}

fn other(row: &Row) -> Result<Other, Error> {
    let (log, artifacts) = (row.maybe_int(2)?, row.maybe_int(3)?);
    let sizes = [Some(log.unwrap_or(0)), log, artifacts];
    Ok(Other { ended_at: row.int(0)?, position: row.int(1)?, sizes })
}

fn add(sums: &mut Sums, other: &Other) {
    for (sum, size) in sums.iter_mut().zip(other.sizes) {
        let Some(size) = size else { continue };
        sum.0 += 1;
        sum.1 = sum.1.saturating_add(u64::try_from(size).unwrap_or(0));
    }
}

fn standing(one: &Asked, sums: &Sums) -> Standing {
    let place = |i: usize| match one.sizes[i] {
        None => Place::default(),
        Some(bytes) => Place {
            there: true,
            newer: sums[i].0,
            bytes: u64::try_from(bytes).unwrap_or(0).saturating_add(sums[i].1),
        },
    };
    let ended_at = Timestamp::from_nanos(one.ended_at);
    Standing { ended_at, exempt: one.exempt, things: std::array::from_fn(place) }
}
