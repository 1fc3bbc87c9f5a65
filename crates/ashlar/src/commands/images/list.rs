//! `ashlar images list` and `rm`.

use std::process::ExitCode;

use anyhow::Result;
use ashlar_native::Engine;
use ashlar_oci::Reference;
use serde_json::json;

use super::ImageView;
use crate::cli::images::RmArgs;
use crate::output::{self, Table, ago, note};

pub(super) fn list(engine: &Engine, json: bool) -> Result<ExitCode> {
    let images = engine.images().store().list()?;
    if json {
        for (id, image) in &images {
            output::json(&ImageView::of(*id, image))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["NAME", "ID", "PLATFORM", "CREATED", "ORIGIN"]);
    for (id, image) in &images {
        let none = vec!["<none>".to_owned()];
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        for name in if names.is_empty() { none } else { names } {
            let origin = format!("{:?}", image.origin).to_lowercase();
            let platform = image.platform.to_string();
            table.row([name, id.short(), platform, ago(image.created), origin]);
        }
    }
    table.print()?;
    if images.is_empty() {
        note("no images; pull one (ashlar images pull debian) or import a root file system");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remove(engine: &Engine, args: &RmArgs) -> Result<ExitCode> {
    for text in &args.images {
        let removed = engine.images().store().remove(text)?;
        let untagged: Vec<String> = removed.untagged.iter().map(Reference::familiar).collect();
        if args.json.json {
            output::json(&json!({ "untagged": untagged, "deleted": removed.deleted }))?;
            continue;
        }
        untagged.iter().try_for_each(|n| output::line(format!("untagged {n}")))?;
        removed.deleted.iter().try_for_each(|id| output::line(format!("deleted  {id}")))?;
    }
    if !args.json.json {
        note("their layers go with: ashlar gc");
    }
    Ok(ExitCode::SUCCESS)
}
