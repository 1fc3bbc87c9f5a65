//! Whatever comes in: no panic, no endless work.

use ashlar_core::frontend::{Answer, Answers, Frontend, Lowered, Question};
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request, Source, outline};
use proptest::prelude::*;

use crate::common::{self, World, fail};

fn lower(text: &str) {
    let _ = common::lower(Request::text(text), &World::default());
    let _ = outline("Dockerfile", text);
}

/// Pieces of Dockerfiles, good and bad, that random files are made of.
const PIECES: [&str; 62] = [
    "FROM busybox\n",
    "FROM busybox AS a\n",
    "FROM a AS b\n",
    "FROM scratch\n",
    "FROM $X\n",
    "FROM cases/onbuild\n",
    "FROM --platform=$TARGETPLATFORM busybox\n",
    "ARG X=busybox\n",
    "ARG X\n",
    "ARG A=1 B=$A\n",
    "ENV A=$A$A\n",
    "ENV A b c\n",
    "ENV \"A\"='b'\n",
    "RUN make\n",
    "RUN <<EOF\n",
    "EOF\n",
    "RUN [\"a\", \"b\"]\n",
    "RUN cat <<A <<-B\n",
    "A\n",
    "\tB\n",
    "COPY a b\n",
    "COPY --from=a x /y\n",
    "COPY --from=0 x /y\n",
    "COPY --link x y\n",
    "COPY --parents a/./b /c\n",
    "COPY <<EOF /x\n",
    "ADD http://h/x /y\n",
    "ADD git@h:r.git#main:d /y\n",
    "RUN --mount=type=cache,target=/c x\n",
    "RUN --mount=type=bind,from=a,target=/c x\n",
    "RUN --mount=type=secret,id=s x\n",
    "RUN --mount=type=ssh x\n",
    "RUN --mount=type=tmpfs,target=t,size=1g x\n",
    "WORKDIR a\n",
    "WORKDIR ..\n",
    "USER a:b\n",
    "EXPOSE 1-9 80/udp\n",
    "VOLUME [\"/a\"]\n",
    "STOPSIGNAL TERM\n",
    "HEALTHCHECK --interval=1s CMD x\n",
    "SHELL [\"s\"]\n",
    "CMD x\n",
    "ENTRYPOINT [\"x\"]\n",
    "ONBUILD RUN x\n",
    "ONBUILD COPY --from=a x y\n",
    "ONBUILD COPY <<EOF /x\n",
    "LABEL a=b\n",
    "MAINTAINER me\n",
    "# comment\n",
    "# escape=`\n",
    "# check=skip=all\n",
    "#\n",
    "\\\n",
    "`\n",
    "\n",
    "  ",
    "\\",
    "\u{feff}",
    "\r\n",
    "${",
    "é",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read(text in ".{0,200}") {
        lower(&text);
    }

    #[test]
    fn any_bytes_are_read(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let source = Source::Context { context: "context".into(), path: "Dockerfile".into() };
        let mut world = World::default();
        world.files.insert(("context".into(), "Dockerfile".into()), content);
        let _ = common::lower(Request::new(source), &world);
    }

    #[test]
    fn any_arguments_are_read(
        keyword in prop::sample::select(vec![
            "FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "LABEL", "EXPOSE", "USER", "VOLUME",
            "WORKDIR", "SHELL", "CMD", "ENTRYPOINT", "HEALTHCHECK", "STOPSIGNAL", "ONBUILD",
        ]),
        arguments in "[ -~\\n\\\\é]{0,60}",
    ) {
        lower(&format!("FROM busybox\n{keyword} {arguments}\n"));
    }

    #[test]
    fn any_mount_is_read(value in "[a-z=,\"$/0-9]{0,60}") {
        lower(&format!("FROM busybox\nRUN --mount={value} x\n"));
    }

    #[test]
    fn any_pieces_are_lowered(
        pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..30),
    ) {
        let text: String = pieces.concat();
        lower(&text);
        lower(&format!("FROM busybox AS a\n{text}"));
    }

    /// Lowering is a function of its answers: what comes out does not depend on the round.
    #[test]
    fn lowering_is_pure(
        pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..12),
    ) {
        let text = format!("FROM busybox AS a\n{}", pieces.concat());
        let one = common::lower(Request::text(&text), &World::default());
        let two = common::lower(Request::text(&text), &World::default());
        prop_assert_eq!(one.map_err(|e| e.to_string()), two.map_err(|e| e.to_string()));
    }
}

