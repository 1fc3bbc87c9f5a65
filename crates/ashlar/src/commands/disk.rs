//! `ashlar du` and `ashlar gc`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use ashlar_core::{BuildId, Timestamp};
use ashlar_native::gc::{GcPolicy, Holder, Item, ItemKind, Plan, Usage, Use};
use ashlar_oci::PullPolicy;
use ashlar_records::{At, FORGET_AT_ONCE, Filter, Order, Page};
use serde::Serialize;
use serde_json::json;

use super::only_here;
use crate::cli::disk::{DuArgs, GcArgs};
use crate::output::{self, Table, bytes, line, note};
use crate::settings::Settings;

/// The newest builds, which no age makes forgotten.
const BUILDS_KEPT_MIN: usize = 50;

/// An item for programs.
#[derive(Debug, Serialize)]
struct ItemView<'a> {
    kind: &'static str,
    id: String,
    name: &'a str,
    bytes: u64,
    last_used: Timestamp,
    held_by: Vec<String>,
    reclaimable: bool,
}

impl<'a> ItemView<'a> {
    fn of(item: &'a Item) -> Self {
        Self {
            kind: item.kind.word(),
            id: id(&item.kind),
            name: &item.name,
            bytes: item.bytes,
            last_used: timestamp(item.last_used),
            held_by: item.holders.iter().map(holder).collect(),
            reclaimable: item.holders.is_empty(),
        }
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn id(kind: &ItemKind) -> String {
    match kind {
        ItemKind::Blob(digest) | ItemKind::Layer(digest) => digest.to_string(),
        ItemKind::CacheMount(place) | ItemKind::FailedStep(place) => {
            place.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
        }
        ItemKind::Records | ItemKind::Uploads | ItemKind::Contexts | ItemKind::History => {
            kind.word().to_owned()
        }
    }
}

fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Image(name) => format!("image {name}"),
        Holder::Server => "the server".to_owned(),
        Holder::Running => "a running step".to_owned(),
        Holder::Always => "the data directory".to_owned(),
    }
}

/// Runs `ashlar du`.
pub(super) fn du(settings: &Settings, args: &DuArgs) -> Result<ExitCode> {
    only_here(settings, "du is only for the data directory")?;
    let usage = settings.engine(PullPolicy::Default)?.usage()?;
    if args.json.json {
        usage.items.iter().try_for_each(|i| output::json(&ItemView::of(i)))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.verbose {
        let mut table = Table::new(["KIND", "ID", "SIZE", "USED", "HELD BY", "WHAT"]);
        let mut items: Vec<&Item> = usage.items.iter().collect();
        items.sort_by_key(|i| std::cmp::Reverse(i.bytes));
        for item in items {
            let view = ItemView::of(item);
            let short = view.id.trim_start_matches("sha256:").chars().take(12).collect();
            let held = match (view.held_by.is_empty(), item.good_for) {
                (false, _) => view.held_by.join(", "),
                (true, Use::Cache) => "cache".to_owned(),
                (true, Use::None) => "nobody".to_owned(),
            };
            let used = output::ago(view.last_used);
            table.row([view.kind.into(), short, bytes(item.bytes), used, held, item.name.clone()]);
        }
        table.print()?;
    } else {
        summary(&usage).print()?;
    }
    note(format!(
        "{} in all, {} free on the disk; `ashlar gc` makes room",
        bytes(usage.total_bytes()),
        bytes(usage.free_bytes)
    ));
    Ok(ExitCode::SUCCESS)
}

fn summary(usage: &Usage) -> Table {
    let mut kinds: BTreeMap<&str, (u64, u64, u64, u64)> = BTreeMap::new();
    for item in &usage.items {
        let sums = kinds.entry(item.kind.word()).or_default();
        sums.0 += 1;
        sums.1 += item.bytes;
        if !item.holders.is_empty() {
            sums.2 += item.bytes;
        } else {
            sums.3 += item.bytes;
        }
    }
    let mut table = Table::new(["KIND", "COUNT", "SIZE", "NEEDED", "CAN GO"]);
    for (kind, (count, all, needed, free)) in kinds {
        table.row([kind.into(), count.to_string(), bytes(all), bytes(needed), bytes(free)]);
    }
    table
}

/// Runs `ashlar gc`.
pub(super) fn gc(settings: &Settings, args: &GcArgs) -> Result<ExitCode> {
    only_here(settings, "gc is only for the data directory")?;
    let policy =
        GcPolicy { used_bytes_max: args.max_used, free_bytes_min: args.min_free, keep: args.keep };
    let (usage, plan) = settings.engine(PullPolicy::Default)?.collect(&policy, args.dry_run)?;
    let forgotten = match args.history {
        Some(age) => forget(settings, age, args.dry_run)?,
        None => Vec::new(),
    };
    if args.json.json {
        print_json(&usage, &plan, args.dry_run, &forgotten)?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for (index, why) in &plan.remove {
        let item = &usage.items[*index];
        let what = if item.name.is_empty() { id(&item.kind) } else { item.name.clone() };
        let (kind, size) = (item.kind.word(), bytes(item.bytes));
        line(output::clean(&format!("{verb} {kind} {what} ({size}): {}", why.sentence())))?;
    }
    let builds = match forgotten.len() {
        0 => String::new(),
        n => format!(", {n} builds forgotten"),
    };
    let count = plan.remove.len();
    note(format!("{verb} {count} items, {}{builds}", bytes(plan.freed_bytes)));
    if plan.missing_bytes > 0 {
        note(format!(
            "{} over the bound is needed by images, running builds or --keep; remove images with \
             `ashlar images rm`, see `ashlar du -v`",
            bytes(plan.missing_bytes)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(usage: &Usage, plan: &Plan, dry_run: bool, builds: &[BuildId]) -> Result<()> {
    let removed: Vec<_> = plan
        .remove
        .iter()
        .map(|(index, why)| {
            let mut view = serde_json::to_value(ItemView::of(&usage.items[*index]))?;
            view["why"] = why.sentence().into();
            Ok(view)
        })
        .collect::<Result<_>>()?;
    output::json(&json!({
        "dry_run": dry_run,
        "removed": removed,
        "freed_bytes": plan.freed_bytes,
        "missing_bytes": plan.missing_bytes,
        "forgotten_builds": builds,
    }))?;
    Ok(())
}

/// Forgets builds that ended longer ago than `age`.
fn forget(settings: &Settings, age: Duration, dry_run: bool) -> Result<Vec<BuildId>> {
    let history = settings.history()?;
    let now = ashlar_records::now();
    // A server in the same place forgets its builds by rules of its own.
    let filter = Filter { tenant: Some(history.tenant()), ..Filter::default() };
    let (mut at, mut seen, mut due) = (At::Start, 0, Vec::new());
    loop {
        let page = Page { size: 500, at, order: Order::NewestFirst };
        let listed = history.list(&filter, &page)?;
        for record in &listed.records {
            seen += 1;
            let old = record.finished_at.is_some_and(|t| now.since(t) > age);
            if seen > BUILDS_KEPT_MIN && old && !record.pinned {
                due.push(record.submission.build);
            }
        }
        match listed.next {
            Some(next) => at = At::After(next),
            None => break,
        }
    }
    if dry_run {
        return Ok(due);
    }
    let mut forgotten = Vec::new();
    for chunk in due.chunks(FORGET_AT_ONCE) {
        forgotten.extend(history.forget(chunk)?);
    }
    Ok(forgotten)
}
