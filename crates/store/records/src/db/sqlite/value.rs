//! Values into statements, and rows out of them.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use crate::db::row::Arg;

/// One value of a row.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// One row, read.
#[derive(Debug)]
pub(crate) struct SqliteRow(Box<[Value]>);

/// A column has another type than the program expects.
fn mismatch(column: usize, found: &Value) -> rusqlite::Error {
    use rusqlite::types::Type;
    let found = match found {
        Value::Null => Type::Null,
        Value::Int(_) => Type::Integer,
        Value::Text(_) => Type::Text,
        Value::Blob(_) => Type::Blob,
    };
    rusqlite::Error::InvalidColumnType(column, format!("number {column}"), found)
}

impl SqliteRow {
    fn value(&self, column: usize) -> rusqlite::Result<&Value> {
        self.0.get(column).ok_or(rusqlite::Error::InvalidColumnIndex(column))
    }

    pub(crate) fn int(&self, column: usize) -> rusqlite::Result<Option<i64>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(*value)),
            other => Err(mismatch(column, other)),
        }
    }

    pub(crate) fn text(&self, column: usize) -> rusqlite::Result<Option<&str>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Text(value) => Ok(Some(value)),
            other => Err(mismatch(column, other)),
        }
    }

    pub(crate) fn bytes(&self, column: usize) -> rusqlite::Result<Option<&[u8]>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Blob(value) => Ok(Some(value)),
            // SQLite gives back a text where bytes were joined to one.
            Value::Text(value) => Ok(Some(value.as_bytes())),
            other @ Value::Int(_) => Err(mismatch(column, other)),
        }
    }
}

pub(super) fn query(
    connection: &Connection,
    sql: &str,
    args: &[Arg],
) -> rusqlite::Result<Vec<SqliteRow>> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, args)?;
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) => Value::Int(value),
                ValueRef::Real(_) => {
                    let kind = rusqlite::types::Type::Real;
                    return Err(rusqlite::Error::InvalidColumnType(column, sql.to_owned(), kind));
                }
                text @ ValueRef::Text(_) => Value::Text(text.as_str()?.to_owned()),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            })
        });
        found.push(SqliteRow(values.collect::<rusqlite::Result<_>>()?));
    }
    Ok(found)
}

pub(super) fn execute(connection: &Connection, sql: &str, args: &[Arg]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, args)?;
    statement.raw_execute().map(|touched| touched as u64)
}

/// Gives each placeholder its value. `$3` is a name to SQLite, not a number: which place it has
/// depends on where it stands in the text.
fn bind(statement: &mut Statement<'_>, args: &[Arg]) -> rusqlite::Result<()> {
    for place in 1..=statement.parameter_count() {
        let number = statement.parameter_name(place).and_then(|name| name[1..].parse().ok());
        let arg = number.and_then(|number: usize| args.get(number.checked_sub(1)?));
        match arg {
            Some(Arg::Int(value)) => statement.raw_bind_parameter(place, value)?,
            Some(Arg::Text(value)) => statement.raw_bind_parameter(place, value)?,
            Some(Arg::Blob(value)) => statement.raw_bind_parameter(place, value)?,
            None => return Err(rusqlite::Error::InvalidParameterCount(place, args.len())),
        }
    }
    Ok(())
}
