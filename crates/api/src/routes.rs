//! Every route of the native API once: what it is for and who may use it.

use ashlar_core::identity::Role;

/// One method of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method, in lower case.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// What it does, one sentence.
    pub summary: &'static str,
    /// What a client has to know beyond that, in CommonMark; empty when nothing.
    pub about: &'static str,
    /// The least role; none for routes that need no token.
    pub role: Option<Role>,
    /// The status of success.
    pub status: u16,
    /// Names and types of the query's parameters.
    pub query: &'static [(&'static str, &'static str)],
    /// Headers that it reads; the tenant's goes without saying wherever a token is needed.
    pub headers: &'static [&'static str],
    /// The body that is taken: a schema of the document.
    pub body: Option<&'static str>,
    /// The body that is answered: a schema of the document.
    pub answer: Option<&'static str>,
    /// Other media types that the answer may have.
    pub also: &'static [&'static str],
    /// Other statuses of success, and what they mean.
    pub or: &'static [(u16, &'static str)],
}

const fn route(
    method: &'static str,
    path: &'static str,
    role: Option<Role>,
    status: u16,
    summary: &'static str,
) -> Route {
    let (query, headers, also, or) = (&[], &[], &[], &[]);
    let (about, body, answer) = ("", None, None);
    Route { method, path, summary, about, role, status, query, headers, body, answer, also, or }
}

impl Route {
    const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    const fn headers(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    const fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }

    const fn takes(self, body: &'static str) -> Self {
        Self { body: Some(body), ..self }
    }

    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    const fn or(self, or: &'static [(u16, &'static str)]) -> Self {
        Self { or, ..self }
    }

    const fn answers(self, answer: &'static str) -> Self {
        Self { answer: Some(answer), ..self }
    }
}

/// How a build is asked for.
const SUBMIT: &str = "\
Exactly one of `dockerfile` (its text), `dockerfile_path` (in `context`), `steps` and `image` says \
what is to be done. Files are uploaded first: `POST /api/v1/blobs/missing`, \
`PUT /api/v1/blobs/{digest}` for what is missing, `POST /api/v1/contexts` for the list of them, \
whose answer is `context`; or all at once as a form with the fields `request` (this JSON) and \
`context` (a tar archive).";

/// How a blob that is too large for one request is uploaded.
const UPLOAD: &str = "\
Without `Content-Range` the body is the whole blob. In parts: send each with \
`Content-Range: bytes FIRST-LAST/SIZE`, in order. 202 means that bytes are still missing: go on \
with the next part. 201 comes with the last byte, once the digest was found right. After a break \
`GET /api/v1/uploads/{digest}` says at which byte to go on (`offset`); a part that begins anywhere \
else is refused with 409. 204 means that the blob was there before, and the body was not needed.";

/// How a log is read.
const LOG: &str = "\
As JSON: at most `limit` lines (1000 when absent, 10000 at most), or as many as make about 4 MiB, \
from entry number `from` or time `since` on, and `next`, the `from` to go on with. Go on until an \
answer has no `next`: then the build has ended and there is no more. While it runs, `next` stays and \
the lines may be none; fewer lines than `limit` do not mean the end. `search` finds lines with a \
text, in any case, and goes with JSON alone. `format` (or `Accept`) gives the log as plain text, \
HTML, the raw bytes or server-sent events, whole unless there is a `limit`; with `follow` it goes on \
until the build has ended, as events when no form is named, and never as JSON. A stream of events \
that broke goes on after `Last-Event-ID`. 410: retention removed the log; the problem says when and \
why.";

/// How a journal is read.
const EVENTS: &str = "\
At most `limit` entries (1000 when absent, 10000 at most), or as many as make about 4 MiB, from \
number `from` or time `since` on, and `next`, the `from` to go on with: numbers increase, and those \
of log lines that retention removed are missing. With `follow` or `Accept: text/event-stream` a \
stream of server-sent events until the build has ended; one that broke goes on after \
`Last-Event-ID`.";

/// How a run is asked for.
const RUN: &str = "\
Nodes are builds that need each other, in an order in which what a node needs comes before it. \
`${args.NAME}` in any text of a node stands for the run's argument of that name; one that the run \
does not have is refused. Anything else in `${}` is left to shells and Dockerfiles.";

