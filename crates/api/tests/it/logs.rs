//! Logs and events: ranges, forms, streams that are resumed.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN, Client, World, id, send};

/// Says many long lines, each of what JSON needs two bytes for.
const LONG_LINES: &str = "FROM base\nRUN head -c 60000 /dev/zero | tr '\\0' '\"' >/line; echo >>/line; \\\n    \
     for i in $(seq 1 120); do cat /line; done; echo the end";

/// Reads server-sent events until there are `count`, or to the end.
async fn frames(client: &Client, path: &str, last: Option<u64>, count: usize) -> Vec<(u64, Value)> {
    let mut request = client.request(Method::GET, path).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let mut bytes = request.send().await.unwrap().bytes_stream();
    let (mut text, mut frames) = (String::new(), Vec::new());
    while let Some(chunk) = bytes.next().await {
        text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        while let Some((frame, rest)) = text.split_once("\n\n") {
            let field = |name: &str| frame.lines().find_map(|l| l.strip_prefix(name));
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                frames.push((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
            text = rest.to_owned();
            if frames.len() == count {
                return frames;
            }
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_goes_on_with_nothing_lost_or_doubled() {
    let world = World::new().await;
    let client = &world.admin;
    let text = "FROM base\nRUN for i in $(seq 1 40); do echo line $i; sleep 0.02; done\n";
    let build = client.dockerfile(text).await;
    let path = format!("/api/v1/builds/{build}/events?follow=true");
    let (mut seen, mut last) = (Vec::new(), None);
    loop {
        let part = frames(client, &path, last, 7).await;
        let Some((number, _)) = part.last() else { break };
        last = Some(*number);
        seen.extend(part);
    }
    let numbers: Vec<u64> = seen.iter().map(|(n, _)| *n).collect();
    let whole: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, whole);
    assert_eq!(seen.last().unwrap().1["to"], "succeeded");
    let stored = client.get(&format!("/api/v1/builds/{build}/events?limit=1000")).await.json();
    let stored = stored["entries"].as_array().unwrap().clone();
    assert_eq!(stored, seen.into_iter().map(|(_, e)| e).collect::<Vec<_>>());

    let lines = frames(client, &format!("/api/v1/builds/{build}/logs?format=sse"), None, 999).await;
    let texts: Vec<&str> = lines.iter().map(|(_, l)| l["text"].as_str().unwrap()).collect();
    let want: Vec<String> = (1..=40).map(|i| format!("line {i}")).collect();
    assert_eq!(texts, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_log_ends_where_the_step_did_and_colours_and_bars_are_shown() {
    let world = World::new().await;
    let client = &world.admin;
    let text = "FROM base\nRUN busybox printf '\\033[32mgreen\\nstill\\033[0m\\rp1\\rp2\\nabc'\n\
                RUN busybox printf 'def\\n'\n";
    let build = client.dockerfile(text).await;
    client.wait(&build).await;
    let log = async |query: &str| {
        client.get(&format!("/api/v1/builds/{build}/logs?{query}")).await.is(200).text()
    };
    let green = |text: &str| format!("<span class=\"c2\">{text}</span>\n");
    assert_eq!(log("format=text").await, "green\np2\nabc\ndef\n");
    assert_eq!(log("format=html").await, format!("{}p2\nabc\ndef\n", green("green")));
    let raw = log("format=raw").await;
    assert_eq!(raw, "\u{1b}[32mgreen\nstill\u{1b}[0m\rp1\rp2\nabcdef\n");
    let text = "FROM base\nRUN busybox printf '\\033[32mgreen\\nstill\\033[0m\\nno\\n'\n";
    let build = client.dockerfile(text).await;
    client.wait(&build).await;
    let html = client.get(&format!("/api/v1/builds/{build}/logs?format=html")).await.text();
    assert_eq!(html, format!("{}{}no\n", green("green"), green("still")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_served_as_text_html_raw_and_json() {
    let world = World::new().await;
    let client = &world.admin;
    let text =
        "FROM base\nRUN printf '\\033[31mred <b>\\033[0m\\n'; printf 'bad \\377 byte\\n' >&2\n";
    let build = client.dockerfile(&text.replace("printf", "busybox printf")).await;
    client.wait(&build).await;
    let log = async |query: &str| {
        client.get(&format!("/api/v1/builds/{build}/logs?{query}")).await.is(200)
    };
    let lines = log("format=text").await.text();
    assert!(lines.starts_with("red <b>\n") || lines.ends_with("red <b>\n"), "{lines:?}");
    let html = log("format=html").await;
    assert!(html.text().contains("<span class=\"c1\">red &lt;b&gt;</span>\n"), "{}", html.text());
    let raw = log("format=raw").await.body;
    assert!(raw.windows(11).any(|w| w == b"bad \xff byte\n"), "{raw:?}");
    let json = log("search=RED").await.json();
    let lines = json["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["stream"]), (1, &json!("stdout")));
    let none = log("search=RED&step=99").await.json();
    assert_eq!(none["lines"], json!([]));
    for bad in ["search=", "search=red&format=text", &format!("search={}", "x".repeat(2000))] {
        let path = format!("/api/v1/builds/{build}/logs?{bad}");
        let problem = send(client.request(Method::GET, &path)).await.is(400).text();
        assert!(problem.contains("search"), "{problem}");
    }
    let all = log("").await.json();
    assert_eq!(all["lines"].as_array().unwrap().len(), 2);
    assert_eq!(all.get("next"), None);
    assert_eq!(log("from=1000").await.json(), json!({"lines": []}));
    let since = all["lines"][1]["time"].as_str().unwrap();
    let later = log(&format!("since={since}")).await.json();
    assert_eq!(later["lines"][0], all["lines"][1]);
    log("step=2").await;
    send(client.request(Method::GET, &format!("/api/v1/builds/{build}/logs?format=pdf")))
        .await
        .is(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_counts_lines_and_an_ended_log_has_an_end() {
    let world = World::new().await;
    let client = &world.admin;
    let build = client.dockerfile("FROM base\nRUN seq 1 25\nRUN echo other\n").await;
    client.wait(&build).await;
    let log = async |query: &str| {
        client.get(&format!("/api/v1/builds/{build}/logs?{query}")).await.is(200)
    };
    let texts = |page: &Value| -> Vec<String> {
        let lines = page["lines"].as_array().unwrap().iter();
        lines.map(|l| l["text"].as_str().unwrap().to_owned()).collect()
    };
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(next) = from {
        let page = log(&format!("limit=6&from={next}")).await.json();
        assert!(texts(&page).len() == 6 || page.get("next").is_none(), "{page}");
        seen.extend(texts(&page));
        from = page["next"].as_u64();
        assert!(from.is_none_or(|n| n > next), "{page}");
    }
    let want: Vec<String> = (1..=25).map(|i| i.to_string()).chain(["other".into()]).collect();
    assert_eq!(seen, want);

    let all = log("").await.json();
    let step = &all["lines"][25]["step"];
    let page = log(&format!("limit=1&step={step}")).await.json();
    assert_eq!(texts(&page), ["other"]);
    assert_eq!(log("limit=0").await.json(), json!({"lines": [], "next": 0}));

    for form in ["text", "html", "raw"] {
        let head = log(&format!("limit=2&format={form}")).await.text();
        assert_eq!(head, "1\n2\n", "{form}");
    }
    let path = format!("/api/v1/builds/{build}/logs?format=sse&limit=3");
    assert_eq!(frames(client, &path, None, 99).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_follow_ends_while_the_build_runs() {
    let world = World::new().await;
    let client = &world.admin;
    let build = client.dockerfile("FROM base\nRUN echo begun; sleep 600\n").await;
    let path = format!("/api/v1/builds/{build}/logs?format=text");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while client.get(&path).await.is(200).text() != "begun\n" {
        assert!(std::time::Instant::now() < until);
    }
    let page = client.get(&format!("/api/v1/builds/{build}/logs?from=900")).await.json();
    assert_eq!(page, json!({"lines": [], "next": 900}));
    client.post(&format!("/api/v1/builds/{build}/cancel"), &json!({})).await.is(202);
    let ended = client.wait(&build).await;
    assert_eq!(
        client.get(&format!("/api/v1/builds/{}/logs", id(&ended))).await.json()["lines"][0]["text"],
        "begun"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_log_moves_to_the_blob_store_and_reads_the_same() {
    let world = World::new().await;
    let client = &world.admin;
    let text = "FROM base\nRUN seq 1 2000 | busybox sha256sum; \
                busybox head -c 200000 /dev/urandom | busybox base64; echo needle\n";
    let build = client.dockerfile(text).await;
    client.wait(&build).await;
    let path = format!("/api/v1/builds/{build}/logs");
    let log = async |query: &str| client.get(&format!("{path}?{query}")).await.is(200);
    let before = (log("format=text").await.text(), log("limit=9999").await.json());
    assert!(before.0.len() > 200_000);
    // Blobs that nobody but the log needs are granted to nobody.
    let grants = world.data.path().join("grants/00000000-0000-0000-0000-000000000000");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !grants.exists() {
        assert!(std::time::Instant::now() < until, "the log stays in the database");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for _ in 0..20 {
        assert_eq!(log("format=text").await.text(), before.0);
        assert_eq!(log("limit=9999").await.json(), before.1);
    }
    let found = log("search=NEEDLE").await.json();
    assert_eq!(found["lines"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_over_its_cap_keeps_head_and_tail_and_says_so() {
    let world = World::with(|config| config.log_cap = 40_000).await;
    let client = &world.admin;
    let build = client.dockerfile("FROM base\nRUN seq 1 50000; exit 3\n").await;
    client.wait(&build).await;
    let log = client.get(&format!("/api/v1/builds/{build}/logs?format=text")).await.is(200).text();
    assert!(log.len() < 45_000, "{}", log.len());
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), ("1", "50000"));
    assert!(lines.iter().any(|l| l.contains("limit of 40000 bytes")), "{log}");
    let left_out = lines.iter().find(|l| l.contains("are left out here")).unwrap();
    let missing: usize = left_out.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(lines.len() - 2 + missing, 50_000);
}

/// Long lines of [`LONG_LINES`].
const LONG_COUNT: usize = 120;
/// What a JSON answer may hold, with one long line more.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024 + 256 * 1024;
/// What a web page may hold, with one long line more: a quote is six bytes there, and two in JSON.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024 + 512 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_bounded_in_bytes_while_a_build_runs_and_later() {
    let world = World::new().await;
    let client = &world.admin;
    let build = client.dockerfile(&format!("{LONG_LINES}; sleep 60\n")).await;
    let path = format!("/api/v1/builds/{build}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !client.get(&format!("{path}/logs?search=the+end")).await.text().contains("the end") {
        assert!(std::time::Instant::now() < until);
    }
    let cookie = world.session(ADMIN).await;
    for ended in [false, true] {
        if ended {
            client.post(&format!("{path}/cancel"), &json!({})).await.is(202);
            client.wait(&build).await;
        }
        for (kind, search) in [("logs", ""), ("logs", "&search=%22"), ("events", "")] {
            let (mut from, mut long) = (0, 0);
            while long < LONG_COUNT {
                let url = format!("{path}/{kind}?limit=10000&from={from}{search}");
                let answer = client.get(&url).await.is(200);
                assert!(answer.body.len() < ANSWER_BYTES_MAX, "{url}: {}", answer.body.len());
                let page = answer.json();
                let lines = page.get("lines").or(page.get("entries")).unwrap();
                let is_long = |l: &&Value| l["text"].as_str().is_some_and(|t| t.len() == 60_000);
                long += lines.as_array().unwrap().iter().filter(is_long).count();
                let next = page["next"].as_u64();
                assert!(long == LONG_COUNT || next.is_some_and(|n| n > from), "{url}: {next:?}");
                from = next.unwrap_or(from);
            }
            assert_eq!(long, LONG_COUNT);
        }
        let page = world.client(None).request(Method::GET, &format!("/builds/{build}"));
        let page = send(page.header("cookie", &cookie)).await.is(200).text();
        assert!(page.len() < PAGE_BYTES_MAX, "{}", page.len());
        assert!(page.contains("the end\n") && page.contains("the whole log"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_goes_on_while_the_build_runs() {
    let world = World::new().await;
    let client = &world.admin;
    let text = "FROM base\nRUN echo begun; until [ -e /go ]; do sleep 0.1; done\n";
    let build = client.dockerfile(text).await;
    let search = async |text: &str, from: u64| {
        let path = format!("/api/v1/builds/{build}/logs?search={text}&from={from}");
        client.get(&path).await.is(200).json()
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let found = loop {
        let found = search("BEGUN", 0).await;
        assert!(found["next"].is_u64(), "{found}");
        if found["lines"][0]["text"] == "begun" {
            break found;
        }
        assert!(std::time::Instant::now() < until);
    };
    let line = found["lines"][0]["number"].as_u64().unwrap();
    let next = found["next"].as_u64().unwrap();
    assert!(next > line, "{found}");
    assert_eq!(search("nothere", next).await, json!({ "lines": [], "next": next }));
    assert!(search("nothere", 0).await["next"].as_u64() >= Some(next));
    client.post(&format!("/api/v1/builds/{build}/cancel"), &json!({})).await.is(202);
    client.wait(&build).await;
    assert_eq!(search("nothere", 0).await, json!({ "lines": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_as_events_when_no_form_is_named() {
    let world = World::new().await;
    let client = &world.admin;
    let text = "FROM base\nRUN for i in 1 2 3; do echo line $i; sleep 0.3; done\n";
    let build = client.dockerfile(text).await;
    let path = format!("/api/v1/builds/{build}/logs?follow=true");
    let request = client.request(Method::GET, &path);
    let answer = send(request.header("accept", "*/*")).await.is(200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let said = answer.text();
    let data: Vec<Value> = said
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let texts: Vec<&str> = data.iter().map(|l| l["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["line 1", "line 2", "line 3"]);
    let text = client.get(&format!("{path}&format=text")).await.is(200);
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    let refused = client.get(&format!("{path}&format=json")).await.is(400).json();
    assert_eq!(refused["field"], "follow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_retention_removed_is_said_to_be_gone() {
    let world = World::new().await;
    let client = &world.admin;
    let build = client.dockerfile("FROM base\nRUN seq 1 3000; exit 3\n").await;
    client.wait(&build).await;
    let path = format!("/api/v1/builds/{build}");
    let entries = async || {
        let events = client.get(&format!("{path}/events?limit=10000")).await.is(200).json();
        events["entries"].as_array().unwrap().clone()
    };
    let before = entries().await;
    let bounds = json!({ "logs": { "age_seconds": 1 } });
    let set = client.request(Method::PUT, "/api/v1/scopes/test/retention").json(&bounds);
    send(set).await.is(204);
    let later = std::time::Duration::from_secs(3600).as_nanos() as i64;
    let later = ashlar_core::Timestamp::from_nanos(ashlar_service::now().nanos() + later);
    assert_eq!(world.service.apply_retention(later).await.unwrap().gone, 1);

    // What happened keeps its numbers, and the note says the rest.
    let mut after = entries().await;
    let note = after.pop().unwrap();
    let events: Vec<Value> = before.into_iter().filter(|e| e["event"] != "log").collect();
    assert_eq!((after, &note["value"]), (events, &json!({ "log_removed": "age" })));
    let said = format!("log removed by retention (age) at {}", note["time"].as_str().unwrap());
    let last = note["number"].as_u64().unwrap();
    for query in [
        "",
        "?format=text",
        "?format=html",
        "?format=raw",
        "?format=sse",
        "?search=1",
        "?follow=true",
        "?from=2000",
        "?step=1",
        "?limit=0",
        &format!("?from={last}"),
    ] {
        let gone = client.get(&format!("{path}/logs{query}")).await.is(410);
        assert_eq!(gone.header("content-type"), "application/problem+json");
        let problem = gone.json();
        assert_eq!(problem["type"], "urn:ashlar:problem:log_removed", "{query}");
        assert_eq!(problem["detail"], said.as_str());
    }
    let stranger = world.tenant("other", "owner").await;
    stranger.get(&format!("{path}/logs")).await.is(404);
    let cookie = world.session(ADMIN).await;
    for (path, status) in [(format!("/builds/{build}"), 200), (format!("/builds/{build}/log"), 410)]
    {
        let page = world.client(None).request(Method::GET, &path).header("cookie", &cookie);
        let page = send(page).await.is(status).text();
        assert!(page.contains(&said) && !page.contains("<pre>"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_no_empty_log() {
    let world = World::new().await;
    let client = &world.admin;
    let build = client.dockerfile("FROM base\nRUN seq 1 40000\n").await;
    client.wait(&build).await;
    let data = world.data.path();
    let place = data.join("records.db");
    let store = ashlar_records::Store::open(place.to_str().unwrap()).await.unwrap();
    let store = store.with_segments(ashlar_service::log_segments(data));
    let mut from = Some(0);
    while let Some(place) = from {
        from = store.move_logs(place).await.unwrap();
    }
    store.close().await;
    let path = format!("/api/v1/builds/{build}/logs");
    std::fs::rename(data.join("blobs/sha256"), data.join("blobs/elsewhere")).unwrap();
    for query in ["format=text", "format=raw", "format=html", "limit=5", "search=7"] {
        client.get(&format!("{path}?{query}")).await.is(500);
    }
    std::fs::rename(data.join("blobs/elsewhere"), data.join("blobs/sha256")).unwrap();
    let whole = client.get(&format!("{path}?format=text")).await.is(200).text();
    assert!(whole.ends_with("\n40000\n") && whole.lines().count() == 40000);
}
