//! Lists against a plain filter over all records.

use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::journal::{BuildKind, Event, Mode, Record, Submission};
use ashlar_core::state::State;
use ashlar_records::{At, Cursor, Error, Filter, Order, Page, Store, Writer};
use sqlx::Connection as _;

use crate::common::{Database, SECOND, at, build_id, stamped, state, submission, submit, tenant};

crate::on_both! {
    lists_show_what_the_filter_lets_through;
    cursors_go_through_everything_once;
    page_sizes_are_bounded;
    pages_by_number_go_on_across_blocks;
    a_page_that_is_asked_for_again_is_what_there_is;
    ids_are_found_by_their_beginning;
}

/// Makes builds of many kinds.
async fn fill(db: &Database, count: i64) -> Vec<Record> {
    let parent = build_id();
    let mut all = Vec::new();
    for n in 0..count {
        let pick = |texts: &[&str]| texts[(n as usize * 7 / 3) % texts.len()].to_owned();
        let wanted = Submission {
            build: build_id(),
            tenant: tenant((n % 3) as u8),
            scope: pick(&["web", "api", "web/docs"]),
            dialect: pick(&["native", "nullspace"]),
            source: pick(&["dockerfile", "steps", "image"]),
            backend: (n % 4 == 0).then(|| "buildkit".to_owned()),
            kind: if n % 10 == 0 { BuildKind::Workflow } else { BuildKind::Build },
            parent: (n % 5 == 0).then_some(parent),
            name: format!("Shop {} no-{n}", pick(&["front", "back"])),
            labels: BTreeMap::from([("team".to_owned(), pick(&["blue", "red sea"]))]),
            mode: Mode::External,
            ..submission()
        };
        let build = submit(&db.store, wanted, n * 600 * SECOND).await.submission.build;
        let mut events = Vec::new();
        if n % 2 == 0 {
            events.push(state(State::Preparing));
            let ran = if n % 8 == 0 { "buildkit" } else { "native" };
            events.push(Event::Executor { requested: None, ran: ran.into(), reason: None });
        }
        if n % 3 == 0 {
            events.push(state(State::Failed));
        }
        if n % 7 == 0 {
            events.push(Event::Labels { changes: [("team".to_owned(), None)].into() });
        }
        let events = events.into_iter().map(|e| stamped(n * 600 * SECOND + 5, e));
        db.store.append(build, Writer::Service, events.collect::<Vec<_>>()).await.unwrap();
        let mut row = db.store.row(build).await.unwrap();
        row.submission.definition = serde_json::Value::Null;
        all.push(row);
    }
    all
}

fn lets_through(filter: &Filter, record: &Record) -> bool {
    fn same<T: PartialEq>(wanted: &Option<T>, is: Option<&T>) -> bool {
        wanted.as_ref().is_none_or(|w| is == Some(w))
    }
    let s = &record.submission;
    let texts = std::iter::once(&record.name).chain(record.labels.values());
    let text: Vec<String> = texts.map(|t| t.to_lowercase()).collect();
    let text = text.join(" ");
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    same(&filter.tenant, Some(&s.tenant))
        && same(&filter.scope, Some(&s.scope))
        && same(&filter.dialect, Some(&s.dialect))
        && same(&filter.state, Some(&record.state))
        && same(&filter.source, Some(&s.source))
        && same(&filter.backend, s.backend.as_ref())
        && same(&filter.executor, record.executor.as_ref())
        && same(&filter.kind, Some(&s.kind))
        && same(&filter.parent, s.parent.as_ref())
        && filter.labels.iter().all(|(n, v)| record.labels.get(n) == Some(v))
        && filter.created_from.is_none_or(|t| record.created_at >= t)
        && filter.created_until.is_none_or(|t| record.created_at < t)
        && filter
            .text
            .as_ref()
            .is_none_or(|t| t.to_lowercase().split(' ').all(|w| words.contains(&w)))
}

