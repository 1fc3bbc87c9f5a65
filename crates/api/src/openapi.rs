//! The OpenAPI 3.1 document: made from the table of routes and the schemas beside this file.

use ashlar_core::state::State;
use ashlar_http::Origin;
use axum::Json;
use serde_json::{Map, Value, json};

use crate::auth::TENANT_HEADER;
use crate::routes::{ROUTES, Route};

/// The schemas of bodies.
const SCHEMAS: &str = include_str!("schemas.json");

/// Shows the document with the server where the client found it.
pub(crate) async fn show(origin: Origin) -> Json<Value> {
    let mut document = document();
    document["servers"] = json!([{ "url": origin.to_string() }]);
    Json(document)
}

/// Returns the whole document, of a server wherever it is.
pub fn document() -> Value {
    // The file is part of the program, and a test reads it.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ashlar",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Builds in sandboxes, from cache, with their whole history.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "parameters": header_parameters(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if !route.about.is_empty() {
        operation["description"] = json!(route.about);
    }
    if let Some(body) = route.body {
        operation["requestBody"] = request_body(body);
    }
    match route.role {
        Some(role) => operation["x-role"] = json!(role.as_str()),
        None => operation["security"] = json!([]),
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let plain = route.path.trim_start_matches("/api").trim_start_matches("/v1");
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let path: String = plain.chars().filter(|c| !matches!(c, '{' | '}')).map(word).collect();
    format!("{}{path}", route.method)
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('{').skip(1).filter_map(|p| p.split_once('}'));
    let in_path = in_path.map(|(name, _)| {
        json!({ "name": name, "in": "path", "required": true, "schema": path_schema(name) })
    });
    let in_query = route
        .query
        .iter()
        .map(|(name, kind)| json!({ "name": name, "in": "query", "schema": query_schema(kind) }));
    let tenant = route.role.is_some().then_some(TENANT_HEADER);
    let in_header = route.headers.iter().copied().chain(tenant);
    let in_header =
        in_header.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    in_path.chain(in_query).chain(in_header).collect()
}

/// Headers that routes read: name, what it is for, and its schema.
fn header_parameters() -> Value {
    let text = || json!({ "type": "string" });
    let headers = [
        (
            "Idempotency-Key",
            "A text of the client's choice. A request with a key that was used before makes no second \
             build: it is answered with 200 and the build that the first one made.",
            json!({ "type": "string", "maxLength": 255 }),
        ),
        (
            "Last-Event-ID",
            "The last number that was seen of a stream that broke off; it goes on after that one.",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        (
            "Content-Range",
            "`bytes FIRST-LAST/SIZE`: which part of the blob the body is, e.g. \
             `bytes 0-1048575/5000000`, SIZE being that of the whole blob.",
            text(),
        ),
        ("Range", "`bytes=FIRST-LAST`: the part that is wanted, answered with 206.", text()),
        (
            TENANT_HEADER,
            "The name of the tenant to act for, where a token may act for several: an admin's may \
             for all. Without it the token's own.",
            text(),
        ),
    ];
    let parameter = |(name, about, schema): (&str, &str, Value)| {
        let value = json!({ "name": name, "in": "header", "description": about, "schema": schema });
        (name.to_owned(), value)
    };
    headers.into_iter().map(parameter).collect::<Map<_, _>>().into()
}

fn path_schema(name: &str) -> Value {
    match name {
        "build" | "token" => json!({ "type": "string", "format": "uuid" }),
        "digest" => json!({ "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" }),
        _ => json!({ "type": "string", "minLength": 1 }),
    }
}

/// Returns the schema of a kind of parameter that the table of routes names.
fn query_schema(kind: &str) -> Value {
    let states: Vec<&str> = State::ALL.iter().map(|s| s.as_str()).collect();
    match kind {
        "count" => json!({ "type": "integer", "minimum": 0 }),
        "number" => json!({ "type": "integer", "minimum": 1 }),
        "uuid" => json!({ "type": "string", "format": "uuid" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "state" => json!({ "type": "string", "enum": states }),
        "build kind" => json!({ "type": "string", "enum": ["build", "workflow"] }),
        "order" => json!({ "type": "string", "enum": ["newest", "oldest"] }),
        "log format" => {
            json!({ "type": "string", "enum": ["json", "text", "html", "raw", "sse"] })
        }
        plain => json!({ "type": plain }),
    }
}

fn request_body(schema: &str) -> Value {
    let of = |schema: Value| json!({ "schema": schema });
    let bytes = || of(json!({ "type": "string", "format": "binary" }));
    let json_of = of(json!({ "$ref": format!("#/components/schemas/{schema}") }));
    let content = match schema {
        "Bytes" => json!({ "application/octet-stream": bytes() }),
        "Context" => json!({ "application/json": json_of, "application/x-tar": bytes() }),
        "Submission" => json!({
            "application/json": json_of,
            "multipart/form-data": of(json!({
                "type": "object",
                "required": ["request"],
                "properties": {
                    "request": { "$ref": "#/components/schemas/Submission" },
                    "context": { "type": "string", "format": "binary" },
                },
            })),
        }),
        _ => json!({ "application/json": json_of }),
    };
    let required = !matches!(schema, "Cancel" | "Retry");
    json!({ "required": required, "content": content })
}

fn responses(route: &Route) -> Value {
    let mut ok = json!({ "description": "Done." });
    if let Some(schema) = route.answer {
        let schema = format!("#/components/schemas/{schema}");
        ok["content"]["application/json"] = json!({ "schema": { "$ref": schema } });
    }
    for kind in route.also {
        ok["content"][*kind] = json!({ "schema": { "type": "string" } });
    }
    let mut responses = json!({ route.status.to_string(): ok });
    for (status, description) in route.or {
        let mut other = responses[route.status.to_string()].clone();
        other["description"] = json!(description);
        if *status == 202 || *status == 204 {
            other = json!({ "description": description });
        }
        responses[status.to_string()] = other;
    }
    responses["default"] = json!({
        "description": "A problem (RFC 9457).",
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
        },
    });
    responses
}
