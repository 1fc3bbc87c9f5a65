//! Logs: text of many lines, and the move of ended builds' logs into segments.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use ashlar_core::graph::StepId;
use ashlar_core::journal::{Entry, Event, Level, LogText, Record, Sink, Stream, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest};
use ashlar_records::{
    Error, FOUND_BYTES_MAX, JournalWriter, LetGo, LogRemoved, Most, SEARCHED_BYTES_MAX,
    SEGMENT_BYTES_MIN, SegmentBlobs, Store, TimeRange, What, Why, Writer, line_bytes,
};

use crate::common::{
    Database, at, check_fold, claim, log, stamped, state, submission, submit, tenant,
};

crate::on_both! {
    text_is_read_as_lines;
    an_ended_log_moves_and_reads_the_same;
    rows_of_other_builds_in_between_stay_in_order;
    a_follower_goes_on_through_the_move;
    small_logs_stay_where_they_are;
    nothing_is_lost_when_the_blob_store_fails;
    logs_are_searched_in_rows_and_segments;
    a_damaged_segment_is_an_error;
    a_log_without_end_takes_bounded_memory;
    a_log_that_retention_removed_stays_removed;
    a_removed_log_is_not_read_from_memory;
    a_removed_log_is_left_out_and_said_to_be_removed;
    what_is_read_at_once_is_bounded_in_bytes;
    the_end_of_a_journal_is_read_backwards;
    a_search_says_how_far_it_looked;
}

/// A blob store in memory that may be told to fail.
#[derive(Default)]
pub(crate) struct Memory {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    broken: Mutex<bool>,
}

impl SegmentBlobs for Memory {
    fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if *self.broken.lock().unwrap() {
            return Err(io::Error::other("no room"));
        }
        assert_eq!(Digest::of(bytes), *digest);
        self.blobs.lock().unwrap().insert(*digest, bytes.to_vec());
        Ok(())
    }

    fn get(&self, digest: &Digest, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let blobs = self.blobs.lock().unwrap();
        let blob = blobs.get(digest).ok_or(io::ErrorKind::NotFound)?;
        let range = offset as usize..(offset + length) as usize;
        blob.get(range).map(<[u8]>::to_vec).ok_or(io::ErrorKind::UnexpectedEof.into())
    }
}

impl Memory {
    fn len(&self) -> usize {
        self.blobs.lock().unwrap().len()
    }
}

fn with_memory(db: &Database) -> (Store, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    (db.store.clone().with_segments(memory.clone()), memory)
}

fn text(bytes: impl Into<Vec<u8>>) -> LogText {
    let (stream, level) = (Stream::Stdout, Level::Info);
    LogText { step: Some(StepId(1)), stream, level, bytes: bytes.into(), partial: false }
}

/// Text that hardly compresses.
fn noise(lines: usize, seed: u64) -> String {
    let mut state = seed | 1;
    let mut line = |n: usize| {
        let mut words = String::new();
        for _ in 0..10 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            words += &format!("{state:x} ");
        }
        format!("{n} {words}\n")
    };
    (0..lines).map(&mut line).collect()
}

async fn running(store: &Store, nanos: i64) -> (Record, JournalWriter) {
    submit(store, submission(), nanos).await;
    let row = store.claim(&claim(1), ashlar_records::now()).await.unwrap().unwrap();
    let writer = JournalWriter::spawn(store.clone(), row.submission.build, row.fence);
    (row, writer)
}

/// Makes a build with a log of text, single lines and events, and ends it.
async fn ended(store: &Store) -> BuildId {
    let (row, writer) = running(store, 0).await;
    for round in 0..40 {
        writer.text(text(noise(100, round + 7)));
        writer.event(log(&format!("single {round}")));
        if round % 10 == 5 {
            writer.event(Event::StepStarted { step: StepId(round as u32) });
            writer.flush().await.unwrap();
        }
    }
    writer.event(state(State::Failed));
    writer.flush().await.unwrap();
    row.submission.build
}

async fn move_all(store: &Store) {
    let mut from = Some(0);
    while let Some(place) = from {
        from = store.move_logs(place).await.unwrap();
    }
}

async fn whole(store: &Store, build: BuildId) -> Vec<Entry> {
    store.journal(build, 0, usize::MAX).await.unwrap()
}

