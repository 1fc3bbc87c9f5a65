use ashlar_core::graph::StepId;
use ashlar_core::journal::{Level, LogLine, LogText, Stream};
use proptest::prelude::*;

use super::frame::FrameBuilder;
use super::search::Needle;
use super::text::TextRow;
use super::*;

fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr), Just(Stream::Service)]
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![Just(Level::Debug), Just(Level::Info), Just(Level::Warn), Just(Level::Error)]
}

fn step() -> impl Strategy<Value = Option<StepId>> {
    proptest::option::of(any::<u32>().prop_map(StepId))
}

fn line() -> impl Strategy<Value = LogLine> {
    let raw = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    let ends = prop_oneof![Just((false, false)), Just((true, false)), Just((false, true))];
    (step(), stream(), level(), ".{0,300}", raw, ends).prop_map(
        |(step, stream, level, text, raw, (partial, unended))| LogLine {
            step,
            stream,
            level,
            text,
            raw,
            partial,
            unended,
        },
    )
}

/// Text with lines of all lengths, and bytes that are no text.
fn text() -> impl Strategy<Value = LogText> {
    let piece = prop_oneof![
        3 => "[a-z \n]{1,40}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 1..40),
    ];
    let bytes = proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat());
    (step(), stream(), level(), bytes, any::<bool>()).prop_map(
        |(step, stream, level, bytes, partial)| {
            let partial = partial && bytes.last() != Some(&b'\n');
            LogText { step, stream, level, bytes, partial }
        },
    )
}

fn all(place: &Place, plain: &Plain, from: u64) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    plain.each(place, from, &mut |entry| {
        found.push(entry);
        true
    })?;
    Ok(found)
}

fn unpack(row: &Packed) -> Vec<Entry> {
    let place = Place { number: row.number, count: row.count, time: row.time };
    all(&place, &Plain::of(&place, &row.body).unwrap(), 0).unwrap()
}

fn place_of(row: &Packed) -> Place {
    Place { number: row.number, count: row.count, time: row.time }
}

const START: i64 = 1_700_000_000_000_000_000;

/// Packs text as a writer does, from a number on.
fn text_row(texts: &[(LogText, i64)], number: u64) -> Packed {
    let mut nanos = START;
    let mut row = None;
    for (text, gap) in texts {
        nanos += gap;
        let at = Timestamp::from_nanos(nanos);
        match &mut row {
            None => row = Some(TextRow::new(at, text)),
            Some(row) => row.push(at, text),
        }
    }
    let packed = row.unwrap().pack();
    let last_time = Timestamp::from_nanos(packed.at.nanos() + packed.span);
    Packed { number, count: packed.count, time: packed.at, last_time, body: packed.body }
}

