//! Changes to a build's record.

use axum::http::StatusCode;

use crate::body::Fields;
use crate::builds;
use crate::create::free_name;
use crate::dispatch::{Context, Subject, is_conflict};
use crate::error::{Answer, Refusal, reply};
use crate::model::{Details, FoundBuild, build_names};

/// The longest Dockerfile that somebody may report, in bytes.
const DOCKERFILE_BYTES_MAX: usize = 1 << 20;
/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 5;

pub(crate) async fn patch(subject: Subject<'_>, fields: &Fields) -> Answer {
    let Subject { context, project, build } = subject;
    context.may_change()?;
    let old = build.build.name.clone();
    let name = fields.slug("name")?.filter(|name| Some(name) != old.as_ref());
    let tags = fields.patched_tags(build.build.tags.as_ref())?;
    let (has_description, description) = (fields.has("description"), fields.text("description")?);
    let dockerfile = dockerfile(fields)?;
    let series = name.clone();
    let name = match name {
        Some(name) => Some(free_name(context, project, &name).await?),
        None => None,
    };
    if let (Some(name), Some(series)) = (&name, &series) {
        let names = Names { old: old.as_deref(), new: name, series };
        rename(context, project.id, &build, names).await?;
    }
    if let Some(text) = dockerfile {
        edit_details(context, &build, |d| d.dockerfile = Some(text.clone())).await?;
    }
    let changed = builds::edit(context, build, |b| {
        if let Some(name) = &name {
            b.name = Some(name.clone());
        }
        if has_description {
            b.description.clone_from(&description);
        }
        if let Some(tags) = &tags {
            b.tags.clone_from(tags);
        }
        builds::touch(b);
    });
    let changed = changed.await?;
    Ok(reply(StatusCode::OK, &builds::page(context, project, &changed).await?))
}

fn dockerfile(fields: &Fields) -> Result<Option<String>, Refusal> {
    let text = fields.text("dockerfile")?;
    if text.as_ref().is_some_and(|t| t.len() > DOCKERFILE_BYTES_MAX) {
        let why = format!("Ensure this field has no more than {DOCKERFILE_BYTES_MAX} bytes.");
        return Err(Refusal::Field("dockerfile", why));
    }
    Ok(text)
}

/// The names in a renaming.
struct Names<'a> {
    old: Option<&'a str>,
    new: &'a str,
    /// The name that was wished for, which other builds may have had before.
    series: &'a str,
}

/// Gives a build another name: here, and for everybody else.
async fn rename(
    context: &Context,
    project: uuid::Uuid,
    build: &FoundBuild,
    names: Names<'_>,
) -> Result<(), Refusal> {
    let (tenant, kind, id) = (context.tenant(), build_names(project), build.id());
    context.store.add_alias(tenant, &kind, names.new, id.uuid()).await?;
    context.service.rename(&context.actor, id, names.series).await?;
    if let Some(old) = names.old {
        context.store.remove_alias(tenant, &kind, old).await?;
    }
    Ok(())
}

/// Changes what only a build's own page shows, again when somebody else was faster.
pub(crate) async fn edit_details(
    context: &Context,
    build: &FoundBuild,
    change: impl Fn(&mut Details),
) -> Result<Details, Refusal> {
    let (tenant, id) = (context.tenant(), build.id().uuid());
    for _ in 0..TRIES {
        let document = context.store.document::<Details>(tenant, id).await?;
        let document = document.ok_or(Refusal::NotFound)?;
        let mut details = document.value;
        change(&mut details);
        match context.store.replace_document(tenant, id, document.version, &details).await {
            Err(error) if is_conflict(&error) => {}
            other => {
                other?;
                return Ok(details);
            }
        }
    }
    Err(Refusal::Text("The build is being changed by others; try again.".into()))
}
