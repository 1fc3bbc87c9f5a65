//! Query plans: no statement that any test of the suite runs reads a growing table from end to end.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, Once};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tracing::field::{Field, Visit};
use tracing::span;

/// Statements that may read a whole table, with the reason.
const WHOLE: [(&str, &str); 2] = [
    ("SELECT COUNT(*) FROM queue", "an operator's number; the queue does not grow for ever"),
    ("SELECT MAX(version) FROM ashlar_schema", "has a row a migration"),
];

/// Statements seen so far: which database, the text, the types of its values.
static SEEN: Mutex<BTreeSet<Statement>> = Mutex::new(BTreeSet::new());

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Statement {
    database: String,
    sql: String,
    types: String,
}

/// Ways to ask for names that begin with a text: from the first of them, and after one.
const PREFIXES: usize = 2;

impl Statement {
    /// Asks for names that begin with a text.
    fn is_prefix(&self) -> bool {
        self.sql.starts_with("SELECT alias, target FROM aliases") && self.sql.contains("alias < $6")
    }
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "database" => self.database = value.to_owned(),
            "sql" => self.sql = value.to_owned(),
            "types" => self.types = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

struct Collector;

impl tracing::Subscriber for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "ashlar_records::sql"
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut statement = Statement::default();
        event.record(&mut statement);
        SEEN.lock().unwrap().insert(statement);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Collects statements from now on.
pub(crate) fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Collector).unwrap());
}

fn seen(database: &str) -> Vec<Statement> {
    let seen = SEEN.lock().unwrap();
    let all: Vec<_> = seen
        .iter()
        .filter(|s| s.database == database && !s.sql.starts_with("CREATE "))
        .filter(|s| !WHOLE.iter().any(|(sql, _)| s.sql == *sql))
        .cloned()
        .collect();
    assert!(all.len() > 60, "only {} statements were seen", all.len());
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_reads_no_growing_table_from_end_to_end() {
    collect();
    for (_, case) in crate::suites().iter().flat_map(|s| s.iter()) {
        case(crate::common::sqlite().await).await;
    }
    let db = crate::common::sqlite().await;
    let connection = rusqlite::Connection::open(&db.place).unwrap();
    let (mut bad, mut ranges) = (Vec::new(), 0);
    for statement in seen("sqlite") {
        let mut explain =
            connection.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql)).unwrap();
        let lines = explain.raw_query().mapped(|row| row.get::<_, String>("detail"));
        // `w` is the list of waiting tenants and `n` that of some newer builds, which the queries
        // make themselves.
        let scans = |l: &String| {
            let made = ["CONSTANT ROW", "VALUES CLAUSE"].iter().any(|m| l.contains(m));
            l.starts_with("SCAN ") && !made && l != "SCAN w" && l != "SCAN n"
        };
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        if statement.is_prefix() {
            assert!(lines.iter().any(|l| l.contains("alias>? AND alias<?")), "{lines:#?}");
            ranges += 1;
        }
        let scans = lines.into_iter().filter(scans);
        bad.extend(scans.map(|line| format!("{line}: {}", statement.sql)));
    }
    assert!(bad.is_empty() && ranges == PREFIXES, "{ranges}, {bad:#?}");
}

/// Checks all statements that were seen on PostgreSQL.
pub(crate) async fn check_postgres() {
    let db = crate::common::postgres().await;
    let mut connection = PgConnection::connect(&db.place).await.unwrap();
    // With empty tables a scan is always cheapest; what still scans then has no index to use.
    let settings = "SET enable_seqscan = off; SET enable_hashjoin = off; \
                    SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";
    sqlx::raw_sql(settings).execute(&mut connection).await.unwrap();
    let (mut bad, mut ranges) = (Vec::new(), 0);
    for statement in seen("postgres") {
        let plan = postgres_plan(&mut connection, &statement).await;
        if statement.is_prefix() {
            let index = plan.iter().find(|l| l.contains("Index Cond:")).unwrap();
            assert!(index.contains("alias >") && index.contains("alias < $6"), "{plan:#?}");
            ranges += 1;
        }
        bad.extend(full_reads(&plan).into_iter().map(|l| format!("{l}: {}", statement.sql)));
    }
    assert!(bad.is_empty() && ranges == PREFIXES, "{ranges}, {bad:#?}");
}

async fn postgres_plan(connection: &mut PgConnection, statement: &Statement) -> Vec<String> {
    let Statement { sql, types, .. } = statement;
    let count = types.split(',').filter(|t| !t.is_empty()).count();
    let (types, nulls) = match count {
        0 => (String::new(), String::new()),
        _ => (format!("({types})"), format!("({})", vec!["NULL"; count].join(","))),
    };
    let prepare = AssertSqlSafe(format!("PREPARE p{types} AS {sql}"));
    sqlx::raw_sql(prepare).execute(&mut *connection).await.unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE p{nulls}"));
    let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
    sqlx::raw_sql("DEALLOCATE p").execute(&mut *connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

/// Returns the steps of a plan that read a whole table or index.
fn full_reads(plan: &[String]) -> Vec<String> {
    let mut bad = Vec::new();
    for (i, line) in plan.iter().enumerate() {
        let step = line.trim_start_matches([' ', '-', '>']);
        let bounded = plan.get(i + 1).is_some_and(|next| next.contains("Index Cond:"));
        let index = step.starts_with("Index") || step.starts_with("Bitmap Index");
        if step.starts_with("Seq Scan") || (index && step.contains("Scan") && !bounded) {
            bad.push(step.to_owned());
        }
    }
    bad
}
