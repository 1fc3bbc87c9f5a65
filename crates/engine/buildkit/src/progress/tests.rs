use std::sync::Mutex;

use bollard_buildkit_proto::google::protobuf::Timestamp;

use super::*;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Sink for Heard {
    fn event(&self, event: Event) {
        let text = match event {
            Event::Steps { names } => format!("steps {}", names.join(", ")),
            Event::StepStarted { step } => format!("begin {}", step.0),
            Event::StepEnded { step, outcome, .. } => format!("end {} {outcome:?}", step.0),
            Event::Cache(c) => format!("cache {:?} {}", c.status, c.step.unwrap().0),
            Event::Log(line) => {
                format!("{:?} {:?} {}", line.step.map(|s| s.0), line.stream, line.text)
            }
            other => panic!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

fn vertex(digest: &str, name: &str, inputs: &[&str]) -> VertexNews {
    VertexNews {
        digest: digest.into(),
        name: name.into(),
        inputs: inputs.iter().map(|i| (*i).to_owned()).collect(),
        ..VertexNews::default()
    }
}

fn begun(mut vertex: VertexNews) -> VertexNews {
    vertex.started = Some(Timestamp::default());
    vertex
}

fn done(vertex: VertexNews, cached: bool, error: &str) -> VertexNews {
    VertexNews {
        cached,
        error: error.into(),
        completed: Some(Timestamp::default()),
        ..begun(vertex)
    }
}

fn news(vertexes: Vec<VertexNews>) -> StatusResponse {
    StatusResponse { vertexes, ..StatusResponse::default() }
}

fn log(digest: &str, stream: i64, text: &str) -> StatusResponse {
    let log = VertexLog {
        vertex: digest.into(),
        stream,
        msg: text.as_bytes().to_vec(),
        ..VertexLog::default()
    };
    StatusResponse { logs: vec![log], ..StatusResponse::default() }
}

/// Runs a tracker and returns what it told.
fn heard(masker: &Masker, act: impl FnOnce(&mut Tracker<'_>)) -> Vec<String> {
    let heard = Heard::default();
    act(&mut Tracker::new(&heard, masker, None, "Dockerfile"));
    heard.0.into_inner().unwrap()
}

#[test]
fn steps_are_numbered_after_what_they_need_whatever_order_they_come_in() {
    let got = heard(&Masker::default(), |t| {
        t.take(news(vec![vertex("c", "[2/2] COPY --from=a x y", &["f", "r"])]));
        t.take(news(vec![
            vertex("r", "[a 2/2] RUN make", &["b"]),
            vertex("i", "[internal] load build context", &[]),
            vertex("f", "[1/2] FROM x", &[]),
        ]));
        t.take(news(vec![vertex("b", "[a 1/2] FROM y", &[])]));
    });
    let want = "steps [1/2] FROM x, [a 1/2] FROM y, [a 2/2] RUN make, [2/2] COPY --from=a x y";
    assert_eq!(got, [want]);
}

#[test]
fn stages_of_more_than_nine_steps_have_padded_numbers() {
    let name = |stage: &str, number: usize| format!("[{stage}{number:>2}/12] RUN {number}");
    for (told, stage) in [("build ", "build "), ("", "")] {
        let got = heard(&Masker::default(), |t| {
            let digest = |number: usize| format!("d{number}");
            let vertices = (1..=12).map(|n| vertex(&digest(n), &name(told, n), &[&digest(n - 1)]));
            // The first one needs nothing that is unknown.
            t.take(news(vertices.skip(1).chain([vertex("d1", &name(told, 1), &[])]).collect()));
        });
        let names: Vec<_> = (1..=12).map(|n| format!("[{stage}{n}/12] RUN {n}")).collect();
        assert_eq!(got, [format!("steps {}", names.join(", "))]);
    }
}

#[test]
fn a_step_begins_and_ends_once_also_on_a_second_daemon() {
    let (f, r) = (|| vertex("f", "[1/2] FROM x", &[]), || vertex("r", "[2/2] RUN y", &["f"]));
    let got = heard(&Masker::default(), |t| {
        t.take(news(vec![f(), r()]));
        t.take(news(vec![begun(f())]));
        t.take(log("f", 1, "whole\n"));
        t.take(news(vec![done(f(), false, ""), begun(r())]));
        t.take(log("r", 1, "half"));
        t.begin_again();
        t.take(news(vec![f(), r()]));
        t.take(news(vec![begun(f()), begun(r())]));
        t.take(log("f", 1, "whole\n"));
        t.take(log("r", 1, "half and more\n"));
        t.take(news(vec![done(f(), true, ""), done(r(), false, "")]));
        t.take(news(vec![done(r(), false, "")]));
        t.close();
    });
    let want = [
        "steps [1/2] FROM x, [2/2] RUN y",
        "begin 1",
        "Some(1) Stdout whole",
        "begin 2",
        "end 1 Ran",
        "Some(2) Stdout half",
        "None Service [2/2] RUN y begins again: what it said before is of another try",
        "Some(2) Stdout half and more",
        "cache Miss 2",
        "cache Store 2",
        "end 2 Ran",
    ];
    assert_eq!(got, want);
}

#[test]
fn a_base_that_another_build_on_the_second_daemon_has_begun_on_is_no_further_step() {
    let rest = || vertex("r", "[2/2] RUN y", &["f"]);
    let got = heard(&Masker::default(), |t| {
        t.take(news(vec![vertex("f", "[1/2] FROM x", &[]), rest()]));
        t.take(news(vec![done(vertex("f", "[1/2] FROM x", &[]), false, "")]));
        t.begin_again();
        t.take(news(vec![vertex("f", "[other 1/5] FROM x", &[]), rest()]));
        t.take(news(vec![done(vertex("f", "[other 1/5] FROM x", &[]), true, "")]));
        t.take(news(vec![done(rest(), true, "")]));
        t.close();
    });
    let want = [
        "steps [1/2] FROM x, [2/2] RUN y",
        "begin 1",
        "end 1 Ran",
        "begin 2",
        "cache Hit 2",
        "end 2 Cached",
    ];
    assert_eq!(got, want);
}

#[test]
fn failed_steps_are_told_from_those_that_were_stopped_for_them() {
    let masker = Masker::new([b"s3cr3t-word".as_slice()]);
    let mut failed = None;
    let got = heard(&masker, |t| {
        let (a, b) = (vertex("a", "[a 1/1] RUN x", &[]), vertex("b", "[b 1/1] RUN y", &[]));
        t.take(news(vec![begun(a.clone()), begun(b.clone())]));
        t.take(log("b", 2, "the s3cr3t-word\nlast"));
        t.take(news(vec![done(a, false, "process: context canceled"), done(b, false, "exit 1")]));
        failed = t.failed(None);
        assert_eq!(t.failed(Some("a")).unwrap().name, "[a 1/1] RUN x");
        t.close();
    });
    let want = [
        "steps [a 1/1] RUN x, [b 1/1] RUN y",
        "begin 1",
        "begin 2",
        "Some(2) Stderr the ***",
        "Some(2) Stderr last",
        "end 1 Cancelled",
        "cache Miss 2",
        "end 2 Failed",
    ];
    assert_eq!(got, want);
    let failed = failed.unwrap();
    assert_eq!((failed.step, failed.name.as_str()), (Some(StepId(2)), "[b 1/1] RUN y"));
    assert_eq!(failed.last_lines, ["the ***", "last"]);
}

#[test]
fn how_a_step_failed_is_told_at_the_end_unless_another_try_came_to_more() {
    let base = || vertex("f", "[1/3] FROM x", &[]);
    let (r, c) = (|| vertex("r", "[2/3] RUN y", &["f"]), || vertex("c", "[3/3] RUN z", &["r"]));
    let got = heard(&Masker::default(), |t| {
        t.take(news(vec![base(), r(), c()]));
        t.take(news(vec![done(base(), false, "registry: no such host")]));
        t.begin_again();
        t.take(news(vec![done(base(), false, ""), r(), c()]));
        // A daemon that is told to end.
        t.take(news(vec![done(r(), false, "exit code: 137: context canceled")]));
        t.begin_again();
        t.take(news(vec![done(base(), true, ""), done(r(), false, ""), done(c(), false, "no")]));
        t.take(news(vec![done(c(), false, "context canceled")]));
        t.close();
    });
    let want = [
        "steps [1/3] FROM x, [2/3] RUN y, [3/3] RUN z",
        "begin 1",
        "end 1 Ran",
        "begin 2",
        "begin 3",
        "cache Miss 2",
        "cache Store 2",
        "end 2 Ran",
        "cache Miss 3",
        "end 3 Failed",
    ];
    assert_eq!(got, want);
}

#[test]
fn a_hostile_daemon_cannot_make_a_circle_of_steps() {
    let got = heard(&Masker::default(), |t| {
        let (a, b) = (vertex("a", "[1/2] RUN x", &["b"]), vertex("b", "[2/2] RUN y", &["a"]));
        t.take(news(vec![begun(a), begun(b)]));
        t.take(log("gone", 1, "x\n"));
    });
    assert_eq!(got, [""; 0]);
}
