//! Single log lines, each with its time and origin.

use ashlar_core::Timestamp;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{Entry, Event, Level, LogLine, Stream};

use super::varint::{get, get_bytes, later, put, put_bytes};
use super::{LINES, LINES_ZSTD, ROW_BYTES_MAX, compressed};

/// Lines of one row at most: readers take each apart.
const LINES_MAX: usize = 4096;

const PARTIAL: u8 = 0x80;
const RAW: u8 = 0x40;
/// Logs from before it was kept have none.
const UNENDED: u8 = 0x20;

/// Returns how many of the first entries fit one row of log lines.
pub(super) fn run_length(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| match &entry.event {
        Event::Log(line) => {
            bytes += line.text.len() + line.raw.as_ref().map_or(0, Vec::len);
            bytes <= ROW_BYTES_MAX
        }
        _ => false,
    };
    entries.iter().take(LINES_MAX).take_while(fits).count()
}

pub(super) fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut plain = vec![LINES];
    let mut last = entries.first().map_or(Timestamp::default(), |e| e.time);
    for entry in entries {
        let Event::Log(line) = &entry.event else { continue };
        put(&mut plain, u64::try_from(entry.time.nanos() - last.nanos()).unwrap_or(0));
        last = entry.time;
        put_line(&mut plain, line);
    }
    compressed(plain, LINES_ZSTD)
}

fn put_line(out: &mut Vec<u8>, line: &LogLine) {
    let raw = if line.raw.is_some() { RAW } else { 0 };
    let unended = if line.unended { UNENDED } else { 0 };
    out.push(raw | unended | flags(line.stream, line.level, line.partial));
    put(out, line.step.map_or(0, |s| u64::from(s.0) + 1));
    put_bytes(out, line.text.as_bytes());
    if let Some(raw) = &line.raw {
        put_bytes(out, raw);
    }
}

/// Packs what lines and texts have in common into a byte.
pub(super) const fn flags(stream: Stream, level: Level, partial: bool) -> u8 {
    let stream = match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Service => 2,
    };
    let level = match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    };
    (if partial { PARTIAL } else { 0 }) | (level << 2) | stream
}

/// Undoes [`flags`].
pub(super) const fn origin(flags: u8) -> Option<(Stream, Level, bool)> {
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
    Some((stream, level, flags & PARTIAL != 0))
}

/// Reads a step's number.
pub(super) fn get_step(bytes: &mut &[u8]) -> Option<Option<StepId>> {
    match get(bytes)? {
        0 => Some(None),
        n => Some(Some(StepId(u32::try_from(n - 1).ok()?))),
    }
}

/// Takes single lines apart and hands out each with its place in the row and its time, as long as
/// `take` wants more. Nothing when the bytes are cut.
pub(super) fn each(
    time: Timestamp,
    mut bytes: &[u8],
    take: &mut dyn FnMut(u64, Timestamp, LogLine) -> bool,
) -> Option<()> {
    let (mut nanos, mut place) = (time.nanos(), 0);
    while !bytes.is_empty() {
        nanos = later(nanos, get(&mut bytes)?)?;
        let line = get_line(&mut bytes)?;
        if !take(place, Timestamp::from_nanos(nanos), line) {
            break;
        }
        place += 1;
    }
    Some(())
}

fn get_line(bytes: &mut &[u8]) -> Option<LogLine> {
    let (flags, rest) = bytes.split_first()?;
    *bytes = rest;
    let (stream, level, partial) = origin(*flags)?;
    let step = get_step(bytes)?;
    let text = String::from_utf8(get_bytes(bytes)?.to_vec()).ok()?;
    let raw = if flags & RAW == 0 { None } else { Some(get_bytes(bytes)?.to_vec()) };
    let unended = flags & UNENDED != 0;
    Some(LogLine { step, stream, level, text, raw, partial, unended })
}
