//! What a large history costs. Not run by default: `cargo test --release -- --ignored scale`.

use std::time::{Duration, Instant};

use ashlar_core::journal::{Mode, Submission};
use ashlar_core::state::State;
use ashlar_records::{At, Durability, Filter, Options, Order, Page, Store, Submit, Writer};

use crate::common::{at, build_id, stamped, state, submission, tenant};

/// How many builds; a million takes some minutes to make.
fn size() -> u64 {
    std::env::var("ASHLAR_TEST_BUILDS").ok().map_or(20_000, |n| n.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; prints times instead of judging them"]
async fn large_histories_stay_quick() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("records.db");
    let options = Options { durability: Durability::Process, ..Options::default() };
    let store = Store::open_with(place.to_str().unwrap(), options).await.unwrap();
    let filled = fill(&store).await;
    println!("{} builds made in {filled:?}", size());
    let last = size() / 50;
    let none = Filter::default;
    let own = |f| Filter { tenant: Some(tenant(1)), ..f };
    let filters = [
        ("everything", none()),
        ("state", Filter { state: Some(State::Failed), ..none() }),
        ("tenant", own(none())),
        ("tenant, state", own(Filter { state: Some(State::Failed), ..none() })),
        ("scope", own(Filter { scope: Some("web".into()), ..none() })),
        ("label", own(Filter { labels: [("n".into(), "3".into())].into(), ..none() })),
        ("text", own(Filter { text: Some("shop 42".into()), ..none() })),
        (
            "state, source",
            own(Filter { state: Some(State::Queued), source: Some("steps".into()), ..none() }),
        ),
    ];
    for (name, filter) in filters {
        let first = median(&store, &filter, At::Start).await;
        let page = median(&store, &filter, At::Number(1)).await;
        let deep = median(&store, &filter, At::Number(last / 20)).await;
        println!("{name:>14}: newest {first:?}, page 1 {page:?}, page {} {deep:?}", last / 20);
    }
    let deep = median(&store, &none(), At::Number(last / 2)).await;
    println!("everything, page {}: {deep:?}", last / 2);
}

async fn fill(store: &Store) -> Duration {
    let start = Instant::now();
    for n in 0..size() {
        let wanted = Submission {
            build: build_id(),
            tenant: tenant((n % 2) as u8),
            scope: ["web", "api", "docs"][(n % 3) as usize].into(),
            source: if n % 100 == 0 { "steps" } else { "dockerfile" }.into(),
            mode: Mode::External,
            name: format!("shop {}", n % 1000),
            labels: [("n".to_owned(), (n % 50).to_string())].into(),
            ..submission()
        };
        let build = wanted.build;
        store.submit(&Submit::new(wanted), at(n as i64 * 1000)).await.unwrap();
        if n % 4 != 0 {
            let end = if n % 7 == 0 { State::Failed } else { State::Skipped };
            store.append(build, Writer::Service, [stamped(0, state(end))]).await.unwrap();
        }
    }
    start.elapsed()
}

async fn median(store: &Store, filter: &Filter, at: At) -> Duration {
    let page = Page { size: 50, at, order: Order::NewestFirst };
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        store.list(filter, &page).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[10]
}