async fn text_is_read_as_lines(db: Database) {
    let (row, writer) = running(&db.store, 0).await;
    writer.text(text("one\ntwo\n"));
    writer.text(LogText { stream: Stream::Stderr, partial: true, ..text("half") });
    writer.text(text(""));
    writer.text(text(b"\xff\n".to_vec()));
    writer.event(log("single"));
    let record = writer.flush().await.unwrap().unwrap();
    assert_eq!(record.next_number, 7);
    let build = row.submission.build;
    let entries = db.store.journal(build, 2, 99).await.unwrap();
    let lines: Vec<_> = entries
        .iter()
        .map(|e| match &e.event {
            Event::Log(l) => (l.text.as_str(), l.stream, l.partial, l.raw.as_deref()),
            other => panic!("{other:?}"),
        })
        .collect();
    let (out, err) = (Stream::Stdout, Stream::Stderr);
    assert_eq!(
        lines,
        [
            ("one", out, false, None),
            ("two", out, false, None),
            ("half", err, true, None),
            ("\u{fffd}", out, false, Some(&b"\xff"[..])),
            ("single", out, false, None),
        ]
    );
    assert!(entries.windows(2).all(|w| w[0].time < w[1].time && w[0].number + 1 == w[1].number));
    check_fold(&db.store, build).await;
}

async fn an_ended_log_moves_and_reads_the_same(db: Database) {
    let (store, memory) = with_memory(&db);
    let build = ended(&store).await;
    let before = whole(&store, build).await;
    assert_eq!(memory.len(), 0);
    let no_log = |e: &&Entry| !matches!(e.event, Event::Log(_)) && e.number > 0;
    let events: Vec<Entry> = before.iter().filter(no_log).cloned().collect();
    assert_eq!(store.events(build, 1, 99).await.unwrap(), events);
    move_all(&store).await;
    assert_eq!(memory.len(), 1);
    move_all(&store).await;
    assert_eq!(memory.len(), 1);
    assert_eq!(store.events(build, 1, 99).await.unwrap(), events);
    // Another process remembers nothing of the rows.
    let other = Store::open(&db.place).await.unwrap().with_segments(memory.clone());
    assert_eq!(whole(&other, build).await, before);
    for from in [0, 1, 2, 77, 1000, 4041, before.len() as u64 - 1, before.len() as u64] {
        let read = other.journal(build, from, 5).await.unwrap();
        let want: Vec<Entry> = before.iter().skip(from as usize).take(5).cloned().collect();
        assert_eq!(read, want, "from {from}");
    }
    for at in [5, 500, 2000, 4000] {
        let time = before[at].time;
        assert_eq!(other.number_at(build, time).await.unwrap(), at as u64);
    }
    let range = TimeRange { from: before[100].time, until: before[3000].time };
    let read = other.scope_journal(tenant(1), "web", range, 9999, false).await.unwrap();
    let read: Vec<Entry> = read.into_iter().map(|e| e.entry).collect();
    assert_eq!(read, before[100..3000]);
    let newest = other.scope_journal(tenant(1), "web", range, 50, true).await.unwrap();
    let newest: Vec<u64> = newest.iter().map(|e| e.entry.number).collect();
    assert_eq!(newest, (2950..3000).rev().collect::<Vec<u64>>());
    check_fold(&other, build).await;
    // What outlives the build still goes on in the same journal.
    let pin = [stamped(0, Event::Pinned { pinned: true })];
    other.append(build, Writer::Service, pin).await.unwrap();
    assert_eq!(check_fold(&other, build).await.next_number, before.len() as u64 + 1);
    let held = other.held_blobs(None, 99).await.unwrap();
    assert_eq!(held.len(), 1);
    let unpin = [stamped(0, Event::Pinned { pinned: false })];
    other.append(build, Writer::Service, unpin).await.unwrap();
    assert_eq!(other.forget(&[build]).await.unwrap(), [build]);
    assert!(other.held_blobs(None, 99).await.unwrap().is_empty());
}

