use bollard_buildkit_proto::google::protobuf::Any;

use super::*;

fn status(details: Vec<Any>) -> Status {
    let whole = rpc::Status { code: 2, message: String::new(), details };
    let text = "failed to solve: process \"/bin/sh -c exit 3\" did not complete successfully";
    Status::with_details(Code::Unknown, text, whole.encode_to_vec().into())
}

#[test]
fn line_and_exit_code_come_from_the_details() {
    let any = |name: &str, value: &str| Any {
        type_url: format!("github.com/moby/buildkit/{name}+json"),
        value: value.as_bytes().to_vec(),
    };
    let ranges = r#"{"info":{},"ranges":[{"start":{"line":4},"end":{"line":5}}]}"#;
    let status = status(vec![
        any("stack.Stack", "{}"),
        any("errdefs.Source", ranges),
        any("errdefs.Source", r#"{"ranges":[{"start":{"line":1},"end":{"line":1}}]}"#),
        any("errdefs.Vertex", r#"{"digest":"sha256:aa"}"#),
        any("gatewayapi.ExitMessage", r#"{"Code":3}"#),
        any("gatewayapi.Other", "not JSON"),
    ]);
    assert_eq!(vertex_of(&status).as_deref(), Some("sha256:aa"));
    let failure = of_status(&status, None, "Mine", &Masker::default());
    let place = failure.location.unwrap();
    assert_eq!((place.file.as_str(), place.line, place.end_line), ("Mine", 4, 5));
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Step, Some(3)));
    assert!(failure.message.starts_with("process "), "{}", failure.message);
}

/// What a daemon says when a process of a build has ended with a code.
fn of_process(text: &str) -> Status {
    let exit = Any {
        type_url: "github.com/moby/buildkit/gatewayapi.ExitMessage+json".into(),
        value: br#"{"Code":1}"#.to_vec(),
    };
    let whole = rpc::Status { code: 2, message: String::new(), details: vec![exit] };
    Status::with_details(Code::Unknown, text, whole.encode_to_vec().into())
}

#[test]
fn what_a_daemon_says_of_itself_is_told_from_what_it_quotes() {
    let said = |code: Code, text: &str| Status::new(code, text);
    let quoted = |text: &str| {
        let did = "did not complete successfully: exit code: 1";
        format!("process \"/bin/sh -c {text}\" {did}")
    };
    let exporter = "exporter \"oci\" could not be found";
    let unresolved = "x: failed to resolve source metadata for docker.io/library/x: down";
    let broken = "h2 protocol error: error reading a body from connection";
    let cut = |text: &str| format!("{text}: context canceled");
    let made_here = Status::from_error(Box::new(std::io::Error::other("reset")));
    // Status, is it lost, does it lack an exporter, is an image out of reach.
    let table = [
        (made_here, true, false, false),
        (said(Code::Unavailable, "closing"), true, false, false),
        (said(Code::Internal, broken), true, false, false),
        (said(Code::Cancelled, "stopping"), true, false, false),
        (said(Code::Unknown, &cut("x")), true, false, false),
        (said(Code::Unknown, exporter), false, true, false),
        (said(Code::Unknown, &format!("failed to solve: {exporter}")), false, true, false),
        (said(Code::Unknown, "exporter \"tar\" could not be found"), false, false, false),
        (said(Code::Unknown, &format!("a stage: {exporter}")), false, false, false),
        (said(Code::Unknown, unresolved), false, false, true),
        (said(Code::Unavailable, unresolved), false, false, true),
        // A daemon that is stopped while it pulls, or while a process runs.
        (said(Code::Unknown, &cut(unresolved)), true, false, true),
        (said(Code::Cancelled, unresolved), true, false, true),
        (of_process(&cut(&quoted("sleep 9"))), true, false, false),
        // Words of the user.
        (of_process(&quoted("echo node_exporter could not be found")), false, false, false),
        (of_process(&quoted("echo h2 protocol error")), false, false, false),
        (of_process(&quoted("echo pull access denied")), false, false, false),
        (of_process(&quoted("context canceled")), false, false, false),
        (said(Code::Unknown, &quoted("failed to do request: ")), false, false, false),
        (
            said(Code::Unavailable, "executor failed running [x failed to copy: ]: 1"),
            false,
            false,
            false,
        ),
    ];
    for (status, lost, exporter, unresolved) in table {
        assert_eq!(is_lost(&status), lost, "{status:?}");
        assert_eq!(lacks_exporter(&status), exporter, "{status:?}");
        assert_eq!(is_unresolved(&status), unresolved, "{status:?}");
    }
}

#[test]
fn an_image_that_went_before_it_was_named_is_told_from_a_file_that_is_missing() {
    let said = |text: &str| is_vanished(&Status::new(Code::Unknown, text));
    let open = "open /d/sha256/dd86: no such file or directory";
    assert!(said(&format!("failed to get digest sha256:dd86: {open}")));
    assert!(!said(&format!("failed to compute cache key: {open}")));
    assert!(!said("failed to get digest sha256:dd86: no space left on device"));
}

#[test]
fn reasons_are_short_and_hold_no_secrets() {
    let masker = Masker::new([b"hunter22".as_slice()]);
    let text = format!("a\n\tb hunter22 {}", "x".repeat(10_000));
    let reason = reason(&text, &masker);
    assert!(reason.starts_with("a b *** xxx"), "{reason}");
    assert_eq!(reason.len(), REASON_CHARS_MAX);
}

#[test]
fn texts_are_sorted_into_kinds_and_secrets_taken_out() {
    let masker = Masker::new([b"hunter22".as_slice()]);
    let table = [
        ("x: exit code: 137", FailureKind::Step),
        ("dockerfile parse error on line 3: unknown instruction: RUNN", FailureKind::Definition),
        ("docker.io/library/x: failed to resolve source metadata for y", FailureKind::Source),
        ("unexpected status: 401 Unauthorized", FailureKind::Auth),
        ("target stage \"x\" could not be found", FailureKind::Definition),
        ("network.host is not allowed: granting entitlement", FailureKind::Definition),
        ("failed to prepare x: write /l: no space left on device", FailureKind::Internal),
        ("failed to solve: mount overlay: read-only file system", FailureKind::Internal),
        ("\"/no space left on device\": not found", FailureKind::Internal),
        ("exporter failed to write", FailureKind::Export),
        ("something nobody has seen before", FailureKind::Internal),
    ];
    for (text, want) in table {
        let status = Status::new(Code::Unknown, format!("hunter22 {text}"));
        let failure = of_status(&status, None, "Dockerfile", &masker);
        assert_eq!(failure.kind, want, "{text}");
        assert!(!failure.message.contains("hunter22"), "{}", failure.message);
    }
    let invalid = Status::new(Code::InvalidArgument, "something about an option");
    let failure = of_status(&invalid, None, "Dockerfile", &masker);
    assert_eq!(failure.kind, FailureKind::Definition);
}
