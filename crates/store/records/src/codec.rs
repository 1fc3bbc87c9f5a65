//! How entries lie in their rows.
//!
//! The first byte says how: one event as JSON, or a run of log lines in a compact form, plain or
//! compressed. A run spares a busy step a row, a key and a JSON object for each line; readers see
//! single entries. Rows come from a database that others may write to, so reading trusts nothing.

use ashlar_core::Timestamp;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{Entry, Event, Level, LogLine, Stream};

use crate::Error;

const EVENT: u8 = 0;
const RUN: u8 = 1;
const RUN_ZSTD: u8 = 2;

/// Log lines that one row holds at most.
pub(crate) const RUN_LINES_MAX: usize = 4096;
/// Text that one row holds at most, in bytes, but for a single longer line.
pub(crate) const RUN_BYTES_MAX: usize = 256 * 1024;
/// Runs from this size on are compressed.
const COMPRESS_FROM: usize = 512;
/// What a compressed run may grow to when it is read. A line is bounded by whoever writes it.
const INFLATED_MAX: usize = 64 * 1024 * 1024;
const ZSTD_LEVEL: i32 = 1;

const PARTIAL: u8 = 0x80;
const RAW: u8 = 0x40;

/// Entries that share one row.
pub(crate) struct Packed {
    pub(crate) number: u64,
    pub(crate) count: u64,
    pub(crate) time: Timestamp,
    pub(crate) last_time: Timestamp,
    pub(crate) body: Vec<u8>,
}

/// Packs entries that follow each other into rows.
pub(crate) fn pack(entries: &[Entry]) -> Result<Vec<Packed>, Error> {
    let mut rows = Vec::new();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let length = run_length(rest).max(1);
        let (now, later) = rest.split_at(length);
        rest = later;
        let body = match &first.event {
            Event::Log(_) => pack_run(now),
            event => pack_event(event)?,
        };
        let last_time = now.last().map_or(first.time, |e| e.time);
        let (number, time, count) = (first.number, first.time, now.len() as u64);
        rows.push(Packed { number, count, time, last_time, body });
    }
    Ok(rows)
}

/// Returns how many of the first entries fit one run of log lines.
fn run_length(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| match &entry.event {
        Event::Log(line) => {
            bytes += line.text.len() + line.raw.as_ref().map_or(0, Vec::len);
            bytes <= RUN_BYTES_MAX
        }
        _ => false,
    };
    entries.iter().take(RUN_LINES_MAX).take_while(fits).count()
}

fn pack_event(event: &Event) -> Result<Vec<u8>, Error> {
    let mut body = vec![EVENT];
    serde_json::to_writer(&mut body, event).map_err(|e| Error::damaged("an event", e))?;
    Ok(body)
}

fn pack_run(entries: &[Entry]) -> Vec<u8> {
    let mut plain = vec![RUN];
    let mut last = entries.first().map_or(Timestamp::default(), |e| e.time);
    for entry in entries {
        let Event::Log(line) = &entry.event else { continue };
        put(&mut plain, u64::try_from(entry.time.nanos() - last.nanos()).unwrap_or(0));
        last = entry.time;
        put_line(&mut plain, line);
    }
    if plain.len() < COMPRESS_FROM {
        return plain;
    }
    match zstd::bulk::compress(&plain[1..], ZSTD_LEVEL) {
        Ok(small) if small.len() < plain.len() => {
            let mut body = Vec::with_capacity(small.len() + 1);
            body.push(RUN_ZSTD);
            body.extend_from_slice(&small);
            body
        }
        _ => plain,
    }
}