fn filters(all: &[Record]) -> Vec<Filter> {
    let parent = all.iter().find_map(|r| r.submission.parent);
    let none = Filter::default;
    let blue = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    let singles = vec![
        none(),
        Filter { state: Some(State::Failed), ..none() },
        Filter { state: Some(State::Exporting), ..none() },
        Filter { dialect: Some("nullspace".into()), ..none() },
        Filter { source: Some("steps".into()), ..none() },
        Filter { backend: Some("buildkit".into()), ..none() },
        Filter { executor: Some("native".into()), ..none() },
        Filter { kind: Some(BuildKind::Workflow), ..none() },
        Filter { parent, ..none() },
        Filter { labels: blue.clone(), ..none() },
        Filter { created_from: Some(at(6000 * SECOND)), ..none() },
        Filter { created_until: Some(at(6000 * SECOND)), ..none() },
        Filter { state: Some(State::Queued), labels: blue, ..none() },
        Filter {
            created_from: Some(at(5000 * SECOND)),
            created_until: Some(at(9000 * SECOND)),
            dialect: Some("native".into()),
            ..none()
        },
    ];
    let mut filters = singles.clone();
    filters.extend(singles.into_iter().map(|f| Filter { tenant: Some(tenant(1)), ..f }));
    let own = |f| Filter { tenant: Some(tenant(2)), ..f };
    filters.extend([
        own(Filter { scope: Some("web".into()), ..none() }),
        own(Filter { scope: Some("web".into()), state: Some(State::Failed), ..none() }),
        own(Filter { scope: Some("api".into()), parent, kind: Some(BuildKind::Build), ..none() }),
        own(Filter { text: Some("front SHOP".into()), ..none() }),
        own(Filter { text: Some("sea".into()), state: Some(State::Queued), ..none() }),
        own(Filter { text: Some("nothing".into()), ..none() }),
    ]);
    filters
}

async fn lists_show_what_the_filter_lets_through(db: Database) {
    let all = fill(&db, 120).await;
    for filter in filters(&all) {
        let mut want: Vec<&Record> = all.iter().filter(|r| lets_through(&filter, r)).collect();
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let whole = Page { size: 1000, at: At::Start, order };
            let listed = db.store.list(&filter, &whole).await.unwrap();
            assert_eq!(
                listed.records.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
                want,
                "{filter:?}"
            );
            assert_eq!(listed.next, None);
            for number in 1..=want.len().div_ceil(7) + 1 {
                let page = Page { size: 7, at: At::Number(number as u64), order };
                let listed = db.store.list(&filter, &page).await.unwrap();
                assert_eq!(listed.total, Some(want.len() as u64), "{filter:?}");
                let rest = want.iter().skip((number - 1) * 7).take(7);
                assert!(
                    listed.records.iter().map(AsRef::as_ref).eq(rest.copied()),
                    "{filter:?} {number}"
                );
            }
            want.reverse();
        }
    }
    check_facets(&db).await;
}

/// Checks that every count is that of the facet's builds, by asking for all totals again after
/// walking the whole list.
pub(crate) async fn check_facets(db: &Database) {
    let page = Page { size: 1000, at: At::Start, order: Order::NewestFirst };
    let all = db.store.list(&Filter::default(), &page).await.unwrap().records.clone();
    let first = Page { size: 1, at: At::Number(1), order: Order::NewestFirst };
    for state in State::ALL {
        for tenant in [None, Some(tenant(0)), Some(tenant(1)), Some(tenant(2))] {
            let filter = Filter { tenant, state: Some(state), ..Filter::default() };
            let want = all.iter().filter(|r| lets_through(&filter, r)).count();
            let listed = db.store.list(&filter, &first).await.unwrap();
            assert_eq!(listed.total, Some(want as u64), "{filter:?}");
            assert_eq!(listed.records.len(), want.min(1));
        }
    }
    let total = db.store.list(&Filter::default(), &first).await.unwrap().total;
    assert_eq!(total, Some(all.len() as u64));
}

async fn cursors_go_through_everything_once(db: Database) {
    let all = fill(&db, 25).await;
    let filter = Filter { dialect: Some("native".into()), ..Filter::default() };
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let mut seen: Vec<BuildId> = Vec::new();
        let mut page = Page { size: 3, at: At::Start, order };
        loop {
            let listed = db.store.list(&filter, &page).await.unwrap();
            seen.extend(listed.records.iter().map(|r| r.submission.build));
            let Some(next) = listed.next else { break };
            let text = next.to_string();
            page.at = At::After(text.parse::<Cursor>().unwrap());
            if order == Order::NewestFirst {
                // What comes while somebody leafs does not move the pages.
                submit(&db.store, submission(), 0).await;
            }
        }
        let mut want = all.iter().filter(|r| lets_through(&filter, r));
        let mut want: Vec<BuildId> = want.by_ref().map(|r| r.submission.build).collect();
        if order == Order::NewestFirst {
            want.reverse();
            assert_eq!(seen, want);
        } else {
            assert_eq!(seen[..want.len()], want);
        }
    }
    assert!("-1".parse::<Cursor>().is_err() && "zz".parse::<Cursor>().is_err());
}

