//! How much log one step may write while others read it.
//!
//! `cargo bench -p ashlar-records --bench log -- [--bytes MIB] [--line BYTES] [--readers N]
//! [--database URL]`: one producer says text as a sandbox hands it out, readers follow the build
//! from its first entry. Printed are the rate at which the text was taken in and made durable, how
//! far the readers were by then, and the growth of the process's memory.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that measures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ashlar_core::graph::StepId;
use ashlar_core::journal::{
    BuildKind, Event, Level, LogText, Mode, OnLost, Sink, Stream, Submission,
};
use ashlar_core::state::State;
use ashlar_core::{Digest, PrincipalId, TenantId, WorkerId};
use ashlar_records::{Claim, JournalWriter, Store, Submit, new_build_id, now};

/// What one read of a pipe hands out at most.
const CHUNK: usize = 64 * 1024;
const MIB: u64 = 1 << 20;

struct Asked {
    bytes: u64,
    line: usize,
    readers: usize,
    database: Option<String>,
}

fn asked() -> Asked {
    let mut asked = Asked { bytes: 1024 * MIB, line: 100, readers: 10, database: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap();
        match arg.as_str() {
            "--bytes" => asked.bytes = value().parse::<u64>().unwrap() * MIB,
            "--line" => asked.line = value().parse().unwrap(),
            "--readers" => asked.readers = value().parse().unwrap(),
            "--database" => asked.database = Some(value()),
            _ => {}
        }
    }
    asked
}

/// Lines that compress about as well as those of a compiler.
fn chunk(line: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHUNK);
    let mut state = 88_172_645_463_325_252_u64;
    while bytes.len() + line <= CHUNK {
        let begin = bytes.len();
        let mut rest = line - 1;
        while rest > 0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let word = WORDS[(state % WORDS.len() as u64) as usize];
            let number = format!("{word} {} ", state % 1000);
            let taken = rest.min(number.len());
            bytes.extend_from_slice(&number.as_bytes()[..taken]);
            rest -= taken;
        }
        assert_eq!(bytes.len(), begin + line - 1);
        bytes.push(b'\n');
    }
    bytes
}

const WORDS: [&str; 12] = [
    "Compiling",
    "warning:",
    "unused",
    "variable",
    "src/main.rs",
    "note:",
    "Downloading",
    "crate",
    "error[E0308]",
    "mismatched",
    "types",
    "expected",
];

fn submission() -> Submission {
    let definition = serde_json::Value::Null;
    Submission {
        build: new_build_id(now()).unwrap(),
        tenant: TenantId::from_parts(1, [1; 10]),
        scope: "bench".into(),
        principal: PrincipalId::from_parts(1, [1; 10]),
        dialect: "native".into(),
        kind: BuildKind::Build,
        parent: None,
        retry_of: None,
        name: "bench".into(),
        source: "dockerfile".into(),
        definition_digest: Digest::of("null"),
        definition,
        backend: None,
        on_lost: OnLost::Fail,
        mode: Mode::Managed,
        priority: 0,
        labels: Default::default(),
    }
}

/// Returns a number of kibibytes from the process's status.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let asked = asked();
    let dir = tempfile::tempdir().unwrap();
    let place = asked.database.clone();
    let place = place.unwrap_or_else(|| dir.path().join("records.db").display().to_string());
    let store = Store::open(&place).await.unwrap();
    let build = submission();
    let id = build.build;
    store.submit(&Submit::new(build), now()).await.unwrap();
    let claim = Claim {
        worker: WorkerId::from_parts(1, [1; 10]),
        kind: BuildKind::Build,
        backends: vec!["native".into()],
        slots: 8,
    };
    let row = store.claim(&claim, now()).await.unwrap().unwrap();
    let seen: Vec<_> = (0..asked.readers).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let readers: Vec<_> = seen
        .iter()
        .map(|seen| {
            let (mut follower, seen) = (store.follow(id, 0), Arc::clone(seen));
            tokio::spawn(async move {
                loop {
                    let entries = follower.next(1000).await.unwrap();
                    let Some(last) = entries.last() else { return };
                    seen.store(last.number, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let before = status("VmRSS:");
    let writer = JournalWriter::spawn(store.clone(), id, row.fence);
    let (said, bytes, text) = (writer.clone(), asked.bytes, chunk(asked.line));
    let (start, cpu) = (Instant::now(), cpu_time());
    let producer = tokio::task::spawn_blocking(move || {
        let mut left = bytes;
        while left > 0 {
            left = left.saturating_sub(text.len() as u64);
            said.text(LogText {
                step: Some(StepId(1)),
                stream: Stream::Stdout,
                level: Level::Info,
                bytes: text.clone(),
                partial: false,
            });
        }
    });
    producer.await.unwrap();
    let taken = start.elapsed();
    let record = writer.flush().await.unwrap().unwrap();
    let (durable, cpu) = (start.elapsed(), cpu_time() - cpu);
    let behind: Vec<u64> =
        seen.iter().map(|s| s.load(Ordering::Relaxed) * 100 / record.next_number).collect();
    let peak = status("VmHWM:") - before;
    let rate = |time: Duration| bytes as f64 / MIB as f64 / time.as_secs_f64();
    println!(
        "{} MiB, lines of {} bytes, {} readers: taken in at {:.0} MiB/s, durable at {:.0} MiB/s, \
         cpu {:.1} s of {:.1} s, memory +{} MiB, readers at {behind:?} %",
        bytes / MIB,
        asked.line,
        asked.readers,
        rate(taken),
        rate(durable),
        cpu.as_secs_f64(),
        durable.as_secs_f64(),
        peak / 1024,
    );
    writer.event(Event::State { to: State::Failed });
    writer.flush().await.unwrap();
    let caught = Instant::now();
    for reader in readers {
        let left = Duration::from_secs(120).saturating_sub(caught.elapsed());
        if tokio::time::timeout(left, reader).await.is_err() {
            println!("a reader was not done after {:?}", caught.elapsed());
            return;
        }
    }
    println!("all readers done {:.1} s later", caught.elapsed().as_secs_f64());
}
