//! The thin layer over both databases: one query text, plain values in, plain rows out.
//!
//! Integers are 64 bits wide, ids and digests bytes, everything else text; nothing in the schema
//! needs another type, so no statement has to differ for a type's sake.

mod backfill;
mod error;
mod migrate;
mod open;
mod row;
mod sqlite;

pub use error::DatabaseError;
use open::explained;
pub use open::{CONNECTIONS_DEFAULT, Durability, Options};
pub(crate) use row::{Arg, Row, args};
pub(crate) use sqlite::exclusive;

use sqlite::{Sqlite, SqliteTx};
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, SqlSafeStr, SqlStr, Transaction};

use crate::Error;

/// Either database.
#[derive(Clone)]
pub(crate) enum Db {
    Sqlite(Sqlite),
    Postgres(PgPool),
}

/// A transaction. Dropped without commit it is rolled back.
pub(crate) enum Tx {
    Sqlite(SqliteTx),
    Postgres(Transaction<'static, Postgres>),
}

impl Db {
    /// Begins a transaction that writes.
    pub(crate) async fn write(&self) -> Result<Tx, Error> {
        Ok(match self {
            Self::Sqlite(file) => Tx::Sqlite(file.write().await?),
            Self::Postgres(pool) => match pool.begin().await {
                Ok(tx) => Tx::Postgres(tx),
                Err(error) => return Err(explained(pool, error).await.into()),
            },
        })
    }

    /// Begins a transaction that only reads, all of it at one point in time.
    pub(crate) async fn snapshot(&self) -> Result<Tx, Error> {
        Ok(match self {
            Self::Sqlite(file) => Tx::Sqlite(file.snapshot().await?),
            Self::Postgres(pool) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                match pool.begin_with(begin).await {
                    Ok(tx) => Tx::Postgres(tx),
                    Err(error) => return Err(explained(pool, error).await.into()),
                }
            }
        })
    }

    pub(crate) const fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Waits for all transactions and closes all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(file) => file.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Reads all rows of one query, outside of a transaction.
    pub(crate) async fn all(
        &self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<Vec<Row>, Error> {
        Ok(match self {
            Self::Sqlite(file) => {
                let sql = traced("sqlite", sql, &args);
                let rows = file.reader().await?.all(sql, args).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(pool) => {
                let rows = match postgres(sql, args).fetch_all(pool).await {
                    Ok(rows) => rows,
                    Err(error) => return Err(explained(pool, error).await.into()),
                };
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Reads the only row of one query, if there is one.
    pub(crate) async fn maybe(
        &self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<Option<Row>, Error> {
        Ok(self.all(sql, args).await?.into_iter().next())
    }

    /// Runs one statement in a transaction of its own and returns how many rows it touched.
    pub(crate) async fn run(
        &self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<u64, Error> {
        let mut tx = self.write().await?;
        let touched = tx.run(sql, args).await?;
        tx.commit().await.map(|()| touched)
    }
}

impl Tx {
    pub(crate) const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    pub(crate) async fn all(
        &mut self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<Vec<Row>, Error> {
        Ok(match self {
            Self::Sqlite(tx) => {
                let rows = tx.all(traced("sqlite", sql, &args), args).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                let rows = postgres(sql, args).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(crate) async fn maybe(
        &mut self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<Option<Row>, Error> {
        Ok(self.all(sql, args).await?.into_iter().next())
    }

    /// Reads the row of a query that always has one.
    pub(crate) async fn one(
        &mut self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<Row, Error> {
        self.maybe(sql, args).await?.ok_or(Error::Database(DatabaseError::NoRow))
    }

    /// Runs one statement and returns how many rows it touched.
    pub(crate) async fn run(
        &mut self,
        sql: impl SqlSafeStr + Send,
        args: Vec<Arg>,
    ) -> Result<u64, Error> {
        Ok(match self {
            Self::Sqlite(tx) => tx.run(traced("sqlite", sql, &args), args).await?,
            Self::Postgres(tx) => postgres(sql, args).execute(&mut **tx).await?.rows_affected(),
        })
    }

    pub(crate) async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// As [`Tx::commit`], for what is done again when it is lost with the power: SQLite does not
    /// wait for the disk.
    pub(crate) async fn commit_early(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(tx) => Ok(tx.commit_early().await?),
            other @ Self::Postgres(_) => other.commit().await,
        }
    }
}

fn postgres<'q>(
    sql: impl SqlSafeStr,
    args: Vec<Arg>,
) -> Query<'q, Postgres, <Postgres as sqlx::Database>::Arguments> {
    let sql = traced("postgres", sql, &args);
    args.into_iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Int(v) => query.bind(v),
        Arg::Text(v) => query.bind(v),
        Arg::Blob(v) => query.bind(v),
    })
}

/// Shows a statement to whoever traces, never its values. The tests of query plans listen here,
/// so that no statement escapes them.
fn traced(database: &'static str, sql: impl SqlSafeStr, args: &[Arg]) -> SqlStr {
    let sql = sql.into_sql_str();
    tracing::trace!(
        target: "ashlar_records::sql",
        database,
        sql = sql.as_str(),
        types = args.iter().map(Arg::type_name).collect::<Vec<_>>().join(",")
    );
    sql
}

/// Returns `($1, $2), ($3, $4)`: placeholders for `rows` rows of `columns` values, of which the
/// first has the number `first`.
pub(crate) fn placeholders(first: usize, rows: usize, columns: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(rows * columns * 5);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            let comma = if column == 0 { "" } else { "," };
            let _ = write!(text, "{comma}${}", first + row * columns + column);
        }
        text.push(')');
    }
    text
}

/// Cuts `items` into pieces of a few fixed lengths, so that statements with as many placeholders
/// come in few variants and stay prepared.
pub(crate) fn pieces<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    const LENGTHS: [usize; 6] = [256, 64, 16, 4, 2, 1];
    std::iter::from_fn(move || {
        let length = LENGTHS.into_iter().find(|l| *l <= items.len())?;
        let (piece, rest) = items.split_at(length);
        items = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_through() {
        assert_eq!(placeholders(2, 2, 3), "($2,$3,$4),($5,$6,$7)");
    }

    #[test]
    fn pieces_cover_everything_once() {
        let items: Vec<u32> = (0..343).collect();
        let lengths: Vec<usize> = pieces(&items).map(<[u32]>::len).collect();
        assert_eq!(lengths, [256, 64, 16, 4, 2, 1]);
        assert_eq!(pieces(&items).flatten().copied().collect::<Vec<_>>(), items);
    }
}