/// What is remembered of lists is never older than what a newly opened store says.
async fn a_page_that_is_asked_for_again_is_what_there_is(db: Database) {
    let other = Store::open(&db.place).await.unwrap();
    let mine = Filter { tenant: Some(tenant(1)), ..Filter::default() };
    let failed = Filter { state: Some(State::Failed), ..mine.clone() };
    let newest = Page::newest(2);
    let numbered = Page { at: At::Number(1), ..newest };
    let look = async |store: &Store| {
        let mut found = Vec::new();
        for (filter, page) in [(&mine, &newest), (&mine, &numbered), (&failed, &newest)] {
            found.push(store.list(filter, page).await.unwrap());
        }
        found
    };
    let check = async |what: &str| {
        let fresh = Store::open(&db.place).await.unwrap();
        let there = look(&fresh).await;
        assert_eq!((look(&db.store).await, look(&other).await), (there.clone(), there), "{what}");
        fresh.close().await;
    };
    check("nothing").await;
    let of = |n| Submission { tenant: tenant(n), mode: Mode::External, ..submission() };
    let mut builds = Vec::new();
    for store in [&db.store, &other, &db.store] {
        builds.push(submit(store, of(1), 1).await.submission.build);
        check("a build more").await;
    }
    let name = || Event::Labels { changes: [("team".to_owned(), Some("blue".into()))].into() };
    for (store, event) in [(&other, name()), (&db.store, state(State::Failed))] {
        store.append(builds[2], Writer::Service, [stamped(2, event)]).await.unwrap();
        check("an event").await;
    }
    let known = look(&db.store).await;
    submit(&other, of(2), 3).await;
    let again = look(&db.store).await;
    assert_eq!(again, known);
    let same = again.iter().zip(&known).all(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!(same, !db.place.starts_with("postgres"), "others' builds read nothing anew");
    assert_eq!(other.forget(&[builds[2]]).await.unwrap(), [builds[2]]);
    check("a build less").await;
    other.close().await;
}

/// Leaves out positions, as if builds had been there and were gone.
async fn leave_out(place: &str, positions: u32) {
    if place.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(place).await.unwrap();
        let sql = format!(
            "SELECT setval(s, nextval(s) + {positions}) \
             FROM (SELECT pg_get_serial_sequence('builds', 'position') s) x"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        return;
    }
    let connection = rusqlite::Connection::open(place).unwrap();
    let sql = "UPDATE sqlite_sequence SET seq = seq + ?1 WHERE name = 'builds'";
    assert_eq!(connection.execute(sql, [positions]).unwrap(), 1);
}

/// Lists by several properties are counted part by part, and a page may lie in two parts.
async fn pages_by_number_go_on_across_blocks(db: Database) {
    for _ in 0..12 {
        fill(&db, 5).await;
        leave_out(&db.place, 3000).await;
    }
    let native = Filter { dialect: Some("native".into()), ..Filter::default() };
    let two = Filter { kind: Some(BuildKind::Build), ..native };
    let recent = Filter { created_from: Some(at(600 * SECOND)), ..Filter::default() };
    for filter in [two, recent] {
        let whole = db.store.list(&filter, &Page::newest(1000)).await.unwrap();
        let mut all = whole.records.clone();
        assert!(all.len() >= 24, "{}", all.len());
        for order in [Order::NewestFirst, Order::OldestFirst] {
            for (number, want) in (1..).zip(all.chunks(5).chain([&[][..]])) {
                let page = Page { size: 5, at: At::Number(number), order };
                let listed = db.store.list(&filter, &page).await.unwrap();
                assert_eq!(listed.records, want, "{order:?} {number}");
                assert_eq!(listed.total, Some(all.len() as u64));
            }
            all.reverse();
        }
    }
}

async fn page_sizes_are_bounded(db: Database) {
    for size in [0, 1001] {
        let error = db.store.list(&Filter::default(), &Page::newest(size)).await.unwrap_err();
        assert!(matches!(error, Error::PageSize { .. }), "{error}");
    }
    let far = Page { size: 1000, at: At::Number(u64::MAX), order: Order::NewestFirst };
    assert!(db.store.list(&Filter::default(), &far).await.unwrap().records.is_empty());
}

async fn ids_are_found_by_their_beginning(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let text = build.to_string();
    assert_eq!(db.store.find(&text).await.unwrap(), [build]);
    assert_eq!(db.store.find(&text[..11].to_uppercase()).await.unwrap(), [build]);
    for none in ["", "ffffffff", "%", "not an id", &format!("{text}0")] {
        assert!(db.store.find(none).await.unwrap().is_empty(), "{none}");
    }
}