fn put_line(out: &mut Vec<u8>, line: &LogLine) {
    let stream = match line.stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Service => 2,
    };
    let level = match line.level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    };
    let partial = if line.partial { PARTIAL } else { 0 };
    let raw = if line.raw.is_some() { RAW } else { 0 };
    out.push(partial | raw | (level << 2) | stream);
    put(out, line.step.map_or(0, |s| u64::from(s.0) + 1));
    put_bytes(out, line.text.as_bytes());
    if let Some(raw) = &line.raw {
        put_bytes(out, raw);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a number as LEB128.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads the entries of a row.
pub(crate) fn unpack(number: u64, time: Timestamp, body: &[u8]) -> Result<Vec<Entry>, Error> {
    let damaged = |why: &str| Error::damaged(format!("entry {number}"), why);
    let (kind, rest) = body.split_first().ok_or_else(|| damaged("it is empty"))?;
    match *kind {
        EVENT => {
            let event = serde_json::from_slice(rest).map_err(|e| damaged(&e.to_string()))?;
            Ok(vec![Entry { number, time, event }])
        }
        RUN => unpack_run(number, time, rest).ok_or_else(|| damaged("its log lines are cut")),
        RUN_ZSTD => {
            let plain = zstd::bulk::decompress(rest, inflated_size(rest))
                .map_err(|e| damaged(&e.to_string()))?;
            unpack_run(number, time, &plain).ok_or_else(|| damaged("its log lines are cut"))
        }
        _ => Err(damaged("it has an unknown form")),
    }
}

fn inflated_size(body: &[u8]) -> usize {
    let size = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
    size.and_then(|s| usize::try_from(s).ok()).map_or(INFLATED_MAX, |s| s.min(INFLATED_MAX))
}

fn unpack_run(first: u64, time: Timestamp, mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut nanos = time.nanos();
    while !bytes.is_empty() {
        nanos = nanos.checked_add(i64::try_from(get(&mut bytes)?).ok()?)?;
        let event = Event::Log(get_line(&mut bytes)?);
        let number = first + entries.len() as u64;
        entries.push(Entry { number, time: Timestamp::from_nanos(nanos), event });
    }
    Some(entries)
}

fn get_line(bytes: &mut &[u8]) -> Option<LogLine> {
    let (flags, rest) = bytes.split_first()?;
    *bytes = rest;
    let stream = match flags & 0x03 {
        0 => Stream::Stdout,
        1 => Stream::Stderr,
        2 => Stream::Service,
        _ => return None,
    };
    let level = match (flags >> 2) & 0x03 {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warn,
        _ => Level::Error,
    };
    let step = match get(bytes)? {
        0 => None,
        n => Some(StepId(u32::try_from(n - 1).ok()?)),
    };
    let text = String::from_utf8(get_bytes(bytes)?.to_vec()).ok()?;
    let raw = if flags & RAW == 0 { None } else { Some(get_bytes(bytes)?.to_vec()) };
    Some(LogLine { step, stream, level, text, raw, partial: flags & PARTIAL != 0 })
}

fn get_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(get(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> impl Strategy<Value = LogLine> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr), Just(Stream::Service)];
        let level = prop_oneof![
            Just(Level::Debug),
            Just(Level::Info),
            Just(Level::Warn),
            Just(Level::Error)
        ];
        let raw = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
        let step = proptest::option::of(any::<u32>().prop_map(StepId));
        (step, stream, level, ".{0,300}", raw, any::<bool>()).prop_map(
            |(step, stream, level, text, raw, partial)| LogLine {
                step,
                stream,
                level,
                text,
                raw,
                partial,
            },
        )
    }

    proptest! {
        #[test]
        fn log_lines_come_back_as_they_were(
            lines in proptest::collection::vec((line(), 1_i64..10_000_000_000), 1..50)
        ) {
            let mut nanos = 1_700_000_000_000_000_000;
            let entries: Vec<Entry> = lines.into_iter().enumerate().map(|(i, (line, gap))| {
                nanos += gap;
                let time = Timestamp::from_nanos(nanos);
                Entry { number: 7 + i as u64, time, event: Event::Log(line) }
            }).collect();
            let mut back = Vec::new();
            for row in pack(&entries).unwrap() {
                let unpacked = unpack(row.number, row.time, &row.body).unwrap();
                prop_assert_eq!(unpacked.len() as u64, row.count);
                prop_assert_eq!(unpacked.last().unwrap().time, row.last_time);
                back.extend(unpacked);
            }
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn damaged_rows_are_refused_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(0, Timestamp::default(), &body);
        }
    }

    #[test]
    fn events_cut_runs_and_long_runs_are_cut() {
        let log = |n| Entry {
            number: n,
            time: Timestamp::from_nanos(n as i64),
            event: Event::Log(LogLine::service(Level::Info, "x".repeat(100))),
        };
        let mut entries: Vec<Entry> = (0..10_000).map(log).collect();
        entries[5].event = Event::Pinned { pinned: true };
        let counts: Vec<u64> = pack(&entries).unwrap().iter().map(|r| r.count).collect();
        assert_eq!(counts[..2], [5, 1]);
        assert_eq!(counts.iter().sum::<u64>(), 10_000);
        assert!(counts.iter().all(|c| *c <= (RUN_BYTES_MAX / 100) as u64));
    }
}
