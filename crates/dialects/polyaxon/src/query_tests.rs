use super::*;

struct Thing {
    name: Option<&'static str>,
    status: &'static str,
    tags: &'static [&'static str],
    id: u64,
    created: &'static str,
    finished: Option<&'static str>,
}

const THING: Thing = Thing {
    name: Some("Quick-Start"),
    status: "running",
    tags: &["red", "blue"],
    id: 7,
    created: "2018-06-01T12:30:00Z",
    finished: None,
};

impl Subject for Thing {
    fn texts(&self, field: Field) -> Vec<String> {
        match field {
            Field::Id => vec![self.id.to_string()],
            Field::Name => self.name.iter().map(ToString::to_string).collect(),
            Field::Status => vec![self.status.to_owned()],
            Field::Tags => self.tags.iter().map(ToString::to_string).collect(),
            Field::User => vec!["alice".into()],
            Field::Project => vec!["first".into(), "3".into()],
            Field::ProjectName => vec!["first".into()],
            Field::ProjectId => vec!["3".into()],
            _ => Vec::new(),
        }
    }

    fn time(&self, field: Field) -> Option<Timestamp> {
        match field {
            Field::CreatedAt | Field::UpdatedAt => Timestamp::parse(self.created),
            Field::FinishedAt => self.finished.and_then(Timestamp::parse),
            _ => None,
        }
    }
}

#[test]
fn every_operation_does_what_the_page_says() {
    let table = [
        ("id:7", true),
        ("id:7|8", true),
        ("id:~7", false),
        ("status:running", true),
        ("status:created|running", true),
        ("status: created | running ", true),
        ("status:~running", false),
        ("status:~created|failed", true),
        ("status:Running", false),
        ("tags:red", true),
        ("tags:green|blue", true),
        ("tags:~red", false),
        ("tags:~green", true),
        ("tags:red,tags:blue", true),
        ("tags:red,tags:green", false),
        ("name:Quick-Start", true),
        ("name:quick-start", false),
        ("name:%start", true),
        ("name:quick%", true),
        ("name:%k-S%", true),
        ("name:%nope%", false),
        ("name:~%START%", false),
        ("name:a|Quick-Start", true),
        ("description:%x%", false),
        // Null fields: a negated test holds, a plain one does not.
        ("description:~x", true),
        ("finished_at:>2018-01-01", false),
        ("finished_at:~>2018-01-01", true),
        ("commit:~abc", true),
        ("user.username:alice", true),
        ("user:alice", true),
        ("user.username:bob", false),
        ("project.name:first", true),
        ("project.id:3", true),
        ("project:3", true),
        ("project:first", true),
        ("created_at:<2018-06-02", true),
        ("created_at:<2018-06-01", false),
        ("created_at:>=2018-06-01", true),
        ("created_at:=>2018-06-01", true),
        ("created_at:=<2018-06-01", false),
        ("created_at:<=2018-06-02", true),
        // A plain day is its midnight.
        ("created_at:2018-06-01", false),
        ("created_at:2018-06-01 12:30", true),
        ("created_at:2018-06-01 12:30:00", true),
        ("created_at:2018-06-01T12:30:00Z", true),
        ("created_at:2018-06-01..2018-06-02", true),
        ("created_at:2018-06-01 12:30 .. 2018-06-01 12:30", true),
        ("created_at:~2018-06-01..2018-06-02", false),
        ("created_at:2018-06-02..2018-06-03", false),
        (",status:running,,id:7,", true),
        ("status:running,id:8", false),
    ];
    for (text, fits) in table {
        let query = Query::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(query.matches(&THING), fits, "{text}");
    }
}

