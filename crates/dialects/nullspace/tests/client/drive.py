"""Drives nullspace-sdk 1.0.3 and its CLI against a server.

Takes NULLSPACE_API_URL, NULLSPACE_API_KEY (of the tenant acme), STRANGER_KEY (of the tenant other) and PRIVATE_IMAGE (of
a registry that wants a password).
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

from nullspace import Template, TemplateBuild
from nullspace.client import NullspaceClient
from nullspace.errors import (
    AuthError,
    BuildError,
    ConflictError,
    FileUploadError,
    MachineError,
    NotFoundError,
)

BIN = pathlib.Path(sys.executable).parent / "nullspace"
STRANGER = os.environ["STRANGER_KEY"]
CASES = []


def case(function):
    CASES.append(function)
    return function


def raises(kind, call, code=None):
    try:
        call()
    except kind as error:
        assert code is None or error.code == code, (error.code, str(error))
        return error
    raise AssertionError(f"no {kind.__name__}")


def spec(*commands):
    template = Template().from_image("busybox:latest")
    for command in commands:
        template = template.run_cmd(command)
    return template


def newest(name):
    return Template.list_builds(name, limit=1).builds[0]


def counters(name, *keys):
    summary = newest(name).cache_summary
    return tuple(getattr(summary, key) for key in keys)


def cli(*arguments, want=0):
    done = subprocess.run([BIN, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == want, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout


def request(method, path, body=None):
    client = NullspaceClient()
    try:
        return client.request(method, path, json=body)
    finally:
        client.close()


@case
def declarative_builds_stream_and_count():
    seen = []
    build = Template.build(spec("echo one > /one", "echo two > /two"), name="counted", on_log_entry=seen.append)
    assert build.status == "ready" and build.canonical_ref == "acme/counted", build
    assert seen[0].kind == "start" and seen[-1].kind == "end"
    assert [entry.offset for entry in seen] == list(range(len(seen)))
    keys = ("final_artifact_misses", "final_artifact_stores", "layer_misses", "layer_stores")
    assert counters("counted", *keys) == (1, 1, 2, 2), newest("counted")
    Template.build(spec("echo one > /one", "echo two > /two"), name="counted")
    keys = ("final_artifact_hits", "final_artifact_misses", "layer_misses", "layer_stores")
    assert counters("counted", *keys) == (1, 0, 0, 0), newest("counted")
    Template.build(spec("echo one > /one", "echo three > /two"), name="counted")
    keys = ("layer_hits", "layer_misses", "layer_stores", "final_artifact_misses")
    assert counters("counted", *keys) == (1, 1, 1, 1), newest("counted")
    Template.build(spec("echo one > /one", "echo three > /two"), name="counted", skip_cache=True)
    keys = ("final_artifact_bypasses", "layer_bypasses", "layer_hits", "layer_misses")
    assert counters("counted", *keys) == (1, 2, 0, 0), newest("counted")


@case
def counters_are_the_entries_of_the_log():
    build = newest("counted")
    snapshot = request("GET", f"/v1/templates/builds/{build.build_id}")
    words = {"hit": "hits", "miss": "misses", "bypass": "bypasses", "stored": "stores"}
    found = dict.fromkeys(snapshot["build"]["cache_summary"], 0)
    for entry in snapshot["entries"]:
        if entry["kind"] == "cache":
            found[f"{entry['cache_kind']}_{words[entry['cache_status']]}"] += 1
            assert entry["cache_subject"], entry
    assert found == snapshot["build"]["cache_summary"], (found, snapshot["build"]["cache_summary"])


@case
def a_build_in_the_background_is_followed():
    build = Template.build_in_background(spec("echo begun", "sleep 1", "echo done"), name="behind")
    assert build.build_id.startswith("tb_") and build.status in ("waiting", "building"), build
    lines = [entry.message for entry in build.logs(follow=True)]
    assert "begun" in lines and "done" in lines, lines
    snapshot = build.get_status(offset=0)
    assert build.status == "ready", build
    assert build.get_status(offset=snapshot.next_offset).entries == []
    half = build.get_status(offset=3)
    assert half.entries[0].offset == 3 and half.next_offset == snapshot.next_offset
    assert build.artifact_ids and build.promotability.promotable and build.artifact_availability.status == "available"


@case
def a_failing_step_is_a_typed_exception():
    error = raises(BuildError, lambda: Template.build(spec("echo before", "exit 7"), name="broken"))
    assert error.phase == "build_step" and error.step_index == 2 and "7" in str(error), vars(error)
    row = newest("broken")
    assert row.status == "error" and row.failure_phase == "build_step"
    assert not row.artifact_ids and row.artifact_availability.status == "failed"
    raises(NotFoundError, lambda: Template.get("broken:default"), "template_not_found")
    assert Template.exists("broken")
    status = request("GET", f"/v1/templates/builds/{row.build_id}")
    assert status["build"]["error_detail"]["details"]["exit_code"] == 7
    assert status["entries"][-1]["kind"] == "error" and status["entries"][-1]["error_detail"]["step_index"] == 2


@case
def a_base_that_is_not_there_fails_in_phase_prepare():
    missing = Template().from_image("127.0.0.1:1/nothing/here:v1").run_cmd("true")
    error = raises(BuildError, lambda: Template.build(missing, name="baseless"))
    assert error.phase == "prepare", vars(error)
    gone = Template().from_template("acme/nothing")
    raises(NotFoundError, lambda: Template.build(gone, name="baseless"), "template_not_found")


@case
def a_blocking_create_raises_what_its_failure_says():
    def create(**more):
        return request("POST", "/v1/templates", {"name": "blocking", "base_image": "busybox", **more})

    assert create(steps=[{"action": "run", "command": "true"}])["name"] == "blocking"
    error = raises(BuildError, lambda: create(steps=[{"action": "run", "command": "exit 3"}]), "build_error")
    assert error.phase == "build_step" and error.step_index == 1 and error.build_id.startswith("tb_"), vars(error)
    login = {"kind": "basic", "username": "me", "password": "wrong"}
    refused = {"base_image": os.environ["PRIVATE_IMAGE"], "base_image_auth": login}
    raises(AuthError, lambda: create(**refused), "unauthorized")


@case
def a_probe_decides_whether_a_start_command_is_ready():
    good = spec("true").set_start_cmd("sleep 1; touch /tmp/up; sleep 60").set_ready_cmd("test -e /tmp/up")
    assert Template.build(good, name="started").status == "ready"
    info = Template.get("started")
    assert info.runtime_defaults.start_cmd.startswith("sleep 1"), info
    bad = {
        "name": "stuck",
        "base_image": "busybox",
        "start_cmd": "sleep 60",
        "runtime_config": {
            "readiness": {
                "kind": "command", "command": "false", "timeout_secs": 1, "interval_ms": 100, "startup_grace_secs": 0,
            }
        },
    }
    build = request("POST", "/v1/templates/builds", bad)
    error = wait(build["build_id"])["build"]["error_detail"]
    assert error["phase"] == "readiness" and "step_index" not in error, error


def wait(build):
    while True:
        snapshot = request("GET", f"/v1/templates/builds/{build}")
        if snapshot["build"]["status"] in ("ready", "error", "cancelled"):
            return snapshot
        time.sleep(0.05)


@case
def dockerfiles_build_with_their_context():
    context = pathlib.Path("context")
    (context / "src").mkdir(parents=True)
    (context / "src" / "hello.txt").write_text("hello\n")
    (context / "empty").write_text("")
    (context / "Dockerfile").write_text(
        "FROM busybox AS base\nARG WHO=nobody\nCOPY src /src\nRUN grep hello /src/hello.txt && echo for $WHO\n"
        "ENV PORT=80\nWORKDIR /srv\nEXPOSE 8080\nLABEL a=b\nHEALTHCHECK --interval=5s CMD test -e /src\n"
    )
    seen = []

    def build(**more):
        template = Template().from_dockerfile(str(context / "Dockerfile"))
        return Template.build(template, name="dockered", on_log_entry=seen.append, **more)

    done = build()
    assert done.status == "ready"
    assert any(entry.message == "for nobody" for entry in seen), [entry.message for entry in seen]
    row = newest("dockered")
    assert row.source_type == "dockerfile" and row.build_backend == "buildkit" and row.dockerfile_digest
    meta = row.oci_metadata
    assert meta.exposed_ports == ["8080/tcp"] and meta.labels == {"a": "b"}, meta
    assert meta.healthcheck.mapped_readiness is not None, meta
    assert "PORT" in row.runtime_defaults.default_env_keys and row.runtime_defaults.default_workdir == "/srv"
    keys = ("layer_misses", "file_blob_misses", "file_blob_stores", "file_blob_hits")
    assert counters("dockered", *keys) == (2, 2, 2, 0), row.cache_summary
    build()
    keys = ("final_artifact_hits", "file_blob_hits", "file_blob_misses", "layer_misses")
    assert counters("dockered", *keys) == (1, 2, 0, 0), newest("dockered").cache_summary
    (context / "empty").write_text("not any more")
    build()
    assert counters("dockered", "layer_misses", "file_blob_misses") == (0, 1), newest("dockered").cache_summary


@case
def secrets_reach_their_step_and_leave_no_trace():
    text = "FROM busybox\nRUN --mount=type=secret,id=key grep -qx 's3cr3t[-]value' /run/secrets/key && echo had it\n"
    pathlib.Path("Secretfile").write_text(text)
    seen = []
    template = Template().from_dockerfile("Secretfile")
    Template.build(
        template, name="secretive", build_secrets=[{"id": "key", "value": "s3cr3t-value"}], on_log_entry=seen.append
    )
    assert any(entry.message == "had it" for entry in seen)
    row = newest("secretive")
    snapshot = request("GET", f"/v1/templates/builds/{row.build_id}")
    assert "s3cr3t-value" not in json.dumps(snapshot)
    raises(MachineError, lambda: request("POST", f"/v1/templates/builds/{row.build_id}/retry", {}), "invalid_request")
    again = request(
        "POST", f"/v1/templates/builds/{row.build_id}/retry", {"build_secrets": [{"id": "key", "value": "s3cr3t-value"}]}
    )
    assert wait(again["build_id"])["build"]["status"] == "ready"


@case
def copies_take_files_and_directories():
    folder = pathlib.Path("folder")
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "b c.txt").write_text("b")
    pathlib.Path("one.txt").write_text("one")
    template = (
        Template()
        .from_image("busybox")
        .copy("one.txt", "/x/", mode=0o600)
        .copy("folder", "/y")
        .run_cmd("cat /x/one.txt '/y/b c.txt' && stat -c %a /x/one.txt")
    )
    seen = []
    Template.build(template, name="copied", on_log_entry=seen.append)
    assert any("600" in entry.message for entry in seen), [entry.message for entry in seen]
    Template.build(Template().from_image("busybox").copy("one.txt", "/x/", force_upload=True), name="copied")
    assert counters("copied", "file_blob_bypasses", "file_blob_stores", "file_blob_misses") == (1, 1, 0)


@case
def a_running_build_is_cancelled_within_seconds():
    build = Template.build_in_background(spec("echo up", "sleep 100"), name="stopped")
    while build.get_status().build.status != "building":
        time.sleep(0.05)
    began = time.monotonic()
    build.cancel(reason="enough")
    snapshot = wait(build.build_id)
    assert time.monotonic() - began < 10
    shown = snapshot["build"]
    assert shown["status"] == "cancelled" and shown["cancellation_reason"] == "enough", shown
    assert "error" not in shown and "failure_phase" not in shown, shown
    assert [e["kind"] for e in snapshot["entries"]].count("cancelled") == 1
    assert snapshot["entries"][-1]["kind"] == "cancelled"
    assert request("POST", f"/v1/templates/builds/{build.build_id}/cancel", {})["build"] == shown
    retried = build.retry()
    assert retried.retry_of_build_id == build.build_id and retried.original_build_id == build.build_id
    again = request("POST", f"/v1/templates/builds/{retried.build_id}/cancel", {})
    wait(again["build"]["build_id"])


@case
def tags_move_by_build_promotion_and_hand():
    first = Template.build(spec("echo 1 > /v"), name="tagged", tags=["v1", "latest"])
    second = Template.build(spec("echo 2 > /v"), name="tagged", tags=["v2", "latest"])
    tags = {tag.tag: tag.build_id for tag in Template.get_tags("tagged")}
    assert tags == {"v1": first.build_id, "v2": second.build_id, "latest": second.build_id}, tags
    raises(BuildError, lambda: Template.build(spec("exit 1"), name="tagged", tags=["latest"]))
    assert {t.tag: t.build_id for t in Template.get_tags("tagged")} == tags
    TemplateBuild.connect(first.build_id).promote(tag="stable")
    assert {t.tag: t.build_id for t in Template.get_tags("tagged")}["stable"] == first.build_id
    failed = newest("tagged")
    raises(
        ConflictError,
        lambda: request("POST", f"/v1/templates/builds/{failed.build_id}/promote", {"tag": "x"}),
        "conflict",
    )
    Template.assign_tags("tagged:v2", ["stable", "extra"])
    assert {t.tag: t.build_id for t in Template.get_tags("tagged")}["stable"] == second.build_id
    Template.remove_tag("tagged", "extra")
    raises(NotFoundError, lambda: Template.remove_tag("tagged", "extra"))


@case
def templates_are_bases_of_others():
    Template.build(spec("echo base > /base").set_runtime_envs({"FROM_BASE": "yes"}), name="parent")
    child = Template().from_template("acme/parent").run_cmd('test "$FROM_BASE" = yes && cat /base')
    seen = []
    Template.build(child, name="child", on_log_entry=seen.append)
    assert any(entry.message == "base" for entry in seen)
    assert newest("child").source_type == "template_base"
    friendly = Template().from_template("parent").run_cmd("cat /base")
    Template.build(friendly, name="child")
    plain = Template().from_image("busybox")
    Template.build(plain, name="plain")
    assert newest("plain").source_type == "oci_import"


@case
def names_change_and_old_ones_still_lead_there():
    Template.build(spec("true"), name="before")
    id_before = Template.get("before").id
    Template.rename("before", "after")
    assert Template.get("before").id == id_before and Template.get("after").name == "after"
    assert [alias.alias_ref for alias in Template.list_aliases("after")] == ["acme/before"]
    raises(ConflictError, lambda: Template.rename("tagged", "before"), "conflict")
    Template.remove_alias("after", "acme/before")
    assert not Template.exists("before") and Template.exists("acme/after")
    Template.delete("after")
    assert not Template.exists("after")
    raises(NotFoundError, lambda: Template.list_builds("after"), "template_not_found")


@case
def strangers_see_what_is_public():
    assert not Template.exists("acme/tagged", api_key=STRANGER)
    Template.set_visibility("tagged", "public")
    assert Template.get("acme/tagged", api_key=STRANGER).visibility == "public"
    assert "acme/tagged" in [t.canonical_ref for t in Template.list(api_key=STRANGER)]
    build = newest("tagged")
    raises(NotFoundError, lambda: Template.list_builds("acme/nothing", api_key=STRANGER))
    client = NullspaceClient(api_key=STRANGER)
    raises(NotFoundError, lambda: client.request("GET", f"/v1/templates/builds/{build.build_id}"))
    client.close()
    Template.set_visibility("tagged", "private")
    assert not Template.exists("acme/tagged", api_key=STRANGER)
    raises(AuthError, lambda: Template.list(api_key="wrong"))


@case
def history_pages_do_not_overlap():
    for i in range(5):
        Template.build(spec(f"echo {i} > /i"), name="paged")
    seen, cursor = [], None
    while True:
        page = Template.list_builds("paged", limit=2, cursor=cursor)
        seen += [build.build_id for build in page.builds]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 5, seen
    assert len(Template.list_builds("paged", status="error").builds) == 0
    assert len(Template.list_builds("paged", source_type="declarative", backend="native").builds) == 5
    raises(MachineError, lambda: request("GET", "/v1/templates/refs/paged/builds?limit=101"), "invalid_request")


@case
def output_with_odd_line_ends_stays_whole():
    seen = []
    Template.build(
        spec(r"printf 'a\302\205b\342\200\250c\342\200\251d\n\377\376\nlast' && echo err >&2"),
        name="odd",
        on_log_entry=seen.append,
    )
    lines = [entry.message for entry in seen]
    assert "a\u0085b\u2028c\u2029d" in lines and "last" in lines, lines
    assert [entry.level for entry in seen if entry.message == "err"] == ["warn"]


@case
def wrong_requests_are_refused_with_typed_errors():
    raises(MachineError, lambda: request("POST", "/v1/templates/builds", {"name": "x"}), "invalid_request")
    raises(
        FileUploadError,
        lambda: request(
            "POST",
            "/v1/templates/builds",
            {
                "name": "x",
                "dockerfile": "FROM busybox",
                "build_context": {"files": [{"path": "a", "entry_type": "file", "blob_id": "nope"}]},
            },
        ),
        "file_upload_error",
    )
    report = Template.validate(spec("true"), name="fine")
    assert report.valid and not report.errors, report
    plan = Template.plan(spec("echo one").set_workdir("/w"), name="fine")
    assert plan.build_plan["run_steps"] == ["echo one"], plan
    assert not Template.exists("fine")


@case
def eight_builds_run_at_once():
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        builds = [pool.submit(Template.build, spec(f"sleep 2; echo {i}"), name=f"many-{i}") for i in range(8)]
        assert all(build.result().status == "ready" for build in builds)
    assert time.monotonic() - began < 14, time.monotonic() - began


@case
def the_cli_speaks_it_all():
    cli("doctor", "--json")
    out = cli("template", "build", "--from-image", "busybox:latest", "--name", "by-cli", "--run-cmd", "echo hi", "--json")
    assert "by-cli" in out, out
    build = newest("by-cli").build_id
    assert build in cli("template", "builds", "by-cli", "--json")
    assert "by-cli" in cli("template", "list")
    cli("template", "get", "by-cli")
    cli("template", "exists", "by-cli")
    cli("template", "get", "by-nobody", want=3)
    cli("template", "build-status", build)
    assert "hi" in cli("template", "logs", build)
    cli("template", "wait", build)
    cli("template", "promote", build, "--tag", "good")
    assert "good" in cli("template", "tag", "list", "by-cli")
    cli("template", "tag", "assign", "by-cli:good", "better")
    cli("template", "tag", "remove", "by-cli", "better")
    cli("template", "rename", "by-cli", "by-cli-2")
    assert "by-cli" in cli("template", "alias", "list", "by-cli-2")
    cli("template", "alias", "remove", "by-cli-2", "acme/by-cli")
    cli("template", "visibility", "set", "by-cli-2", "public")
    cli("template", "validate", "--from-image", "busybox", "--run-cmd", "true")
    cli("template", "plan", "--from-image", "busybox", "--run-cmd", "true")
    claim = json.loads(cli("template", "reserve", "wanted", "--json"))
    cli("template", "claim", "release", claim["claim_token"])
    assert "acme" in cli("template", "namespace", "get", "acme")
    cli("template", "retry", build)
    cli("template", "build", "--from-image", "busybox", "--name", "by-cli-bad", "--run-cmd", "exit 7", want=1)
    cli("template", "delete", "by-cli-2", "--yes") if "--yes" in cli("template", "delete", "--help") else cli(
        "template", "delete", "by-cli-2"
    )


def main():
    wanted = sys.argv[1:]
    failed = []
    for function in CASES:
        if wanted and function.__name__ not in wanted:
            continue
        begun = time.monotonic()
        try:
            function()
        except Exception:  # noqa: BLE001: all cases are tried
            import traceback

            traceback.print_exc()
            failed.append(function.__name__)
        print(f"{function.__name__}: {time.monotonic() - begun:.2f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    print("all well")


main()
