//! What schema 8 wants to know of builds and documents that are older: which blobs they need, and
//! which builds need each other. It stands in their JSON.
//!
//! Part of the migration's transaction: nobody who looks for unneeded blobs sees half of it. The
//! JSON is that of its time, so nothing here follows the types of today.

use ashlar_core::{BuildId, Digest};
use serde::Deserialize;
use serde_json::Value;

use super::{Tx, args};
use crate::kept::{self, Holder};
use crate::{Error, needs};

/// Rows that one query reads: a definition may have 16 MiB.
const ROWS_AT_ONCE: u32 = 16;
/// How a row begins that holds a note of the service: the codec's byte for one event, and the event.
const NOTE: &[u8] = b"\0{\"event\":\"note\",\"dialect\":\"service\"";

#[derive(Deserialize)]
struct Build {
    submission: Submission,
    #[serde(default)]
    artifacts: Vec<Artifact>,
}

#[derive(Deserialize)]
struct Submission {
    build: BuildId,
    parent: Option<BuildId>,
}

#[derive(Deserialize)]
struct Artifact {
    kind: String,
    digest: Digest,
}

/// Reads all builds and documents, and writes what they need.
pub(super) async fn needed(tx: &mut Tx) -> Result<(), Error> {
    let mut after = 0;
    loop {
        let sql = "SELECT b.position, b.record, d.body, b.finished_at FROM builds b \
                   JOIN definitions d ON d.build = b.position \
                   WHERE b.position > $1 ORDER BY b.position LIMIT $2";
        let rows = tx.all(sql, args![after, ROWS_AT_ONCE]).await?;
        let Some(last) = rows.last() else { break };
        after = last.int(0)?;
        for row in &rows {
            let (build, definition) = (row.json(1, "a build")?, row.json(2, "a definition")?);
            let waits = row.maybe_int(3)?.is_none();
            of_build(tx, row.int(0)?, &build, &definition, waits).await?;
        }
    }
    documents(tx).await
}

async fn of_build(
    tx: &mut Tx,
    position: i64,
    build: &Build,
    definition: &Value,
    waits: bool,
) -> Result<(), Error> {
    let mut said = Said::default();
    said.read(definition);
    let holder = Holder::Build(position);
    for context in said.contexts {
        kept::hold_context(tx, context, holder).await?;
    }
    let files = build.artifacts.iter().filter(|a| a.kind != "image").map(|a| a.digest);
    for blob in said.answers.into_iter().chain(files).chain(noted(tx, position).await?) {
        kept::hold_blob(tx, blob, holder).await?;
    }
    for base in said.bases.into_iter().filter(|_| waits) {
        needs::insert(tx, position, base).await?;
    }
    needs::by_run(tx, build.submission.parent, build.submission.build).await
}

/// Returns the blobs with answers that a build's journal notes.
async fn noted(tx: &mut Tx, position: i64) -> Result<Vec<Digest>, Error> {
    let sql = "SELECT body FROM entries WHERE build = $1 AND count = 1 \
               AND SUBSTR(body, 1, CAST($2 AS INTEGER)) = $3";
    let rows = tx.all(sql, args![position, NOTE.len() as u64, NOTE]).await?;
    let mut found = Vec::new();
    for row in &rows {
        let note: Value =
            serde_json::from_slice(&row.bytes(0)?[1..]).map_err(|e| Error::damaged("a note", e))?;
        found.extend(digest(&note["value"]["answers"]));
    }
    Ok(found)
}

/// What a definition names, at whatever depth: a run's nodes have definitions of their own.
#[derive(Default)]
struct Said {
    contexts: Vec<Digest>,
    answers: Vec<Digest>,
    bases: Vec<BuildId>,
}

impl Said {
    fn read(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::Object(contexts)) = fields.get("contexts") {
                    self.contexts.extend(contexts.values().filter_map(digest));
                }
                self.answers.extend(fields.get("answers").and_then(digest));
                if fields.get("kind").and_then(Value::as_str) == Some("on_build") {
                    let base = fields.get("base").and_then(Value::as_str);
                    self.bases.extend(base.and_then(|base| base.parse::<BuildId>().ok()));
                }
                fields.values().for_each(|inner| self.read(inner));
            }
            Value::Array(items) => items.iter().for_each(|inner| self.read(inner)),
            _ => {}
        }
    }
}

fn digest(value: &Value) -> Option<Digest> {
    value.as_str()?.parse().ok()
}

/// Holds all blobs that documents name anywhere: which of them a dialect counts on is not known
/// here, and it says so itself when it writes the document again.
async fn documents(tx: &mut Tx) -> Result<(), Error> {
    let mut after = 0;
    loop {
        let sql = "SELECT position, body FROM documents WHERE position > $1 \
                   ORDER BY position LIMIT $2";
        let rows = tx.all(sql, args![after, ROWS_AT_ONCE]).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.int(0)?;
        for row in &rows {
            let mut found = Vec::new();
            digests(&row.json(1, "a document")?, &mut found);
            for blob in found {
                kept::hold_blob(tx, blob, Holder::Document(row.int(0)?)).await?;
            }
        }
    }
}

fn digests(value: &Value, found: &mut Vec<Digest>) {
    match value {
        Value::Object(fields) => fields.values().for_each(|inner| digests(inner, found)),
        Value::Array(items) => items.iter().for_each(|inner| digests(inner, found)),
        other => found.extend(digest(other)),
    }
}