fn texts() -> impl Strategy<Value = Vec<(LogText, i64)>> {
    proptest::collection::vec((text(), 0_i64..1000), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn log_lines_come_back_as_they_were(
        lines in proptest::collection::vec((line(), 1_i64..10_000_000_000), 1..50)
    ) {
        let mut nanos = START;
        let entries: Vec<Entry> = lines.into_iter().enumerate().map(|(i, (line, gap))| {
            nanos += gap;
            let time = Timestamp::from_nanos(nanos);
            Entry { number: 7 + i as u64, time, event: Event::Log(line) }
        }).collect();
        let mut back = Vec::new();
        for row in pack(&entries).unwrap() {
            let unpacked = unpack(&row);
            prop_assert_eq!(unpacked.len() as u64, row.count);
            prop_assert_eq!(unpacked.last().unwrap().time, row.last_time);
            back.extend(unpacked);
        }
        prop_assert_eq!(back, entries);
    }

    #[test]
    fn text_comes_back_line_by_line(texts in texts()) {
        let row = text_row(&texts, 5);
        let back = unpack(&row);
        let lines: Vec<LogLine> = texts.iter().flat_map(|(t, _)| t.lines()).collect();
        prop_assert_eq!(back.len(), lines.len());
        let mut last = None;
        for (i, (entry, line)) in back.iter().zip(lines).enumerate() {
            prop_assert_eq!(entry.number, 5 + i as u64);
            prop_assert!(last < Some(entry.time));
            last = Some(entry.time);
            prop_assert_eq!(&entry.event, &Event::Log(line));
        }
        prop_assert_eq!((back[0].time, last), (row.time, Some(row.last_time)));
        let mut nanos = START;
        let mut next = 0;
        for (text, gap) in &texts {
            nanos += gap;
            prop_assert!(back[next].time.nanos() >= nanos);
            next += text.count() as usize;
        }
    }

    #[test]
    fn reading_may_begin_anywhere_and_end_early(texts in texts(), from in 0_u64..60, limit in 1_usize..9) {
        let row = text_row(&texts, 3);
        let plain = Plain::of(&place_of(&row), &row.body).unwrap();
        let want: Vec<Entry> = unpack(&row).into_iter().filter(|e| e.number >= from).take(limit).collect();
        let mut found = Vec::new();
        plain.each(&place_of(&row), from, &mut |entry| {
            found.push(entry);
            found.len() < limit
        }).unwrap();
        prop_assert_eq!(found, want);
    }

    #[test]
    fn frames_hold_what_their_rows_did(rows in proptest::collection::vec(texts(), 1..6), needle in "[a-z]{0,2}") {
        let (mut builder, mut number, mut want) = (FrameBuilder::default(), 9, Vec::new());
        for (i, texts) in rows.iter().enumerate() {
            let mut row = text_row(texts, number);
            let shift = i as i64 * 1_000_000_000;
            row.time = Timestamp::from_nanos(row.time.nanos() + shift);
            number += row.count;
            want.extend(unpack(&row));
            let place = place_of(&row);
            let plain = Plain::of(&place, &row.body).unwrap();
            assert!(builder.takes(&place, plain.bytes().len()));
            builder.push(&place, row.last_time.nanos() + shift, &plain);
        }
        let (place, last, plain) = builder.finish().unwrap();
        prop_assert_eq!(last, want.last().unwrap().time.nanos());
        let frame = Plain::of_frame(&place, &frame::compress(&plain).unwrap()).unwrap();
        prop_assert_eq!(&all(&place, &frame, 0).unwrap(), &want);
        let middle = 9 + (number - 9) / 2;
        want.retain(|e| e.number >= middle);
        prop_assert_eq!(&all(&place, &frame, middle).unwrap(), &want);
        let mut found = Vec::new();
        frame.search(&place, middle, &Needle::new(&needle), &mut |entry| {
            found.push(entry.number);
            true
        }).unwrap();
        let has = |e: &&Entry| matches!(&e.event, Event::Log(l) if l.text.to_lowercase().contains(&needle));
        prop_assert_eq!(found, want.iter().filter(has).map(|e| e.number).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_rows_are_refused_without_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..8, count in 0_u64..300
    ) {
        let place = Place { number: u64::MAX - 200, count, time: Timestamp::from_nanos(i64::MAX - 9) };
        let body = [&[kind][..], &body].concat();
        if let Ok(plain) = Plain::of(&place, &body) {
            let _ = all(&place, &plain, 0);
        }
        let _ = Plain::of_frame(&place, &body);
        let _ = Pointer::of(&body);
    }

    #[test]
    fn changed_rows_are_refused_without_panic(
        texts in texts(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let row = text_row(&texts, 1);
        let place = place_of(&row);
        let mut plain = Plain::of(&place, &row.body).unwrap().bytes().to_vec();
        let at = at.index(plain.len());
        if cut { plain.truncate(at) } else { plain[at] = byte }
        if let Ok(plain) = Plain::of(&place, &plain)
            && let Ok(entries) = all(&place, &plain, 0)
        {
            prop_assert_eq!(entries.len() as u64, place.count);
        }
    }

    #[test]
    fn pointers_come_back(segment in any::<[u8; 32]>(), offset in 0..u64::MAX / 2, length in 0_u64..1 << 20) {
        let pointer = Pointer { segment: ashlar_core::Digest::from_bytes(segment), offset, length };
        let body = pointer.pack();
        prop_assert_eq!(Pointer::of(&body), Some(Some(pointer)));
        prop_assert_eq!(Pointer::of(&body[..body.len() - 1]), Some(None));
    }

    #[test]
    fn emptied_rows_keep_their_numbers_and_times(texts in texts()) {
        let row = text_row(&texts, 2);
        let span = row.last_time.nanos() - row.time.nanos();
        let body = emptied(&row.body, row.count, span).unwrap();
        let back = unpack(&Packed { body, ..row.clone() });
        prop_assert_eq!(back.len() as u64, row.count);
        prop_assert_eq!((back[0].time, back[back.len() - 1].time), (row.time, row.last_time));
        prop_assert!(back.iter().all(|e| matches!(&e.event, Event::Log(l) if l.text.is_empty())));
    }
}

#[test]
fn a_stream_that_ends_within_a_line_is_read_so() {
    let text = |bytes: &[u8], partial| {
        let (stream, level) = (Stream::Stdout, Level::Info);
        (LogText { step: None, stream, level, bytes: bytes.to_vec(), partial }, 1)
    };
    let row = text_row(&[text(b"a\nb", true), text(b"c", false), text(b"d\n", false)], 0);
    let ends = |entry: &Entry| match &entry.event {
        Event::Log(line) => (line.text.clone(), line.partial, line.unended),
        other => panic!("{other:?}"),
    };
    let line = |text: &str, partial, unended| (text.to_owned(), partial, unended);
    let want = [
        line("a", false, false),
        line("b", true, false),
        line("c", false, true),
        line("d", false, false),
    ];
    let entries = unpack(&row);
    assert_eq!(entries.iter().map(ends).collect::<Vec<_>>(), want);
    // Single lines and frames of segments have it too.
    let again: Vec<Entry> = pack(&entries).unwrap().iter().flat_map(unpack).collect();
    assert_eq!(again, entries);
    let mut builder = FrameBuilder::default();
    let plain = Plain::of(&place_of(&row), &row.body).unwrap();
    builder.push(&place_of(&row), row.last_time.nanos(), &plain);
    let (place, _, plain) = builder.finish().unwrap();
    let frame = Plain::of_frame(&place, &frame::compress(&plain).unwrap()).unwrap();
    assert_eq!(all(&place, &frame, 0).unwrap(), entries);
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
    assert!(counts.iter().all(|c| *c <= (ROW_BYTES_MAX / 100) as u64));
}

#[test]
fn a_claim_to_be_huge_is_refused_before_memory_is_taken() {
    let bomb = zstd::bulk::compress(&vec![0; INFLATED_MAX + 1], 1).unwrap();
    let place = Place { number: 0, count: 1, time: Timestamp::default() };
    let body = [&[TEXT_ZSTD][..], &bomb].concat();
    assert!(Plain::of(&place, &body).is_err());
    assert!(Plain::of_frame(&place, &bomb).is_err());
}
