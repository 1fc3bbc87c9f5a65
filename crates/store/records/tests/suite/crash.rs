//! Writers that are killed at any moment lose nothing that they acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use ashlar_core::BuildId;
use ashlar_core::journal::{Event, Sink};
use ashlar_records::{JournalWriter, Store};

use crate::common::{check_fold, claim, log, submission, submit};

const PLACE: &str = "ASHLAR_TEST_CRASH_PLACE";

/// The process that is killed: does nothing unless a parent asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_to_be_killed() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let store = Store::open(&place).await.unwrap();
    loop {
        let build = submit(&store, submission(), 0).await.submission.build;
        let row = store.claim(&claim(1), ashlar_records::now()).await.unwrap().unwrap();
        say(&format!("accepted {build}"));
        let writer = JournalWriter::spawn(store.clone(), row.submission.build, row.fence);
        for n in 0..200 {
            writer.event(log(&n.to_string()));
            if n % 7 == 0 {
                writer.flush().await.unwrap();
                say(&format!("line {} {n}", row.submission.build));
            }
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nACK {text}").unwrap();
    out.flush().unwrap();
}

/// Starts a writer, kills it after a while, and returns what it acknowledged.
fn killed_after(place: &str, time: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer_to_be_killed", "--nocapture"])
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        lines.filter_map(|l| l.strip_prefix("ACK ").map(str::to_owned)).collect()
    });
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

async fn check(place: &str, acknowledged: &[String]) {
    let store = Store::open(place).await.unwrap();
    for line in acknowledged {
        let words: Vec<&str> = line.split(' ').collect();
        let build: BuildId = words[1].parse().unwrap();
        let record = check_fold(&store, build).await;
        if let [_, _, last] = words[..] {
            let last: u64 = last.parse().unwrap();
            assert!(record.next_number > last + 2, "{line}: {}", record.next_number);
            let entry = store.journal(build, last + 2, 1).await.unwrap();
            let Event::Log(said) = &entry[0].event else { panic!("{entry:?}") };
            assert_eq!(said.text, last.to_string());
        }
    }
    store.close().await;
}

async fn kill_and_check(place: &str, rounds: u64) {
    let mut acknowledged = 0;
    for round in 0..rounds {
        let (copy, time) = (place.to_owned(), Duration::from_millis(150 + 83 * round));
        let said = tokio::task::spawn_blocking(move || killed_after(&copy, time)).await.unwrap();
        check(place, &said).await;
        acknowledged += said.len();
    }
    assert!(acknowledged > 0, "the writers were killed before they did anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_survives_sigkill() {
    let db = crate::common::sqlite().await;
    kill_and_check(&db.place, 10).await;
    let connection = rusqlite::Connection::open(&db.place).unwrap();
    let checked: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_loses_nothing_of_killed_writers() {
    let db = crate::common::postgres().await;
    kill_and_check(&db.place, 5).await;
}