#[test]
fn large_files_are_bounded() {
    let long = format!("FROM busybox\n{}", "RUN x\n".repeat(200_000));
    assert!(fail(&long).message.contains("more than 1048576 bytes"));
    let many = format!("FROM busybox\n{}", "RUN x\n".repeat(20_000));
    assert!(fail(&many).message.contains("more than 20000 instructions"));
    let stages = "FROM busybox\n".repeat(1_001);
    assert!(fail(&stages).message.contains("more than 1000 stages"));
}

#[test]
fn growing_variables_are_bounded() {
    let doubling = format!("FROM busybox\nENV A=xxxxxxxx\n{}", "ENV A=$A$A\n".repeat(40));
    assert!(fail(&doubling).message.contains("longer than"));
    let heavy = format!("FROM busybox\nENV A={}\n{}", "x".repeat(100_000), "RUN x\n".repeat(5_000));
    assert!(fail(&heavy).message.contains("more than 67108864 bytes"));
    let many: String = (0..3_000).map(|i| format!(" V{i}=1")).collect();
    assert!(fail(&format!("FROM busybox\nENV{many}\n")).message.contains("2000 variables"));
}

#[test]
fn triggers_without_end_are_bounded() {
    // Each image's trigger copies from another image, whose own triggers do not run.
    let onbuild = serde_json::json!({"OnBuild": ["COPY --from=alpine a b", "FROM x"]});
    let world = World::default().with_image("evil", onbuild);
    let error = common::lower(Request::text("FROM evil\n"), &world).unwrap_err();
    assert!(error.message.contains("FROM isn't allowed"), "{error}");
    let two = serde_json::json!({"OnBuild": ["RUN a\nRUN b"]});
    let world = World::default().with_image("evil", two);
    let error = common::lower(Request::text("FROM evil\n"), &world).unwrap_err();
    assert!(error.message.contains("one instruction"), "{error}");
}

#[test]
fn failed_and_foreign_answers_are_refused() {
    let frontend = DockerfileFrontend::new(Request::text("FROM busybox\n"));
    let Lowered::Questions(questions) = frontend.lower(&Answers::new()).unwrap() else {
        panic!("an image must be asked for");
    };
    let answer = |answer: Answer| {
        let mut answers = Answers::new();
        answers.put(questions[0].clone(), answer);
        frontend.lower(&answers).unwrap_err()
    };
    let error = answer(Answer::Failed { message: "registry is down".into() });
    assert!(error.to_string().starts_with("Dockerfile:1:6: busybox: registry is down"));
    answer(Answer::File { content: None });
    assert!(matches!(&questions[0], Question::Image { reference, .. } if reference == "busybox"));
}

#[test]
fn text_that_is_not_utf8_passes_in_comments_only() {
    let lower = |content: &[u8]| {
        let source = Source::Context { context: "context".into(), path: "Dockerfile".into() };
        let mut world = World::default();
        world.files.insert(("context".into(), "Dockerfile".into()), content.to_vec());
        common::lower(Request::new(source), &world).map_err(|e| e.to_string())
    };
    assert!(lower(b"# caf\xe9\nFROM busybox\n").is_ok());
    let error = lower(b"FROM busybox\nRUN caf\xe9\n").unwrap_err();
    assert!(error.starts_with("Dockerfile:2: the line is not UTF-8"), "{error}");
}
