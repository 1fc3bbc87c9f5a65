//! `ashlar cache`: the named directories behind `RUN --mount=type=cache`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use ashlar_core::graph::CacheSharing;
use ashlar_layers::{
    KnownFiles, ScanOptions, TarOptions, UnpackOptions, decompress, scan, unpack_tar, write_tar,
};
use ashlar_native::Engine;
use ashlar_native::gc::ItemKind;
use ashlar_native::mounts::{About, Fresh, HeldMount};
use ashlar_oci::PullPolicy;
use serde::Serialize;
use serde_json::json;

use super::build::LOCAL;
use super::{only_here, usage};
use crate::cli::cache::CacheCommand;
use crate::output::{self, Table, bytes, note};
use crate::settings::Settings;

/// Bytes of an archive that are moved at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A mount that an import makes is root's, as BuildKit's are.
const FRESH: Fresh = Fresh { mode: 0o755, uid: 0, gid: 0 };

/// Runs `ashlar cache`.
pub(super) fn run(settings: &Settings, command: CacheCommand) -> Result<ExitCode> {
    only_here(settings, "cache is only for cache mounts")?;
    let engine = settings.engine(PullPolicy::Default)?;
    match command {
        CacheCommand::List(args) => list(&engine, args.json)?,
        CacheCommand::Export { id, path } => export(&engine, &id, &path)?,
        CacheCommand::Import { id, path } => import(&engine, &id, &path)?,
        CacheCommand::Rm { ids, all, json } => return remove(&engine, &ids, all, json.json),
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct MountView {
    id: String,
    tenant: String,
    bytes: u64,
    in_use: bool,
}

fn list(engine: &Engine, json: bool) -> Result<()> {
    let usage = engine.usage()?;
    let mut mounts = Vec::new();
    for (about, place) in engine.cache_mounts().list()? {
        let item = usage.items.iter().find(|i| i.kind == ItemKind::CacheMount(place.clone()));
        let (bytes, in_use) = item.map_or((0, false), |i| (i.bytes, !i.holders.is_empty()));
        mounts.push(MountView { id: about.id, tenant: about.tenant, bytes, in_use });
    }
    if json {
        mounts.iter().try_for_each(output::json)?;
        return Ok(());
    }
    let mut table = Table::new(["ID", "TENANT", "SIZE", "IN USE"]);
    for mount in mounts {
        let used = if mount.in_use { "yes" } else { "no" };
        table.row([mount.id, mount.tenant, bytes(mount.bytes), used.to_owned()]);
    }
    Ok(table.print()?)
}

/// Takes a mount for this process alone.
fn take(engine: &Engine, id: &str) -> Result<HeldMount> {
    let about = About { tenant: LOCAL.to_owned(), id: id.to_owned() };
    let held = engine.cache_mounts().take(&about, CacheSharing::Locked, FRESH, &|| true);
    held.with_context(|| format!("the cache mount '{id}' cannot be had; is a build using it?"))
}

fn places(engine: &Engine, id: &str) -> Result<Vec<PathBuf>> {
    let all = engine.cache_mounts().list()?;
    let found: Vec<_> = all.into_iter().filter(|(a, _)| a.id == id).map(|(_, p)| p).collect();
    if found.is_empty() {
        bail!("there is no cache mount '{id}'; `ashlar cache list` shows what there is");
    }
    Ok(found)
}

fn export(engine: &Engine, id: &str, path: &Path) -> Result<()> {
    places(engine, id)?;
    if path.as_os_str() == "-" && io::stdout().is_terminal() {
        return usage("an archive would fill the terminal; give a file");
    }
    let held = take(engine, id)?;
    if path.as_os_str() == "-" {
        return write(&held.path, io::stdout());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(parent)
        .with_context(|| format!("cannot write {}", path.display()))?;
    write(&held.path, file.as_file())?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    note(format!("wrote {}", path.display()));
    Ok(())
}

fn write(dir: &Path, out: impl Write) -> Result<()> {
    let root = File::open(dir)?;
    let found = scan(root.as_fd(), &KnownFiles::new(), &ScanOptions::default())?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    write_tar(&found.entries, root.as_fd(), &mut out, &TarOptions::default())?;
    Ok(out.flush()?)
}

fn import(engine: &Engine, id: &str, path: &Path) -> Result<()> {
    let input: Box<dyn Read + Send> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let file =
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            Box::new(file)
        }
    };
    let held = take(engine, id)?;
    let root = File::open(&held.path)?;
    let (_, plain) = decompress(input)?;
    let plain = BufReader::with_capacity(BUFFER_BYTES, plain);
    let done = unpack_tar(plain, root.as_fd(), &UnpackOptions::archive(Vec::new()))?;
    note(format!("'{id}' holds {} more", bytes(done.content_bytes)));
    Ok(())
}

fn remove(engine: &Engine, ids: &[String], all: bool, json: bool) -> Result<ExitCode> {
    let mut wanted: Vec<(String, PathBuf)> = Vec::new();
    if all {
        let listed = engine.cache_mounts().list()?;
        wanted.extend(listed.into_iter().map(|(about, place)| (about.id, place)));
    }
    for id in ids {
        wanted.extend(places(engine, id)?.into_iter().map(|place| (id.clone(), place)));
    }
    let mut code = ExitCode::SUCCESS;
    for (id, place) in wanted {
        let removed = engine.cache_mounts().remove(&place)?;
        match (json, removed) {
            (true, _) => output::json(&json!({ "id": id, "removed": removed }))?,
            (false, true) => output::line(format!("removed {id}"))?,
            (false, false) => note(format!("'{id}' is in use by a build")),
        }
        if !removed {
            code = ExitCode::from(super::FAILED);
        }
    }
    Ok(code)
}
