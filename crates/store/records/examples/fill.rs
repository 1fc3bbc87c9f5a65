//! Fills a data directory with a long history, for `bench/serve`.
//!
//! `cargo run --release -p ashlar-records --example fill -- DIR COUNT`

#![expect(clippy::print_stderr, reason = "a tool that runs for minutes says how far it is")]

use ashlar_core::journal::{BuildKind, Event, Mode, OnLost, Submission};
use ashlar_core::state::State;
use ashlar_core::{Digest, Timestamp};
use ashlar_records::{
    Durability, Error, Options, Stamped, Store, Submit, Writer, new_build_id, now,
};

/// Where a server keeps its records.
const FILE: &str = "records.db";
/// Every how many builds a line says how far it is.
const REPORT: u64 = 50_000;
const SECOND: i64 = 1_000_000_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fill DIR COUNT".into());
    };
    let count: u64 = count.parse()?;
    std::fs::create_dir_all(&dir)?;
    let place = format!("{dir}/{FILE}");
    let store =
        Store::open_with(&place, Options { durability: Durability::Process, ..Options::default() })
            .await?;
    fill(&store, count).await?;
    store.close().await;
    Ok(())
}

/// Adds builds of the tenant `default`, which the server that opens the directory then knows; one in ten belongs to
/// another one. None waits for a worker: they are driven from outside, and most have ended.
async fn fill(store: &Store, count: u64) -> Result<(), Error> {
    let own = store.add_tenant("default", now()).await?;
    let other = store.add_tenant("other", now()).await?;
    let admin = store.add_principal(own.id, "admin", "root@localhost", now()).await?;
    let first = now().nanos() - i64::try_from(count).unwrap_or(0).saturating_mul(SECOND);
    for n in 0..count {
        let at = Timestamp::from_nanos(first + i64::try_from(n).unwrap_or(0) * SECOND);
        let definition = serde_json::json!({ "dockerfile": "FROM busybox\n", "n": n % 1000 });
        let wanted = Submission {
            build: new_build_id(at)?,
            tenant: if n % 10 == 9 { other.id } else { own.id },
            scope: pick(n, ["web", "api", "docs", "jobs", "data"]),
            principal: admin.id,
            dialect: pick(n / 5, ["native", "nullspace", "polyaxon"]),
            kind: BuildKind::Build,
            parent: None,
            retry_of: None,
            name: format!("shop {}", n % 1000),
            source: pick(n / 100, ["dockerfile", "dockerfile", "dockerfile", "steps"]),
            definition_digest: Digest::of(definition.to_string()),
            definition,
            backend: Some(pick(n / 7, ["native", "native", "buildkit"])),
            on_lost: OnLost::Fail,
            mode: Mode::External,
            priority: 0,
            labels: [("n".to_owned(), (n % 50).to_string())].into(),
        };
        let build = wanted.build;
        store.submit(&Submit::new(wanted), at).await?;
        if n % 100 != 0 {
            let to = if n % 7 == 0 { State::Failed } else { State::Skipped };
            let at = Timestamp::from_nanos(at.nanos() + SECOND / 2);
            store.append(build, Writer::Service, [Stamped::new(at, Event::State { to })]).await?;
        }
        if n % REPORT == REPORT - 1 {
            eprintln!("{} builds", n + 1);
        }
    }
    Ok(())
}

fn pick<const N: usize>(n: u64, words: [&str; N]) -> String {
    words[(n % N as u64) as usize].to_owned()
}
