//! From a request to its handler, in the original's order of checks: route, token, method, project
//! and build, body.

use std::sync::Arc;

use ashlar_core::TenantId;
use ashlar_http::Origin;
use ashlar_service::{Actor, DialectStore, ErrorKind, Role, Service};
use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Answer, Refusal, empty, reply};
use crate::list::{Asked, parameters};
use crate::path::{BuildRoute, ProjectRoute, Route};
use crate::{
    DIALECT, auth, body, bookmarks, builds, code, create, listing, patch, probes, projects,
    status_rows, stream, upload, users,
};

/// Who asks, and where: what every handler gets.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) service: Arc<Service>,
    pub(crate) store: DialectStore,
    /// Whoever asks, acting for the owner that the path names.
    pub(crate) actor: Actor,
    pub(crate) asked: Asked,
}

impl Context {
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        Some(self.actor.tenant.id)
    }

    /// Fails unless the actor may change things.
    pub(crate) fn may_change(&self) -> Result<(), Refusal> {
        Ok(self.actor.needs(Role::Developer)?)
    }

    /// Returns the owner's name as answers have it. The admin's own tenant goes by the admin's
    /// name: the CLI takes the name that it logged in with for the owner.
    pub(crate) fn owner(&self) -> &str {
        let admin = self.service.admin();
        match self.actor.tenant.id == admin.tenant.id {
            true => &admin.principal.name,
            false => &self.actor.tenant.name,
        }
    }

    /// Lets the actor act for the owner that a path names.
    async fn acting_for(mut self, owner: &str) -> Result<Self, Refusal> {
        let own = [self.owner(), &self.actor.tenant.name, &self.actor.principal.name];
        if !own.contains(&owner) {
            self.actor = self.service.act_for(&self.actor, owner).await?;
        }
        Ok(self)
    }
}

/// Answers a request.
pub(crate) async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    answer(service, parts, body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(service: Arc<Service>, mut parts: Parts, body: Body) -> Answer {
    let route = Route::parse(parts.uri.path()).ok_or(Refusal::NoRoute)?;
    let old_socket = is_old_socket(&route, parts.uri.path());
    let parameters = parameters(parts.uri.query().unwrap_or_default());
    if old_socket {
        token_of_query(&mut parts.headers, &parameters);
    }
    let actor = match auth::actor(&service, &parts.headers).await {
        Ok(None) if !route.is_open() => Err(auth::missing(&service)),
        other => other,
    };
    let actor = match actor {
        // The old sockets' own refusal.
        Err(Refusal::Unauthorized(_)) if old_socket => {
            return Ok(reply(StatusCode::FORBIDDEN, &json!({ "status": "not_authorized" })));
        }
        other => other?,
    };
    let method = match parts.method {
        Method::HEAD => Method::GET,
        ref other => other.clone(),
    };
    if !route.methods().contains(&method) {
        return Err(Refusal::Method(parts.method.to_string()));
    }
    let Some(actor) = actor else { return open(&service, route, &parts.headers, body).await };
    if route.is_open() {
        return open(&service, route, &parts.headers, body).await;
    }
    let asked = Asked { url: url(&parts), parameters };
    let store = service.dialect(DIALECT);
    let context = Context { service, store, actor, asked };
    known(context, route, &method, parts, body).await
}

fn is_old_socket(route: &Route, path: &str) -> bool {
    let socket =
        matches!(route, Route::Project(_, _, ProjectRoute::Build(_, BuildRoute::LogStream)));
    socket && !path.trim_start_matches('/').starts_with("api/")
}

/// Old sockets may have the token in the query.
fn token_of_query(headers: &mut HeaderMap, parameters: &[(String, String)]) {
    if headers.contains_key(header::AUTHORIZATION) {
        return;
    }
    let token = parameters.iter().find(|(name, _)| name == "token" || name == "Token");
    if let Some((_, token)) = token
        && let Ok(value) = format!("Token {token}").parse()
    {
        headers.insert(header::AUTHORIZATION, value);
    }
}

/// Returns the URL that the client asked for, without its query.
fn url(parts: &Parts) -> String {
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    Origin::of(parts).url(uri.path())
}

/// Routes that ask for no token.
async fn open(service: &Service, route: Route, headers: &HeaderMap, body: Body) -> Answer {
    match route {
        Route::Login => users::log_in(service, &body::fields(headers, body, true).await?).await,
        Route::CliVersion | Route::PlatformVersion | Route::LibraryVersion => probes::versions(),
        Route::ChartVersion => probes::chart_version(),
        Route::LogHandler => probes::log_handler(),
        _ => Ok(empty(StatusCode::OK)),
    }
}

async fn known(
    context: Context,
    route: Route,
    method: &Method,
    parts: Parts,
    body: Body,
) -> Answer {
    match route {
        Route::WhoAmI => users::who_am_i(&context.actor),
        Route::Cluster => probes::cluster(),
        Route::Node(sequence) => probes::node(sequence),
        Route::CreateProject => {
            projects::create(&context, &body::fields(&parts.headers, body, false).await?).await
        }
        Route::Projects(owner) => projects::list(&context.acting_for(&owner).await?).await,
        Route::ProjectNames(owner) => projects::names(&context.acting_for(&owner).await?).await,
        Route::Bookmarks(user, kind) => bookmarks::list(&context, &user, kind).await,
        Route::Archives(user, kind) => {
            bookmarks::archives(&context.acting_for(&user).await?, kind).await
        }
        Route::Project(owner, name, route) => {
            let context = context.acting_for(&owner).await?;
            project(context, &name, route, method, parts, body).await
        }
        _ => Ok(empty(StatusCode::OK)),
    }
}

async fn project(
    context: Context,
    name: &str,
    route: ProjectRoute,
    method: &Method,
    parts: Parts,
    body: Body,
) -> Answer {
    use ProjectRoute as P;
    let c = &context;
    if route == P::Restore {
        return projects::restore(c, name).await;
    }
    let found = projects::find(c, name).await?;
    match route {
        P::Itself if *method == Method::GET => projects::show(c, &found).await,
        P::Itself if *method == Method::DELETE => projects::delete(c, found).await,
        P::Itself => {
            projects::change(c, found, &body::fields(&parts.headers, body, false).await?).await
        }
        P::Archive => projects::archive(c, found).await,
        P::Restore => Err(Refusal::NotFound),
        P::Bookmark => bookmarks::add(c, "project", found.id).await,
        P::Unbookmark => bookmarks::take_back(c, found.id).await,
        P::Repo => code::repo(&found),
        P::RepoUpload => upload::upload(c, found, parts, body).await,
        P::RepoDownload => code::download(c, &found).await,
        P::RepoExternal => code::external(&found),
        P::RepoSync => code::sync(&found),
        P::Ci => Err(Refusal::Text("Continuous integration is not offered here.".into())),
        P::Builds if *method == Method::GET => listing::list(c, &found).await,
        P::Builds => {
            create::create(c, &found, &body::fields(&parts.headers, body, false).await?).await
        }
        P::BuildsInvalidate => listing::invalidate_all(c, &found).await,
        P::Build(number, BuildRoute::Restore) => {
            let target = builds::find_archived(c, &found, number).await?;
            builds::restore(c, target).await
        }
        P::Build(number, route) => {
            let target = builds::find(c, &found, number).await;
            if route == BuildRoute::LogStream {
                return stream::answer(context, found, target, parts).await;
            }
            let subject = Subject { context: c, project: &found, build: target? };
            build(subject, route, method, parts, body).await
        }
    }
}

/// The build that a request is about.
pub(crate) struct Subject<'a> {
    pub(crate) context: &'a Context,
    pub(crate) project: &'a crate::model::FoundProject,
    pub(crate) build: crate::model::FoundBuild,
}

