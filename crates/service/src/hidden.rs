//! Values of build variables are in no record: a definition holds keyed hashes in their place, as do
//! the graph, the journal and the cache keys made from it. The values lie sealed beside the build
//! as long as its record, so that a retry has them, and meet their hashes again when a step starts.

use std::collections::BTreeMap;

use ashlar_core::TenantId;
use ashlar_native::Engine;
use ashlar_records::{KEPT_PREFIX, Secret};

use crate::{Definition, Error, Recipe};

/// The name of the secret that holds a build's values.
const NAME: &str = "build-envs";

/// Returns the id of the secret that holds a build's values.
pub(crate) fn id() -> String {
    format!("{KEPT_PREFIX}{NAME}")
}

/// Says whether an id of a secret is the server's own.
pub(crate) fn is_reserved(id: &str) -> bool {
    id.starts_with(KEPT_PREFIX)
}

/// Takes the values out of a definition; returns them sealed up, when there are any.
pub(crate) fn hide(
    engine: &Engine,
    tenant: TenantId,
    definition: &mut Definition,
) -> Result<Option<Secret>, Error> {
    let tenant = tenant.to_string();
    let mut values = BTreeMap::new();
    let mut hide = |name: &str, value: &mut String| {
        let hash = engine.hidden(&tenant, name, value);
        values.insert(hash.clone(), std::mem::replace(value, hash));
    };
    each(&mut definition.recipe, &mut hide);
    if values.is_empty() {
        return Ok(None);
    }
    Ok(Some(Secret::new(serde_json::to_vec(&values).map_err(Error::internal)?)))
}

/// Calls `hide` with the name and value of each variable; for a run with those of its nodes.
fn each(recipe: &mut Recipe, hide: &mut dyn FnMut(&str, &mut String)) {
    match recipe {
        Recipe::Declarative(steps) | Recipe::OnBuild { steps, .. } => {
            steps.build_envs.iter_mut().for_each(|(name, value)| hide(name, value));
        }
        Recipe::Dockerfile(request) => {
            request.build_envs.iter_mut().for_each(|(name, value)| hide(name, value));
        }
        Recipe::Workflow(workflow) => {
            workflow.definitions_mut().for_each(|d| each(&mut d.recipe, hide));
        }
        Recipe::Image { .. } | Recipe::Graph { .. } | Recipe::Other { .. } => {}
    }
}

/// Takes the values out of a build's secrets, by what stands in their place.
pub(crate) fn take(
    secrets: &mut BTreeMap<String, Vec<u8>>,
) -> Result<BTreeMap<String, String>, Error> {
    match secrets.remove(&id()) {
        Some(values) => serde_json::from_slice(&values).map_err(Error::internal),
        None => Ok(BTreeMap::new()),
    }
}
