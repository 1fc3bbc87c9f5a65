//! Times pages by number, with exact totals, in a long history, for `bench/serve`.
//!
//! `cargo run --release -p ashlar-records --example pages -- FILE`: one line of JSON a list, with the
//! median of its times in milliseconds and the total that was counted.

#![expect(clippy::print_stdout, reason = "a tool that prints what it measured")]

use std::time::{Duration, Instant};

use ashlar_core::TenantId;
use ashlar_core::state::State;
use ashlar_records::{At, Error, Filter, Order, Page, Store};
use serde_json::json;

const PAGE_SIZE: u32 = 50;
const ROUNDS: u32 = 21;
/// What `fill` calls one of its scopes.
const SCOPE: &str = "web";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::args().nth(1).ok_or("usage: pages FILE")?;
    let store = Store::open(&place).await?;
    let newest = store.list(&Filter::default(), &Page::newest(100)).await?;
    let of_web = newest.records.iter().find(|record| record.submission.scope == SCOPE);
    let tenant = of_web.ok_or("the history has no build of the scope")?.submission.tenant;
    for (name, filter) in lists(tenant) {
        // From the middle, where most has to be passed over from either end.
        let first = store.list(&filter, &page(1, PAGE_SIZE)).await?;
        let total = first.total.unwrap_or_default();
        let deep = (total / u64::from(PAGE_SIZE) / 2).max(1);
        let time = median(&store, &filter, deep).await?;
        let milliseconds = time.as_secs_f64() * 1000.0;
        println!("{}", json!({ "list": name, "page": deep, "total": total, "ms": milliseconds }));
    }
    store.close().await;
    Ok(())
}

/// Lists by one property, which block counts lead through, and others.
fn lists(tenant: TenantId) -> Vec<(&'static str, Filter)> {
    let of = |change: fn(&mut Filter)| {
        let mut filter = Filter { tenant: Some(tenant), ..Filter::default() };
        change(&mut filter);
        filter
    };
    vec![
        ("everything", Filter::default()),
        ("a tenant", of(|_| ())),
        ("a scope", of(|f| f.scope = Some(SCOPE.into()))),
        ("a state", Filter { state: Some(State::Failed), ..Filter::default() }),
        ("a tenant's state", of(|f| f.state = Some(State::Failed))),
        ("a label", of(|f| f.labels = [("n".to_owned(), "3".to_owned())].into())),
        ("a text", of(|f| f.text = Some("shop 42".into()))),
        (
            "a state and a source",
            of(|f| (f.state, f.source) = (Some(State::Failed), Some("steps".into()))),
        ),
    ]
}

const fn page(number: u64, size: u32) -> Page {
    Page { size, at: At::Number(number), order: Order::NewestFirst }
}

async fn median(store: &Store, filter: &Filter, number: u64) -> Result<Duration, Error> {
    let mut times = Vec::with_capacity(ROUNDS as usize);
    for round in 0..ROUNDS {
        // Another size each time: a page that was asked for before would only be remembered.
        let page = page(number, PAGE_SIZE - round);
        let start = Instant::now();
        store.list(filter, &page).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