async fn rows_of_other_builds_in_between_stay_in_order(db: Database) {
    let (store, memory) = with_memory(&db);
    let (a, one) = running(&store, 0).await;
    let (b, two) = running(&store, 1).await;
    for round in 0..60 {
        let writer = if round % 3 == 0 { &two } else { &one };
        writer.text(text(noise(20, round + 1)));
        writer.flush().await.unwrap();
    }
    for writer in [&one, &two] {
        writer.event(state(State::Failed));
        writer.flush().await.unwrap();
    }
    let range = TimeRange { from: at(0), until: ashlar_records::now() };
    let read = async |store: &Store, newest| {
        store.scope_journal(tenant(1), "web", range, 99_999, newest).await.unwrap()
    };
    let (before, backward) = (read(&store, false).await, read(&store, true).await);
    assert_eq!(before.len(), 60 * 20 + 6);
    move_all(&store).await;
    assert!(memory.len() >= 2);
    let other = Store::open(&db.place).await.unwrap().with_segments(memory);
    assert_eq!(read(&other, false).await, before);
    assert_eq!(read(&other, true).await, backward);
    for row in [a, b] {
        check_fold(&other, row.submission.build).await;
    }
}

async fn a_follower_goes_on_through_the_move(db: Database) {
    let (store, _memory) = with_memory(&db);
    let build = ended(&store).await;
    let total = store.row(build).await.unwrap().next_number;
    for before in [0, 1, 90, 2500] {
        let mut follower = store.follow(build, 0);
        let mut seen = Vec::new();
        while seen.len() < before {
            let entries = follower.next(7).await.unwrap();
            seen.extend(entries.iter().map(|e| e.number));
        }
        if before == 90 {
            move_all(&store).await;
        }
        loop {
            let entries = follower.next(1000).await.unwrap();
            if entries.is_empty() {
                break;
            }
            seen.extend(entries.iter().map(|e| e.number));
        }
        assert_eq!(seen, (0..total).collect::<Vec<u64>>());
    }
}

async fn small_logs_stay_where_they_are(db: Database) {
    let (store, memory) = with_memory(&db);
    let (row, writer) = running(&store, 0).await;
    writer.text(text("short\n"));
    writer.event(state(State::Failed));
    writer.flush().await.unwrap();
    move_all(&store).await;
    assert_eq!(memory.len(), 0);
    const { assert!(SEGMENT_BYTES_MIN > 1000) };
    check_fold(&store, row.submission.build).await;
}

async fn nothing_is_lost_when_the_blob_store_fails(db: Database) {
    let (store, memory) = with_memory(&db);
    let build = ended(&store).await;
    let before = whole(&store, build).await;
    *memory.broken.lock().unwrap() = true;
    let error = store.move_logs(0).await.unwrap_err();
    assert!(matches!(error, Error::Segment { .. }), "{error}");
    assert_eq!(whole(&store, build).await, before);
    *memory.broken.lock().unwrap() = false;
    move_all(&store).await;
    assert_eq!((memory.len(), whole(&store, build).await), (1, before));
    // Without a blob store the lines cannot be read, and whoever asks is told.
    let blind = Store::open(&db.place).await.unwrap();
    let error = blind.journal(build, 2, 9).await.unwrap_err();
    assert!(matches!(error, Error::Segment { .. }), "{error}");
}

