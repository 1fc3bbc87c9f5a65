//! A build's whole log as one page, sent while it is read: a log may be larger than memory.

use ashlar_http::Origin;
use ashlar_service::{Error, LogLineAt};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, future, stream};

use super::session::{BuildPath, Visitor, failed, refused};
use crate::app::Shared;
use crate::builds::{Cut, Looks, entries};

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Log</title>\
                    <link rel=\"stylesheet\" href=\"../../assets/style.css\"></head><body><pre>";
const FOOT: &str = "</pre></body></html>\n";
/// Lines that are sent in one piece at most.
const PIECE: usize = 256;

pub(super) async fn page(
    State(shared): State<Shared>,
    Visitor(actor): Visitor,
    origin: Origin,
    BuildPath(build): BuildPath,
) -> Response {
    let look = async {
        let record = shared.service.row(&actor, build).await?;
        let removed = shared.service.log_removed(&actor, build).await?;
        Ok::<_, Error>((record, removed, shared.service.follow(&actor, build, 0).await?))
    };
    let (record, follower) = match look.await {
        Ok((_, Some(removed), _)) => return refused(&origin, removed.into()),
        Ok((record, None, follower)) => (record, follower),
        Err(error) => return failed(&origin, error),
    };
    // Numbers have no gaps: what there is now is known, without a wait for more.
    let count = usize::try_from(record.next_number).unwrap_or(usize::MAX);
    let mut looks = Looks::default();
    let lines = entries(follower, shared.service.clone(), actor)
        .take(count)
        .filter_map(|entry| future::ready(entry.map(LogLineAt::of).transpose()))
        .map(move |at| at.map(|at| shown(&at, &mut looks)))
        .ready_chunks(PIECE)
        .map(|lines| lines.into_iter().collect::<Result<String, Cut>>());
    let around = |text: &str| stream::iter([Ok(text.to_owned())]);
    let body = Body::from_stream(around(HEAD).chain(lines).chain(around(FOOT)));
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response()
}

/// Returns a line as HTML, escaped, with its step's number.
pub(super) fn shown(at: &LogLineAt, looks: &mut Looks) -> String {
    let step = at.line.step.map(|s| format!("#{} ", s.0)).unwrap_or_default();
    let end = if at.line.partial { "" } else { "\n" };
    format!("<span class=\"n\">{step}</span>{}{end}", looks.html(&at.line))
}
