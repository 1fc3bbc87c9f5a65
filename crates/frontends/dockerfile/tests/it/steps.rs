//! What each instruction makes of the config and the history.

use serde_json::{Value, json};

use crate::common::{history, plan};

/// Instructions on top of busybox, a pointer into the run config, and what stands there.
#[test]
fn instructions_change_the_config() {
    let table: [(&str, &str, Value); 44] = [
        ("ENV A=1 B=\"two words\" C='$A'", "/Env", json!(["A=1", "B=two words", "C=$A"])),
        ("ENV A=1\nENV A=2 B=$A", "/Env", json!(["A=2", "B=1"])),
        ("ENV A one  two ", "/Env", json!(["A=one  two"])),
        ("ENV A=\\ x\\\n  B=y", "/Env", json!(["A= x", "B=y"])),
        ("ENV A=${NO:-default}", "/Env", json!(["A=default"])),
        ("ARG X=1\nENV A=$X", "/Env", json!(["A=1"])),
        ("ENV A=", "/Env", json!(["A="])),
        ("LABEL a=1 \"b c\"='d e'", "/Labels", json!({"a": "1", "b c": "d e"})),
        ("LABEL a=1\nLABEL a=2", "/Labels", json!({"a": "2"})),
        ("LABEL a b c", "/Labels", json!({"a": "b c"})),
        ("CMD echo hi", "/Cmd", json!(["/bin/sh", "-c", "echo hi"])),
        ("CMD [\"echo\", \"hi\"]", "/Cmd", json!(["echo", "hi"])),
        ("CMD ['echo']", "/Cmd", json!(["/bin/sh", "-c", "['echo']"])),
        ("CMD []", "/Cmd", Value::Null),
        ("CMD x", "/ArgsEscaped", json!(true)),
        ("SHELL [\"/bin/bash\", \"-ec\"]\nCMD x", "/Cmd", json!(["/bin/bash", "-ec", "x"])),
        ("ENTRYPOINT [\"e\"]", "/Entrypoint", json!(["e"])),
        ("ENTRYPOINT [\"e\"]", "/Cmd", Value::Null),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", "/Cmd", json!(["c"])),
        ("ENTRYPOINT []", "/Entrypoint", Value::Null),
        ("ENTRYPOINT a $b", "/Entrypoint", json!(["/bin/sh", "-c", "a $b"])),
        ("USER a:b", "/User", json!("a:b")),
        ("ARG U=me\nUSER ${U}", "/User", json!("me")),
        ("WORKDIR /a\nWORKDIR b\nWORKDIR ../c", "/WorkingDir", json!("/a/c")),
        ("ENV D=/x\nWORKDIR $D/y", "/WorkingDir", json!("/x/y")),
        ("EXPOSE 80 53/udp", "/ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
        ("EXPOSE 1-2/TCP", "/ExposedPorts", json!({"1/tcp": {}, "2/tcp": {}})),
        ("ENV P=\"1 2\"\nEXPOSE $P", "/ExposedPorts", json!({"1/tcp": {}, "2/tcp": {}})),
        ("EXPOSE 8${NO:-0}", "/ExposedPorts", json!({"80/tcp": {}})),
        ("VOLUME /a /b", "/Volumes", json!({"/a": {}, "/b": {}})),
        ("VOLUME [\"/a b\"]", "/Volumes", json!({"/a b": {}})),
        ("STOPSIGNAL SIGTERM", "/StopSignal", json!("SIGTERM")),
        ("STOPSIGNAL 9", "/StopSignal", json!("9")),
        ("SHELL [\"s\"]", "/Shell", json!(["s"])),
        ("HEALTHCHECK NONE", "/Healthcheck", json!({"Test": ["NONE"]})),
        ("HEALTHCHECK CMD a b", "/Healthcheck", json!({"Test": ["CMD-SHELL", "a b"]})),
        (
            "HEALTHCHECK --interval=1m --timeout=3s --start-period=1s --start-interval=2s \
             --retries=3 CMD [\"a\"]",
            "/Healthcheck",
            json!({"Test": ["CMD", "a"], "Interval": 60_000_000_000_i64,
                   "Timeout": 3_000_000_000_i64, "StartPeriod": 1_000_000_000_i64,
                   "StartInterval": 2_000_000_000_i64, "Retries": 3}),
        ),
        ("HEALTHCHECK --retries=0 CMD a", "/Healthcheck", json!({"Test": ["CMD-SHELL", "a"]})),
        ("ONBUILD RUN a $b", "/OnBuild", json!(["RUN a $b"])),
        ("onbuild  copy a b", "/OnBuild", json!(["copy a b"])),
        ("ONBUILD COPY <<E /x\n$y\nE", "/OnBuild", json!(["COPY <<E /x\n$y\nE"])),
        ("# escape does nothing here\nENV A=c:\\\\x", "/Env", json!(["A=c:\\x"])),
        ("ENV A=1 \\\n# a comment\n\n B=2", "/Env", json!(["A=1", "B=2"])),
        ("   ENV\tA=1", "/Env", json!(["A=1"])),
    ];
    for (text, pointer, want) in table {
        let plan = plan(&format!("FROM busybox\n{text}\n"));
        let mut config = serde_json::to_value(&plan.config.config).unwrap();
        config["Env"].as_array_mut().unwrap().retain(|e| !e.as_str().unwrap().starts_with("PATH="));
        let found = config.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn history_is_worded_as_buildkit_words_it() {
    let table = [
        ("RUN make", "+ RUN /bin/sh -c make # buildkit"),
        ("RUN [\"make\", \"all\"]", "+ RUN make all # buildkit"),
        ("ARG A=1 B\nRUN x", "- ARG A=1 B;+ RUN |2 A=1 B= /bin/sh -c x # buildkit"),
        ("ARG A=1\nENV A=2\nRUN x", "- ARG A=1;- ENV A=2;+ RUN |1 A=2 /bin/sh -c x # buildkit"),
        ("ENV A=2\nARG A=1\nRUN x", "- ENV A=2;- ARG A=1;+ RUN |1 A=1 /bin/sh -c x # buildkit"),
        ("RUN a && \\\n  b", "+ RUN /bin/sh -c a &&   b # buildkit"),
        ("COPY a b /c/", "+ COPY a b /c/ # buildkit"),
        (
            "COPY --chown=1:2 --chmod=755 --link a b",
            "+ COPY --chown=1:2 --chmod=755 a b # buildkit",
        ),
        ("COPY --from=alpine --parents a b", "+ COPY --parents a b # buildkit"),
        ("COPY <<A <<B /d/\na\nA\nb\nB", "+ COPY <<A <<B /d/ # buildkit"),
        ("ADD x.tar https://e.com/y /z/", "+ ADD x.tar https://e.com/y /z/ # buildkit"),
        ("ENV V=v\nCOPY a$V b", "- ENV V=v;+ COPY av b # buildkit"),
        ("WORKDIR /a", "+ WORKDIR /a"),
        ("WORKDIR /", "- WORKDIR /"),
        ("ENV A=1 B='x y'", "- ENV A=1 B=x y"),
        ("LABEL a=\"b\"", "- LABEL a=b"),
        ("CMD [\"a\", \"b\\\"c\"]", "- CMD [\"a\" \"b\\\"c\"]"),
        ("ENTRYPOINT a", "- ENTRYPOINT [\"/bin/sh\" \"-c\" \"a\"]"),
        ("EXPOSE 80 53/udp", "- EXPOSE [53/udp 80/tcp]"),
        ("USER me", "- USER me"),
        ("VOLUME /a /b", "- VOLUME [/a /b]"),
        ("STOPSIGNAL 9", "- STOPSIGNAL 9"),
        ("SHELL [\"a\", \"b\"]", "- SHELL [a b]"),
        ("MAINTAINER me <me@x>", "- MAINTAINER me <me@x>"),
        ("ONBUILD RUN x", ""),
        ("RUN <<E\na\nb\nE", "+ RUN /bin/sh -c a\nb\n # buildkit"),
        ("RUN cat <<E\na\nE", "+ RUN /bin/sh -c cat <<E\na\nE # buildkit"),
        ("RUN <<E\n#!/x\nE", "+ RUN /bin/sh -c /dev/pipes/E # buildkit"),
    ];
    for (text, want) in table {
        let plan = plan(&format!("FROM busybox\n{text}\n"));
        assert_eq!(history(&plan).join(";"), want, "{text}");
        let own = plan.config.history.iter().filter(|h| h.comment.is_some());
        assert!(own.clone().all(|h| h.comment.as_deref() == Some("buildkit.dockerfile.v0")));
        assert_eq!(own.filter(|h| !h.empty_layer).count(), plan.layer_nodes.len(), "{text}");
    }
}

#[test]
fn arguments_have_their_scopes() {
    let run = |text: &str| history(&plan(text)).pop().unwrap();
    let table = [
        ("ARG A=1\nFROM busybox\nRUN x", "+ RUN /bin/sh -c x # buildkit"),
        ("ARG A=1\nFROM busybox\nARG A\nRUN x", "+ RUN |1 A=1 /bin/sh -c x # buildkit"),
        ("ARG A=1\nFROM busybox\nARG A=2\nRUN x", "+ RUN |1 A=2 /bin/sh -c x # buildkit"),
        ("FROM busybox AS a\nARG A=1\nFROM a\nRUN x", "+ RUN |1 A=1 /bin/sh -c x # buildkit"),
        ("FROM busybox AS a\nARG A=1\nFROM busybox\nRUN x", "+ RUN /bin/sh -c x # buildkit"),
        (
            "ARG A=1\nARG B=${A}2\nFROM busybox\nARG B\nRUN x",
            "+ RUN |1 B=12 /bin/sh -c x # buildkit",
        ),
        (
            "FROM busybox\nARG TARGETARCH\nRUN x",
            "+ RUN |1 TARGETARCH=amd64 /bin/sh -c x # buildkit",
        ),
        ("FROM busybox\nARG HTTP_PROXY\nRUN x", "+ RUN |1 HTTP_PROXY= /bin/sh -c x # buildkit"),
    ];
    for (text, want) in table {
        assert_eq!(run(text), want, "{text}");
    }
}
