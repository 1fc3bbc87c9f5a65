//! Digests of files by what the kernel says about them, kept between builds: one file a context.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ashlar_core::Digest;

use crate::entry::{Stamp, Time};

const MAGIC: &[u8; 16] = b"ashlar-stats-1\n\0";
const RECORD_BYTES: usize = 81;
const DIGEST_BYTES: usize = 32;

/// Most records of one context: 160 MiB of them are worth less than hashing anew.
const RECORDS_MAX: usize = 2_000_000;

/// A record that so many saves in a row did not need is dropped.
const AGE_MAX: u8 = 20;

/// A file that changed this shortly before it was read may change again within the same tick of
/// the file system's clock, unseen. Linux file systems tick at least every 10 ms.
const RACY_NANOSECONDS: i128 = 50_000_000;

/// The same where the time has no fraction, as on file systems that only store seconds (FAT: two).
const RACY_COARSE_NANOSECONDS: i128 = 2_000_000_000;

/// Known digests of one context.
#[derive(Debug)]
pub(crate) struct StatCache {
    place: PathBuf,
    old: Vec<Record>,
    new: RwLock<HashMap<Stamp, New>>,
}

#[derive(Debug)]
struct Record {
    stamp: Stamp,
    content: Digest,
    age: AtomicU8,
}

#[derive(Debug, Clone, Copy)]
struct New {
    content: Digest,
    /// Whether it may be believed after this build.
    settled: bool,
}

impl StatCache {
    /// Reads the cache of the context at `root`. A missing or damaged one is an empty one.
    pub(crate) fn open(cache_dir: &Path, root: &Path) -> Self {
        let name = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
        let place = cache_dir.join(format!("stat-{}", &name[..32]));
        let old = fs::read(&place).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { place, old, new: RwLock::default() }
    }

    /// Returns the digest of the file with this stamp.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<Digest> {
        if let Ok(at) = self.old.binary_search_by(|r| r.stamp.cmp(stamp)) {
            self.old[at].age.store(0, Ordering::Relaxed);
            return Some(self.old[at].content);
        }
        self.new.read().unwrap_or_else(PoisonError::into_inner).get(stamp).map(|n| n.content)
    }

    /// Notes what was read at `started` or later.
    pub(crate) fn put(&self, stamp: Stamp, content: Digest, started: SystemTime) {
        let new = New { content, settled: is_settled(&stamp, started) };
        self.new.write().unwrap_or_else(PoisonError::into_inner).insert(stamp, new);
    }

    /// Writes the cache when there is something new to keep. Another process may do so at the same
    /// time: one of the two results stays, whole.
    pub(crate) fn save(&self) -> io::Result<()> {
        let new = self.new.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = new.iter().filter(|(_, n)| n.settled).map(|(s, n)| (*s, n.content, 0));
        let mut records: Vec<(Stamp, Digest, u8)> = fresh.collect();
        if records.is_empty() {
            return Ok(());
        }
        let kept = self.old.iter().map(|r| (r.stamp, r.content, r.age.load(Ordering::Relaxed)));
        records.extend(kept.filter(|r| r.2 < AGE_MAX && !new.contains_key(&r.0)));
        if records.len() > RECORDS_MAX {
            records.select_nth_unstable_by_key(RECORDS_MAX, |r| r.2);
            records.truncate(RECORDS_MAX);
        }
        records.sort_unstable_by_key(|r| r.0);
        self.write(&encode(&records))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(dir) = self.place.parent() {
            fs::create_dir_all(dir)?;
        }
        let temporary = self.place.with_extension(format!("new-{}", std::process::id()));
        let written = fs::File::create(&temporary).and_then(|mut f| f.write_all(bytes));
        // No fsync: after a power cut the checksum tells a torn file, which is as good as none.
        let moved = written.and_then(|()| fs::rename(&temporary, &self.place));
        if moved.is_err() {
            drop(fs::remove_file(&temporary));
        }
        moved
    }
}

/// Whether no later change can hide behind the same stamp.
fn is_settled(stamp: &Stamp, started: SystemTime) -> bool {
    let started = started.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
    let settled = |time: Time| {
        let coarse = time.nanoseconds == 0;
        let margin = if coarse { RACY_COARSE_NANOSECONDS } else { RACY_NANOSECONDS };
        let at = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
        at + margin < started
    };
    // The inode's change time cannot be set at will, and every write moves it: it alone decides.
    // A modification time in the future, as from an unpacked archive, is no reason to hash again.
    settled(stamp.changed)
}

