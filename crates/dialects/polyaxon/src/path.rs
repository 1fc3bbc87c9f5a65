//! Which route a path is. Slashes at the end and doubled ones do not matter, nor does `.json`.

use axum::http::Method;

/// What follows a build's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BuildRoute {
    Itself,
    Statuses,
    Status(String),
    Logs,
    LogStream,
    Stop,
    Invalidate,
    Bookmark,
    Unbookmark,
    Archive,
    Restore,
    CodeReference,
    Heartbeat,
    Reconcile,
}

/// What follows a project's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProjectRoute {
    Itself,
    Archive,
    Restore,
    Bookmark,
    Unbookmark,
    Repo,
    RepoUpload,
    RepoDownload,
    RepoExternal,
    RepoSync,
    Ci,
    Builds,
    BuildsInvalidate,
    Build(u64, BuildRoute),
}

/// What a user has marked or put away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Builds,
    Projects,
    /// Jobs, experiments and groups, of which there are none here.
    Nothing,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    WhoAmI,
    Login,
    Logout,
    SessionRefresh,
    CliVersion,
    PlatformVersion,
    LibraryVersion,
    ChartVersion,
    LogHandler,
    Cluster,
    Node(u64),
    CreateProject,
    Projects(String),
    ProjectNames(String),
    Project(String, String, ProjectRoute),
    Bookmarks(String, Kept),
    Archives(String, Kept),
}

/// First segments that are never owners.
const RESERVED: [&str; 12] = [
    "users",
    "superusers",
    "versions",
    "log_handler",
    "cluster",
    "nodes",
    "bookmarks",
    "archives",
    "activitylogs",
    "searches",
    "projects",
    "options",
];
const OWNER_MAX: usize = 156;
const PROJECT_MAX: usize = 256;
const UUID_MAX: usize = 36;
/// More segments than any route has.
const SEGMENTS_MAX: usize = 16;

impl Route {
    /// Reads a path.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut segments: Vec<&str> =
            path.split('/').filter(|s| !s.is_empty()).take(SEGMENTS_MAX).collect();
        if let Some(last) = segments.last_mut() {
            *last = last.strip_suffix(".json").unwrap_or(last);
        }
        match segments.as_slice() {
            ["healthz"] => Some(Self::Health),
            ["api", "v1", rest @ ..] => api(rest),
            // Clients before 0.5.3 read logs here; the original answers without `ws` too.
            ["ws", "v1", owner, project, "builds", id, "logs"]
            | ["v1", owner, project, "builds", id, "logs"] => {
                project_route(owner, project, &["builds", id, "logs", "stream"])
            }
            _ => None,
        }
    }

    /// Returns the methods that the route has.
    pub(crate) fn methods(&self) -> &'static [Method] {
        const GET: &[Method] = &[Method::GET];
        const POST: &[Method] = &[Method::POST];
        const DELETE: &[Method] = &[Method::DELETE];
        const GET_POST: &[Method] = &[Method::GET, Method::POST];
        const OBJECT: &[Method] = &[Method::GET, Method::PATCH, Method::PUT, Method::DELETE];
        use {BuildRoute as B, ProjectRoute as P};
        match self {
            Self::Login | Self::SessionRefresh | Self::CreateProject => POST,
            Self::Project(_, _, project) => match project {
                P::Itself | P::Build(_, B::Itself) => OBJECT,
                P::RepoUpload => &[Method::PUT],
                P::Repo | P::RepoDownload => GET,
                P::Ci => &[Method::POST, Method::DELETE],
                P::Builds | P::Build(_, B::Statuses | B::CodeReference) => GET_POST,
                P::Build(_, B::Status(_) | B::Logs | B::LogStream) => GET,
                P::Unbookmark | P::Build(_, B::Unbookmark) => DELETE,
                _ => POST,
            },
            _ => GET,
        }
    }

    /// Says whether the route asks for no token.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Health
                | Self::Login
                | Self::Logout
                | Self::CliVersion
                | Self::PlatformVersion
                | Self::LibraryVersion
                | Self::ChartVersion
                | Self::LogHandler
        )
    }
}

fn api(segments: &[&str]) -> Option<Route> {
    Some(match segments {
        ["users"] => Route::WhoAmI,
        ["users", "token"] => Route::Login,
        ["users", "logout"] => Route::Logout,
        ["users", "session", "refresh"] => Route::SessionRefresh,
        ["versions", "cli"] => Route::CliVersion,
        ["versions", "platform"] => Route::PlatformVersion,
        ["versions", "lib"] => Route::LibraryVersion,
        ["versions", "chart"] => Route::ChartVersion,
        ["log_handler"] => Route::LogHandler,
        ["cluster"] => Route::Cluster,
        ["nodes", number] => Route::Node(digits(number)?),
        ["projects"] => Route::CreateProject,
        ["bookmarks", user, kind] if slug(user, OWNER_MAX) => {
            Route::Bookmarks((*user).to_owned(), kept(kind)?)
        }
        ["archives", user, kind] if slug(user, OWNER_MAX) => {
            Route::Archives((*user).to_owned(), kept(kind)?)
        }
        [owner, ..] if RESERVED.contains(owner) || !slug(owner, OWNER_MAX) => return None,
        [owner] => Route::Projects((*owner).to_owned()),
        [owner, "projects", "names"] => Route::ProjectNames((*owner).to_owned()),
        [owner, project, rest @ ..] => return project_route(owner, project, rest),
        [] => return None,
    })
}

