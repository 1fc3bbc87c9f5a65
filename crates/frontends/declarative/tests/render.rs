//! The Dockerfile that steps stand for.

#[cfg(test)]
#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use ashlar_frontend_declarative::render_dockerfile;
use serde_json::json;
use support::*;

#[test]
fn each_kind_of_step_has_its_line() {
    let steps = steps(&json!([
        {"action": "apt_install", "packages": ["git"]},
        {"action": "apt_install", "packages": []},
        {"action": "workdir", "path": "/my app"},
        {"action": "user", "user": "app"},
        {"action": "run", "command": "make"},
        {"action": "run", "command": "id -u", "user": "www"},
        {"action": "run", "command": "a\nb"},
        {"action": "run", "command": "cat <<EOF"},
        {"action": "run", "command": "--mount=type=cache x"},
        {"action": "run", "command": "[ -e x ]"},
        {"action": "copy", "sources": ["a", "b"], "dst": "c", "user": "7", "mode": "0600"},
        {"action": "copy", "sources": ["it's $x[1]"], "dst": "/d"},
        {"action": "copy_items", "items": [
            {"sources": ["a"], "dst": "b"}, {"sources": ["c"], "dst": "d"}]},
        {"action": "skip_cache"},
        {"action": "make_dir", "path": "/d", "mode": "700"},
    ]));
    let want = r##"FROM debian
RUN apt-get update && apt-get install -y git && rm -rf /var/lib/apt/lists/*
WORKDIR "/my app"
USER app
RUN make
USER www
RUN id -u
USER app
RUN ["/bin/sh", "-c", "a\nb"]
RUN ["/bin/sh", "-c", "cat <<EOF"]
RUN ["/bin/sh", "-c", "--mount=type=cache x"]
RUN ["/bin/sh", "-c", "[ -e x ]"]
COPY --chown=7 --chmod=0600 a b c/
COPY ["it\\'s \\$x[[]1]", "/d"]
COPY a b
COPY c d
# what follows is not taken from the cache
RUN mkdir -p /d && chmod 0700 /d
"##;
    assert_eq!(render_dockerfile("debian", &steps), want);
}
