//! How many connections to PostgreSQL one process uses.

use std::num::NonZeroU32;

use ashlar_records::{Options, Store};
use sqlx::{Connection as _, PgConnection, Row as _};

const CONNECTIONS: u32 = 2;
/// Queries at a time, many more than connections.
const QUERIES: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_uses_no_more_connections_than_it_may() {
    let place = crate::postgres::fresh_database().await;
    let connections = NonZeroU32::new(CONNECTIONS);
    let store = Store::open_with(&place, Options { connections, ..Options::default() }).await;
    let store = store.unwrap();
    let queries: Vec<_> = (0..QUERIES)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.waiting().await.unwrap() })
        })
        .collect();
    for query in queries {
        assert_eq!(query.await.unwrap(), 0);
    }
    let mut own = PgConnection::connect(&place).await.unwrap();
    let used = "SELECT COUNT(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let used: i64 = sqlx::query(used).fetch_one(&mut own).await.unwrap().get(0);
    assert!((1..=i64::from(CONNECTIONS)).contains(&used), "{used} connections");
    store.close().await;
}
