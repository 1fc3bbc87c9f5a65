//! Values that go into statements and come out of rows.

use ashlar_core::{BuildId, Digest, PrincipalId, TenantId, Timestamp, WorkerId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::error::DatabaseError;
use super::sqlite::SqliteRow;
use crate::Error;

/// One value of a statement. Nulls are typed, as PostgreSQL wants them.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

impl Arg {
    /// Returns the type's name in PostgreSQL.
    pub(crate) const fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "bigint",
            Self::Text(_) => "text",
            Self::Blob(_) => "bytea",
        }
    }
}

/// Makes the values of a statement from anything that has an [`Arg`] form.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::Arg::from($value)),*] };
}
pub(crate) use args;

macro_rules! arg_from {
    ($($type:ty => $variant:ident $make:expr;)*) => {$(
        impl From<$type> for Arg {
            fn from(value: $type) -> Self {
                Self::$variant(Some(($make)(value)))
            }
        }
        impl From<Option<$type>> for Arg {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map($make))
            }
        }
    )*};
}

arg_from! {
    i64 => Int |v| v;
    u32 => Int i64::from;
    i32 => Int i64::from;
    bool => Int i64::from;
    u64 => Int |v| i64::try_from(v).unwrap_or(i64::MAX);
    Timestamp => Int |v: Timestamp| v.nanos();
    &str => Text |v: &str| clean(v.to_owned());
    &String => Text |v: &String| clean(v.clone());
    String => Text clean;
    &[u8] => Blob |v: &[u8]| v.to_vec();
    Vec<u8> => Blob |v| v;
    Uuid => Blob |v: Uuid| v.as_bytes().to_vec();
    BuildId => Blob |v: BuildId| v.uuid().as_bytes().to_vec();
    TenantId => Blob |v: TenantId| v.uuid().as_bytes().to_vec();
    PrincipalId => Blob |v: PrincipalId| v.uuid().as_bytes().to_vec();
    WorkerId => Blob |v: WorkerId| v.uuid().as_bytes().to_vec();
    Digest => Blob |v: Digest| v.as_bytes().to_vec();
}

/// PostgreSQL has no NUL in texts. JSON escapes them, so only names can hold one.
fn clean(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// One row, columns by number from 0.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn int(&self, column: usize) -> Result<i64, Error> {
        self.maybe_int(column).and_then(there)
    }

    pub(crate) fn maybe_int(&self, column: usize) -> Result<Option<i64>, Error> {
        Ok(match self {
            Self::Sqlite(row) => row.int(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Reads a number that is never negative.
    pub(crate) fn count(&self, column: usize) -> Result<u64, Error> {
        Ok(u64::try_from(self.int(column)?).unwrap_or(0))
    }

    pub(crate) fn flag(&self, column: usize) -> Result<bool, Error> {
        Ok(self.int(column)? != 0)
    }

    pub(crate) fn time(&self, column: usize) -> Result<Timestamp, Error> {
        self.int(column).map(Timestamp::from_nanos)
    }

    pub(crate) fn maybe_time(&self, column: usize) -> Result<Option<Timestamp>, Error> {
        Ok(self.maybe_int(column)?.map(Timestamp::from_nanos))
    }

    pub(crate) fn str(&self, column: usize) -> Result<&str, Error> {
        let text = match self {
            Self::Sqlite(row) => row.text(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        };
        there(text)
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, Error> {
        self.str(column).map(str::to_owned)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, Error> {
        self.maybe_bytes(column).and_then(there)
    }

    pub(crate) fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Error> {
        self.slice(column).map(|bytes| bytes.map(<[u8]>::to_vec))
    }

    fn slice(&self, column: usize) -> Result<Option<&[u8]>, Error> {
        Ok(match self {
            Self::Sqlite(row) => row.bytes(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn uuid(&self, column: usize) -> Result<Uuid, Error> {
        Uuid::from_slice(self.slice(column).and_then(there)?)
            .map_err(|e| Error::damaged("an id", e))
    }

    pub(crate) fn digest(&self, column: usize) -> Result<Digest, Error> {
        let bytes = <[u8; 32]>::try_from(self.slice(column).and_then(there)?);
        let bytes = bytes.map_err(|_| Error::damaged("a digest", "it has another length"))?;
        Ok(Digest::from_bytes(bytes))
    }

    pub(crate) fn build(&self, column: usize) -> Result<BuildId, Error> {
        self.uuid(column).map(BuildId::from_uuid)
    }

    pub(crate) fn tenant(&self, column: usize) -> Result<TenantId, Error> {
        self.uuid(column).map(TenantId::from_uuid)
    }

    /// Reads JSON that this crate wrote.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        column: usize,
        what: &str,
    ) -> Result<T, Error> {
        serde_json::from_str(self.str(column)?).map_err(|e| Error::damaged(what, e))
    }
}

/// A value of a column that is never null.
fn there<T>(value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Database(DatabaseError::NoRow))
}