/// What a list is asked for.
const LIST: &str = "\
`q` has all filters in one text, as the command line and the web pages take it: \
`state:failed label:team=web created:>=2026-01-31T00:00:00Z some words`. The others are single \
filters: `label` is `NAME=VALUE`, `created` is `>=TIME`, `<TIME` or `TIME..TIME` (RFC 3339). Go on with \
`next` as `cursor`, or by `page`, from 1.";

const READ: Option<Role> = Some(Role::Reader);
const WRITE: Option<Role> = Some(Role::Developer);
const MANAGE: Option<Role> = Some(Role::Owner);
const ADMIN: Option<Role> = Some(Role::Admin);

/// All routes.
pub const ROUTES: &[Route] = &[
    route("get", "/api/v1/builds", READ, 200, "Lists builds.")
        .about(LIST)
        .query(&[
            ("q", "string"),
            ("state", "state"),
            ("scope", "string"),
            ("dialect", "string"),
            ("backend", "string"),
            ("executor", "string"),
            ("source", "string"),
            ("kind", "build kind"),
            ("parent", "uuid"),
            ("label", "string"),
            ("created", "string"),
            ("limit", "count"),
            ("cursor", "string"),
            ("page", "number"),
            ("order", "order"),
        ])
        .answers("BuildList"),
    route("post", "/api/v1/builds", WRITE, 201, "Submits a build.")
        .about(SUBMIT)
        .headers(&["Idempotency-Key"])
        .takes("Submission")
        .answers("Build")
        .or(&[(200, "An earlier request with the same key made the build.")]),
    route("get", "/api/v1/builds/{build}", READ, 200, "Shows a build with its definition.")
        .answers("Build"),
    route("patch", "/api/v1/builds/{build}", WRITE, 200, "Changes name, labels, pin, bookmark.")
        .takes("Change")
        .answers("Build"),
    route("delete", "/api/v1/builds/{build}", WRITE, 204, "Forgets a build that has ended."),
    route("get", "/api/v1/builds/{build}/events", READ, 200, "Reads or follows the journal.")
        .about(EVENTS)
        .headers(&["Last-Event-ID"])
        .query(&[("from", "count"), ("since", "time"), ("limit", "count"), ("follow", "boolean")])
        .answers("Entries")
        .also(&["text/event-stream"]),
    route("get", "/api/v1/builds/{build}/logs", READ, 200, "Reads, searches or follows the log.")
        .about(LOG)
        .headers(&["Last-Event-ID"])
        .query(&[
            ("from", "count"),
            ("since", "time"),
            ("limit", "count"),
            ("step", "count"),
            ("search", "string"),
            ("format", "log format"),
            ("follow", "boolean"),
        ])
        .answers("Lines")
        .also(&["text/event-stream", "text/plain", "text/html", "application/octet-stream"]),
    route("post", "/api/v1/builds/{build}/cancel", WRITE, 202, "Asks a build to stop.")
        .takes("Cancel")
        .answers("Build"),
    route("post", "/api/v1/builds/{build}/retry", WRITE, 201, "Builds again.")
        .headers(&["Idempotency-Key"])
        .takes("Retry")
        .answers("Build")
        .or(&[(200, "An earlier request with the same key made the build.")]),
    route("post", "/api/v1/builds/{build}/promote", WRITE, 200, "Moves tags to a build.")
        .takes("Promote")
        .answers("Build"),
    route("get", "/api/v1/builds/{build}/artifacts", READ, 200, "Lists artifacts and tags.")
        .answers("Artifacts"),
    route(
        "get",
        "/api/v1/builds/{build}/artifacts/{name}",
        READ,
        200,
        "Downloads an artifact; an image as an archive.",
    )
    .query(&[
        ("format", "string"),
        ("name", "string"),
        ("compression", "string"),
        ("level", "integer"),
        ("annotations", "string"),
    ])
    .headers(&["Range"])
    .also(&["application/octet-stream", "application/x-tar"])
    .or(&[(206, "A part of it.")]),
    route(
        "get",
        "/api/v1/builds/{build}/artifacts/rootfs.ext4",
        READ,
        200,
        "Downloads the image as a bootable root file system.",
    )
    .query(&[("size_mib", "integer")])
    .headers(&["Range"])
    .also(&["application/octet-stream"])
    .or(&[(206, "A part of it.")]),
    route("delete", "/api/v1/builds/{build}/artifacts/{name}", WRITE, 200, "Removes an artifact.")
        .answers("Build"),
    route("get", "/api/v1/builds/{build}/image", READ, 200, "Shows the image's config.")
        .answers("Any"),
    route("post", "/api/v1/blobs/missing", WRITE, 200, "Says which blobs have to be uploaded.")
        .takes("Digests")
        .answers("Missing"),
    route("get", "/api/v1/blobs/{digest}", READ, 200, "Downloads a blob.")
        .headers(&["Range"])
        .also(&["application/octet-stream"])
        .or(&[(206, "A part of it.")]),
    route("put", "/api/v1/blobs/{digest}", WRITE, 201, "Uploads a blob, or a part of one.")
        .about(UPLOAD)
        .headers(&["Content-Range"])
        .takes("Bytes")
        .or(&[(202, "Kept; bytes are still missing."), (204, "The blob is there already.")]),
    route("get", "/api/v1/uploads/{digest}", WRITE, 200, "Says where an upload goes on.")
        .answers("Progress"),
    route("post", "/api/v1/contexts", WRITE, 201, "Keeps a context: a list of files, or a tar.")
        .takes("Context")
        .answers("Kept"),
    route("get", "/api/v1/tags", READ, 200, "Lists tags.")
        .query(&[("prefix", "string"), ("after", "string"), ("limit", "count")])
        .answers("Tags"),
    route("delete", "/api/v1/tags/{tag}", WRITE, 204, "Takes a tag away."),
    route("get", "/api/v1/whoami", READ, 200, "Says whose token it is.").answers("Whoami"),
    route("get", "/api/v1/tokens", MANAGE, 200, "Lists tokens, without their texts.")
        .query(&[("after", "string"), ("limit", "count")])
        .answers("Tokens"),
    route("post", "/api/v1/tokens", MANAGE, 201, "Makes a token; its text is shown once.")
        .takes("NewToken")
        .answers("Token"),
    route("delete", "/api/v1/tokens/{token}", MANAGE, 204, "Revokes a token."),
    route("get", "/api/v1/principals", READ, 200, "Lists the tenant's principals.")
        .query(&[("after", "string"), ("limit", "count")])
        .answers("Any"),
    route("get", "/api/v1/tenants", READ, 200, "Lists the tenants that the caller may know of.")
        .query(&[("after", "string"), ("limit", "count")])
        .answers("Any"),
    route("post", "/api/v1/tenants", ADMIN, 201, "Makes a tenant.")
        .takes("NewTenant")
        .answers("Tenant"),
    route("get", "/api/v1/scopes/{scope}/policy", READ, 200, "Shows how builds of a scope queue.")
        .answers("NewPolicy"),
    route("put", "/api/v1/scopes/{scope}/policy", WRITE, 204, "Sets how builds of a scope queue.")
        .takes("NewPolicy"),
    route("get", "/api/v1/scopes/{scope}/retention", READ, 200, "Shows how long builds are kept.")
        .query(&[("dialect", "string")])
        .answers("Retention"),
    route(
        "put",
        "/api/v1/scopes/{scope}/retention",
        MANAGE,
        204,
        "Sets how long builds of a scope are kept.",
    )
    .takes("Retention"),
    route("get", "/api/v1/retention", READ, 200, "Lists what tenant and scopes say of retention.")
        .query(&[("after", "string"), ("limit", "count")])
        .answers("Retentions"),
    route("put", "/api/v1/retention", MANAGE, 204, "Sets how long the tenant's builds are kept.")
        .takes("Retention"),
    route("post", "/api/v1/workflows", WRITE, 201, "Submits a run of builds.")
        .about(RUN)
        .headers(&["Idempotency-Key"])
        .takes("Workflow")
        .answers("Build")
        .or(&[(200, "An earlier request with the same key made the run.")]),
    route("get", "/api/v1/builds/{build}/nodes", READ, 200, "Shows where a run's nodes are.")
        .answers("Nodes"),
    route("get", "/api/v1/audit", MANAGE, 200, "Reads the audit log, newest first.")
        .query(&[("before", "integer"), ("limit", "count")])
        .answers("Any"),
    route("get", "/api/openapi.json", None, 200, "Shows this document.").answers("Any"),
    route("get", "/healthz", None, 200, "Says that the process answers.").answers("Any"),
    route("get", "/readyz", None, 200, "Says that the process can take builds.").answers("Any"),
    route("get", "/metrics", None, 200, "Shows numbers in Prometheus' text format.")
        .also(&["text/plain"]),
];
