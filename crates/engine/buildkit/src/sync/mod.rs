//! fsutil's protocol, sender's side: how a daemon gets a directory and, next time, only what
//! changed in it.
//!
//! All entries are told first, in order; their places are their numbers. The daemon compares them
//! with its last copy and asks for files by number.

mod counts;
mod follow;
mod stat;

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use ashlar_files::{ContextError, Entry, Kind, Patterns, Root};
use ashlar_layers::Stop;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::chain::chain;

pub(crate) use counts::Counts;
pub use counts::Sent;

/// Bytes of a file in one packet.
const PIECE_BYTES: usize = 256 << 10;

/// A directory cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error("cannot open the context")]
    Open(#[source] io::Error),
    #[error("{}", chain(.0))]
    List(#[from] ContextError),
    #[error("cannot read '{path}' of the context: {source}")]
    Read { path: String, source: io::Error },
    #[error("the name '{0}' is not UTF-8, which BuildKit cannot take; exclude or rename it")]
    Name(String),
    #[error("the daemon asks for file {0}, which it was not told of")]
    NoSuchFile(u32),
    #[error("the transfer was stopped")]
    Stopped,
}

impl From<ashlar_files::PatternError> for SyncError {
    fn from(error: ashlar_files::PatternError) -> Self {
        Self::List(error.into())
    }
}

/// What the daemon says while it takes a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Wants the bytes of an entry.
    File(u32),
    /// Has everything.
    Done,
}

/// What of a directory the daemon wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Taken; everything when this and `follow` are empty.
    pub(crate) include: Vec<String>,
    /// Left out.
    pub(crate) exclude: Vec<String>,
    /// Taken, with what links on the way lead to.
    pub(crate) follow: Vec<String>,
}

/// One directory on its way.
pub(crate) struct Transfer {
    pub(crate) name: String,
    pub(crate) place: PathBuf,
    pub(crate) wish: Wish,
    pub(crate) counts: Arc<Counts>,
    pub(crate) stop: Stop,
}

impl Transfer {
    /// Sends until the daemon has all it wants or is gone; `send` says whether it is still there.
    ///
    /// # Errors
    /// When something cannot be read, or the daemon breaks the protocol.
    pub(crate) fn run(
        self,
        mut asked: UnboundedReceiver<Ask>,
        send: &dyn Fn(Packet) -> bool,
    ) -> Result<(), SyncError> {
        let root = Root::open(&self.place).map_err(SyncError::Open)?;
        let entries = self.entries(&root)?;
        let stats = stats(&root, &entries, &self.stop)?;
        self.counts.tell(entries.len());
        for stat in stats {
            if !send(packet(PacketType::PacketStat, Some(stat))) {
                return Err(SyncError::Stopped);
            }
        }
        send(packet(PacketType::PacketStat, None));
        let mut sent = vec![false; entries.len()];
        while let Some(ask) = asked.blocking_recv() {
            self.stop.check().map_err(|_| SyncError::Stopped)?;
            let Ask::File(id) = ask else {
                send(packet(PacketType::PacketFin, None));
                break;
            };
            let at = id as usize;
            let entry = entries.get(at).filter(|_| !sent[at]);
            let entry = entry.ok_or(SyncError::NoSuchFile(id))?;
            sent[at] = true;
            self.send_file(&root, id, entry, send)?;
        }
        self.count_files(&entries, &sent);
        Ok(())
    }

    fn entries(&self, root: &Root) -> Result<Vec<Entry>, SyncError> {
        let mut include = self.wish.include.clone();
        // A path that leads to the root itself takes everything.
        match follow::follow(root, &self.wish.follow) {
            Some(paths) => include.extend(paths),
            None => include.clear(),
        }
        let (include, exclude) = (Patterns::new(&include)?, Patterns::new(&self.wish.exclude)?);
        Ok(root.list_selected(&include, &exclude, &self.stop)?)
    }

    fn send_file(
        &self,
        root: &Root,
        id: u32,
        entry: &Entry,
        send: &dyn Fn(Packet) -> bool,
    ) -> Result<(), SyncError> {
        let data = |data| Packet { id, data, ..packet(PacketType::PacketData, None) };
        let mut bytes = 0;
        // A socket is an empty file to others, as in BuildKit's own client.
        if matches!(entry.kind, Kind::File { .. }) {
            let failed = |source| SyncError::Read { path: shown(&entry.path), source };
            let mut file = root.open_file(&entry.path).map_err(failed)?;
            loop {
                let mut piece = Vec::new();
                let limit = PIECE_BYTES as u64;
                file.by_ref().take(limit).read_to_end(&mut piece).map_err(failed)?;
                if piece.is_empty() {
                    break;
                }
                bytes += piece.len() as u64;
                self.stop.check().map_err(|_| SyncError::Stopped)?;
                if !send(data(piece)) {
                    return Err(SyncError::Stopped);
                }
            }
        }
        send(data(Vec::new()));
        self.counts.sent_file(bytes);
        Ok(())
    }

    /// Tells which files the daemon had already.
    fn count_files(&self, entries: &[Entry], sent: &[bool]) {
        if self.wish.follow.iter().all(|p| is_ignore_file(p)) && !self.wish.follow.is_empty() {
            return;
        }
        for (entry, sent) in entries.iter().zip(sent) {
            if matches!(entry.kind, Kind::File { .. }) {
                self.counts.count_file(&self.name, &shown(&entry.path), *sent);
            }
        }
    }
}

fn is_ignore_file(path: &str) -> bool {
    path.ends_with(".dockerignore")
}

fn packet(kind: PacketType, stat: Option<Stat>) -> Packet {
    Packet { r#type: kind.into(), stat, ..Packet::default() }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Describes all entries; of several names of one file the later ones are links to the first.
fn stats(root: &Root, entries: &[Entry], stop: &Stop) -> Result<Vec<Stat>, SyncError> {
    let mut first: HashMap<(u64, u64), String> = HashMap::new();
    let mut stats = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut stat = stat::of(root, entry, stop)?;
        if entry.links > 1 && matches!(entry.kind, Kind::File { .. }) {
            let file = (entry.stamp.device, entry.stamp.inode);
            match first.get(&file) {
                Some(name) => {
                    stat.linkname.clone_from(name);
                    stat.size = 0;
                }
                None => drop(first.insert(file, stat.path.clone())),
            }
        }
        stats.push(stat);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