fn kept(kind: &str) -> Option<Kept> {
    match kind {
        "builds" => Some(Kept::Builds),
        "projects" => Some(Kept::Projects),
        "jobs" | "experiments" | "groups" => Some(Kept::Nothing),
        _ => None,
    }
}

fn project_route(owner: &str, project: &str, rest: &[&str]) -> Option<Route> {
    use ProjectRoute as P;
    if !slug(owner, OWNER_MAX) || !slug(project, PROJECT_MAX) {
        return None;
    }
    let route = match rest {
        [] => P::Itself,
        ["archive"] => P::Archive,
        ["restore"] => P::Restore,
        ["bookmark"] => P::Bookmark,
        ["unbookmark"] => P::Unbookmark,
        ["repo"] => P::Repo,
        ["repo", "upload"] => P::RepoUpload,
        ["repo", "download"] => P::RepoDownload,
        ["repo", "external"] => P::RepoExternal,
        ["repo", "sync"] => P::RepoSync,
        ["ci"] => P::Ci,
        ["builds"] => P::Builds,
        ["builds", "invalidate"] => P::BuildsInvalidate,
        ["builds", id, rest @ ..] => P::Build(digits(id)?, build_route(rest)?),
        _ => return None,
    };
    Some(Route::Project(owner.to_owned(), project.to_owned(), route))
}

fn build_route(rest: &[&str]) -> Option<BuildRoute> {
    use BuildRoute as B;
    Some(match rest {
        [] => B::Itself,
        ["statuses"] => B::Statuses,
        ["statuses", uuid] if word(uuid) => B::Status((*uuid).to_owned()),
        ["logs"] => B::Logs,
        ["logs", "stream"] => B::LogStream,
        ["stop"] => B::Stop,
        ["invalidate"] => B::Invalidate,
        ["bookmark"] => B::Bookmark,
        ["unbookmark"] => B::Unbookmark,
        ["archive"] => B::Archive,
        ["restore"] => B::Restore,
        ["coderef"] => B::CodeReference,
        ["_heartbeat"] => B::Heartbeat,
        ["_reconcile"] => B::Reconcile,
        _ => return None,
    })
}

/// Says whether a text is a slug: what names of users, projects and builds are made of.
pub(crate) fn slug(text: &str, max: usize) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=max).contains(&text.len()) && text.bytes().all(fits)
}

fn word(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=UUID_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// Reads a number; one that is too large for any thing here stands for none of them.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(route: BuildRoute) -> Option<Route> {
        Some(Route::Project("root".into(), "quick-start".into(), ProjectRoute::Build(1, route)))
    }

    #[test]
    fn slashes_and_suffixes_do_not_matter() {
        for path in [
            "/api/v1/root/quick-start/builds/1/logs",
            "/api/v1/root/quick-start/builds/1/logs/",
            "/api/v1/root/quick-start//builds/1/logs",
            "//api/v1///root/quick-start/builds/1/logs//",
            "/api/v1/root/quick-start/builds/1/logs.json",
            "/api/v1/root/quick-start/builds/1/logs.json/",
        ] {
            assert_eq!(Route::parse(path), build(BuildRoute::Logs), "{path}");
        }
    }

    #[test]
    fn the_log_stream_has_three_paths() {
        for path in [
            "/api/v1/root/quick-start/builds/1/logs/stream/",
            "/ws/v1/root/quick-start/builds/1/logs/",
            "/v1/root/quick-start/builds/1/logs",
        ] {
            assert_eq!(Route::parse(path), build(BuildRoute::LogStream), "{path}");
        }
    }

    #[test]
    fn paths_that_fit_no_pattern_are_no_routes() {
        let long = format!("/api/v1/{}", "x".repeat(157));
        for path in [
            "/",
            "/api/v1/",
            "/api/v2/users/",
            "/api/v1/users/nobody/",
            "/api/v1/options",
            "/api/v1/ro%20ot/",
            "/api/v1/root/quick.start/",
            "/api/v1/root/quick-start/builds/x/",
            "/api/v1/root/quick-start/builds/1x/",
            "/api/v1/root/quick-start/builds/1/restart/",
            "/api/v1/root/quick-start/builds/1/statuses/a-b/",
            "/api/v1/bookmarks/root/cats/",
            "/ws/v1/root/quick-start/builds/1/resources/",
            &long,
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }

    #[test]
    fn reserved_words_come_before_owners() {
        assert_eq!(Route::parse("/api/v1/users/"), Some(Route::WhoAmI));
        assert_eq!(Route::parse("/api/v1/projects/"), Some(Route::CreateProject));
        assert_eq!(Route::parse("/api/v1/root/"), Some(Route::Projects("root".into())));
        assert_eq!(Route::parse("/api/v1/nodes/1/"), Some(Route::Node(1)));
        let huge = "/api/v1/root/quick-start/builds/99999999999999999999999/";
        assert!(
            Route::parse(huge).is_some(),
            "a number too large for any build is not found, as JSON"
        );
    }
}