fn encode(records: &[(Stamp, Digest, u8)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + records.len() * RECORD_BYTES + DIGEST_BYTES);
    out.extend_from_slice(MAGIC);
    for (stamp, content, age) in records {
        for number in [stamp.device, stamp.inode, stamp.size] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [stamp.modified, stamp.changed] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanoseconds.to_le_bytes());
        }
        out.extend_from_slice(content.as_bytes());
        out.push(age + 1);
    }
    let sum = Digest::of(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
    if Digest::of(body).as_bytes() != sum {
        return None;
    }
    let (records, rest) = body.strip_prefix(MAGIC)?.as_chunks::<RECORD_BYTES>();
    rest.is_empty().then(|| records.iter().map(decode_record).collect())
}

fn decode_record(bytes: &[u8; RECORD_BYTES]) -> Record {
    let long = |at: usize| std::array::from_fn(|i| bytes[at + i]);
    let short = |at: usize| std::array::from_fn(|i| bytes[at + i]);
    let time = |at| Time {
        seconds: i64::from_le_bytes(long(at)),
        nanoseconds: u32::from_le_bytes(short(at + 8)),
    };
    let number = |at| u64::from_le_bytes(long(at));
    let (modified, changed) = (time(24), time(36));
    Record {
        stamp: Stamp { device: number(0), inode: number(8), size: number(16), modified, changed },
        content: Digest::from_bytes(std::array::from_fn(|i| bytes[48 + i])),
        age: AtomicU8::new(bytes[80]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stamp(inode: u64, changed: Time) -> Stamp {
        Stamp { device: 1, inode, size: 3, modified: changed, changed }
    }

    fn time(seconds: i64, nanoseconds: u32) -> Time {
        Time { seconds, nanoseconds }
    }

    #[test]
    fn settled_records_survive_and_racy_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let cache = StatCache::open(dir.path(), Path::new("/x"));
        let old = stamp(1, time(990, 5));
        let table = [
            (old, true),
            (stamp(2, time(999, 999_000_000)), false),
            (stamp(3, time(999, 0)), false),
            (stamp(4, time(997, 0)), true),
            (stamp(5, time(2000, 1)), false),
        ];
        for (stamp, _) in &table {
            cache.put(*stamp, Digest::of("content"), now);
            assert_eq!(cache.get(stamp), Some(Digest::of("content")));
        }
        cache.save().unwrap();
        let again = StatCache::open(dir.path(), Path::new("/x"));
        for (stamp, settled) in &table {
            assert_eq!(again.get(stamp).is_some(), *settled, "{stamp:?}");
        }
        assert_eq!(again.get(&Stamp { size: 4, ..old }), None);
        assert_eq!(StatCache::open(dir.path(), Path::new("/y")).get(&old), None);
    }

    #[test]
    fn damage_is_an_empty_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::open(dir.path(), Path::new("/x"));
        let s = stamp(1, time(5, 5));
        cache.put(s, Digest::of("a"), UNIX_EPOCH + Duration::from_secs(1000));
        cache.save().unwrap();
        let whole = fs::read(&cache.place).unwrap();
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_none(), "{cut}");
        }
        let mut flipped = whole.clone();
        flipped[60] ^= 1;
        assert!(decode(&flipped).is_none());
        assert_eq!(decode(&whole).unwrap().len(), 1);
    }

    #[test]
    fn unused_records_age_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let (unused, used) = (stamp(1, time(5, 5)), stamp(2, time(5, 5)));
        for round in 0..u64::from(AGE_MAX) + 2 {
            let cache = StatCache::open(dir.path(), Path::new("/x"));
            if round == 0 {
                cache.put(unused, Digest::of("a"), now);
                cache.put(used, Digest::of("b"), now);
            }
            assert!(cache.get(&used).is_some(), "{round}");
            cache.put(stamp(100 + round, time(5, 5)), Digest::of("c"), now);
            cache.save().unwrap();
        }
        let cache = StatCache::open(dir.path(), Path::new("/x"));
        assert!(cache.get(&unused).is_none() && cache.get(&used).is_some());
    }
}