async fn build(
    subject: Subject<'_>,
    route: BuildRoute,
    method: &Method,
    parts: Parts,
    body: Body,
) -> Answer {
    use BuildRoute as B;
    let fields = || body::fields(&parts.headers, body, false);
    match route {
        B::Itself if *method == Method::GET => builds::show(subject).await,
        B::Itself if *method == Method::DELETE => builds::delete(subject).await,
        B::Itself => patch::patch(subject, &fields().await?).await,
        B::Statuses if *method == Method::GET => status_rows::list(subject).await,
        B::Statuses | B::Reconcile => {
            let created = route == B::Statuses;
            status_rows::post(subject, &fields().await?, created).await
        }
        B::Status(uuid) => status_rows::show(subject, &uuid).await,
        B::Logs => stream::whole(subject).await,
        B::Stop => builds::stop(subject).await,
        B::Invalidate => builds::invalidate(subject).await,
        B::Bookmark => {
            let id = subject.build.id();
            subject.context.service.bookmark(&subject.context.actor, id, true).await?;
            bookmarks::add(subject.context, "build", id.uuid()).await
        }
        B::Unbookmark => {
            let id = subject.build.id();
            let answer = bookmarks::take_back(subject.context, id.uuid()).await?;
            subject.context.service.bookmark(&subject.context.actor, id, false).await?;
            Ok(answer)
        }
        B::Archive => builds::archive(subject).await,
        B::CodeReference if *method == Method::GET => code::reference(subject).await,
        B::CodeReference => code::post_reference(subject, &fields().await?).await,
        B::Heartbeat => {
            subject.context.may_change()?;
            Ok(empty(StatusCode::OK))
        }
        B::Restore | B::LogStream => Err(Refusal::NotFound),
    }
}

/// Says whether an error means that somebody else was faster.
pub(crate) fn is_conflict(error: &ashlar_service::Error) -> bool {
    error.kind() == ErrorKind::Conflict
}
