//! Brings a database forward to the schema that this program knows.

use sqlx::{Executor as _, SqlSafeStr as _};

use super::{DatabaseError, Db, Tx, args, backfill};
use crate::Error;

/// Each version's change, from 1.
const SQLITE: [&str; 11] = [
    include_str!("../../migrations/sqlite/0001_builds.sql"),
    include_str!("../../migrations/sqlite/0002_queue.sql"),
    include_str!("../../migrations/sqlite/0003_dialects.sql"),
    include_str!("../../migrations/sqlite/0004_tenants.sql"),
    include_str!("../../migrations/sqlite/0005_segments.sql"),
    include_str!("../../migrations/sqlite/0006_retention.sql"),
    include_str!("../../migrations/sqlite/0007_grants.sql"),
    include_str!("../../migrations/sqlite/0008_kept.sql"),
    include_str!("../../migrations/sqlite/0009_collection.sql"),
    include_str!("../../migrations/sqlite/0010_pages.sql"),
    include_str!("../../migrations/sqlite/0011_collations.sql"),
];
const POSTGRES: [&str; 11] = [
    include_str!("../../migrations/postgres/0001_builds.sql"),
    include_str!("../../migrations/postgres/0002_queue.sql"),
    include_str!("../../migrations/postgres/0003_dialects.sql"),
    include_str!("../../migrations/postgres/0004_tenants.sql"),
    include_str!("../../migrations/postgres/0005_segments.sql"),
    include_str!("../../migrations/postgres/0006_retention.sql"),
    include_str!("../../migrations/postgres/0007_grants.sql"),
    include_str!("../../migrations/postgres/0008_kept.sql"),
    include_str!("../../migrations/postgres/0009_collection.sql"),
    include_str!("../../migrations/postgres/0010_pages.sql"),
    include_str!("../../migrations/postgres/0011_collations.sql"),
];
/// Asks SQLite for the version.
const VERSION: &str = "PRAGMA user_version";
const KNOWN: i64 = SQLITE.len() as i64;
/// The version whose tables say who needs what.
const NEEDS: i64 = 8;
const _: () = assert!(SQLITE.len() == POSTGRES.len());

/// Held while a PostgreSQL schema changes, so that two servers that start together take turns.
const ADVISORY_LOCK: i64 = 0x6173_686c_6172;

pub(super) async fn migrate(db: &Db) -> Result<(), Error> {
    match db {
        // Read outside of a transaction: a one-shot command must not wait for a writer.
        Db::Sqlite(_)
            if db.maybe(VERSION, args![]).await?.map_or(Ok(0), |r| r.int(0))? == KNOWN =>
        {
            return Ok(());
        }
        _ => {}
    }
    let mut tx = db.write().await?;
    let found = version(&mut tx).await?;
    if found > KNOWN {
        return Err(Error::Newer { found, known: KNOWN });
    }
    for version in found + 1..=KNOWN {
        step(&mut tx, version).await.map_err(|source| Error::Migrate { version, source })?;
        if version == NEEDS {
            backfill::needed(&mut tx).await?;
        }
    }
    tx.commit().await
}

async fn version(tx: &mut Tx) -> Result<i64, Error> {
    match tx {
        Tx::Sqlite(_) => tx.one(VERSION, args![]).await?.int(0),
        Tx::Postgres(_) => {
            tx.all("SELECT pg_advisory_xact_lock($1)", args![ADVISORY_LOCK]).await?;
            tx.run("CREATE TABLE IF NOT EXISTS ashlar_schema (version BIGINT NOT NULL)", args![])
                .await?;
            let row = tx.maybe("SELECT MAX(version) FROM ashlar_schema", args![]).await?;
            row.map_or(Ok(None), |row| row.maybe_int(0)).map(|v| v.unwrap_or(0))
        }
    }
}

async fn step(tx: &mut Tx, version: i64) -> Result<(), DatabaseError> {
    let index = usize::try_from(version - 1).unwrap_or(usize::MAX);
    match tx {
        Tx::Sqlite(tx) => {
            tx.batch(SQLITE[index]).await?;
            let set = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
            tx.run(set.into_sql_str(), args![]).await?;
        }
        Tx::Postgres(tx) => {
            tx.execute(sqlx::raw_sql(POSTGRES[index])).await?;
            let insert = sqlx::query("INSERT INTO ashlar_schema (version) VALUES ($1)");
            insert.bind(version).execute(&mut **tx).await?;
        }
    }
    Ok(())
}