#[test]
fn wrong_queries_are_refused_with_a_reason() {
    let table = [
        "",
        " ",
        ",",
        "foo:1",
        "name",
        ":x",
        "name:",
        "name:~",
        "name.foo:1",
        "user.a.b:1",
        "status:a..b",
        "status:>a",
        "name:>a",
        "name:a..b",
        "status:=a",
        "status:a|",
        "status:|a",
        "created_at:2018-01-01|2019-01-01",
        "created_at:2018-01-01..",
        "created_at:..2018-01-01",
        "created_at:2018-13-77..2019-01-01",
        "created_at:2018-13-77",
        "created_at:>yesterday",
        "created_at:>",
        "id:abc",
        "project.id:x",
        "id:1,foo:2",
    ];
    for text in table {
        let error = Query::parse(text).expect_err(text);
        assert!(error.to_string().ends_with('.'), "{error}");
    }
    assert!(Query::parse(&"id:1,".repeat(EXPRESSIONS_MAX + 1)).is_err());
    assert!(Query::parse(&format!("name:{}", "x".repeat(QUERY_BYTES_MAX))).is_err());
}

#[test]
fn lists_are_sorted_with_nulls_where_postgresql_puts_them() {
    let thing = |id, created, finished| Thing { id, created, finished, ..THING };
    let mut things = [
        thing(1, "2018-06-01T00:00:00Z", Some("2018-06-05T00:00:00Z")),
        thing(2, "2018-06-03T00:00:00Z", None),
        thing(3, "2018-06-02T00:00:00Z", Some("2018-06-04T00:00:00Z")),
    ];
    let table = [
        ("created_at", [1, 3, 2]),
        ("-created_at", [2, 3, 1]),
        ("finished_at", [3, 1, 2]),
        ("-finished_at", [2, 1, 3]),
        ("nonsense,created_at", [1, 3, 2]),
        ("name", [2, 3, 1]),
        ("", [2, 3, 1]),
        ("started_at,created_at", [1, 3, 2]),
    ];
    for (text, want) in table {
        let keys = sort_keys(text);
        things.sort_by(|a, b| compare(&keys, a, b));
        assert_eq!(things.iter().map(|t| t.id).collect::<Vec<_>>(), want, "{text}");
    }
}

#[test]
fn what_the_store_can_filter_by_is_left_to_it() {
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let narrowed = |text: &str| {
        let mut filter = Filter::default();
        let exact = Query::parse(text).unwrap().narrow(&mut filter);
        (exact, filter)
    };
    let (exact, filter) = narrowed("created_at:>=2018-01-01,created_at:<2018-02-01,status:stopped");
    assert!(exact);
    assert_eq!(filter.created_from, Some(at("2018-01-01T00:00:00Z")));
    assert_eq!(filter.created_until, Some(at("2018-02-01T00:00:00Z")));
    assert_eq!(filter.state, Some(State::Cancelled));
    // The bounds of a range are in it, and the narrowest of several holds.
    let (exact, filter) = narrowed("created_at:2018-01-01..2018-02-01,created_at:>2018-01-02");
    assert!(exact);
    assert_eq!(filter.created_from, Some(at("2018-01-02T00:00:00.000000001Z")));
    assert_eq!(filter.created_until, Some(at("2018-02-01T00:00:00.000000001Z")));
    // Other statuses share this state, so each build is looked at.
    assert_eq!(narrowed("status:failed").1.state, Some(State::Failed));
    let looked_at = [
        "status:failed",
        "status:running",
        "status:stopped|failed",
        "status:~stopped",
        "created_at:~2018-01-01",
        "status:stopped,tags:red",
        "status:stopped,status:succeeded",
        "updated_at:>2018-01-01",
    ];
    for text in looked_at {
        assert!(!narrowed(text).0, "{text}");
    }
}

#[test]
fn the_stores_own_order_is_known() {
    let of = |text: &str| sorting(&sort_keys(text));
    assert_eq!(of("-created_at,updated_at"), Sorting::Creation(Order::NewestFirst));
    assert_eq!(of("created_at"), Sorting::Creation(Order::OldestFirst));
    for text in ["", "nonsense", "-updated_at"] {
        assert_eq!(of(text), Sorting::Change, "{text}");
    }
    for text in ["updated_at", "-finished_at", "started_at,-created_at"] {
        assert_eq!(of(text), Sorting::Other, "{text}");
    }
}
