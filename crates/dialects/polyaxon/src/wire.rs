//! What answers look like: every object of the dialect as JSON.

use ashlar_core::Timestamp;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::model::{Details, FoundBuild, FoundProject};
use crate::statuses::Row;

/// Returns an instant: microseconds unless they are zero, always UTC.
pub(crate) fn instant(time: Timestamp) -> String {
    let time = DateTime::<Utc>::from_timestamp_nanos(time.nanos());
    let form = match time.timestamp_subsec_micros() {
        0 => "%Y-%m-%dT%H:%M:%SZ",
        _ => "%Y-%m-%dT%H:%M:%S%.6fZ",
    };
    time.format(form).to_string()
}

fn maybe(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |t| Value::String(instant(t)))
}

/// Numbers that only a whole project or build shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) builds: u64,
}

/// Returns a project as the create answer has it.
pub(crate) fn project(found: &FoundProject) -> Map<String, Value> {
    let p = &found.project;
    let value = json!({
        "id": p.number,
        "uuid": found.id.simple().to_string(),
        "user": found.owner,
        "owner": found.owner,
        "name": p.name,
        "unique_name": format!("{}.{}", found.owner, p.name),
        "description": p.description,
        "tags": p.tags,
        "created_at": instant(found.created_at),
        "updated_at": instant(found.updated_at),
        "is_public": p.is_public,
    });
    object(value)
}

/// Returns a project as its own page has it.
pub(crate) fn full_project(found: &FoundProject, bookmarked: bool, counts: Counts) -> Value {
    let mut map = project(found);
    map.extend(object(json!({
        "bookmarked": bookmarked,
        "readme": found.project.readme,
        "has_code": found.project.head.is_some(),
        "has_tensorboard": false,
        "has_notebook": false,
        "tensorboard": null,
        "notebook": null,
        "num_experiments": 0,
        "num_independent_experiments": 0,
        "num_experiment_groups": 0,
        "num_jobs": 0,
        "num_builds": counts.builds,
    })));
    Value::Object(map)
}

/// Returns a build as lists have it, but for `bookmarked`.
pub(crate) fn build(project: &FoundProject, found: &FoundBuild) -> Map<String, Value> {
    let b = &found.build;
    let uuid = found.id().uuid().simple().to_string();
    let name = format!("{}.{}", project.owner, project.project.name);
    object(json!({
        "id": b.number,
        "uuid": uuid,
        "name": b.name,
        "unique_name": format!("{name}.builds.{}", b.number),
        "pod_id": format!("plx-build-{uuid}"),
        "user": b.user,
        "description": b.description,
        "created_at": instant(found.record.created_at),
        "updated_at": instant(found.updated_at()),
        "started_at": maybe(found.started_at),
        "finished_at": maybe(found.finished_at()),
        "last_status": found.status.as_str(),
        "tags": b.tags,
        "project": name,
        "backend": b.backend,
        "is_managed": b.is_managed,
    }))
}

/// Returns a build as its own page has it: what any generation's client looks for.
pub(crate) fn full_build(
    project: &FoundProject,
    found: &FoundBuild,
    details: &Details,
    bookmarked: bool,
) -> Value {
    let mut map = build(project, found);
    map.extend(object(json!({
        "config": details.config,
        "content": details.content,
        "resources": details.resources,
        "node_scheduled": found.record.worker.map(|worker| worker.to_string()),
        "num_jobs": 0,
        "num_experiments": 0,
        "dockerfile": details.dockerfile,
        "commit": found.build.commit,
        "bookmarked": bookmarked,
    })));
    Value::Object(map)
}

/// Returns a status row.
pub(crate) fn status(row: &Row, number: u64, uuid: &str, build: u64) -> Value {
    json!({
        "id": number,
        "uuid": uuid,
        "created_at": instant(row.at),
        "status": row.status.as_str(),
        "message": row.message,
        "traceback": row.traceback,
        "details": row.details,
        "job": build,
    })
}

/// Returns the map of a JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_microseconds_unless_zero() {
        let at = |nanos: i64| instant(Timestamp::from_nanos(1_534_710_000_000_000_000 + nanos));
        assert_eq!(at(0), "2018-08-19T20:20:00Z");
        assert_eq!(at(999), "2018-08-19T20:20:00Z");
        assert_eq!(at(963_000_000), "2018-08-19T20:20:00.963000Z");
    }
}