async fn logs_are_searched_in_rows_and_segments(db: Database) {
    let (store, _memory) = with_memory(&db);
    let build = ended(&store).await;
    for moved in [false, true] {
        if moved {
            move_all(&store).await;
        }
        let found = store.search(build, "SINGLE 1", 0, 100).await.unwrap();
        let texts: Vec<&str> = found
            .entries
            .iter()
            .map(|e| match &e.event {
                Event::Log(l) => l.text.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        let want: Vec<String> =
            [1].into_iter().chain(10..20).map(|n| format!("single {n}")).collect();
        assert_eq!((texts, found.next), (want.iter().map(String::as_str).collect(), None));
        let first = store.search(build, "single", 0, 15).await.unwrap();
        let rest = store.search(build, "single", first.next.unwrap(), 99).await.unwrap();
        assert_eq!((first.entries.len(), rest.entries.len(), rest.next), (15, 25, None));
        let none = store.search(build, "not there", 0, 5).await.unwrap();
        assert!(none.entries.is_empty() && none.next.is_none());
    }
    let (row, writer) = running(&store, 9).await;
    let build = row.submission.build;
    let many = SEARCHED_BYTES_MAX / 6000 + 100;
    let piece = "x".repeat(5999) + "\n";
    let said = writer.clone();
    // Whoever says more than the database takes waits, and must not keep a task from writing.
    let say = move || (0..many / 10).for_each(|_| said.text(text(piece.repeat(10))));
    tokio::task::spawn_blocking(say).await.unwrap();
    writer.text(text("needle\n"));
    let end = writer.flush().await.unwrap().unwrap().next_number;
    let first = store.search(build, "Needle", 0, 5).await.unwrap();
    assert!(first.entries.is_empty());
    let next = first.next.unwrap();
    assert!(next < end);
    let rest = store.search(build, "Needle", next, 5).await.unwrap();
    assert_eq!((rest.entries[0].number, rest.next), (end - 1, None));
}

async fn a_damaged_segment_is_an_error(db: Database) {
    let (store, memory) = with_memory(&db);
    let build = ended(&store).await;
    move_all(&store).await;
    for blob in memory.blobs.lock().unwrap().values_mut() {
        let middle = blob.len() / 2;
        blob[middle] ^= 0x40;
    }
    let other = Store::open(&db.place).await.unwrap().with_segments(memory.clone());
    let error = other.journal(build, 0, usize::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    for blob in memory.blobs.lock().unwrap().values_mut() {
        blob.truncate(100);
    }
    let other = Store::open(&db.place).await.unwrap().with_segments(memory);
    let error = other.journal(build, 0, usize::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Segment { .. }), "{error}");
}

async fn a_removed_log_is_not_read_from_memory(db: Database) {
    let (store, _memory) = with_memory(&db);
    for moved in [false, true] {
        let build = ended(&store).await;
        if moved {
            move_all(&store).await;
        }
        let before = whole(&store, build).await;
        let said = |e: &&Entry| matches!(&e.event, Event::Log(line) if !line.text.is_empty());
        assert!(before.iter().filter(said).count() > 4000);
        let now = ashlar_records::now();
        let gone = store.let_go(build, What::Log, Why::Age, now).await.unwrap();
        assert_eq!(gone, LetGo::Gone);
        let after = whole(&store, build).await;
        assert_eq!(after.iter().find(said), None);
        // All else is as it was, and one more entry says that the lines were removed.
        let is_event = |e: &&Entry| !matches!(e.event, Event::Log(_));
        let events: Vec<&Entry> = before.iter().filter(is_event).collect();
        assert_eq!(after.iter().take(events.len()).collect::<Vec<_>>(), events);
        assert_eq!(after.len(), events.len() + 1);
        assert!(store.search(build, "single", 0, 5).await.unwrap().entries.is_empty());
    }
}

async fn a_removed_log_is_left_out_and_said_to_be_removed(db: Database) {
    let (store, _memory) = with_memory(&db);
    let build = ended(&store).await;
    move_all(&store).await;
    assert_eq!(store.log_removed(build).await.unwrap(), None);
    let before = whole(&store, build).await;
    let mut late = store.follow(build, 0);
    let first = late.next(5).await.unwrap();
    store.let_go(build, What::Log, Why::Count, ashlar_records::now()).await.unwrap();
    // Labels that come later do not hide it.
    for n in 0..100 {
        let changes = [("n".to_owned(), Some(n.to_string()))].into();
        store
            .append(build, Writer::Service, [stamped(0, Event::Labels { changes })])
            .await
            .unwrap();
    }
    let row = check_fold(&store, build).await;
    let other = Store::open(&db.place).await.unwrap();
    let is_log = |e: &Entry| matches!(e.event, Event::Log(_));
    for store in [&store, &other] {
        let after = whole(store, build).await;
        assert!(!after.iter().any(is_log));
        let noted = after.iter().find_map(|e| Some((e.time, LogRemoved::of(e)?))).unwrap();
        let removed = store.log_removed(build).await.unwrap().unwrap();
        assert_eq!(removed.told, Some(("count".to_owned(), noted.0)));
        let said = format!("log removed by retention (count) at {}", noted.0.rfc3339());
        assert_eq!((removed.to_string(), noted.1), (said, removed));
        // From the middle of what was removed, one goes on behind it.
        let middle = before.iter().rfind(|e| is_log(e)).unwrap().number - 1;
        let rest = store.journal(build, middle, 1).await.unwrap();
        assert_eq!(rest[0].event, state(State::Failed));
        let tail = store.journal_tail(build, Most { entries: 9999, bytes: 1 << 20 }).await.unwrap();
        assert_eq!(tail.len(), after.len());
        let last = tail.last().unwrap();
        assert_eq!((last, last.number + 1), (after.last().unwrap(), row.next_number));
        let mut follower = store.follow(build, 0);
        let mut followed = Vec::new();
        while let Some(entries) = Some(follower.next(7).await.unwrap()).filter(|e| !e.is_empty()) {
            followed.extend(entries);
        }
        assert_eq!(followed, after);
        let range = TimeRange { from: at(0), until: after[after.len() - 1].time };
        let of_scope = store.scope_journal(tenant(1), "web", range, 99_999, false).await.unwrap();
        assert_eq!(of_scope.len(), after.len() - 1);
    }
    // Whoever reads just then hears of it.
    let mut rest = first;
    while let Some(entries) = Some(late.next(1000).await.unwrap()).filter(|e| !e.is_empty()) {
        rest.extend(entries);
    }
    assert!(rest.iter().any(|e| LogRemoved::of(e).is_some()));
}

/// Makes a running build that said so many lines of so many bytes; returns how many entries it has.
async fn long_lines(store: &Store, lines: usize, bytes: usize) -> (BuildId, JournalWriter, u64) {
    let (row, writer) = running(store, 0).await;
    let said = writer.clone();
    // Whoever says more than the database takes waits, and must not keep a task from writing.
    let say = move || {
        for n in 0..lines {
            let mut line = format!("{n} ");
            line.extend(std::iter::repeat_n('x', bytes - line.len()));
            said.text(text(line + "\n"));
        }
    };
    tokio::task::spawn_blocking(say).await.unwrap();
    let next = writer.flush().await.unwrap().unwrap().next_number;
    (row.submission.build, writer, next)
}

fn weight(entries: &[Entry]) -> usize {
    let bytes = |e: &Entry| match &e.event {
        Event::Log(line) => line_bytes(line),
        _ => 0,
    };
    entries.iter().map(bytes).sum()
}

const LINE: usize = 60_000;

async fn what_is_read_at_once_is_bounded_in_bytes(db: Database) {
    let (store, _memory) = with_memory(&db);
    let (build, writer, end) = long_lines(&store, 120, LINE).await;
    let most = Most { entries: 9999, bytes: 10 * LINE };
    let pages = async |store: &Store| {
        let (mut seen, mut next) = (Vec::new(), 0);
        while next < end {
            let page = store.journal_within(build, next, most).await.unwrap();
            assert!(weight(&page) < most.bytes + LINE + 1000, "{}", page.len());
            next = page.last().unwrap().number + 1;
            seen.extend(page);
        }
        seen
    };
    let all = store.journal(build, 0, usize::MAX).await.unwrap();
    assert!(weight(&all) > 100 * LINE);
    assert_eq!(pages(&store).await, all);
    let one = store.journal_within(build, 50, Most { entries: 9, bytes: 1 }).await.unwrap();
    assert_eq!(one, all[50..51]);
    // Followers get no more at once either, and searches return no more.
    let mut follower = store.follow(build, 0);
    let mut followed = Vec::new();
    while followed.len() < all.len() {
        let piece = follower.next(usize::MAX).await.unwrap();
        assert!(weight(&piece) < (1 << 20) + 2 * LINE);
        followed.extend(piece);
    }
    assert_eq!(followed, all);
    let first = store.search(build, "xx", 0, 9999).await.unwrap();
    assert!(weight(&first.entries) < FOUND_BYTES_MAX + 2 * LINE);
    let rest = store.search(build, "xx", first.next.unwrap(), 9999).await.unwrap();
    assert_eq!((first.entries.len() + rest.entries.len(), rest.next), (120, None));

    writer.event(state(State::Failed));
    writer.flush().await.unwrap();
    move_all(&store).await;
    assert_eq!(pages(&store).await[..all.len()], all);
}

async fn the_end_of_a_journal_is_read_backwards(db: Database) {
    let (store, _memory) = with_memory(&db);
    let (build, writer, _) = long_lines(&store, 40, LINE).await;
    for round in 0..30 {
        writer.text(text(noise(100, round + 3)));
        writer.event(log(&format!("single {round}")));
        writer.event(Event::StepStarted { step: StepId(round as u32) });
        writer.flush().await.unwrap();
    }
    writer.text(text("é\n".repeat(500)));
    writer.flush().await.unwrap();
    let check = async |store: &Store| {
        let all = whole(store, build).await;
        let sizes = [1, 2, 499, 500, 501, 700, 3200, 9999];
        for entries in sizes {
            let most = Most { entries, bytes: usize::MAX };
            let tail = store.journal_tail(build, most).await.unwrap();
            assert_eq!(tail.len(), entries.min(all.len()));
            // Its submission comes without the definition.
            let from = all.len() - tail.len();
            assert_eq!(tail[usize::from(from == 0)..], all[from.max(1)..]);
        }
        for bytes in [1, 1000, 100_000, 2 << 20] {
            let tail = store.journal_tail(build, Most { entries: 9999, bytes }).await.unwrap();
            assert_eq!(tail, all[all.len() - tail.len()..]);
            assert!(weight(&tail[1..]) < bytes && weight(&tail) < bytes + LINE + 1000);
        }
        let most = Most { entries: 0, bytes: 9 };
        assert_eq!(store.journal_tail(build, most).await.unwrap(), []);
    };
    check(&store).await;
    writer.event(state(State::Failed));
    writer.flush().await.unwrap();
    move_all(&store).await;
    check(&store).await;
    let none = Most { entries: 9, bytes: 9 };
    assert_eq!(store.journal_tail(crate::common::build_id(), none).await.unwrap(), []);
}

async fn a_search_says_how_far_it_looked(db: Database) {
    let (store, _memory) = with_memory(&db);
    let (build, writer, end) = long_lines(&store, 3, 100).await;
    let none = store.search(build, "not there", 0, 5).await.unwrap();
    assert_eq!((none.entries.len(), none.next, none.end), (0, None, end));
    writer.text(text("is there\n"));
    writer.flush().await.unwrap();
    let found = store.search(build, "there", none.end, 5).await.unwrap();
    assert_eq!((found.entries[0].number, found.next, found.end), (end, None, end + 1));
    let beyond = store.search(build, "there", 900, 5).await.unwrap();
    assert_eq!((beyond.entries.len(), beyond.end), (0, 900));
}

/// Megabytes of log that the test writes; the benchmark writes a gibibyte.
const LONG_MIB: usize = 96;
/// What the process may grow by meanwhile.
const GROWTH_MIB_MAX: u64 = 80;

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn a_log_without_end_takes_bounded_memory(db: Database) {
    let (store, _) = with_memory(&db);
    let build = Submission { scope: "long".into(), ..submission() };
    submit(&store, build, 0).await;
    let row = store.claim(&claim(1), ashlar_records::now()).await.unwrap().unwrap();
    let build = row.submission.build;
    let writer = JournalWriter::spawn(store.clone(), build, row.fence);
    let piece = noise(600, 3);
    let before = status("VmHWM:").max(status("VmRSS:"));
    let mut follower = store.follow(build, 0);
    let reader = tokio::spawn(async move {
        let mut count = 0;
        loop {
            let entries = follower.next(1000).await.unwrap();
            if entries.is_empty() {
                return count;
            }
            count += entries.len() as u64;
        }
    });
    let said = writer.clone();
    tokio::task::spawn_blocking(move || {
        for _ in 0..(LONG_MIB << 20) / piece.len() {
            said.text(text(piece.as_bytes()));
        }
    })
    .await
    .unwrap();
    writer.event(state(State::Failed));
    let total = writer.flush().await.unwrap().unwrap().next_number;
    assert_eq!(reader.await.unwrap(), total);
    let growth = status("VmHWM:").saturating_sub(before) / 1024;
    assert!(growth < GROWTH_MIB_MAX, "the process grew by {growth} MiB");
}

/// Retention that removes a log while its segment is put away.
struct Removing {
    memory: Memory,
    store: Store,
    build: BuildId,
}

impl SegmentBlobs for Removing {
    fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let gone = self.store.let_go(self.build, What::Log, Why::Age, ashlar_records::now());
        let gone = tokio::runtime::Handle::current().block_on(gone);
        assert_eq!(gone.map_err(io::Error::other)?, LetGo::Gone);
        self.memory.put(digest, bytes)
    }

    fn get(&self, digest: &Digest, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.memory.get(digest, offset, length)
    }
}

async fn a_log_that_retention_removed_stays_removed(db: Database) {
    let build = ended(&db.store).await;
    let (memory, store) = (Memory::default(), db.store.clone());
    let removing = Arc::new(Removing { memory, store, build });
    let store = db.store.clone().with_segments(removing.clone());
    move_all(&store).await;
    assert_eq!(removing.memory.len(), 1);
    // Another process remembers nothing of the rows.
    let other = Store::open(&db.place).await.unwrap().with_segments(removing);
    let said = |e: &&Entry| matches!(&e.event, Event::Log(line) if !line.text.is_empty());
    assert_eq!(whole(&other, build).await.iter().filter(said).count(), 0);
    assert!(other.held_blobs(None, 99).await.unwrap().is_empty());
    check_fold(&other, build).await;
}
